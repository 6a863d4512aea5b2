//! A cache that another build wrote.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::records::{CachedLayer, Records};
use super::{CacheError, DOCUMENT_LIMIT, NAME, RECORDS};
use crate::archive::load::Counted;
use crate::archive::source::blob_name;
use crate::archive::{Archive, ArchiveError};
use crate::event::Verb;
use crate::image::{ChainId, Descriptor, Digest, ManifestKind};
use crate::store::{Session, Verifying};
use crate::transfer::{LayerSource, TransferError};

/// A cache, open for reading. Its records are verified; its layers are when they are read.
pub struct CacheReader {
    path: PathBuf,
    archive: Archive,
    records: Records,
    damaged: Mutex<BTreeSet<Digest>>,
}

/// What an index names.
pub(super) enum Content {
    /// Nothing.
    Nothing,
    /// A cache of kiln alone, by its manifest.
    Cache(Digest),
    /// Something else.
    Foreign,
}

impl CacheReader {
    /// Opens a cache; returns nothing where there is none yet.
    ///
    /// # Errors
    /// It is damaged, or no cache of kiln.
    pub fn open(session: &Session, path: &Path) -> Result<Option<CacheReader>, CacheError> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if !metadata.is_dir() => return Err(CacheError::NoDirectory),
            _ => {}
        }
        let archive = Archive::open(session, path)?;
        if archive.find("index.json")?.is_none() && is_empty(path) {
            return Ok(None);
        }
        let Some(records) = current(&archive)? else {
            return Ok(None);
        };
        Ok(Some(CacheReader {
            path: path.to_owned(),
            archive,
            records,
            damaged: Mutex::default(),
        }))
    }

    /// Returns where the cache is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether a step with this key has a record on top of anything.
    pub fn knows(&self, key: &str) -> bool {
        self.records.knows(key)
    }

    /// Returns what the step of a key came to on top of `below`, and when it was done.
    pub fn find(&self, key: &str, below: Option<&ChainId>) -> Option<(&CachedLayer, &String)> {
        let found = self.records.find(key, below)?;
        (!self.damaged().contains(&found.0.blob.digest)).then_some(found)
    }

    /// Returns all layers of the cache.
    pub fn layers(&self) -> impl Iterator<Item = &CachedLayer> {
        self.records.layers.iter()
    }

    /// Notes that a blob can't be used, so that it is not tried again, and is written anew.
    pub fn distrust(&self, blob: &Digest) {
        self.lock().insert(blob.clone());
    }

    /// Returns the blobs that can't be used.
    pub fn damaged(&self) -> BTreeSet<Digest> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LayerSource for CacheReader {
    fn open(
        &self,
        layer: &Descriptor,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Box<dyn Read + Send>, TransferError> {
        let error = |source| TransferError::Read {
            digest: layer.digest.clone(),
            source,
        };
        let section = self
            .archive
            .get(&blob_name(&layer.digest))
            .map_err(|missing| error(io::Error::other(missing)))?;
        if section.len() != layer.size {
            let text = format!("it has {} bytes, and not {}", section.len(), layer.size);
            return Err(error(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        let counted = Counted::new(section, progress);
        Ok(Box::new(Verifying::new(counted, layer.digest.clone())))
    }

    fn verb(&self) -> Verb {
        Verb::Extract
    }
}

/// Reads the records. A build that writes the cache meanwhile removes the old ones: then the new
/// ones are there.
fn current(archive: &Archive) -> Result<Option<Records>, CacheError> {
    let mut last = None;
    loop {
        let manifest = match content(archive)? {
            Content::Cache(manifest) => manifest,
            Content::Nothing => return Ok(None),
            Content::Foreign => return Err(CacheError::Foreign),
        };
        match read(archive, &manifest) {
            Err(_) if last.as_ref() != Some(&manifest) => last = Some(manifest),
            other => return other.map(Some),
        }
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Returns what a layout holds.
pub(super) fn content(archive: &Archive) -> Result<Content, ArchiveError> {
    let malformed = |reason: String| ArchiveError::Malformed {
        name: "index.json".to_owned(),
        reason,
    };
    let bytes = archive.document("index.json", DOCUMENT_LIMIT)?;
    let index = match ManifestKind::parse(&bytes, None) {
        Ok(ManifestKind::Index(index)) => index,
        Ok(ManifestKind::Image(_)) => return Ok(Content::Foreign),
        Err(error) => return Err(malformed(error.to_string())),
    };
    Ok(match index.entries.as_slice() {
        [] => Content::Nothing,
        [only] if only.ref_name.as_deref() == Some(NAME) && only.image_name.is_none() => {
            Content::Cache(only.descriptor.digest.clone())
        }
        _ => Content::Foreign,
    })
}

/// Reads the records of a manifest.
pub(super) fn read(archive: &Archive, digest: &Digest) -> Result<Records, CacheError> {
    let bytes = archive.blob(digest, DOCUMENT_LIMIT)?;
    let manifest = match ManifestKind::parse(&bytes, None) {
        Ok(ManifestKind::Image(manifest)) => manifest,
        Ok(ManifestKind::Index(_)) => return Err(CacheError::Foreign),
        Err(error) => {
            return Err(CacheError::Layout(ArchiveError::Malformed {
                name: blob_name(digest),
                reason: error.to_string(),
            }));
        }
    };
    if manifest.config.media_type != RECORDS {
        return Err(CacheError::Foreign);
    }
    let records = archive.blob(&manifest.config.digest, DOCUMENT_LIMIT)?;
    Ok(Records::parse(&records)?)
}
