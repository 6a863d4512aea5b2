//! The child's side of a sandbox: walks the operations of a [`Plan`], then executes the
//! command. Runs in a clone of a process with threads: nothing here allocates, locks or
//! panics.

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::mount::{
    Attributes, raw_fsconfig, raw_fsmount, raw_fsopen, raw_move_mount, raw_open_tree,
    raw_set_attributes,
};
use super::{Errno, check};
use crate::plan::{Op, Plan};

/// What the child writes to the builder when it can't go on. Plain bytes: the two are the
/// same binary.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Failure {
    /// The operation; [`Failure::EXEC`] for the execve.
    pub(crate) op: u32,
    pub(crate) errno: i32,
    /// The kernel's own words, where it has some.
    pub(crate) message: [u8; 160],
    pub(crate) message_len: u32,
}

impl Failure {
    pub(crate) const EXEC: u32 = u32::MAX;
    /// The execve of a program that is there, but whose interpreter is not.
    pub(crate) const INTERPRETER: u32 = u32::MAX - 1;
    pub(crate) const SIZE: usize = size_of::<Failure>();

    /// Reads what the other side has written.
    pub(crate) fn from_bytes(bytes: &[u8; Failure::SIZE]) -> Failure {
        // SAFETY: Failure is repr(C) of integers and bytes: every bit pattern is valid.
        unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) }
    }

    /// Returns the kernel's own words.
    pub(crate) fn message(&self) -> String {
        let length = (self.message_len as usize).min(self.message.len());
        let text = String::from_utf8_lossy(&self.message[..length]);
        // The first two bytes are the severity: "e proc: …".
        text.get(2..).unwrap_or("").trim().to_owned()
    }
}

/// `execve`'s vectors: pointers into the plan's strings, made before the clone.
pub(crate) struct Vectors {
    pub(crate) args: Vec<*const libc::c_char>,
    pub(crate) env: Vec<*const libc::c_char>,
}

impl Vectors {
    /// Prepares the vectors of `plan`, which must outlive them.
    pub(crate) fn of(plan: &Plan) -> Vectors {
        let pointers = |strings: &[std::ffi::CString]| {
            let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
            pointers.push(std::ptr::null());
            pointers
        };
        Vectors {
            args: pointers(&plan.exec.args),
            env: pointers(&plan.exec.env),
        }
    }
}

/// Where the walk stands.
struct Position {
    /// The new root.
    root: RawFd,
    /// What targets are below: the root, or a directory within it.
    base: RawFd,
    /// The socket to the builder.
    sync: RawFd,
}

struct Trouble {
    errno: Errno,
    context: RawFd,
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Trouble {
        Trouble { errno, context: -1 }
    }
}

/// Does all that the plan says. `sync` is a socket to the builder: it sends one byte when the
/// id maps are written, and reads a [`Failure`] or, from a successful exec, end of file.
pub(crate) fn run(plan: &Plan, vectors: &Vectors, sync: RawFd) -> ! {
    let mut at = Position {
        root: plan.root,
        base: plan.root,
        sync,
    };
    for (index, op) in plan.ops.iter().enumerate() {
        if let Err(trouble) = perform(op, &mut at) {
            fail(at.sync, index as u32, &trouble);
        }
    }
    // As execvp(3): the last error that says that there is a file wins over "not found".
    let mut errno = Errno::ENOENT;
    let mut op = Failure::EXEC;
    for candidate in &plan.exec.candidates {
        // SAFETY: path and vectors are NUL-terminated and outlive the call.
        unsafe {
            libc::execve(
                candidate.as_ptr(),
                vectors.args.as_ptr(),
                vectors.env.as_ptr(),
            )
        };
        match Errno::last() {
            Errno::ENOENT | Errno::ENOTDIR => {
                // SAFETY: the path is NUL-terminated.
                if unsafe { libc::access(candidate.as_ptr(), libc::F_OK) } == 0 {
                    op = Failure::INTERPRETER;
                }
            }
            Errno::EACCES => errno = Errno::EACCES,
            other => {
                errno = other;
                break;
            }
        }
    }
    if errno != Errno::ENOENT {
        op = Failure::EXEC;
    }
    fail(at.sync, op, &errno.into())
}

fn fail(sync: RawFd, op: u32, trouble: &Trouble) -> ! {
    let mut failure = Failure {
        op,
        errno: trouble.errno as i32,
        message: [0; 160],
        message_len: 0,
    };
    if trouble.context >= 0 {
        // SAFETY: reads at most the buffer's length into it.
        let read = unsafe {
            libc::read(
                trouble.context,
                failure.message.as_mut_ptr().cast(),
                failure.message.len(),
            )
        };
        failure.message_len = u32::try_from(read).unwrap_or(0);
    }
    // SAFETY: writes the struct's own bytes; _exit does not return.
    unsafe {
        libc::write(sync, (&raw const failure).cast(), Failure::SIZE);
        libc::_exit(127)
    }
}

/// `struct open_how` of `openat2(2)`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens a target below the root, as a path only. Symbolic links are resolved inside, or
/// refused where `resolve` says so.
fn open_target(root: RawFd, path: &CStr, flags: i32, resolve: u64) -> Result<RawFd, Errno> {
    let resolve = libc::RESOLVE_IN_ROOT | resolve;
    let how = OpenHow {
        flags: (libc::O_PATH | libc::O_CLOEXEC | flags) as u64,
        mode: 0,
        resolve,
    };
    // SAFETY: how is a struct open_how of the size passed; the path is NUL-terminated.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root,
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        )
    })?;
    Ok(fd as RawFd)
}

/// Opens an absolute path without following any link.
pub(super) fn open_real(path: &CStr, flags: i32) -> Result<RawFd, Errno> {
    let how = OpenHow {
        flags: flags as u64,
        mode: 0,
        resolve: libc::RESOLVE_NO_SYMLINKS,
    };
    // SAFETY: how is a struct open_how of the size passed; the path is NUL-terminated.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        )
    })?;
    Ok(fd as RawFd)
}

fn close(fd: RawFd) {
    // SAFETY: the descriptor is ours and not used again.
    unsafe { libc::close(fd) };
}

fn attach_to(root: RawFd, mount: RawFd, target: &CStr) -> Result<(), Errno> {
    let at = open_target(root, target, 0, 0)?;
    let result = raw_move_mount(mount, at, c"");
    close(at);
    result
}

fn ensure(root: RawFd, parent: &CStr, name: &CStr, directory: bool) -> Result<(), Errno> {
    let resolve = libc::RESOLVE_NO_SYMLINKS;
    let parent = open_target(root, parent, libc::O_DIRECTORY, resolve)?;
    let made = if directory {
        // SAFETY: NUL-terminated path.
        check(unsafe { libc::mkdirat(parent, name.as_ptr(), 0o755) }.into())
    } else {
        let mode = libc::S_IFREG | 0o644;
        // SAFETY: NUL-terminated path.
        check(unsafe { libc::mknodat(parent, name.as_ptr(), mode, 0) }.into())
    };
    close(parent);
    match made {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn mount_new(
    root: RawFd,
    fstype: &CStr,
    options: &[(std::ffi::CString, Option<std::ffi::CString>)],
    attributes: Attributes,
    target: &CStr,
) -> Result<(), Trouble> {
    let context = raw_fsopen(fstype)?;
    let trouble = |errno| Trouble { errno, context };
    for (key, value) in options {
        raw_fsconfig(context, key, value.as_deref()).map_err(trouble)?;
    }
    let mount = raw_fsmount(context, attributes).map_err(trouble)?;
    let at = open_target(root, target, libc::O_DIRECTORY, libc::RESOLVE_NO_SYMLINKS)?;
    raw_move_mount(mount, at, c"")?;
    close(at);
    close(mount);
    close(context);
    Ok(())
}

fn mask(root: RawFd, target: &CStr, null: RawFd) -> Result<(), Errno> {
    let at = match open_target(root, target, 0, libc::RESOLVE_NO_SYMLINKS) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        other => other?,
    };
    // SAFETY: stat is plain data, and the call fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: at is open, and stat is writable.
    check(unsafe { libc::fstat(at, &raw mut stat) }.into())?;
    let cover = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        let context = raw_fsopen(c"tmpfs")?;
        let mount = raw_fsmount(
            context,
            Attributes::READ_ONLY.and(Attributes::NOSUID_NODEV_NOEXEC),
        )?;
        close(context);
        mount
    } else {
        raw_open_tree(null, c"", false)?
    };
    raw_move_mount(cover, at, c"")?;
    close(cover);
    close(at);
    Ok(())
}

fn make_read_only(root: RawFd, target: &CStr) -> Result<(), Errno> {
    let at = match open_target(root, target, 0, libc::RESOLVE_NO_SYMLINKS) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        other => other?,
    };
    let copy = raw_open_tree(at, c"", true)?;
    raw_set_attributes(copy, Attributes::READ_ONLY, true)?;
    raw_move_mount(copy, at, c"")?;
    close(copy);
    close(at);
    Ok(())
}

fn loopback_up() -> Result<(), Errno> {
    // SAFETY: ifreq is plain data; the ioctls read and write just it.
    unsafe {
        let socket =
            check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        check(libc::ioctl(socket as RawFd, libc::SIOCGIFFLAGS, &raw mut request).into())?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket as RawFd, libc::SIOCSIFFLAGS, &raw mut request).into())?;
        close(socket as RawFd);
    }
    Ok(())
}

/// Closes all but the first three descriptors and the builder's socket, which becomes the
/// fourth.
fn close_all_but(sync: &mut RawFd) -> Result<(), Errno> {
    if *sync != 3 {
        // SAFETY: descriptors only; what was the fourth is closed.
        check(unsafe { libc::dup3(*sync, 3, libc::O_CLOEXEC) }.into())?;
        *sync = 3;
    }
    // SAFETY: closes descriptors, touches no memory; the child drops none of their owners.
    if check(unsafe { libc::syscall(libc::SYS_close_range, 4u32, u32::MAX, 0) }).is_err() {
        // Linux before 5.9: one by one.
        for fd in 4..65536 {
            close(fd);
        }
    }
    Ok(())
}

/// `capset(2)`, version 3: two words of each set.
pub(crate) fn set_capabilities(mask: u64) -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let word = |bits: u64| Data {
        effective: bits as u32,
        permitted: bits as u32,
        inheritable: 0,
    };
    let data = [word(mask), word(mask >> 32)];
    // SAFETY: header and data have the layout of version 3.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// Sends signals of the builder's death, unless it is dead already: then its end of the
/// socket is closed.
fn die_with_builder(sync: RawFd) -> Result<(), Errno> {
    // SAFETY: prctl takes integers; poll reads and writes one pollfd.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into())?;
        let mut poll = libc::pollfd {
            fd: sync,
            events: 0,
            revents: 0,
        };
        check(libc::poll(&raw mut poll, 1, 0).into())?;
        if poll.revents & (libc::POLLHUP | libc::POLLERR) != 0 {
            libc::_exit(137);
        }
    }
    Ok(())
}

fn perform(op: &Op, at: &mut Position) -> Result<(), Trouble> {
    let Position { root, base, sync } = at;
    match op {
        Op::AwaitIdMaps => {
            let mut byte = 0u8;
            // SAFETY: reads one byte into one byte.
            let read =
                check(unsafe { libc::read(*sync, (&raw mut byte).cast(), 1) } as libc::c_long)?;
            if read == 0 {
                // The builder is gone.
                // SAFETY: does not return.
                unsafe { libc::_exit(137) };
            }
        }
        Op::BecomeRoot => become_user(0, 0, &[])?,
        Op::DieWithBuilder => die_with_builder(*sync)?,
        Op::NewSession => {
            // SAFETY: takes nothing.
            check(unsafe { libc::setsid() }.into())?;
        }
        Op::ResetSignals => super::process::reset_signals(),
        Op::Stdio(fds) => {
            for (to, from) in fds.iter().enumerate() {
                // SAFETY: descriptors only. dup2 clears CLOEXEC; the plan's descriptors are
                // above 2, so none is overwritten before it is used.
                check(unsafe { libc::dup2(*from, to as RawFd) }.into())?;
            }
        }
        Op::Terminal { owner, size } => super::terminal::take(*sync, *owner, *size)?,
        Op::MakeMountsPrivate => {
            // SAFETY: null source, type and data are allowed for a change of propagation.
            let result = unsafe {
                libc::mount(
                    std::ptr::null(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                )
            };
            check(result.into())?;
        }
        Op::AttachRoot => {
            // On top of the old root, which is there always, and let go of a moment later.
            raw_move_mount(*root, libc::AT_FDCWD, c"/")?;
        }
        Op::Mount {
            fstype,
            options,
            attributes,
            target,
            optional,
        } => {
            let result = mount_new(*base, fstype, options, *attributes, target);
            if !optional {
                result?;
            }
        }
        Op::Enter(path) => {
            *base = if path.is_empty() {
                *root
            } else {
                open_target(*root, path, libc::O_DIRECTORY, libc::RESOLVE_NO_SYMLINKS)?
            };
        }
        Op::Attach { mount, target } => attach_to(*base, *mount, target)?,
        Op::Ensure {
            parent,
            name,
            directory,
        } => ensure(*base, parent, name, *directory)?,
        Op::CreateFile(path, mode) => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
            // SAFETY: NUL-terminated path.
            let fd = unsafe { libc::openat(*base, path.as_ptr(), flags, *mode) };
            check(fd.into())?;
            close(fd);
        }
        Op::CreateDir(path, mode) => {
            // SAFETY: NUL-terminated path.
            check(unsafe { libc::mkdirat(*base, path.as_ptr(), *mode) }.into())?;
        }
        Op::Symlink { to, at } => {
            // SAFETY: NUL-terminated paths.
            check(unsafe { libc::symlinkat(to.as_ptr(), *base, at.as_ptr()) }.into())?;
        }
        Op::Mask { target, null } => mask(*root, target, *null)?,
        Op::MakeReadOnly(target) => make_read_only(*root, target)?,
        Op::PivotRoot => {
            // SAFETY: NUL-terminated paths; "." twice stacks the old root below the new one.
            unsafe {
                check(libc::fchdir(*root).into())?;
                check(libc::syscall(
                    libc::SYS_pivot_root,
                    c".".as_ptr(),
                    c".".as_ptr(),
                ))?;
                check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
                check(libc::chdir(c"/".as_ptr()).into())?;
            }
        }
        Op::SetHostname(name) => {
            let bytes = name.as_bytes();
            // SAFETY: the pointer is valid for the length passed.
            check(unsafe { libc::sethostname(bytes.as_ptr().cast(), bytes.len()) }.into())?;
        }
        Op::LoopbackUp => loopback_up()?,
        Op::SetRlimit(resource, soft, hard) => {
            let limit = libc::rlimit {
                rlim_cur: *soft,
                rlim_max: *hard,
            };
            // SAFETY: limit is a valid struct rlimit.
            check(unsafe { libc::setrlimit(*resource, &raw const limit) }.into())?;
        }
        Op::Umask(mask) => {
            // SAFETY: takes an integer.
            unsafe { libc::umask(*mask) };
        }
        Op::RestrictScope(ruleset) => {
            // SAFETY: takes a descriptor and flags.
            check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, *ruleset, 0) })?;
        }
        Op::CloseDescriptors => close_all_but(sync)?,
        Op::NewKeyring => {
            // SAFETY: a null name asks for an anonymous keyring.
            let result = check(unsafe {
                libc::syscall(
                    libc::SYS_keyctl,
                    libc::KEYCTL_JOIN_SESSION_KEYRING,
                    std::ptr::null::<u8>(),
                )
            });
            match result {
                Ok(_) | Err(Errno::ENOSYS) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Op::LimitBoundingSet(mask) => {
            for capability in 0..64u32 {
                if mask & (1 << capability) == 0 {
                    // SAFETY: takes integers. EINVAL: a number that this kernel does not have.
                    let result = check(
                        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into(),
                    );
                    match result {
                        Ok(_) => {}
                        Err(Errno::EINVAL) => break,
                        Err(errno) => return Err(errno.into()),
                    }
                }
            }
        }
        Op::Seccomp(program) => super::seccomp::install(program.as_slice())?,
        Op::BecomeUser(uid, gid, groups) => become_user(*uid, *gid, groups)?,
        Op::SetCapabilities(mask) => set_capabilities(*mask)?,
        Op::Chdir(path) => {
            // SAFETY: NUL-terminated path.
            check(unsafe { libc::chdir(path.as_ptr()) }.into())?;
        }
    }
    Ok(())
}

/// Sets groups, gid and uid by raw calls: libc's wrappers would signal all threads, and the
/// child has but one.
fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: groups is valid for its length; the rest are integers.
    unsafe {
        check(libc::syscall(
            libc::SYS_setgroups,
            groups.len(),
            groups.as_ptr(),
        ))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}
