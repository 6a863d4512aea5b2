//! A sandbox, compiled to a flat list of operations before the clone: the child only walks
//! it, so that it needs neither memory nor locks, and a failure is named by its index.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::RawFd;

use crate::seccomp::Program;
use crate::spec::WindowSize;
use crate::sys::mount::Attributes;

/// One thing that the child does. Targets are paths below the directory entered last, and
/// resolved within it; at first that is the new root.
pub(crate) enum Op {
    /// Waits until the builder has written the id maps.
    AwaitIdMaps,
    /// Becomes id 0 of the new user namespace, without supplementary groups.
    BecomeRoot,
    /// Asks to be killed when the builder's thread ends, and checks that it has not yet.
    DieWithBuilder,
    /// Leaves the caller's session and terminal.
    NewSession,
    /// Default dispositions, empty mask: nothing of the caller's signals is inherited.
    ResetSignals,
    /// Replaces the first three descriptors.
    Stdio([RawFd; 3]),
    /// Opens a new terminal of the sandbox, makes it the controlling one and replaces the first
    /// three descriptors by it; sends its other end to the builder. It belongs to this user.
    Terminal { owner: u32, size: WindowSize },
    /// Stops mounts from propagating to the host.
    MakeMountsPrivate,
    /// Attaches the root's mount somewhere; the targets of later operations are below it.
    AttachRoot,
    /// Mounts a new file system. No symbolic link is followed to the target: where the root
    /// has one at /proc, this is no root to trust with a mount.
    Mount {
        fstype: &'static CStr,
        options: Vec<(CString, Option<CString>)>,
        attributes: Attributes,
        target: CString,
        /// Go on where the kernel refuses it.
        optional: bool,
    },
    /// Makes a directory below the root the one that targets are below; an empty path: the root.
    Enter(CString),
    /// Attaches a mount that the builder has prepared.
    Attach { mount: RawFd, target: CString },
    /// Makes an empty directory or file in a directory, unless something of that name is there.
    /// No symbolic link is followed to the directory.
    Ensure {
        parent: CString,
        name: CString,
        directory: bool,
    },
    /// Creates an empty file (with a mode), for something to be attached to.
    CreateFile(CString, u32),
    /// Creates a directory with a mode.
    CreateDir(CString, u32),
    /// Creates a symbolic link.
    Symlink { to: &'static CStr, at: CString },
    /// Hides what is there: /dev/null over a file, an empty directory over a directory.
    Mask { target: CString, null: RawFd },
    /// Makes what is there read-only.
    MakeReadOnly(CString),
    /// Makes the attached root the root, and lets go of the old one.
    PivotRoot,
    /// Sets the host name of the new UTS namespace.
    SetHostname(CString),
    /// Brings the loopback interface of the new net namespace up.
    LoopbackUp,
    /// Sets a resource limit: resource, soft, hard.
    SetRlimit(libc::c_uint, u64, u64),
    /// Sets the file mode creation mask.
    Umask(u32),
    /// Ends abstract sockets and signals at the sandbox.
    RestrictScope(RawFd),
    /// Closes all descriptors but the first three and the builder's socket. Before the step's
    /// paths are resolved: through /proc/self/fd, a directory of the host would be reachable.
    CloseDescriptors,
    /// Joins a new, empty session keyring.
    NewKeyring,
    /// Takes all but these capabilities out of the bounding set.
    LimitBoundingSet(u64),
    /// Installs the seccomp filter.
    Seccomp(Program),
    /// Changes to the step's user: uid, gid, supplementary groups.
    BecomeUser(u32, u32, Vec<u32>),
    /// Sets the permitted and effective capabilities; the rest is cleared.
    SetCapabilities(u64),
    /// Changes the working directory.
    Chdir(CString),
}

impl fmt::Display for Op {
    /// Writes the call, as an error shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::AwaitIdMaps => write!(f, "read(id maps)"),
            Op::BecomeRoot => write!(f, "setresuid(0)"),
            Op::DieWithBuilder => write!(f, "prctl(PR_SET_PDEATHSIG, SIGKILL)"),
            Op::NewSession => write!(f, "setsid()"),
            Op::ResetSignals => write!(f, "rt_sigprocmask()"),
            Op::Stdio(fds) => write!(f, "dup2({fds:?})"),
            Op::Terminal { .. } => write!(f, "openat2(/dev/pts/ptmx)"),
            Op::MakeMountsPrivate => write!(f, "mount(/, MS_REC|MS_PRIVATE)"),
            Op::AttachRoot => write!(f, "move_mount(root)"),
            Op::Mount {
                fstype,
                options,
                target,
                ..
            } => {
                write!(f, "mount({}", fstype.to_string_lossy())?;
                for (key, value) in options {
                    write!(f, ", {}", key.to_string_lossy())?;
                    if let Some(value) = value {
                        write!(f, "={}", value.to_string_lossy())?;
                    }
                }
                write!(f, ", /{})", target.to_string_lossy())
            }
            Op::Enter(path) => write!(f, "openat2(/{})", path.to_string_lossy()),
            Op::Attach { target, .. } => write!(f, "move_mount(/{})", target.to_string_lossy()),
            Op::Ensure { parent, name, .. } => {
                let (parent, name) = (parent.to_string_lossy(), name.to_string_lossy());
                write!(f, "mkdirat(/{parent}, {name})")
            }
            Op::CreateFile(path, mode) => {
                write!(f, "openat(/{}, O_CREAT, {mode:o})", path.to_string_lossy())
            }
            Op::CreateDir(path, mode) => {
                write!(f, "mkdirat(/{}, {mode:o})", path.to_string_lossy())
            }
            Op::Symlink { to, at } => write!(
                f,
                "symlinkat({}, /{})",
                to.to_string_lossy(),
                at.to_string_lossy()
            ),
            Op::Mask { target, .. } => write!(f, "mask(/{})", target.to_string_lossy()),
            Op::MakeReadOnly(target) => write!(
                f,
                "mount_setattr(/{}, MOUNT_ATTR_RDONLY)",
                target.to_string_lossy()
            ),
            Op::PivotRoot => write!(f, "pivot_root(\".\", \".\")"),
            Op::SetHostname(name) => write!(f, "sethostname({})", name.to_string_lossy()),
            Op::LoopbackUp => write!(f, "ioctl(lo, SIOCSIFFLAGS, IFF_UP)"),
            Op::SetRlimit(resource, soft, hard) => {
                write!(f, "setrlimit({resource}, {soft}, {hard})")
            }
            Op::Umask(mask) => write!(f, "umask({mask:o})"),
            Op::RestrictScope(_) => write!(f, "landlock_restrict_self(scope)"),
            Op::CloseDescriptors => write!(f, "close_range(4, ~0)"),
            Op::NewKeyring => write!(f, "keyctl(KEYCTL_JOIN_SESSION_KEYRING)"),
            Op::LimitBoundingSet(mask) => write!(f, "prctl(PR_CAPBSET_DROP, !{mask:#x})"),
            Op::Seccomp(program) => {
                write!(f, "seccomp({} instructions)", program.as_slice().len())
            }
            Op::BecomeUser(uid, gid, groups) => {
                write!(
                    f,
                    "setresuid({uid}), setresgid({gid}), setgroups({groups:?})"
                )
            }
            Op::SetCapabilities(mask) => write!(f, "capset({mask:#x})"),
            Op::Chdir(path) => write!(f, "chdir({})", path.to_string_lossy()),
        }
    }
}

/// What the child executes after all operations.
pub(crate) struct Exec {
    /// Paths to try in order, as execvp(3) does.
    pub(crate) candidates: Vec<CString>,
    /// The command line.
    pub(crate) args: Vec<CString>,
    /// `NAME=value`.
    pub(crate) env: Vec<CString>,
}

/// All that a child does.
pub(crate) struct Plan {
    pub(crate) ops: Vec<Op>,
    pub(crate) exec: Exec,
    /// The root's mount.
    pub(crate) root: RawFd,
}
