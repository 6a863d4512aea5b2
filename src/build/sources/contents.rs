//! What the files of a source hold: read, remembered, and made part of a key.

use std::io::Read;
use std::os::fd::AsFd as _;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_runtime::sys::file;

use super::{CAPABILITY, Selected};
use crate::build::error::Step;
use crate::build::key::Key;
use crate::context::stat_cache::{ContentHash, Identity, StatCache};
use crate::layer::{FileKind, LayerError, Node, Timestamp};

impl Selected<'_> {
    /// Finds out what the files hold: from the cache, or by reading them on all cores. Returns
    /// whether there is something new in the cache.
    pub(in crate::build) fn read_contents(&mut self, cache: Option<&StatCache>) -> Step<bool> {
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
    pub(in crate::build) fn hash(&self, key: &mut Key) -> Step<()> {
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
