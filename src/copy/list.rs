//! Indexes that are put together entry by entry, as `docker manifest` and `buildah manifest` do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use super::store::{document, open_blob, read_document};
use super::{BlobStream, CopyError, Document, Origin, Plan, Which, files};
use crate::image::{
    Descriptor, Digest, IndexDocument, Manifest, ManifestKind, Platform, Reference,
};
use crate::registry::{Client, Progress};
use crate::store::{ListRecord, Store};

/// An index that is being put together, under a name of the store.
pub struct ManifestList {
    name: Reference,
    /// The index.
    pub index: IndexDocument,
    sources: BTreeMap<Digest, String>,
}

impl ManifestList {
    /// Starts an empty list.
    pub fn new(name: &Reference) -> ManifestList {
        ManifestList {
            name: name.clone(),
            index: IndexDocument::default(),
            sources: BTreeMap::new(),
        }
    }

    /// Opens the list of a name; nothing where there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn open(store: &Store, name: &Reference) -> Result<Option<ManifestList>, CopyError> {
        let Some(record) = store.list(name)? else {
            return Ok(None);
        };
        let bytes = store.read_document(&record.index)?;
        let index = IndexDocument::parse(&bytes).map_err(|source| CopyError::Manifest {
            digest: record.index,
            source,
        })?;
        Ok(Some(ManifestList {
            name: name.clone(),
            index,
            sources: record.sources,
        }))
    }

    /// Writes the list.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn save(&mut self, store: &Store) -> Result<(), CopyError> {
        let digests = self.index.digests();
        self.sources.retain(|digest, _| digests.contains(digest));
        let index = store.write_document(&self.index.to_bytes())?;
        let record = ListRecord {
            name: self.name.to_string(),
            index,
            sources: self.sources.clone(),
        };
        Ok(store.write_list(&self.name, &record)?)
    }

    /// Adds an image, or with `all` every image of an index, and returns the digests of the
    /// manifests. `source` is the name in a registry, where they stay there.
    ///
    /// # Errors
    /// It can't be read, or is for other platforms.
    pub fn add(
        &mut self,
        origin: &dyn Origin,
        all: bool,
        platform: &Platform,
        source: Option<&Reference>,
    ) -> Result<Vec<Digest>, CopyError> {
        let root = origin.root()?;
        let kind = ManifestKind::parse(&root.bytes, Some(&root.descriptor.media_type));
        let kind = kind.map_err(|source| CopyError::Manifest {
            digest: root.descriptor.digest.clone(),
            source,
        })?;
        let added = match kind {
            ManifestKind::Image(manifest) => self.add_image(origin, root.descriptor, &manifest)?,
            ManifestKind::Index(_) if all => self.index.add_all_of(&root.bytes),
            ManifestKind::Index(_) => {
                let plan = Plan::make(origin, &Which::Platform(platform.clone()))?;
                let chosen = plan.root()?.descriptor.clone();
                let known = self.index.add_entry_of(&root.bytes, &chosen.digest);
                match (known, plan.manifests.as_slice()) {
                    (false, [manifest]) => self.add_image(origin, chosen, manifest)?,
                    _ => vec![chosen.digest],
                }
            }
        };
        if let Some(source) = source {
            let named = added
                .iter()
                .map(|digest| (digest.clone(), source.to_string()));
            self.sources.extend(named);
        }
        Ok(added)
    }

    fn add_image(
        &mut self,
        origin: &dyn Origin,
        descriptor: Descriptor,
        manifest: &Manifest,
    ) -> Result<Vec<Digest>, CopyError> {
        let platform = files::platform(origin, &manifest.config)?;
        self.index.add(&descriptor, platform.as_ref());
        Ok(vec![descriptor.digest])
    }

    /// Returns the entry that came from a name in a registry, where there is just one.
    pub fn entry_from(&self, source: &Reference) -> Option<Digest> {
        let source = source.to_string();
        let mut found = self.sources.iter().filter(|(_, from)| **from == source);
        match (found.next(), found.next()) {
            (Some((digest, _)), None) => Some(digest.clone()),
            _ => None,
        }
    }
}

/// A list as the origin: of what is not in the store, each image is read where it is.
pub struct ListOrigin<'a> {
    store: &'a Store,
    client: &'a Client,
    record: ListRecord,
    /// Where blobs are that the store lacks.
    blobs: Mutex<HashMap<Digest, Reference>>,
}

impl<'a> ListOrigin<'a> {
    /// Makes an origin of a list.
    pub fn new(store: &'a Store, client: &'a Client, record: ListRecord) -> ListOrigin<'a> {
        ListOrigin {
            store,
            client,
            record,
            blobs: Mutex::default(),
        }
    }

    fn lost(&self, digest: &Digest) -> CopyError {
        CopyError::refused(
            format!(
                "{}: {digest} is not in the store any more",
                self.record.name
            ),
            "add its image to the list again, or remove it: kiln manifest remove",
        )
    }
}

impl Origin for ListOrigin<'_> {
    fn root(&self) -> Result<Document, CopyError> {
        let bytes = self.store.read_document(&self.record.index)?;
        Ok(document(&self.record.index, bytes))
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CopyError> {
        let digest = &descriptor.digest;
        let Some(source) = self.record.sources.get(digest) else {
            return read_document(self.store, digest)?.ok_or_else(|| self.lost(digest));
        };
        let source: Reference = source.parse().map_err(crate::store::StoreError::from)?;
        let fetched = self.client.manifest(&source.with_digest(digest))?;
        if let ManifestKind::Image(manifest) = &fetched.kind {
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                blobs.insert(blob.digest.clone(), source.clone());
            }
        }
        Ok(fetched.bytes)
    }

    fn blob(&self, blob: &Descriptor, progress: Progress) -> Result<BlobStream, CopyError> {
        match self.repository(&blob.digest) {
            Some(source) => {
                let reader = self.client.blob(&source, blob)?;
                Ok(Box::new(reader.with_progress(progress)))
            }
            None => open_blob(self.store, blob, progress)?.ok_or_else(|| self.lost(&blob.digest)),
        }
    }

    fn repository(&self, blob: &Digest) -> Option<Reference> {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.get(blob).cloned()
    }
}
