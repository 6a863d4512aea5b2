//! What RUN mounts beside layers: cache directories, which outlive builds, and snapshots of
//! files of build contexts, which are made again when they are missing.
//!
//! Both have their tree in `fs/data`, with ids stored as in layers.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::session::Lock;
use super::{IoContext, Result, Store};
use crate::layer::{LayerDir, View};

/// How many snapshots of contexts are kept that no process uses.
const SNAPSHOTS: usize = 8;

/// The name of the tree in the directory of a cache or snapshot.
pub const MOUNTED: &str = "data";

/// A snapshot of files of a build context. It stays while this lives.
pub struct Snapshot {
    /// The files, below [`MOUNTED`].
    pub view: View,
    /// Absent where the snapshot goes with the session.
    _lock: Option<Lock>,
}

/// Returns the lock of a snapshot.
pub(super) fn snapshot_lock(key: &str) -> String {
    format!("context-{key}")
}

/// Returns the lock of a cache directory.
pub(super) fn cache_lock(name: &str) -> String {
    format!("cache-{name}")
}

impl Store {
    fn form_dir(&self, kind: &str) -> Result<PathBuf> {
        let dir = self.dir(kind).join(&self.form().name);
        fs::create_dir_all(&dir).at("cannot create", &dir)?;
        Ok(dir)
    }

    fn tree_view(&self, fs: &Path) -> Result<View> {
        let directory = fs::File::open(fs).at("cannot open", fs)?;
        let fd = directory.as_fd().try_clone_to_owned();
        let layer = LayerDir::new(fd.at("cannot open", fs)?, self.form().ownership);
        Ok(View::new(vec![layer]))
    }

    /// Takes the lock of a cache directory, alone or together with others, or returns nothing
    /// where that can't be had now. Under it, the directory stays.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn try_lock_cache(&self, name: &str, alone: bool) -> Result<Option<Lock>> {
        match alone {
            true => self.try_lock(&cache_lock(name)),
            false => self.try_lock_shared(&cache_lock(name)),
        }
    }

    /// Returns where the tree of a cache mount is, if it is there.
    pub fn cache_mount(&self, name: &str) -> Option<PathBuf> {
        let slot = self.dir("mounts").join(&self.form().name).join(name);
        let tree = slot.join("fs").join(MOUNTED);
        if !tree.is_dir() {
            return None;
        }
        super::files::touch(&slot);
        Some(tree)
    }

    /// Publishes a cache mount: `staged` is a directory of a session with `fs/data` in it. Where
    /// another process was first, its tree is returned, and this one is discarded.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn publish_cache_mount(&self, name: &str, staged: &Path) -> Result<PathBuf> {
        let slot = self.form_dir("mounts")?.join(name);
        match fs::rename(staged, &slot) {
            Err(_) if slot.join("fs").join(MOUNTED).is_dir() => self.trash(staged)?,
            other => other.at("cannot publish", &slot)?,
        }
        Ok(slot.join("fs").join(MOUNTED))
    }

    /// Returns the snapshot of a key, if it is there.
    ///
    /// # Errors
    /// A file can't be opened.
    pub fn snapshot(&self, key: &str) -> Result<Option<Snapshot>> {
        let slot = self.dir("contexts").join(&self.form().name).join(key);
        if !slot.is_dir() {
            return Ok(None);
        }
        let lock = self.lock_shared(&snapshot_lock(key))?;
        // It may have gone before the lock was there.
        if slot.join("fs").join(MOUNTED).symlink_metadata().is_err() {
            return Ok(None);
        }
        super::files::touch(&slot);
        Ok(Some(Snapshot {
            view: self.tree_view(&slot.join("fs"))?,
            _lock: Some(lock),
        }))
    }

    /// Returns a snapshot that is not published: it goes with the session that it is in.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn unpublished_snapshot(&self, staged: &Path) -> Result<Snapshot> {
        Ok(Snapshot {
            view: self.tree_view(&staged.join("fs"))?,
            _lock: None,
        })
    }

    /// Publishes a snapshot: `staged` is a directory of a session with `fs/data` in it. Of those
    /// that no process uses, the ones used last are kept.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn publish_snapshot(&self, key: &str, staged: &Path) -> Result<Snapshot> {
        let dir = self.form_dir("contexts")?;
        let slot = dir.join(key);
        let lock = self.lock_shared(&snapshot_lock(key))?;
        match fs::rename(staged, &slot) {
            Err(_) if slot.is_dir() => self.trash(staged)?,
            other => other.at("cannot publish", &slot)?,
        }
        self.prune_snapshots(&dir)?;
        Ok(Snapshot {
            view: self.tree_view(&slot.join("fs"))?,
            _lock: Some(lock),
        })
    }

    fn prune_snapshots(&self, dir: &Path) -> Result<()> {
        let mut by_use: Vec<_> = super::files::names(dir)?
            .into_iter()
            .filter_map(|key| {
                let used = fs::metadata(dir.join(&key)).ok()?.modified().ok()?;
                Some((used, key))
            })
            .collect();
        by_use.sort();
        let surplus = by_use.len().saturating_sub(SNAPSHOTS);
        for (_, key) in by_use.into_iter().take(surplus) {
            if let Some(_alone) = self.try_lock(&snapshot_lock(&key))? {
                self.trash(&dir.join(&key))?;
            }
        }
        Ok(())
    }

    /// Moves all snapshots to the trash that nobody uses.
    pub(super) fn remove_snapshots(&self) -> Result<()> {
        for form in super::files::names(&self.dir("contexts"))? {
            let dir = self.dir("contexts").join(form);
            for key in super::files::names(&dir)? {
                if let Some(_alone) = self.try_lock(&snapshot_lock(&key))? {
                    self.trash(&dir.join(key))?;
                }
            }
        }
        Ok(())
    }
}
