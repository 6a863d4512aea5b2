//! Archives become trees.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{FetchError, Fetcher, Result};
use crate::layer::{ApplyMode, ApplyOptions, LayerDir, Limits, Ownership, View, apply};

/// The length of a tar header.
const BLOCK: usize = 512;

/// Tells whether a stream, decompressed, is an archive, by its first 512 bytes: whether they
/// are a header with the right checksum.
pub fn begins_archive(block: &[u8]) -> bool {
    let Some(block) = block.get(..BLOCK) else {
        return false;
    };
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    // The checksum counts its own field as blanks.
    let sum: u32 = block[..148]
        .iter()
        .chain(&block[156..])
        .map(|b| u32::from(*b))
        .sum::<u32>()
        + 8 * u32::from(b' ');
    header.cksum().is_ok_and(|stored| stored == sum)
}

impl Fetcher<'_> {
    /// Extracts an archive that is not compressed, and returns its tree. All of it is root's.
    ///
    /// # Errors
    /// It is damaged; disk full, and the like.
    pub fn extract(&self, name: &str, reader: &mut dyn Read) -> Result<View> {
        let path = self.transfer.session.directory()?;
        let directory = open_directory(&path)?;
        let nothing = View::new(Vec::new());
        let options = ApplyOptions {
            ownership: Ownership::Single,
            lower: &nothing,
            mode: ApplyMode::Archive {
                dest: Vec::new(),
                owner: Some((0, 0)),
            },
            limits: Limits::default(),
        };
        let applied =
            apply(reader, directory.as_fd(), &options).map_err(|source| FetchError::Archive {
                name: name.to_owned(),
                source,
            })?;
        let tree = LayerDir::new(directory, Ownership::Single).with_overrides(applied.overrides);
        Ok(View::new(vec![tree]))
    }
}

pub(super) fn open_directory(path: &std::path::Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| FetchError::io(path, errno))
}
