//! Trees that are mounted and are no layers: snapshots of the context, caches.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::Planned;
use crate::build::Build;
use crate::build::error::Step;
use crate::build::key::Key;
use crate::build::sources::Selected;
use crate::layer::{Attributes, FileKind, LayerWriter, View};
use crate::store::{IoContext, MOUNTED, Snapshot};

impl Build<'_> {
    /// Writes what was selected as the tree of a snapshot or cache. Returns whether its files
    /// were still what they had been.
    fn write_mounted(&self, fs: &Path, selected: &Selected<'_>) -> Step<bool> {
        let tree = &selected.tree;
        let directory = fs::File::open(fs).at("cannot open", fs)?;
        let nothing = View::new(Vec::new());
        let ownership = self.shop.store.form().ownership;
        let mut writer = LayerWriter::new(directory.as_fd(), &nothing, ownership)?;
        let place = |path: &[u8]| match path {
            b"" => MOUNTED.as_bytes().to_vec(),
            path => [MOUNTED.as_bytes(), b"/", path].concat(),
        };
        let mut stable = true;
        for entry in &selected.entries {
            let (path, node) = (place(&entry.path), &entry.node);
            if let Some(first) = entry.link_to {
                writer.put_hardlink(&path, &place(&selected.entries[first].path))?;
                continue;
            }
            let mut attributes = Attributes::of(&node.stat, tree.xattrs(entry)?);
            if tree.is_context() {
                (attributes.uid, attributes.gid) = (0, 0);
            }
            match node.stat.kind {
                FileKind::Directory => writer.put_dir(&path, &attributes)?,
                FileKind::File => {
                    let file = tree.view().open_file(node)?;
                    writer.put_file_from(&path, &file, &attributes)?;
                    stable &= entry.is_unchanged(&file);
                }
                FileKind::Symlink => {
                    let link = tree.view().read_link(node)?;
                    writer.put_symlink(&path, &link, &attributes)?;
                }
                // A socket means nothing without the process behind it.
                FileKind::Socket => {}
                kind => writer.put_special(&path, kind, node.stat.rdev, &attributes)?,
            }
        }
        writer.finish()?;
        Ok(stable)
    }

    /// Returns a directory of the session with an empty `fs` in it.
    fn staged(&self) -> Step<(PathBuf, PathBuf)> {
        let staged = self.shop.session.directory()?;
        let fs = staged.join("fs");
        fs::create_dir(&fs).at("cannot create", &fs)?;
        Ok((staged, fs))
    }

    /// Returns a snapshot of what a mount selects of the context, and whether it is what was
    /// hashed.
    pub(super) fn snapshot(&self, selected: &Selected<'_>) -> Step<(Snapshot, bool)> {
        let store = self.shop.store;
        let mut key = Key::new("snapshot");
        selected.hash(&mut key)?;
        // Other than in layers, times are seen: make decides by them.
        for entry in &selected.entries {
            let mtime = entry.node.stat.mtime;
            key.text(&format!("{} {}", mtime.seconds, mtime.nanoseconds));
        }
        let key = key.finish();
        if let Some(snapshot) = store.snapshot(&key.hash)? {
            return Ok((snapshot, true));
        }
        let (staged, fs) = self.staged()?;
        if self.write_mounted(&fs, selected)? {
            Ok((store.publish_snapshot(&key.hash, &staged)?, true))
        } else {
            Ok((store.unpublished_snapshot(&staged)?, false))
        }
    }

    /// Returns the tree of a cache, which is made where it is missing.
    pub(super) fn cache_tree(&self, name: &str, planned: &Planned<'_>) -> Step<PathBuf> {
        let store = self.shop.store;
        if let Some(tree) = store.cache_mount(name) {
            return Ok(tree);
        }
        let (staged, fs) = self.staged()?;
        let spec = &planned.spec;
        match &planned.source {
            Some(source) => {
                let selected = source.tree.one(&source.text)?;
                self.write_mounted(&fs, &selected)?;
            }
            None => {
                let directory = fs::File::open(&fs).at("cannot open", &fs)?;
                let nothing = View::new(Vec::new());
                let ownership = store.form().ownership;
                let mut writer = LayerWriter::new(directory.as_fd(), &nothing, ownership)?;
                let attributes = Attributes {
                    mode: spec.mode.unwrap_or(0o755),
                    uid: spec.uid.unwrap_or(0),
                    gid: spec.gid.unwrap_or(0),
                    ..Attributes::default()
                };
                writer.put_dir(MOUNTED.as_bytes(), &attributes)?;
                writer.finish()?;
            }
        }
        Ok(store.publish_cache_mount(name, &staged)?)
    }
}
