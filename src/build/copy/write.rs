//! The long way: sources are written entry by entry, for what can't be planned: archives, and
//! what comes from elsewhere.

use std::fs::File;
use std::io::{Read, Seek};

use super::{Item, Job, Target, begins_with_archive, join};
use crate::build::error::Step;
use crate::build::sources::{Selected, Tree};
use crate::context::ignore::IgnoreFile;
use crate::layer::{
    Attributes, FileKind, LayerError, LayerWriter, Limits, Timestamp, decode_beside,
};

impl Job<'_> {
    /// Makes a directory that sources go into, with its parents.
    fn ensure_dir(&self, writer: &mut LayerWriter<'_>, path: &[u8]) -> Step<Vec<u8>> {
        let Attributes { mode, uid, gid, .. } = self.target.created();
        Ok(writer.ensure_dir(path, mode, uid, gid)?)
    }

    /// Returns where a single file goes, its directory made.
    fn target_of(&self, writer: &mut LayerWriter<'_>, name: &[u8]) -> Step<Vec<u8>> {
        let destination = self.target.destination.as_bytes();
        if self.target.into_directory {
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
    pub(super) fn write(&self, writer: &mut LayerWriter<'_>, item: &Item<'_>) -> Step<bool> {
        match item {
            Item::Document { name, content } => {
                let target = self.target_of(writer, name.as_bytes())?;
                let mut attributes = Attributes {
                    mode: 0o644,
                    ..Attributes::default()
                };
                self.target.adjust(&mut attributes, false);
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
                    target: Target {
                        into_directory: true,
                        extract: false,
                        ..self.target.clone()
                    },
                };
                for selected in tree.select(".", &self.excludes)? {
                    inner.write_directory(writer, &selected)?;
                }
                Ok(true)
            }
        }
    }

    fn write_file(&self, writer: &mut LayerWriter<'_>, selected: &Selected<'_>) -> Step<bool> {
        if self.target.extract && selected.top().stat.is_file() && self.is_archive(selected)? {
            let file = selected.tree.view().open_file(selected.top())?;
            let same = file.try_clone().map_err(LayerError::Read)?;
            self.extract(writer, file)?;
            return Ok(selected.entries[0].is_unchanged(&same));
        }
        let target = self.target_of(writer, &selected.name)?;
        self.write_entry(writer, selected, 0, &target, &target)
    }

    /// Extracts an archive, of whatever compression.
    fn extract(&self, writer: &mut LayerWriter<'_>, archive: File) -> Step<()> {
        let destination = self.ensure_dir(writer, self.target.destination.as_bytes())?;
        let owner = self.target.owner;
        let extract = |content: &mut dyn Read| {
            writer.extract(content, &destination, owner, Limits::default())
        };
        Ok(decode_beside(archive, extract).map_err(LayerError::Read)??)
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
                return self.extract(writer, again()?);
            }
        }
        let target = self.target_of(writer, name)?;
        let mut attributes = Attributes {
            mode: 0o600,
            // Like BuildKit, the epoch where the server says nothing.
            mtime: Some(Timestamp::from_seconds(modified.unwrap_or(0))),
            ..Attributes::default()
        };
        self.target.adjust(&mut attributes, false);
        writer.put_file_from(&target, file, &attributes)?;
        Ok(())
    }

    fn write_directory(&self, writer: &mut LayerWriter<'_>, selected: &Selected<'_>) -> Step<bool> {
        // The top is the destination itself: it keeps its attributes, or gets those of a parent
        // that is made. Only what is in the source brings its own.
        let target = self.ensure_dir(writer, self.target.destination.as_bytes())?;
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
}
