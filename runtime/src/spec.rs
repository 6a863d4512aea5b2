//! What a sandbox shall be: the root, the command, and what it may see.

use std::os::fd::OwnedFd;

use crate::capability::CapabilitySet;

/// A sandbox and the command in it. Paths are bytes, as in images.
pub struct Spec {
    /// The root file system: a mount that is attached nowhere, from [`crate::Overlay`] or
    /// [`crate::mount_directory`].
    pub root: OwnedFd,
    /// The command line. The first word is looked for in the `PATH` of `env`, unless it has a
    /// slash.
    pub args: Vec<Vec<u8>>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// The working directory, absolute.
    pub cwd: Vec<u8>,
    /// Who runs the command.
    pub user: User,
    /// Which network it sees.
    pub network: Network,
    /// The host name in it.
    pub hostname: String,
    /// What is mounted over the root beside the kernel's file systems.
    pub mounts: Vec<Mount>,
    /// The capabilities of the command where its user is root, and the limit of all.
    pub capabilities: CapabilitySet,
    /// Whether the caller's own id is mapped, to the first number above all others: then root in
    /// the sandbox may use files of the caller's that are mounted. Without that they belong to
    /// nobody there.
    pub maps_caller: bool,
    /// The seccomp filter; none to leave all system calls.
    pub seccomp: Option<crate::seccomp::Program>,
    /// Resource limits: resource (`libc::RLIMIT_…`), soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// The size of /dev/shm in bytes; 64 MiB where it is missing.
    pub shm_size: Option<u64>,
    /// Standard input, output and error.
    pub stdio: Stdio,
}

/// Standard input, output and error of a command.
pub enum Stdio {
    /// These.
    Given([OwnedFd; 3]),
    /// A terminal of the sandbox's own, whose other end the step hands out.
    Terminal(WindowSize),
}

impl From<[OwnedFd; 3]> for Stdio {
    fn from(fds: [OwnedFd; 3]) -> Stdio {
        Stdio::Given(fds)
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// A command that joins the sandbox of a running step.
pub struct Addition {
    /// The command line, as in [`Spec::args`].
    pub args: Vec<Vec<u8>>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// The working directory, absolute.
    pub cwd: Vec<u8>,
    /// Who runs the command.
    pub user: User,
    /// As in [`Spec::capabilities`].
    pub capabilities: CapabilitySet,
    /// As in [`Spec::seccomp`].
    pub seccomp: Option<crate::seccomp::Program>,
    /// Resource limits: resource (`libc::RLIMIT_…`), soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Standard input, output and error.
    pub stdio: Stdio,
}

/// The user of a step, in the ids of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// Which network a step sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The caller's.
    #[default]
    Host,
    /// A new one with nothing but a loopback interface that is up.
    None,
}

/// Something mounted over the root.
pub struct Mount {
    /// Where, below the root; symbolic links are resolved inside.
    pub target: Vec<u8>,
    /// What: a mount that is attached nowhere, from [`crate::mount_directory`],
    /// [`crate::mount_file`], [`crate::mount_tmpfs`] or [`crate::Attached::part`].
    pub source: OwnedFd,
    /// Whether the target is made where it is missing.
    pub create: Create,
}

/// What is made where the target of a mount is missing. That is written to whatever is mounted
/// there by then: an earlier mount, or the root itself. No symbolic link is followed to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Create {
    /// Nothing: the target must exist.
    #[default]
    Never,
    /// An empty directory, with its parents.
    Directory,
    /// An empty file, with its parents.
    File,
}
