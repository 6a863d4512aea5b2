//! How the ids of an image are stored, and the record of what can't be stored as it is.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::stat::{Device, FileKind, Stat};

/// The attribute that holds a [`Record`]. Part of the on-disk format.
pub(super) const RECORD_XATTR: &[u8] = b"user.kiln.stat";

/// The image id that stands in for one without a mapping: "nobody" owns little that matters.
const NOBODY: u32 = 65534;

/// Records of entries that can't have `user.*` attributes (links, pipes, sockets), by path.
pub type Overrides = BTreeMap<Vec<u8>, Record>;

/// How ownership is stored in a layer directory. Part of a store's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// Image id n is stored as n + 1, for n below `count`: within the builder's namespace id 0
    /// is the user, who owns nothing in layers.
    Shifted {
        /// How many image ids have a mapping.
        count: u32,
    },
    /// Image ids are stored as they are. Takes root.
    Real,
    /// All belongs to the caller, and what is not 0:0 is recorded.
    Single,
}

/// An id as it is stored, and whether it tells the truth.
#[derive(Clone, Copy, PartialEq, Eq)]
struct StoredId {
    id: u32,
    truthful: bool,
}

/// What to give to chown and chmod, and the record to leave where they can't tell all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Owner and group, or nothing where chown is of no use.
    pub owner: Option<(u32, u32)>,
    /// The mode, without type.
    pub mode: u32,
    /// Whether a record is needed.
    pub record: bool,
}

impl Ownership {
    /// Returns the stored id of an image id, or nothing where it has no mapping.
    pub fn to_stored(self, id: u32) -> Option<u32> {
        match self {
            Ownership::Shifted { count } => (id < count).then(|| id + 1),
            Ownership::Real => (id != u32::MAX).then_some(id),
            Ownership::Single => None,
        }
    }

    /// Returns the image id of a stored id, or nothing where it has none.
    pub fn to_image(self, stored: u32) -> Option<u32> {
        match self {
            // What the builder made and did not give away is root's.
            Ownership::Shifted { .. } if stored == 0 => Some(0),
            Ownership::Shifted { count } => (stored <= count).then(|| stored - 1),
            Ownership::Real => Some(stored),
            Ownership::Single => Some(0),
        }
    }

    fn stored_id(self, id: u32) -> StoredId {
        match (self.to_stored(id), self) {
            (Some(id), _) => StoredId { id, truthful: true },
            (None, Ownership::Single) => StoredId {
                id: 0,
                truthful: id == 0,
            },
            (None, Ownership::Shifted { count }) => StoredId {
                // The greatest stored id is `count`; NOBODY is stored as NOBODY + 1.
                id: (NOBODY + 1).min(count),
                truthful: false,
            },
            (None, Ownership::Real) => StoredId {
                id: NOBODY,
                truthful: false,
            },
        }
    }

    fn stored_mode(self, kind: FileKind, mode: u32, truthful: bool) -> u32 {
        match self {
            // A set-id bit on a file of the caller would lend out the caller's own id, and what
            // the caller can't read, kiln can't either.
            Ownership::Single if kind == FileKind::Directory => mode & 0o1777 | 0o700,
            Ownership::Single => mode & 0o1777 | 0o600,
            _ if truthful => mode,
            // The stand-in must not lend out its id.
            _ => mode & 0o1777,
        }
    }

    /// Returns how `record` is stored.
    pub(super) fn store(self, record: &Record) -> Stored {
        let (uid, gid) = (self.stored_id(record.uid), self.stored_id(record.gid));
        let truthful = uid.truthful && gid.truthful;
        let mode = self.stored_mode(record.kind, record.mode, truthful);
        Stored {
            owner: (self != Ownership::Single).then_some((uid.id, gid.id)),
            mode,
            record: !truthful || (mode != record.mode && record.kind != FileKind::Symlink),
        }
    }

    /// Returns `stored` in the image's terms. A record counts for those attributes that are
    /// still as it left them: what a step changed since is the truth.
    pub(super) fn recall(self, mut stored: Stat, record: Option<&Record>) -> Stat {
        let record = record.filter(|record| {
            let placeholder =
                record.kind.is_device() && stored.kind == FileKind::File && stored.size == 0;
            record.kind == stored.kind || placeholder
        });
        let image = |id: u32| self.to_image(id).unwrap_or(NOBODY);
        let Some(record) = record else {
            stored.uid = image(stored.uid);
            stored.gid = image(stored.gid);
            return stored;
        };
        let (uid, gid) = (self.stored_id(record.uid), self.stored_id(record.gid));
        let truthful = uid.truthful && gid.truthful;
        if stored.mode == self.stored_mode(record.kind, record.mode, truthful) {
            stored.mode = record.mode;
        }
        let owner = |id: u32, as_left: StoredId, recorded: u32| {
            if self == Ownership::Single || id == as_left.id {
                recorded
            } else {
                image(id)
            }
        };
        stored.uid = owner(stored.uid, uid, record.uid);
        stored.gid = owner(stored.gid, gid, record.gid);
        stored.kind = record.kind;
        stored.rdev = record.device;
        stored
    }
}

/// The truth about an entry that can't be stored as it is.
/// As text `uid:gid:mode:major:minor`, the mode octal and with its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The owner within the image.
    pub uid: u32,
    /// The group within the image.
    pub gid: u32,
    /// The type within the image.
    pub kind: FileKind,
    /// The lower twelve bits of the mode.
    pub mode: u32,
    /// The number of a device.
    pub device: Device,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = self.kind.mode_bits() | self.mode;
        let Device { major, minor } = self.device;
        write!(f, "{}:{}:{mode:o}:{major}:{minor}", self.uid, self.gid)
    }
}

/// A record that could not be parsed.
#[derive(Debug, thiserror::Error)]
#[error("malformed ownership record {0:?}")]
pub struct RecordError(String);

impl FromStr for Record {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Record, RecordError> {
        let error = || RecordError(text.chars().take(100).collect());
        let mut fields = text.split(':');
        let mut field = |radix| {
            let digits = fields.next().ok_or_else(error)?;
            u32::from_str_radix(digits, radix).map_err(|_| error())
        };
        let (uid, gid, mode, major, minor) =
            (field(10)?, field(10)?, field(8)?, field(10)?, field(10)?);
        if fields.next().is_some() {
            return Err(error());
        }
        Ok(Record {
            uid,
            gid,
            kind: FileKind::of_mode(mode).ok_or_else(error)?,
            mode: mode & 0o7777,
            device: Device { major, minor },
        })
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Record, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::stat::Timestamp;

    fn record(uid: u32, gid: u32, mode: u32) -> Record {
        Record {
            uid,
            gid,
            kind: FileKind::File,
            mode,
            device: Device::default(),
        }
    }

    fn stat(uid: u32, gid: u32, mode: u32) -> Stat {
        Stat {
            kind: FileKind::File,
            mode,
            uid,
            gid,
            size: 0,
            allocated: 0,
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            rdev: Device::default(),
            nlink: 1,
            dev: 0,
            ino: 0,
        }
    }

    const SHIFTED: Ownership = Ownership::Shifted { count: 65536 };

    #[test]
    fn shifted_ids_leave_the_user_out() {
        assert_eq!(SHIFTED.to_stored(0), Some(1));
        assert_eq!(SHIFTED.to_stored(65535), Some(65536));
        assert_eq!(SHIFTED.to_stored(65536), None);
        assert_eq!(SHIFTED.to_image(65536), Some(65535));
        assert_eq!(SHIFTED.to_image(65537), None);
        assert_eq!(SHIFTED.to_image(0), Some(0));
    }

    /// SEMANTICS 68
    #[test]
    fn an_id_without_mapping_comes_back_and_lends_out_no_set_id_bit() {
        let truth = record(70000, 3, 0o4755);
        let stored = SHIFTED.store(&truth);
        assert_eq!(stored.owner, Some((65535, 4)));
        assert_eq!(stored.mode, 0o755);
        assert!(stored.record);
        let back = SHIFTED.recall(stat(65535, 4, 0o755), Some(&truth));
        assert_eq!((back.uid, back.gid, back.mode), (70000, 3, 0o4755));
    }

    #[test]
    fn what_a_step_changed_since_counts_more_than_the_record() {
        let truth = record(70000, 3, 0o4755);
        let back = SHIFTED.recall(stat(8, 4, 0o600), Some(&truth));
        assert_eq!((back.uid, back.gid, back.mode), (7, 3, 0o600));
    }

    #[test]
    fn a_placeholder_that_was_written_to_is_a_file() {
        let truth = Record {
            kind: FileKind::BlockDevice,
            device: Device { major: 8, minor: 1 },
            ..record(0, 6, 0o660)
        };
        let back = SHIFTED.recall(stat(1, 7, 0o660), Some(&truth));
        assert_eq!(back.kind, FileKind::BlockDevice);
        assert_eq!(back.rdev, Device { major: 8, minor: 1 });
        let written = Stat {
            size: 1,
            ..stat(1, 7, 0o660)
        };
        assert_eq!(SHIFTED.recall(written, Some(&truth)).kind, FileKind::File);
    }

    #[test]
    fn single_ownership_records_what_is_not_roots() {
        assert!(!Ownership::Single.store(&record(0, 0, 0o644)).record);
        assert!(Ownership::Single.store(&record(1, 0, 0o644)).record);
        let stored = Ownership::Single.store(&record(0, 0, 0o4000));
        assert_eq!((stored.owner, stored.mode), (None, 0o600));
        assert!(stored.record);
    }

    #[test]
    fn records_come_back_from_text() {
        let truth = Record {
            kind: FileKind::CharDevice,
            device: Device { major: 1, minor: 3 },
            ..record(4294967294, 0, 0o6666)
        };
        assert_eq!(truth.to_string(), "4294967294:0:26666:1:3");
        assert_eq!(truth.to_string().parse::<Record>().unwrap(), truth);
        for bad in [
            "",
            "1:2",
            "1:2:100644:0:0:9",
            "x:0:100644:0:0",
            "0:0:644:0:0",
        ] {
            assert!(bad.parse::<Record>().is_err(), "{bad}");
        }
    }
}
