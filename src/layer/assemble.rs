//! Makes the layer of a COPY in one pass: what is to be in it is planned first, then written
//! on all cores while the stream is hashed in its order.
//!
//! The result is that of a [`super::LayerWriter`], [`super::diff()`] and [`super::write_tar`]
//! one after the other, which read and look at everything again. What is unusual is left to
//! those: [`Assembly::plan`] says so.

mod write;

use std::collections::{HashMap, HashSet};

use super::header::Fields;
use super::stat::{Device, FileKind, Timestamp};
use super::view::{Node, View};
use super::{Attributes, LayerError, Xattrs, escape, path, whiteout};

pub use write::Assembled;

/// What is in an entry.
#[derive(Clone, Debug)]
pub enum Content<'s> {
    /// A directory: nothing of its own.
    Directory,
    /// What a file of a view holds, with the hash of its content.
    File {
        /// Where the file is.
        view: &'s View,
        /// The file.
        node: &'s Node,
        /// The hash of what it held when it was looked at.
        hash: [u8; 32],
    },
    /// These bytes.
    Bytes(&'s [u8]),
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    /// Another name of the entry that was put at this path.
    HardLink(Vec<u8>),
}

/// An entry that is to be made.
#[derive(Debug)]
struct Planned<'s> {
    path: Vec<u8>,
    kind: FileKind,
    attributes: Attributes,
    mtime: Timestamp,
    content: Content<'s>,
    /// Whether the layers below have the same already.
    is_same: bool,
    /// For a directory, what was there first.
    below: Option<Box<Node>>,
    origin: Origin,
}

/// Why an entry is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// It was asked for.
    Put,
    /// It lies on the way to others, and gave way to what is asked for.
    Way,
}

/// A directory of the plan.
#[derive(Clone, Copy, Debug)]
struct Directory {
    index: usize,
    /// Whether the layers below have it too.
    is_below: bool,
    /// Whether its time is still that of the layers below.
    has_old_time: bool,
}

/// A layer that is being planned on top of a view.
#[derive(Debug)]
pub struct Assembly<'v, 's> {
    below: &'v View,
    now: Timestamp,
    entries: Vec<Planned<'s>>,
    directories: HashMap<Vec<u8>, Directory>,
    has_hard_links: bool,
    is_unusual: bool,
}

/// What is to be written, in the order of the stream.
#[derive(Debug)]
pub struct Plan<'s> {
    entries: Vec<Planned<'s>>,
    now: Timestamp,
}

impl<'v, 's> Assembly<'v, 's> {
    /// Starts a plan on top of `below`. `now` is the time of what is created.
    pub fn new(below: &'v View, now: Timestamp) -> Assembly<'v, 's> {
        let root = Directory {
            index: usize::MAX,
            is_below: !below.layers().is_empty(),
            has_old_time: false,
        };
        Assembly {
            below,
            now,
            entries: Vec::new(),
            directories: HashMap::from([(Vec::new(), root)]),
            has_hard_links: false,
            is_unusual: false,
        }
    }

    /// Returns where `path` lies in the layers below, all links followed.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, LayerError> {
        match self.below.resolve(path, true) {
            Ok(resolved) => Ok(resolved.path),
            Err(LayerError::ThroughFile(path)) => Err(LayerError::NotADirectory(path)),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that `path` is a directory, and returns where it lies. Existing directories
    /// keep their attributes, others get those given.
    pub fn ensure_dir(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<Vec<u8>, LayerError> {
        let resolved = self.resolve(path)?;
        if self.directories.contains_key(&resolved) {
            return Ok(resolved);
        }
        match self.below.lookup(&resolved)? {
            Some(node) if node.stat.is_dir() => {}
            Some(_) => return Err(LayerError::NotADirectory(escape(&resolved))),
            None => self.make_dirs(&resolved, attributes)?,
        }
        Ok(resolved)
    }

    /// Plans a resolved path and its parents as directories.
    fn make_dirs(&mut self, resolved: &[u8], created: &Attributes) -> Result<(), LayerError> {
        if self.directories.contains_key(resolved) {
            return Ok(());
        }
        let ends = resolved.iter().enumerate().filter(|(_, b)| **b == b'/');
        let ends: Vec<usize> = ends.map(|(at, _)| at).chain([resolved.len()]).collect();
        for end in ends {
            let path = &resolved[..end];
            if self.directories.contains_key(path) {
                continue;
            }
            match self.look(path)? {
                Some(node) if node.stat.is_dir() => {
                    let attributes = Attributes::of(&node.stat, self.below.xattrs(&node)?);
                    self.add_dir(path.to_vec(), attributes, Some(node), Origin::Way);
                }
                Some(_) => return Err(LayerError::NotADirectory(escape(path))),
                None => {
                    self.touch(path::split(path).0);
                    let attributes = Attributes {
                        mtime: None,
                        ..created.clone()
                    };
                    self.add_dir(path.to_vec(), attributes, None, Origin::Way);
                }
            }
        }
        Ok(())
    }

    fn add_dir(
        &mut self,
        path: Vec<u8>,
        attributes: Attributes,
        below: Option<Node>,
        origin: Origin,
    ) {
        let directory = Directory {
            index: self.entries.len(),
            is_below: below.is_some(),
            has_old_time: below.is_some() && origin == Origin::Way,
        };
        self.directories.insert(path.clone(), directory);
        // What inherits or holds ids in attributes is not for the short way.
        self.is_unusual |= !attributes.xattrs.is_empty();
        self.entries.push(Planned {
            path,
            kind: FileKind::Directory,
            mtime: attributes.mtime.unwrap_or(self.now),
            attributes,
            content: Content::Directory,
            is_same: false,
            below: below.map(Box::new),
            origin,
        });
    }

    /// Gives a directory that is only on the way the present time: it gets a new entry.
    fn touch(&mut self, path: &[u8]) {
        if let Some(directory) = self.directories.get_mut(path)
            && directory.has_old_time
        {
            directory.has_old_time = false;
            self.entries[directory.index].mtime = self.now;
        }
    }

    /// Returns what the layers below have at a path whose parent is planned.
    fn look(&self, path: &[u8]) -> Result<Option<Node>, LayerError> {
        match self.directories.get(path::split(path).0) {
            Some(parent) if !parent.is_below => Ok(None),
            _ => self.below.lookup(path),
        }
    }

    /// Plans an entry at a resolved path.
    pub fn put(
        &mut self,
        path: Vec<u8>,
        kind: FileKind,
        attributes: Attributes,
        content: Content<'s>,
    ) -> Result<(), LayerError> {
        let below = self.enter(&path)?;
        if kind == FileKind::Directory {
            if below.as_ref().is_some_and(|node| !node.stat.is_dir()) {
                return Err(LayerError::NotADirectory(escape(&path)));
            }
            self.add_dir(path, attributes, below, Origin::Put);
            return Ok(());
        }
        if path.is_empty() || below.as_ref().is_some_and(|node| node.stat.is_dir()) {
            return Err(LayerError::NotADirectory(escape(&path)));
        }
        self.has_hard_links |= matches!(content, Content::HardLink(_));
        // Devices and pipes take calls of their own.
        self.is_unusual |= !matches!(kind, FileKind::File | FileKind::Symlink);
        let mut planned = Planned {
            path,
            kind,
            mtime: attributes.mtime.unwrap_or(self.now),
            attributes,
            content,
            is_same: false,
            below: None,
            origin: Origin::Put,
        };
        if let Some(node) = &below {
            planned.is_same = self.is_same(&planned, node)?;
        }
        self.entries.push(planned);
        Ok(())
    }

    /// Plans a directory on the way to others. One that exists below takes the mode only.
    pub fn merge_dir(&mut self, path: Vec<u8>, attributes: Attributes) -> Result<(), LayerError> {
        if self.directories.contains_key(&path) {
            return Ok(());
        }
        match self.look(&path)? {
            Some(node) if node.stat.is_dir() => {
                self.enter(&path)?;
                let kept = Attributes {
                    mode: attributes.mode,
                    ..Attributes::of(&node.stat, self.below.xattrs(&node)?)
                };
                self.add_dir(path, kept, Some(node), Origin::Way);
                Ok(())
            }
            _ => self.put(path, FileKind::Directory, attributes, Content::Directory),
        }
    }

    /// Plans the parents of an entry, and returns what the layers below have in its place.
    fn enter(&mut self, path: &[u8]) -> Result<Option<Node>, LayerError> {
        let (parent, name) = path::split(path);
        if name.starts_with(whiteout::PREFIX) {
            return Err(LayerError::ReservedName(escape(path)));
        }
        if name.len() > path::MAX_NAME || path.len() > path::MAX_PATH {
            return Err(LayerError::NameTooLong(escape(path)));
        }
        let created = Attributes {
            mode: 0o755,
            ..Attributes::default()
        };
        self.make_dirs(parent, &created)?;
        self.touch(parent);
        self.look(path)
    }

    /// Returns whether an entry is what lies below, to the last byte and nanosecond.
    fn is_same(&self, planned: &Planned<'_>, node: &Node) -> Result<bool, LayerError> {
        if !is_told_the_same(planned, node) || self.below.xattrs(node)? != planned.attributes.xattrs
        {
            return Ok(false);
        }
        match &planned.content {
            Content::Symlink(target) => Ok(self.below.read_link(node)? == *target),
            Content::File { hash, .. } => Ok(hash_of(self.below, node)? == *hash),
            Content::Bytes(bytes) => {
                Ok(hash_of(self.below, node)? == *blake3::hash(bytes).as_bytes())
            }
            Content::Directory | Content::HardLink(_) => Ok(false),
        }
    }

    /// Puts what was planned in order. Returns nothing where the long way has to be taken.
    pub fn plan(mut self) -> Result<Option<Plan<'s>>, LayerError> {
        // Between two at one path, what was planned later comes later.
        self.entries
            .sort_by(|one, other| components(&one.path).cmp(components(&other.path)));
        let mut entries: Vec<Planned<'s>> = Vec::with_capacity(self.entries.len());
        let mut is_unusual = self.is_unusual;
        for planned in self.entries {
            let name = path::split(&planned.path).1;
            if name.starts_with(whiteout::PREFIX) {
                return Err(LayerError::ReservedName(escape(&planned.path)));
            }
            if let Some(last) = entries.last_mut()
                && last.path == planned.path
            {
                let is_dir = |planned: &Planned<'_>| planned.kind == FileKind::Directory;
                if is_dir(last) != is_dir(&planned) {
                    return Err(LayerError::NotADirectory(escape(&planned.path)));
                }
                is_unusual |= self.has_hard_links;
                if planned.origin == Origin::Put {
                    *last = planned;
                }
                continue;
            }
            entries.push(planned);
        }
        // Links between what is here already and what is not take a closer look.
        is_unusual |= self.has_hard_links && entries.iter().any(|planned| planned.is_same);
        if is_unusual {
            return Ok(None);
        }
        drop_unchanged(&mut entries);
        Ok(Some(Plan {
            entries,
            now: self.now,
        }))
    }
}

/// Drops what the layers below have already, and directories in which nothing is left.
fn drop_unchanged(entries: &mut Vec<Planned<'_>>) {
    let is_kept = |planned: &Planned<'_>, needed: &mut HashSet<Vec<u8>>| {
        let is_same = match &planned.below {
            Some(node) => is_told_the_same(planned, node),
            None => planned.is_same,
        };
        let kept = !is_same || needed.contains(&planned.path);
        if kept {
            let parent = path::split(&planned.path).0;
            if !needed.contains(parent) {
                needed.insert(parent.to_vec());
            }
        }
        kept
    };
    let mut needed = HashSet::new();
    let mut kept: Vec<bool> = entries
        .iter()
        .rev()
        .map(|planned| is_kept(planned, &mut needed))
        .collect();
    entries.retain(|_| kept.pop().unwrap_or(true));
}

fn is_told_the_same(planned: &Planned<'_>, node: &Node) -> bool {
    let (new, old) = (&planned.attributes, &node.stat);
    // A link has no mode.
    let same_mode = planned.kind == FileKind::Symlink || new.mode & 0o7777 == old.mode;
    let size = match &planned.content {
        Content::File { node, .. } => node.stat.size,
        Content::Bytes(bytes) => bytes.len() as u64,
        _ => 0,
    };
    planned.kind == old.kind
        && same_mode
        && (new.uid, new.gid) == (old.uid, old.gid)
        && planned.mtime == old.mtime
        && size == old.size
}

fn hash_of(view: &View, node: &Node) -> Result<[u8; 32], LayerError> {
    let mut hasher = blake3::Hasher::new();
    let file = view.open_file(node)?;
    hasher.update_reader(file).map_err(LayerError::Read)?;
    Ok(*hasher.finalize().as_bytes())
}

/// Returns the components of a clean path: in their order, a directory comes before what is in
/// it, and that before its next sibling.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/')
}

impl Planned<'_> {
    /// Hands the fields of the header to `use_fields`.
    fn with_fields<T>(
        &self,
        size: u64,
        xattrs: &Xattrs,
        use_fields: impl FnOnce(&Fields<'_>) -> T,
    ) -> T {
        let slashed;
        let (path, flag, link): (&[u8], u8, &[u8]) = match &self.content {
            Content::Directory => {
                slashed = [&self.path[..], b"/"].concat();
                (&slashed, b'5', b"")
            }
            Content::File { .. } | Content::Bytes(_) => (&self.path, b'0', b""),
            Content::Symlink(target) => (&self.path, b'2', target),
            Content::HardLink(target) => (&self.path, b'1', target),
        };
        let is_link = matches!(self.content, Content::Symlink(_));
        use_fields(&Fields {
            path,
            flag,
            mode: if is_link {
                0o777
            } else {
                self.attributes.mode & 0o7777
            },
            uid: self.attributes.uid,
            gid: self.attributes.gid,
            size,
            mtime: self.mtime,
            link,
            device: Device::default(),
            xattrs,
        })
    }
}

#[cfg(test)]
mod tests;
