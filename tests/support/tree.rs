//! A root file system in memory, made by applying the tars of layers.

use std::collections::BTreeMap;
use std::io::Read;

use super::layer_tar::read_tar;

/// A root file system in memory.
#[derive(Default)]
pub struct Tree {
    pub(super) names: BTreeMap<Vec<u8>, usize>,
    pub(super) nodes: Vec<Node>,
}

/// What a name stands for; hard links share one.
#[derive(Clone, Debug)]
pub struct Node {
    /// The type.
    pub kind: Kind,
    /// The permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// The time of the last change, in seconds.
    pub mtime: u64,
    /// The target of a symbolic link.
    pub target: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// The extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The size of a file.
    pub size: u64,
    /// The SHA-256 of a file's content, in hex.
    pub sha256: String,
    pub(super) content: Option<Vec<u8>>,
}

/// A type of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    CharDevice,
    BlockDevice,
}

impl Node {
    /// Returns the content of a file of up to a mebibyte.
    pub fn content(&self) -> &[u8] {
        self.content.as_deref().expect("a file of up to 1 MiB")
    }

    fn directory() -> Self {
        Self {
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            target: Vec::new(),
            device: (0, 0),
            xattrs: BTreeMap::new(),
            size: 0,
            sha256: String::new(),
            content: None,
        }
    }
}

impl Tree {
    /// Applies the tar of a layer and returns the names in it.
    pub fn apply(&mut self, tar: impl Read) -> Vec<String> {
        let entries = read_tar(tar);
        let shown = entries
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.name).into_owned());
        let shown = shown.collect();
        // Whiteouts hide what is below the layer, wherever in the tar they stand.
        for entry in &entries {
            let path = normalise(&entry.name);
            let (parent, name) = split(&path);
            if name == b".wh..wh..opq" {
                let parent = self.resolve(parent);
                self.remove_below(&parent);
            } else if let Some(hidden) = name.strip_prefix(b".wh.") {
                let hidden = join(&self.resolve(parent), hidden);
                self.remove(&hidden);
            }
        }
        for entry in entries {
            let path = normalise(&entry.name);
            let (parent, name) = split(&path);
            if name.starts_with(b".wh.") {
                continue;
            }
            let path = if path.is_empty() {
                path
            } else {
                join(&self.resolve(parent), name)
            };
            self.make_parents(&path);
            let index = match &entry.hard_link {
                Some(target) => {
                    let target = normalise(target);
                    let (parent, name) = split(&target);
                    let target = join(&self.resolve(parent), name);
                    *self.names.get(&target).unwrap_or_else(|| {
                        panic!("hard link to nothing: {}", String::from_utf8_lossy(&target))
                    })
                }
                None => {
                    self.nodes.push(entry.node);
                    self.nodes.len() - 1
                }
            };
            if self.nodes[index].kind != Kind::Directory {
                self.remove_below(&path);
            }
            self.names.insert(path, index);
        }
        shown
    }

    /// Returns what a path names, without following a link at its end.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.names
            .get(&normalise(path.as_bytes()))
            .map(|&index| &self.nodes[index])
    }

    /// Returns what a path names, or panics with the names beside it.
    #[track_caller]
    pub fn file(&self, path: &str) -> &Node {
        self.get(path).unwrap_or_else(|| {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            let beside: Vec<_> = self
                .paths()
                .filter(|name| name.starts_with(parent))
                .take(50)
                .collect();
            panic!("no {path}; there are {beside:?}")
        })
    }

    /// Returns all paths, each with a leading slash, in order.
    pub fn paths(&self) -> impl Iterator<Item = String> + '_ {
        self.names.keys().map(|name| show_path(name))
    }

    /// Returns the first of all names that are hard links to the same file.
    pub(super) fn first_names(&self) -> BTreeMap<usize, &[u8]> {
        let mut first = BTreeMap::new();
        for (name, &index) in &self.names {
            first.entry(index).or_insert(name.as_slice());
        }
        first
    }

    fn remove(&mut self, path: &[u8]) {
        self.names.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, path: &[u8]) {
        let prefix = if path.is_empty() {
            Vec::new()
        } else {
            [path, b"/"].concat()
        };
        self.names
            .retain(|name, _| name.is_empty() || !name.starts_with(&prefix));
    }

    /// Makes the directories above a path that no layer has given.
    fn make_parents(&mut self, path: &[u8]) {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let parent = &path[..at];
            let present = self.names.get(parent).map(|&index| self.nodes[index].kind);
            if present != Some(Kind::Directory) {
                self.nodes.push(Node::directory());
                self.names.insert(parent.to_vec(), self.nodes.len() - 1);
            }
        }
    }

    /// Follows symbolic links in the path of a directory, within the root.
    fn resolve(&self, path: &[u8]) -> Vec<u8> {
        let mut left: Vec<Vec<u8>> = path
            .split(|byte| *byte == b'/')
            .rev()
            .map(<[u8]>::to_vec)
            .collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = left.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            let node = self
                .names
                .get(&done.join(&b'/'))
                .map(|&index| &self.nodes[index]);
            if let Some(Node {
                kind: Kind::Symlink,
                target,
                ..
            }) = node
            {
                links += 1;
                assert!(
                    links < 40,
                    "a loop of symbolic links at {}",
                    String::from_utf8_lossy(path)
                );
                if target.starts_with(b"/") {
                    done.clear();
                } else {
                    done.pop();
                }
                left.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
            }
        }
        done.join(&b'/')
    }
}

fn normalise(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => panic!("`..` in a layer: {}", String::from_utf8_lossy(path)),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        name.to_vec()
    } else {
        [parent, b"/", name].concat()
    }
}

pub(super) fn show_path(name: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(name))
}
