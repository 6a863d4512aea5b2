//! Decides what of an upper directory belongs to the layer.
//!
//! An overlay's upper directory holds more than a step changed: directories that were copied
//! up for the sake of an entry below them, files that were opened for writing and left as they
//! were, and deletions of what the step itself had made.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;

use super::dir::{Found, LayerDir};
use super::entries::{Contents, Entry, entries};
use super::ownership::{Overrides, Record};
use super::stat::{FileKind, Stat};
use super::view::{Node, View};
use super::{LayerError, Omit, escape, path, whiteout};

/// Who wrote an upper directory, and so which form its deletions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpperKind {
    /// The kernel's overlayfs with `userxattr`, or kiln itself.
    Overlay,
    /// fuse-overlayfs. Its deletions are rewritten in the directory.
    Fuse,
}

/// What of a directory belongs to the layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// What does not.
    pub omit: Omit,
    /// Records of entries that can't have `user.*` attributes, taken over from below.
    pub overrides: Overrides,
    /// Whether the stream has an entry for every parent. It always has.
    pub self_contained: bool,
    /// Whether nothing belongs to the layer.
    pub empty: bool,
}

impl Diff {
    /// Returns that all of a directory but its root belongs to the layer.
    pub fn whole(overrides: Overrides) -> Diff {
        Diff {
            omit: Omit {
                root: true,
                ..Omit::default()
            },
            overrides,
            self_contained: true,
            empty: false,
        }
    }
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It, or something in it, is not as it was.
    Changed,
    /// It is gone.
    Deleted,
}

/// Returns what an upper directory makes of a tree, sorted by path: what a person would say.
pub fn changes(
    upper: &LayerDir,
    lower: &View,
    kind: UpperKind,
) -> Result<Vec<(Vec<u8>, Change)>, LayerError> {
    if kind == UpperKind::Fuse {
        whiteout::normalise_fuse(upper.fd())?;
    }
    let items = kept_items(upper, lower, &mut upper.overrides().clone())?;
    let mut found = Vec::new();
    for item in &items {
        if !item.keep {
            continue;
        }
        let change = match (&item.entry.found, &item.below) {
            (Found::Whiteout, _) => Change::Deleted,
            (_, Some(_)) => Change::Changed,
            (_, None) => Change::Added,
        };
        found.push((item.entry.path.clone(), change));
        // What an opaque directory hides is gone, unless it was made again.
        if item.opaque && item.below.as_ref().is_some_and(|node| node.stat.is_dir()) {
            for entry in lower.read_dir(&item.entry.path)? {
                if matches!(upper.find(&entry.node.path)?, Found::Nothing) {
                    found.push((entry.node.path, Change::Deleted));
                }
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Rewrites the deletions that fuse-overlayfs left into overlayfs's form, which both know.
pub fn normalise_fuse(upper: std::os::fd::BorrowedFd<'_>) -> Result<(), LayerError> {
    whiteout::normalise_fuse(upper)
}

/// An entry of the upper directory, in the order of the stream.
struct Item {
    entry: Entry,
    /// The index of its directory.
    parent: Option<usize>,
    /// What it replaces.
    below: Option<Node>,
    keep: bool,
    /// Whether nothing from below shows within it.
    fresh: bool,
    opaque: bool,
}

/// Returns what of `upper` belongs to a layer on top of `lower`.
pub fn diff(upper: &LayerDir, lower: &View, kind: UpperKind) -> Result<Diff, LayerError> {
    Ok(diff_with_contents(upper, lower, kind)?.0)
}

/// As [`diff`], with all that belongs to the layer: for a directory that nobody changes.
pub fn diff_with_contents(
    upper: &LayerDir,
    lower: &View,
    kind: UpperKind,
) -> Result<(Diff, Contents), LayerError> {
    if kind == UpperKind::Fuse {
        whiteout::normalise_fuse(upper.fd())?;
    }
    let mut diff = Diff {
        overrides: upper.overrides().clone(),
        self_contained: true,
        ..Diff::default()
    };
    let items = kept_items(upper, lower, &mut diff.overrides)?;
    diff.empty = true;
    for item in &items {
        if item.keep {
            diff.empty = false;
            if item.opaque && item.below.as_ref().is_none_or(|node| !node.stat.is_dir()) {
                diff.omit.opaque.insert(item.entry.path.clone());
            }
        } else if item.parent.is_none_or(|parent| items[parent].keep) {
            diff.omit.entries.insert(item.entry.path.clone());
        }
    }
    diff.omit.root = !root_changed(upper, lower)?;
    diff.empty &= diff.omit.root;
    let kept = items.into_iter().filter(|item| item.keep);
    let contents = Contents {
        root: !diff.omit.root,
        entries: kept
            .map(|item| {
                let opaque = item.opaque && !diff.omit.opaque.contains(&item.entry.path);
                (item.entry, opaque)
            })
            .collect(),
    };
    Ok((diff, contents))
}

/// Returns whether the root directory has other attributes. Its time alone always changes.
fn root_changed(upper: &LayerDir, lower: &View) -> Result<bool, LayerError> {
    let below = lower.root()?;
    let Found::Entry(stat) = upper.find(b"")? else {
        return Ok(false);
    };
    let same = upper.own_root()
        && (stat.mode, stat.uid, stat.gid) == (below.stat.mode, below.stat.uid, below.stat.gid)
        && upper.xattrs(b"")? == lower.xattrs(&below)?;
    Ok(upper.own_root() && !same)
}

/// Returns all entries, and decides which belong to the layer.
fn kept_items(
    upper: &LayerDir,
    lower: &View,
    overrides: &mut Overrides,
) -> Result<Vec<Item>, LayerError> {
    let mut items = walk(upper, lower, overrides)?;
    keep_whole_links(&mut items);
    // Directories precede what is in them.
    for index in (0..items.len()).rev() {
        if let Some(parent) = items[index].parent
            && items[index].keep
        {
            items[parent].keep = true;
        }
    }
    Ok(items)
}

fn walk(
    upper: &LayerDir,
    lower: &View,
    overrides: &mut Overrides,
) -> Result<Vec<Item>, LayerError> {
    let mut items: Vec<Item> = Vec::new();
    let mut pending: Vec<(Entry, Option<usize>)> = Vec::new();
    let children = |parent: &[u8], index: Option<usize>| {
        let entries = entries(upper, &Omit::default(), parent)?;
        Ok::<_, LayerError>(entries.into_iter().map(move |entry| (entry, index)))
    };
    pending.extend(children(b"", None)?);
    while let Some((mut entry, parent)) = pending.pop() {
        if path::split(&entry.path).1.starts_with(whiteout::PREFIX) {
            return Err(LayerError::ReservedName(escape(&entry.path)));
        }
        let below = match parent {
            Some(parent) if items[parent].fresh => None,
            _ => lower.lookup(&entry.path)?,
        };
        let (mut fresh, mut opaque) = (true, false);
        let keep = match &mut entry.found {
            Found::Nothing => continue,
            Found::Whiteout => below.is_some(),
            Found::Entry(stat) => {
                if let Some(node) = &below {
                    inherit(upper, &entry.path, stat, node, overrides)?;
                }
                if stat.is_dir() {
                    opaque = upper.is_opaque(&entry.path, &entry.names)?;
                    let merged = below.as_ref().filter(|node| node.stat.is_dir());
                    fresh = opaque || merged.is_none();
                }
                match &below {
                    // No tar can hold it; it counts only for what it replaces.
                    below if stat.kind == FileKind::Socket => below.is_some(),
                    None => true,
                    Some(_) if opaque => true,
                    Some(node) => !is_same(upper, &entry.path, stat, lower, node)?,
                }
            }
        };
        let walk_into = matches!(entry.found, Found::Entry(stat) if stat.is_dir());
        items.push(Item {
            entry,
            parent,
            below,
            keep,
            fresh,
            opaque,
        });
        if walk_into {
            let index = items.len() - 1;
            pending.extend(children(&items[index].entry.path, Some(index))?);
        }
    }
    Ok(items)
}

/// Takes over the record of an entry that was copied up and can't hold its record itself.
fn inherit(
    upper: &LayerDir,
    path: &[u8],
    stat: &mut Stat,
    node: &Node,
    overrides: &mut Overrides,
) -> Result<(), LayerError> {
    if stat.kind.has_user_xattrs() || stat.kind != node.stat.kind || overrides.contains_key(path) {
        return Ok(());
    }
    let record = Record {
        uid: node.stat.uid,
        gid: node.stat.gid,
        kind: node.stat.kind,
        mode: node.stat.mode,
        device: node.stat.rdev,
    };
    if !upper.ownership().store(&record).record {
        return Ok(());
    }
    if let Some(stored) = upper.stored(path)? {
        let recalled = upper.ownership().recall(stored, Some(&record));
        if recalled != *stat {
            *stat = recalled;
            overrides.insert(path.to_vec(), record);
        }
    }
    Ok(())
}

/// Returns whether an entry is what lies below, to the last byte and nanosecond.
fn is_same(
    upper: &LayerDir,
    path: &[u8],
    stat: &Stat,
    lower: &View,
    node: &Node,
) -> Result<bool, LayerError> {
    let told = |stat: &Stat| {
        // What chmod can't change says nothing.
        let mode = if stat.is_symlink() { 0 } else { stat.mode };
        let Stat {
            kind,
            uid,
            gid,
            size,
            mtime,
            rdev,
            ..
        } = *stat;
        (kind, mode, uid, gid, size, mtime, rdev)
    };
    if told(stat) != told(&node.stat) || upper.xattrs(path)? != lower.xattrs(node)? {
        return Ok(false);
    }
    match stat.kind {
        FileKind::Symlink => Ok(upper.read_link(path)? == lower.read_link(node)?),
        FileKind::File if stat.size > 0 => {
            same_content(&upper.open_file(path)?, &lower.open_file(node)?)
        }
        _ => Ok(true),
    }
}

fn same_content(one: &File, other: &File) -> Result<bool, LayerError> {
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let fill = |mut file: &File, buffer: &mut [u8]| {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        Ok(filled)
    };
    loop {
        let (a, b) = (fill(one, &mut left)?, fill(other, &mut right)?);
        if left[..a] != right[..b] {
            return Ok(false);
        }
        if a == 0 {
            return Ok(true);
        }
    }
}

/// Keeps all names of an inode where one is kept, or where they were several files below: a
/// hard link can only point to an entry of its own layer.
fn keep_whole_links(items: &mut [Item]) {
    let mut inodes: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        if let Found::Entry(stat) = item.entry.found
            && stat.nlink > 1
            && !stat.is_dir()
            && stat.kind != FileKind::Socket
        {
            inodes.entry((stat.dev, stat.ino)).or_default().push(index);
        }
    }
    for names in inodes.into_values().filter(|names| names.len() > 1) {
        let inode_below = |index: usize| {
            let node = items[index].below.as_ref();
            node.map(|node| (node.stat.dev, node.stat.ino))
        };
        let linked_below = names
            .iter()
            .all(|&index| inode_below(index) == inode_below(names[0]));
        if !linked_below || names.iter().any(|&index| items[index].keep) {
            for index in names {
                items[index].keep = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
