//! COPY and ADD: files into a layer, without a mount and without a sandbox.

use std::io::Read;

use super::error::{Step, Trouble};
use super::pipeline::Made;
use super::recall::Recalled;
use super::sources::{Selected, Tree};
use super::stage::{Outcome, State};
use super::{Build, Running};
use crate::context::ignore::IgnoreFile;
use crate::dockerfile::{AddFiles, Chmod, Files, Instruction, SourceArg, join_path};
use crate::layer::{
    Attributes, Compression, FileKind, LayerError, LayerWriter, Limits, UpperKind, View,
};
use crate::sandbox;

/// Something to be copied.
enum Item {
    /// Out of a tree.
    Tree(Selected),
    /// Out of the Dockerfile.
    Document { name: String, content: String },
}

/// A COPY or ADD with all its words expanded.
struct Job<'a> {
    tree: Tree<'a>,
    from_context: bool,
    items: Vec<Item>,
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
        from: Option<View>,
        parents: bool,
        step: &Running,
    ) -> Step<Outcome> {
        if parents {
            return Err(Trouble::hinted(
                "COPY --parents is not supported yet",
                "copy each directory to its own destination",
            ));
        }
        let tree = match &from {
            Some(view) => Tree::image(view),
            None => Tree::context(self.context),
        };
        self.copy(state, instruction, files, tree, from.is_none(), false, step)
    }

    pub(super) fn add_step(
        &self,
        state: &mut State,
        instruction: &Instruction,
        add: &AddFiles,
        step: &Running,
    ) -> Step<Outcome> {
        for source in &add.files.sources {
            if let SourceArg::Path(word) = source {
                let text = state.scope.expand(word)?;
                let is_remote = ["http://", "https://", "git@", "git://", "ssh://"]
                    .iter()
                    .any(|scheme| text.starts_with(scheme));
                if is_remote {
                    return Err(Trouble::hinted(
                        format!("ADD of {text:?}: URLs and git repositories are not supported yet"),
                        "fetch it in a RUN, or into the build context before the build",
                    ));
                }
            }
        }
        if add.checksum.is_some() {
            return Err(Trouble::new("ADD --checksum is for URLs only"));
        }
        let tree = Tree::context(self.context);
        let extract = add.unpack != Some(false);
        self.copy(state, instruction, &add.files, tree, true, extract, step)
    }

    #[expect(clippy::too_many_arguments, reason = "two instructions in one")]
    fn copy(
        &self,
        state: &mut State,
        instruction: &Instruction,
        files: &Files,
        tree: Tree<'_>,
        from_context: bool,
        extract: bool,
        step: &Running,
    ) -> Step<Outcome> {
        let job = self.plan_copy(state, files, tree, from_context, extract)?;
        let created_by = format!("{} # buildkit", instruction.raw);
        let mut key = self.key(if extract { "add" } else { "copy" });
        key.text(&job.destination)
            .number(job.into_directory.into())
            .text(&format!("{:?} {:?}", job.owner, job.chmod));
        for item in &job.items {
            match item {
                Item::Tree(selected) => {
                    key.text("tree");
                    job.tree.hash(&mut key, selected, from_context)?;
                }
                Item::Document { name, content } => {
                    key.text("document").text(name).text(content);
                }
            }
        }
        // A linked layer does not depend on what lies below.
        let inputs = match files.link {
            true => key.finish_linked(),
            false => key.finish(),
        };
        let turn = match self.recall(state, &inputs, &created_by, step)? {
            Recalled::Hit(outcome) => return Ok(outcome),
            Recalled::Miss(turn) => turn,
        };
        let nothing = View::new(Vec::new());
        let below = if files.link { &nothing } else { &state.view };
        // What changes while it is copied is no longer what the key was made of.
        let mut is_sound = true;
        let (staged, overrides) = self.write_tree(below, |writer| {
            for item in &job.items {
                is_sound &= job.write(writer, item)?;
            }
            Ok(())
        })?;
        let made = Made {
            staged,
            kind: UpperKind::Overlay,
            overrides,
            inputs,
            is_sound,
            lock: turn.lock,
        };
        Ok(Outcome::made(created_by, made))
    }

    fn plan_copy<'t>(
        &self,
        state: &State,
        files: &Files,
        tree: Tree<'t>,
        from_context: bool,
        extract: bool,
    ) -> Step<Job<'t>> {
        let mut patterns = Vec::new();
        for word in &files.excludes {
            patterns.push(state.scope.expand(word)?);
        }
        let excludes =
            IgnoreFile::from_patterns(patterns.iter().map(String::as_bytes), "--exclude").map_err(
                |error| Trouble::Message {
                    text: error.to_string(),
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
                    let selected = tree.select(&text, &excludes)?;
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
        Ok(Job {
            tree,
            from_context,
            into_directory: names_directory || exists || (items.len() > 1 && !only_documents),
            items,
            destination,
            owner,
            chmod,
            extract,
        })
    }
}

impl Job<'_> {
    fn attributes(&self, entry: &crate::layer::Node) -> Step<Attributes> {
        let mut attributes =
            Attributes::of(&entry.stat, self.tree.xattrs(entry, self.from_context)?);
        if self.from_context {
            (attributes.uid, attributes.gid) = (0, 0);
        }
        self.adjust(&mut attributes, entry.stat.is_dir());
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
        // An octal mode is used for created parents too.
        let mode = match &self.chmod {
            Some(Chmod::Octal(mode)) => *mode,
            _ => 0o755,
        };
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        Ok(writer.ensure_dir(path, mode, uid, gid)?)
    }

    /// Returns where a single file goes, its directory made.
    fn target_of(&self, writer: &mut LayerWriter<'_>, name: &[u8]) -> Step<Vec<u8>> {
        let destination = self.destination.as_bytes();
        if self.into_directory {
            let directory = self.ensure_dir(writer, destination)?;
            return Ok(below(&directory, name));
        }
        let parent = destination
            .iter()
            .rposition(|b| *b == b'/')
            .unwrap_or_default();
        self.ensure_dir(writer, &destination[..parent])?;
        Ok(writer.resolve(destination, true)?)
    }

    /// Writes one source. Returns whether its files were still what they had been.
    fn write(&self, writer: &mut LayerWriter<'_>, item: &Item) -> Step<bool> {
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
        }
    }

    fn write_file(&self, writer: &mut LayerWriter<'_>, selected: &Selected) -> Step<bool> {
        if self.extract && selected.top().stat.is_file() && self.is_archive(selected)? {
            let file = self.tree.view().open_file(selected.top())?;
            let same = file.try_clone().map_err(LayerError::Read)?;
            let (_, mut reader) = Compression::decode(file).map_err(LayerError::Read)?;
            let destination = self.ensure_dir(writer, self.destination.as_bytes())?;
            writer.extract(&mut reader, &destination, self.owner, Limits::default())?;
            return Ok(selected.entries[0].is_unchanged(&same));
        }
        let target = self.target_of(writer, &selected.name)?;
        self.write_entry(writer, selected, 0, &target, &target)
    }

    fn write_directory(&self, writer: &mut LayerWriter<'_>, selected: &Selected) -> Step<bool> {
        // The top is the destination itself: it keeps its attributes, or gets those of a parent
        // that is made. Only what is in the source brings its own.
        let target = self.ensure_dir(writer, self.destination.as_bytes())?;
        let mut stable = true;
        for index in 1..selected.entries.len() {
            let path = below(&target, &selected.entries[index].path);
            stable &= self.write_entry(writer, selected, index, &path, &target)?;
        }
        Ok(stable)
    }

    fn write_entry(
        &self,
        writer: &mut LayerWriter<'_>,
        selected: &Selected,
        index: usize,
        path: &[u8],
        target: &[u8],
    ) -> Step<bool> {
        let entry = &selected.entries[index];
        if let Some(first) = entry.link_to {
            let first = below(target, &selected.entries[first].path);
            writer.put_hardlink(path, &first)?;
            return Ok(true);
        }
        let attributes = self.attributes(&entry.node)?;
        match entry.node.stat.kind {
            FileKind::Directory => writer.put_dir(path, &attributes)?,
            FileKind::File => {
                let file = self.tree.view().open_file(&entry.node)?;
                writer.put_file_from(path, &file, &attributes)?;
                return Ok(entry.is_unchanged(&file));
            }
            FileKind::Symlink => {
                let link = self.tree.view().read_link(&entry.node)?;
                writer.put_symlink(path, &link, &attributes)?;
            }
            // A socket means nothing without the process behind it.
            FileKind::Socket => {}
            kind => writer.put_special(path, kind, entry.node.stat.rdev, &attributes)?,
        }
        Ok(true)
    }

    /// Tells whether a file is an archive: whether, decompressed, it begins with a tar header.
    fn is_archive(&self, selected: &Selected) -> Step<bool> {
        let file = self.tree.view().open_file(selected.top())?;
        let Ok((_, reader)) = Compression::decode(file) else {
            return Ok(false);
        };
        let mut header = tar::Header::new_old();
        let mut block = Vec::with_capacity(512);
        if reader.take(512).read_to_end(&mut block).is_err() || block.len() < 512 {
            return Ok(false);
        }
        header.as_mut_bytes().copy_from_slice(&block);
        // The checksum counts its own field as blanks.
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|b| u32::from(*b))
            .sum::<u32>()
            + 8 * u32::from(b' ');
        Ok(header.cksum().is_ok_and(|stored| stored == sum))
    }
}

fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => directory.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}
