//! The entries of a layer directory, in the order of its stream.

use super::dir::{Found, LayerDir, Names};
use super::stat::FileKind;
use super::{LayerError, Omit, escape, path};

/// An entry of a layer directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub path: Vec<u8>,
    pub found: Found,
    pub names: Names,
}

impl Entry {
    /// Returns whether the stream has no more of it than that something is gone.
    pub(super) fn deletes(&self) -> bool {
        match self.found {
            Found::Nothing => false,
            Found::Whiteout => true,
            // No tar can hold a socket, but what it replaced is gone.
            Found::Entry(stat) => stat.kind == FileKind::Socket,
        }
    }
}

/// Returns the entries of a directory that belong to the layer, last one first: other entries
/// by name, then deletions, which have to precede them.
pub(super) fn entries(
    layer: &LayerDir,
    omit: &Omit,
    parent: &[u8],
) -> Result<Vec<Entry>, LayerError> {
    let mut entries = Vec::new();
    for name in layer.list(parent)? {
        let path = path::join(parent, &name);
        if path.len() > path::MAX_PATH {
            return Err(LayerError::NameTooLong(escape(&path)));
        }
        if omit.entries.contains(&path) {
            continue;
        }
        let (found, names) = layer.look(&path)?;
        entries.push(Entry { path, found, names });
    }
    entries.sort_by_key(|entry| !entry.deletes());
    entries.reverse();
    Ok(entries)
}

/// What of a directory belongs to a layer, in the order of its stream: what was seen of it is
/// not looked at again. See [`super::write_contents`].
#[derive(Debug, Default)]
pub struct Contents {
    /// Whether the root directory itself is part of it.
    pub(super) root: bool,
    /// The rest, and whether each hides what lies below it.
    pub(super) entries: Vec<(Entry, bool)>,
}

impl Contents {
    /// Returns the bytes of all its files, those with several names counted for each.
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|(entry, _)| match entry.found {
            Found::Entry(stat) => stat.size,
            Found::Nothing | Found::Whiteout => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }
}
