//! Writes a layer directory entry by entry on top of a [`View`]: for COPY, ADD and WORKDIR,
//! and for [`super::apply()`].
//!
//! Directories get their times and default ACLs when all is written, since new entries change
//! the ones and inherit the others. So do deletions, which affect lower layers only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_runtime::sys::file;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags};
use nix::sys::stat::{fchmodat, mkdirat, mknodat, utimensat};
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};

use super::ownership::{Overrides, Ownership, RECORD_XATTR, Record};
use super::stat::{Device, FileKind, Stat, Timestamp};
use super::view::{Node, Step, View, resolve_with};
use super::xattr::{self, DEFAULT_ACL, Xattrs};
use super::{Call as _, LayerError, Omit, copy, dir, escape, path, whiteout};

/// The attributes that an entry gets, in the image's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permissions, set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of last change; nothing is the writer's present time.
    pub mtime: Option<Timestamp>,
    /// Extended attributes. Private ones of file systems are dropped.
    pub xattrs: Xattrs,
}

impl Attributes {
    /// Returns the attributes of an existing entry.
    pub fn of(stat: &Stat, xattrs: Xattrs) -> Attributes {
        Attributes {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: Some(stat.mtime),
            xattrs,
        }
    }
}

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

/// Gives entries their attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tailor {
    pub ownership: Ownership,
    pub now: Timestamp,
}

/// What an entry could not take.
#[derive(Debug, Default)]
pub(super) struct Dressed {
    /// A record that is kept elsewhere.
    pub record: Option<Record>,
    /// Extended attributes that could be stored in no way.
    pub lost_xattrs: Vec<String>,
}

impl Tailor {
    /// Gives the entry `place`, which is reached as `at`, its attributes, in the order in which
    /// they don't undo each other: chown clears set-id bits, writing and chown clear
    /// capabilities, chmod changes an ACL's mask.
    pub fn dress(
        self,
        at: (BorrowedFd<'_>, &[u8]),
        place: &[u8],
        kind: FileKind,
        device: Device,
        attributes: &Attributes,
    ) -> Result<Dressed, LayerError> {
        let record = Record {
            uid: attributes.uid,
            gid: attributes.gid,
            kind,
            mode: attributes.mode & 0o7777,
            device,
        };
        let stored = self.ownership.store(&record);
        let (parent, name) = at;
        if let Some((uid, gid)) = stored.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(parent, name, Some(uid), Some(gid), flags).call("fchownat", place)?;
        }
        if kind != FileKind::Symlink {
            let mode = Mode::from_bits_truncate(stored.mode);
            fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink).call("fchmodat", place)?;
        }
        let mut dressed = Dressed::default();
        for (key, value) in &attributes.xattrs {
            if xattr::is_private(key) || (key == DEFAULT_ACL && kind == FileKind::Directory) {
                continue;
            }
            if !xattr::set(parent, name, self.ownership, key, value)? {
                let lost = format!("{}: {}", escape(place), escape(key));
                dressed.lost_xattrs.push(lost);
            }
        }
        let placeholder = kind.is_device()
            && dir::stat_at(parent, name)?.is_some_and(|raw| Stat::of_raw(&raw).is_file());
        let needed = stored.record || placeholder;
        if needed && (placeholder || kind.has_user_xattrs()) {
            let text = record.to_string();
            file::set_xattr(parent, name, RECORD_XATTR, text.as_bytes()).call("setxattr", place)?;
        }
        if kind != FileKind::Directory {
            let time = attributes.mtime.unwrap_or(self.now).spec();
            let flags = UtimensatFlags::NoFollowSymlink;
            utimensat(parent, name, &time, &time, flags).call("utimensat", place)?;
        }
        if needed && !placeholder && !kind.has_user_xattrs() {
            dressed.record = Some(record);
        }
        Ok(dressed)
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

    // ---- Looking ----

    /// Returns whether this layer hides what lies below at `path`.
    fn hides(&self, path: &[u8]) -> bool {
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
    fn look(&self, path: &[u8]) -> Result<Option<Seen>, LayerError> {
        if let Some(raw) = dir::stat_at(self.root.as_fd(), path)? {
            return Ok(Some(Seen::Here(Stat::of_raw(&raw))));
        }
        if self.hides(path) {
            return Ok(None);
        }
        Ok(self.below.lookup(path)?.map(Seen::Below))
    }

    fn step(&self, path: &[u8]) -> Result<Step, LayerError> {
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

    fn link_here(&self, path: &[u8]) -> Result<Vec<u8>, LayerError> {
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
    fn place(&mut self, path: &[u8]) -> Result<Vec<u8>, LayerError> {
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

    fn open_parent(&mut self, parent: &[u8]) -> Result<(), LayerError> {
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
    fn reach<'p>(&self, place: &'p [u8]) -> (BorrowedFd<'_>, &'p [u8]) {
        let (parent, name) = path::split(place);
        match &self.parent {
            Some((path, fd)) if path == parent && !name.is_empty() => (fd.as_fd(), name),
            _ if place.is_empty() => (self.root.as_fd(), b"."),
            _ => (self.root.as_fd(), place),
        }
    }

    // ---- Directories ----

    /// Makes a resolved path and its parents directories of this layer. Those that exist below
    /// keep their attributes, others get the ones given.
    fn make_dirs(&mut self, resolved: &[u8], created: &Attributes) -> Result<(), LayerError> {
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

    fn make_dir(
        &mut self,
        place: &[u8],
        attributes: &Attributes,
        time: DirTime,
    ) -> Result<(), LayerError> {
        let (parent, name) = self.reach(place);
        mkdirat(parent, name, Mode::S_IRWXU).call("mkdirat", place)?;
        self.dress_dir(place, attributes, time)
    }

    fn dress_dir(
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
    pub(super) fn replace_dir(
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

    // ---- Other entries ----

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

    // ---- Attributes ----

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
