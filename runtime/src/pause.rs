//! All processes of a step, stopped for a while. Without root there is seldom a cgroup to freeze,
//! so that signals have to do.
//!
//! The first process is stopped first and goes on last, so that it tells how it is with all: no
//! process of its own can stop it.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::error::Error;
use crate::sys::process::{self, Fork};

/// How long it may take until all processes stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a process that sleeps in the kernel is waited for. One that has called vfork(2) does so
/// until its child goes on, which stands still already.
const SLEEPERS: Duration = Duration::from_millis(500);

/// Stops all processes of a step.
///
/// # Errors
/// There is no such step, or it does not come to rest; then all goes on.
pub fn pause(step: i32) -> Result<(), Error> {
    let stopped = stop(step);
    if stopped.is_err() {
        let _ = resume(step);
    }
    stopped
}

/// Lets all processes of a step go on.
///
/// # Errors
/// There is no such step.
pub fn resume(step: i32) -> Result<(), Error> {
    go_on(step, &HashSet::new())
}

/// Tells whether a step has been paused.
pub fn is_paused(step: i32) -> bool {
    Member::read(step).is_some_and(|first| first.is_stopped() && first.states.contains(&'T'))
}

/// A pause that ends with this value, or with this process, however that ends.
pub struct Pause {
    guard: libc::pid_t,
    socket: UnixStream,
}

impl Pause {
    /// Stops all processes of a step. One that is paused stays so in the end, and so does each
    /// of its processes that was stopped already.
    ///
    /// # Errors
    /// As for [`pause`]; [`Error::Threads`] in a process with threads.
    pub fn begin(step: i32) -> Result<Pause, Error> {
        let (mut ours, mut theirs) =
            UnixStream::pair().map_err(|e| failed("socketpair(AF_UNIX)", &e))?;
        match process::fork_single_threaded() {
            Err(Errno::EBUSY) => Err(Error::Threads),
            Err(errno) => Err(Error::call("fork()", errno)),
            Ok(Fork::Parent(guard)) => {
                drop(theirs);
                let mut errno = [0; 4];
                let read = ours.read_exact(&mut errno);
                let pause = Pause {
                    guard,
                    socket: ours,
                };
                read.map_err(|e| failed("read(guard)", &e))?;
                match i32::from_ne_bytes(errno) {
                    0 => Ok(pause),
                    errno => Err(not_stopped(step, Errno::from_raw(errno))),
                }
            }
            Ok(Fork::Child) => {
                process::close_all_but(theirs.as_fd());
                guard(step, &mut theirs);
                process::exit_now(0)
            }
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        let _ = waitpid(Pid::from_raw(self.guard), None);
    }
}

fn failed(call: &'static str, error: &std::io::Error) -> Error {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    Error::call(call, errno)
}

fn not_stopped(step: i32, errno: Errno) -> Error {
    Error::call(format!("kill({step}, SIGSTOP)"), errno)
}

/// Holds a step until the other end of the socket closes.
fn guard(step: i32, socket: &mut UnixStream) {
    crate::host::detach_from_caller();
    let was_paused = is_paused(step);
    let already = members(step)
        .into_iter()
        .filter(Member::is_stopped)
        .map(|member| (member.pid, member.begun))
        .collect();
    let stopped = match was_paused {
        true => Ok(()),
        false => stop(step),
    };
    let errno = match &stopped {
        Ok(()) => 0,
        Err(Error::Call { errno, .. }) => *errno as i32,
        Err(_) => libc::EIO,
    };
    // Who has gone is found gone below.
    let _ = socket.write_all(&errno.to_ne_bytes());
    if stopped.is_ok() {
        let _ = socket.read(&mut [0]);
    }
    if !was_paused {
        let _ = go_on(step, &already);
    }
}

fn stop(step: i32) -> Result<(), Error> {
    let call = |errno| not_stopped(step, errno);
    let first = process::open_process(step).map_err(call)?;
    process::send_signal(first.as_fd(), Signal::SIGSTOP).map_err(call)?;
    let begun = Instant::now();
    let mut asked = false;
    loop {
        // One that was not yet stopped may have let another go on: so it is asked for again.
        asked |= stop_others(first.as_fd()).map_err(call)?;
        let patient = begun.elapsed() < SLEEPERS;
        let is_still = |member: &Member| member.is_stopped() || (!patient && member.only_sleeps());
        let members = members(step);
        if asked && !members.is_empty() && members.iter().all(is_still) {
            return Ok(());
        }
        if members.is_empty() {
            return Err(call(Errno::ESRCH));
        }
        if begun.elapsed() > PATIENCE {
            return Err(call(Errno::ETIMEDOUT));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stops all but the first process. The kernel does it to all at once: a process that is just
/// being forked gets the signal too.
fn stop_others(first: BorrowedFd<'_>) -> Result<bool, Errno> {
    process::signal_all_beside(first, Signal::SIGSTOP)
}

fn go_on(step: i32, but: &HashSet<(i32, u64)>) -> Result<(), Error> {
    let call = |errno| Error::call(format!("kill({step}, SIGCONT)"), errno);
    let first = process::open_process(step).map_err(call)?;
    let mut members = members(step);
    members.retain(|member| member.pid != step && !but.contains(&(member.pid, member.begun)));
    // Children before their parents: a shell must not find that a command of its has stopped.
    members.sort_by_key(|member| std::cmp::Reverse((member.begun, member.pid)));
    for member in members {
        let Ok(fd) = process::open_process(member.pid) else {
            continue;
        };
        // The number may be another's by now.
        if Member::read(member.pid).is_some_and(|now| now.begun == member.begun) {
            let _ = process::send_signal(fd.as_fd(), Signal::SIGCONT);
        }
    }
    process::send_signal(first.as_fd(), Signal::SIGCONT).map_err(call)
}

/// A process of a step.
struct Member {
    pid: i32,
    /// When it began, in the kernel's ticks.
    begun: u64,
    /// The states of its threads, as `/proc/PID/stat` has them.
    states: Vec<char>,
}

impl Member {
    fn read(pid: i32) -> Option<Member> {
        let (_, begun) = stat(&format!("/proc/{pid}/stat").into())?;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let states = threads.filter_map(|thread| stat(&thread.path().join("stat")));
        Some(Member {
            pid,
            begun,
            states: states.map(|(state, _)| state).collect(),
        })
    }

    /// Tells whether nothing of it runs: stopped, traced, or dead.
    fn is_stopped(&self) -> bool {
        self.states
            .iter()
            .all(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
    }

    fn only_sleeps(&self) -> bool {
        self.states
            .iter()
            .all(|state| matches!(state, 'T' | 't' | 'Z' | 'X' | 'D'))
    }
}

/// Reads the state and the begin of a thread.
fn stat(path: &PathBuf) -> Option<(char, u64)> {
    let stat = fs::read_to_string(path).ok()?;
    // The second field is a name in parentheses, with anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Returns the processes of a step.
fn members(step: i32) -> Vec<Member> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let (Some(own), Ok(all)) = (namespace(step), fs::read_dir("/proc")) else {
        return Vec::new();
    };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| namespace(*pid).as_ref() == Some(&own))
        .filter_map(Member::read)
        .collect()
}
