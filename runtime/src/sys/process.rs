//! Processes: fork, clone3(2), pidfds, death signals.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use super::{Errno, check};

/// Which side of a fork the caller is on.
pub enum Fork {
    /// The old process, with the pid of the new one.
    Parent(libc::pid_t),
    /// The new process.
    Child,
}

/// Forks a process that has one thread, so that the child may allocate and lock.
///
/// # Errors
/// EAGAIN at a process limit; EBUSY where there is more than one thread.
pub fn fork_single_threaded() -> Result<Fork, Errno> {
    if thread_count() != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: the process has one thread, so the child's memory is in a consistent state.
    match check(unsafe { libc::fork() }.into())? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as libc::pid_t)),
    }
}

/// Returns how many threads this process has.
pub fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Lets all other processes go first, at the processors and at the disk.
pub fn lower_priority() {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    const IOPRIO_CLASS_IDLE: libc::c_long = 3 << 13;
    // SAFETY: the calls take numbers only. That one of them fails changes nothing.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0,
            IOPRIO_CLASS_IDLE,
        );
    }
}

/// Ends the process at once: no destructors, no flushing. For forked children.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any integer and does not return.
    unsafe { libc::_exit(code) }
}

/// The arguments of `clone3(2)`, version 1.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Clones this process into new namespaces with the memory of a fork. In the new process,
/// calls `child`, and ends when that returns.
///
/// The child of a process with threads may call nothing but async-signal-safe functions:
/// that is why this is for [`super::child`] alone.
pub(crate) fn clone_into_namespaces(
    namespaces: u64,
    use_clone3: bool,
    child: impl FnOnce(),
) -> Result<(libc::pid_t, OwnedFd), Errno> {
    let mut pidfd: RawFd = -1;
    let mut result = Err(Errno::ENOSYS);
    if use_clone3 {
        let args = CloneArgs {
            flags: namespaces | libc::CLONE_PIDFD as u64,
            pidfd: (&raw mut pidfd) as u64,
            exit_signal: libc::SIGCHLD as u64,
            ..CloneArgs::default()
        };
        // SAFETY: without CLONE_VM this is a fork: the child has its own copy of all memory and
        // runs only `child`, which walks prepared operations without allocating or locking.
        // args is a struct clone_args of the size passed.
        result = check(unsafe {
            libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>())
        });
    }
    // Some containers refuse what they don't know with EPERM; then clone(2) tells the truth.
    if matches!(result, Err(Errno::ENOSYS | Errno::EPERM)) {
        let flags = namespaces | libc::CLONE_PIDFD as u64 | libc::SIGCHLD as u64;
        // SAFETY: as above; a null stack means to go on on a copy of this one.
        // (Argument order of x86-64 and arm64: flags, stack, parent_tid, …; CLONE_PIDFD
        // stores through parent_tid.)
        result = check(unsafe {
            libc::syscall(
                libc::SYS_clone,
                flags,
                std::ptr::null::<u8>(),
                &raw mut pidfd,
                std::ptr::null::<u8>(),
                std::ptr::null::<u8>(),
            )
        });
    }
    match result? {
        0 => {
            child();
            exit_now(127)
        }
        pid => {
            // SAFETY: the kernel has just stored a new descriptor here.
            Ok((pid as libc::pid_t, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// Why there is no new process in the namespaces of another one.
pub(crate) enum NotJoined {
    /// There is no new process at all.
    Clone(Errno),
    /// It can't go there.
    Join(Errno),
}

/// Starts a process in the namespaces of another one, and returns its pid when the one in between
/// has gone, which joins them, so that the new one begins in the pid namespace too. The new one
/// does not keep `ours`.
///
/// The pid comes by a pipe of its own: what the new process has to say of itself may come first.
///
/// Who is in the sandbox can see both: so neither can be traced or looked into before the new
/// one has executed its command.
pub(crate) fn clone_into_process(
    target: BorrowedFd<'_>,
    namespaces: libc::c_int,
    ours: Option<RawFd>,
    child: impl FnOnce(),
) -> Result<libc::pid_t, NotJoined> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(NotJoined::Clone)?;
    let flags = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of all memory and
    // makes system calls only.
    let clone = |flags: u64| unsafe {
        check(libc::syscall(
            libc::SYS_clone,
            flags,
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
        ))
    };
    // The pid, or minus the number of an error.
    let tell = |answer: i32| {
        let answer = answer.to_ne_bytes();
        // SAFETY: writes the bytes of an integer.
        unsafe { libc::write(writer.as_raw_fd(), answer.as_ptr().cast(), answer.len()) };
    };
    let between = clone(flags).map_err(NotJoined::Clone)?;
    if between != 0 {
        // SAFETY: waits for a child of this process.
        unsafe { libc::waitpid(between as libc::pid_t, std::ptr::null_mut(), 0) };
        let mut answer = [0; size_of::<i32>()];
        let mut reader = std::fs::File::from(reader);
        // Nothing, where it was killed.
        let read = std::io::Read::read_exact(&mut reader, &mut answer);
        read.map_err(|_| NotJoined::Clone(Errno::ESRCH))?;
        return match i32::from_ne_bytes(answer) {
            pid @ 1.. => Ok(pid),
            errno => Err(NotJoined::Join(Errno::from_raw(-errno))),
        };
    }
    if let Some(ours) = ours {
        close_in_child(ours);
    }
    // SAFETY: integers only.
    let joined = unsafe {
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0).into())
            .and_then(|_| check(libc::setns(target.as_raw_fd(), namespaces).into()))
    };
    match joined.and_then(|_| clone(flags | libc::CLONE_PARENT as u64)) {
        Ok(0) => {
            child();
            exit_now(127)
        }
        Ok(pid) => {
            tell(pid as i32);
            exit_now(0)
        }
        Err(errno) => {
            tell(-(errno as i32));
            exit_now(127)
        }
    }
}

/// Returns the user namespace that the one of a process lies in. See `ioctl_ns(2)`.
pub(crate) fn parent_user_namespace(pid: libc::pid_t) -> std::io::Result<OwnedFd> {
    const NS_GET_PARENT: libc::c_ulong = 0xb702;
    let own = std::fs::File::open(format!("/proc/{pid}/ns/user"))?;
    // SAFETY: takes no argument.
    let fd = check(unsafe { libc::ioctl(own.as_raw_fd(), NS_GET_PARENT as _) }.into())?;
    // SAFETY: the kernel has just returned this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Tries `clone3(2)`: starts a process that ends at once.
///
/// # Errors
/// ENOSYS or EPERM where a filter of system calls refuses it.
pub(crate) fn try_clone3() -> Result<(), Errno> {
    let args = CloneArgs {
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM this is a fork, and the child does nothing but end; args is a
    // struct clone_args of the size passed.
    unsafe {
        let pid = check(libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<CloneArgs>(),
        ))?;
        if pid == 0 {
            libc::_exit(0);
        }
        libc::waitpid(pid as libc::pid_t, std::ptr::null_mut(), 0);
    }
    Ok(())
}

/// Makes one file share the data of another, as copies do on btrfs and xfs. See
/// `ioctl_ficlone(2)`.
pub(crate) fn reflink(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: both descriptors are open.
    check(unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) }.into())?;
    Ok(())
}

/// Sets an extended attribute.
pub(crate) fn set_xattr(
    file: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    value: &[u8],
) -> Result<(), Errno> {
    // SAFETY: the name is NUL-terminated, the value valid for its length.
    let result = unsafe {
        libc::fsetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    check(result.into())?;
    Ok(())
}

/// Opens a process that is no child. See `pidfd_open(2)`.
///
/// # Errors
/// ESRCH where there is none.
pub(crate) fn open_process(pid: libc::pid_t) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just returned this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to the process behind a pidfd. See `pidfd_send_signal(2)`.
///
/// # Errors
/// ESRCH where it has ended.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    // SAFETY: a null siginfo is allowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// Makes a program that is about to be started die with the thread that starts it.
/// The thread must outlive it.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    // SAFETY: the closure makes two system calls, both async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // It may have died before the call.
            if libc::getppid() as u32 != parent {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        })
    }
}

/// Sets the disposition of every signal back to its default and unblocks all.
pub fn reset_signals() {
    // The kernel's struct sigaction is smaller than this; all zeros: SIG_DFL, no flags.
    let default = [0u64; 8];
    for signal in 1..=64 {
        // SAFETY: default is readable and as large as the kernel's struct; the old action is not
        // asked for. The raw call, since libc's refuses the two signals that it uses itself.
        // Numbers that can't be set are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u8>(),
                8,
            )
        };
    }
    let _ = nix::sys::signal::sigprocmask(
        nix::sys::signal::SigmaskHow::SIG_SETMASK,
        Some(&nix::sys::signal::SigSet::empty()),
        None,
    );
}

/// Sets a signal that is ignored, which this process may have inherited, back to its default.
pub fn stop_ignoring(signal: Signal) {
    // SAFETY: sigaction is plain data that the call fills; SIG_DFL is a valid disposition.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let signal = signal as libc::c_int;
        if libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
        {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Ignores a signal from now on.
pub fn ignore_signal(signal: Signal) {
    // SAFETY: SIG_IGN is a valid disposition and runs no code of ours.
    unsafe { libc::signal(signal as libc::c_int, libc::SIG_IGN) };
}

/// Returns the version of the Landlock API, 0 where there is none. See `landlock(7)`.
pub fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes a null pointer and a size of 0.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(result).unwrap_or(0)
}

/// Creates a Landlock ruleset that restricts nothing but the scope of abstract unix sockets
/// and, where that is asked for, of signals: they end at the sandbox. Needs ABI 6.
///
/// # Errors
/// ENOSYS, EOPNOTSUPP or E2BIG where the kernel's Landlock is too old or off.
pub fn landlock_scope_ruleset(signals: bool) -> Result<OwnedFd, Errno> {
    #[repr(C)]
    struct RulesetAttr {
        handled_access_fs: u64,
        handled_access_net: u64,
        scoped: u64,
    }
    const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
    const SCOPE_SIGNAL: u64 = 2;
    let attr = RulesetAttr {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: match signals {
            true => SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL,
            false => SCOPE_ABSTRACT_UNIX_SOCKET,
        },
    };
    // SAFETY: attr is a struct landlock_ruleset_attr of the size passed.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attr,
            size_of::<RulesetAttr>(),
            0,
        )
    })?;
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes ownership of a descriptor that the kernel has just handed to this process.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: called once per descriptor, with one that came out of a control message.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Receives bytes from a socket, and a descriptor where one came with them.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), Errno> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut iov = [std::io::IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    let fd = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    Ok((message.bytes, fd.map(own)))
}

/// Closes all descriptors but the first three and one more, in a child that drops none of their
/// owners.
pub(crate) fn close_all_but(kept: BorrowedFd<'_>) {
    let kept = kept.as_raw_fd() as u32;
    let close = |first: u32, last: u32| {
        // SAFETY: closes descriptors, touches no memory; the caller is a child that never
        // returns, so that no owner uses or closes them again.
        first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0
    };
    if close(3, kept - 1) | close(kept + 1, u32::MAX) {
        // Linux before 5.9: one by one.
        for fd in (3..65536).filter(|fd| *fd != kept as RawFd) {
            close_in_child(fd);
        }
    }
}

/// Puts /dev/null in the place of the first three descriptors.
pub(crate) fn use_no_stdio() -> Result<(), Errno> {
    use nix::fcntl::{OFlag, open};
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let null = open("/dev/null", flags, nix::sys::stat::Mode::empty())?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)
}

/// Sends a signal to all processes of a pid namespace but the first, whose pidfd it is, at once:
/// by a process that joins it for that. Returns whether it lived to do so, since those in there
/// may end it.
pub(crate) fn signal_all_beside(first: BorrowedFd<'_>, signal: Signal) -> Result<bool, Errno> {
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
    // Who ignores it never learns how a child ended.
    stop_ignoring(Signal::SIGCHLD);
    let cloned = clone_into_process(first, namespaces, None, || {
        // SAFETY: integers only. The parent of a process is 0 where it is none of the same pid
        // namespace: so this one has left that of its caller, whose processes the signal must
        // not reach.
        let sent = unsafe {
            libc::getppid() == 0
                && (libc::kill(-1, signal as libc::c_int) == 0 || Errno::last() == Errno::ESRCH)
        };
        exit_now(i32::from(!sent))
    });
    let pid = cloned.map_err(|(NotJoined::Clone(errno) | NotJoined::Join(errno))| errno)?;
    use nix::sys::wait::{WaitStatus, waitpid};
    let ended = waitpid(nix::unistd::Pid::from_raw(pid), None);
    Ok(matches!(ended, Ok(WaitStatus::Exited(_, 0))))
}

/// Lets nobody trace this process or look into it who has no power over the host's processes.
pub(crate) fn become_opaque() -> Result<(), Errno> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }.into())?;
    Ok(())
}

/// Asks to be killed when the thread ends that forked this process.
pub(crate) fn die_with_forker() -> Result<(), Errno> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into())?;
    Ok(())
}

/// Closes a descriptor that a clone has a copy of and no use for.
pub(crate) fn close_in_child(fd: RawFd) {
    // SAFETY: called in the child alone, which drops nothing: no owner will close it again.
    unsafe { libc::close(fd) };
}
