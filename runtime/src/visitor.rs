//! A process of kiln's in the file system of a running step.

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, fchdir, setgroups, setresgid, setresuid};

use crate::capability::CapabilitySet;
use crate::error::Error;
use crate::sys::child::set_capabilities;
use crate::sys::file::descriptors_are_here;
use crate::sys::process::{self, Fork};

/// What touches files needs these, in any sandbox: also where its own root has fewer.
const CAPABILITIES: [&str; 7] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
];

/// A child of this process that is root of a step, in its user and its mount namespace: all
/// that it resolves, it resolves where the step does, whatever the step does meanwhile, and it
/// has no power beyond. It executes nothing. As it stays out of the step's pid namespace, nothing
/// in there can see it, trace it, or send it a signal, and nothing in the step's `/proc` leads to
/// it.
pub struct Visitor {
    pid: libc::pid_t,
    root: OwnedFd,
    socket: UnixStream,
}

impl Visitor {
    /// Forks a child that joins the step with this process id, and calls `serve` there with the
    /// step's root and a socket, whose other end is [`Visitor::socket`].
    ///
    /// # Errors
    /// [`Error::Threads`] in a process with threads; the step has ended, or is none of this
    /// user's.
    pub fn enter(step: i32, serve: impl FnOnce(OwnedFd, UnixStream)) -> Result<Visitor, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| io("socketpair(AF_UNIX)", &e))?;
        match process::fork_single_threaded() {
            Err(Errno::EBUSY) => Err(Error::Threads),
            Err(errno) => Err(Error::call("fork()", errno)),
            Ok(Fork::Parent(pid)) => {
                drop(theirs);
                Visitor::await_entry(pid, ours, step)
            }
            Ok(Fork::Child) => {
                process::close_all_but(theirs.as_fd());
                match join(step) {
                    Ok(root) => {
                        if tell(&theirs, 0, Some(root.as_fd())).is_ok() {
                            serve(root, theirs);
                        }
                    }
                    Err(errno) => drop(tell(&theirs, errno as u8, None)),
                }
                process::exit_now(0)
            }
        }
    }

    fn await_entry(pid: libc::pid_t, socket: UnixStream, step: i32) -> Result<Visitor, Error> {
        let mut errno = [0];
        let received = process::receive(socket.as_fd(), &mut errno);
        if let Ok((1, Some(root))) = received {
            return Ok(Visitor { pid, root, socket });
        }
        let _ = waitpid(Pid::from_raw(pid), None);
        let errno = match errno[0] {
            0 => Errno::EIO,
            errno => Errno::from_raw(errno.into()),
        };
        Err(Error::call(
            format!("setns({step}, CLONE_NEWUSER|CLONE_NEWNS)"),
            errno,
        ))
    }

    /// Returns the step's root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns this end of the socket.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // It ends at the end of its socket.
        let _ = self.socket.shutdown(Shutdown::Both);
        let _ = waitpid(Pid::from_raw(self.pid), None);
    }
}

fn io(call: &'static str, error: &std::io::Error) -> Error {
    Error::call(
        call,
        Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
    )
}

/// Sends an errno, or 0 and a descriptor.
fn tell(socket: &UnixStream, errno: u8, root: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let fds: Vec<_> = root.iter().map(|fd| fd.as_raw_fd()).collect();
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[std::io::IoSlice::new(&[errno])],
        &control[..fds.len()],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Makes this process root of a step, and returns the step's root directory.
fn join(step: i32) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    process::use_no_stdio()?;
    let target = process::open_process(step)?;
    let descriptors = open("/proc/self/fd", flags, Mode::empty())?;
    process::become_opaque()?;
    setns(&target, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    drop(target);
    // The step's /proc knows nothing of this process.
    fchdir(&descriptors)?;
    drop(descriptors);
    descriptors_are_here();
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    let capabilities = CapabilitySet::from_names(CAPABILITIES).unwrap_or_default();
    set_capabilities(capabilities.bits())?;
    // The change of ids has undone the first, and would the second.
    process::become_opaque()?;
    process::die_with_forker()?;
    umask(Mode::empty());
    open("/", flags, Mode::empty())
}
