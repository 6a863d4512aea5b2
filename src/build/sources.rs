//! The sources of COPY and ADD: which entries of a tree are meant, and what they hold.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::os::fd::AsFd as _;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_runtime::sys::file;

use super::error::{Step, Trouble};
use super::key::Key;
use crate::context::Context;
use crate::context::ignore::{Decision, IgnoreFile, Include};
use crate::context::pattern::{Pattern, PatternError};
use crate::context::stat_cache::{ContentHash, Identity, StatCache};
use crate::dockerfile::suggest;
use crate::layer::{FileKind, LayerError, Node, Timestamp, View, Xattrs};

/// The only extended attribute of a context's file that an image gets.
const CAPABILITY: &[u8] = b"security.capability";

/// How many names are compared with one that is missing: a hint may not take long.
const LOOKED_AT: usize = 5000;

/// A tree that files are copied from.
#[derive(Clone, Copy)]
pub(super) struct Tree<'a> {
    view: &'a View,
    /// What of it does not take part; the build context only.
    ignore: Option<&'a IgnoreFile>,
    /// What it is, for errors.
    place: &'static str,
    /// Whether it lies on a workstation, whose owners and attributes mean nothing in an image.
    is_context: bool,
    /// The context, where it is one.
    context: Option<&'a Context>,
    /// Whether it is there at all.
    exists: bool,
}

/// Something that is copied: a file, or a directory with what is in it.
pub(super) struct Selected<'a> {
    /// Where it lies.
    pub(super) tree: Tree<'a>,
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
                && now.ctime() == stat.ctime.seconds
                && now.ctime_nsec() == i64::from(stat.ctime.nanoseconds)
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
    /// Whether it is there for what lies below it only: a directory on the way to what
    /// `--parents` matched.
    pub(super) is_parent: bool,
    /// The hash of a file's content, once it is known.
    pub(super) content: Option<ContentHash>,
    /// Whether it has extended attributes that go with a copy, so far as that is known.
    pub(super) has_xattrs: bool,
}

impl Selected<'_> {
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
            is_context: true,
            context: Some(context),
            exists: context.exists(),
        }
    }

    /// Returns a context that has a name.
    pub(super) fn named_context(context: &'a Context) -> Tree<'a> {
        Tree {
            place: "the build context that --from names",
            ..Tree::context(context)
        }
    }

    /// Returns the tree of a stage or an image.
    pub(super) fn image(view: &'a View) -> Tree<'a> {
        Tree {
            view,
            ignore: None,
            place: "the stage or image that --from names",
            is_context: false,
            context: None,
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

    /// Returns the tree of a repository: all of it belongs to root, as in a context.
    pub(super) fn repository(view: &'a View) -> Tree<'a> {
        Tree {
            place: "the repository",
            is_context: true,
            ..Tree::image(view)
        }
    }

    /// Returns the context, where it is one.
    pub(super) fn as_context(&self) -> Option<&'a Context> {
        self.context
    }

    /// Returns whether owners and attributes stay behind.
    pub(super) fn is_context(&self) -> bool {
        self.is_context
    }

    fn excluded(&self, path: &[u8]) -> bool {
        self.ignore
            .is_some_and(|ignore| ignore.decide(path).excluded)
    }

    /// Finds what a path or pattern means, in lexical order. A pattern that matches nothing is
    /// no error.
    pub(super) fn select(&self, text: &str, excludes: &IgnoreFile) -> Step<Vec<Selected<'a>>> {
        self.require(text)?;
        let cleaned = clean(text.as_bytes());
        let pattern = Pattern::parse(&cleaned).map_err(bad_pattern)?;
        if let Some(path) = pattern.literal() {
            return Ok(self.literal(text, &path, excludes)?.into_iter().collect());
        }
        let mut selected = Vec::new();
        for path in self.matches(&cleaned)? {
            if let Some(node) = self.find(&path)?
                && let Some(one) = self.gather(&path, node, excludes, None)?
            {
                selected.push(one);
            }
        }
        Ok(selected)
    }

    /// Finds what a path or pattern of `COPY --parents` means: a directory, that in front of
    /// `/./` or else the root, of which only what matches the rest is taken, together with the
    /// directories on the way to it. `**` in the rest is any number of directories.
    pub(super) fn select_with_parents(
        &self,
        text: &str,
        excludes: &IgnoreFile,
    ) -> Step<Vec<Selected<'a>>> {
        self.require(text)?;
        let (pivot, rest) = text.split_once("/./").unwrap_or(("", text));
        let (pivot, rest) = (clean(pivot.as_bytes()), clean(rest.as_bytes()));
        let literal = Pattern::parse(&pivot).map_err(bad_pattern)?.literal();
        let tops = match &literal {
            Some(path) => vec![path.clone()],
            None => self.matches(&pivot)?,
        };
        let include = Include::parse(&rest).map_err(bad_pattern)?;
        let mut selected = Vec::new();
        for path in tops {
            let node = self.find(&path)?.filter(|node| node.stat.is_dir());
            let gathered = match node {
                Some(node) => self.gather(&path, node, excludes, Some(&include))?,
                None => None,
            };
            // A path without wildcards has to be there.
            if literal.is_some() {
                let wanted = include.literal().map(|rest| join(&path, &rest));
                let is_met = match (&gathered, &wanted) {
                    (None, _) => false,
                    (Some(_), None) => true,
                    (Some(gathered), Some(_)) => {
                        gathered.entries.iter().any(|entry| !entry.is_parent)
                    }
                };
                if !is_met {
                    let wanted = wanted.unwrap_or(path);
                    if !self.is_excluded_by(excludes, include.literal().as_deref()) {
                        return Err(self.explain_missing(text, &wanted));
                    }
                }
            }
            selected.extend(gathered);
        }
        Ok(selected)
    }

    /// Makes sure that there is a tree.
    fn require(&self, text: &str) -> Step<()> {
        match self.exists {
            true => Ok(()),
            false => Err(Trouble::hinted(
                format!("there is no build context to take {text:?} from"),
                "the Dockerfile came alone: give a directory too, as in `kiln build -f - .`",
            )),
        }
    }

    /// Tells whether `--exclude` leaves out a path.
    fn is_excluded_by(&self, excludes: &IgnoreFile, path: Option<&[u8]>) -> bool {
        path.is_some_and(|path| excludes.decide(path).excluded)
    }

    /// Returns the paths that match a pattern, in lexical order.
    fn matches(&self, pattern: &[u8]) -> Step<Vec<Vec<u8>>> {
        let mut found = vec![Vec::new()];
        for part in pattern.split(|b| *b == b'/') {
            let pattern = Pattern::parse(part).map_err(bad_pattern)?;
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
        Ok(found)
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
    pub(super) fn one(&self, text: &str) -> Step<Selected<'a>> {
        let nothing = IgnoreFile::from_patterns(std::iter::empty::<&[u8]>(), "");
        let nothing = nothing.map_err(|error| Trouble::new(error.to_string()))?;
        let path = clean(text.as_bytes());
        let selected = self.literal(text, &path, &nothing)?;
        selected.ok_or_else(|| self.explain_missing(text, &path))
    }

    /// Returns what a path leads to. Below a file there is nothing.
    fn find(&self, path: &[u8]) -> Result<Option<Node>, LayerError> {
        match self.view.resolve(path, true) {
            Ok(resolved) => Ok(resolved.node),
            Err(LayerError::ThroughFile(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns what a path without wildcards means; nothing where `--exclude` leaves it out.
    fn literal(
        &self,
        text: &str,
        path: &[u8],
        excludes: &IgnoreFile,
    ) -> Step<Option<Selected<'a>>> {
        let node = self.find(path)?;
        let is_left_out = node.as_ref().is_some_and(|node| {
            !node.stat.is_dir() && self.is_excluded_by(excludes, path.rsplit(|b| *b == b'/').next())
        });
        let gathered = match node {
            Some(node) => self.gather(path, node, excludes, None)?,
            None => None,
        };
        match gathered {
            None if !is_left_out || self.excluded(path) => Err(self.explain_missing(text, path)),
            selected => Ok(selected),
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
        if let Ok(Some(node)) = self.find(path)
            && node.path != path
        {
            let real = String::from_utf8_lossy(&node.path);
            return Trouble::hinted(
                format!(
                    "{text:?} is reached through a symbolic link, which --parents does not follow"
                ),
                format!("name where it leads: {real:?}"),
            );
        }
        let message = format!(
            "{text:?} is not in {}: no such file or directory",
            self.place
        );
        let itself = self.view.resolve(path, false).ok().and_then(|at| at.node);
        if itself.is_some_and(|node| node.stat.is_symlink()) {
            let hint = format!("it is a symbolic link to what is not in {}", self.place);
            return Trouble::hinted(message, hint);
        }
        match self.nearest(path) {
            Some(near) => {
                let near = String::from_utf8_lossy(&near);
                Trouble::hinted(message, format!("did you mean {near:?}?"))
            }
            None => match self.elsewhere(path) {
                Some(found) => {
                    let found = String::from_utf8_lossy(&found);
                    Trouble::hinted(
                        message,
                        format!(
                            "there is {found:?}: paths start at the top of {}",
                            self.place
                        ),
                    )
                }
                None => Trouble::new(message),
            },
        }
    }

    /// Returns where the name of a missing path is instead, nearest to the top.
    fn elsewhere(&self, path: &[u8]) -> Option<Vec<u8>> {
        let wanted = path.rsplit(|b| *b == b'/').next()?;
        let mut directories = VecDeque::from([Vec::new()]);
        let mut looked_at = 0;
        while let Some(directory) = directories.pop_front() {
            for entry in self.view.read_dir(&directory).unwrap_or_default() {
                looked_at += 1;
                if looked_at > LOOKED_AT {
                    return None;
                }
                let path = join(&directory, &entry.name);
                if self.excluded(&path) {
                    continue;
                }
                if entry.name == wanted {
                    return Some(path);
                }
                if entry.node.stat.is_dir() {
                    directories.push_back(path);
                }
            }
        }
        None
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
    fn gather(
        &self,
        path: &[u8],
        node: Node,
        excludes: &IgnoreFile,
        include: Option<&Include>,
    ) -> Step<Option<Selected<'a>>> {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path).to_vec();
        let mut gathering = Gathering {
            tree: *self,
            excludes,
            include,
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
                include.is_none_or(Include::is_all),
            )?;
            if !kept {
                return Ok(None);
            }
        } else if self.excluded(path) || self.excluded(&real) || excludes.decide(&name).excluded {
            return Ok(None);
        } else {
            gathering.push(Vec::new(), node, false);
        }
        Ok(Some(Selected {
            tree: *self,
            name,
            entries: gathering.entries,
        }))
    }

    /// Returns the extended attributes that go with a copy. From a context, those of the
    /// workstation do not: only what makes a program work.
    pub(super) fn xattrs(&self, entry: &Entry) -> Step<Xattrs> {
        if !entry.has_xattrs || (self.is_context && !entry.node.stat.is_file()) {
            return Ok(Xattrs::new());
        }
        let mut xattrs = self.view.xattrs(&entry.node)?;
        if self.is_context {
            xattrs.retain(|name, _| name == CAPABILITY);
        }
        Ok(xattrs)
    }
}

impl Selected<'_> {
    /// Finds out what the files hold: from the cache, or by reading them on all cores. Returns
    /// whether there is something new in the cache.
    pub(super) fn read_contents(&mut self, cache: Option<&StatCache>) -> Step<bool> {
        // Taken before the first file is looked at.
        let now = Timestamp::now();
        let mut unknown = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if !entry.node.stat.is_file() || entry.link_to.is_some() {
                continue;
            }
            entry.content = cache.and_then(|cache| cache.get(&Identity::of(&entry.node.stat)));
            match entry.content {
                // What has such attributes is never in the cache.
                Some(_) => entry.has_xattrs = false,
                None => unknown.push(index),
            }
        }
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(unknown.len() / 64 + 1);
        let (this, unknown) = (&*self, &unknown);
        let read = || this.read_some(unknown, &next);
        let found: Vec<_> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(read)).collect();
            let mut found = vec![read()];
            for other in others {
                found.push(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            found
        });
        let mut learned = Vec::new();
        for found in found {
            for (index, content, has_xattrs) in found? {
                let entry = &mut self.entries[index];
                entry.content = Some(content);
                entry.has_xattrs = has_xattrs || !self.tree.is_context;
                if !has_xattrs {
                    learned.push((Identity::of(&entry.node.stat), content));
                }
            }
        }
        Ok(cache.is_some_and(|cache| cache.learn(learned, now)))
    }

    /// Reads files until none is left to be read.
    fn read_some(
        &self,
        files: &[usize],
        next: &AtomicUsize,
    ) -> Step<Vec<(usize, ContentHash, bool)>> {
        let mut opener = self.tree.view.opener();
        let mut buffer = vec![0; 128 << 10];
        let mut found = Vec::new();
        loop {
            // A few at a time, so that neighbours stay together.
            let at = next.fetch_add(16, Ordering::Relaxed);
            let Some(files) = files.get(at..) else {
                return Ok(found);
            };
            for &index in files.iter().take(16) {
                let entry = &self.entries[index];
                let mut file = opener.open(&entry.node)?;
                let mut hasher = blake3::Hasher::new();
                loop {
                    let length = file.read(&mut buffer).map_err(LayerError::Read)?;
                    hasher.update(&buffer[..length]);
                    // A file that grows meanwhile is noticed when it is copied.
                    if length == 0 || hasher.count() == entry.node.stat.size {
                        break;
                    }
                }
                let has_xattrs = self.tree.is_context
                    && file::has_xattr(file.as_fd(), CAPABILITY).map_err(LayerError::Read)?;
                found.push((index, *hasher.finalize().as_bytes(), has_xattrs));
            }
        }
    }

    /// Adds to a key all that a copy depends on: not the times.
    pub(super) fn hash(&self, key: &mut Key) -> Step<()> {
        key.bytes(&self.name);
        key.number(self.entries.len() as u64);
        for entry in &self.entries {
            let stat = &entry.node.stat;
            key.bytes(&entry.path);
            key.number(stat.kind.mode_bits().into());
            key.number(stat.mode.into());
            key.number(entry.is_parent.into());
            if !self.tree.is_context {
                key.number(stat.uid.into()).number(stat.gid.into());
            }
            for (name, value) in self.tree.xattrs(entry)? {
                key.bytes(&name).bytes(&value);
            }
            match (entry.link_to, entry.content) {
                (Some(first), _) => {
                    key.text("link").number(first as u64);
                }
                (None, Some(content)) => {
                    key.bytes(&content);
                }
                (None, None) => self.hash_other(key, &entry.node)?,
            }
        }
        Ok(())
    }

    fn hash_other(&self, key: &mut Key, node: &Node) -> Step<()> {
        match node.stat.kind {
            FileKind::Symlink => {
                key.bytes(&self.tree.view.read_link(node)?);
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                let device = node.stat.rdev;
                key.number(device.major.into()).number(device.minor.into());
            }
            FileKind::File => {
                let file = self.tree.view.open_file(node)?;
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(file).map_err(LayerError::Read)?;
                key.bytes(hasher.finalize().as_bytes());
            }
            FileKind::Directory | FileKind::Fifo | FileKind::Socket => {}
        }
        Ok(())
    }
}

fn bad_pattern(error: PatternError) -> Trouble {
    Trouble::maybe_hinted(error.to_string(), error.hint())
}

/// A walk that collects entries.
struct Gathering<'t, 'a> {
    tree: Tree<'a>,
    excludes: &'t IgnoreFile,
    include: Option<&'t Include>,
    entries: Vec<Entry>,
    inodes: HashMap<(u64, u64), usize>,
}

impl<'t, 'a: 't> Gathering<'t, 'a> {
    fn push(&mut self, path: Vec<u8>, node: Node, is_parent: bool) {
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
            is_parent,
            content: None,
            has_xattrs: true,
        });
    }

    /// Collects a directory and what is in it. Returns whether any of it takes part.
    /// `included` says whether it is, or lies below, what `--parents` asks for.
    fn directory(
        &mut self,
        real: &[u8],
        path: &[u8],
        node: Node,
        ignored: Option<Decision<'t>>,
        excluded: Decision<'t>,
        included: bool,
    ) -> Step<bool> {
        let allowed = !ignored.as_ref().is_some_and(|d| d.excluded) && !excluded.excluded;
        if !allowed && !self.may_come_back(real, path, ignored.as_ref(), &excluded) {
            return Ok(false);
        }
        // The pivot of --parents is there whatever matches below it.
        let own = allowed && (included || path.is_empty());
        let place = self.entries.len();
        self.push(path.to_vec(), node, !included);
        let mut kept = own;
        for entry in self.tree.view.read_dir(real)? {
            let (real, path) = (join(real, &entry.name), join(path, &entry.name));
            let is_dir = entry.node.stat.is_dir();
            let included = included
                || match self.include {
                    Some(include) if include.matches(&path) => true,
                    Some(include) if is_dir && include.may_match_below(&path) => false,
                    _ => continue,
                };
            let ignored = match (self.tree.ignore, &ignored) {
                (Some(ignore), Some(parent)) => Some(ignore.decide_below(*parent, &real)),
                _ => None,
            };
            let excluded = self.excludes.decide_below(excluded, &path);
            if is_dir {
                kept |= self.directory(&real, &path, entry.node, ignored, excluded, included)?;
            } else if !ignored.is_some_and(|d| d.excluded) && !excluded.excluded {
                self.push(path, entry.node, false);
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
