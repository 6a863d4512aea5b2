//! Mounts in the builder's own mount namespace, which nobody outside of it sees.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;

use crate::error::Error;
use crate::sys::mount;

/// A mount that is attached to a directory for as long as this lives.
pub struct Attached {
    at: PathBuf,
    root: OwnedFd,
}

impl Attached {
    /// Attaches a mount that is attached nowhere.
    ///
    /// # Errors
    /// [`Error::Call`]: no such directory.
    pub fn new(source: BorrowedFd<'_>, at: &Path) -> Result<Attached, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open_dir = || {
            open(at, flags, Mode::empty())
                .map_err(|e| Error::call(format!("open({}, O_PATH)", at.display()), e))
        };
        mount::attach(source, open_dir()?.as_fd())
            .map_err(|e| Error::call(format!("move_mount({})", at.display()), e))?;
        // From here on it is taken away again.
        let attached = |root| Attached {
            at: at.to_owned(),
            root,
        };
        match open_dir() {
            Ok(root) => Ok(attached(root)),
            Err(error) => {
                let _ = umount2(at, MntFlags::MNT_DETACH);
                Err(error)
            }
        }
    }

    /// Returns the mount's root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns a mount of a file or directory of this one, attached nowhere. Symbolic links are
    /// resolved within the mount.
    ///
    /// # Errors
    /// [`Error::Call`]: no such file.
    pub fn part(&self, path: &[u8]) -> Result<OwnedFd, Error> {
        let shown = String::from_utf8_lossy(path).into_owned();
        let path = match path {
            b"" => CString::from(c"."),
            path => CString::new(path).map_err(|_| Error::NulByte("path"))?,
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let fd = openat2(&self.root, path.as_c_str(), how)
            .map_err(|e| Error::call(format!("openat2({shown})"), e))?;
        mount::clone_tree(fd.as_fd(), c"", false)
            .map_err(|e| Error::call(format!("open_tree({shown}, OPEN_TREE_CLONE)"), e))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}
