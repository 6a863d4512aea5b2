//! One step: a spec compiled to operations, cloned, watched.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::builder::{Builder, disabled};
use crate::capability::CapabilitySet;
use crate::error::Error;
use crate::plan::{Exec, Op, Plan};
use crate::seccomp::Program;
use crate::spec::{Addition, Create, Network, Spec, Stdio, User};
use crate::sys::child::{self, Failure, Vectors};
use crate::sys::mount::{self, Attributes};
use crate::sys::process::{self, NotJoined};

/// The size of /dev/shm that docker gives a container, in bytes.
const SHM_SIZE: u64 = 64 << 20;

/// Devices of the host that a step has, beside the links and file systems below /dev.
/// The OCI default: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices>.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links below /dev, as the OCI runtime spec asks for.
const DEV_LINKS: [(&std::ffi::CStr, &str); 6] = [
    (c"/proc/self/fd", "fd"),
    (c"/proc/self/fd/0", "stdin"),
    (c"/proc/self/fd/1", "stdout"),
    (c"/proc/self/fd/2", "stderr"),
    (c"pts/ptmx", "ptmx"),
    (c"/proc/kcore", "core"),
];

/// Paths that a step sees as empty: they tell about the host, or act on it.
const MASKED: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// Paths that a step may read but not write.
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Returns what a shell would say: the code, or 128 and the signal's number.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }

    /// Tells whether it ended well.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }
}

/// A running step. Dropping it kills it, with all that it started.
pub struct Step {
    pidfd: OwnedFd,
    pid: i32,
    exit: Option<Exit>,
    terminal: Option<OwnedFd>,
}

/// How long [`Killer::kill`] waits, in milliseconds: a process in uninterruptible sleep must
/// not hold up the builder's end.
const KILL_PATIENCE: u16 = 500;

/// Kills a step from another thread. See [`Step::killer`].
pub struct Killer(OwnedFd);

impl Killer {
    /// Returns a handle of a step of another process.
    ///
    /// # Errors
    /// ESRCH where there is no such process.
    pub fn open(pid: i32) -> std::io::Result<Killer> {
        Ok(Killer(process::open_process(pid)?))
    }

    /// Waits until the step has ended, at most so long. Returns whether it has.
    pub fn wait(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut ended = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ended, timeout) {
                Ok(0) if Instant::now() >= until => return false,
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Kills the step and all its processes, and waits a moment until they are gone. Does
    /// nothing where it has ended.
    pub fn kill(&self) {
        if process::send_signal(self.0.as_fd(), Signal::SIGKILL).is_ok() {
            // The first process of a pid namespace ends after all others in it.
            let mut ended = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ended, PollTimeout::from(KILL_PATIENCE));
        }
    }

    /// Sends a signal to the step's first process, which the kernel lets it ignore unless it has
    /// a handler for it.
    pub fn signal(&self, signal: Signal) {
        let _ = process::send_signal(self.0.as_fd(), signal);
    }
}

impl Step {
    /// Returns the process id on the host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Takes the other end of the step's terminal, where it has one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Returns a handle that kills this step from elsewhere.
    ///
    /// # Errors
    /// EMFILE.
    pub fn killer(&self) -> Result<Killer, Error> {
        let fd = self.pidfd.try_clone();
        fd.map(Killer).map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EMFILE));
            Error::call("dup(pidfd)", errno)
        })
    }

    /// Waits for the end of the step's first process; the kernel then kills what is left of it.
    ///
    /// # Errors
    /// What waitid(2) says.
    pub fn wait(&mut self) -> Result<Exit, Error> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let exit = loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Ok(WaitStatus::Exited(_, code)) => break Exit::Code(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => break Exit::Signal(signal as i32),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::call(format!("waitid({})", self.pid), errno)),
            }
        };
        self.exit = Some(exit);
        Ok(exit)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.exit.is_none() {
            let _ = process::send_signal(self.pidfd.as_fd(), Signal::SIGKILL);
            let _ = self.wait();
        }
    }
}

impl Builder {
    /// Starts a step: new user, mount, pid, ipc, uts and cgroup namespaces (and a net
    /// namespace, where asked), then the command. Returns when the command has been executed.
    ///
    /// # Errors
    /// [`Error::Call`] names the call that failed; [`Error::Exec`] a command that is not there.
    pub fn spawn(&self, spec: Spec) -> Result<Step, Error> {
        let ids = self.step_ids();
        for id in [spec.user.uid, spec.user.gid]
            .iter()
            .chain(&spec.user.groups)
        {
            if *id >= ids {
                return Err(Error::UnmappedId(*id, ids));
            }
        }
        let builder = self.clone();
        self.spawner().run(move || start(&builder, spec))
    }

    /// Starts a command in the sandbox of a running step, which has to be of this very builder's
    /// namespace: see [`Builder::join`]. Returns when the command has been executed.
    ///
    /// # Errors
    /// As for [`Builder::spawn`].
    pub fn add(&self, pid: i32, addition: Addition) -> Result<Step, Error> {
        let ids = self.step_ids();
        let user = &addition.user;
        for id in [user.uid, user.gid].iter().chain(&user.groups) {
            if *id >= ids {
                return Err(Error::UnmappedId(*id, ids));
            }
        }
        let builder = self.clone();
        self.spawner().run(move || join(&builder, pid, addition))
    }
}

/// Descriptors that the plan names by number, kept open until the child has executed.
#[derive(Default)]
struct Kept(Vec<OwnedFd>);

impl Kept {
    /// Keeps a descriptor, with a number above those of standard input, output and error.
    fn keep(&mut self, fd: OwnedFd) -> Result<RawFd, Error> {
        let fd = if fd.as_raw_fd() > 2 {
            fd
        } else {
            let copy = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(3))
                .map_err(|e| Error::call("fcntl(F_DUPFD_CLOEXEC)", e))?;
            process::own(copy)
        };
        let raw = fd.as_raw_fd();
        self.0.push(fd);
        Ok(raw)
    }
}

fn c(bytes: impl Into<Vec<u8>>, what: &'static str) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| Error::NulByte(what))
}

fn open_path(path: &str) -> Result<OwnedFd, Error> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| Error::call(format!("open({path}, O_PATH)"), e))
}

fn clone_host(path: &str, recursive: bool) -> Result<OwnedFd, Error> {
    let fd = open_path(path)?;
    mount::clone_tree(fd.as_fd(), c"", recursive)
        .map_err(|e| Error::call(format!("open_tree({path}, OPEN_TREE_CLONE)"), e))
}

/// Lets any user open a pipe anew, as `/dev/stdout` does: it belongs to the caller, who is
/// nobody to the step. Only who has the pipe already finds it (in /proc/self/fd).
fn let_all_open(fd: &OwnedFd) {
    const PIPEFS_MAGIC: FsType = FsType(0x5049_5045);
    if fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == PIPEFS_MAGIC) {
        // A pipe of somebody else can still be read and written as it is.
        let _ = fchmod(fd, Mode::from_bits_truncate(0o666));
    }
}

/// Returns what gives a command its first three descriptors. A terminal is opened where /dev is.
fn stdio(stdio: Stdio, owner: u32, kept: &mut Kept) -> Result<Op, Error> {
    Ok(match stdio {
        Stdio::Given(fds) => {
            let mut kept_fds = [0; 3];
            for (slot, fd) in kept_fds.iter_mut().zip(fds) {
                let_all_open(&fd);
                *slot = kept.keep(fd)?;
            }
            Op::Stdio(kept_fds)
        }
        Stdio::Terminal(size) => Op::Terminal { owner, size },
    })
}

fn compile(spec: Spec, ids: u32, kept: &mut Kept) -> Result<Plan, Error> {
    let root = kept.keep(spec.root)?;
    let stdio = stdio(spec.stdio, spec.user.uid, kept)?;
    let fs = |fstype, options: &[(&str, &str)], attributes, target: &str| -> Result<Op, Error> {
        let option = |(key, value): &(&str, &str)| {
            let value = match *value {
                "" => None,
                value => Some(c(value, "mount option")?),
            };
            Ok((c(*key, "mount option")?, value))
        };
        Ok(Op::Mount {
            fstype,
            options: options.iter().map(option).collect::<Result<_, Error>>()?,
            attributes,
            target: c(target, "mount target")?,
            optional: false,
        })
    };
    let own_network = spec.network == Network::None;
    let strict = Attributes::NOSUID_NODEV_NOEXEC;

    let mut ops = vec![
        Op::AwaitIdMaps,
        Op::BecomeRoot,
        Op::DieWithBuilder,
        Op::NewSession,
        Op::ResetSignals,
        Op::Umask(0),
        Op::MakeMountsPrivate,
        Op::AttachRoot,
        fs(c"proc", &[], strict, "proc")?,
        fs(
            c"tmpfs",
            &[("mode", "755"), ("size", "65536k")],
            Attributes::NOSUID,
            "dev",
        )?,
        Op::Enter(c("dev", "path")?),
    ];
    let mut null = -1;
    for device in DEVICES {
        let source = kept.keep(clone_host(&format!("/dev/{device}"), false)?)?;
        if device == "null" {
            null = source;
        }
        ops.push(Op::CreateFile(c(device, "path")?, 0o666));
        ops.push(Op::Attach {
            mount: source,
            target: c(device, "path")?,
        });
    }
    for (to, at) in DEV_LINKS {
        ops.push(Op::Symlink {
            to,
            at: c(at, "path")?,
        });
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)] {
        ops.push(Op::CreateDir(c(name, "path")?, mode));
    }
    ops.push(fs(
        c"devpts",
        // 5 is tty, where there are that many ids.
        &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")][..if ids > 5 { 3 } else { 2 }],
        Attributes::NOSUID_NOEXEC,
        "pts",
    )?);
    let shm_size = spec.shm_size.unwrap_or(SHM_SIZE).to_string();
    ops.push(fs(
        c"tmpfs",
        &[("mode", "1777"), ("size", &shm_size)],
        strict,
        "shm",
    )?);
    ops.push(Op::Mount {
        fstype: c"mqueue",
        options: Vec::new(),
        attributes: strict,
        target: c("mqueue", "path")?,
        // Kernels may lack it.
        optional: true,
    });
    ops.push(Op::Enter(CString::default()));
    if own_network {
        ops.push(fs(c"sysfs", &[], strict.and(Attributes::READ_ONLY), "sys")?);
        ops.push(Op::LoopbackUp);
    } else {
        // A new sysfs needs a net namespace of one's own: show the host's, read-only.
        let sys = clone_host("/sys", true)?;
        mount::set_attributes(sys.as_fd(), Attributes::READ_ONLY, true)
            .map_err(|e| Error::call("mount_setattr(/sys, MOUNT_ATTR_RDONLY, AT_RECURSIVE)", e))?;
        ops.push(Op::Attach {
            mount: kept.keep(sys)?,
            target: c("sys", "path")?,
        });
    }
    // The step's own cgroup namespace, where the host has cgroup v2.
    ops.push(Op::Mount {
        fstype: c"cgroup2",
        options: Vec::new(),
        attributes: strict.and(Attributes::READ_ONLY),
        target: c("sys/fs/cgroup", "path")?,
        optional: true,
    });
    for mount in spec.mounts {
        let components = mount.target.split(|b| *b == b'/').filter(|c| !c.is_empty());
        let components: Vec<&[u8]> = components.collect();
        let made = match mount.create {
            Create::Never => 0,
            Create::Directory | Create::File => components.len(),
        };
        for index in 0..made {
            let parent = match &components[..index] {
                [] => b".".to_vec(),
                parents => parents.join(&b'/'),
            };
            ops.push(Op::Ensure {
                parent: c(parent, "mount target")?,
                name: c(components[index], "mount target")?,
                directory: index + 1 < made || mount.create == Create::Directory,
            });
        }
        ops.push(Op::Attach {
            mount: kept.keep(mount.source)?,
            target: c(components.join(&b'/'), "mount target")?,
        });
    }
    for path in MASKED {
        ops.push(Op::Mask {
            target: c(path, "path")?,
            null,
        });
    }
    for path in READ_ONLY {
        ops.push(Op::MakeReadOnly(c(path, "path")?));
    }
    ops.push(Op::PivotRoot);
    // Again: what has been attached may still receive mounts from the host.
    ops.push(Op::MakeMountsPrivate);
    ops.push(Op::SetHostname(c(spec.hostname, "host name")?));
    ops.push(stdio);
    let confined = Confined {
        rlimits: spec.rlimits,
        shares_network: !own_network,
        is_added: false,
        capabilities: spec.capabilities,
        seccomp: spec.seccomp,
        user: spec.user,
        cwd: spec.cwd,
    };
    confined.compile(&mut ops, kept)?;
    let exec = exec(spec.args, spec.env)?;
    Ok(Plan { ops, exec, root })
}

/// What a command may no longer do when it begins.
struct Confined {
    rlimits: Vec<(u32, u64, u64)>,
    shares_network: bool,
    /// Whether it is not the first command of its sandbox. A Landlock domain can't be joined:
    /// were its signals to end at its own, it could not send any to the others.
    is_added: bool,
    capabilities: CapabilitySet,
    seccomp: Option<Program>,
    user: User,
    cwd: Vec<u8>,
}

impl Confined {
    /// Adds what comes last before the command, in a sandbox that is complete.
    fn compile(self, ops: &mut Vec<Op>, kept: &mut Kept) -> Result<(), Error> {
        for (resource, soft, hard) in self.rlimits {
            ops.push(Op::SetRlimit(resource, soft, hard));
        }
        ops.push(Op::Umask(0o022));
        if self.shares_network && !disabled("landlock") {
            // Abstract sockets belong to the net namespace, which this step shares with the host.
            if let Ok(ruleset) = process::landlock_scope_ruleset(!self.is_added) {
                ops.push(Op::RestrictScope(kept.keep(ruleset)?));
            }
        }
        ops.push(Op::CloseDescriptors);
        if self.seccomp.is_none() {
            // Nothing else keeps it from the caller's keys.
            ops.push(Op::NewKeyring);
        }
        ops.push(Op::LimitBoundingSet(self.capabilities.bits()));
        if let Some(program) = self.seccomp {
            // While there is CAP_SYS_ADMIN: no_new_privs would take setuid programs away.
            ops.push(Op::Seccomp(program));
        }
        let user = self.user;
        let is_root = user.uid == 0;
        ops.push(Op::BecomeUser(user.uid, user.gid, user.groups));
        // Another user has lost its capabilities by the change.
        if is_root {
            ops.push(Op::SetCapabilities(self.capabilities.bits()));
        }
        ops.push(Op::Chdir(c(self.cwd, "working directory")?));
        // Again: the change of ids has cleared the death signal.
        ops.push(Op::DieWithBuilder);
        Ok(())
    }
}

fn exec(args: Vec<Vec<u8>>, env: Vec<Vec<u8>>) -> Result<Exec, Error> {
    let path = env.iter().find_map(|e| e.strip_prefix(b"PATH="));
    Ok(Exec {
        candidates: candidates(
            args.first().map_or(&[][..], |a| a),
            path.unwrap_or(b"/bin:/usr/bin"),
        )?,
        args: strings(args, "command")?,
        env: strings(env, "environment")?,
    })
}

fn strings(list: Vec<Vec<u8>>, what: &'static str) -> Result<Vec<CString>, Error> {
    list.into_iter().map(|bytes| c(bytes, what)).collect()
}

/// Returns the paths at which a program may be, as execvp(3) looks for it.
fn candidates(program: &[u8], path: &[u8]) -> Result<Vec<CString>, Error> {
    if program.contains(&b'/') {
        return Ok(vec![c(program, "command")?]);
    }
    if program.is_empty() {
        return Ok(Vec::new());
    }
    let join = |dir: &[u8]| {
        let dir = if dir.is_empty() { b"." } else { dir };
        c([dir, b"/", program].concat(), "command")
    };
    path.split(|b| *b == b':').map(join).collect()
}

fn start(builder: &Builder, mut spec: Spec) -> Result<Step, Error> {
    let ids = builder.step_ids();
    // The builder raised its own; what the spec says of it comes later, and counts.
    let (soft, hard) = builder.open_files();
    spec.rlimits.insert(0, (libc::RLIMIT_NOFILE, soft, hard));
    let program = String::from_utf8_lossy(spec.args.first().map_or(b"", |a| a)).into_owned();
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if spec.network == Network::None {
        flags |= libc::CLONE_NEWNET;
    }
    let mut kept = Kept::default();
    let maps_caller = spec.maps_caller;
    let plan = compile(spec, ids, &mut kept)?;
    let vectors = Vectors::of(&plan);
    let (mut ours, theirs) = UnixStream::pair().map_err(io("socketpair(AF_UNIX)"))?;
    let sync = kept.keep(theirs.into())?;
    let builder_end = ours.as_raw_fd();
    // No handler of this process shall run in the child: it sets them back, then unblocks.
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|e| Error::call("rt_sigprocmask(SIG_SETMASK)", e))?;
    let cloned = process::clone_into_namespaces(flags as u64, !disabled("clone3"), || {
        // The child has a copy of the builder's end: while it is open, the builder's death
        // would go unnoticed.
        process::close_in_child(builder_end);
        child::run(&plan, &vectors, sync)
    });
    mask.thread_set_mask()
        .map_err(|e| Error::call("rt_sigprocmask(SIG_SETMASK)", e))?;
    let (pid, pidfd) = cloned.map_err(|errno| {
        Error::call(
            "clone3(CLONE_NEWUSER|NEWNS|NEWPID|NEWIPC|NEWUTS|NEWCGROUP)",
            errno,
        )
    })?;
    let step = Step {
        pidfd,
        pid,
        exit: None,
        terminal: None,
    };
    drop(kept);
    // A setuid program, or the step itself, may clear the death signal.
    builder
        .host()
        .kill_at_end(step.pidfd.as_fd())
        .map_err(Error::HelperGone)?;
    // Ids 0 and up of the step are 1 and up of the builder: its root is not the caller.
    let map = match maps_caller {
        false => format!("0 1 {ids}"),
        true => format!("0 1 {ids}\n{ids} 0 1"),
    };
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{file}"), &map).map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
            Error::call(format!("write(/proc/{pid}/{file}, {map:?})"), errno)
        })?;
    }
    ours.write_all(&[0]).map_err(io("write(sync)"))?;
    executed(step, &ours, &plan, program)
}

fn io(call: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::call(call, Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
}

/// Waits until a step has executed its command, or has said why it can't.
fn executed(
    mut step: Step,
    ours: &UnixStream,
    plan: &Plan,
    program: String,
) -> Result<Step, Error> {
    let mut failure = [0u8; Failure::SIZE];
    let mut length = 0;
    while length < failure.len() {
        match process::receive(ours.as_fd(), &mut failure[length..]) {
            Ok((0, _)) => break,
            // The byte that comes with a descriptor says nothing.
            Ok((_, Some(terminal))) => step.terminal = Some(terminal),
            Ok((n, None)) => length += n,
            Err(Errno::EINTR) => {}
            // A reset: the child died with our byte unread. What follows tells how.
            Err(_) => break,
        }
    }
    if length == 0 {
        return Ok(step);
    }
    let failure = Failure::from_bytes(&failure);
    let _ = step.wait();
    let errno = Errno::from_raw(failure.errno);
    if failure.op == Failure::EXEC {
        return Err(Error::Exec { program, errno });
    }
    if failure.op == Failure::INTERPRETER {
        return Err(Error::Interpreter(program));
    }
    let call = plan
        .ops
        .get(failure.op as usize)
        .map_or_else(|| "sandbox".to_owned(), ToString::to_string);
    let message = failure.message();
    Err(Error::Call {
        call,
        errno,
        detail: (!message.is_empty()).then_some(message),
    })
}

fn join(builder: &Builder, target: i32, mut addition: Addition) -> Result<Step, Error> {
    let (soft, hard) = builder.open_files();
    let open_files = (libc::RLIMIT_NOFILE, soft, hard);
    addition.rlimits.insert(0, open_files);
    let program = addition.args.first().map_or(&b""[..], |a| a);
    let program = String::from_utf8_lossy(program).into_owned();
    let target_fd = process::open_process(target)
        .map_err(|errno| Error::call(format!("pidfd_open({target})"), errno))?;
    let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let shares_network = network(&target.to_string()) == network("self");
    let mut namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if !shares_network {
        namespaces |= libc::CLONE_NEWNET;
    }
    let mut kept = Kept::default();
    let mut ops = vec![
        Op::BecomeRoot,
        Op::DieWithBuilder,
        Op::NewSession,
        Op::ResetSignals,
        stdio(addition.stdio, addition.user.uid, &mut kept)?,
    ];
    let confined = Confined {
        rlimits: addition.rlimits,
        shares_network,
        is_added: true,
        capabilities: addition.capabilities,
        seccomp: addition.seccomp,
        user: addition.user,
        cwd: addition.cwd,
    };
    confined.compile(&mut ops, &mut kept)?;
    let plan = Plan {
        ops,
        exec: exec(addition.args, addition.env)?,
        root: -1,
    };
    let vectors = Vectors::of(&plan);
    let (ours, theirs) = UnixStream::pair().map_err(io("socketpair(AF_UNIX)"))?;
    let sync = kept.keep(theirs.into())?;
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|e| Error::call("rt_sigprocmask(SIG_SETMASK)", e))?;
    let end = ours.as_raw_fd();
    let cloned = process::clone_into_process(target_fd.as_fd(), namespaces, end, || {
        child::run(&plan, &vectors, sync)
    });
    mask.thread_set_mask()
        .map_err(|e| Error::call("rt_sigprocmask(SIG_SETMASK)", e))?;
    let pid = cloned.map_err(|error| match error {
        NotJoined::Clone(errno) => Error::call("clone()", errno),
        NotJoined::Join(errno) => Error::call(format!("setns({target})"), errno),
    })?;
    drop(kept);
    let pidfd = process::open_process(pid)
        .map_err(|errno| Error::call(format!("pidfd_open({pid})"), errno))?;
    let step = Step {
        pidfd,
        pid,
        exit: None,
        terminal: None,
    };
    builder
        .host()
        .kill_at_end(step.pidfd.as_fd())
        .map_err(Error::HelperGone)?;
    executed(step, &ours, &plan, program)
}
