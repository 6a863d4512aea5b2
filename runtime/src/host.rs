//! The host-side helper: a small process that stays outside the builder's user namespace
//! and executes programs there on request.
//!
//! newuidmap, credential helpers, git and ssh break where they see themselves as uid 0 of a
//! namespace; so the helper is forked before the namespace is entered. It has one thread,
//! and ends when the builder's end of its socket closes; it then kills the steps that are left.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    recvmsg, sendmsg, shutdown, socketpair,
};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::sys::process::{self, Fork};
use crate::sys::terminal::{self, Modes};

/// A program to execute on the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostCommand {
    program: Vec<u8>,
    args: Vec<Vec<u8>>,
    stdin: Vec<u8>,
    /// Variables that differ from the caller's; those without a value are unset.
    env: Vec<(String, Option<String>)>,
    umask: Option<u32>,
}

impl HostCommand {
    /// Returns the command that runs `program` without arguments.
    pub fn new(program: &str) -> HostCommand {
        HostCommand {
            program: program.into(),
            ..HostCommand::default()
        }
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> HostCommand {
        let bytes = |arg: A| arg.as_ref().as_bytes().to_vec();
        self.args.extend(args.into_iter().map(bytes));
        self
    }

    /// Sets the input.
    pub fn stdin(mut self, stdin: &[u8]) -> HostCommand {
        self.stdin = stdin.to_vec();
        self
    }

    /// Sets a variable; all others are the caller's.
    pub fn env(mut self, name: &str, value: &str) -> HostCommand {
        self.env.push((name.to_owned(), Some(value.to_owned())));
        self
    }

    /// Unsets a variable.
    pub fn without_env(mut self, name: &str) -> HostCommand {
        self.env.push((name.to_owned(), None));
        self
    }

    /// Sets the mask of the modes of files that it makes; it is the caller's otherwise.
    pub fn umask(mut self, umask: u32) -> HostCommand {
        self.umask = Some(umask);
        self
    }
}

/// What came of it. A program that could not be started has no status but an errno.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Reply {
    errno: Option<i32>,
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// The output of a program that ran on the host.
#[derive(Debug)]
pub struct Output {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote, at most [`OUTPUT_LIMIT`] bytes.
    pub stdout: Vec<u8>,
    /// Likewise.
    pub stderr: Vec<u8>,
}

/// How much of a program's output is kept, in bytes.
pub const OUTPUT_LIMIT: u64 = 1 << 20;

/// Messages to the helper, each with a descriptor: a socket that has a [`HostCommand`] …
const EXECUTE: u8 = 0;
/// … or a pidfd, …
const KILL_AT_END: u8 = 1;
/// … or a terminal, whose modes follow, that gets them back at the end, …
const RESTORE_AT_END: u8 = 2;
/// … or one that has them back already.
const RESTORED: u8 = 3;

/// The builder's end of the helper.
#[derive(Debug)]
pub struct HostHelper {
    socket: OwnedFd,
    pid: libc::pid_t,
}

/// A process outside the namespace that ends with this value, or with the builder.
#[derive(Debug)]
pub struct HostProcess(OwnedFd);

impl Drop for HostProcess {
    fn drop(&mut self) {
        let _ = process::send_signal(self.0.as_fd(), Signal::SIGTERM);
    }
}

impl Drop for HostHelper {
    fn drop(&mut self) {
        // It ends at the end of its socket. Unwaited for it would stay a zombie where process 1
        // is no init, as in many containers.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        let _ = waitpid(Pid::from_raw(self.pid), None);
    }
}

impl HostHelper {
    /// Forks the helper. To be called outside the namespace that it shall be outside of.
    ///
    /// # Errors
    /// [`Error::Threads`] in a process with threads; what fork(2) says.
    pub fn start() -> Result<HostHelper, Error> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|e| Error::call("socketpair(AF_UNIX, SOCK_SEQPACKET)", e))?;
        match process::fork_single_threaded() {
            Err(nix::errno::Errno::EBUSY) => Err(Error::Threads),
            Err(errno) => Err(Error::call("fork()", errno)),
            Ok(Fork::Parent(pid)) => Ok(HostHelper { socket: ours, pid }),
            Ok(Fork::Child) => {
                drop(ours);
                serve(&theirs);
                process::exit_now(0)
            }
        }
    }

    /// Has the process behind a pidfd killed when this process ends, however it does.
    ///
    /// # Errors
    /// The helper is gone.
    pub(crate) fn kill_at_end(&self, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        self.send(KILL_AT_END, pidfd.as_raw_fd())
    }

    /// Has a terminal get these modes when this process ends, however it does, until
    /// [`HostHelper::terminal_is_restored`].
    ///
    /// # Errors
    /// The helper is gone.
    pub fn restore_at_end(&self, terminal: BorrowedFd<'_>, modes: &Modes) -> io::Result<()> {
        let mut message = vec![RESTORE_AT_END];
        message.extend_from_slice(modes);
        self.send_bytes(&message, terminal.as_raw_fd())
    }

    /// Takes back what [`HostHelper::restore_at_end`] asked for.
    ///
    /// # Errors
    /// The helper is gone.
    pub fn terminal_is_restored(&self, terminal: BorrowedFd<'_>) -> io::Result<()> {
        self.send(RESTORED, terminal.as_raw_fd())
    }

    /// Takes a process that a program has left in the background: it ends when the value does,
    /// or with this process, however that ends.
    ///
    /// # Errors
    /// There is no such process; the helper is gone.
    pub fn adopt(&self, pid: i32) -> io::Result<HostProcess> {
        let process = HostProcess(process::open_process(pid)?);
        self.kill_at_end(process.0.as_fd())?;
        Ok(process)
    }

    fn send(&self, what: u8, fd: RawFd) -> io::Result<()> {
        self.send_bytes(&[what], fd)
    }

    fn send_bytes(&self, bytes: &[u8], fd: RawFd) -> io::Result<()> {
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &[ControlMessage::ScmRights(&[fd])],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// Executes a program on the host with `stdin` as its input, and waits for it.
    ///
    /// # Errors
    /// NotFound where there is no such program; else what started to fail.
    pub fn run(&self, program: &str, args: &[&str], stdin: &[u8]) -> io::Result<Output> {
        self.execute(&HostCommand::new(program).args(args).stdin(stdin))
    }

    /// Executes a command on the host, and waits for it.
    ///
    /// # Errors
    /// As for [`HostHelper::run`].
    pub fn execute(&self, command: &HostCommand) -> io::Result<Output> {
        self.begin(command)?.wait()
    }

    /// Starts to execute a command on the host.
    ///
    /// # Errors
    /// The helper is gone.
    pub(crate) fn begin(&self, command: &HostCommand) -> io::Result<Begun> {
        let (mut reply, theirs) = UnixStream::pair()?;
        let bytes = serde_json::to_vec(command)?;
        self.send(EXECUTE, theirs.as_raw_fd())?;
        drop(theirs);
        reply.write_all(&bytes)?;
        reply.shutdown(std::net::Shutdown::Write)?;
        Ok(Begun(reply))
    }
}

/// A command that runs on the host.
pub(crate) struct Begun(UnixStream);

impl Begun {
    /// Waits for it.
    ///
    /// # Errors
    /// As for [`HostHelper::run`].
    pub(crate) fn wait(mut self) -> io::Result<Output> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        let reply: Reply = serde_json::from_slice(&bytes)?;
        match reply.errno {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(Output {
                code: reply.code,
                stdout: reply.stdout,
                stderr: reply.stderr,
            }),
        }
    }
}

/// The helper's loop: one process per request, so that none waits for another.
fn serve(socket: &OwnedFd) {
    let group = nix::unistd::getpgrp();
    detach_from_caller();
    // Processes of requests are reaped by the kernel.
    process::ignore_signal(Signal::SIGCHLD);
    let mut steps: Vec<OwnedFd> = Vec::new();
    let mut raw: Option<(OwnedFd, Modes)> = None;
    loop {
        match next_event(socket, &steps) {
            // In reverse: the positions of those before stay.
            Event::Ended(positions) => positions.into_iter().rev().for_each(|position| {
                steps.swap_remove(position);
            }),
            Event::Message => match receive(socket) {
                Some((message, pidfd)) if message[0] == KILL_AT_END => steps.push(pidfd),
                Some((message, terminal)) if message[0] == RESTORE_AT_END => {
                    raw = Modes::try_from(&message[1..])
                        .ok()
                        .map(|modes| (terminal, modes));
                }
                Some((message, _)) if message[0] == RESTORED => raw = None,
                Some((_, request)) => {
                    if let Ok(Fork::Child) = process::fork_single_threaded() {
                        process::reset_signals();
                        // To ask for a password, a program must be in the terminal's group.
                        let _ = nix::unistd::setpgid(Pid::from_raw(0), group);
                        answer(UnixStream::from(request));
                        process::exit_now(0);
                    }
                }
                None => break,
            },
        }
    }
    for step in steps {
        let _ = process::send_signal(step.as_fd(), Signal::SIGKILL);
    }
    if let Some((terminal, modes)) = raw {
        let _ = terminal::set_modes(terminal.as_fd(), &modes);
    }
}

/// Makes a forked process one that ends when it is done, whatever ends the caller.
pub(crate) fn detach_from_caller() {
    // Who kills the builder's process group must not kill the one that kills the steps then.
    let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
    // And the builder decides what ends, and when.
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        // It gives a terminal back from the background.
        Signal::SIGTTOU,
    ] {
        process::ignore_signal(signal);
    }
    // The caller's pipes must not stay open because this process lives on for a moment.
    let _ = process::use_no_stdio();
}

enum Event {
    /// The builder has sent something, or ended.
    Message,
    /// The steps at these positions, in ascending order, have ended.
    Ended(Vec<usize>),
}

fn next_event(socket: &OwnedFd, steps: &[OwnedFd]) -> Event {
    let fds = std::iter::once(socket).chain(steps);
    let mut fds: Vec<_> = fds
        .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN))
        .collect();
    while poll(&mut fds, PollTimeout::NONE).is_err() {}
    let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    let ended: Vec<usize> = (0..steps.len()).filter(|i| ready(&fds[i + 1])).collect();
    if ended.is_empty() {
        Event::Message
    } else {
        Event::Ended(ended)
    }
}

/// Receives one message with its descriptor; nothing where the builder has ended.
fn receive(socket: &OwnedFd) -> Option<(Vec<u8>, OwnedFd)> {
    loop {
        let mut bytes = [0u8; 1 + size_of::<Modes>()];
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let mut space = cmsg_space!(RawFd);
        let received = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut iov,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let message = match received {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return None,
            Ok(message) => message,
        };
        let length = message.bytes;
        if length == 0 {
            return None;
        }
        let first = message.cmsgs().ok()?.find_map(|m| match m {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        if let Some(fd) = first {
            return Some((bytes[..length].to_vec(), process::own(fd)));
        }
    }
}

fn answer(mut socket: UnixStream) {
    let mut bytes = Vec::new();
    let reply = match socket.read_to_end(&mut bytes) {
        Ok(_) => match serde_json::from_slice::<HostCommand>(&bytes) {
            Ok(command) => execute(command).unwrap_or_else(|error| Reply {
                errno: Some(error.raw_os_error().unwrap_or(libc::EIO)),
                ..Reply::default()
            }),
            Err(_) => return,
        },
        Err(_) => return,
    };
    if let Ok(bytes) = serde_json::to_vec(&reply) {
        let _ = socket.write_all(&bytes);
    }
}

fn execute(request: HostCommand) -> io::Result<Reply> {
    if let Some(umask) = request.umask {
        // This process serves one request only.
        nix::sys::stat::umask(Mode::from_bits_truncate(umask));
    }
    let mut command = Command::new(OsString::from_vec(request.program));
    for (name, value) in &request.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let has_input = !request.stdin.is_empty();
    let mut child = command
        .args(request.args.iter().map(|a| OsStr::from_bytes(a)))
        .stdin(if has_input {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let stderr = std::thread::spawn(move || read_all(stderr));
    if let Some(mut stdin) = stdin {
        // A program that does not read its input is no error.
        std::thread::spawn(move || drop(stdin.write_all(&request.stdin)));
    }
    let stdout = read_all(stdout);
    let status = child.wait()?;
    Ok(Reply {
        errno: None,
        code: status.code(),
        stdout,
        stderr: stderr.join().unwrap_or_default(),
    })
}

/// Reads to the end, and returns the first [`OUTPUT_LIMIT`] bytes.
fn read_all(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut bytes);
        let _ = io::copy(&mut stream, &mut io::sink());
    }
    bytes
}
