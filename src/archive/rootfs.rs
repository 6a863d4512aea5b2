//! Root file systems out of the store: as a tar, or as files of the user's.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, mkfifoat, symlinkat, unlinkat};

use super::{IoContext, Result};
use crate::layer::{
    Chunks, FileKind, Node, Rebase, Timestamp, View, copy_content, escape, write_merged_tar,
};
use crate::store::{Stack, Store};

/// As many warnings as are worth reading.
const MAX_WARNINGS: usize = 20;

/// Writes the merged root file system as one tar: sorted, with the image's owners, hard links
/// as such, no deletions.
///
/// # Errors
/// A layer can't be read, or `out` fails.
pub fn write_rootfs_tar(store: &Store, stack: &Stack, out: &mut dyn Chunks) -> Result<()> {
    write_merged_tar(&store.view(stack)?, out)?;
    Ok(())
}

/// Writes the merged root file system into a directory, which is made if it is missing, and
/// returns warnings about what can't be kept. Files belong to the user, and so have no set-id
/// bits: they would lend out the user's id. What is in the way is replaced; other files of the
/// directory stay. No symbolic link in it is followed.
///
/// # Errors
/// A layer can't be read, or the directory can't be written.
pub fn write_rootfs_dir(store: &Store, stack: &Stack, directory: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(directory).at("cannot create", directory)?;
    let view = store.view(stack)?;
    write_part_dir(&view, &view.root()?, directory, b"")
}

/// As [`write_rootfs_dir`], for a part of a tree: it gets another name in a directory, which
/// exists, or all that is in it comes right there where the name is empty.
///
/// # Errors
/// The tree can't be read, or the directory can't be written.
pub fn write_part_dir(
    view: &View,
    node: &Node,
    directory: &Path,
    name: &[u8],
) -> Result<Vec<String>> {
    let root = File::open(directory).at("cannot open", directory)?;
    let mut writer = Writer {
        view,
        root: root.into(),
        directory,
        rebase: Rebase::new(&node.path, name),
        first_names: HashMap::new(),
        directories: Vec::new(),
        skipped: Vec::new(),
    };
    if !name.is_empty() {
        let parent = writer.root.try_clone().at("cannot open", directory)?;
        writer.put(parent.as_fd(), name, node)?;
    }
    let mut pending = match node.stat.is_dir() {
        true => vec![node.path.clone()],
        false => Vec::new(),
    };
    while let Some(path) = pending.pop() {
        let parent = writer.open_dir(&path)?;
        for entry in view.read_dir(&path)? {
            writer.put(parent.as_fd(), &entry.name, &entry.node)?;
            if entry.node.stat.is_dir() {
                pending.push(entry.node.path);
            }
        }
    }
    writer.finish()
}

struct Writer<'v> {
    view: &'v View,
    root: OwnedFd,
    /// The path of `root`, for errors.
    directory: &'v Path,
    /// Where in it things go.
    rebase: Rebase,
    /// The first name of each inode that has several.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    /// Those that are written, and get mode and time when all is.
    directories: Vec<(Vec<u8>, u32, Timestamp)>,
    skipped: Vec<String>,
}

impl Writer<'_> {
    fn shown(&self, path: &[u8]) -> PathBuf {
        self.directory.join(escape(&self.rebase.apply(path)))
    }

    /// Opens a directory that was written. Should someone put a link in its place, the kernel
    /// refuses to follow it.
    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let place = self.rebase.apply(path);
        let name: &[u8] = if place.is_empty() { b"." } else { &place };
        openat2(&self.root, name, how).at("cannot open", &self.shown(path))
    }

    fn put(&mut self, parent: BorrowedFd<'_>, name: &[u8], node: &Node) -> Result<()> {
        let shown = self.shown(&node.path);
        let stat = &node.stat;
        if stat.is_dir() {
            return self.put_dir(parent, name, node);
        }
        if stat.kind.is_device() {
            self.skipped.push(escape(&node.path));
            return Ok(());
        }
        remove(parent, name).at("cannot replace", &shown)?;
        if stat.nlink > 1 {
            let inode = (stat.dev, stat.ino);
            if let Some(first) = self.first_names.get(&inode) {
                let (above, last) = split(first);
                let above = self.open_dir(above)?;
                return linkat(&above, last, parent, name, AtFlags::empty())
                    .at("cannot write", &shown);
            }
            self.first_names.insert(inode, node.path.clone());
        }
        match stat.kind {
            FileKind::File => {
                let source = self.view.open_file(node)?;
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let private = Mode::S_IRUSR | Mode::S_IWUSR;
                let file = openat(parent, name, flags | OFlag::O_NOFOLLOW, private)
                    .at("cannot write", &shown)?;
                let file = File::from(file);
                copy_content(&source, &file).at("cannot write", &shown)?;
                fchmod(&file, mode(stat.mode)).at("cannot write", &shown)?;
            }
            FileKind::Symlink => {
                let target = self.view.read_link(node)?;
                symlinkat(&target[..], parent, name).at("cannot write", &shown)?;
            }
            FileKind::Fifo => {
                mkfifoat(parent, name, Mode::S_IRUSR | Mode::S_IWUSR).at("cannot write", &shown)?;
                // What was just made can't be a link but by someone who may write here anyway.
                fchmodat(
                    parent,
                    name,
                    mode(stat.mode),
                    FchmodatFlags::NoFollowSymlink,
                )
                .or_else(|errno| match errno {
                    // Kernels before 6.6 can't.
                    Errno::EOPNOTSUPP | Errno::ENOSYS => Ok(()),
                    other => Err(other),
                })
                .at("cannot write", &shown)?;
            }
            FileKind::Directory
            | FileKind::CharDevice
            | FileKind::BlockDevice
            | FileKind::Socket => return Ok(()),
        }
        set_time(parent, name, stat.mtime).at("cannot write", &shown)
    }

    fn put_dir(&mut self, parent: BorrowedFd<'_>, name: &[u8], node: &Node) -> Result<()> {
        let shown = self.shown(&node.path);
        let made = match mkdirat(parent, name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) if is_dir(parent, name).at("cannot replace", &shown)? => Ok(()),
            Err(Errno::EEXIST) => unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)
                .and_then(|()| mkdirat(parent, name, Mode::S_IRWXU)),
            other => other,
        };
        made.at("cannot create", &shown)?;
        self.directories
            .push((node.path.clone(), node.stat.mode, node.stat.mtime));
        Ok(())
    }

    fn finish(self) -> Result<Vec<String>> {
        // Those within come first: writing to a directory changes its time.
        for (path, bits, time) in self.directories.iter().rev() {
            let shown = self.shown(path);
            let fd = self.open_dir(path)?;
            fchmod(&fd, mode(*bits)).at("cannot write", &shown)?;
            let spec = spec(*time);
            nix::sys::stat::futimens(&fd, &spec, &spec).at("cannot write", &shown)?;
        }
        let mut warnings: Vec<String> = self
            .skipped
            .iter()
            .take(MAX_WARNINGS)
            .map(|path| format!("/{path} is a device, which only root can make: left out"))
            .collect();
        if self.skipped.len() > MAX_WARNINGS {
            let more = self.skipped.len() - MAX_WARNINGS;
            warnings.push(format!("{more} more devices were left out"));
        }
        Ok(warnings)
    }
}

/// Returns permissions that a user's own file may have.
fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits & 0o1777)
}

fn spec(time: Timestamp) -> TimeSpec {
    TimeSpec::new(time.seconds, time.nanoseconds.into())
}

fn set_time(parent: BorrowedFd<'_>, name: &[u8], time: Timestamp) -> nix::Result<()> {
    let time = spec(time);
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

fn is_dir(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<bool> {
    let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Removes what is in the way of a file.
fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => remove_dir(parent, name),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a directory with all that is in it, following no link.
fn remove_dir(parent: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<()> {
    crate::layer::remove_all(parent, name).map_err(std::io::Error::other)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
