//! What passes between the user and a command in a container: input, output, signals, the size
//! of the terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_runtime::sys::terminal as tty;
use kiln_runtime::{Builder, Killer, Stdio};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::terminal::{self, RawTerminal};
use super::{CliError, Result, interrupt, relay};
use crate::sandbox;

/// Signals that are passed on beside those that end kiln.
const FORWARDED: [Signal; 4] = [
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Whoever asks so often means it.
const INSISTENT: u32 = 3;

/// What is given of the user's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attachment {
    /// Standard input.
    pub(super) stdin: bool,
    /// A terminal.
    pub(super) terminal: bool,
}

/// Prepares for signals that are to be passed on: before the namespace is entered.
pub(super) fn expect_signals() {
    interrupt::also(&FORWARDED);
}

impl Attachment {
    /// Fails where a terminal is asked for and standard input is none.
    pub(super) fn check(self) -> Result<()> {
        if self.stdin && self.terminal && !io::stdin().is_terminal() {
            return Err(CliError::message("the input device is not a TTY")
                .hinted("leave -t out where input comes from a file or a pipe"));
        }
        Ok(())
    }

    /// Returns what a command gets that nobody is attached to.
    pub(super) fn none() -> Result<(Stdio, Streams)> {
        let null = || File::options().read(true).write(true).open("/dev/null");
        let stdio = [null()?.into(), null()?.into(), null()?.into()];
        Ok((stdio.into(), Streams::Relay(relay::Relay::default())))
    }

    /// Returns what the command gets, and what passes it on.
    pub(super) fn open(self) -> Result<(Stdio, Streams)> {
        if self.terminal {
            return Ok((Stdio::Terminal(terminal::size()), Streams::Terminal));
        }
        let stdin = if self.stdin {
            io::stdin().as_fd().try_clone_to_owned()?
        } else {
            sandbox::dev_null()?
        };
        let (stdout, stderr, relay) = relay::outputs(self.stdin)?;
        Ok(([stdin, stdout, stderr].into(), Streams::Relay(relay)))
    }
}

/// What passes bytes on.
pub(super) enum Streams {
    /// The user's terminal is still to be taken.
    Terminal,
    /// Pipes, where they are needed.
    Relay(relay::Relay),
}

/// What passes bytes on until the command has ended.
pub(super) struct Passing {
    raw: Option<RawTerminal>,
    relay: Option<relay::Relay>,
    thread: Option<(JoinHandle<()>, OwnedFd)>,
}

impl Streams {
    /// Begins to pass on, once the command runs. `master` is the other end of its terminal.
    pub(super) fn begin(
        self,
        builder: &Builder,
        master: Option<OwnedFd>,
        attachment: Attachment,
    ) -> Result<Passing> {
        let master = match (self, master) {
            (Streams::Terminal, Some(master)) => master,
            (Streams::Relay(relay), _) => {
                return Ok(Passing {
                    raw: None,
                    relay: Some(relay),
                    thread: None,
                });
            }
            (Streams::Terminal, None) => {
                return Err(CliError::message("the container has no terminal"));
            }
        };
        let raw = match attachment.stdin {
            true => RawTerminal::of_stdin(builder)?,
            false => None,
        };
        let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
        let thread = std::thread::spawn(move || {
            // Where the user's end is gone, so is the reader of what is left.
            let _ = pass(&master, &stopped, attachment.stdin);
        });
        Ok(Passing {
            raw,
            relay: None,
            thread: Some((thread, stop)),
        })
    }
}

impl Passing {
    /// Passes on what is left, and gives the terminal back. The command must have ended.
    pub(super) fn finish(self) {
        if let Some((thread, stop)) = self.thread {
            drop(stop);
            let _ = thread.join();
        }
        drop(self.raw);
        if let Some(relay) = self.relay {
            relay.finish();
        }
    }
}

/// Passes bytes between the user and a terminal until nobody has that any more, or until
/// `stopped` is closed and what there was is written.
fn pass(master: &OwnedFd, stopped: &OwnedFd, with_input: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(master, FcntlArg::F_GETFL)?);
    fcntl(master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let mut terminal = File::from(master.try_clone()?);
    let mut stdin = match with_input {
        true => Some(File::from(io::stdin().as_fd().try_clone_to_owned()?)),
        false => None,
    };
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut buffer = [0u8; 16 << 10];
    let mut typed: Vec<u8> = Vec::new();
    let mut is_stopped = false;
    loop {
        let of_master = match typed.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let mut fds = vec![PollFd::new(master.as_fd(), of_master)];
        if !is_stopped {
            fds.push(PollFd::new(stopped.as_fd(), PollFlags::POLLIN));
            // What was typed first comes first.
            if let Some(stdin) = stdin.as_ref().filter(|_| typed.is_empty()) {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
        }
        let timeout = match is_stopped {
            true => PollTimeout::ZERO,
            false => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(()),
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let ready = |at: usize| fds.get(at).and_then(PollFd::any).unwrap_or(false);
        let (from_master, stop, from_stdin) = (ready(0), ready(1), ready(2));
        let writable = fds[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLOUT));
        if writable {
            match terminal.write(&typed) {
                Ok(count) => drop(typed.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if from_master {
            match terminal.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => stdout.write_all(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // EIO: nobody has the other end any more.
                Err(_) => return Ok(()),
            }
        }
        if from_stdin && let Some(input) = &mut stdin {
            match input.read(&mut buffer) {
                Ok(0) | Err(_) => stdin = None,
                Ok(count) => typed.extend_from_slice(&buffer[..count]),
            }
        }
        is_stopped |= stop;
    }
}

/// Who gets the signals: nobody yet, or nobody at all, where it could not be started.
#[derive(Clone, Default)]
pub(super) struct SignalTarget(Arc<(Mutex<Target>, Condvar)>);

#[derive(Default)]
enum Target {
    #[default]
    NotYet,
    None,
    Command {
        pid: i32,
        killer: Killer,
        /// The other end of its terminal.
        master: Option<OwnedFd>,
    },
}

impl SignalTarget {
    fn set(&self, target: Target) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = target;
        self.0.1.notify_all();
    }

    /// Says who it is. `master` is the other end of its terminal.
    pub(super) fn is(&self, pid: i32, killer: Killer, master: Option<OwnedFd>) {
        self.set(Target::Command {
            pid,
            killer,
            master,
        });
    }

    /// Says that there is nobody.
    pub(super) fn is_none(&self) {
        self.set(Target::None);
    }

    /// Passes a signal on, once it is known to whom. Returns whether that takes it.
    fn takes(&self, signal: Signal, is_insisted: bool) -> bool {
        let target = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self
            .0
            .1
            .wait_timeout_while(target, SETTLING, |target| matches!(target, Target::NotYet));
        let (target, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        let Target::Command {
            pid,
            killer,
            master,
        } = &*target
        else {
            return signal == Signal::SIGWINCH;
        };
        if signal == Signal::SIGWINCH {
            if let Some(master) = master {
                let _ = tty::set_window_size(master.as_fd(), terminal::size());
            }
            return true;
        }
        let ends = matches!(
            signal,
            Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT
        );
        let takes = catches(*pid, signal) && !(ends && is_insisted);
        if takes {
            killer.signal(signal);
        }
        takes || !ends
    }
}

/// Passes signals on to a command: those that it has a handler for. What would pass by it ends
/// it, as Ctrl-C does everywhere else.
pub(super) fn forward_signals(target: SignalTarget) {
    let mut asked = 0;
    interrupt::forward(move |signal| {
        if signal != Signal::SIGWINCH {
            asked += 1;
        }
        target.takes(signal, asked >= INSISTENT)
    });
}

/// Tells whether a process has a handler for a signal.
pub(super) fn catches(pid: i32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (signal as u32 - 1)) != 0)
}

/// Has the end of a command awaited where a signal ends this process: who waits for it then
/// writes down how it was.
#[derive(Clone, Default)]
pub(super) struct Settled(Arc<(Mutex<bool>, Condvar)>);

/// How long that may take.
const SETTLING: std::time::Duration = std::time::Duration::from_secs(1);

impl Settled {
    /// Says that all is written down.
    pub(super) fn done(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits for it.
    pub(super) fn wait(&self) {
        let done = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.0.1.wait_timeout_while(done, SETTLING, |done| !*done);
    }
}
