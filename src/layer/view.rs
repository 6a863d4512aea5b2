//! The merged read-only view over a stack of layer directories, in user space.
//!
//! A path is looked up as overlayfs does it: from the top, until something that is no
//! directory, a whiteout or an opaque directory ends the search.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use super::dir::{Found, LayerDir};
use super::stat::{FileKind, Stat, Timestamp};
use super::xattr::Xattrs;
use super::{Device, LayerError, escape, path};

/// Symbolic links followed in one resolution before it counts as a loop.
const MAX_LINKS: u32 = 255;
/// Directories remembered. Past it the memory starts afresh, so that it stays small.
const MAX_CACHED: usize = 65536;

/// The layers that have a directory of a path, top first; none where it is no directory.
type Layers = Option<Arc<[usize]>>;

/// A stack of layers as one tree.
#[derive(Debug, Default)]
pub struct View {
    /// Bottom first.
    layers: Vec<LayerDir>,
    directories: Mutex<HashMap<Vec<u8>, Layers>>,
}

/// An entry of a [`View`].
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it lies, from the root.
    pub path: Vec<u8>,
    /// Its attributes.
    pub stat: Stat,
    /// The layers that have it, the one that counts first. None for a root without layers.
    layers: Arc<[usize]>,
}

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// The last component of its path.
    pub name: Vec<u8>,
    /// The entry.
    pub node: Node,
}

/// A path without symbolic links, and what lies there.
#[derive(Clone, Debug)]
pub struct ResolvedPath {
    /// The path. What does not exist is appended as it was asked for.
    pub path: Vec<u8>,
    /// The entry, if it exists.
    pub node: Option<Node>,
}

impl Clone for View {
    fn clone(&self) -> View {
        View::new(self.layers.clone())
    }
}

impl View {
    /// Returns the view over `layers`, bottom first. None at all is an empty root directory.
    pub fn new(layers: Vec<LayerDir>) -> View {
        View {
            layers,
            directories: Mutex::default(),
        }
    }

    /// Puts a layer on top.
    pub fn push(&mut self, layer: LayerDir) {
        self.layers.push(layer);
        self.directories
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Returns the layers, bottom first.
    pub fn layers(&self) -> &[LayerDir] {
        &self.layers
    }

    /// Returns the layers that make up a directory, top first.
    fn directory(&self, path: &[u8]) -> Result<Layers, LayerError> {
        let lock = || {
            self.directories
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(known) = lock().get(path) {
            return Ok(known.clone());
        }
        let layers: Layers = if path.is_empty() {
            Some((0..self.layers.len()).rev().collect())
        } else {
            self.search(path)?
                .filter(|node| node.stat.is_dir())
                .map(|node| node.layers)
        };
        let mut directories = lock();
        if directories.len() >= MAX_CACHED {
            directories.clear();
        }
        directories.insert(path.to_vec(), layers.clone());
        Ok(layers)
    }

    fn is_known(&self, path: &[u8]) -> bool {
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(path)
    }

    /// Looks for a clean path that is not the root.
    fn search(&self, path: &[u8]) -> Result<Option<Node>, LayerError> {
        // Parents are remembered from the root down and not by recursion: a path may have 2,000
        // components. Where the nearest one is known already, so are the others.
        let (parent, _) = path::split(path);
        let slashes = parent.iter().enumerate().filter(|(_, b)| **b == b'/');
        let ends: Vec<usize> = slashes.map(|(at, _)| at).chain([parent.len()]).collect();
        let unknown = ends.iter().rev();
        let unknown = unknown
            .take_while(|&&end| !self.is_known(&path[..end]))
            .count();
        for &end in &ends[ends.len() - unknown..] {
            if self.directory(&path[..end])?.is_none() {
                return Ok(None);
            }
        }
        let Some(parents) = self.directory(parent)? else {
            return Ok(None);
        };
        let mut merged = Merged::default();
        for &layer in parents.iter() {
            if merged.add(&self.layers[layer], layer, path)? {
                break;
            }
        }
        Ok(merged.node(path))
    }

    /// Returns what lies at `path`. Its parents count as directories as they stand: no link is
    /// followed, neither on the way nor at the end.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Node>, LayerError> {
        let path = path::clean(path);
        if path.is_empty() {
            return self.root().map(Some);
        }
        self.search(&path)
    }

    /// Returns the root directory: with the attributes that the topmost layer with an entry
    /// for it gives, else 0755 and root's.
    pub fn root(&self) -> Result<Node, LayerError> {
        let owner = (0..self.layers.len())
            .rev()
            .find(|&layer| self.layers[layer].own_root());
        let mut layers: Vec<usize> = (0..self.layers.len()).rev().collect();
        let stat = match owner {
            Some(owner) => {
                layers.retain(|&layer| layer != owner);
                layers.insert(0, owner);
                match self.layers[owner].find(b"")? {
                    Found::Entry(stat) => stat,
                    Found::Nothing | Found::Whiteout => return Err(missing(b"")),
                }
            }
            None => {
                layers.clear();
                Stat {
                    kind: FileKind::Directory,
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                    size: 0,
                    mtime: Timestamp::default(),
                    ctime: Timestamp::default(),
                    rdev: Device::default(),
                    nlink: 1,
                    dev: 0,
                    ino: 0,
                }
            }
        };
        Ok(Node {
            path: Vec::new(),
            stat,
            layers: layers.into(),
        })
    }

    /// Resolves `path` within the root: links are followed, absolute ones from the root, and
    /// `..` stops there. The last component is followed only where `follow_last` says so.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<ResolvedPath, LayerError> {
        resolve_with(path, follow_last, |path| {
            Ok(match self.lookup(path)? {
                None => Step::Missing,
                Some(node) if node.stat.is_symlink() => Step::Link(self.read_link(&node)?),
                Some(node) if node.stat.is_dir() => Step::Directory,
                Some(_) => Step::Other,
            })
        })
        .and_then(|path| {
            let node = self.lookup(&path)?;
            Ok(ResolvedPath { path, node })
        })
    }

    /// Returns the entries of a directory, sorted by name. The path is resolved first.
    pub fn read_dir(&self, path: &[u8]) -> Result<Vec<DirEntry>, LayerError> {
        // What is a directory as it stands has no link on the way.
        let known = match path::components(path).all(|part| part != b"..") {
            true => self.directory(&path::clean(path))?,
            false => None,
        };
        let (path, layers) = match known {
            Some(layers) => (path::clean(path), layers),
            None => {
                let resolved = self.resolve(path, true)?;
                let path = resolved.path;
                match self.directory(&path)? {
                    Some(layers) => (path, layers),
                    None if resolved.node.is_none() => return Err(missing(&path)),
                    None => return Err(LayerError::ThroughFile(escape(&path))),
                }
            }
        };
        if let [only] = layers[..]
            && self.layers[only].is_plain()
        {
            return self.read_plain_dir(&path, &layers);
        }
        let mut names: BTreeMap<Vec<u8>, Merged> = BTreeMap::new();
        for &layer in layers.iter() {
            for name in self.layers[layer].list(&path)? {
                let child = path::join(&path, &name);
                let merged = names.entry(name).or_default();
                merged.add(&self.layers[layer], layer, &child)?;
            }
        }
        Ok(names
            .into_iter()
            .filter_map(|(name, merged)| {
                let node = merged.node(&path::join(&path, &name))?;
                Some(DirEntry { name, node })
            })
            .collect())
    }

    /// As [`View::read_dir`], where nothing is to be merged: each entry costs one call.
    fn read_plain_dir(
        &self,
        path: &[u8],
        layers: &Arc<[usize]>,
    ) -> Result<Vec<DirEntry>, LayerError> {
        let entries = self.layers[layers[0]].list_with_stats(path)?;
        let entries = entries.into_iter().map(|(name, stat)| DirEntry {
            node: Node {
                path: path::join(path, &name),
                stat,
                layers: layers.clone(),
            },
            name,
        });
        let entries: Vec<DirEntry> = entries.collect();
        // A walk asks for these next.
        let mut directories = self
            .directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if directories.len() < MAX_CACHED {
            for entry in entries.iter().filter(|entry| entry.node.stat.is_dir()) {
                directories.insert(entry.node.path.clone(), Some(layers.clone()));
            }
        }
        Ok(entries)
    }

    /// Returns the layer that an entry comes from.
    ///
    /// # Errors
    /// [`LayerError::Missing`]: it is the root of a view without layers.
    pub fn layer_of(&self, node: &Node) -> Result<&LayerDir, LayerError> {
        node.layers
            .first()
            .and_then(|&layer| self.layers.get(layer))
            .ok_or_else(|| missing(&node.path))
    }

    /// Opens a regular file for reading. Anything else is an error: to open a device or a pipe
    /// of an image would act on the host.
    pub fn open_file(&self, node: &Node) -> Result<File, LayerError> {
        if !node.stat.is_file() {
            return Err(LayerError::NotAFile(escape(&node.path)));
        }
        self.layer_of(node)?.open_file(&node.path)
    }

    /// Returns what opens many files, one after the other.
    pub fn opener(&self) -> Opener<'_> {
        Opener {
            view: self,
            near: None,
        }
    }

    /// Returns the target of a symbolic link.
    pub fn read_link(&self, node: &Node) -> Result<Vec<u8>, LayerError> {
        self.layer_of(node)?.read_link(&node.path)
    }

    /// Returns the extended attributes that belong to the image, in the image's terms.
    pub fn xattrs(&self, node: &Node) -> Result<Xattrs, LayerError> {
        if node.layers.is_empty() {
            return Ok(Xattrs::new());
        }
        self.layer_of(node)?.xattrs(&node.path)
    }
}

fn missing(path: &[u8]) -> LayerError {
    LayerError::Missing(escape(path))
}

/// Opens files as [`View::open_file`] does, and remembers the directory of the last one.
pub struct Opener<'v> {
    view: &'v View,
    near: Option<(usize, Vec<u8>, OwnedFd)>,
}

impl Opener<'_> {
    /// Opens a regular file for reading.
    pub fn open(&mut self, node: &Node) -> Result<File, LayerError> {
        if !node.stat.is_file() {
            return Err(LayerError::NotAFile(escape(&node.path)));
        }
        let layer = *node.layers.first().ok_or_else(|| missing(&node.path))?;
        let (parent, name) = path::split(&node.path);
        if !matches!(&self.near, Some((l, p, _)) if *l == layer && p == parent) {
            let dir = self.view.layer_of(node)?;
            let fd = super::dir::open_parent(dir.fd(), parent)?;
            self.near = Some((layer, parent.to_vec(), fd));
        }
        match &self.near {
            Some((_, _, fd)) => super::dir::open_below(fd.as_fd(), name),
            None => self.view.open_file(node),
        }
    }
}

/// What the layers from the top say of one path.
#[derive(Default)]
struct Merged {
    stat: Option<Stat>,
    layers: Vec<usize>,
    /// Whether nothing further down shows.
    closed: bool,
}

impl Merged {
    /// Adds what the next layer down says. Returns whether the search is over.
    fn add(&mut self, dir: &LayerDir, layer: usize, path: &[u8]) -> Result<bool, LayerError> {
        if self.closed {
            return Ok(true);
        }
        match dir.find(path)? {
            Found::Nothing => {}
            Found::Whiteout => self.closed = true,
            Found::Entry(stat) if stat.is_dir() => {
                self.stat.get_or_insert(stat);
                self.layers.push(layer);
                self.closed = dir.is_opaque(path)?;
            }
            Found::Entry(stat) => {
                // Below a directory anything else is hidden by it.
                if self.stat.is_none() {
                    self.stat = Some(stat);
                    self.layers.push(layer);
                }
                self.closed = true;
            }
        }
        Ok(self.closed)
    }

    fn node(self, path: &[u8]) -> Option<Node> {
        Some(Node {
            path: path.to_vec(),
            stat: self.stat?,
            layers: self.layers.into(),
        })
    }
}

/// What a resolution meets at a path.
pub(super) enum Step {
    Missing,
    Directory,
    Link(Vec<u8>),
    Other,
}

/// Resolves `path` with the kernel's rules for a root directory, asking `look` at each step.
pub(super) fn resolve_with(
    path: &[u8],
    follow_last: bool,
    mut look: impl FnMut(&[u8]) -> Result<Step, LayerError>,
) -> Result<Vec<u8>, LayerError> {
    let mut done: Vec<u8> = Vec::new();
    // The last component is on top.
    let mut pending: Vec<Vec<u8>> = path::components(path).rev().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(component) = pending.pop() {
        if component == b".." {
            done.truncate(path::split(&done).0.len());
            continue;
        }
        if component.len() > path::MAX_NAME || done.len() + component.len() >= path::MAX_PATH {
            return Err(LayerError::NameTooLong(escape(path)));
        }
        let here = path::join(&done, &component);
        match look(&here)? {
            Step::Link(target) if follow_last || !pending.is_empty() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(LayerError::TooManyLinks(escape(path)));
                }
                if target.starts_with(b"/") {
                    done.clear();
                }
                pending.extend(path::components(&target).rev().map(<[u8]>::to_vec));
            }
            Step::Other if !pending.is_empty() => {
                return Err(LayerError::ThroughFile(escape(&here)));
            }
            _ => done = here,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
