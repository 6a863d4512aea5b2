//! Where the command of `kiln run` writes to.
//!
//! Images link their logs to `/dev/stdout`, which opens anew what the command was given. It may
//! not open the caller's files and terminals, which belong to somebody else; so it gets a pipe,
//! as `docker run` gives one, and kiln passes on what comes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::thread::JoinHandle;

use nix::fcntl::OFlag;

/// The threads that pass on what a command writes.
#[derive(Default)]
pub(super) struct Relay {
    threads: Vec<JoinHandle<()>>,
}

/// Returns what a command gets as standard output and standard error. A terminal itself only
/// where the command is interactive.
pub(super) fn outputs(interactive: bool) -> io::Result<(OwnedFd, OwnedFd, Relay)> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let (stdout, stderr) = (stdout.as_fd(), stderr.as_fd());
    let mut relay = Relay::default();
    let out = relay.output(stdout, interactive)?;
    // One pipe for one file keeps the lines of both in order.
    let err = match is_same(stdout, stderr)? {
        true => out.try_clone()?,
        false => relay.output(stderr, interactive)?,
    };
    Ok((out, err, relay))
}

impl Relay {
    fn output(&mut self, to: BorrowedFd<'_>, interactive: bool) -> io::Result<OwnedFd> {
        let mut to = File::from(to.try_clone_to_owned()?);
        let metadata = to.metadata()?;
        let own_pipe =
            metadata.file_type().is_fifo() && metadata.uid() == nix::unistd::geteuid().as_raw();
        let terminal = io::IsTerminal::is_terminal(&to);
        // The runtime lets all open a pipe that is the caller's own.
        if own_pipe || (terminal && interactive) {
            return Ok(to.into());
        }
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        self.threads.push(std::thread::spawn(move || {
            // Where nobody takes it any longer, the command's pipe is closed and says so.
            let _ = io::copy(&mut File::from(read), &mut to);
        }));
        Ok(write)
    }

    /// Waits until all is passed on. The command must have ended, and the ends of its pipes
    /// that this process had must be closed.
    pub(super) fn finish(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let identity = |fd: BorrowedFd<'_>| -> io::Result<(u64, u64)> {
        let metadata = File::from(fd.try_clone_to_owned()?).metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    };
    Ok(identity(one)? == identity(other)?)
}
