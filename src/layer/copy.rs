//! Copies the content of a file: shared extents where the file system can, holes kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::unistd::{Whence, lseek64};

/// A run of data between holes.
pub(super) struct Run {
    pub start: u64,
    pub end: u64,
}

/// Returns the next run of data at or after `from` in a file of `size` bytes. Where the file
/// system knows no holes, all is data.
pub(super) fn next_run(file: &File, from: u64, size: u64) -> io::Result<Option<Run>> {
    if from >= size {
        return Ok(None);
    }
    let seek = |at: u64, whence| -> nix::Result<u64> {
        let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
        Ok(lseek64(file, at, whence)?.unsigned_abs())
    };
    let start = match seek(from, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(Errno::EINVAL) => from,
        Err(errno) => return Err(errno.into()),
    };
    let end = match seek(start, Whence::SeekHole) {
        Ok(end) => end.min(size),
        Err(Errno::EINVAL) => size,
        Err(errno) => return Err(errno.into()),
    };
    Ok((start < end).then_some(Run { start, end }))
}

/// Makes `target`, which is empty, a copy of `source`. Returns the size.
pub(crate) fn copy(source: &File, target: &File) -> io::Result<u64> {
    let size = source.metadata()?.len();
    let mut at = 0;
    while let Some(run) = next_run(source, at, size)? {
        copy_run(source, target, &run)?;
        at = run.end;
    }
    if size > 0 {
        target.set_len(size)?;
    }
    Ok(size)
}

fn copy_run(source: &File, target: &File, run: &Run) -> io::Result<()> {
    let signed = |at: u64| i64::try_from(at).map_err(|_| io::Error::from(Errno::EOVERFLOW));
    let (mut from, mut to) = (signed(run.start)?, signed(run.start)?);
    while from.unsigned_abs() < run.end {
        let left = usize::try_from(run.end - from.unsigned_abs()).unwrap_or(1 << 30);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::EINTR) => {}
            Err(
                Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM,
            ) => {
                return read_and_write(source, target, from.unsigned_abs(), run.end);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn read_and_write(source: &File, target: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    while at < end {
        let want = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        match source.read_at(&mut buffer[..want], at)? {
            0 => return Ok(()),
            count => {
                target.write_all_at(&buffer[..count], at)?;
                at += count as u64;
            }
        }
    }
    Ok(())
}
