//! Which extended attributes belong to an image, and how they are stored.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use kiln_runtime::sys::file;

use super::Call as _;
use super::ownership::Ownership;
use super::{LayerError, acl, capability};

/// Extended attributes in the image's terms.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The default ACL of a directory, which its later children would inherit.
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Before the name of an attribute that the kernel refused: the value is kept under this name
/// in the image's terms. Part of the on-disk format.
const KEPT: &[u8] = b"user.kiln.x.";

/// What belongs to the machine or to a file system in between, never to an image.
const PRIVATE: [&[u8]; 8] = [
    b"trusted.overlay.",
    b"user.overlay.",
    b"user.fuseoverlayfs.",
    b"user.containers.",
    b"user.kiln.",
    b"security.selinux",
    b"security.ima",
    b"security.evm",
];

/// Returns whether an attribute of this name is neither read into a tar nor applied from one.
pub(super) fn is_private(name: &[u8]) -> bool {
    let known = [&b"user."[..], b"security.", b"trusted."]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let private = PRIVATE.iter().any(|prefix| name.starts_with(prefix));
    private || !(known || acl::is_acl(name)) || name.contains(&0)
}

/// Sets an attribute in the image's terms. Returns whether it could be stored at all.
pub(super) fn set(
    dir: BorrowedFd<'_>,
    path: &[u8],
    ownership: Ownership,
    name: &[u8],
    value: &[u8],
) -> Result<bool, LayerError> {
    let stored = if acl::is_acl(name) {
        acl::map_ids(value, |id| ownership.to_stored(id)).filter(|_| ownership != Ownership::Single)
    } else if ownership == Ownership::Single && !name.starts_with(b"user.") {
        None
    } else {
        Some(value.to_vec())
    };
    if let Some(stored) = stored {
        match file::set_xattr(dir, path, name, &stored) {
            Ok(()) => return Ok(true),
            Err(error) if refused(&error) => {}
            Err(error) => return Err(error).call("setxattr", path),
        }
    }
    match file::set_xattr(dir, path, &[KEPT, name].concat(), value) {
        Ok(()) => Ok(true),
        Err(error) if refused(&error) => Ok(false),
        Err(error) => Err(error).call("setxattr", path),
    }
}

fn refused(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EOPNOTSUPP | libc::EINVAL | libc::EACCES)
    )
}

/// Returns all attributes that belong to the image.
pub(super) fn read(
    dir: BorrowedFd<'_>,
    path: &[u8],
    ownership: Ownership,
) -> Result<Xattrs, LayerError> {
    let mut xattrs = Xattrs::new();
    for name in file::list_xattrs(dir, path).call("listxattr", path)? {
        let kept = name.strip_prefix(KEPT).filter(|name| !is_private(name));
        if kept.is_none() && is_private(&name) {
            continue;
        }
        let Some(value) = file::get_xattr(dir, path, &name).call("getxattr", path)? else {
            continue;
        };
        match kept {
            // What the kernel has by now is newer than what was kept.
            Some(kept) => {
                xattrs.entry(kept.to_vec()).or_insert(value);
            }
            None if name == capability::XATTR => {
                xattrs.insert(name, capability::without_root_id(value));
            }
            None if acl::is_acl(&name) => {
                // An id without a counterpart can only come from outside the image.
                if let Some(value) = acl::map_ids(&value, |id| ownership.to_image(id)) {
                    xattrs.insert(name, value);
                }
            }
            None => {
                xattrs.insert(name, value);
            }
        }
    }
    Ok(xattrs)
}

/// Removes all attributes, those of kiln's own included, before others take their place.
pub(super) fn clear(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
    for name in file::list_xattrs(dir, path).call("listxattr", path)? {
        match file::remove_xattr(dir, path, &name) {
            Ok(()) => {}
            // Labels that the kernel itself gives can't be removed, and are no part of this.
            Err(error) if refused(&error) => {}
            Err(error) => return Err(error).call("removexattr", path),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEMANTICS 66
    #[test]
    fn machine_attributes_are_private() {
        for name in [
            "trusted.overlay.opaque",
            "user.overlay.whiteout",
            "user.overlay.overlay.opaque",
            "user.fuseoverlayfs.origin",
            "user.containers.override_stat",
            "user.kiln.stat",
            "security.selinux",
            "security.ima",
            "security.evm",
            "btrfs.compression",
            "system.nfs4_acl",
        ] {
            assert!(is_private(name.as_bytes()), "{name}");
        }
        for name in [
            "user.comment",
            "security.capability",
            "trusted.md5sum",
            "system.posix_acl_access",
        ] {
            assert!(!is_private(name.as_bytes()), "{name}");
        }
    }
}
