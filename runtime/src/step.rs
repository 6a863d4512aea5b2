//! One step: its plan cloned, and watched.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::builder::{Builder, disabled};
use crate::compile::{Kept, compile, compile_addition};
use crate::error::Error;
use crate::plan::Plan;
use crate::spec::{Addition, Network, Spec};
use crate::sys::child::{self, Failure, Vectors};
use crate::sys::process::{self, NotJoined};

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
    let plan = compile_addition(addition, shares_network, &mut kept)?;
    let vectors = Vectors::of(&plan);
    let (ours, theirs) = UnixStream::pair().map_err(io("socketpair(AF_UNIX)"))?;
    let sync = kept.keep(theirs.into())?;
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|e| Error::call("rt_sigprocmask(SIG_SETMASK)", e))?;
    let end = ours.as_raw_fd();
    let cloned = process::clone_into_process(target_fd.as_fd(), namespaces, Some(end), || {
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
