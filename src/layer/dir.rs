//! One layer directory, and the few operations below its descriptor that all else is made of.
//!
//! Callers pass paths whose parents they know to be real directories of that very tree, so no
//! symbolic link is ever met on the way; what opens files has the kernel hold that. In a tree
//! that somebody else changes meanwhile nothing is known: see [`LayerDir::live`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use kiln_runtime::sys::file;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::ownership::{Overrides, Ownership, RECORD_XATTR};
use super::stat::Stat;
use super::xattr::{self, Xattrs};
use super::{Call as _, LayerError, LayerMeta, Record, escape, path, whiteout};

/// A layer's tree in overlayfs form, and what its form can't say.
#[derive(Clone, Debug)]
pub struct LayerDir {
    fd: Arc<OwnedFd>,
    ownership: Ownership,
    overrides: Arc<Overrides>,
    own_root: bool,
    form: Form,
    /// Whether processes may put a link into the place of any directory at any moment. The
    /// kernel then holds for each path that there is none on the way.
    changing: bool,
}

/// What the entries of a directory stand for.
#[derive(Clone, Debug)]
enum Form {
    /// A layer of an image.
    Layer,
    /// Nothing but themselves, and all of them belong to root.
    Plain,
    /// Nothing but themselves, and they belong to whom this says.
    Owned(Owners),
    /// The root of a sandbox, with what is mounted in it.
    Live,
}

/// Tells the owner and group in a container from those of a file as this process sees them.
#[derive(Clone)]
pub struct Owners(Arc<dyn Fn(u32, u32) -> (u32, u32) + Send + Sync>);

impl Owners {
    /// Returns what asks this function.
    pub fn new(map: impl Fn(u32, u32) -> (u32, u32) + Send + Sync + 'static) -> Owners {
        Owners(Arc::new(map))
    }
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Owners")
    }
}

/// What a sandbox mounts below its root, and what no image has: it is not among the files of a
/// container, unless it is asked for by name.
const MOUNTED: [&[u8]; 3] = [b"dev", b"proc", b"sys"];

/// The directory that an entry lies in: its parent, or the root from which a path leads there.
enum Near<'d> {
    Root(BorrowedFd<'d>),
    Parent(OwnedFd),
}

impl AsFd for Near<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Near::Root(fd) => *fd,
            Near::Parent(fd) => fd.as_fd(),
        }
    }
}

/// The names of an entry's extended attributes as they are in the store, where they are known.
/// Most entries have none, and then nothing more has to be asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Option<Vec<Vec<u8>>>);

impl Names {
    fn may_have(&self, name: &[u8]) -> bool {
        let Names(names) = self;
        names
            .as_ref()
            .is_none_or(|names| names.iter().any(|known| known == name))
    }

    fn are_none(&self) -> bool {
        self.0.as_ref().is_some_and(Vec::is_empty)
    }
}

/// A directory, and the name or path below it through which an entry is reached.
type Reached<'d, 'p> = (Near<'d>, &'p [u8]);

/// What lies at a path of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Nothing,
    Whiteout,
    Entry(Stat),
}

impl LayerDir {
    /// Returns the directory behind `fd`, with no overrides and with a root entry of its own.
    pub fn new(fd: OwnedFd, ownership: Ownership) -> LayerDir {
        LayerDir {
            fd: Arc::new(fd),
            ownership,
            overrides: Arc::default(),
            own_root: true,
            form: Form::Layer,
            changing: false,
        }
    }

    /// Returns the directory behind `fd`, which is no layer: nothing in it stands for anything
    /// else, and all of it belongs to root.
    pub fn plain(fd: OwnedFd) -> LayerDir {
        LayerDir {
            form: Form::Plain,
            ..LayerDir::new(fd, Ownership::Single)
        }
    }

    /// As [`LayerDir::plain`], with owners.
    pub fn owned(fd: OwnedFd, owners: Owners) -> LayerDir {
        LayerDir {
            form: Form::Owned(owners),
            ..LayerDir::plain(fd)
        }
    }

    /// Returns the root of a sandbox behind `fd`, whose processes may do what they like there
    /// meanwhile.
    pub fn live(fd: OwnedFd, ownership: Ownership) -> LayerDir {
        LayerDir {
            form: Form::Live,
            ..LayerDir::new(fd, ownership).while_it_changes()
        }
    }

    /// Has it read so that processes which write to it meanwhile can't lead out of it, nor have
    /// a pipe in the place of a file waited for.
    pub fn while_it_changes(mut self) -> LayerDir {
        self.changing = true;
        self
    }

    /// Returns the directory behind `fd` as `meta` describes it.
    pub fn with_meta(fd: OwnedFd, ownership: Ownership, meta: &LayerMeta) -> LayerDir {
        LayerDir::new(fd, ownership)
            .with_overrides(meta.overrides.clone())
            .with_own_root(!meta.omit.root)
    }

    /// Sets the records of entries that can't have `user.*` attributes.
    pub fn with_overrides(mut self, overrides: Overrides) -> LayerDir {
        self.overrides = Arc::new(overrides);
        self
    }

    /// Sets whether the attributes of the root directory belong to the layer, or are those of
    /// the layer below.
    pub fn with_own_root(mut self, own_root: bool) -> LayerDir {
        self.own_root = own_root;
        self
    }

    /// Returns the descriptor of the root directory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns how ownership is stored.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Returns the records of entries that can't have `user.*` attributes.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// Returns whether the attributes of the root directory belong to the layer.
    pub fn own_root(&self) -> bool {
        self.own_root
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self.form, Form::Plain | Form::Owned(_))
    }

    /// Returns what a file of a plain directory is in a container.
    fn as_owned(&self, mut stat: Stat) -> Stat {
        match &self.form {
            Form::Owned(owners) => (stat.uid, stat.gid) = owners.0(stat.uid, stat.gid),
            _ => stat = self.ownership.recall(stat, None),
        }
        stat
    }

    /// Returns how an entry is reached.
    fn reach<'p>(&self, path: &'p [u8]) -> Result<Reached<'_, 'p>, LayerError> {
        match path::split(path) {
            (parent @ [_, ..], name) if self.changing => {
                Ok((Near::Parent(open_parent(self.fd(), parent)?), name))
            }
            _ => Ok((Near::Root(self.fd()), path)),
        }
    }

    /// Returns the entries of a plain directory, sorted by name.
    pub(super) fn list_with_stats(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, Stat)>, LayerError> {
        let fd = open(self.fd(), path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let names = read_names(fd.try_clone().call("dup", path)?, path)?;
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            // What went away since is not there.
            if let Some(raw) = stat_at(fd.as_fd(), &name)? {
                entries.push((name, self.as_owned(Stat::of_raw(&raw))));
            }
        }
        Ok(entries)
    }

    /// Returns what the kernel says of an entry, and how it is reached.
    fn stat<'p>(&self, path: &'p [u8]) -> Result<Option<(Reached<'_, 'p>, FileStat)>, LayerError> {
        let (near, name) = match self.reach(path) {
            Err(LayerError::System { source, .. }) if is_gone(&source) => return Ok(None),
            reached => reached?,
        };
        let raw = stat_at(near.as_fd(), name)?;
        Ok(raw.map(|raw| ((near, name), raw)))
    }

    /// Returns the attributes of an entry as they are in the store.
    pub(super) fn stored(&self, path: &[u8]) -> Result<Option<Stat>, LayerError> {
        Ok(self.stat(path)?.map(|(_, raw)| Stat::of_raw(&raw)))
    }

    pub(super) fn find(&self, path: &[u8]) -> Result<Found, LayerError> {
        Ok(self.look(path)?.0)
    }

    /// Returns what lies at a path, and which extended attributes it has.
    pub(super) fn look(&self, path: &[u8]) -> Result<(Found, Names), LayerError> {
        let unknown = Names::default();
        let Some(((near, name), raw)) = self.stat(path)? else {
            return Ok((Found::Nothing, unknown));
        };
        let stored = Stat::of_raw(&raw);
        if self.is_plain() {
            return Ok((Found::Entry(self.as_owned(stored)), unknown));
        }
        let names = match stored.kind.has_user_xattrs() {
            true => Names(Some(
                file::list_xattrs(near.as_fd(), name).call("listxattr", path)?,
            )),
            false => unknown,
        };
        if matches!(self.form, Form::Layer) {
            let is_marked = names.may_have(whiteout::WHITEOUT_XATTR);
            if whiteout::is_whiteout(&stored, is_marked) {
                return Ok((Found::Whiteout, names));
            }
        }
        let record = match stored.kind.has_user_xattrs() {
            true if !names.may_have(RECORD_XATTR) => None,
            true => record(near.as_fd(), name)?,
            false => self.overrides.get(path).copied(),
        };
        let stat = self.ownership.recall(stored, record.as_ref());
        Ok((Found::Entry(stat), names))
    }

    pub(super) fn is_opaque(&self, path: &[u8], names: &Names) -> Result<bool, LayerError> {
        match self.form {
            Form::Layer if names.may_have(whiteout::OPAQUE_XATTR) => {
                let (near, name) = self.reach(path)?;
                whiteout::is_opaque(near.as_fd(), name)
            }
            _ => Ok(false),
        }
    }

    pub(super) fn list(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, LayerError> {
        if matches!(self.form, Form::Live) && MOUNTED.contains(&path) {
            return Ok(Vec::new());
        }
        list(self.fd(), path)
    }

    /// Returns the extended attributes of an entry, whose names may be known.
    pub(super) fn xattrs_of(&self, path: &[u8], names: &Names) -> Result<Xattrs, LayerError> {
        match names.are_none() {
            true => Ok(Xattrs::new()),
            false => self.xattrs(path),
        }
    }

    pub(super) fn xattrs(&self, path: &[u8]) -> Result<Xattrs, LayerError> {
        let (near, name) = self.reach(path)?;
        xattr::read(near.as_fd(), name, self.ownership)
    }

    pub(super) fn open_file(&self, path: &[u8]) -> Result<File, LayerError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW;
        if !self.changing {
            return Ok(open(self.fd(), path, flags)?.into());
        }
        let file = File::from(open(self.fd(), path, flags | OFlag::O_NONBLOCK)?);
        match file.metadata().call("fstat", path)?.is_file() {
            true => Ok(file),
            false => Err(LayerError::Changed(escape(path))),
        }
    }

    pub(super) fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, LayerError> {
        use std::os::unix::ffi::OsStringExt as _;
        let (near, name) = self.reach(path)?;
        let target = readlinkat(near.as_fd(), name).call("readlinkat", path)?;
        Ok(target.into_vec())
    }
}

/// Returns the record of an entry that can have `user.*` attributes.
fn record(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Record>, LayerError> {
    let text = file::get_xattr(dir, path, RECORD_XATTR).call("getxattr", path)?;
    // A step can write anything under this name in its own layer: nonsense is no record.
    Ok(text
        .and_then(|text| String::from_utf8(text).ok())
        .and_then(|text| text.parse().ok()))
}

/// Tells whether an error says that there is no such directory, or no longer.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG)
    )
}

/// Opens `path` below `dir`; an empty path is `dir` itself. No link on the way is followed.
pub(super) fn open(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> Result<OwnedFd, LayerError> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let name: &[u8] = if path.is_empty() { b"." } else { path };
    openat2(dir, name, how).call("openat2", path)
}

/// Opens a directory for use as the parent in calls that take one.
pub(super) fn open_parent(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, LayerError> {
    open(dir, path, OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// Opens a file in a directory.
pub(super) fn open_below(dir: BorrowedFd<'_>, name: &[u8]) -> Result<File, LayerError> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())
        .call("openat", name)?
        .into())
}

/// Returns what the kernel says of `path` below `dir`, or nothing where there is none.
pub(super) fn stat_at(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Option<FileStat>, LayerError> {
    let result = if path.is_empty() {
        fstat(dir)
    } else {
        fstatat(dir, path, AtFlags::AT_SYMLINK_NOFOLLOW)
    };
    match result {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        // No tree can hold such a name.
        Err(Errno::ENAMETOOLONG) => Ok(None),
        Err(errno) => Err(errno).call("fstatat", path),
    }
}

/// Returns the names in a directory, sorted by their bytes.
pub(super) fn list(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>, LayerError> {
    let fd = open(dir, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    read_names(fd, path)
}

fn read_names(fd: OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, LayerError> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(fd).call("opendir", path)?.iter() {
        let entry = entry.call("readdir", path)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes `path` with all that lies below it. Works with paths and not by recursion: an
/// archive may nest deeper than there are descriptors or stack.
pub(crate) fn remove_all(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
    let mut pending = vec![path.to_vec()];
    while let Some(top) = pending.last().cloned() {
        match unlinkat(dir, &top[..], UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {
                pending.pop();
                continue;
            }
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(errno) => return Err(errno).call("unlinkat", &top),
        }
        match unlinkat(dir, &top[..], UnlinkatFlags::RemoveDir) {
            Ok(()) => {
                pending.pop();
            }
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                let names = list(dir, &top)?;
                pending.extend(names.iter().map(|name| path::join(&top, name)));
            }
            Err(errno) => return Err(errno).call("unlinkat", &top),
        }
    }
    Ok(())
}

/// Returns a descriptor of its own for a borrowed one.
pub(super) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, LayerError> {
    fd.try_clone_to_owned()
        .map_err(|error: io::Error| error)
        .call("dup", b"")
}

/// Returns how `open` makes a new file that only its maker may touch until it is done.
pub(super) fn private_mode() -> Mode {
    Mode::S_IRUSR | Mode::S_IWUSR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::View;
    use std::os::unix::fs::symlink;

    /// What a process of a sandbox can do between two looks of ours.
    #[test]
    fn link_in_the_place_of_a_directory_that_changes_leads_nowhere() {
        leads_nowhere(|fd| LayerDir::live(fd, Ownership::Single));
        leads_nowhere(|fd| LayerDir::new(fd, Ownership::Single).while_it_changes());
    }

    fn leads_nowhere(of: fn(OwnedFd) -> LayerDir) {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        for (directory, content) in [
            (root.path().join("d"), "in"),
            (outside.path().into(), "out"),
        ] {
            std::fs::create_dir_all(directory.join("e")).unwrap();
            std::fs::write(directory.join("e/f"), content).unwrap();
            symlink(content, directory.join("e/l")).unwrap();
            let fd = File::open(&directory).unwrap();
            file::set_xattr(fd.as_fd(), b"e/f", b"user.a", content.as_bytes()).unwrap();
        }
        let fd = File::open(root.path()).unwrap();
        let view = View::new(vec![of(fd.into())]);
        let nodes: Vec<_> = view.read_dir(b"d/e").unwrap();
        let (f, l) = (&nodes[0].node, &nodes[1].node);
        assert_eq!(view.read_link(l).unwrap(), b"in");
        assert_eq!(view.xattrs(f).unwrap()[&b"user.a"[..]], b"in");
        std::fs::rename(root.path().join("d"), root.path().join("away")).unwrap();
        symlink(outside.path(), root.path().join("d")).unwrap();
        assert!(view.read_link(l).is_err());
        assert!(view.xattrs(f).is_err());
        assert!(view.open_file(f).is_err());
        assert!(view.read_dir(b"d/e").is_err());
        let live = &view.layers()[0];
        assert!(matches!(live.find(b"d/e/f").unwrap(), Found::Nothing));
        assert!(view.lookup(b"d/e/f").unwrap().is_none());
        assert!(
            live.is_opaque(b"d/e", &Names::default()).is_err() || matches!(live.form, Form::Live)
        );
        assert!(live.stored(b"d/e/f").unwrap().is_none());
        // A pipe in the place of a file is not waited for.
        std::fs::remove_file(root.path().join("away/e/f")).unwrap();
        nix::unistd::mkfifo(&root.path().join("away/e/f"), private_mode()).unwrap();
        assert!(live.open_file(b"away/e/f").is_err());
    }
}
