//! Layers: a directory tree in overlayfs form, and the tar stream that it stands for.
//!
//! - [`apply`] extracts a stream into an empty directory, [`LayerWriter`] builds one up
//!   entry by entry (COPY, ADD, WORKDIR).
//! - [`Assembly`] does for COPY what a [`LayerWriter`] does, in one pass.
//! - [`members()`] tells where the members of an archive lie that is not extracted.
//! - [`View`] is the merged read-only view over a stack of such directories, without a mount.
//! - [`diff`] decides what of an overlay's upper directory belongs to the layer, and
//!   [`write_tar`] makes the stream, a pure function of the directory and that decision.
//!
//! Paths within a tree are bytes, relative, without `.`, `..` or slashes at either end; the
//! empty path is the root. Everything is reached below a directory descriptor.
//!
//! See <https://github.com/opencontainers/image-spec/blob/main/layer.md>.

mod acl;
mod ahead;
mod apply;
mod assemble;
mod attributes;
mod capability;
mod chunks;
mod compression;
mod compressor;
mod copy;
mod diff;
mod digester;
mod dir;
mod entries;
mod gzip;
mod header;
mod members;
mod meta;
mod ownership;
mod path;
mod pax;
mod reader;
mod sparse;
mod stat;
mod stream;
mod view;
mod whiteout;
mod writer;
mod xattr;

#[cfg(test)]
pub(crate) mod testing;

use std::io;

pub use ahead::{decode_beside, decode_through};
pub use apply::{Applied, ApplyMode, ApplyOptions, Limits, apply};
pub use assemble::{Assembled, Assembly, Content, Plan};
pub use attributes::Attributes;
pub use chunks::{Chunked, Chunks};
pub use compression::Compression;
pub use compressor::{Compressor, CompressorError, Encoder};
pub(crate) use copy::copy as copy_content;
pub use diff::{Change, Diff, UpperKind, changes, diff, diff_with_contents, normalise_fuse};
pub use digester::{Digester, DigestingWriter};
pub(crate) use dir::remove_all;
pub use dir::{LayerDir, Owners};
pub use entries::Contents;
pub use members::{Member, MemberContent, member_header, members};
pub use meta::{ContentId, LayerMeta, Omit};
pub use ownership::{Overrides, Ownership, Record};
pub use path::{Rebase, escape, unescape};
pub use stat::{Device, FileKind, Stat, Timestamp};
pub use stream::{StreamStats, write_contents, write_merged_tar, write_part_tar, write_tar};
pub use view::{DirEntry, Node, Opener, ResolvedPath, View};
pub use writer::{LayerWriter, Written};
pub use xattr::Xattrs;

/// Why a layer could not be read, extracted or written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A system call on an entry of a layer directory failed.
    #[error("{call}({path:?}): {source}")]
    System {
        /// The name of the call.
        call: &'static str,
        /// The path below the layer directory, escaped.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The source of a stream failed, or its compression is damaged.
    #[error("cannot read the layer stream: {0}")]
    Read(#[source] io::Error),
    /// The destination of a stream failed.
    #[error("cannot write the layer stream: {0}")]
    Write(#[source] io::Error),
    /// The stream ends too early.
    #[error("truncated tar stream: it ends within {within}")]
    Truncated {
        /// What was being read.
        within: String,
    },
    /// The stream is no tar archive.
    #[error("not a tar archive, or a damaged one: {problem} at byte {offset}")]
    Malformed {
        /// What is wrong.
        problem: String,
        /// The offset of the header in the uncompressed stream.
        offset: u64,
    },
    /// An entry that must not or can't be extracted.
    #[error("tar entry {name:?}: {problem}")]
    Entry {
        /// The name as it stands in the archive, escaped.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More than the limits allow.
    #[error("the archive holds more than {limit} {what}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A file where a directory has to be, or the other way round.
    #[error("cannot copy to non-directory: /{0}")]
    NotADirectory(String),
    /// A path that leads through something that is no directory.
    #[error("not a directory: /{0}")]
    ThroughFile(String),
    /// A path that has to be a regular file.
    #[error("not a regular file: /{0}")]
    NotAFile(String),
    /// Too many symbolic links on the way.
    #[error("too many levels of symbolic links: /{0}")]
    TooManyLinks(String),
    /// A path that must exist does not.
    #[error("no such file or directory in the image: /{0}")]
    Missing(String),
    /// A path or one of its components is longer than a file system can hold.
    #[error("file name too long: /{0}")]
    NameTooLong(String),
    /// A user's file whose name would be read as a deletion by whoever applies the layer.
    #[error("cannot put {0:?} into a layer: names that start with .wh. stand for deletions")]
    ReservedName(String),
    /// A file changed its size between the header and the data.
    #[error("file changed while it was read: {0:?}")]
    Changed(String),
}

/// Returns what to do where an error says that there is no room in the store.
pub fn space_hint(error: &io::Error) -> Option<String> {
    let full = match error.kind() {
        io::ErrorKind::StorageFull => "the disk of the store is full",
        io::ErrorKind::QuotaExceeded => "the quota of this user is used up",
        _ => return None,
    };
    Some(format!(
        "{full}: remove images with `kiln rmi`, or put the store elsewhere with --root"
    ))
}

impl LayerError {
    /// Returns what would help, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            LayerError::ReservedName(_) => {
                Some("rename the file, or delete it in the same step".to_owned())
            }
            LayerError::Truncated { .. } => {
                Some("fetch or make the archive again: its end is missing".to_owned())
            }
            // Of a build context: what lies in the store is kiln's own.
            LayerError::System { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(
                    "your user may not read it: name it in .dockerignore, or change its permissions"
                        .to_owned(),
                )
            }
            LayerError::System { source, .. }
            | LayerError::Read(source)
            | LayerError::Write(source) => space_hint(source),
            LayerError::Limit { .. } => {
                Some("if the archive is to be trusted, raise the limit".to_owned())
            }
            _ => None,
        }
    }

    fn entry(name: &[u8], problem: impl Into<String>) -> LayerError {
        LayerError::Entry {
            name: escape(name),
            problem: problem.into(),
        }
    }
}

/// Attaches the call and its path to what the kernel said.
trait Call<T> {
    fn call(self, call: &'static str, path: &[u8]) -> Result<T, LayerError>;
}

impl<T, E: Into<io::Error>> Call<T> for Result<T, E> {
    fn call(self, call: &'static str, path: &[u8]) -> Result<T, LayerError> {
        self.map_err(|source| LayerError::System {
            call,
            path: escape(path),
            source: source.into(),
        })
    }
}
