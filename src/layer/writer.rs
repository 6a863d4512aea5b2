//! Writes a layer directory entry by entry on top of a [`View`]: for COPY, ADD and WORKDIR,
//! and for [`super::apply()`].
//!
//! Directories get their times and default ACLs when all is written, since new entries change
//! the ones and inherit the others. So do deletions, which affect lower layers only.

mod directories;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{SFlag, UtimensatFlags, mknodat, utimensat};
use nix::unistd::{linkat, symlinkat};

use super::attributes::{Attributes, Tailor};
use super::ownership::{Overrides, Ownership};
use super::stat::{Device, FileKind, Stat, Timestamp};
use super::view::{Node, View};
use super::xattr::{self, DEFAULT_ACL};
use super::{Call as _, LayerError, Omit, copy, dir, escape, path, whiteout};

/// What is known of a directory once it is written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Whether nothing was taken from the layers below: no parent without an entry, no target
    /// of a hard link.
    pub self_contained: bool,
    /// Records of entries that can't have `user.*` attributes.
    pub overrides: Overrides,
    /// What has no entry in the stream: the root directory, where nothing gave it attributes.
    pub omit: Omit,
    /// The bytes of all regular files.
    pub size_bytes: u64,
    /// The number of entries.
    pub entries: u64,
    /// Extended attributes that could be stored in no way, as `path: name`, the first hundred.
    pub lost_xattrs: Vec<String>,
}

/// The rules for what is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// COPY: a directory and another kind of file don't replace each other.
    Copy,
    /// ADD: an entry replaces what was there.
    Archive,
    /// A layer: as an archive, and what has no entry comes from below.
    Layer,
}

/// The time that a directory gets in the end.
#[derive(Clone, Copy, Debug)]
enum DirTime {
    Given(Timestamp),
    /// Copied from below; it is changed by a new entry.
    Below(Timestamp),
}

#[derive(Debug)]
struct DirState {
    time: DirTime,
    default_acl: Option<Vec<u8>>,
}

/// What lies at a path, in this layer or below.
enum Seen {
    Here(Stat),
    Below(Node),
}

impl Seen {
    fn stat(&self) -> &Stat {
        match self {
            Seen::Here(stat) => stat,
            Seen::Below(node) => &node.stat,
        }
    }
}

/// Writes a fresh layer directory on top of a view.
///
/// Paths are resolved within the image: symbolic links among the parents of an entry are
/// followed, the entry itself never is.
#[derive(Debug)]
pub struct LayerWriter<'v> {
    root: OwnedFd,
    below: &'v View,
    ownership: Ownership,
    pub(super) style: Style,
    now: Timestamp,
    keep_times: bool,
    /// The directories of this layer: real ones, with real parents.
    known: BTreeMap<Vec<u8>, DirState>,
    /// The parent of the last entry, which most often is that of the next one.
    parent: Option<(Vec<u8>, OwnedFd)>,
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    own_root: bool,
    /// Whether the directory was not empty at the start.
    is_existing: bool,
    written: Written,
}

impl<'v> LayerWriter<'v> {
    /// Starts to write into the empty directory `dir`.
    pub fn new(
        dir: BorrowedFd<'_>,
        below: &'v View,
        ownership: Ownership,
    ) -> Result<LayerWriter<'v>, LayerError> {
        let now = Timestamp::now();
        let root = DirState {
            time: DirTime::Given(now),
            default_acl: None,
        };
        Ok(LayerWriter {
            root: dir::duplicate(dir)?,
            below,
            ownership,
            style: Style::Copy,
            now,
            keep_times: false,
            known: BTreeMap::from([(Vec::new(), root)]),
            parent: None,
            whiteouts: BTreeSet::new(),
            opaque: BTreeSet::new(),
            own_root: false,
            is_existing: false,
            written: Written {
                self_contained: true,
                ..Written::default()
            },
        })
    }

    /// Starts to write into a tree that exists: the merged one of a container, which nobody else
    /// changes meanwhile. Nothing lies below it.
    pub fn into_existing(
        dir: BorrowedFd<'_>,
        nothing: &'v View,
        ownership: Ownership,
    ) -> Result<LayerWriter<'v>, LayerError> {
        let mut writer = LayerWriter::new(dir, nothing, ownership)?;
        writer.known.clear();
        writer.is_existing = true;
        writer.adopt(b"")?;
        writer.own_root = true;
        Ok(writer)
    }

    /// Returns whether it was not empty at the start.
    pub(super) fn is_existing(&self) -> bool {
        self.is_existing
    }

    /// Takes a directory that was there at the start for one of this layer.
    fn adopt(&mut self, path: &[u8]) -> Result<(), LayerError> {
        if !self.is_existing || self.known.contains_key(path) {
            return Ok(());
        }
        if let Some(raw) = dir::stat_at(self.root.as_fd(), path)? {
            let stat = Stat::of_raw(&raw);
            if stat.is_dir() {
                let state = DirState {
                    time: DirTime::Below(stat.mtime),
                    default_acl: None,
                };
                self.known.insert(path.to_vec(), state);
            }
        }
        Ok(())
    }

    /// Sets the time of what is created and of directories that get new entries.
    pub fn with_now(mut self, now: Timestamp) -> LayerWriter<'v> {
        self.now = now;
        self
    }

    /// Lets directories that get new entries keep their times: for mount points, which are to
    /// leave no trace.
    pub fn keep_times(mut self) -> LayerWriter<'v> {
        self.keep_times = true;
        self
    }

    /// Returns whether nothing lies below.
    pub(super) fn is_bottom(&self) -> bool {
        self.below.layers().is_empty()
    }

    /// Removes what this layer has at a placed path.
    fn remove(&mut self, place: &[u8]) -> Result<(), LayerError> {
        dir::remove_all(self.root.as_fd(), place)?;
        prune(&mut self.written.overrides, place);
        if self.known.contains_key(place) {
            prune(&mut self.known, place);
            let within = |path: &[u8]| path != place && path::is_within(path, place);
            self.whiteouts.retain(|path| !within(path));
            self.opaque.retain(|path| !within(path));
        }
        let in_cache = |path: &[u8]| path::is_within(path, place);
        if self.parent.as_ref().is_some_and(|(path, _)| in_cache(path)) {
            self.parent = None;
        }
        Ok(())
    }

    fn overrides_mut(&mut self) -> &mut Overrides {
        &mut self.written.overrides
    }

    /// Returns where an entry that is no directory goes, with nothing of this layer in the way.
    fn clear_place(&mut self, path: &[u8]) -> Result<Vec<u8>, LayerError> {
        let place = self.place(path)?;
        if place.is_empty() {
            return Err(LayerError::NotADirectory(String::new()));
        }
        // Whoever copies a file over a directory has erred.
        if (self.style == Style::Copy || self.is_existing)
            && let Some(seen) = self.look(&place)?
            && seen.stat().is_dir()
        {
            return Err(LayerError::NotADirectory(escape(&place)));
        }
        Ok(place)
    }

    /// Runs `make`, which creates `place`, and once more where something was in the way.
    fn create<T>(
        &mut self,
        call: &'static str,
        place: &[u8],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> nix::Result<T>,
    ) -> Result<T, LayerError> {
        let (parent, name) = self.reach(place);
        match make(parent, name) {
            Err(Errno::EEXIST) => {
                self.remove(place)?;
                let (parent, name) = self.reach(place);
                make(parent, name).call(call, place)
            }
            result => result.call(call, place),
        }
    }

    fn create_file(&mut self, place: &[u8]) -> Result<File, LayerError> {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = self.create("openat", place, |parent, name| {
            openat(parent, name, flags, dir::private_mode())
        })?;
        Ok(fd.into())
    }

    /// Makes a regular file whose content `fill` writes; it returns the size.
    pub(super) fn put_filled(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        fill: impl FnOnce(&File) -> Result<u64, LayerError>,
    ) -> Result<(), LayerError> {
        let place = self.clear_place(path)?;
        let file = self.create_file(&place)?;
        self.written.size_bytes += fill(&file)?;
        drop(file);
        self.dress(&place, FileKind::File, Device::default(), attributes)?;
        self.written.entries += 1;
        Ok(())
    }

    /// Makes a regular file from a stream.
    pub fn put_file(
        &mut self,
        path: &[u8],
        content: &mut dyn Read,
        attributes: &Attributes,
    ) -> Result<(), LayerError> {
        self.put_filled(path, attributes, |mut file| {
            let mut buffer = vec![0; 128 * 1024];
            let mut size = 0;
            loop {
                match content.read(&mut buffer) {
                    Ok(0) => return Ok(size),
                    Ok(count) => {
                        file.write_all(&buffer[..count]).call("write", path)?;
                        size += count as u64;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(LayerError::Read(error)),
                }
            }
        })
    }

    /// Makes a regular file a copy of an open one: by shared extents where the file system
    /// can, with its holes.
    pub fn put_file_from(
        &mut self,
        path: &[u8],
        source: &File,
        attributes: &Attributes,
    ) -> Result<(), LayerError> {
        self.put_filled(path, attributes, |file| {
            copy::copy(source, file).call("copy_file_range", path)
        })
    }

    /// Makes a symbolic link.
    pub fn put_symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), LayerError> {
        let place = self.clear_place(path)?;
        self.create("symlinkat", &place, |parent, name| {
            symlinkat(target, parent, name)
        })?;
        self.dress(&place, FileKind::Symlink, Device::default(), attributes)?;
        self.written.entries += 1;
        Ok(())
    }

    /// Makes a device, a named pipe or a socket. A device that the kernel refuses becomes an
    /// empty file with a record of the truth.
    pub fn put_special(
        &mut self,
        path: &[u8],
        kind: FileKind,
        device: Device,
        attributes: &Attributes,
    ) -> Result<(), LayerError> {
        let flag = match kind {
            FileKind::Fifo => SFlag::S_IFIFO,
            FileKind::Socket => SFlag::S_IFSOCK,
            FileKind::CharDevice => SFlag::S_IFCHR,
            FileKind::BlockDevice => SFlag::S_IFBLK,
            _ => return Err(Errno::EINVAL).call("mknodat", path),
        };
        let place = self.clear_place(path)?;
        // The device 0/0 is how overlayfs says that a name is deleted.
        let whiteout = kind == FileKind::CharDevice && device == Device::default();
        let possible = !kind.is_device() || (!whiteout && self.ownership != Ownership::Single);
        let made = possible
            && match self.create("mknodat", &place, |parent, name| {
                mknodat(parent, name, flag, dir::private_mode(), device.raw())
            }) {
                Ok(()) => true,
                Err(LayerError::System { source, .. })
                    if kind.is_device() && source.raw_os_error() == Some(libc::EPERM) =>
                {
                    false
                }
                Err(error) => return Err(error),
            };
        if !made {
            self.create_file(&place)?;
        }
        self.dress(&place, kind, device, attributes)?;
        self.written.entries += 1;
        Ok(())
    }

    /// Makes another name of a file of this layer. One that lies only below is copied first.
    pub fn put_hardlink(&mut self, path: &[u8], target: &[u8]) -> Result<(), LayerError> {
        let from = self.resolve(target, false)?;
        let below = match self.look(&from)? {
            None => return Err(LayerError::Missing(escape(&from))),
            Some(seen) if seen.stat().is_dir() => return Err(LayerError::NotAFile(escape(&from))),
            Some(Seen::Here(_)) => None,
            Some(Seen::Below(node)) => Some(node),
        };
        if let Some(node) = below {
            self.copy_up(&node)?;
        }
        let place = self.clear_place(path)?;
        if place == from {
            return Ok(());
        }
        let root = self.root.try_clone().call("dup", b"")?;
        self.create("linkat", &place, |parent, name| {
            linkat(&root, &from[..], parent, name, AtFlags::empty())
        })?;
        if let Some(record) = self.written.overrides.get(&from).copied() {
            self.overrides_mut().insert(place, record);
        }
        self.written.entries += 1;
        Ok(())
    }

    /// Copies an entry from below as it is.
    fn copy_up(&mut self, node: &Node) -> Result<(), LayerError> {
        self.written.self_contained = false;
        let attributes = Attributes::of(&node.stat, self.below.xattrs(node)?);
        match node.stat.kind {
            FileKind::File => {
                let source = self.below.open_file(node)?;
                self.put_file_from(&node.path, &source, &attributes)
            }
            FileKind::Symlink => {
                let target = self.below.read_link(node)?;
                self.put_symlink(&node.path, &target, &attributes)
            }
            kind => self.put_special(&node.path, kind, node.stat.rdev, &attributes),
        }
    }

    /// Hides what the layers below have at `path`.
    pub(super) fn hide(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let place = self.place(path)?;
        self.whiteouts.insert(place);
        Ok(())
    }

    /// Hides all that the layers below have in the directory `path`.
    pub(super) fn hide_below(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let resolved = self.resolve(path, true)?;
        let created = Attributes {
            mode: 0o755,
            ..Attributes::default()
        };
        self.make_dirs(&resolved, &created)?;
        self.opaque.insert(resolved);
        Ok(())
    }

    fn dress(
        &mut self,
        place: &[u8],
        kind: FileKind,
        device: Device,
        attributes: &Attributes,
    ) -> Result<(), LayerError> {
        let tailor = Tailor {
            ownership: self.ownership,
            now: self.now,
        };
        let at = self.reach(place);
        let dressed = tailor.dress(at, place, kind, device, attributes)?;
        if let Some(record) = dressed.record {
            self.overrides_mut().insert(place.to_vec(), record);
        }
        let room = 100usize.saturating_sub(self.written.lost_xattrs.len());
        let lost = dressed.lost_xattrs.into_iter().take(room);
        self.written.lost_xattrs.extend(lost);
        Ok(())
    }

    /// Writes deletions, and gives directories what had to wait. Nothing may be put after it.
    pub fn finish(mut self) -> Result<Written, LayerError> {
        let root = self.root.as_fd();
        for path in std::mem::take(&mut self.whiteouts) {
            let (parent, _) = path::split(&path);
            if !self.known.contains_key(parent) {
                continue;
            }
            match dir::stat_at(root, &path)? {
                // A new directory in the place of a deleted one starts empty.
                Some(_) if self.known.contains_key(&path) => drop(self.opaque.insert(path)),
                Some(_) => {}
                // Where all is hidden, overlayfs would show the deletion itself.
                None if self.is_hidden_whole(parent) => {}
                None => whiteout::make_whiteout(root, &path)?,
            }
        }
        for path in &self.opaque {
            if self.known.contains_key(path) {
                whiteout::make_opaque(root, path)?;
            }
        }
        if !self.own_root {
            let node = self.below.root()?;
            let attributes = Attributes::of(&node.stat, self.below.xattrs(&node)?);
            let entries = self.written.entries;
            self.dress_dir(b"", &attributes, DirTime::Given(node.stat.mtime))?;
            self.written.entries = entries;
        }
        let root = self.root.as_fd();
        // Children sort after their parents.
        for (path, state) in self.known.iter().rev() {
            if let Some(acl) = &state.default_acl {
                xattr::set(root, path, self.ownership, DEFAULT_ACL, acl)?;
            }
            let (DirTime::Given(time) | DirTime::Below(time)) = state.time;
            let time = time.spec();
            let name = if path.is_empty() { b"." } else { &path[..] };
            let flags = UtimensatFlags::NoFollowSymlink;
            utimensat(root, name, &time, &time, flags).call("utimensat", path)?;
        }
        self.written.omit.root = !self.own_root;
        Ok(self.written)
    }

    /// Returns whether a directory of this layer shows nothing from below.
    fn is_hidden_whole(&self, path: &[u8]) -> bool {
        self.opaque.contains(path) || self.hides(path)
    }
}

/// Removes `path` and what lies below it from a map by path.
fn prune<V>(map: &mut BTreeMap<Vec<u8>, V>, path: &[u8]) {
    map.remove(path);
    let (first, behind) = ([path, b"/"].concat(), [path, b"0"].concat());
    let below: Vec<Vec<u8>> = map
        .range(first..behind)
        .map(|(path, _)| path.clone())
        .collect();
    for path in below {
        map.remove(&path);
    }
}

#[cfg(test)]
mod tests;
