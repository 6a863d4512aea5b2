//! COPY and ADD: files into a layer, without a mount and without a sandbox.

use std::fs::File;
use std::io::Read;

mod plan;
mod write;

use super::error::{Step, Trouble};
use super::explain::FILES;
use super::key::{Key, Keys};
use super::origin::Origin;
use super::pipeline::Made;
use super::recall::{Recalled, Turn};
use super::remote::Remote;
use super::sources::{Entry, Selected, Tree};
use super::stage::{Outcome, State};
use super::{Build, Running};
use crate::context::Context;
use crate::context::ignore::IgnoreFile;
use crate::dockerfile::{AddFiles, Chmod, Files, Instruction, SourceArg, Span, Word, join_path};
use crate::fetch::begins_archive;
use crate::image::ChainId;
use crate::layer::{Attributes, Compression, UpperKind, View};
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

/// A source as it is written, its words expanded.
enum Named {
    Document { name: String, content: String },
    Path(String, Span),
}

/// What a COPY or ADD says, all its words expanded.
struct Words {
    sources: Vec<Named>,
    exclude_patterns: Vec<String>,
    excludes: IgnoreFile,
    target: Target,
}

/// Where sources go, and as what.
#[derive(Clone)]
struct Target {
    destination: String,
    /// Whether the destination is a directory that the sources go into.
    into_directory: bool,
    owner: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    /// Whether archives are extracted.
    extract: bool,
}

/// A COPY or ADD with its sources found.
struct Job<'a> {
    items: Vec<Item<'a>>,
    excludes: IgnoreFile,
    target: Target,
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
        let (tree, chain_id) = match &from {
            Some(Origin::Layers { view, chain_id }) => (Tree::image(view), chain_id.as_ref()),
            Some(Origin::Context(context)) => (Tree::named_context(context), None),
            None => (Tree::context(self.context), None),
        };
        let manner = Manner {
            parents,
            adding: None,
        };
        self.copy(state, instruction, files, (tree, chain_id), manner, step)
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
        self.copy(state, instruction, &add.files, (tree, None), manner, step)
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
            target: Target {
                destination: "/".to_owned(),
                into_directory: true,
                owner: None,
                chmod: None,
                extract: false,
            },
        };
        self.read_contents(job.selected())?;
        let mut key = self.key("context");
        job.hash(&mut key)?;
        let keys = key.finish().into();
        let contents = || job.contents();
        let turn = match self.recall(state, &keys, &created_by, Some(&contents), step)? {
            Recalled::Hit(outcome) => return Ok(outcome),
            Recalled::Miss(turn) => turn,
        };
        let made = self.write_job(&View::new(Vec::new()), &job, keys, turn)?;
        Ok(Outcome::made(created_by, made))
    }

    fn copy(
        &self,
        state: &mut State,
        instruction: &Instruction,
        files: &Files,
        (tree, chain_id): (Tree<'_>, Option<&ChainId>),
        manner: Manner<'_>,
        step: &Running,
    ) -> Step<Outcome> {
        let words = expand(state, files, manner)?;
        let created_by = format!("{} # buildkit", instruction.raw);
        // A linked layer does not depend on what lies below.
        let finish = |mut key: Key| match files.link {
            true => key.finish_linked(),
            false => key.finish(),
        };
        let layers = chain_id.map(|chain_id| {
            let mut key = self.key("copy from layers");
            key.part("the layers it is from").chain(Some(chain_id));
            words.add_to_key(key.part("what is copied").number(manner.parents.into()));
            finish(key)
        });
        if let Some(layers) = &layers
            && let Some(outcome) = self.recall_by_layers(state, layers, &created_by, step)?
        {
            return Ok(outcome);
        }
        let mut job = self.find(words, tree, manner, step)?;
        self.read_contents(job.selected())?;
        let mut key = self.key(if job.target.extract { "add" } else { "copy" });
        job.hash(&mut key)?;
        let content = finish(key);
        let keys = Keys { content, layers };
        let contents = || job.contents();
        let turn = match self.recall(state, &keys, &created_by, Some(&contents), step)? {
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
        let made = self.write_job(below, &job, keys, turn)?;
        Ok(Outcome::made(created_by, made))
    }

    /// Writes the tree of a layer.
    fn write_job(&self, below: &View, job: &Job<'_>, keys: Keys, turn: Turn<'_>) -> Step<Made> {
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
            keys,
            is_sound,
            lock: turn.lock,
        })
    }

    /// Finds out what all files hold, and remembers it.
    pub(super) fn read_contents<'s, 't: 's>(
        &self,
        all: impl Iterator<Item = &'s mut Selected<'t>>,
    ) -> Step<()> {
        let store = self.shop.store;
        for selected in all {
            let context = selected.tree.as_context();
            let known = context.and_then(|c| c.stat_cache(|name| store.stat_cache(name)));
            let has_learned = selected.read_contents(known.map(|(_, cache)| cache))?;
            if let (true, Some((name, cache))) = (has_learned, known) {
                store.write_stat_cache(name, &cache.encode())?;
            }
        }
        Ok(())
    }

    /// Finds the sources, and says where they go.
    fn find<'t>(
        &self,
        words: Words,
        tree: Tree<'t>,
        manner: Manner<'_>,
        step: &Running,
    ) -> Step<Job<'t>> {
        let Words {
            sources,
            excludes,
            mut target,
            ..
        } = words;
        let mut items = Vec::new();
        for source in sources {
            match source {
                Named::Document { name, content } => items.push(Item::Document { name, content }),
                Named::Path(text, span) => {
                    let about = |trouble: Trouble| trouble.about(span);
                    let remote = self.remote(&text, manner.adding, step).map_err(about)?;
                    if let Some(remote) = remote {
                        items.push(Item::Remote(remote));
                        continue;
                    }
                    let selected = match manner.parents {
                        true => tree.select_with_parents(&text, &excludes),
                        false => tree.select(&text, &excludes),
                    };
                    items.extend(selected.map_err(about)?.into_iter().map(Item::Tree));
                }
            }
        }
        let documents = items
            .iter()
            .filter(|item| matches!(item, Item::Document { .. }));
        // Two documents for one file are written one after the other, as BuildKit does.
        let only_documents = documents.count() == items.len();
        target.into_directory |= items.len() > 1 && !only_documents;
        Ok(Job {
            items,
            excludes,
            target,
        })
    }
}

/// Expands the words of a COPY or ADD, and finds out what they mean in the tree of the stage.
fn expand(state: &State, files: &Files, manner: Manner<'_>) -> Step<Words> {
    let expanded = |word: &Word| -> Step<String> {
        let text = state.scope.expand(word);
        text.map_err(|error| Trouble::from(error).about(word.span))
    };
    let mut exclude_patterns = Vec::new();
    for word in &files.excludes {
        exclude_patterns.push(expanded(word)?);
    }
    let excludes =
        IgnoreFile::from_patterns(exclude_patterns.iter().map(String::as_bytes), "--exclude")
            .map_err(|error| {
                Trouble::maybe_hinted(format!("--exclude: {}", error.kind), error.hint())
            })?;
    let mut sources = Vec::new();
    for source in &files.sources {
        sources.push(match source {
            SourceArg::Heredoc(document) => Named::Document {
                name: document.name.clone(),
                content: state.scope.expand_heredoc(document)?,
            },
            SourceArg::Path(word) => Named::Path(expanded(word)?, word.span),
        });
    }
    let owner = match &files.chown {
        Some(word) => sandbox::lookup_chown(&state.view, &expanded(word)?)
            .map_err(|error| Trouble::from(error).about(word.span))?,
        None => None,
    };
    let chmod = match &files.chmod {
        Some(word) => Some(Chmod::parse(&expanded(word)?).map_err(|error| {
            Trouble::maybe_hinted(error.to_string(), error.hint()).about(word.span)
        })?),
        None => None,
    };
    let text = expanded(&files.destination)?;
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
    Ok(Words {
        sources,
        exclude_patterns,
        excludes,
        target: Target {
            destination,
            into_directory: names_directory || exists || manner.parents,
            owner,
            chmod,
            extract: manner.adding.is_some_and(|adding| adding.extract),
        },
    })
}

impl Words {
    /// Adds to a key all that is written: not what the sources hold.
    fn add_to_key(&self, key: &mut Key) {
        key.number(self.sources.len() as u64);
        for source in &self.sources {
            match source {
                Named::Document { name, content } => {
                    key.text("document").text(name).text(content);
                }
                Named::Path(path, _) => {
                    key.text("path").text(path);
                }
            }
        }
        key.list(&self.exclude_patterns);
        self.target.add_to_key(key);
    }
}

impl Target {
    fn add_to_key(&self, key: &mut Key) {
        key.part("the destination")
            .text(&self.destination)
            .number(self.into_directory.into());
        key.part("the owner or mode")
            .text(&format!("{:?} {:?}", self.owner, self.chmod));
    }

    fn adjust(&self, attributes: &mut Attributes, is_directory: bool) {
        if let Some((uid, gid)) = self.owner {
            (attributes.uid, attributes.gid) = (uid, gid);
        }
        if let Some(chmod) = &self.chmod {
            attributes.mode = chmod.apply(attributes.mode, is_directory);
        }
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
}

impl<'t> Job<'t> {
    /// Returns what is copied out of trees.
    fn selected<'s>(&'s mut self) -> impl Iterator<Item = &'s mut Selected<'t>> {
        self.items.iter_mut().filter_map(|item| match item {
            Item::Tree(selected) => Some(selected),
            _ => None,
        })
    }

    /// Adds to a key all that a copy depends on but what lies below.
    fn hash(&self, key: &mut Key) -> Step<()> {
        self.target.add_to_key(key);
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
        self.target.adjust(&mut attributes, stat.is_dir());
        Ok(attributes)
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

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => directory.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}
