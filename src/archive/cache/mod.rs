//! Caches that travel: the steps of builds and their layers in a directory of plain files, for
//! machines that start without a store.
//!
//! ```text
//! oci-layout, index.json      an OCI layout with one manifest, named `kiln-cache`
//! blobs/sha256/<hex>          the manifest; its config, which is the records; the layers
//! ```
//!
//! A record is found by the keys that the reading build makes itself, and what it leads to is
//! verified like a layer that is pulled. Whoever can write a cache can still say what a step
//! came to: it is to be trusted as much as the one who wrote it.

mod directory;
mod reader;
mod records;
mod spec;

pub use directory::{CacheWriter, Written, seconds_now};
pub use reader::CacheReader;
pub use records::{CachedLayer, RecordsError};
pub use spec::{CacheFrom, CacheSpecError, CacheTo};

use std::path::PathBuf;

use super::ArchiveError;

/// What the manifest of a cache is called in its layout.
const NAME: &str = "kiln-cache";

/// The media type of the records, which are the config of the manifest.
const RECORDS: &str = "application/vnd.kiln.cache.records.v1+json";

/// No records or manifest of a cache that kiln takes have more bytes.
const DOCUMENT_LIMIT: u64 = 64 << 20;

/// Why a cache can't be used. That is never a reason for a build to fail.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Something that is not a directory.
    #[error("it is no directory")]
    NoDirectory,
    /// A layout of something else.
    #[error("it is an OCI layout, and holds no cache of kiln")]
    Foreign,
    /// A layout of something else, in which a cache was to be put.
    #[error("it holds images or a cache of another builder")]
    Occupied,
    /// Another build writes it all the time.
    #[error("another build has been writing it for {0} seconds")]
    Busy(u64),
    /// Its records are none.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A file can't be read or written.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The layout is damaged, or can't be written.
    #[error(transparent)]
    Layout(#[from] ArchiveError),
}

impl CacheError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            CacheError::Occupied => Some("give the cache a directory of its own".to_owned()),
            CacheError::Io { source, .. } => crate::layer::space_hint(source),
            CacheError::Layout(error @ (ArchiveError::NotALayout(_) | ArchiveError::Io { .. })) => {
                error.hint()
            }
            _ => None,
        }
    }
}
