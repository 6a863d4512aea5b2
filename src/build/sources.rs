//! The sources of COPY and ADD: which entries of a tree are meant, and what they hold.

mod contents;
mod gathering;
mod missing;

use std::collections::HashMap;

use self::gathering::Gathering;
use super::error::{Step, Trouble};
use crate::context::Context;
use crate::context::ignore::{IgnoreFile, Include};
use crate::context::pattern::{Pattern, PatternError};
use crate::context::stat_cache::ContentHash;
use crate::layer::{LayerError, Node, View, Xattrs};

/// The only extended attribute of a context's file that an image gets.
const CAPABILITY: &[u8] = b"security.capability";

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
            match self.find(&path)? {
                Some(node) => selected.extend(self.gather(&path, node, excludes, None)?),
                // What a pattern matches is followed, as by BuildKit: a link to nothing is an
                // error, and not left out in silence.
                None if self.is_link(&path) && !self.excluded(&path) => {
                    return Err(self.explain_missing(&String::from_utf8_lossy(&path), &path));
                }
                None => {}
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

    fn is_link(&self, path: &[u8]) -> bool {
        let itself = self.view.resolve(path, false);
        let node = itself.ok().and_then(|resolved| resolved.node);
        node.is_some_and(|node| node.stat.is_symlink())
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

fn bad_pattern(error: PatternError) -> Trouble {
    Trouble::maybe_hinted(error.to_string(), error.hint())
}
