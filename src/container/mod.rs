//! Working containers, without a daemon: an image and what was changed in it.
//!
//! A container is a directory of the store, see [`crate::store::Container`]. The kiln that
//! starts it holds its lock and waits for its end; whoever asks meanwhile finds the lock held.

mod changes;
mod commit;
mod copy;
mod exec;
mod inside;
mod mounts;
mod names;
mod pause;
mod start;

pub use changes::{Changed, changed};
pub use commit::{CommitOptions, commit};
pub use copy::{Found, Source, Target, find};
pub use exec::{ExecRequest, exec};
pub use inside::Inside;
pub use pause::{hold_still, pause, unpause};
pub use start::{Started, exit_code_of, start};

use crate::image::{Digest, RunConfig};
use crate::sandbox::{SandboxError, Sandboxes};
use crate::store::{
    Container, ContainerLock, ContainerRecord, ContainerSettings, Hold, Session, Stack, Store,
    StoreError,
};

/// What can go wrong with a container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A tree.
    #[error(transparent)]
    Layer(#[from] crate::layer::LayerError),
    /// A change that `commit` can't make.
    #[error(transparent)]
    Archive(#[from] crate::archive::ArchiveError),
    /// A name that no container can have.
    #[error("invalid container name {0:?}")]
    Name(String),
    /// The name that it has.
    #[error("the container has the name {0:?} already")]
    SameName(String),
    /// What needs a container that does not run.
    #[error("container {0} is running")]
    Running(String),
    /// What needs one that does.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// What ends one that does.
    #[error("container {0} is not running")]
    Ended(String),
    /// What needs one that is not paused.
    #[error("container {0} is paused")]
    Paused(String),
    /// What needs one that is.
    #[error("container {0} is not paused")]
    NotPaused(String),
    /// One whose processes can't be stopped.
    #[error("cannot pause container {name}: {source}")]
    NotStill {
        /// Its name.
        name: String,
        /// Why not.
        source: SandboxError,
    },
    /// Processes of a start whose kiln was killed.
    #[error("processes of the last start of container {0} have not ended yet")]
    Lingering(String),
    /// Something that can't be mounted.
    #[error("cannot mount {path}: {source}")]
    Mount {
        /// The user's file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A capability that there is not.
    #[error(transparent)]
    Capability(#[from] kiln_runtime::capability::UnknownCapability),
    /// A path that is not there.
    #[error("could not find the file {path} in container {name}")]
    NoFile {
        /// The path.
        path: String,
        /// The container.
        name: String,
    },
    /// What a process in the container could not do.
    #[error("{error}")]
    Inside {
        /// What it says.
        error: String,
        /// What a person can do about it.
        hint: Option<String>,
    },
    /// A file operation.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl ContainerError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ContainerError::Store(error) => error.hint(),
            ContainerError::Sandbox(error) => error.hint(),
            ContainerError::Layer(error) => error.hint(),
            ContainerError::Archive(error) => error.hint(),
            ContainerError::Capability(error) => error.hint(),
            ContainerError::Name(_) => Some(
                "a name has letters, digits, and after the first of them also _ . and -".to_owned(),
            ),
            ContainerError::Running(name) => Some(format!("stop it first: kiln stop {name}")),
            ContainerError::NotRunning(name) => Some(format!("start it first: kiln start {name}")),
            ContainerError::Paused(name) => {
                Some(format!("let it go on first: kiln unpause {name}"))
            }
            ContainerError::NotStill { .. } => Some("try again".to_owned()),
            ContainerError::NoFile { .. }
            | ContainerError::Ended(_)
            | ContainerError::NotPaused(_)
            | ContainerError::SameName(_) => None,
            ContainerError::Lingering(_) => Some("try again in a moment".to_owned()),
            ContainerError::Mount { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => Some("it must exist".to_owned()),
                _ => None,
            },
            ContainerError::Inside { hint, .. } => hint.clone(),
            ContainerError::Io(error) => crate::layer::space_hint(error),
        }
    }
}

/// The result of an operation on a container.
pub type Result<T> = std::result::Result<T, ContainerError>;

/// What a container is made of.
pub struct Wanted<'a> {
    /// Its name; empty for one by chance.
    pub name: &'a str,
    /// The image.
    pub image: Digest,
    /// The image as it was named.
    pub image_name: &'a str,
    /// Its layers, which are in the store.
    pub stack: &'a Stack,
    /// What it runs.
    pub settings: ContainerSettings,
}

/// Makes a container, and holds it.
///
/// # Errors
/// See [`ContainerError`].
pub fn create(
    store: &Store,
    session: &Session,
    wanted: Wanted<'_>,
) -> Result<(Container, ContainerLock)> {
    if !wanted.name.is_empty() && !names::is_valid(wanted.name) {
        return Err(ContainerError::Name(wanted.name.to_owned()));
    }
    let record = ContainerRecord {
        id: String::new(),
        name: wanted.name.to_owned(),
        created: jiff::Timestamp::now().to_string(),
        image: wanted.image,
        image_name: wanted.image_name.to_owned(),
        form: store.form().name.clone(),
        settings: wanted.settings,
    };
    let view = store.view(wanted.stack)?;
    store.create_container(session, record, names::random(), |record, changes| {
        let cwd = record.settings.working_dir.as_bytes();
        Ok(Sandboxes::begin_changes(store, &view, changes, cwd)?)
    })
}

/// Gives a container another name.
///
/// # Errors
/// See [`ContainerError`].
pub fn rename(store: &Store, container: &Container, name: &str) -> Result<()> {
    if !names::is_valid(name) {
        return Err(ContainerError::Name(name.to_owned()));
    }
    if container.record.name == name {
        return Err(ContainerError::SameName(name.to_owned()));
    }
    Ok(store.rename_container(container, name)?)
}

/// Prepares to read the files of a container. Where it doesn't run, it is not started as long as
/// the lock is held.
///
/// # Errors
/// [`ContainerError::Running`] where it runs on fuse-overlayfs, which alone knows its form.
pub fn read(store: &Store, container: &Container) -> Result<(Option<ContainerLock>, Container)> {
    let hold = match container.status.is_raw {
        true => Hold::Change,
        false => Hold::Read,
    };
    match store.hold_container(container, hold)? {
        Some((lock, mut container)) => {
            start::settle(store, &mut container)?;
            Ok((Some(lock), container))
        }
        None if container.status.is_raw => {
            Err(ContainerError::Running(container.record.name.clone()))
        }
        None => Ok((None, container.clone())),
    }
}

/// Puts entry point and command of an image and of the user together, as docker does: a new
/// entry point drops the image's command, and an empty one the image's entry point.
pub fn command_line(
    config: &RunConfig,
    entrypoint: Option<&str>,
    command: &[String],
) -> (Vec<String>, Vec<String>) {
    let own = match entrypoint {
        Some("") => Vec::new(),
        Some(entrypoint) => vec![entrypoint.to_owned()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    let command = match (command.is_empty(), entrypoint) {
        (true, None) => config.cmd.clone().unwrap_or_default(),
        _ => command.to_vec(),
    };
    (own, command)
}
