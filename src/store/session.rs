//! Sessions and locks: what one process has in the works, and how others find out that it
//! has ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::files::unique_name;
use super::{IoContext, Result, Store};

/// A lock on a file of its own below `locks/`. Released when dropped, or when the process ends.
pub struct Lock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

/// The work of one process below `tmp/`. Its lock tells others that the process lives.
pub struct Session {
    directory: PathBuf,
    trash: PathBuf,
    _lock: Flock<File>,
}

impl Session {
    /// Creates a new empty directory that goes with the session.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn directory(&self) -> Result<PathBuf> {
        let path = self.directory.join(unique_name());
        fs::create_dir(&path).at("cannot create", &path)?;
        Ok(path)
    }

    /// Returns a path for a new file that goes with the session.
    pub fn file(&self) -> PathBuf {
        self.directory.join(unique_name())
    }

    /// Sets a directory aside, to be removed later.
    pub fn discard(&self, path: &Path) {
        // Where it can't be moved, it goes with the session.
        let _ = fs::rename(path, self.trash.join(unique_name()));
    }
}

impl Session {
    /// Takes away all that the session has, while the process is being ended.
    pub fn abandon(&self) {
        let target = self.trash.join(unique_name());
        if fs::rename(&self.directory, &target).is_ok() {
            let _ = fs::remove_dir_all(&target);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn lock_file(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .at("cannot open the lock", path)
}

fn flock(path: &Path, how: FlockArg) -> Result<Flock<File>> {
    let mut file = lock_file(path)?;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((again, nix::errno::Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(errno).at("cannot lock", path),
        }
    }
}

impl Store {
    /// Waits for the lock of a name, alone.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        flock(&self.dir("locks").join(name), FlockArg::LockExclusive).map(Lock)
    }

    /// Takes the lock of a name together with others that share it.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn lock_shared(&self, name: &str) -> Result<Lock> {
        flock(&self.dir("locks").join(name), FlockArg::LockShared).map(Lock)
    }

    /// Takes the lock of a name alone, or returns nothing where another process has it.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        let path = self.dir("locks").join(name);
        Ok(
            Flock::lock(lock_file(&path)?, FlockArg::LockExclusiveNonblock)
                .ok()
                .map(Lock),
        )
    }

    /// Starts a session.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn session(&self) -> Result<Session> {
        // Shared with other sessions that start, not with a sweep: it must not see the
        // directory before its lock is taken.
        let _starting = self.lock_shared("tmp")?;
        let directory = self.dir("tmp").join(unique_name());
        fs::create_dir(&directory).at("cannot create", &directory)?;
        let lock = flock(&directory.join("lock"), FlockArg::LockExclusive)?;
        Ok(Session {
            directory,
            trash: self.dir("trash"),
            _lock: lock,
        })
    }

    /// Moves what ended processes have left below `tmp/` to the trash.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn sweep(&self) -> Result<()> {
        let tmp = self.dir("tmp");
        let sessions = super::files::names(&tmp)?;
        if sessions.is_empty() {
            return Ok(());
        }
        let _alone = self.lock("tmp")?;
        for name in sessions {
            let directory = tmp.join(&name);
            let Ok(file) = File::options().write(true).open(directory.join("lock")) else {
                // It ended between making the directory and the lock; or it is gone already.
                let _ = fs::remove_dir(&directory);
                continue;
            };
            if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
                let target = self.dir("trash").join(unique_name());
                fs::rename(&directory, &target).at("cannot move to the trash", &directory)?;
            }
        }
        Ok(())
    }

    /// Tells whether there is something in the trash.
    pub fn has_trash(&self) -> bool {
        super::files::names(&self.dir("trash")).is_ok_and(|names| !names.is_empty())
    }

    /// Removes what is in the trash. Several processes may do so at once.
    pub fn empty_trash(&self) {
        let trash = self.dir("trash");
        for name in super::files::names(&trash).unwrap_or_default() {
            let path = trash.join(name);
            if fs::remove_dir_all(&path).is_err() {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Moves a file or directory of the store to the trash.
    pub(super) fn trash(&self, path: &Path) -> Result<()> {
        match fs::rename(path, self.dir("trash").join(unique_name())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).at("cannot move to the trash", path)
            }
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Keeps the log of a failed step below `logs/`, where the newest `most` are, and returns
    /// where it is.
    pub fn keep_log(&self, path: &Path, most: usize) -> Option<PathBuf> {
        let logs = self.dir("logs");
        fs::create_dir_all(&logs).ok()?;
        let target = logs.join(format!("{}.log", unique_name()));
        fs::rename(path, &target).ok()?;
        // Names begin with the time.
        let names = super::files::names(&logs).unwrap_or_default();
        for old in names.iter().take(names.len().saturating_sub(most)) {
            let _ = fs::remove_file(logs.join(old));
        }
        Some(target)
    }
}
