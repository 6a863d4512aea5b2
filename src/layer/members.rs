//! Archives whose members are read where they lie, and never extracted: those of images.

use std::io::Read;

use super::header::{self, Fields};
use super::reader::{EntryKind, TarReader};
use super::stat::{Device, Timestamp};
use super::xattr::Xattrs;
use super::{LayerError, path};

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its clean path.
    pub path: Vec<u8>,
    /// Where its content is.
    pub content: MemberContent,
}

/// Where the content of a [`Member`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberContent {
    /// In the uncompressed stream.
    Here {
        /// The place of the first byte.
        offset: u64,
        /// The number of bytes.
        size: u64,
    },
    /// In the member of this clean path.
    Link(Vec<u8>),
}

/// Reads an uncompressed archive to its end and hands each file and each link to `visit`, in
/// order. Links that leave the archive are left out: they lead to nothing.
///
/// # Errors
/// The stream is no whole archive, or `visit` fails.
pub fn members<E: From<LayerError>>(
    reader: &mut dyn Read,
    mut visit: impl FnMut(Member) -> Result<(), E>,
) -> Result<(), E> {
    let mut tar = TarReader::new(reader);
    while let Some(entry) = tar.next_entry()? {
        let own = path::of_entry(&entry.name)?;
        let content = match entry.kind {
            EntryKind::File if entry.sparse.is_some() => {
                return Err(LayerError::entry(&entry.name, "it is sparse").into());
            }
            EntryKind::File => MemberContent::Here {
                offset: tar.offset(),
                size: entry.size,
            },
            EntryKind::HardLink | EntryKind::Symlink => {
                let target = match entry.kind {
                    EntryKind::Symlink if !entry.link.starts_with(b"/") => {
                        path::join(path::split(&own).0, &entry.link)
                    }
                    _ => entry.link,
                };
                match path::of_entry(&target) {
                    Ok(target) => MemberContent::Link(target),
                    Err(_) => continue,
                }
            }
            _ => continue,
        };
        visit(Member { path: own, content })?;
    }
    Ok(())
}

/// Returns the header of a member: a file, or a directory where the name ends with a slash.
/// It belongs to root, and its time is zero.
pub fn member_header(name: &str, size: u64) -> Vec<u8> {
    let directory = name.ends_with('/');
    let fields = Fields {
        path: name.as_bytes(),
        flag: if directory { b'5' } else { b'0' },
        mode: if directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        size,
        mtime: Timestamp::default(),
        link: b"",
        device: Device::default(),
        xattrs: &Xattrs::new(),
    };
    header::encode(&fields, true)
}
