//! What a tree says of one of its entries, in the image's own ids.

use nix::sys::stat::FileStat;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A unix socket. It never reaches a tar.
    Socket,
}

impl FileKind {
    /// Returns the type within `mode`, or nothing where those bits name none.
    pub fn of_mode(mode: u32) -> Option<FileKind> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::File,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Symlink,
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            _ => return None,
        })
    }

    /// Returns the bits of `st_mode` that name this type.
    pub fn mode_bits(self) -> u32 {
        match self {
            FileKind::File => libc::S_IFREG,
            FileKind::Directory => libc::S_IFDIR,
            FileKind::Symlink => libc::S_IFLNK,
            FileKind::CharDevice => libc::S_IFCHR,
            FileKind::BlockDevice => libc::S_IFBLK,
            FileKind::Fifo => libc::S_IFIFO,
            FileKind::Socket => libc::S_IFSOCK,
        }
    }

    /// Returns whether this is a block or character device.
    pub fn is_device(self) -> bool {
        matches!(self, FileKind::CharDevice | FileKind::BlockDevice)
    }

    /// Returns whether the kernel lets files of this type have `user.*` attributes.
    pub(super) fn has_user_xattrs(self) -> bool {
        matches!(self, FileKind::File | FileKind::Directory)
    }
}

/// The number of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

impl Device {
    pub(super) fn of_raw(raw: u64) -> Device {
        Device {
            major: u32::try_from(nix::sys::stat::major(raw)).unwrap_or(u32::MAX),
            minor: u32::try_from(nix::sys::stat::minor(raw)).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn raw(self) -> u64 {
        nix::sys::stat::makedev(self.major.into(), self.minor.into())
    }
}

/// A time since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// The rest, below a thousand million.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Returns a time of whole seconds.
    pub fn from_seconds(seconds: i64) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds: 0,
        }
    }

    /// Returns the present time.
    pub fn now() -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        }
    }

    pub(super) fn spec(self) -> nix::sys::time::TimeSpec {
        nix::sys::time::TimeSpec::new(self.seconds, self.nanoseconds.into())
    }
}

/// The attributes of an entry, with the ids of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The type.
    pub kind: FileKind,
    /// Permissions, set-id and sticky bits: the lower twelve bits.
    pub mode: u32,
    /// The owner within the image.
    pub uid: u32,
    /// The group within the image.
    pub gid: u32,
    /// The size in bytes of a regular file, else 0.
    pub size: u64,
    /// The bytes that the store's file system has for it: fewer where there are holes.
    pub allocated: u64,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// When anything about it last changed. No program can set it.
    pub ctime: Timestamp,
    /// The number of a device.
    pub rdev: Device,
    /// The number of hard links on the store's file system.
    pub nlink: u64,
    /// The store's file system.
    pub dev: u64,
    /// The inode on it.
    pub ino: u64,
}

impl Stat {
    /// Returns what the kernel says, with ids as they are stored.
    pub(super) fn of_raw(raw: &FileStat) -> Stat {
        let kind = FileKind::of_mode(raw.st_mode).unwrap_or(FileKind::Socket);
        Stat {
            kind,
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size: match kind {
                FileKind::File => raw.st_size.unsigned_abs(),
                _ => 0,
            },
            // In units of 512 bytes, whatever the block size: stat(3type).
            allocated: raw.st_blocks.unsigned_abs().saturating_mul(512),
            mtime: Timestamp {
                seconds: raw.st_mtime,
                nanoseconds: u32::try_from(raw.st_mtime_nsec).unwrap_or(0),
            },
            ctime: Timestamp {
                seconds: raw.st_ctime,
                nanoseconds: u32::try_from(raw.st_ctime_nsec).unwrap_or(0),
            },
            rdev: match kind.is_device() {
                true => Device::of_raw(raw.st_rdev),
                false => Device::default(),
            },
            // 64 bits on x86-64, 32 on arm64.
            #[allow(clippy::unnecessary_cast)]
            nlink: raw.st_nlink as u64,
            dev: raw.st_dev,
            ino: raw.st_ino,
        }
    }

    /// Returns whether the content may have holes.
    pub(super) fn may_have_holes(&self) -> bool {
        self.allocated < self.size
    }

    /// Returns whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Returns whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Returns whether this is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }
}
