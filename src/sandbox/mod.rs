//! A stack of layers as the root of a sandbox: the overlay, the mount points that are
//! missing, the files that every container has, the user.

mod merge;
mod mount;
mod root;
mod surroundings;
mod user;

pub use mount::{Access, PrivateFiles, Shown, make_harmless, make_read_only};
pub use root::{Changes, MountPoint, Root};
pub use surroundings::Surroundings;
pub use user::{Identity, UserError, home_of, lookup_chown, lookup_user};

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_runtime::capability::CapabilitySet;
use kiln_runtime::seccomp::{Policy, Program};
use kiln_runtime::{
    Builder, Create, HostHelper, Mount, Network, OverlayKind, Spec, Stdio, Step, Upper, User,
};

use crate::layer::{LayerError, View};
use crate::store::{Session, Store, StoreError};

/// The PATH of an image that sets none, as docker has it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] kiln_runtime::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The command can't start where it should.
    #[error("the working directory {0} is not a directory in the image")]
    WorkingDirectory(String),
    /// A user that is not there.
    #[error(transparent)]
    User(#[from] UserError),
    /// A file operation.
    #[error("cannot prepare the sandbox: {0}")]
    Io(#[from] std::io::Error),
}

impl SandboxError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            SandboxError::Runtime(error) => error.hint(),
            SandboxError::Store(error) => error.hint(),
            SandboxError::Layer(error) => error.hint(),
            SandboxError::User(error) => error.hint(),
            SandboxError::WorkingDirectory(_) => None,
            SandboxError::Io(error) => crate::layer::space_hint(error),
        }
    }
}

/// What sandboxes are made with: one per kiln process.
pub struct Sandboxes {
    builder: Builder,
    store: Store,
    session: std::sync::Arc<Session>,
    overlay: OverlayKind,
    seccomp: Program,
}

/// A command to be run in a sandbox.
pub struct Command {
    /// The command line.
    pub args: Vec<Vec<u8>>,
    /// The whole environment.
    pub env: Vec<String>,
    /// The working directory; it must exist.
    pub cwd: Vec<u8>,
    /// Who runs it.
    pub user: User,
    /// Which network it sees.
    pub network: Network,
    /// What it sees around it beside that.
    pub surroundings: Surroundings,
    /// The host name.
    pub hostname: String,
    /// What is mounted over the root, in order.
    pub mounts: Vec<Mount>,
    /// Whether the root can't be written.
    pub read_only: bool,
    /// Whether the caller's files are among the mounts: see [`Spec::maps_caller`].
    pub maps_caller: bool,
    /// The capabilities of root, and the limit of all.
    pub capabilities: CapabilitySet,
    /// Standard input, output and error.
    pub stdio: Stdio,
}

impl Sandboxes {
    /// Prepares what all sandboxes have in common.
    ///
    /// # Errors
    /// The seccomp policy does not compile for this machine.
    pub fn new(
        builder: &Builder,
        store: &Store,
        session: &std::sync::Arc<Session>,
        overlay: OverlayKind,
    ) -> Result<Sandboxes, SandboxError> {
        let seccomp = Policy::default_policy()
            .compile(CapabilitySet::default_set())
            .map_err(kiln_runtime::Error::from)?;
        Ok(Sandboxes {
            builder: builder.clone(),
            store: store.clone(),
            session: session.clone(),
            overlay,
            seccomp,
        })
    }

    /// Returns the store that the layers are in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns what mounts roots.
    pub fn overlay(&self) -> OverlayKind {
        self.overlay
    }

    /// Returns the helper that executes programs outside the namespace.
    pub fn host(&self) -> &HostHelper {
        self.builder.host()
    }

    /// Prepares a writable root on top of trees, bottom first, which make up `view`, for
    /// commands that start in `cwd`. Where that is missing it is made, and counts as a change,
    /// as in docker. Mount points that are missing are made too, and count for nothing.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub fn root(
        &self,
        trees: &[PathBuf],
        view: &View,
        cwd: &[u8],
        points: &[MountPoint],
    ) -> Result<Root, SandboxError> {
        Root::prepare(self, trees, view, cwd, points)
    }

    /// Gives an empty directory, which is to hold changes on top of `view`, what must be there
    /// from the start for a command that starts in `cwd`.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub fn begin_changes(
        store: &Store,
        view: &View,
        directory: &Path,
        cwd: &[u8],
    ) -> Result<(), SandboxError> {
        root::begin_changes(view, directory, store.form().ownership, cwd)
    }

    /// Prepares a writable root with changes that were made earlier and that stay: `view` shows
    /// the trees and those.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub fn reopen(
        &self,
        trees: &[PathBuf],
        view: &View,
        points: &[MountPoint],
        upper: Upper<'_>,
    ) -> Result<Root, SandboxError> {
        Root::reopen(self, trees, view, points, upper)
    }

    /// Starts a command in a root.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub fn start(&self, root: &Root, command: Command) -> Result<Step, SandboxError> {
        let bind = |target: &str, source: &Path| -> Result<Mount, SandboxError> {
            Ok(Mount {
                target: target.as_bytes().to_vec(),
                source: kiln_runtime::mount_file(source, false)?,
                create: Create::Never,
            })
        };
        let around = &command.surroundings;
        let mut mounts = vec![
            bind(
                "/etc/resolv.conf",
                &root.resolv_conf(command.network, around)?,
            )?,
            bind("/etc/hosts", &root.hosts(&command.hostname, around)?)?,
        ];
        mounts.extend(command.mounts);
        let mount = root.mount()?;
        if command.read_only {
            mount::make_root_read_only(&mount)?;
        }
        let spec = Spec {
            root: mount,
            args: command.args,
            env: command.env.into_iter().map(String::into_bytes).collect(),
            cwd: command.cwd,
            user: command.user,
            network: command.network,
            hostname: command.hostname,
            mounts,
            capabilities: command.capabilities,
            maps_caller: command.maps_caller,
            seccomp: Some(self.seccomp.clone()),
            rlimits: command.surroundings.rlimits,
            shm_size: command.surroundings.shm_size,
            stdio: command.stdio,
        };
        Ok(self.builder.spawn(spec)?)
    }
}

/// Opens /dev/null for reading.
///
/// # Errors
/// It is not there.
pub fn dev_null() -> std::io::Result<OwnedFd> {
    let file = std::fs::File::open("/dev/null")?;
    file.as_fd().try_clone_to_owned()
}
