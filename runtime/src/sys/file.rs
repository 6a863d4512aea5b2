//! Extended attributes below a directory descriptor.
//!
//! The kernel's older xattr calls take a path or a descriptor that is open for reading or writing.
//! Both forms here go through `/proc/self/fd/N`, so that they also serve `O_PATH` descriptors,
//! symbolic links, sockets and devices, none of which has to be opened for it. Reading, which is
//! done for each entry of a tree, takes getxattrat(2) and listxattrat(2) where the kernel has
//! them: they spare it the way through /proc.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// The longest path that is handed to the kernel behind `/proc/self/fd/N/`. PATH_MAX counts
/// the prefix too, so what is longer goes through a descriptor of its parent directory.
const LONGEST_TAIL: usize = 4000;

/// Whether the working directory is this process's `/proc/self/fd`.
static DESCRIPTORS_ARE_HERE: AtomicBool = AtomicBool::new(false);

/// Says that the working directory is this process's `/proc/self/fd`, for a process whose own
/// `/proc` is one that it is not in.
pub(crate) fn descriptors_are_here() {
    DESCRIPTORS_ARE_HERE.store(true, Ordering::Relaxed);
}

/// The numbers of calls that libc has no names for; the same on every architecture
/// (include/uapi/asm-generic/unistd.h, since Linux 6.13).
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;

/// `struct xattr_args` (include/uapi/linux/xattr.h).
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Returns whether the kernel has the calls that take a directory and a path.
fn has_calls_at() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        // SAFETY: the path ends in NUL, and a length of 0 lets nothing be written.
        let result = unsafe {
            libc::syscall(
                SYS_LISTXATTRAT,
                -1,
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                std::ptr::null_mut::<libc::c_char>(),
                0,
            )
        };
        // A sandbox may refuse with any error what it doesn't know; only the call itself sees
        // that there is no such descriptor.
        super::check(result) == Err(Errno::EBADF)
    })
}

/// Returns the path for a call that takes a directory and a path; nothing where that call is
/// missing, or can't be used: an empty path stands for no `O_PATH` descriptor there.
fn path_at(path: &[u8]) -> io::Result<Option<CString>> {
    match path.is_empty() || path.len() > LONGEST_TAIL || !has_calls_at() {
        true => Ok(None),
        false => c_string(path).map(Some),
    }
}

/// A file below a directory descriptor, as the older xattr calls want it.
struct Target {
    path: CString,
    /// Whether the path ends in the magic link itself, which has to be followed.
    follow: bool,
}

/// Calls `body` with the target for `path` below `dir`; an empty path is `dir` itself.
fn with_target<T>(
    dir: BorrowedFd<'_>,
    path: &[u8],
    body: impl FnOnce(&Target) -> io::Result<T>,
) -> io::Result<T> {
    if path.len() > LONGEST_TAIL
        && let Some(slash) = path.iter().rposition(|&b| b == b'/')
    {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let parent = openat(dir, &path[..slash], flags, Mode::empty())?;
        return with_target(parent.as_fd(), &path[slash + 1..], body);
    }
    let directory = match DESCRIPTORS_ARE_HERE.load(Ordering::Relaxed) {
        true => "",
        false => "/proc/self/fd/",
    };
    let mut full = format!("{directory}{}", dir.as_raw_fd()).into_bytes();
    if !path.is_empty() {
        full.push(b'/');
        full.extend_from_slice(path);
    }
    body(&Target {
        path: c_string(&full)?,
        follow: path.is_empty(),
    })
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL.into())
}

/// Calls `read` with growing buffers until the value fits, since it may change in between.
fn read_all(mut read: impl FnMut(*mut u8, usize) -> libc::ssize_t) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 256];
    loop {
        match Errno::result(read(buffer.as_mut_ptr(), buffer.len())) {
            Ok(length) => {
                buffer.truncate(length.unsigned_abs());
                return Ok(buffer);
            }
            // 64 KiB is the kernel's limit for a value and for a list.
            Err(Errno::ERANGE) if buffer.len() < 0x1_0000 => buffer.resize(0x1_0000, 0),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Returns the value of an extended attribute of `path` below `dir`, without following a
/// symbolic link at its end, or nothing where there is no such attribute or where the file
/// can't have any. An empty path is `dir` itself.
pub fn get_xattr(dir: BorrowedFd<'_>, path: &[u8], name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let name = c_string(name)?;
    let value = match path_at(path)? {
        Some(path) => read_all(|buffer, len| {
            let mut args = XattrArgs {
                value: buffer as u64,
                size: u32::try_from(len).unwrap_or(u32::MAX),
                flags: 0,
            };
            // SAFETY: both strings end in NUL, and the buffer in `args` has the length there.
            let result = unsafe {
                libc::syscall(
                    SYS_GETXATTRAT,
                    dir.as_raw_fd(),
                    path.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    name.as_ptr(),
                    &raw mut args,
                    size_of::<XattrArgs>(),
                )
            };
            result as libc::ssize_t
        }),
        None => with_target(dir, path, |target| {
            let call = if target.follow {
                libc::getxattr
            } else {
                libc::lgetxattr
            };
            // SAFETY: both strings end in NUL, and the buffer has the length that is passed.
            read_all(|buffer, len| unsafe {
                call(target.path.as_ptr(), name.as_ptr(), buffer.cast(), len)
            })
        }),
    };
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether an open file has an extended attribute.
pub fn has_xattr(file: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let name = c_string(name)?;
    // SAFETY: the name ends in NUL, and a length of 0 asks for the size only.
    let result =
        unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) };
    match Errno::result(result).map_err(io::Error::from) {
        Ok(_) => Ok(true),
        Err(error) if absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENODATA | libc::EOPNOTSUPP | libc::EPERM)
    )
}

/// Returns the names of all extended attributes of `path` below `dir`, sorted.
pub fn list_xattrs(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let list = match path_at(path)? {
        Some(path) => read_all(|buffer, len| {
            // SAFETY: the path ends in NUL, and the buffer has the length that is passed.
            let result = unsafe {
                libc::syscall(
                    SYS_LISTXATTRAT,
                    dir.as_raw_fd(),
                    path.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    buffer,
                    len,
                )
            };
            result as libc::ssize_t
        }),
        None => with_target(dir, path, |target| {
            let call = if target.follow {
                libc::listxattr
            } else {
                libc::llistxattr
            };
            // SAFETY: the path ends in NUL, and the buffer has the length that is passed.
            read_all(|buffer, len| unsafe { call(target.path.as_ptr(), buffer.cast(), len) })
        }),
    };
    let list = match list {
        Ok(list) => list,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut names: Vec<Vec<u8>> = list
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    names.sort();
    Ok(names)
}

/// Sets an extended attribute of `path` below `dir`, without following a symbolic link.
pub fn set_xattr(dir: BorrowedFd<'_>, path: &[u8], name: &[u8], value: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    with_target(dir, path, |target| {
        let call = if target.follow {
            libc::setxattr
        } else {
            libc::lsetxattr
        };
        // SAFETY: both strings end in NUL, and the value has the length that is passed.
        let result = unsafe {
            call(
                target.path.as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        };
        Errno::result(result).map(drop).map_err(Into::into)
    })
}

/// Removes an extended attribute of `path` below `dir`. One that is absent is no error.
pub fn remove_xattr(dir: BorrowedFd<'_>, path: &[u8], name: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    let removed = with_target(dir, path, |target| {
        let call = if target.follow {
            libc::removexattr
        } else {
            libc::lremovexattr
        };
        // SAFETY: both strings end in NUL.
        let result = unsafe { call(target.path.as_ptr(), name.as_ptr()) };
        Errno::result(result).map(drop).map_err(io::Error::from)
    });
    match removed {
        Err(error) if error.raw_os_error() == Some(libc::ENODATA) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn directory() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let fd = File::open(directory.path()).unwrap();
        (directory, fd)
    }

    #[test]
    fn an_attribute_comes_back_through_path_and_descriptor() {
        let (directory, fd) = directory();
        std::fs::write(directory.path().join("file"), b"").unwrap();
        let long = vec![7u8; 2000];
        set_xattr(fd.as_fd(), b"file", b"user.b", &long).unwrap();
        set_xattr(fd.as_fd(), b"file", b"user.a", b"").unwrap();
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let file = openat(&fd, "file", flags, Mode::empty()).unwrap();
        assert_eq!(get_xattr(file.as_fd(), b"", b"user.b").unwrap(), Some(long));
        assert_eq!(
            get_xattr(fd.as_fd(), b"file", b"user.a").unwrap(),
            Some(Vec::new())
        );
        let names = list_xattrs(file.as_fd(), b"").unwrap();
        assert_eq!(names, [b"user.a".to_vec(), b"user.b".to_vec()]);
        remove_xattr(fd.as_fd(), b"file", b"user.a").unwrap();
        remove_xattr(fd.as_fd(), b"file", b"user.a").unwrap();
        assert_eq!(get_xattr(fd.as_fd(), b"file", b"user.a").unwrap(), None);
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let (directory, fd) = directory();
        std::fs::write(directory.path().join("file"), b"").unwrap();
        std::os::unix::fs::symlink("file", directory.path().join("link")).unwrap();
        assert!(set_xattr(fd.as_fd(), b"link", b"user.a", b"1").is_err());
        assert_eq!(get_xattr(fd.as_fd(), b"file", b"user.a").unwrap(), None);
        assert_eq!(get_xattr(fd.as_fd(), b"link", b"user.a").unwrap(), None);
    }

    #[test]
    fn an_empty_path_is_the_directory_itself() {
        let (_directory, fd) = directory();
        set_xattr(fd.as_fd(), b"", b"user.a", b"1").unwrap();
        assert_eq!(
            get_xattr(fd.as_fd(), b"", b"user.a").unwrap(),
            Some(b"1".to_vec())
        );
    }
}
