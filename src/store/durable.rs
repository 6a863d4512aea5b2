//! When what was written is on the disk.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{IoContext as _, Layer, Result, Store, files};

/// The file system of a store, opened before anything is written there: a descriptor is told of
/// the errors since it was opened (syncfs(2), NOTES).
#[derive(Debug)]
pub(super) struct Disk {
    root: File,
    /// What was begun and is not yet waited for.
    begun: Mutex<Vec<JoinHandle<io::Result<()>>>>,
}

impl Disk {
    pub(super) fn open(root: &Path) -> Result<Disk> {
        let root = File::open(root).at("cannot open", root)?;
        let begun = Mutex::default();
        Ok(Disk { root, begun })
    }

    fn begin(&self) -> io::Result<()> {
        // The same open file, and so the same errors.
        let root = self.root.try_clone()?;
        let work = move || Ok(nix::unistd::syncfs(&root)?);
        let thread = std::thread::Builder::new().name("sync".to_owned());
        let thread = thread.spawn(work)?;
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.push(thread);
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in begun.drain(..) {
            let ended = thread.join();
            ended.map_err(|_| io::Error::other("the thread of a sync has stopped"))??;
        }
        Ok(nix::unistd::syncfs(&self.root)?)
    }
}

impl Store {
    /// Lets the disk begin to write, beside what goes on here, what [`Store::sync`] waits for.
    pub fn begin_sync(&self) {
        // Without a thread, all of it is written then.
        let _ = self.disk.begin();
    }

    /// Waits until all that was written is on the disk, and marks the layers so that they
    /// count after a reboot too.
    ///
    /// # Errors
    /// What syncfs(2) says.
    pub fn sync<'a>(&self, layers: impl IntoIterator<Item = &'a Arc<Layer>>) -> Result<()> {
        let layers: Vec<_> = layers
            .into_iter()
            .filter(|layer| !layer.directory.join("synced").exists())
            .collect();
        if layers.is_empty() {
            return Ok(());
        }
        self.disk.wait().at("cannot sync", self.root())?;
        for layer in layers {
            files::write_atomically(&layer.directory.join("synced"), b"")?;
        }
        Ok(())
    }
}
