//! What can go wrong in a sandbox, with the call that failed and what to do about it.

use nix::errno::Errno;

/// An error of the runtime. Its text names the call and its arguments; [`Error::hint`] the
/// remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{call}: {}{}", errno.desc(), detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Call {
        /// The call and its arguments.
        call: String,
        /// Why.
        errno: Errno,
        /// The kernel's own words, where it has some.
        detail: Option<String>,
    },
    /// User namespaces can't be created here.
    #[error("user namespaces are not available: unshare(CLONE_NEWUSER|CLONE_NEWNS): {}", .0.desc())]
    UserNamespacesForbidden(Errno),
    /// A program that sets up the id maps failed.
    #[error("{program} could not map the subordinate ids: {stderr}")]
    IdMapRefused {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
        /// What it says.
        stderr: String,
    },
    /// A program that kiln needs is not there.
    #[error("{program} is not installed")]
    MissingProgram {
        /// Its name.
        program: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// No subordinate ids, or a malformed file of them.
    #[error(transparent)]
    SubordinateIds(#[from] crate::subid::SubidError),
    /// The process has threads already.
    #[error("the builder's namespace must be entered before any thread is started")]
    Threads,
    /// The command is not there, or can't be executed.
    #[error("exec {program:?}: {}", exec_reason(*errno))]
    Exec {
        /// The first word of the command.
        program: String,
        /// Why.
        errno: Errno,
    },
    /// The command is there, but what should execute it is not.
    #[error("exec {0:?}: its interpreter is not in the image")]
    Interpreter(String),
    /// The step's user has an id that is not mapped.
    #[error("id {0} is not mapped into the sandbox: kiln has ids 0 to {max}", max = .1 - 1)]
    UnmappedId(u32, u32),
    /// The seccomp policy does not compile.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::SeccompError),
    /// The host-side helper is gone.
    #[error("the host-side helper does not answer")]
    HelperGone(#[source] std::io::Error),
    /// fuse-overlayfs did not mount.
    #[error("fuse-overlayfs could not mount: {0}")]
    Fuse(String),
    /// `KILN_OVERLAY` is neither `kernel` nor `fuse`.
    #[error("KILN_OVERLAY is {0:?}, and may be \"kernel\" or \"fuse\"")]
    OverlaySetting(String),
    /// A value that has a NUL byte in it.
    #[error("{0} contains a NUL byte")]
    NulByte(&'static str),
}

fn exec_reason(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "no such file in the image",
        Errno::EACCES => "permission denied (is it executable?)",
        Errno::ENOEXEC => "not a program that this machine runs (exec format error)",
        other => other.desc(),
    }
}

impl Error {
    /// Returns an error for a system call.
    pub fn call(call: impl Into<String>, errno: Errno) -> Error {
        Error::Call {
            call: call.into(),
            errno,
            detail: None,
        }
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Error::UserNamespacesForbidden(Errno::EPERM | Errno::EACCES) => {
                "this system forbids unprivileged user namespaces. As root, one of:\n\
                 sysctl -w kernel.unprivileged_userns_clone=1 (older Debian),\n\
                 an AppArmor profile with `userns,` for kiln (Ubuntu 23.10 and later; ci/quickstart installs one),\n\
                 or within a container: a seccomp profile that allows unshare and clone"
            }
            Error::UserNamespacesForbidden(Errno::ENOSPC | Errno::EUSERS) => {
                "the limit of user namespaces is reached; as root: sysctl -w user.max_user_namespaces=65536"
            }
            Error::UserNamespacesForbidden(_) => "the kernel needs CONFIG_USER_NS",
            Error::IdMapRefused { .. } => {
                "check that /etc/subuid and /etc/subgid give your user the ranges, and that \
                 newuidmap and newgidmap are setuid root (or have cap_setuid and cap_setgid)"
            }
            Error::MissingProgram { package, .. } => {
                return Some(format!("install the package {package}"));
            }
            Error::SubordinateIds(error) => return error.hint(),
            Error::Exec {
                errno: Errno::ENOEXEC,
                ..
            } => "is the image for another architecture, or is it a script without a #! line?",
            Error::Interpreter(_) => {
                "see the first line of a script (#!), or for a program `readelf -l` on its own \
                 machine: it names the loader that the image needs"
            }
            Error::UnmappedId(..) => {
                "give your user a larger range in /etc/subuid and /etc/subgid, or use a smaller id"
            }
            Error::Call {
                errno: Errno::ENOSPC,
                call,
                ..
            } if call.starts_with("clone") => {
                "the limit of namespaces is reached; as root: sysctl -w user.max_user_namespaces=65536"
            }
            Error::Call {
                errno: Errno::EPERM,
                call,
                ..
            } if call.starts_with("mount(proc") => {
                "the surrounding container masks parts of /proc; run it with an unmasked /proc"
            }
            Error::Call {
                errno: Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP,
                call,
                ..
            } if ["mount(", "move_mount(/", "openat2(/"]
                .iter()
                .any(|name| call.starts_with(name)) =>
            {
                "this path must be a directory of the root file system (for a file that is \
                 mounted, a file), and /proc, /sys and /dev no symbolic links"
            }
            Error::Fuse(_) => {
                "install the package fuse-overlayfs, and see that /dev/fuse can be opened by your user"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
