//! Directories, those on the way to others included.

use std::os::fd::AsFd;

use nix::sys::stat::{Mode, mkdirat};

use super::{DirState, DirTime, LayerWriter, Seen, Style};
use crate::layer::stat::{Device, FileKind, Timestamp};
use crate::layer::view::Step;
use crate::layer::xattr::{self, DEFAULT_ACL};
use crate::layer::{Attributes, Call as _, LayerError, dir, escape, path};

impl LayerWriter<'_> {
    /// Makes a resolved path and its parents directories of this layer. Those that exist below
    /// keep their attributes, others get the ones given.
    pub(super) fn make_dirs(
        &mut self,
        resolved: &[u8],
        created: &Attributes,
    ) -> Result<(), LayerError> {
        if self.known.contains_key(resolved) {
            return Ok(());
        }
        let ends = resolved.iter().enumerate().filter(|(_, b)| **b == b'/');
        let ends: Vec<usize> = ends.map(|(i, _)| i).chain([resolved.len()]).collect();
        for end in ends {
            let path = &resolved[..end];
            self.adopt(path)?;
            if self.known.contains_key(path) {
                continue;
            }
            let below = match self.look(path)? {
                Some(Seen::Below(node)) if node.stat.is_dir() => Some(node),
                Some(Seen::Here(stat)) if !stat.is_dir() => {
                    return Err(LayerError::NotADirectory(escape(path)));
                }
                Some(Seen::Below(_)) if self.style != Style::Layer => {
                    return Err(LayerError::NotADirectory(escape(path)));
                }
                _ => None,
            };
            if self.style == Style::Layer {
                self.written.self_contained = false;
            }
            match below {
                Some(node) => {
                    let attributes = Attributes::of(&node.stat, self.below.xattrs(&node)?);
                    self.make_dir(path, &attributes, DirTime::Below(node.stat.mtime))?;
                    self.written.self_contained = false;
                }
                None => {
                    // A layer's tree must not depend on when it is extracted.
                    let time = match self.style {
                        Style::Layer => Timestamp::default(),
                        _ => created.mtime.unwrap_or(self.now),
                    };
                    // A new entry of its parent.
                    let (parent, _) = path::split(path);
                    if self.style != Style::Layer
                        && let Some(state) = self.known.get_mut(parent)
                        && let DirTime::Below(_) = state.time
                        && !self.keep_times
                    {
                        state.time = DirTime::Given(self.now);
                    }
                    self.make_dir(path, created, DirTime::Given(time))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn make_dir(
        &mut self,
        place: &[u8],
        attributes: &Attributes,
        time: DirTime,
    ) -> Result<(), LayerError> {
        let (parent, name) = self.reach(place);
        mkdirat(parent, name, Mode::S_IRWXU).call("mkdirat", place)?;
        self.dress_dir(place, attributes, time)
    }

    pub(super) fn dress_dir(
        &mut self,
        place: &[u8],
        attributes: &Attributes,
        time: DirTime,
    ) -> Result<(), LayerError> {
        self.dress(place, FileKind::Directory, Device::default(), attributes)?;
        let state = DirState {
            time,
            default_acl: attributes.xattrs.get(DEFAULT_ACL).cloned(),
        };
        self.known.insert(place.to_vec(), state);
        self.written.entries += 1;
        Ok(())
    }

    /// Makes sure that `path` is a directory, and returns where it lies: links are followed,
    /// the last component's too. Existing directories keep their attributes, and where all
    /// exist nothing is written. Created ones get those given and the present time.
    pub fn ensure_dir(
        &mut self,
        path: &[u8],
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<Vec<u8>, LayerError> {
        let resolved = self.resolve(path, true)?;
        match self.step(&resolved)? {
            Step::Directory => {}
            Step::Missing => {
                let created = Attributes {
                    mode,
                    uid,
                    gid,
                    ..Attributes::default()
                };
                self.make_dirs(&resolved, &created)?;
            }
            Step::Link(_) | Step::Other => {
                return Err(LayerError::NotADirectory(escape(&resolved)));
            }
        }
        Ok(resolved)
    }

    /// Makes a directory. An existing one takes the attributes and keeps what is in it;
    /// anything else in its place, a symbolic link included, is an error.
    pub fn put_dir(&mut self, path: &[u8], attributes: &Attributes) -> Result<(), LayerError> {
        let clean = path::clean(path);
        let (parent, name) = path::split(&clean);
        let resolved = path::join(&self.resolve(parent, true)?, name);
        if let Step::Link(_) | Step::Other = self.step(&resolved)? {
            return Err(LayerError::NotADirectory(escape(&resolved)));
        }
        let place = self.place(&clean)?;
        let time = DirTime::Given(attributes.mtime.unwrap_or(self.now));
        if self.known.contains_key(&place) {
            xattr::clear(self.root.as_fd(), &place)?;
            return self.dress_dir(&place, attributes, time);
        }
        self.make_dir(&place, attributes, time)
    }

    /// Makes a directory on the way to others. One that exists below takes the mode only, one
    /// of this layer nothing.
    pub fn merge_dir(&mut self, path: &[u8], attributes: &Attributes) -> Result<(), LayerError> {
        let clean = path::clean(path);
        let (parent, name) = path::split(&clean);
        let resolved = path::join(&self.resolve(parent, true)?, name);
        if self.known.contains_key(&resolved) {
            return Ok(());
        }
        if let Some(Seen::Below(node)) = self.look(&resolved)?
            && node.stat.is_dir()
        {
            let place = self.place(&resolved)?;
            let kept = Attributes {
                mode: attributes.mode,
                ..Attributes::of(&node.stat, self.below.xattrs(&node)?)
            };
            self.written.self_contained = false;
            return self.make_dir(&place, &kept, DirTime::Below(node.stat.mtime));
        }
        self.put_dir(&resolved, attributes)
    }

    /// Makes a directory as an archive's entry says: its attributes replace those of one that
    /// exists, anything else goes.
    pub(in crate::layer) fn replace_dir(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<(), LayerError> {
        let time = DirTime::Given(attributes.mtime.unwrap_or(self.now));
        if path::clean(path).is_empty() {
            xattr::clear(self.root.as_fd(), b"")?;
            self.own_root = true;
            return self.dress_dir(b"", attributes, time);
        }
        let place = self.place(path)?;
        self.adopt(&place)?;
        if self.known.contains_key(&place) {
            xattr::clear(self.root.as_fd(), &place)?;
            return self.dress_dir(&place, attributes, time);
        }
        if dir::stat_at(self.root.as_fd(), &place)?.is_some() {
            if self.is_existing {
                return Err(LayerError::NotADirectory(escape(&place)));
            }
            self.remove(&place)?;
            // What took this place in between had removed the directory below.
            self.opaque.insert(place.clone());
        }
        self.make_dir(&place, attributes, time)
    }
}
