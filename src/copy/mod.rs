//! Images from one place to another as they are: manifests, indexes and blobs, byte for byte,
//! unless [`Changes`] are asked for. Nothing is unpacked, and no blob is held in memory.
//!
//! [`Origin`] and [`Goal`] are what a place can do; [`copy`] brings the blobs of a [`Plan`],
//! several at once, and each document after what it refers to: whoever finds one finds all
//! of it.

mod describe;
mod error;
mod files;
mod list;
mod registry;
mod repack;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use describe::describe;
pub use error::CopyError;
pub use files::{FileOrigin, Files};
pub use list::{ListOrigin, ManifestList};
pub use registry::{RegistryGoal, RegistryOrigin};
pub use repack::Changes;
pub use store::{StoreGoal, StoreOrigin};

use crate::event::{TransferOutcome, Verb};
use crate::image::{Descriptor, DiffId, Digest, Manifest, ManifestKind, Platform, Reference};
use crate::registry::Progress;
use crate::store::GrowingBlob;
use crate::transfer::Transfer;
use repack::Repacking;

/// How many blobs are under way at once.
const PARALLEL: usize = 4;

/// No copy has more manifests, indexes and blobs …
const MOST_DOCUMENTS: usize = 1 << 16;

/// … and all manifests and indexes together are not larger, in bytes.
const DOCUMENTS_LIMIT: u64 = 64 << 20;

/// Indexes within indexes.
const DEEPEST: usize = 4;

/// A manifest or an index.
#[derive(Clone, Debug)]
pub struct Document {
    /// What and how large it is.
    pub descriptor: Descriptor,
    /// Byte for byte.
    pub bytes: Vec<u8>,
}

/// A blob as it is read; by its end it has been verified.
pub type BlobStream = Box<dyn Read + Send>;

/// Where an image comes from.
pub trait Origin: Sync {
    /// Returns what the name stands for.
    ///
    /// # Errors
    /// It is not there.
    fn root(&self) -> Result<Document, CopyError>;

    /// Returns a manifest, or an index, that another document refers to, verified.
    ///
    /// # Errors
    /// It is not there, or another one.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CopyError>;

    /// Opens a blob at its first byte.
    ///
    /// # Errors
    /// It is not there.
    fn blob(&self, blob: &Descriptor, progress: Progress) -> Result<BlobStream, CopyError>;

    /// Returns a repository that has a blob, where one is known.
    fn repository(&self, _blob: &Digest) -> Option<Reference> {
        None
    }
}

/// Where an image goes.
pub trait Goal: Sync {
    /// Brings a blob, unless it is there.
    ///
    /// # Errors
    /// Of either place.
    fn blob(
        &self,
        blob: &Descriptor,
        origin: &dyn Origin,
        progress: Progress,
    ) -> Result<TransferOutcome, CopyError>;

    /// Puts a document; all that it refers to is there. The last one is what was asked for.
    ///
    /// # Errors
    /// Disk full, a registry that refuses, and the like.
    fn document(&self, document: &Document, is_root: bool) -> Result<(), CopyError>;

    /// Tells whether a blob is there already.
    ///
    /// # Errors
    /// It can't be found out.
    fn has(&self, blob: &Descriptor) -> Result<bool, CopyError>;

    /// Has a blob made by `make`, and takes it meanwhile where that is possible. Returns whether
    /// it is there then; else [`Goal::blob`] has to bring it.
    ///
    /// # Errors
    /// It could not be made, or the place refuses it for good.
    fn growing(
        &self,
        _name: &str,
        _blob: &GrowingBlob,
        _progress: Progress,
        make: Box<dyn FnOnce() -> Result<(), CopyError> + '_>,
    ) -> Result<bool, CopyError> {
        make()?;
        Ok(false)
    }

    /// Tells whether several blobs may come at once.
    fn takes_several(&self) -> bool {
        true
    }
}

/// What of an index is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of it, and the index itself.
    All,
    /// One image.
    Platform(Platform),
}

/// What is to be copied: the documents, each after those that it refers to, and the blobs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The last one is what is asked for.
    pub documents: Vec<Document>,
    /// Each once.
    pub blobs: Vec<Descriptor>,
    /// The manifests among the documents.
    pub manifests: Vec<Manifest>,
    /// The layers that are compressed anew.
    anew: BTreeMap<Digest, DiffId>,
    changes: Changes,
}

impl Plan {
    /// Reads all documents that are to be copied.
    ///
    /// # Errors
    /// One is missing, or no manifest or index; there is no image for the platform.
    pub fn make(origin: &dyn Origin, which: &Which) -> Result<Plan, CopyError> {
        let mut walk = Walk {
            origin,
            which,
            seen: BTreeSet::new(),
            bytes: 0,
            plan: Plan {
                documents: Vec::new(),
                blobs: Vec::new(),
                manifests: Vec::new(),
                anew: BTreeMap::new(),
                changes: Changes::default(),
            },
        };
        walk.descend(origin.root()?, 0)?;
        Ok(walk.plan)
    }

    /// Returns what is asked for.
    ///
    /// # Errors
    /// The plan is empty.
    pub fn root(&self) -> Result<&Document, CopyError> {
        let none = || CopyError::Unusable("there is nothing to copy".to_owned());
        self.documents.last().ok_or_else(none)
    }
}

struct Walk<'a> {
    origin: &'a dyn Origin,
    which: &'a Which,
    seen: BTreeSet<Digest>,
    bytes: u64,
    plan: Plan,
}

impl Walk<'_> {
    fn descend(&mut self, document: Document, depth: usize) -> Result<(), CopyError> {
        let digest = &document.descriptor.digest;
        self.seen.insert(digest.clone());
        self.bytes += document.bytes.len() as u64;
        let kind = ManifestKind::parse(&document.bytes, Some(&document.descriptor.media_type))
            .map_err(|source| CopyError::Manifest {
                digest: digest.clone(),
                source,
            })?;
        match kind {
            ManifestKind::Image(manifest) => {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    if self.seen.insert(blob.digest.clone()) {
                        self.plan.blobs.push(blob.clone());
                    }
                }
                self.plan.manifests.push(manifest);
                self.plan.documents.push(document);
            }
            ManifestKind::Index(_) if depth >= DEEPEST => {
                return Err(CopyError::Unusable(format!(
                    "its indexes are nested deeper than {DEEPEST}"
                )));
            }
            ManifestKind::Index(index) => match self.which {
                Which::All => {
                    for entry in index.entries {
                        self.follow(&entry.descriptor, depth)?;
                    }
                    self.plan.documents.push(document);
                }
                Which::Platform(platform) => {
                    let entry = index.choose(platform);
                    let entry = entry.ok_or_else(|| CopyError::NoPlatform {
                        digest: digest.clone(),
                        wanted: Box::new(platform.clone()),
                        available: index.platforms(),
                    })?;
                    self.follow(&entry.descriptor, depth)?;
                }
            },
        }
        if self.seen.len() > MOST_DOCUMENTS || self.bytes > DOCUMENTS_LIMIT {
            return Err(CopyError::Unusable(format!(
                "it has more than {MOST_DOCUMENTS} manifests and blobs, or more than \
                 {DOCUMENTS_LIMIT} bytes of manifests"
            )));
        }
        Ok(())
    }

    fn follow(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), CopyError> {
        if self.seen.contains(&descriptor.digest) {
            return Ok(());
        }
        let bytes = self.origin.document(descriptor)?;
        if bytes.len() as u64 != descriptor.size {
            return Err(CopyError::Unusable(format!(
                "the manifest {} has {} bytes, and its index says {}",
                descriptor.digest,
                bytes.len(),
                descriptor.size
            )));
        }
        let document = Document {
            descriptor: descriptor.clone(),
            bytes,
        };
        self.descend(document, depth + 1)
    }
}

/// Brings all that a plan has to a goal. Returns what is there now, which is another plan where
/// changes were asked for.
///
/// # Errors
/// The first of either place. What came before it may stay, and nothing refers to it.
pub fn copy(
    transfer: &Transfer<'_>,
    plan: &Plan,
    origin: &dyn Origin,
    goal: &dyn Goal,
    verb: Verb,
) -> Result<Plan, CopyError> {
    let next = AtomicUsize::new(0);
    let first_error: Mutex<Option<CopyError>> = Mutex::new(None);
    let failed = || first_error.lock().is_ok_and(|error| error.is_some());
    let replaced = Mutex::new(BTreeMap::new());
    let repacking = Repacking {
        transfer,
        origin,
        goal,
        compressor: plan.changes.compressor.unwrap_or_default(),
        turn: Mutex::new(()),
    };
    let bring = |blob: &Descriptor| {
        if let Some(diff_id) = plan.anew.get(&blob.digest) {
            let now = repacking.layer(blob, diff_id, verb)?;
            if let Ok(mut replaced) = replaced.lock() {
                replaced.insert(blob.digest.clone(), now);
            }
            return Ok(());
        }
        let reported = transfer.begin(blob.digest.short(), verb, Some(blob.size));
        let outcome = goal.blob(blob, origin, reported.progress())?;
        reported.end(outcome);
        Ok(())
    };
    let work = || {
        while !failed()
            && let Some(blob) = plan.blobs.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(error) = bring(blob)
                && let Ok(mut first) = first_error.lock()
            {
                first.get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers = match goal.takes_several() {
            true => PARALLEL.min(plan.blobs.len()),
            false => 1,
        };
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    if let Some(error) = first_error.into_inner().unwrap_or_default() {
        return Err(error);
    }
    let plan = plan.changed(replaced.into_inner().unwrap_or_default())?;
    let last = plan.documents.len().saturating_sub(1);
    for (at, document) in plan.documents.iter().enumerate() {
        goal.document(document, at == last)?;
    }
    Ok(plan)
}
