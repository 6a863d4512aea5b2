//! What is mounted into a sandbox beside its root: parts of other trees, and files that are to
//! lie on no disk.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_runtime::sys::mount::{Attributes, set_attributes};
use kiln_runtime::{Attached, Layers, Overlay, Upper};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::root::write_mount_points;
use super::{MountPoint, SandboxError, Sandboxes};
use crate::layer::{Ownership, View};
use crate::store::Session;

/// A part of a tree that a command sees. Changes, where it takes any, are thrown away with it.
pub struct Shown {
    overlay: Option<Overlay>,
    directory: PathBuf,
    session: Arc<Session>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(overlay) = self.overlay.take() {
            overlay.finish();
        }
        self.session.discard(&self.directory);
    }
}

impl Sandboxes {
    /// Returns a mount of a file or directory of a tree, whose layers are stored in the form of
    /// this store. The tree has the mount points that are given, and where it is `writable`,
    /// changes of its own. The mount holds as long as the other value.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub fn show(
        &self,
        view: &View,
        path: &[u8],
        writable: bool,
        points: &[MountPoint],
    ) -> Result<(OwnedFd, Shown), SandboxError> {
        let mut shown = Shown {
            overlay: None,
            directory: self.session.directory()?,
            session: self.session.clone(),
        };
        let [stubs, bottom, changes, work, scratch, at] =
            ["stubs", "bottom", "changes", "work", "scratch", "at"]
                .map(|name| shown.directory.join(name));
        for directory in [&stubs, &bottom, &changes, &work, &scratch, &at] {
            fs::create_dir(directory)?;
        }
        let ownership = self.store.form().ownership;
        write_mount_points(&stubs, view, ownership, points)?;
        // The view holds the layers open: so they are named, whatever has become of their paths.
        let mut lowers = vec![stubs];
        let mut seen = Vec::new();
        for layer in view.layers().iter().rev() {
            let stat = fstat(layer.fd()).map_err(std::io::Error::from)?;
            // A layer may be there twice, see `Root`.
            if !seen.contains(&(stat.st_dev, stat.st_ino)) {
                seen.push((stat.st_dev, stat.st_ino));
                let fd = layer.fd().as_raw_fd();
                lowers.push(format!("/proc/{}/fd/{fd}", std::process::id()).into());
            }
        }
        // A read-only overlay has two layers at least.
        lowers.push(bottom);
        if writable {
            // The overlay shows the root's attributes as its topmost layer has them.
            write_mount_points(&changes, view, ownership, &[])?;
        }
        let layers = Layers {
            lowers: &lowers,
            upper: writable.then_some(Upper {
                changes: &changes,
                work: &work,
                volatile: true,
            }),
            scratch: &scratch,
        };
        let overlay = Overlay::mount(&self.builder, &layers, self.overlay)?;
        let root = overlay.root()?;
        shown.overlay = Some(overlay);
        // Attached for a moment: a part can be taken only of what is attached somewhere.
        let mount = Attached::new(root.as_fd(), &at)?.part(path)?;
        if !writable {
            restrict(&mount, Attributes::READ_ONLY)?;
        }
        Ok((mount, shown))
    }

    /// Starts to make files that are to lie on no disk.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub fn private_files(&self) -> Result<PrivateFiles, SandboxError> {
        let directory = self.session.directory()?;
        let memory = kiln_runtime::mount_tmpfs(None, 0o700, (0, 0))?;
        Ok(PrivateFiles {
            attached: Attached::new(memory.as_fd(), &directory)?,
            ownership: self.store.form().ownership,
            count: 0,
        })
    }
}

/// Makes files in memory, each of which is mounted on its own: they go with their mounts.
pub struct PrivateFiles {
    attached: Attached,
    ownership: Ownership,
    count: u32,
}

/// Who may use a private file, in the ids of the image.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl PrivateFiles {
    fn next_name(&mut self) -> String {
        self.count += 1;
        self.count.to_string()
    }

    fn owner(&self, access: Access) -> Result<(Uid, Gid), SandboxError> {
        let stored = |id: u32| {
            self.ownership.to_stored(id).ok_or_else(|| {
                std::io::Error::other(format!("id {id} is not mapped into the sandbox"))
            })
        };
        Ok((
            Uid::from_raw(stored(access.uid)?),
            Gid::from_raw(stored(access.gid)?),
        ))
    }

    /// Makes a file and returns a read-only mount of it. Only a program may be executed.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub fn file(
        &mut self,
        content: &[u8],
        access: Access,
        is_program: bool,
    ) -> Result<OwnedFd, SandboxError> {
        let name = self.next_name();
        let (uid, gid) = self.owner(access)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let fd = openat(self.attached.root(), name.as_str(), flags, Mode::empty())
            .map_err(std::io::Error::from)?;
        let mut file = File::from(fd);
        file.write_all(content)?;
        fchown(&file, Some(uid), Some(gid)).map_err(std::io::Error::from)?;
        fchmod(&file, Mode::from_bits_truncate(access.mode)).map_err(std::io::Error::from)?;
        drop(file);
        let attributes = if is_program {
            Attributes::NOSUID_NODEV
        } else {
            Attributes::NOSUID_NODEV_NOEXEC
        };
        self.restricted(&name, attributes.and(Attributes::READ_ONLY))
    }

    /// Makes a socket that is listened on, and returns a mount of it.
    ///
    /// # Errors
    /// See [`SandboxError`].
    pub fn socket(&mut self, access: Access) -> Result<(UnixListener, OwnedFd), SandboxError> {
        let name = self.next_name();
        let (uid, gid) = self.owner(access)?;
        let root = self.attached.root();
        // The path of a socket has 107 bytes at most.
        let path = format!("/proc/self/fd/{}/{name}", root.as_raw_fd());
        let listener = UnixListener::bind(path)?;
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let owned = fchownat(root, name.as_str(), Some(uid), Some(gid), flags);
        owned.map_err(std::io::Error::from)?;
        let mode = Mode::from_bits_truncate(access.mode);
        fchmodat(root, name.as_str(), mode, FchmodatFlags::FollowSymlink)
            .map_err(std::io::Error::from)?;
        let mount = self.restricted(&name, Attributes::NOSUID_NODEV_NOEXEC)?;
        Ok((listener, mount))
    }

    fn restricted(&self, name: &str, attributes: Attributes) -> Result<OwnedFd, SandboxError> {
        let mount = self.attached.part(name.as_bytes())?;
        restrict(&mount, attributes)?;
        Ok(mount)
    }
}

/// Adds attributes to a mount, and to those below it.
fn restrict(mount: &OwnedFd, attributes: Attributes) -> Result<(), SandboxError> {
    set_attributes(mount.as_fd(), attributes, true)
        .map_err(|errno: Errno| kiln_runtime::Error::call("mount_setattr", errno).into())
}

/// Makes a mount read-only, with those below it.
///
/// # Errors
/// See [`SandboxError`].
pub fn make_read_only(mount: &OwnedFd) -> Result<(), SandboxError> {
    restrict(mount, Attributes::READ_ONLY)
}

/// Makes a mount read-only, without those below it.
pub(super) fn make_root_read_only(mount: &OwnedFd) -> Result<(), SandboxError> {
    set_attributes(mount.as_fd(), Attributes::READ_ONLY, false)
        .map_err(|errno: Errno| kiln_runtime::Error::call("mount_setattr", errno).into())
}

/// Takes from a mount of the user's files what could give a sandbox more than files: devices and
/// set-id programs.
///
/// # Errors
/// See [`SandboxError`].
pub fn make_harmless(mount: &OwnedFd) -> Result<(), SandboxError> {
    restrict(mount, Attributes::NOSUID_NODEV)
}
