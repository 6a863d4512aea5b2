//! The sources of COPY and ADD: which entries of a tree are meant, and what they hold.

use std::collections::HashMap;
use std::io::Read;

use super::error::{Step, Trouble};
use super::key::Key;
use crate::context::Context;
use crate::context::ignore::{Decision, IgnoreFile};
use crate::context::pattern::Pattern;
use crate::dockerfile::suggest;
use crate::layer::{FileKind, LayerError, Node, View, Xattrs};

/// A tree that files are copied from.
pub(super) struct Tree<'a> {
    view: &'a View,
    /// What of it does not take part; the build context only.
    ignore: Option<&'a IgnoreFile>,
    /// What it is, for errors.
    place: &'static str,
    /// Whether it is there at all.
    exists: bool,
}

/// Something that is copied: a file, or a directory with what is in it.
pub(super) struct Selected {
    /// The last component of the path as it was asked for.
    pub(super) name: Vec<u8>,
    /// The entry that the path leads to, and below a directory all that take part, parents
    /// first, in lexical order.
    pub(super) entries: Vec<Entry>,
}

impl Entry {
    /// Tells whether an open file is still what it was when it was selected.
    pub(super) fn is_unchanged(&self, file: &std::fs::File) -> bool {
        use std::os::unix::fs::MetadataExt;
        let stat = &self.node.stat;
        file.metadata().is_ok_and(|now| {
            now.size() == stat.size
                && now.mtime() == stat.mtime.seconds
                && now.mtime_nsec() == i64::from(stat.mtime.nanoseconds)
        })
    }
}

/// An entry of a source.
pub(super) struct Entry {
    /// Where it lies below the source; empty for the source itself.
    pub(super) path: Vec<u8>,
    /// What it is.
    pub(super) node: Node,
    /// The earlier entry of the same source that is another name of the same file.
    pub(super) link_to: Option<usize>,
}

impl Selected {
    /// Returns the entry that the path leads to.
    pub(super) fn top(&self) -> &Node {
        &self.entries[0].node
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        name.to_vec()
    } else {
        [directory, b"/", name].concat()
    }
}

/// Drops `.` and empty components, and `..` together with what it leaves; it stops at the root.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

impl<'a> Tree<'a> {
    /// Returns the build context.
    pub(super) fn context(context: &'a Context) -> Tree<'a> {
        Tree {
            view: context.view(),
            ignore: Some(context.ignore()).filter(|ignore| !ignore.is_empty()),
            place: "the build context",
            exists: context.exists(),
        }
    }

    /// Returns the tree of a stage or an image.
    pub(super) fn image(view: &'a View) -> Tree<'a> {
        Tree {
            view,
            ignore: None,
            place: "the stage or image that --from names",
            exists: true,
        }
    }

    /// Returns the tree of a mount's `from`.
    pub(super) fn mounted(view: &'a View) -> Tree<'a> {
        Tree {
            place: "the stage or image that the mount is from",
            ..Tree::image(view)
        }
    }

    pub(super) fn view(&self) -> &'a View {
        self.view
    }

    fn excluded(&self, path: &[u8]) -> bool {
        self.ignore
            .is_some_and(|ignore| ignore.decide(path).excluded)
    }

    /// Finds what a path or pattern means, in lexical order. A pattern that matches nothing is
    /// no error.
    pub(super) fn select(&self, text: &str, excludes: &IgnoreFile) -> Step<Vec<Selected>> {
        let bad = |error: crate::context::pattern::PatternError| Trouble::Message {
            text: error.to_string(),
            hint: error.hint(),
        };
        if !self.exists {
            return Err(Trouble::hinted(
                format!("there is no build context to take {text:?} from"),
                "the Dockerfile came alone: give a directory too, as in `kiln build -f - .`",
            ));
        }
        let cleaned = clean(text.as_bytes());
        let pattern = Pattern::parse(&cleaned).map_err(bad)?;
        if let Some(path) = pattern.literal() {
            return Ok(vec![self.literal(text, &path, excludes)?]);
        }
        let mut found = vec![Vec::new()];
        for part in cleaned.split(|b| *b == b'/') {
            let pattern = Pattern::parse(part).map_err(bad)?;
            let mut next = Vec::new();
            for directory in found {
                if let Some(name) = pattern.literal() {
                    next.push(join(&directory, &name));
                    continue;
                }
                let names = match self.view.read_dir(&directory) {
                    Ok(entries) => entries,
                    Err(LayerError::Missing(_) | LayerError::ThroughFile(_)) => continue,
                    Err(error) => return Err(error.into()),
                };
                for entry in names {
                    if pattern.matches(&entry.name) {
                        next.push(join(&directory, &entry.name));
                    }
                }
            }
            found = next;
        }
        found.sort();
        let mut selected = Vec::new();
        for path in found {
            if let Some(node) = self.find(&path)?
                && let Some(one) = self.gather(&path, node, excludes)?
            {
                selected.push(one);
            }
        }
        Ok(selected)
    }

    /// Returns the entry that one path leads to, which is no pattern.
    pub(super) fn node(&self, text: &str) -> Step<Node> {
        let path = clean(text.as_bytes());
        match self.find(&path)? {
            Some(node) => Ok(node),
            None => Err(self.explain_missing(text, &path)),
        }
    }

    /// Returns what one path means, which is no pattern.
    pub(super) fn one(&self, text: &str) -> Step<Selected> {
        let nothing = IgnoreFile::from_patterns(std::iter::empty::<&[u8]>(), "");
        let nothing = nothing.map_err(|error| Trouble::new(error.to_string()))?;
        self.literal(text, &clean(text.as_bytes()), &nothing)
    }

    /// Returns what a path leads to. Below a file there is nothing.
    fn find(&self, path: &[u8]) -> Result<Option<Node>, LayerError> {
        match self.view.resolve(path, true) {
            Ok(resolved) => Ok(resolved.node),
            Err(LayerError::ThroughFile(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn literal(&self, text: &str, path: &[u8], excludes: &IgnoreFile) -> Step<Selected> {
        let gathered = match self.find(path)? {
            Some(node) => self.gather(path, node, excludes)?,
            None => None,
        };
        match gathered {
            Some(selected) => Ok(selected),
            None => Err(self.explain_missing(text, path)),
        }
    }

    /// Says why a path is not there.
    fn explain_missing(&self, text: &str, path: &[u8]) -> Trouble {
        if let (Some(ignore), Ok(Some(node))) = (self.ignore, self.find(path)) {
            // By its own name, or by that of what a link leads to.
            let paths = [path, &node.path];
            let rule = paths.into_iter().find_map(|path| {
                let decision = ignore.decide(path);
                Some((path, decision.rule.filter(|_| decision.excluded)?))
            });
            if let Some((path, rule)) = rule {
                return Trouble::hinted(
                    format!("{text:?} is excluded by {}", ignore.name),
                    format!(
                        "{}:{} says {:?}; add a line \"!{}\" behind it to have the file",
                        ignore.name,
                        rule.line,
                        rule.text,
                        String::from_utf8_lossy(path)
                    ),
                );
            }
        }
        let message = format!(
            "{text:?} is not in {}: no such file or directory",
            self.place
        );
        match self.nearest(path) {
            Some(near) => {
                let near = String::from_utf8_lossy(&near);
                Trouble::hinted(message, format!("did you mean {near:?}?"))
            }
            None => Trouble::new(message),
        }
    }

    /// Returns the existing path that differs from a missing one in one component by little.
    fn nearest(&self, path: &[u8]) -> Option<Vec<u8>> {
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        let exists = |path: &[u8]| self.find(path).is_ok_and(|node| node.is_some());
        let missing = (1..=parts.len()).find(|&end| !exists(&parts[..end].join(&b'/')))?;
        let (above, wanted) = (parts[..missing - 1].join(&b'/'), parts[missing - 1]);
        let names: Vec<String> = self
            .view
            .read_dir(&above)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|entry| String::from_utf8(entry.name).ok())
            .filter(|name| !self.excluded(&join(&above, name.as_bytes())))
            .collect();
        let wanted = String::from_utf8_lossy(wanted);
        let near = suggest::closest(&wanted, names.iter().map(String::as_str))?;
        let near = parts[missing..]
            .iter()
            .fold(join(&above, near.as_bytes()), |path, part| {
                join(&path, part)
            });
        exists(&near).then_some(near)
    }

    /// Collects an entry and what lies below it; nothing where none of it takes part.
    fn gather(&self, path: &[u8], node: Node, excludes: &IgnoreFile) -> Step<Option<Selected>> {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path).to_vec();
        let mut gathering = Gathering {
            tree: self,
            excludes,
            entries: Vec::new(),
            inodes: HashMap::new(),
        };
        // A link of the context that leads elsewhere: rules are asked about where it leads.
        let real = node.path.clone();
        if node.stat.is_dir() {
            let kept = gathering.directory(
                &real,
                &[],
                node,
                self.ignore.map(|ignore| ignore.decide(&real)),
                excludes.root(),
            )?;
            if !kept {
                return Ok(None);
            }
        } else if self.excluded(path) || self.excluded(&real) || excludes.decide(&name).excluded {
            return Ok(None);
        } else {
            gathering.push(Vec::new(), node);
        }
        Ok(Some(Selected {
            name,
            entries: gathering.entries,
        }))
    }

    /// Returns the extended attributes that go with a copy. From a context, those of the
    /// workstation do not: only what makes a program work.
    pub(super) fn xattrs(&self, node: &Node, from_context: bool) -> Step<Xattrs> {
        if matches!(node.stat.kind, FileKind::Symlink) && from_context {
            return Ok(Xattrs::new());
        }
        let mut xattrs = self.view.xattrs(node)?;
        if from_context {
            xattrs.retain(|name, _| name == b"security.capability");
        }
        Ok(xattrs)
    }

    /// Adds to a key all of a source that a copy depends on: not the times.
    pub(super) fn hash(&self, key: &mut Key, source: &Selected, from_context: bool) -> Step<()> {
        key.bytes(&source.name);
        key.number(source.entries.len() as u64);
        for entry in &source.entries {
            let stat = &entry.node.stat;
            key.bytes(&entry.path);
            key.text(&format!("{:?}", stat.kind));
            key.number(stat.mode.into());
            if !from_context {
                key.number(stat.uid.into()).number(stat.gid.into());
            }
            for (name, value) in self.xattrs(&entry.node, from_context)? {
                key.bytes(&name).bytes(&value);
            }
            match entry.link_to {
                Some(first) => {
                    key.text("link").number(first as u64);
                }
                None => self.hash_content(key, &entry.node)?,
            }
        }
        Ok(())
    }

    fn hash_content(&self, key: &mut Key, node: &Node) -> Step<()> {
        match node.stat.kind {
            FileKind::File => {
                let mut file = self.view.open_file(node)?;
                let mut hasher = blake3::Hasher::new();
                let mut buffer = vec![0u8; 64 << 10];
                loop {
                    let length = file.read(&mut buffer).map_err(LayerError::Read)?;
                    if length == 0 {
                        break;
                    }
                    hasher.update(&buffer[..length]);
                }
                key.bytes(hasher.finalize().as_bytes());
            }
            FileKind::Symlink => {
                key.bytes(&self.view.read_link(node)?);
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                let device = node.stat.rdev;
                key.number(device.major.into()).number(device.minor.into());
            }
            FileKind::Directory | FileKind::Fifo | FileKind::Socket => {}
        }
        Ok(())
    }
}

/// A walk that collects entries.
struct Gathering<'t> {
    tree: &'t Tree<'t>,
    excludes: &'t IgnoreFile,
    entries: Vec<Entry>,
    inodes: HashMap<(u64, u64), usize>,
}

impl<'t> Gathering<'t> {
    fn push(&mut self, path: Vec<u8>, node: Node) {
        let stat = &node.stat;
        let link_to = if stat.nlink > 1 && !stat.is_dir() {
            let index = self.entries.len();
            let first = *self.inodes.entry((stat.dev, stat.ino)).or_insert(index);
            (first != index).then_some(first)
        } else {
            None
        };
        self.entries.push(Entry {
            path,
            node,
            link_to,
        });
    }

    /// Collects a directory and what is in it. Returns whether any of it takes part.
    fn directory(
        &mut self,
        real: &[u8],
        path: &[u8],
        node: Node,
        ignored: Option<Decision<'t>>,
        excluded: Decision<'t>,
    ) -> Step<bool> {
        let own = !ignored.as_ref().is_some_and(|d| d.excluded) && !excluded.excluded;
        if !own && !self.may_come_back(real, path, ignored.as_ref(), &excluded) {
            return Ok(false);
        }
        let place = self.entries.len();
        self.push(path.to_vec(), node);
        let mut kept = own;
        for entry in self.tree.view.read_dir(real)? {
            let (real, path) = (join(real, &entry.name), join(path, &entry.name));
            let ignored = match (self.tree.ignore, &ignored) {
                (Some(ignore), Some(parent)) => Some(ignore.decide_below(*parent, &real)),
                _ => None,
            };
            let excluded = self.excludes.decide_below(excluded, &path);
            if entry.node.stat.is_dir() {
                kept |= self.directory(&real, &path, entry.node, ignored, excluded)?;
            } else if !ignored.is_some_and(|d| d.excluded) && !excluded.excluded {
                self.push(path, entry.node);
                kept = true;
            }
        }
        if !kept {
            self.entries.truncate(place);
        }
        Ok(kept)
    }

    fn may_come_back(
        &self,
        real: &[u8],
        path: &[u8],
        ignored: Option<&Decision<'_>>,
        excluded: &Decision<'_>,
    ) -> bool {
        let ignored = ignored.is_some_and(|d| d.excluded);
        (!ignored
            || self
                .tree
                .ignore
                .is_some_and(|i| i.may_reinclude_below(real)))
            && (!excluded.excluded || self.excludes.may_reinclude_below(path))
    }
}
