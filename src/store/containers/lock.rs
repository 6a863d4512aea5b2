//! The lock that tells whether a container runs, and who uses its files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::{Container, ContainerState};
use crate::store::{IoContext, Result, Store, StoreError};

/// A container's lock, which is looked at also when it has been taken away.
pub struct Watched(File);

impl Watched {
    /// Waits until the container doesn't run.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn wait(&self) -> std::io::Result<()> {
        await_lock(&self.0, range(libc::F_RDLCK, RUNS))?;
        // It was only to be waited for.
        let free = range(libc::F_UNLCK, RUNS);
        fcntl(&self.0, FcntlArg::F_OFD_SETLK(&free))?;
        Ok(())
    }

    /// Returns the exit code of a container that has been taken away since.
    pub fn exit_code(&self) -> Option<i32> {
        let mut code = [0u8; 4];
        self.0.read_exact_at(&mut code, 0).ok()?;
        Some(i32::from_ne_bytes(code))
    }
}

/// A hold on a container: released when dropped, or when the process ends.
pub struct ContainerLock(pub(super) File);

/// What a hold is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// To run it, or to take it away: nobody else has any hold.
    Alone,
    /// To change its files while it doesn't run.
    Change,
    /// To read its files while nobody but itself changes them.
    Read,
}

/// Where the lock file says that a container runs, and that its files are in use.
const RUNS: (i64, i64) = (0, 1);
const FILES: (i64, i64) = (1, 1);
/// Where it says that its processes are stopped by somebody who lets them go on.
const PROCESSES: (i64, i64) = (2, 1);
pub(super) const ALL: (i64, i64) = (0, 2);

pub(super) fn range(kind: i32, (start, length): (i64, i64)) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Takes a lock when it can be had.
fn await_lock(file: &File, range: libc::flock) -> nix::Result<()> {
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&range)) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

impl Container {
    /// Waits until nobody else has its processes stopped for a while.
    ///
    /// # Errors
    /// It has gone.
    pub fn hold_processes(&self) -> Result<ContainerLock> {
        let file = self.lock_file()?;
        await_lock(&file, range(libc::F_WRLCK, PROCESSES)).at("cannot lock", self.directory())?;
        Ok(ContainerLock(file))
    }

    /// Opens its lock, to see how it ends even where it goes with its end.
    ///
    /// # Errors
    /// It has gone.
    pub fn watch(&self) -> Result<Watched> {
        self.lock_file().map(Watched)
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.directory.join("lock");
        File::options()
            .read(true)
            .write(true)
            .open(&path)
            .at("cannot open the lock", &path)
    }

    pub(super) fn runs(directory: &Path) -> bool {
        let Ok(file) = File::open(directory.join("lock")) else {
            return false;
        };
        let mut found = range(libc::F_WRLCK, RUNS);
        match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)) {
            Ok(_) => i32::from(found.l_type) != libc::F_UNLCK,
            Err(_) => false,
        }
    }
}

impl Store {
    /// Takes a hold on a container, or returns nothing where it runs. Waits for those who use
    /// its files for a moment. With it comes the container as it is now.
    ///
    /// # Errors
    /// [`StoreError::NoContainer`] where it has gone meanwhile.
    pub fn hold_container(
        &self,
        container: &Container,
        hold: Hold,
    ) -> Result<Option<(ContainerLock, Container)>> {
        let gone = || StoreError::NoContainer(container.record.name.clone());
        let file = match container.lock_file() {
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(gone());
            }
            other => other?,
        };
        let path = container.directory();
        let take = |kind, bytes, wait| {
            let range = range(kind, bytes);
            if wait {
                return await_lock(&file, range)
                    .map(|()| true)
                    .at("cannot lock", path);
            }
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&range)) {
                Ok(_) => Ok(true),
                Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
                Err(errno) => Err(errno).at("cannot lock", path),
            }
        };
        let taken = match hold {
            // Who runs it never waits for the byte of another who does.
            Hold::Alone => take(libc::F_WRLCK, RUNS, false)? && take(libc::F_WRLCK, ALL, true)?,
            Hold::Change => !Container::runs(path) && take(libc::F_WRLCK, FILES, true)?,
            Hold::Read => !Container::runs(path) && take(libc::F_RDLCK, FILES, true)?,
        };
        if !taken {
            return Ok(None);
        }
        // It may have gone, or been started, while this one waited.
        let mut now = self.container_at(&container.record.id)?.ok_or_else(gone)?;
        if hold == Hold::Alone {
            now.state = ContainerState::of(&now.status, false);
        }
        Ok(Some((ContainerLock(file), now)))
    }
}
