//! The mount API of Linux 5.2: fsopen(2), fsconfig(2), fsmount(2), move_mount(2),
//! open_tree(2), mount_setattr(2).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Errno, check};

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;

/// Attributes of a mount, as in `mount_setattr(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(pub u64);

impl Attributes {
    /// None.
    pub const NONE: Attributes = Attributes(0);
    /// Read-only.
    pub const READ_ONLY: Attributes = Attributes(0x1);
    /// No setuid, no devices.
    pub const NOSUID_NODEV: Attributes = Attributes(0x2 | 0x4);
    /// No setuid.
    pub const NOSUID: Attributes = Attributes(0x2);
    /// No setuid, no programs.
    pub const NOSUID_NOEXEC: Attributes = Attributes(0x2 | 0x8);
    /// No setuid, no devices, no programs.
    pub const NOSUID_NODEV_NOEXEC: Attributes = Attributes(0x2 | 0x4 | 0x8);

    /// Returns both sets together.
    pub const fn and(self, other: Attributes) -> Attributes {
        Attributes(self.0 | other.0)
    }
}

pub(super) fn raw_fsopen(fstype: &CStr) -> Result<RawFd, Errno> {
    // SAFETY: the pointer is a valid NUL-terminated string for the length of the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) })?;
    Ok(fd as RawFd)
}

pub(super) fn raw_fsconfig(fd: RawFd, key: &CStr, value: Option<&CStr>) -> Result<(), Errno> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    // SAFETY: key and value are valid NUL-terminated strings, or null where the command has none.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key.as_ptr(), value, 0) })?;
    Ok(())
}

pub(super) fn raw_fsmount(fd: RawFd, attributes: Attributes) -> Result<RawFd, Errno> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the command takes neither key nor value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) })?;
    // SAFETY: no pointers are passed.
    let mount = check(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            fd,
            FSMOUNT_CLOEXEC,
            attributes.0 as libc::c_uint,
        )
    })?;
    Ok(mount as RawFd)
}

pub(super) fn raw_move_mount(mount: RawFd, target: RawFd, path: &CStr) -> Result<(), Errno> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH
        | if path.is_empty() {
            MOVE_MOUNT_T_EMPTY_PATH
        } else {
            0
        };
    // SAFETY: both paths are valid NUL-terminated strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount,
            c"".as_ptr(),
            target,
            path.as_ptr(),
            flags,
        )
    })?;
    Ok(())
}

pub(super) fn raw_open_tree(dir: RawFd, path: &CStr, recursive: bool) -> Result<RawFd, Errno> {
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as libc::c_uint;
    }
    // SAFETY: the path is a valid NUL-terminated string.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })?;
    Ok(fd as RawFd)
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

pub(super) fn raw_set_attributes(
    mount: RawFd,
    attributes: Attributes,
    recursive: bool,
) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: attributes.0,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is a valid string, and attr is a struct mount_attr of the size passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount,
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A file system that is being configured. See `fsopen(2)`.
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Starts to configure a file system of the given type.
    ///
    /// # Errors
    /// ENODEV where the kernel has no such type, EPERM without CAP_SYS_ADMIN over the mount
    /// namespace.
    pub fn open(fstype: &CStr) -> Result<FsContext, Errno> {
        raw_fsopen(fstype).map(|fd| FsContext(owned(fd)))
    }

    /// Sets an option: a string, or a flag where there is no value. Strings have at most
    /// 255 bytes.
    ///
    /// # Errors
    /// What the file system says; [`FsContext::message`] has its words.
    pub fn set(&self, key: &CStr, value: Option<&CStr>) -> Result<(), Errno> {
        raw_fsconfig(self.0.as_raw_fd(), key, value)
    }

    /// Creates the superblock and returns a mount of it, attached nowhere yet.
    ///
    /// # Errors
    /// What the file system says; [`FsContext::message`] has its words.
    pub fn mount(&self, attributes: Attributes) -> Result<OwnedFd, Errno> {
        raw_fsmount(self.0.as_raw_fd(), attributes).map(owned)
    }

    /// Returns the kernel's own words on what went wrong, if it has any.
    pub fn message(&self) -> Option<String> {
        let mut buffer = [0u8; 512];
        let length = nix::unistd::read(&self.0, &mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        // The first two bytes are the severity: "e overlay: …".
        Some(text.get(2..).unwrap_or(&text).trim().to_owned())
    }
}

/// Clones the mount at `path` below `dir` (with those below it, where `recursive`), attached
/// nowhere. See `open_tree(2)`.
///
/// # Errors
/// ENOENT, or EPERM without CAP_SYS_ADMIN over the mount namespace.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    raw_open_tree(dir.as_raw_fd(), path, recursive).map(owned)
}

/// Adds attributes to a mount.
///
/// # Errors
/// EPERM where an attribute is locked.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: Attributes,
    recursive: bool,
) -> Result<(), Errno> {
    raw_set_attributes(mount.as_raw_fd(), attributes, recursive)
}

/// Attaches a mount to the directory or file that `target` is.
///
/// # Errors
/// EINVAL where the target is in another mount namespace.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    raw_move_mount(mount.as_raw_fd(), target.as_raw_fd(), c"")
}
