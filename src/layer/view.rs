//! The merged read-only view over a stack of layer directories, in user space.
//!
//! A path is looked up as overlayfs does it: from the top, until something that is no
//! directory, a whiteout or an opaque directory ends the search.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dir::{Found, LayerDir};
use super::stat::{FileKind, Stat, Timestamp};
use super::xattr::Xattrs;
use super::{Device, LayerError, escape, path};

/// Symbolic links followed in one resolution before it counts as a loop.
const MAX_LINKS: u32 = 255;
/// Paths remembered. Past it the memory starts afresh, so that it stays small.
const MAX_REMEMBERED: usize = 65536;

/// A stack of layers as one tree.
///
/// Layers never change, so what was found is remembered: all directories, and whatever took
/// more than one layer to find. A layer that is put on top makes none of it wrong; it is asked
/// first. So a step on a deep stack asks its topmost layer alone.
#[derive(Debug, Default)]
pub struct View {
    /// Bottom first.
    layers: Vec<LayerDir>,
    /// All of them, top first.
    all: Layers,
    memory: Mutex<HashMap<Vec<u8>, Remembered>>,
}

/// Indices of layers, top first.
type Layers = Arc<[usize]>;

/// What a view shows at a path.
#[derive(Clone, Debug, Default)]
struct Shown {
    /// The attributes; nothing where nothing shows.
    stat: Option<Stat>,
    /// The layers that have it.
    layers: Layers,
}

/// What the lower layers of a view show at a path.
#[derive(Clone, Debug)]
struct Remembered {
    /// How many layers, from the bottom, had been asked.
    asked: usize,
    shown: Shown,
}

/// An entry of a [`View`].
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it lies, from the root.
    pub path: Vec<u8>,
    /// Its attributes.
    pub stat: Stat,
    /// The layers that have it, the one that counts first. None for a root without layers.
    layers: Layers,
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
        View {
            layers: self.layers.clone(),
            all: self.all.clone(),
            memory: Mutex::new(self.memory().clone()),
        }
    }
}

impl View {
    /// Returns the view over `layers`, bottom first. None at all is an empty root directory.
    pub fn new(layers: Vec<LayerDir>) -> View {
        View {
            all: (0..layers.len()).rev().collect(),
            layers,
            memory: Mutex::default(),
        }
    }

    /// Puts a layer on top.
    pub fn push(&mut self, layer: LayerDir) {
        self.layers.push(layer);
        self.all = (0..self.layers.len()).rev().collect();
    }

    /// Returns the layers, bottom first.
    pub fn layers(&self) -> &[LayerDir] {
        &self.layers
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Remembered>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, path: &[u8], shown: Shown) {
        let mut memory = self.memory();
        if memory.len() >= MAX_REMEMBERED {
            memory.clear();
        }
        let asked = self.layers.len();
        memory.insert(path.to_vec(), Remembered { asked, shown });
    }

    /// Returns what the whole stack is known to have at a path.
    fn known(&self, path: &[u8]) -> Option<Shown> {
        let memory = self.memory();
        let known = memory.get(path)?;
        (known.asked == self.layers.len()).then(|| known.shown.clone())
    }

    /// Returns the layers that make up a directory; nothing where it is none.
    fn directory(&self, path: &[u8]) -> Result<Option<Layers>, LayerError> {
        if path.is_empty() {
            return Ok(Some(self.all.clone()));
        }
        Ok(self.shown(path)?.directory())
    }

    /// Looks for a clean path that is not the root.
    fn shown(&self, path: &[u8]) -> Result<Shown, LayerError> {
        if let Some(known) = self.known(path) {
            return Ok(known);
        }
        // From the root down and not by recursion: a path may have 2,000 components. Where the
        // nearest parent is known, those above it don't matter.
        let (parent, _) = path::split(path);
        let slashes = parent.iter().enumerate().filter(|(_, b)| **b == b'/');
        let whole = (!parent.is_empty()).then_some(parent.len());
        let ends: Vec<usize> = slashes.map(|(at, _)| at).chain(whole).collect();
        let (mut unknown, mut parents) = (0, Some(self.all.clone()));
        for (at, &end) in ends.iter().enumerate().rev() {
            if let Some(known) = self.known(&path[..end]) {
                (unknown, parents) = (at + 1, known.directory());
                break;
            }
        }
        for &end in &ends[unknown..] {
            let Some(layers) = parents else { break };
            let shown = self.search(&path[..end], &layers)?;
            parents = shown.directory();
            self.remember(&path[..end], shown);
        }
        let Some(layers) = parents else {
            return Ok(Shown::default());
        };
        let shown = self.search(path, &layers)?;
        if shown.directory().is_some() || layers.len() > 1 {
            self.remember(path, shown.clone());
        }
        Ok(shown)
    }

    /// Looks for a path in the layers that make up its parent; of those that were asked before,
    /// the answer counts.
    fn search(&self, path: &[u8], parents: &[usize]) -> Result<Shown, LayerError> {
        let known = self.memory().get(path).cloned();
        let mut merged = Merged::default();
        for &layer in parents {
            // An upper layer hides all of the parent's lower part or nothing of it. So where one
            // of the layers that were asked is left, all are.
            if let Some(known) = &known
                && layer < known.asked
            {
                merged.add_lower(&known.shown);
                break;
            }
            if merged.add(&self.layers[layer], layer, path)? {
                break;
            }
        }
        Ok(merged.shown())
    }

    /// Returns what lies at `path`. Its parents count as directories as they stand: no link is
    /// followed, neither on the way nor at the end.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Node>, LayerError> {
        let path = path::clean(path);
        if path.is_empty() {
            return self.root().map(Some);
        }
        Ok(self.shown(&path)?.node(&path))
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
                    allocated: 0,
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
                let node = merged.shown().node(&path::join(&path, &name))?;
                Some(DirEntry { name, node })
            })
            .collect())
    }

    /// As [`View::read_dir`], where nothing is to be merged: each entry costs one call.
    fn read_plain_dir(&self, path: &[u8], layers: &Layers) -> Result<Vec<DirEntry>, LayerError> {
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
        for entry in entries.iter().filter(|entry| entry.node.stat.is_dir()) {
            let shown = Shown {
                stat: Some(entry.node.stat),
                layers: layers.clone(),
            };
            self.remember(&entry.node.path, shown);
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

impl Shown {
    /// Returns the layers of a directory; nothing where it is none.
    fn directory(&self) -> Option<Layers> {
        let stat = self.stat.as_ref()?;
        stat.is_dir().then(|| self.layers.clone())
    }

    fn node(self, path: &[u8]) -> Option<Node> {
        Some(Node {
            path: path.to_vec(),
            stat: self.stat?,
            layers: self.layers,
        })
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
        let (found, names) = dir.look(path)?;
        match found {
            Found::Nothing => {}
            Found::Whiteout => self.closed = true,
            Found::Entry(stat) if stat.is_dir() => {
                self.stat.get_or_insert(stat);
                self.layers.push(layer);
                self.closed = dir.is_opaque(path, &names)?;
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

    /// Adds what all layers further down show.
    fn add_lower(&mut self, lower: &Shown) {
        match lower.stat {
            Some(stat) if stat.is_dir() || self.stat.is_none() => {
                self.stat.get_or_insert(stat);
                self.layers.extend(lower.layers.iter());
            }
            _ => {}
        }
        self.closed = true;
    }

    fn shown(self) -> Shown {
        Shown {
            stat: self.stat,
            layers: self.layers.into(),
        }
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
