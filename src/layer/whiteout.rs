//! Deletions: how a tar says them (`.wh.NAME`, `.wh..wh..opq`), how overlayfs does, and how
//! fuse-overlayfs does. See
//! <https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts> and the
//! kernel's Documentation/filesystems/overlayfs.rst.

use std::os::fd::BorrowedFd;

use kiln_runtime::sys::file;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, mknodat};

use super::stat::{Device, FileKind, Stat};
use super::{Call as _, LayerError, dir, path};

/// The prefix of a deletion in a tar. No user's file may have it.
pub(super) const PREFIX: &[u8] = b".wh.";
/// The name in a tar that hides all that lower layers have in its directory.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

pub(super) const WHITEOUT_XATTR: &[u8] = b"user.overlay.whiteout";
pub(super) const OPAQUE_XATTR: &[u8] = b"user.overlay.opaque";
const FUSE_OPAQUE_XATTR: &[u8] = b"user.fuseoverlayfs.opaque";

/// Returns whether an entry is a deletion in one of overlayfs's two forms. It is marked where it
/// has the attribute [`WHITEOUT_XATTR`].
pub(super) fn is_whiteout(stored: &Stat, is_marked: bool) -> bool {
    match stored.kind {
        FileKind::CharDevice => stored.rdev == Device::default(),
        FileKind::File => stored.size == 0 && is_marked,
        _ => false,
    }
}

/// Returns whether a directory hides what lies below it.
pub(super) fn is_opaque(dir: BorrowedFd<'_>, path: &[u8]) -> Result<bool, LayerError> {
    let value = file::get_xattr(dir, path, OPAQUE_XATTR).call("getxattr", path)?;
    Ok(value.is_some_and(|value| value == b"y"))
}

/// Makes a directory hide what lies below it.
pub(super) fn make_opaque(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
    file::set_xattr(dir, path, OPAQUE_XATTR, b"y").call("setxattr", path)
}

/// Makes a deletion where nothing is. A store on overlayfs refuses the device form.
pub(super) fn make_whiteout(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
    match mknodat(dir, path, SFlag::S_IFCHR, Mode::empty(), 0) {
        Err(Errno::EPERM | Errno::EOPNOTSUPP) => {}
        result => return result.call("mknodat", path),
    }
    let (parent, _) = path::split(path);
    if is_opaque(dir, parent)? {
        // Nothing below shows, and in an opaque directory overlayfs would show the marker.
        return Ok(());
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    openat(dir, path, flags, dir::private_mode()).call("openat", path)?;
    file::set_xattr(dir, path, WHITEOUT_XATTR, b"y").call("setxattr", path)?;
    file::set_xattr(dir, parent, OPAQUE_XATTR, b"x").call("setxattr", parent)
}

/// Rewrites the deletions that fuse-overlayfs left into overlayfs's form.
pub(super) fn normalise_fuse(root: BorrowedFd<'_>) -> Result<(), LayerError> {
    let mut pending = vec![Vec::new()];
    while let Some(parent) = pending.pop() {
        let fuse = file::get_xattr(root, &parent, FUSE_OPAQUE_XATTR).call("getxattr", &parent)?;
        if fuse.is_some_and(|value| value == b"y") {
            make_opaque(root, &parent)?;
        }
        let (marks, names): (Vec<_>, Vec<_>) = dir::list(root, &parent)?
            .into_iter()
            .partition(|name| name.starts_with(PREFIX));
        for mark in &marks {
            dir::remove_all(root, &path::join(&parent, mark))?;
            if mark == OPAQUE {
                make_opaque(root, &parent)?;
            }
        }
        for mark in marks {
            let name = &mark[PREFIX.len()..];
            if mark != OPAQUE && !name.is_empty() && names.iter().all(|other| other != name) {
                make_whiteout(root, &path::join(&parent, name))?;
            }
        }
        for name in names {
            let child = path::join(&parent, &name);
            if let Some(raw) = dir::stat_at(root, &child)?
                && Stat::of_raw(&raw).is_dir()
            {
                pending.push(child);
            }
        }
    }
    Ok(())
}
