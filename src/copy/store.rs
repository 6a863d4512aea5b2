//! The store as a place of images.

use std::io::Read;
use std::sync::Arc;

use super::files::{pass, read_all};
use super::{BlobStream, CopyError, Document, Goal, Origin, Plan, Which};
use crate::event::{TransferOutcome, Verb};
use crate::image::{Descriptor, Digest, ImageConfig, ManifestKind, Platform, Reference};
use crate::registry::Progress;
use crate::store::{CompressedBlob, RefRecord, Store, StoreError, Verifying};
use crate::transfer::{
    LayerSource, Packing, Transfer, TransferError, bring_layers, manifest_of, pair,
};

/// An image of the store as the origin, or the index that its name stands for.
pub struct StoreOrigin<'a> {
    store: &'a Store,
    name: String,
    root: Document,
}

impl<'a> StoreOrigin<'a> {
    /// Finds an image. With `whole`, it is the index that the name stands for, where there is
    /// one; else the image, whose layers are compressed now as `packing` asks, if they never
    /// were.
    ///
    /// # Errors
    /// There is no such image, or a layer of it can't be read.
    pub fn find(
        transfer: &Transfer<'a>,
        name: &str,
        whole: bool,
        packing: &Packing,
    ) -> Result<StoreOrigin<'a>, CopyError> {
        let store = transfer.store;
        let image = store.find(name)?;
        let root = match image.index.as_ref().filter(|_| whole) {
            Some(index) => {
                let bytes = store.read_document(index)?;
                document(index, bytes)
            }
            None => {
                let exported = manifest_of(transfer, &image, packing)?;
                document(&exported.digest, exported.bytes)
            }
        };
        let name = name.to_owned();
        Ok(StoreOrigin { store, name, root })
    }
}

impl<'a> StoreOrigin<'a> {
    /// Makes an origin of an index of the store.
    ///
    /// # Errors
    /// It is not there.
    pub fn of_index(store: &'a Store, index: &Digest) -> Result<StoreOrigin<'a>, CopyError> {
        let root = document(index, store.read_document(index)?);
        let name = index.to_string();
        Ok(StoreOrigin { store, name, root })
    }
}

/// Makes a document of bytes that are known to be a manifest or an index.
pub(super) fn document(digest: &Digest, bytes: Vec<u8>) -> Document {
    let media_type = ManifestKind::media_type(&bytes);
    let size = bytes.len() as u64;
    Document {
        descriptor: Descriptor {
            media_type,
            digest: digest.clone(),
            size,
        },
        bytes,
    }
}

impl Origin for StoreOrigin<'_> {
    fn root(&self) -> Result<Document, CopyError> {
        Ok(self.root.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CopyError> {
        read_document(self.store, &descriptor.digest)?
            .ok_or_else(|| self.missing(&descriptor.digest))
    }

    fn blob(&self, blob: &Descriptor, progress: Progress) -> Result<BlobStream, CopyError> {
        open_blob(self.store, blob, progress)?.ok_or_else(|| self.missing(&blob.digest))
    }
}

impl StoreOrigin<'_> {
    fn missing(&self, digest: &Digest) -> CopyError {
        CopyError::NotComplete {
            name: self.name.clone(),
            digest: digest.clone(),
        }
    }
}

/// Reads a document of the store; nothing where it is not there.
pub(super) fn read_document(store: &Store, digest: &Digest) -> Result<Option<Vec<u8>>, CopyError> {
    match store.read_document(digest) {
        Err(StoreError::NoBlob(_)) => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// Opens a blob of the store, which is verified as it is read; nothing where it is not there.
pub(super) fn open_blob(
    store: &Store,
    blob: &Descriptor,
    progress: Progress,
) -> Result<Option<BlobStream>, CopyError> {
    let file = match store.open_blob(&blob.digest) {
        Err(StoreError::NoBlob(_)) => return Ok(None),
        other => other?,
    };
    let counted = Counted {
        inner: Verifying::new(file, blob.digest.clone()),
        count: 0,
        progress,
    };
    Ok(Some(Box::new(counted)))
}

struct Counted<R> {
    inner: R,
    count: u64,
    progress: Progress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        (self.progress)(self.count);
        Ok(read)
    }
}

/// The store as the goal: blobs and documents, and by [`StoreGoal::publish`] an image.
pub struct StoreGoal<'a, 't> {
    transfer: &'a Transfer<'t>,
}

impl<'a, 't> StoreGoal<'a, 't> {
    /// Makes a goal of the store.
    pub fn new(transfer: &'a Transfer<'t>) -> StoreGoal<'a, 't> {
        StoreGoal { transfer }
    }

    /// Makes what was copied an image of the given name: of an index, the one for `platform`.
    /// Returns the image's id.
    ///
    /// # Errors
    /// It is no image; a layer is damaged; disk full, and the like.
    pub fn publish(
        &self,
        plan: &Plan,
        name: &Reference,
        platform: &Platform,
    ) -> Result<Digest, CopyError> {
        let root = plan.root()?.clone();
        self.note_layers(plan)?;
        let here = Here {
            store: self.transfer.store,
            root: &root,
        };
        let chosen = Plan::make(&here, &Which::Platform(platform.clone()))?;
        let [manifest] = chosen.manifests.as_slice() else {
            return Err(CopyError::Unusable("it is no image".to_owned()));
        };
        let store = self.transfer.store;
        let config = read_all(&here, &manifest.config)?;
        let config: ImageConfig = serde_json::from_slice(&config)
            .map_err(|error| TransferError::Config(error.to_string()))?;
        let layers = pair(&manifest.layers, &config)?;
        let stack = bring_layers(self.transfer, &layers, &here)?;
        store.sync(stack.layers())?;
        let id = manifest.config.digest.clone();
        store.publish_image(&id, &stack)?;
        let manifest = chosen.root()?.descriptor.digest.clone();
        let root = root.descriptor.digest;
        store.write_reference(&RefRecord {
            name: name.to_string(),
            image: id.clone(),
            index: (root != manifest).then_some(root),
            manifest: Some(manifest),
            registered: false,
        })?;
        Ok(id)
    }

    /// Records which layers the blobs of images hold: who needs one later finds it here.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn note_layers(&self, plan: &Plan) -> Result<(), CopyError> {
        let store = self.transfer.store;
        for manifest in &plan.manifests {
            let Ok(config) = store.config(&manifest.config.digest) else {
                // Something else than an image.
                continue;
            };
            for (descriptor, diff_id) in pair(&manifest.layers, &config).unwrap_or_default() {
                let how = "pulled".to_owned();
                store.add_compressed(&diff_id, CompressedBlob { descriptor, how })?;
            }
        }
        Ok(())
    }
}

impl Goal for StoreGoal<'_, '_> {
    fn blob(
        &self,
        blob: &Descriptor,
        origin: &dyn Origin,
        progress: Progress,
    ) -> Result<TransferOutcome, CopyError> {
        let store = self.transfer.store;
        // Another process may be bringing it: then there is nothing to do afterwards.
        let _one = store.lock(&format!("pull-{}", blob.digest.hex()))?;
        let size = || std::fs::metadata(store.blob_path(&blob.digest)).map(|m| m.len());
        if store.has_blob(&blob.digest) && size().is_ok_and(|size| size == blob.size) {
            return Ok(TransferOutcome::Exists);
        }
        let mut writer = store.new_blob(self.transfer.session)?;
        pass(&mut *origin.blob(blob, progress)?, blob, |bytes| {
            std::io::Write::write_all(&mut writer, bytes)
                .map_err(|error| CopyError::read(&blob.digest, error))
        })?;
        let found = writer.digest();
        if found != blob.digest {
            return Err(CopyError::Unusable(format!(
                "blob {}: the store keeps blobs by their sha256, and this one's is {found}",
                blob.digest
            )));
        }
        writer.commit()?;
        Ok(TransferOutcome::Done)
    }

    fn has(&self, blob: &Descriptor) -> Result<bool, CopyError> {
        Ok(self.transfer.store.has_blob(&blob.digest))
    }

    fn document(&self, document: &Document, _is_root: bool) -> Result<(), CopyError> {
        let digest = &document.descriptor.digest;
        let store = self.transfer.store;
        Ok(store.write_document_as(digest, &document.bytes)?)
    }
}

/// What was brought, as it lies in the store.
struct Here<'a> {
    store: &'a Store,
    root: &'a Document,
}

impl Here<'_> {
    fn lost(digest: &Digest) -> CopyError {
        StoreError::NoBlob(digest.clone()).into()
    }
}

impl Origin for Here<'_> {
    fn root(&self) -> Result<Document, CopyError> {
        Ok(self.root.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CopyError> {
        read_document(self.store, &descriptor.digest)?.ok_or_else(|| Here::lost(&descriptor.digest))
    }

    fn blob(&self, blob: &Descriptor, progress: Progress) -> Result<BlobStream, CopyError> {
        open_blob(self.store, blob, progress)?.ok_or_else(|| Here::lost(&blob.digest))
    }
}

impl LayerSource for Here<'_> {
    fn open(
        &self,
        layer: &Descriptor,
        _progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<BlobStream, TransferError> {
        let file = self.store.open_blob(&layer.digest)?;
        Ok(Box::new(Verifying::new(file, layer.digest.clone())))
    }

    fn verb(&self) -> Verb {
        Verb::Extract
    }
}
