//! Where entries go: what lies at a path, and the descriptor that leads to it.

use std::os::fd::{AsFd, BorrowedFd};

use super::{DirTime, LayerWriter, Seen, Style};
use crate::layer::stat::{FileKind, Stat};
use crate::layer::view::{Step, resolve_with};
use crate::layer::{Attributes, Call as _, LayerError, dir, escape, path, whiteout};

impl LayerWriter<'_> {
    /// Returns whether this layer hides what lies below at `path`.
    pub(super) fn hides(&self, path: &[u8]) -> bool {
        if self.whiteouts.is_empty() && self.opaque.is_empty() {
            return false;
        }
        let mut at = path;
        loop {
            if self.whiteouts.contains(at) || (at != path && self.opaque.contains(at)) {
                return true;
            }
            if at.is_empty() {
                return false;
            }
            at = path::split(at).0;
        }
    }

    /// Returns what lies at a path whose parents are directories as they stand.
    pub(super) fn look(&self, path: &[u8]) -> Result<Option<Seen>, LayerError> {
        if let Some(raw) = dir::stat_at(self.root.as_fd(), path)? {
            return Ok(Some(Seen::Here(Stat::of_raw(&raw))));
        }
        if self.hides(path) {
            return Ok(None);
        }
        Ok(self.below.lookup(path)?.map(Seen::Below))
    }

    pub(super) fn step(&self, path: &[u8]) -> Result<Step, LayerError> {
        if self.known.contains_key(path) {
            return Ok(Step::Directory);
        }
        let Some(seen) = self.look(path)? else {
            return Ok(Step::Missing);
        };
        Ok(match (seen.stat().kind, &seen) {
            (FileKind::Directory, _) => Step::Directory,
            (FileKind::Symlink, Seen::Here(_)) => Step::Link(self.link_here(path)?),
            (FileKind::Symlink, Seen::Below(node)) => Step::Link(self.below.read_link(node)?),
            // A layer that has entries below a path makes a directory of it.
            (_, Seen::Below(_)) if self.style == Style::Layer => Step::Missing,
            _ => Step::Other,
        })
    }

    pub(super) fn link_here(&self, path: &[u8]) -> Result<Vec<u8>, LayerError> {
        use std::os::unix::ffi::OsStringExt as _;
        let target = nix::fcntl::readlinkat(&self.root, path).call("readlinkat", path)?;
        Ok(target.into_vec())
    }

    /// Returns where `path` lies when the links among its parents are followed, and the last
    /// component too where `follow_last` says so.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Vec<u8>, LayerError> {
        // A directory of this layer has real parents: there is no link on the way.
        let (parent, name) = path::split(path);
        let is_clean = !matches!(name, b"" | b"." | b"..") && path[0] != b'/';
        if is_clean && self.known.contains_key(parent) {
            match self.step(path)? {
                Step::Link(_) if follow_last => {}
                _ => return Ok(path.to_vec()),
            }
        }
        let resolved = resolve_with(path, follow_last, |path| self.step(path));
        resolved.map_err(|error| match error {
            LayerError::ThroughFile(path) => LayerError::NotADirectory(path),
            error => error,
        })
    }

    /// Returns where the entry `path` goes: below resolved parents, which then exist here.
    pub(super) fn place(&mut self, path: &[u8]) -> Result<Vec<u8>, LayerError> {
        let path = path::clean(path);
        let (parent, name) = path::split(&path);
        if name.starts_with(whiteout::PREFIX) {
            return Err(LayerError::ReservedName(escape(&path)));
        }
        if name.len() > path::MAX_NAME {
            return Err(LayerError::NameTooLong(escape(&path)));
        }
        let place = if self.known.contains_key(parent) {
            path
        } else {
            let resolved = self.resolve(parent, true)?;
            let created = Attributes {
                mode: 0o755,
                ..Attributes::default()
            };
            self.make_dirs(&resolved, &created)?;
            path::join(&resolved, name)
        };
        if place.len() > path::MAX_PATH {
            return Err(LayerError::NameTooLong(escape(&place)));
        }
        let (parent, _) = path::split(&place);
        self.open_parent(parent)?;
        if self.style != Style::Layer
            && let Some(state) = self.known.get_mut(parent)
            && let DirTime::Below(_) = state.time
            && !self.keep_times
        {
            state.time = DirTime::Given(self.now);
        }
        Ok(place)
    }

    pub(super) fn open_parent(&mut self, parent: &[u8]) -> Result<(), LayerError> {
        if self.parent.as_ref().is_none_or(|(path, _)| path != parent) {
            // From the last one where it leads there: in a deep tree a walk from the root for
            // each directory would take the square of the depth.
            let near = self.parent.as_ref().and_then(|(path, fd)| {
                let rest = parent.strip_prefix(&path[..])?.strip_prefix(b"/")?;
                Some((fd.as_fd(), rest))
            });
            let (from, rest) = near.unwrap_or((self.root.as_fd(), parent));
            let fd = dir::open_parent(from, rest)?;
            self.parent = Some((parent.to_vec(), fd));
        }
        Ok(())
    }

    /// Returns the descriptor and the name through which a placed path is reached.
    pub(super) fn reach<'p>(&self, place: &'p [u8]) -> (BorrowedFd<'_>, &'p [u8]) {
        let (parent, name) = path::split(place);
        match &self.parent {
            Some((path, fd)) if path == parent && !name.is_empty() => (fd.as_fd(), name),
            _ if place.is_empty() => (self.root.as_fd(), b"."),
            _ => (self.root.as_fd(), place),
        }
    }
}
