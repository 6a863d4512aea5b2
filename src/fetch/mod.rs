//! Files from elsewhere: URLs, git repositories, and archives on their way to a tree. For ADD,
//! and for build contexts.
//!
//! All of it is hostile. Bodies are streamed into the store's blobs, archives are extracted
//! below a descriptor, and git runs on the host, as `git.rs` says.

mod archive;
mod authorization;
mod git;
mod location;
mod submodule;
mod url;

use std::io;
use std::path::{Path, PathBuf};

use kiln_runtime::HostHelper;

pub use archive::begins_archive;
pub use authorization::Authorizations;
pub use git::Commit;
pub use location::{GitLocation, Location, LocationError};
pub use url::{Fetched, name_of_url};

use crate::image::Digest;
use crate::layer::{LayerError, space_hint};
use crate::registry::{Web, WebError};
use crate::store::StoreError;
use crate::transfer::Transfer;

/// What it takes to fetch.
pub struct Fetcher<'a> {
    /// Where things go, and who is told.
    pub transfer: Transfer<'a>,
    /// Runs git outside the builder's namespace.
    pub host: &'a HostHelper,
    /// Reads URLs.
    pub web: &'a Web,
    /// What servers are told.
    pub authorizations: &'a Authorizations,
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server, or the way to it.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The name of a place.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Other bytes than were asked for.
    #[error("{url} has the checksum {found}, and {expected} was asked for")]
    Checksum {
        /// Where it came from.
        url: String,
        /// What `--checksum` says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// git, or a repository.
    #[error("cannot fetch the git repository {remote}: {reason}")]
    Git {
        /// The repository, without a password.
        remote: String,
        /// What git says, or what is wrong.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// An archive that can't be extracted.
    #[error("cannot extract {name}: {source}")]
    Archive {
        /// What it is called.
        name: String,
        /// Why not.
        source: LayerError,
    },
    /// A file operation failed.
    #[error("cannot write {path}: {source}")]
    Io {
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl FetchError {
    fn io(path: &Path, source: impl Into<io::Error>) -> FetchError {
        FetchError::Io {
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            FetchError::Web(error) => match error.local() {
                Some(error) => space_hint(error),
                None => error.hint(),
            },
            FetchError::Location(error) => error.hint(),
            FetchError::Store(error) => error.hint(),
            FetchError::Checksum { .. } => Some(
                "either the file was replaced, or the checksum is of another one; nothing of it \
                 was kept"
                    .to_owned(),
            ),
            FetchError::Git { hint, .. } => hint.clone(),
            FetchError::Archive { source, .. } => source.hint(),
            FetchError::Io { source, .. } => space_hint(source),
        }
    }
}

/// The result of fetching.
pub type Result<T> = std::result::Result<T, FetchError>;
