//! Sessions and locks: what one process has in the works, and how others find out that it
//! has ended.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};

use super::files::unique_name;
use super::{IoContext, Result, Store};

/// A lock on a file of its own below `locks/`. Released when dropped, or when the process ends.
pub struct Lock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

/// A lock on a step: on a byte of a file of all of them, so that no files gather.
pub struct StepLock(#[allow(dead_code, reason = "held for its drop")] File);

/// The work of one process below `tmp/`. It has a directory once something is put there, so
/// that what only removes works on a full disk too.
pub struct Session {
    store: Store,
    place: Mutex<Place>,
}

/// Where a session's work is.
enum Place {
    /// Nothing was asked for yet.
    None,
    /// In a directory whose lock tells others that the process lives.
    Directory { path: PathBuf, _lock: Flock<File> },
    /// It was taken away: what goes on in this process must leave nothing behind.
    Abandoned,
}

impl Session {
    /// Creates a new empty directory that goes with the session.
    ///
    /// # Errors
    /// Disk full, and the like; the session was abandoned.
    pub fn directory(&self) -> Result<PathBuf> {
        let path = self.file()?;
        fs::create_dir(&path).at("cannot create", &path)?;
        Ok(path)
    }

    /// Returns a path for a new file that goes with the session.
    ///
    /// # Errors
    /// As for [`Session::directory`].
    pub fn file(&self) -> Result<PathBuf> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, Place::None) {
            *place = self.store.session_place()?;
        }
        match &*place {
            Place::Directory { path, .. } => Ok(path.join(unique_name())),
            _ => Err(io::Error::from(io::ErrorKind::Interrupted))
                .at("cannot create", &self.store.dir("tmp")),
        }
    }

    /// Tells whether something was put there: a build that found all it needs has nothing.
    pub fn has_work(&self) -> bool {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*place, Place::Directory { .. })
    }

    /// Sets a directory aside, to be removed later.
    pub fn discard(&self, path: &Path) {
        // Where it can't be moved, it goes with the session.
        let _ = self.store.trash(path);
    }

    /// Moves all that the session has to the trash, for good: also where a signal ends the
    /// process while other threads are at work.
    pub fn abandon(&self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Place::Directory { path, .. } = &*place {
            let target = self.store.dir("trash").join(unique_name());
            if fs::rename(path, &target).is_err() {
                let _ = fs::remove_dir_all(path);
            }
        }
        *place = Place::Abandoned;
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

/// Tells whether the process of a session's directory has not ended.
pub(super) fn lives(directory: &Path) -> bool {
    let lock = File::options().write(true).open(directory.join("lock"));
    lock.is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err())
}

fn flock(path: &Path, how: FlockArg) -> Result<Flock<File>> {
    let mut file = lock_file(path)?;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
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

    /// Takes the lock of a step, or returns nothing where somebody else has it, in this process
    /// or another. `id` is a hash of what the step is.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn try_lock_step(&self, id: [u8; 8]) -> Result<Option<StepLock>> {
        let path = self.dir("locks").join("steps");
        let file = lock_file(&path)?;
        let byte = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: i64::from_le_bytes(id) & (i64::MAX >> 1),
            l_len: 1,
            l_pid: 0,
        };
        // Of the open file, not of the process: stages of one build wait for each other too.
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&byte)) {
            Ok(_) => Ok(Some(StepLock(file))),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(errno).at("cannot lock", &path),
        }
    }

    /// Takes the lock of a name together with others, or returns nothing where a process has
    /// it alone.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn try_lock_shared(&self, name: &str) -> Result<Option<Lock>> {
        let path = self.dir("locks").join(name);
        Ok(Flock::lock(lock_file(&path)?, FlockArg::LockSharedNonblock)
            .ok()
            .map(Lock))
    }

    /// Starts a session.
    pub fn session(&self) -> Session {
        Session {
            store: self.clone(),
            place: Mutex::new(Place::None),
        }
    }

    fn session_place(&self) -> Result<Place> {
        // Shared with other sessions that start, not with a sweep: it must not see the
        // directory before its lock is taken.
        let _starting = self.lock_shared("tmp")?;
        let path = self.dir("tmp").join(unique_name());
        fs::create_dir(&path).at("cannot create", &path)?;
        let lock = flock(&path.join("lock"), FlockArg::LockExclusive).inspect_err(|_| {
            let _ = fs::remove_dir_all(&path);
        })?;
        Ok(Place::Directory { path, _lock: lock })
    }

    /// Moves what ended processes have left below `tmp/` to the trash.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn sweep(&self) -> Result<()> {
        self.sweep_containers()?;
        let tmp = self.dir("tmp");
        if super::files::names(&tmp)?.is_empty() {
            return Ok(());
        }
        // From here on no session starts: what has no lock now belongs to no one.
        let _alone = self.lock("tmp")?;
        for name in super::files::names(&tmp)? {
            let path = tmp.join(&name);
            if !lives(&path) {
                // Its process may be taking it away itself, which is as good.
                self.trash(&path)?;
            }
        }
        Ok(())
    }

    /// Tells whether there is something in the trash.
    pub fn has_trash(&self) -> bool {
        !self.trash_names().is_empty()
    }

    /// Returns what is in the trash.
    pub fn trash_names(&self) -> Vec<String> {
        super::files::names(&self.dir("trash")).unwrap_or_default()
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
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
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
