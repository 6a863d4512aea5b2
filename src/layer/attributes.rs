//! The attributes of entries, and how they get them.

use std::os::fd::BorrowedFd;

use kiln_runtime::sys::file;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::unistd::{Gid, Uid, fchownat};

use super::ownership::{Ownership, RECORD_XATTR, Record};
use super::stat::{Device, FileKind, Stat, Timestamp};
use super::xattr::{self, DEFAULT_ACL, Xattrs};
use super::{Call as _, LayerError, dir, escape};

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
