//! Images in files: OCI layouts, archives of them, docker's archives; root file systems; and
//! caches that travel.
//!
//! What kiln writes for docker is an OCI layout with docker's `manifest.json` beside the
//! index, as docker itself has written it since its version 25.
//!
//! See <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.

mod cache;
mod destination;
mod docker;
mod import;
mod load;
mod metadata;
mod oci;
mod output;
mod places;
mod rootfs;
mod save;
mod source;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use cache::{
    CacheError, CacheFrom, CacheReader, CacheSpecError, CacheTo, CacheWriter, CachedLayer,
    RecordsError, Written, seconds_now,
};
pub use destination::Destination;
pub use import::{ImportOptions, import};
pub use load::{Loaded, load, load_base};
pub use metadata::apply_change;
pub use output::{Output, OutputError, OutputSpec, parse_output, write_output};
pub use places::{ImageFile, ImageWriter, LayoutName};
pub use rootfs::{write_part_dir, write_rootfs_dir, write_rootfs_tar};
pub use save::{Layout, NamedImage, select, write_images};
pub use source::Archive;

use crate::dockerfile::Diagnostics;
use crate::image::{Digest, Platform};
use crate::layer::LayerError;
use crate::store::StoreError;
use crate::transfer::TransferError;

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, such as `cannot write`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Binary data and a terminal.
    #[error("refusing to {0} a terminal")]
    Terminal(&'static str),
    /// The stream is no archive, or not all of one.
    #[error("cannot read the archive: {0}")]
    Unreadable(#[source] LayerError),
    /// An archive of something else.
    #[error("this is no archive of images: it has neither index.json nor manifest.json")]
    NoImages,
    /// An archive of docker before 1.10.
    #[error("this archive was written by a docker before 1.10, without a manifest.json")]
    TooOld,
    /// What the archive refers to, and does not have.
    #[error("{0} is not in the archive")]
    Missing(String),
    /// A document that can't be used.
    #[error("{name} in the archive is malformed: {reason}")]
    Malformed {
        /// Its name in the archive.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than an honest archive has.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A member whose content is not what its name says.
    #[error("{name} in the archive is damaged: its digest is {found}")]
    WrongDigest {
        /// Its name in the archive.
        name: String,
        /// The digest of its content.
        found: Digest,
    },
    /// No image of that tag or digest.
    #[error("the layout has no image {wanted}")]
    NoSuchImage {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// No image for the platform.
    #[error("the archive has no image for {wanted}, only for {}", list(.found))]
    Platform {
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        found: Vec<Platform>,
    },
    /// A directory that has other things in it.
    #[error("{0} is not empty and no OCI layout")]
    NotALayout(PathBuf),
    /// A blob of the store that can't be read, or is not what it was.
    #[error("cannot read {digest} from the store: {source}")]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// An instruction for the config that can't be used.
    #[error("cannot apply the change {change:?}: {reason}")]
    Change {
        /// What was given.
        change: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The layer of a root file system.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Layers on their way into or out of the store.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

fn list(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl ArchiveError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            ArchiveError::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "the disk is full: free space, or write elsewhere",
                _ => return None,
            },
            ArchiveError::NoSuchImage { found, .. } => {
                return Some(format!("its images are {}", found.join(", ")));
            }
            ArchiveError::Terminal(_) => "name a file, or redirect",
            ArchiveError::Unreadable(LayerError::Read(source))
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                "compressed and piped archives are spooled in the store: free space there"
            }
            ArchiveError::Unreadable(error) => return error.hint(),
            ArchiveError::NoImages => "a tar of a root file system is taken by `kiln import`",
            ArchiveError::TooOld => "load it into a newer docker and save it there again",
            ArchiveError::Missing(_)
            | ArchiveError::Malformed { .. }
            | ArchiveError::WrongDigest { .. }
            | ArchiveError::Transfer(TransferError::Read { .. }) => {
                "the archive is damaged or incomplete: make it again; nothing of it was kept"
            }
            ArchiveError::Platform { found, .. } => {
                let platform = found.first()?;
                return Some(format!("say --platform={platform} to take that one"));
            }
            ArchiveError::NotALayout(_) => "name a new or an empty directory",
            ArchiveError::Blob { .. } => "pull or build the image again",
            ArchiveError::Change { hint, .. } => return hint.clone(),
            ArchiveError::Layer(error) => return error.hint(),
            ArchiveError::Store(error) => return error.hint(),
            ArchiveError::Transfer(error) => return error.hint(),
            ArchiveError::Limit { .. } => return None,
        };
        Some(text.to_owned())
    }

    fn change(change: &str, found: &Diagnostics) -> ArchiveError {
        ArchiveError::Change {
            change: change.to_owned(),
            reason: found.to_string(),
            hint: found.hint(),
        }
    }
}

/// The result of an operation on an archive.
pub type Result<T> = std::result::Result<T, ArchiveError>;

/// Attaches what was tried, and on what, to an I/O error.
trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| ArchiveError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}
