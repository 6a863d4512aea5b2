//! The store: one directory of plain files, safe for many processes at once.
//!
//! ```text
//! refs/<encoded name>        a name and its image
//! lists/<encoded name>       an index that `kiln manifest` puts together
//! images/<hex>               an image by its config digest: when it came here
//! blobs/sha256/<hex>         manifests, configs, layers as pulled or compressed for export
//! compressed/<diff_id hex>   which blobs hold a layer, by compression
//! layers/<id>/{fs,layer.json}    extracted trees, immutable
//! diff/<form>/<diff_id hex>  → layers/<id>, where the tree does not depend on what lies below
//! chain/<form>/<chain_id hex> → layers/<id>, where it does
//! cache/<inputs>/<chain_id hex>  step records, by what was given and what lay below
//! traces/<place>             what steps were given last, for explanations
//! containers/<id>/           what each has changed, and how it runs
//! merged/<form>/<chain_id hex>-<boot id>  many layers as one tree, of links to their files
//! mounts/<form>/<name>       directories of RUN --mount=type=cache
//! logs/<time>.log            what steps wrote that failed last
//! contexts/<form>/<key>      snapshots of files that RUN --mount=type=bind shows
//! stat/<dev>-<ino>           hashes of a context's files, see [`crate::context::stat_cache`]
//! urls/<hex>                 what URLs gave, by their own digest
//! tmp/<session>/             work of one process, with a lock that it holds
//! trash/                     what is being removed
//! locks/                     lock files, never renamed; `steps` has a byte for each step, `uses`
//!                            one for each layer or blob that a process uses
//! ```
//!
//! Data is written below `tmp/` and renamed; references are published last. After a crash
//! there may be garbage, never a broken image.

mod blobs;
mod cache;
mod containers;
mod durable;
mod files;
mod fsck;
mod gc;
mod growth;
mod images;
mod inventory;
mod layers;
mod limit;
mod lists;
mod merged;
mod mounts;
mod places;
mod prune;
mod session;
mod urls;
mod uses;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use blobs::{BlobWriter, Verifying};
pub use cache::StepRecord;
pub use containers::{
    Container, ContainerLock, ContainerMount, ContainerProcess, ContainerRecord, ContainerSettings,
    ContainerState, ContainerStatus, Hold, MountSource, Watched, process_ticks,
};
pub use fsck::{Damage, Verified};
pub use gc::Freed;
pub use growth::GrowingBlob;
pub use images::{Image, RefRecord, Removed};
pub use inventory::{Amount, CacheItem, CacheKind, Inventory};
pub(crate) use layers::boot_id;
pub use layers::{CompressedBlob, Layer, Stack};
pub use limit::Shrunk;
pub use lists::ListRecord;
pub use mounts::{MOUNTED, Snapshot};
pub use prune::{Extent, LabelFilter, PruneOptions, Pruned};
pub use session::{Lock, Session, StepLock};
pub use urls::UrlRecord;

use crate::image::{Digest, Reference, ReferenceError};
use crate::layer::Ownership;

/// A store with less room than this counts as full, in bytes.
const SCARCE_BYTES: u64 = 1 << 20;

/// Likewise, in files.
const SCARCE_FILES: u64 = 16;

/// What every store has, what is made last coming last.
const DIRECTORIES: [&str; 12] = [
    "blobs",
    "images",
    "compressed",
    "diff",
    "chain",
    "cache",
    "stat",
    "tmp",
    "trash",
    "layers",
    "refs",
    "locks",
];

/// What a store has once it is needed.
const LATER: [&str; 8] = [
    "containers",
    "contexts",
    "lists",
    "logs",
    "merged",
    "mounts",
    "traces",
    "urls",
];

/// What is removed last of a store: what has them is one.
const LAST: [&str; 3] = ["layers", "refs", "locks"];

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, such as `cannot write`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the store does not hold what it should.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob that is not there.
    #[error("blob {0} is not in the store")]
    NoBlob(Digest),
    /// No image has this name or id.
    #[error("no such image: {0}")]
    NoImage(String),
    /// An id prefix that several images share.
    #[error("the id {0} is ambiguous: several images start with it")]
    Ambiguous(String),
    /// A name that is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// An image that can't be removed by its id alone.
    #[error("unable to delete {id}: the image has several names ({names})")]
    SeveralNames {
        /// The short id.
        id: String,
        /// Its names.
        names: String,
    },
    /// An image that a container has.
    #[error(
        "unable to delete {id} ({}) - image is being used by {} container {container}",
        if *runs { "cannot be forced" } else { "must be forced" },
        if *runs { "running" } else { "stopped" }
    )]
    ImageInUse {
        /// The short id of the image.
        id: String,
        /// The short id of the container.
        container: String,
        /// Whether that runs.
        runs: bool,
    },
    /// No container has this name or id.
    #[error("no such container: {0}")]
    NoContainer(String),
    /// An id prefix that several containers share.
    #[error("the id {0} is ambiguous: several containers start with it")]
    AmbiguousContainer(String),
    /// A container's name that another has.
    #[error("the container name {name:?} is already in use by container {id}")]
    NameInUse {
        /// The name.
        name: String,
        /// The short id of the other.
        id: String,
    },
    /// A container whose image can't be put together any more.
    #[error("layers of the image {image} are missing, which the container {container} has")]
    LayersMissing {
        /// The image as it was named.
        image: String,
        /// The container.
        container: String,
    },
    /// A layer tree could not be read.
    #[error(transparent)]
    Layer(#[from] crate::layer::LayerError),
}

impl StoreError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            StoreError::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some(
                    "the store belongs to another user? choose one with --root or KILN_ROOT"
                        .to_owned(),
                ),
                _ => crate::layer::space_hint(source),
            },
            StoreError::NoImage(name) => Some(format!(
                "`kiln images` lists what there is; `kiln pull {name}` fetches it"
            )),
            StoreError::Damaged { .. } | StoreError::NoBlob(_) => {
                Some("pull or build the image again".to_owned())
            }
            StoreError::SeveralNames { .. } => {
                Some("remove it by name, or all of it with -f".to_owned())
            }
            StoreError::ImageInUse {
                container, runs, ..
            } => Some(match runs {
                true => format!("stop it first: kiln stop {container}"),
                false => format!("remove it first: kiln rm {container}"),
            }),
            StoreError::NoContainer(_) => Some("`kiln ps -a` lists what there is".to_owned()),
            StoreError::NameInUse { id, .. } => Some(format!(
                "choose another, or remove that container first: kiln rm {id}"
            )),
            StoreError::LayersMissing { image, .. } => {
                Some(format!("pull or build it again: kiln pull {image}"))
            }
            StoreError::Layer(error) => error.hint(),
            _ => None,
        }
    }
}

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Attaches what was tried, and on what, to an I/O error.
pub(crate) trait IoContext<T> {
    /// Turns the error into a [`StoreError::Io`].
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| StoreError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

/// How trees are stored: the ownership, and the id map that it was made under.
#[derive(Clone, Debug)]
pub struct Form {
    /// How image ids are stored.
    pub ownership: Ownership,
    /// A name for it, safe in a path. Trees of one name are never read under another.
    pub name: String,
}

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    form: Form,
    /// Absent for one who collects.
    uses: Option<uses::Uses>,
    short_names: ShortNames,
    disk: Arc<durable::Disk>,
}

/// What a name without a registry may stand for, beside docker.io's repository.
pub type ShortNames = fn(&str) -> Vec<Reference>;

impl Store {
    /// Opens the store in a directory, which is made where it is missing. Trees are stored as
    /// one who has a single id can, until [`Store::with_form`] says otherwise.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the directory can't be made or written.
    pub fn open(root: &Path) -> Result<Store> {
        let root = std::path::absolute(root).at("cannot resolve", root)?;
        let form = Form {
            ownership: Ownership::Single,
            name: "single".to_owned(),
        };
        // A store of an earlier kiln may lack some.
        if DIRECTORIES.iter().any(|name| !root.join(name).is_dir()) {
            files::create_private_dir(&root)?;
            for name in ["blobs/sha256", "blobs/sha512"].iter().chain(&DIRECTORIES) {
                let dir = root.join(name);
                std::fs::create_dir_all(&dir).at("cannot create", &dir)?;
            }
        }
        Ok(Store {
            disk: Arc::new(durable::Disk::open(&root)?),
            root,
            form,
            uses: Some(uses::Uses::default()),
            short_names: |_| Vec::new(),
        })
    }

    /// Tells whether a directory is a store, or what `rm -r` has left of one.
    pub fn is_at(root: &Path) -> bool {
        let there = |name: &&&str| root.join(name).is_dir();
        let count = std::fs::read_dir(root).map_or(usize::MAX, Iterator::count);
        let own = DIRECTORIES.iter().chain(&LATER).filter(there).count();
        own == count || LAST.iter().all(|name| root.join(name).is_dir())
    }

    /// Removes the whole store with its directory. Does nothing, and returns false, while
    /// another process uses it.
    ///
    /// # Errors
    /// Something can't be removed.
    pub fn remove(&self) -> Result<bool> {
        let Some(_alone) = self.try_lock("use")? else {
            return Ok(false);
        };
        // The locks last: half a store is still one, and can be removed again.
        for name in files::names(&self.root)? {
            if !LAST.contains(&name.as_str()) {
                files::remove_tree(&self.dir(&name))?;
            }
        }
        for name in LAST {
            for inner in files::names(&self.dir(name))? {
                files::remove_tree(&self.dir(name).join(inner))?;
            }
        }
        files::remove_tree(&self.root)?;
        Ok(true)
    }

    /// Returns the store with further meanings of names without a registry.
    pub fn with_short_names(self, short_names: ShortNames) -> Store {
        Store {
            short_names,
            ..self
        }
    }

    /// Returns the store with trees of another form.
    ///
    /// # Errors
    /// [`StoreError::Io`] where its directories can't be made.
    pub fn with_form(mut self, form: Form) -> Result<Store> {
        self.form = form;
        for kind in ["diff", "chain"] {
            let dir = self.dir(kind).join(&self.form.name);
            if !dir.is_dir() {
                std::fs::create_dir_all(&dir).at("cannot create", &dir)?;
            }
        }
        Ok(self)
    }

    /// Returns the directory that the store is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns how trees are stored here.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Tells whether there is hardly any room left for bytes or files.
    pub fn is_full(&self) -> bool {
        nix::sys::statvfs::statvfs(&self.root).is_ok_and(|fs| {
            // A file system that does not count files says 0 of 0.
            let no_files = fs.files() > 0 && fs.files_available() < SCARCE_FILES;
            fs.blocks_available() * fs.fragment_size() < SCARCE_BYTES || no_files
        })
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_of_an_earlier_kiln_gets_the_directories_that_it_lacks() {
        let root = tempfile::tempdir().unwrap();
        Store::open(root.path()).unwrap();
        std::fs::remove_dir(root.path().join("stat")).unwrap();
        let store = Store::open(root.path()).unwrap();
        store.write_stat_cache("name", b"known").unwrap();
        assert_eq!(store.stat_cache("name").unwrap(), b"known");
    }
}
