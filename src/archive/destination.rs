//! Where archives and layouts are written: all of one, or nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{AT_FDCWD, AtFlags};

use super::{ArchiveError, IoContext, Result};

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file, which is replaced when all is written.
    File(PathBuf),
    /// A directory, which is made if it is missing.
    Directory(PathBuf),
    /// Standard output, which must not be a terminal.
    Stdout,
}

/// A stream that becomes the file that it is meant for by [`Sink::commit`].
pub(super) struct Sink {
    writer: BufWriter<File>,
    target: PathBuf,
    staging: Staging,
}

/// Where the bytes are before they count.
enum Staging {
    /// In a file without a name, beside the target: nothing is left of it however kiln ends.
    Nameless,
    /// In a file beside the target, where the file system knows no others.
    Named(PathBuf),
    /// In the target itself, which is a pipe or a device.
    None,
}

/// Returns a name that no other process uses.
fn temporary_beside(target: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = format!(".kiln-{:x}-{count:x}", std::process::id());
    target.with_file_name(name)
}

impl Sink {
    /// Opens a file to be replaced.
    ///
    /// # Errors
    /// The directory can't be written.
    pub(super) fn to_file(path: &Path) -> Result<Sink> {
        let target = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(io::Error::from(io::ErrorKind::IsADirectory)).at("cannot write", path);
            }
            Ok(metadata) if !metadata.is_file() => {
                let file = File::options().write(true).open(path);
                return Ok(Sink {
                    writer: BufWriter::with_capacity(1 << 17, file.at("cannot write", path)?),
                    target: path.to_owned(),
                    staging: Staging::None,
                });
            }
            // A link stays, and what it leads to is replaced.
            Ok(_) => path.canonicalize().at("cannot write", path)?,
            Err(_) => path.to_owned(),
        };
        let directory = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let nameless = File::options()
            .write(true)
            .mode(0o666)
            .custom_flags(libc::O_TMPFILE)
            .open(directory);
        let (file, staging) = match nameless {
            Ok(file) => (file, Staging::Nameless),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(error).at("cannot write", path);
            }
            Err(_) => {
                let temporary = temporary_beside(&target);
                let file = File::create_new(&temporary).at("cannot write", path)?;
                (file, Staging::Named(temporary))
            }
        };
        Ok(Sink {
            writer: BufWriter::with_capacity(1 << 17, file),
            target,
            staging,
        })
    }

    /// Opens standard output.
    ///
    /// # Errors
    /// [`ArchiveError::Terminal`].
    pub(super) fn to_stdout() -> Result<Sink> {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(ArchiveError::Terminal("write an archive to"));
        }
        let target = PathBuf::from("standard output");
        let file = stdout.as_fd().try_clone_to_owned();
        Ok(Sink {
            writer: BufWriter::with_capacity(1 << 17, file.at("cannot write", &target)?.into()),
            target,
            staging: Staging::None,
        })
    }

    /// Returns what it is written to, for errors.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// Disk full, and the like. The target is then as it was.
    pub(super) fn commit(mut self) -> Result<()> {
        let target = self.target.clone();
        self.writer.flush().at("cannot write", &target)?;
        if let Staging::Nameless = self.staging {
            let temporary = temporary_beside(&target);
            let descriptor = self.writer.get_ref().as_raw_fd();
            let own = format!("/proc/self/fd/{descriptor}");
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            nix::unistd::linkat(AT_FDCWD, own.as_str(), AT_FDCWD, &temporary, follow)
                .at("cannot write", &target)?;
            self.staging = Staging::Named(temporary);
        }
        if let Staging::Named(temporary) = &self.staging {
            fs::rename(temporary, &target).at("cannot write", &target)?;
            self.staging = Staging::None;
        }
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Staging::Named(temporary) = &self.staging {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// A directory that files are put into. What was made is removed again, unless
/// [`Directory::keep`] is called.
pub(super) struct Directory {
    path: PathBuf,
    made: Mutex<Vec<PathBuf>>,
}

impl Directory {
    /// Opens a directory, which is made if it is missing; its parent must exist.
    ///
    /// # Errors
    /// It can't be made.
    pub(super) fn open(path: &Path) -> Result<Directory> {
        let directory = Directory {
            path: path.to_owned(),
            made: Mutex::default(),
        };
        directory.make(path)?;
        Ok(directory)
    }

    fn note(&self, path: PathBuf) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push(path);
    }

    fn make(&self, path: &Path) -> Result<()> {
        match fs::create_dir(path) {
            Ok(()) => {
                self.note(path.to_owned());
                Ok(())
            }
            Err(_) if path.is_dir() => Ok(()),
            Err(error) => Err(error).at("cannot create", path),
        }
    }

    /// Makes a directory within it.
    ///
    /// # Errors
    /// It can't be made.
    pub(super) fn directory(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        self.make(&path)
    }

    /// Puts a file into it, in place of one that is there.
    ///
    /// # Errors
    /// Disk full, and the like, or those of `write`.
    pub(super) fn put<E: From<ArchiveError>>(
        &self,
        name: &str,
        write: impl FnOnce(&mut Sink) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let path = self.path.join(name);
        let existed = path.symlink_metadata().is_ok();
        let mut sink = Sink::to_file(&path)?;
        write(&mut sink)?;
        sink.commit()?;
        if !existed {
            self.note(path);
        }
        Ok(())
    }

    /// Keeps what was made.
    pub(super) fn keep(self) {
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let made = self.made.get_mut();
        for path in made.unwrap_or_else(PoisonError::into_inner).iter().rev() {
            // Directories that someone else has put something into stay.
            if fs::remove_file(path).is_err() {
                let _ = fs::remove_dir(path);
            }
        }
    }
}
