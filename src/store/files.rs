//! Small files, written whole: a reader sees the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{IoContext, Result, StoreError};

/// No record of the store is larger, in bytes.
const RECORD_LIMIT: u64 = 64 << 20;

/// Creates a directory, and its parents, that only the caller may enter.
pub(super) fn create_private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .at("cannot create the store", path)
}

/// Returns a name that no other call in any process returns.
pub(super) fn unique_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{:x}-{:x}-{count:x}", now.as_nanos(), std::process::id())
}

/// Writes a file by way of a temporary one beside it.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    // The dot keeps readers of the directory from taking it for a record.
    let temporary = directory.join(format!(".{}", unique_name()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
        .at("cannot write", path)
}

/// Writes a record as JSON.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(io::Error::from)
        .at("cannot serialise", path)?;
    write_atomically(path, &bytes)
}

/// Reads a whole file of bounded size, or nothing where there is none.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at("cannot read", path)?,
    };
    // Most records are smaller: one call reads them.
    let mut bytes = Vec::with_capacity(4096);
    match file.take(limit + 1).read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                reason: "it is a directory".to_owned(),
            });
        }
        other => other.at("cannot read", path)?,
    };
    if bytes.len() as u64 > limit {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            reason: format!("it has more than {limit} bytes"),
        });
    }
    Ok(Some(bytes))
}

/// Reads a JSON record, or nothing where there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read_bounded(path, RECORD_LIMIT)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(StoreError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// Returns the names in a directory, sorted, without those of files being written.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        other => other.at("cannot list", path)?,
    };
    for entry in entries {
        let entry = entry.at("cannot list", path)?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a file, or a directory with all that is in it, where there is one.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.at("cannot remove", path)?,
    };
    if meta.is_dir() {
        fs::remove_dir_all(path).at("cannot remove", path)
    } else {
        fs::remove_file(path).at("cannot remove", path)
    }
}

/// Sets the time of a file or directory, which says when it was used last.
pub(super) fn touch(path: &Path) {
    let now = TimeSpec::UTIME_NOW;
    let at = nix::fcntl::AT_FDCWD;
    // On a disk that takes no writes, everything is as old as it was.
    let _ = utimensat(at, path, &now, &now, UtimensatFlags::NoFollowSymlink);
}

/// Removes a file, where there is one. Returns whether there was.
pub(super) fn remove_file(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("cannot remove", path),
    }
}
