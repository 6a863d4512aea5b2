//! COPY and ADD: files into a layer, without a mount and without a sandbox.

use std::fs::File;
use std::io::{Read, Seek};

use super::error::{Step, Trouble};
use super::explain::FILES;
use super::key::{Inputs, Key};
use super::origin::Origin;
use super::pipeline::Made;
use super::recall::{Recalled, Turn};
use super::remote::Remote;
use super::sources::{Entry, Selected, Tree};
use super::stage::{Outcome, State};
use super::{Build, Running};
use crate::context::Context;
use crate::context::ignore::IgnoreFile;
use crate::dockerfile::{AddFiles, Chmod, Files, Instruction, SourceArg, join_path};
use crate::fetch::begins_archive;
use crate::layer::{
    Assembly, Attributes, Compression, Content, FileKind, LayerError, LayerWriter, Limits, Plan,
    Timestamp, UpperKind, View,
};
use crate::sandbox;

/// What tells ADD from COPY.
pub(super) struct Adding {
    /// Whether archives of a tree are extracted.
    extract: bool,
    /// Whether those behind URLs are.
    pub(super) unpack: bool,
    /// `--checksum`.
    pub(super) checksum: Option<String>,
    /// `--keep-git-dir`.
    pub(super) keep_git_dir: Option<bool>,
}

/// Something to be copied.
pub(super) enum Item<'a> {
    /// Out of a tree.
    Tree(Selected<'a>),
    /// Out of the Dockerfile.
    Document { name: String, content: String },
    /// From elsewhere, and not here yet.
    Remote(Remote),
    /// From a URL.
    Url {
        name: Vec<u8>,
        file: File,
        modified: Option<i64>,
        unpack: bool,
    },
    /// All of a tree that was brought.
    Repository(View),
}

/// How files are copied, beyond which and where to.
#[derive(Clone, Copy)]
struct Manner<'a> {
    /// Whether the directories on the way to a source are copied too.
    parents: bool,
    /// What ADD does beyond COPY.
    adding: Option<&'a Adding>,
}

/// A COPY or ADD with all its words expanded.
struct Job<'a> {
    items: Vec<Item<'a>>,
    excludes: IgnoreFile,
    destination: String,
    /// Whether the destination is a directory that the sources go into.
    into_directory: bool,
    owner: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    /// Whether archives are extracted.
    extract: bool,
}

impl Build<'_> {
    pub(super) fn copy_step(
        &self,
        state: &mut State,
        instruction: &Instruction,
        files: &Files,
        from: Option<Origin>,
        parents: bool,
        step: &Running,
    ) -> Step<Outcome> {
        let tree = match &from {
            Some(Origin::Layers { view, .. }) => Tree::image(view),
            Some(Origin::Context(context)) => Tree::named_context(context),
            None => Tree::context(self.context),
        };
        let manner = Manner {
            parents,
            adding: None,
        };
        self.copy(state, instruction, files, tree, manner, step)
    }

    pub(super) fn add_step(
        &self,
        state: &mut State,
        instruction: &Instruction,
        add: &AddFiles,
        step: &Running,
    ) -> Step<Outcome> {
        let checksum = match &add.checksum {
            Some(word) => Some(state.scope.expand(word)?),
            None => None,
        };
        let adding = Adding {
            extract: add.unpack != Some(false),
            unpack: add.unpack == Some(true),
            checksum,
            keep_git_dir: add.keep_git_dir,
        };
        let tree = Tree::context(self.context);
        let manner = Manner {
            parents: false,
            adding: Some(&adding),
        };
        self.copy(state, instruction, &add.files, tree, manner, step)
    }

    /// Makes the layer of all that is in a context: of one that stands for a base image.
    pub(super) fn layer_of_context(
        &self,
        state: &mut State,
        context: &Context,
        created_by: String,
        step: &Running,
    ) -> Step<Outcome> {
        let tree = Tree::context(context);
        let excludes = IgnoreFile::default();
        let items = tree.select(".", &excludes)?;
        let mut job = Job {
            items: items.into_iter().map(Item::Tree).collect(),
            excludes,
            destination: "/".to_owned(),
            into_directory: true,
            owner: None,
            chmod: None,
            extract: false,
        };
        self.read_contents(&mut job)?;
        let mut key = self.key("context");
        job.hash(&mut key)?;
        let inputs = key.finish();
        let contents = || job.contents();
        let turn = match self.recall(state, &inputs, &created_by, Some(&contents), step)? {
            Recalled::Hit(outcome) => return Ok(outcome),
            Recalled::Miss(turn) => turn,
        };
        let made = self.write_job(&View::new(Vec::new()), &job, inputs, turn)?;
        Ok(Outcome::made(created_by, made))
    }

    fn copy(
        &self,
        state: &mut State,
        instruction: &Instruction,
        files: &Files,
        tree: Tree<'_>,
        manner: Manner<'_>,
        step: &Running,
    ) -> Step<Outcome> {
        let mut job = self.plan_copy(state, files, tree, manner, step)?;
        self.read_contents(&mut job)?;
        let created_by = format!("{} # buildkit", instruction.raw);
        let mut key = self.key(if job.extract { "add" } else { "copy" });
        job.hash(&mut key)?;
        // A linked layer does not depend on what lies below.
        let inputs = match files.link {
            true => key.finish_linked(),
            false => key.finish(),
        };
        let contents = || job.contents();
        let turn = match self.recall(state, &inputs, &created_by, Some(&contents), step)? {
            Recalled::Hit(outcome) => return Ok(outcome),
            Recalled::Miss(turn) => turn,
        };
        for item in &mut job.items {
            if let Item::Remote(remote) = item {
                *item = self.bring(remote, step)?;
            }
        }
        let nothing = View::new(Vec::new());
        let below = if files.link { &nothing } else { &state.view };
        let made = self.write_job(below, &job, inputs, turn)?;
        Ok(Outcome::made(created_by, made))
    }

    /// Writes the tree of a layer.
    fn write_job(&self, below: &View, job: &Job<'_>, inputs: Inputs, turn: Turn<'_>) -> Step<Made> {
        // What changes while it is copied is no longer what the key was made of.
        let mut is_sound = true;
        let (staged, overrides, stream) = match job.plan(below, self.time_of_new())? {
            Some(plan) => {
                let (staged, assembled, stream) = self.write_plan(below, &plan)?;
                is_sound = assembled.is_stable;
                (staged, assembled.overrides, Some(stream))
            }
            None => {
                let (staged, overrides) = self.write_tree(below, |writer| {
                    for item in &job.items {
                        is_sound &= job.write(writer, item)?;
                    }
                    Ok(())
                })?;
                (staged, overrides, None)
            }
        };
        Ok(Made {
            staged,
            kind: UpperKind::Overlay,
            overrides,
            stream,
            inputs,
            also: None,
            is_sound,
            lock: turn.lock,
        })
    }

    /// Finds out what all files hold, and remembers it.
    fn read_contents(&self, job: &mut Job<'_>) -> Step<()> {
        let store = self.shop.store;
        for item in &mut job.items {
            let Item::Tree(selected) = item else {
                continue;
            };
            let context = selected.tree.as_context();
            let known = context.and_then(|c| c.stat_cache(|name| store.stat_cache(name)));
            let has_learned = selected.read_contents(known.map(|(_, cache)| cache))?;
            if let (true, Some((name, cache))) = (has_learned, known) {
                store.write_stat_cache(name, &cache.encode())?;
            }
        }
        Ok(())
    }

    fn plan_copy<'t>(
        &self,
        state: &State,
        files: &Files,
        tree: Tree<'t>,
        manner: Manner<'_>,
        step: &Running,
    ) -> Step<Job<'t>> {
        let mut patterns = Vec::new();
        for word in &files.excludes {
            patterns.push(state.scope.expand(word)?);
        }
        let excludes =
            IgnoreFile::from_patterns(patterns.iter().map(String::as_bytes), "--exclude").map_err(
                |error| Trouble::Message {
                    text: format!("--exclude: {}", error.kind),
                    hint: error.hint(),
                },
            )?;
        let mut items = Vec::new();
        for source in &files.sources {
            match source {
                SourceArg::Heredoc(document) => items.push(Item::Document {
                    name: document.name.clone(),
                    content: state.scope.expand_heredoc(document)?,
                }),
                SourceArg::Path(word) => {
                    let text = state.scope.expand(word)?;
                    if let Some(remote) = self.remote(&text, manner.adding, step)? {
                        items.push(Item::Remote(remote));
                        continue;
                    }
                    let selected = match manner.parents {
                        true => tree.select_with_parents(&text, &excludes)?,
                        false => tree.select(&text, &excludes)?,
                    };
                    items.extend(selected.into_iter().map(Item::Tree));
                }
            }
        }
        let owner = match &files.chown {
            Some(word) => sandbox::lookup_chown(&state.view, &state.scope.expand(word)?)?,
            None => None,
        };
        let chmod = match &files.chmod {
            Some(word) => Some(Chmod::parse(&state.scope.expand(word)?).map_err(|error| {
                Trouble::Message {
                    text: error.to_string(),
                    hint: error.hint(),
                }
            })?),
            None => None,
        };
        let text = state.scope.expand(&files.destination)?;
        let destination = join_path(&state.config.config.working_dir, &text);
        let names_directory =
            text.is_empty() || text.ends_with('/') || text == "." || text.ends_with("/.");
        // A linked layer can't know what lies below.
        let exists = !files.link
            && state
                .view
                .resolve(destination.as_bytes(), true)?
                .node
                .is_some_and(|node| node.stat.is_dir());
        let documents = items
            .iter()
            .filter(|item| matches!(item, Item::Document { .. }));
        // Two documents for one file are written one after the other, as BuildKit does.
        let only_documents = documents.count() == items.len();
        let several = items.len() > 1 && !only_documents;
        Ok(Job {
            into_directory: names_directory || exists || several || manner.parents,
            items,
            excludes,
            destination,
            owner,
            chmod,
            extract: manner.adding.is_some_and(|adding| adding.extract),
        })
    }
}

impl Job<'_> {
    /// Adds to a key all that a copy depends on but what lies below.
    fn hash(&self, key: &mut Key) -> Step<()> {
        key.part("the destination")
            .text(&self.destination)
            .number(self.into_directory.into());
        key.part("the owner or mode")
            .text(&format!("{:?} {:?}", self.owner, self.chmod));
        key.part(FILES);
        for item in &self.items {
            match item {
                Item::Tree(selected) => {
                    key.text("tree");
                    selected.hash(key)?;
                }
                Item::Document { name, content } => {
                    key.text("document").text(name).text(content);
                }
                Item::Remote(remote) => {
                    remote.hash(key);
                    key.text(&format!("{:?}", self.excludes));
                }
                // These were remote when the key was made.
                Item::Url { .. } | Item::Repository(_) => {}
            }
        }
        Ok(())
    }

    /// Returns what is copied, by names as people know them, with what tells a change.
    fn contents(&self) -> Vec<(String, String)> {
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let mut all = Vec::new();
        for item in &self.items {
            match item {
                Item::Tree(selected) => {
                    for entry in &selected.entries {
                        let stat = &entry.node.stat;
                        // Of most directories only that they are there is of interest.
                        let content = entry
                            .content
                            .map(|hash| blake3::Hash::from(hash).to_hex()[..16].to_owned());
                        let what = format!("{:o} {}", stat.mode, content.unwrap_or_default());
                        all.push((shown(&entry.node.path), what));
                    }
                }
                Item::Document { name, content } => {
                    let hash = blake3::hash(content.as_bytes());
                    all.push((format!("<<{name}"), hash.to_hex()[..16].to_owned()));
                }
                Item::Remote(_) | Item::Url { .. } | Item::Repository(_) => {}
            }
        }
        all
    }

    fn attributes(&self, tree: &Tree<'_>, entry: &Entry) -> Step<Attributes> {
        let stat = &entry.node.stat;
        let mut attributes = Attributes::of(stat, tree.xattrs(entry)?);
        if tree.is_context() {
            (attributes.uid, attributes.gid) = (0, 0);
        }
        self.adjust(&mut attributes, stat.is_dir());
        Ok(attributes)
    }

    fn adjust(&self, attributes: &mut Attributes, is_directory: bool) {
        if let Some((uid, gid)) = self.owner {
            (attributes.uid, attributes.gid) = (uid, gid);
        }
        if let Some(chmod) = &self.chmod {
            attributes.mode = chmod.apply(attributes.mode, is_directory);
        }
    }

    /// Makes a directory that sources go into, with its parents.
    fn ensure_dir(&self, writer: &mut LayerWriter<'_>, path: &[u8]) -> Step<Vec<u8>> {
        let Attributes { mode, uid, gid, .. } = self.created();
        Ok(writer.ensure_dir(path, mode, uid, gid)?)
    }

    /// Returns the attributes of created parents.
    fn created(&self) -> Attributes {
        // The permissions of an octal mode are used for them too.
        let mode = match &self.chmod {
            Some(Chmod::Octal(mode)) => *mode & 0o777,
            _ => 0o755,
        };
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        Attributes {
            mode,
            uid,
            gid,
            ..Attributes::default()
        }
    }

    /// Returns where a single file goes, its directory made.
    fn target_of(&self, writer: &mut LayerWriter<'_>, name: &[u8]) -> Step<Vec<u8>> {
        let destination = self.destination.as_bytes();
        if self.into_directory {
            let directory = self.ensure_dir(writer, destination)?;
            return Ok(join(&directory, name));
        }
        let parent = destination
            .iter()
            .rposition(|b| *b == b'/')
            .unwrap_or_default();
        self.ensure_dir(writer, &destination[..parent])?;
        Ok(writer.resolve(destination, true)?)
    }

    /// Writes one source. Returns whether its files were still what they had been.
    fn write(&self, writer: &mut LayerWriter<'_>, item: &Item<'_>) -> Step<bool> {
        match item {
            Item::Document { name, content } => {
                let target = self.target_of(writer, name.as_bytes())?;
                let mut attributes = Attributes {
                    mode: 0o644,
                    ..Attributes::default()
                };
                self.adjust(&mut attributes, false);
                writer.put_file(&target, &mut content.as_bytes(), &attributes)?;
                Ok(true)
            }
            Item::Tree(selected) if selected.top().stat.is_dir() => {
                self.write_directory(writer, selected)
            }
            Item::Tree(selected) => self.write_file(writer, selected),
            // It was brought before.
            Item::Remote(_) => Ok(false),
            Item::Url {
                name,
                file,
                modified,
                unpack,
            } => {
                self.write_url(writer, name, file, *modified, *unpack)?;
                Ok(true)
            }
            Item::Repository(view) => {
                // All that is in it is meant.
                let tree = Tree::repository(view);
                let inner = Job {
                    items: Vec::new(),
                    excludes: IgnoreFile::default(),
                    destination: self.destination.clone(),
                    into_directory: true,
                    owner: self.owner,
                    chmod: self.chmod.clone(),
                    extract: false,
                };
                for selected in tree.select(".", &self.excludes)? {
                    inner.write_directory(writer, &selected)?;
                }
                Ok(true)
            }
        }
    }

    fn write_file(&self, writer: &mut LayerWriter<'_>, selected: &Selected<'_>) -> Step<bool> {
        if self.extract && selected.top().stat.is_file() && self.is_archive(selected)? {
            let file = selected.tree.view().open_file(selected.top())?;
            let same = file.try_clone().map_err(LayerError::Read)?;
            let (_, mut reader) = Compression::decode(file).map_err(LayerError::Read)?;
            let destination = self.ensure_dir(writer, self.destination.as_bytes())?;
            writer.extract(&mut reader, &destination, self.owner, Limits::default())?;
            return Ok(selected.entries[0].is_unchanged(&same));
        }
        let target = self.target_of(writer, &selected.name)?;
        self.write_entry(writer, selected, 0, &target, &target)
    }

    /// Writes the file behind a URL.
    fn write_url(
        &self,
        writer: &mut LayerWriter<'_>,
        name: &[u8],
        file: &File,
        modified: Option<i64>,
        unpack: bool,
    ) -> Step<()> {
        let again = || file.try_clone().map_err(LayerError::Read);
        if unpack {
            let is_archive = begins_with_archive(again()?)?;
            // Both descriptors share one position.
            (&*file).rewind().map_err(LayerError::Read)?;
            if is_archive {
                let (_, mut reader) = Compression::decode(again()?).map_err(LayerError::Read)?;
                let destination = self.ensure_dir(writer, self.destination.as_bytes())?;
                writer.extract(&mut reader, &destination, self.owner, Limits::default())?;
                return Ok(());
            }
        }
        let target = self.target_of(writer, name)?;
        let mut attributes = Attributes {
            mode: 0o600,
            // Like BuildKit, the epoch where the server says nothing.
            mtime: Some(Timestamp::from_seconds(modified.unwrap_or(0))),
            ..Attributes::default()
        };
        self.adjust(&mut attributes, false);
        writer.put_file_from(&target, file, &attributes)?;
        Ok(())
    }

    fn write_directory(&self, writer: &mut LayerWriter<'_>, selected: &Selected<'_>) -> Step<bool> {
        // The top is the destination itself: it keeps its attributes, or gets those of a parent
        // that is made. Only what is in the source brings its own.
        let target = self.ensure_dir(writer, self.destination.as_bytes())?;
        let mut stable = true;
        for index in 1..selected.entries.len() {
            let path = join(&target, &selected.entries[index].path);
            stable &= self.write_entry(writer, selected, index, &path, &target)?;
        }
        Ok(stable)
    }

    fn write_entry(
        &self,
        writer: &mut LayerWriter<'_>,
        selected: &Selected<'_>,
        index: usize,
        path: &[u8],
        target: &[u8],
    ) -> Step<bool> {
        let entry = &selected.entries[index];
        if let Some(first) = entry.link_to {
            let first = join(target, &selected.entries[first].path);
            writer.put_hardlink(path, &first)?;
            return Ok(true);
        }
        let attributes = self.attributes(&selected.tree, entry)?;
        match entry.node.stat.kind {
            // What is only on the way changes nothing but the mode of a directory that exists.
            FileKind::Directory if entry.is_parent => writer.merge_dir(path, &attributes)?,
            FileKind::Directory => writer.put_dir(path, &attributes)?,
            FileKind::File => {
                let file = selected.tree.view().open_file(&entry.node)?;
                writer.put_file_from(path, &file, &attributes)?;
                return Ok(entry.is_unchanged(&file));
            }
            FileKind::Symlink => {
                let link = selected.tree.view().read_link(&entry.node)?;
                writer.put_symlink(path, &link, &attributes)?;
            }
            // A socket means nothing without the process behind it.
            FileKind::Socket => {}
            kind => writer.put_special(path, kind, entry.node.stat.rdev, &attributes)?,
        }
        Ok(true)
    }

    /// Tells whether a file is an archive: whether, decompressed, it begins with a tar header.
    fn is_archive(&self, selected: &Selected<'_>) -> Step<bool> {
        begins_with_archive(selected.tree.view().open_file(selected.top())?)
    }
}

/// Tells whether a file, decompressed, begins with the header of an archive.
fn begins_with_archive(file: File) -> Step<bool> {
    let Ok((_, reader)) = Compression::decode(file) else {
        return Ok(false);
    };
    let mut block = Vec::with_capacity(512);
    let read = reader.take(512).read_to_end(&mut block);
    Ok(read.is_ok() && begins_archive(&block))
}

/// The short way: what is copied is planned, and then written in one pass.
impl Job<'_> {
    /// Plans the layer. Returns nothing where it has to be written entry by entry.
    fn plan(&self, below: &View, now: Timestamp) -> Step<Option<Plan<'_>>> {
        let mut assembly = Assembly::new(below, now);
        for item in &self.items {
            match item {
                Item::Document { name, content } => {
                    let target = self.place(&mut assembly, name.as_bytes())?;
                    let mut attributes = Attributes {
                        mode: 0o644,
                        ..Attributes::default()
                    };
                    self.adjust(&mut attributes, false);
                    let content = Content::Bytes(content.as_bytes());
                    assembly.put(target, FileKind::File, attributes, content)?;
                }
                Item::Tree(selected) if selected.top().stat.is_dir() => {
                    let destination = self.destination.as_bytes();
                    let target = assembly.ensure_dir(destination, &self.created())?;
                    for entry in &selected.entries[1..] {
                        let path = join(&target, &entry.path);
                        self.plan_entry(&mut assembly, selected, entry, path, &target)?;
                    }
                }
                Item::Tree(selected) => {
                    if self.extract && selected.top().stat.is_file() && self.is_archive(selected)? {
                        return Ok(None);
                    }
                    let target = self.place(&mut assembly, &selected.name)?;
                    let entry = &selected.entries[0];
                    self.plan_entry(&mut assembly, selected, entry, target, b"")?;
                }
                Item::Remote(_) | Item::Url { .. } | Item::Repository(_) => return Ok(None),
            }
        }
        Ok(assembly.plan()?)
    }

    /// Returns where a single file goes.
    fn place(&self, assembly: &mut Assembly<'_, '_>, name: &[u8]) -> Step<Vec<u8>> {
        let destination = self.destination.as_bytes();
        if self.into_directory {
            let directory = assembly.ensure_dir(destination, &self.created())?;
            return Ok(join(&directory, name));
        }
        let slash = destination.iter().rposition(|b| *b == b'/');
        let parent = &destination[..slash.unwrap_or_default()];
        assembly.ensure_dir(parent, &self.created())?;
        Ok(assembly.resolve(destination)?)
    }

    fn plan_entry<'s>(
        &'s self,
        assembly: &mut Assembly<'_, 's>,
        selected: &'s Selected<'s>,
        entry: &'s Entry,
        path: Vec<u8>,
        target: &[u8],
    ) -> Step<()> {
        let (tree, node) = (&selected.tree, &entry.node);
        let kind = node.stat.kind;
        let attributes = self.attributes(tree, entry)?;
        let content = match (kind, entry.link_to, entry.content) {
            // A socket means nothing without the process behind it.
            (FileKind::Socket, ..) => return Ok(()),
            (_, Some(first), _) => Content::HardLink(join(target, &selected.entries[first].path)),
            (FileKind::File, _, Some(hash)) => Content::File {
                view: tree.view(),
                node,
                hash,
            },
            (FileKind::Symlink, ..) => Content::Symlink(tree.view().read_link(node)?),
            (FileKind::Directory, ..) if entry.is_parent => {
                return Ok(assembly.merge_dir(path, attributes)?);
            }
            _ => Content::Directory,
        };
        Ok(assembly.put(path, kind, attributes, content)?)
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => directory.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}
