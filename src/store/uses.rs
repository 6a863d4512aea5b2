//! What processes use of the store: a collection takes nothing of it.
//!
//! A thing is used from the moment at which it is found until the process ends. That is said by
//! a shared lock on a byte of `locks/uses`, which the kernel takes back however the process ends:
//! one file for all, so that nothing is left over. A collection has the bytes of what it may take
//! away for itself before it finds out what is needed; who looks for such a thing meanwhile
//! waits for that, and then finds it or doesn't.
//!
//! Who waits for a byte may have a lock of the store. So a collection has all the locks that it
//! needs before it takes the first byte.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::{IoContext, Result, Store};

/// The file whose bytes are locked.
const FILE: &str = "locks/uses";

/// A kind of thing that can be used.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A directory in `layers/`.
    Layer,
    /// A directory in `merged/<form>/`.
    Merged,
    /// A blob.
    Blob,
}

/// What a process uses: an open file with locks.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses(Arc<Mutex<Option<File>>>);

/// A collection's claim on what nobody uses.
pub(super) struct Claim(File);

fn byte(kind: Kind, name: &str, how: libc::c_int) -> libc::flock {
    let hash = blake3::hash(format!("{kind:?} {name}").as_bytes());
    let mut start = [0; 8];
    start.copy_from_slice(&hash.as_bytes()[..8]);
    libc::flock {
        l_type: how as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        // Where two things share a byte, one is kept for the other.
        l_start: i64::from_le_bytes(start) & (i64::MAX >> 1),
        l_len: 1,
        l_pid: 0,
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        // On a disk that takes no writes, nothing is removed either.
        .or_else(|_| File::open(path))
}

impl Uses {
    /// Forgets all uses of this process.
    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Store {
    /// Declares that this process uses a thing, whether it is there or not. To be called before
    /// one looks whether it is. Waits for a collection that is about to take it.
    pub(super) fn uses(&self, kind: Kind, name: &str) {
        let Some(uses) = &self.uses else {
            return;
        };
        let byte = byte(kind, name, libc::F_RDLCK);
        let mut file = uses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = open(&self.dir(FILE)).ok();
        }
        // Where the file can't be opened, the store can't be written, and a lock that can't be
        // had is no reason to fail.
        if let Some(file) = file.as_ref() {
            while let Err(Errno::EINTR) = fcntl(file, FcntlArg::F_OFD_SETLKW(&byte)) {}
        }
    }

    /// Ends all that this process uses: it is not going to look at it any more.
    pub fn end_uses(&self) {
        if let Some(uses) = &self.uses {
            uses.end();
        }
    }

    /// Returns the store for one who collects: it finds things without using them.
    pub(super) fn for_collection(&self) -> Store {
        Store {
            uses: None,
            ..self.clone()
        }
    }

    /// Begins to claim what nobody uses.
    pub(super) fn claim(&self) -> Result<Claim> {
        let path = self.dir(FILE);
        open(&path).at("cannot open the lock", &path).map(Claim)
    }
}

impl Claim {
    /// Claims a thing. Returns false where a process uses it, this one as well.
    pub(super) fn take(&self, kind: Kind, name: &str) -> bool {
        let byte = byte(kind, name, libc::F_WRLCK);
        fcntl(&self.0, FcntlArg::F_OFD_SETLK(&byte)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_can_t_be_claimed_until_its_user_ends() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        store.uses(Kind::Layer, "a");
        let claim = store.claim().unwrap();
        assert!(!claim.take(Kind::Layer, "a"));
        assert!(claim.take(Kind::Layer, "b") && claim.take(Kind::Blob, "a"));
        store.end_uses();
        assert!(claim.take(Kind::Layer, "a"));
    }

    #[test]
    fn who_looks_for_what_is_claimed_waits() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let claim = store.claim().unwrap();
        assert!(claim.take(Kind::Layer, "a"));
        let user = std::thread::spawn({
            let store = store.clone();
            move || store.uses(Kind::Layer, "a")
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!user.is_finished());
        drop(claim);
        user.join().unwrap();
    }
}
