//! Images into a registry.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::packing::{Packed, Packing};
use super::{Transfer, TransferError};
use crate::event::TransferOutcome;
use crate::event::Verb;
use crate::image::{Descriptor, Digest, Manifest, ManifestKind, Reference, media_type};
use crate::registry::{Client, Progress, Pushed, Reason, RegistryError};
use crate::store::{GrowingBlob, Image, Layer, RefRecord, Stack, Store};

/// How many blobs are uploaded at once.
const PARALLEL: usize = 4;

/// An image with its blobs in the store, ready to leave it.
pub struct Exported {
    /// The manifest, and its bytes.
    pub manifest: Manifest,
    /// What is sent, byte for byte.
    pub bytes: Vec<u8>,
    /// The digest of the bytes.
    pub digest: Digest,
}

/// Returns the manifest of an image, with all its blobs in the store: the one under which it
/// was pulled or pushed, as long as it is what `packing` asks for, else a new one.
///
/// # Errors
/// A layer is missing or can't be read.
pub fn manifest_of(
    transfer: &Transfer<'_>,
    image: &Image,
    packing: &Packing,
) -> Result<Exported, TransferError> {
    if let Some(exported) = known_manifest(transfer, image, packing) {
        return Ok(exported);
    }
    let stack = stack_of(transfer, image)?;
    let layers = compress_layers(transfer, &stack, packing)?;
    new_manifest(transfer, image, layers)
}

/// Returns a blob of each layer: as it came, as it was compressed before, or compressed now.
///
/// # Errors
/// A layer can't be read, or the disk is full.
pub fn compress_layers(
    transfer: &Transfer<'_>,
    stack: &Stack,
    packing: &Packing,
) -> Result<Vec<Descriptor>, TransferError> {
    let layers = stack.layers().iter();
    layers.map(|layer| packing.blob(transfer, layer)).collect()
}

/// Returns the manifest under which an image was pulled or pushed, if it still holds.
fn known_manifest(transfer: &Transfer<'_>, image: &Image, packing: &Packing) -> Option<Exported> {
    let store = transfer.store;
    let digest = image.manifest.as_ref()?;
    let bytes = store.read_document(digest).ok()?;
    let Ok(ManifestKind::Image(manifest)) = ManifestKind::parse(&bytes, None) else {
        return None;
    };
    let diff_ids = &image.config.rootfs.diff_ids;
    let fits = manifest.config.digest == image.id
        && manifest.layers.len() == diff_ids.len()
        && (manifest.layers.iter().zip(diff_ids))
            .all(|(layer, diff_id)| packing.takes(store, diff_id, layer));
    fits.then(|| Exported {
        manifest,
        bytes,
        digest: digest.clone(),
    })
}

fn stack_of(transfer: &Transfer<'_>, image: &Image) -> Result<Stack, TransferError> {
    let stack = transfer.store.stack(&image.config.rootfs.diff_ids)?;
    stack.ok_or_else(|| TransferError::Config("a layer of the image is not in the store".into()))
}

/// Writes a manifest of an image with the given blobs.
fn new_manifest(
    transfer: &Transfer<'_>,
    image: &Image,
    layers: Vec<Descriptor>,
) -> Result<Exported, TransferError> {
    let config = transfer.store.read_document(&image.id)?;
    let manifest = Manifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::of(media_type::OCI_CONFIG, &config),
        layers: layers.into_iter().map(as_oci).collect(),
    };
    let bytes = manifest.to_bytes();
    let digest = transfer.store.write_document(&bytes)?;
    Ok(Exported {
        manifest,
        bytes,
        digest,
    })
}

/// A manifest has media types of one family: layers that came from docker's are named OCI's.
fn as_oci(mut layer: Descriptor) -> Descriptor {
    if layer.media_type == media_type::DOCKER_LAYER_GZIP {
        layer.media_type = media_type::OCI_LAYER_GZIP.to_owned();
    }
    layer
}

/// Returns the repositories of a registry that have blobs of images that came from there or
/// went there: a registry may take a blob from one for another.
///
/// # Errors
/// The names can't be read.
pub fn repositories(
    store: &Store,
    registry: &str,
) -> Result<HashMap<Digest, Reference>, TransferError> {
    let mut known = HashMap::new();
    for record in store.references()? {
        if let Ok(name) = record.name.parse::<Reference>()
            && name.registry() == registry
            && record.registered
            && let Some(digest) = record.manifest
            && let Ok(bytes) = store.read_document(&digest)
            && let Ok(ManifestKind::Image(manifest)) = ManifestKind::parse(&bytes, None)
        {
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                let entry = known.entry(blob.digest.clone());
                entry.or_insert_with(|| name.clone());
            }
        }
    }
    Ok(known)
}

/// Pushes an image: blobs that exist are skipped, layers that were never compressed are sent
/// while they are, and the manifest comes last.
///
/// # Errors
/// See [`TransferError`].
pub fn push(
    transfer: &Transfer<'_>,
    client: &Client,
    image: &Image,
    reference: &Reference,
    packing: &Packing,
) -> Result<Digest, TransferError> {
    let push = Push {
        transfer,
        client,
        reference,
        elsewhere: repositories(transfer.store, reference.registry())?,
        compressing: Mutex::new(()),
    };
    let exported = match known_manifest(transfer, image, packing) {
        Some(exported) => {
            let mut blobs: Vec<&Descriptor> = exported.manifest.layers.iter().collect();
            blobs.push(&exported.manifest.config);
            in_parallel(&blobs, |blob| push.blob(blob))?;
            exported
        }
        None => {
            let stack = stack_of(transfer, image)?;
            let layers = in_parallel(stack.layers(), |layer| push.layer(layer, packing))?;
            let exported = new_manifest(transfer, image, layers)?;
            push.blob(&exported.manifest.config)?;
            exported
        }
    };
    let media_type = &exported.manifest.media_type;
    let digest = client.push_manifest(reference, media_type, &exported.bytes)?;
    transfer.store.write_reference(&RefRecord {
        name: reference.to_string(),
        image: image.id.clone(),
        manifest: Some(exported.digest),
        index: None,
        registered: true,
    })?;
    Ok(digest)
}

/// Does something with each item, several at once, and returns the results in order. Nothing
/// new is begun after an error; of several, that of the first item is returned.
fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<T, TransferError> + Sync,
) -> Result<Vec<T>, TransferError> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results: Vec<Mutex<Option<Result<T, TransferError>>>> =
        items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else {
                    return;
                };
                let result = work(item);
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                if let Ok(mut slot) = results[index].lock() {
                    *slot = Some(result);
                }
            }
        };
        for _ in 1..PARALLEL.min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
    let results = results.into_iter();
    let results = results.filter_map(|slot| slot.into_inner().unwrap_or_default());
    results.collect()
}

/// An image on its way to a registry.
struct Push<'a> {
    transfer: &'a Transfer<'a>,
    client: &'a Client,
    reference: &'a Reference,
    /// Repositories of the registry that may have blobs.
    elsewhere: HashMap<Digest, Reference>,
    /// Held by who compresses: one layer at a time has all cores, and takes memory once.
    compressing: Mutex<()>,
}

impl Push<'_> {
    /// Brings a blob of the store into the repository.
    fn blob(&self, blob: &Descriptor) -> Result<(), TransferError> {
        let reported = self
            .transfer
            .begin(blob.digest.short(), Verb::Push, Some(blob.size));
        let store = self.transfer.store;
        let mut open = || -> io::Result<Box<dyn io::Read + Send>> {
            let file = store.open_blob(&blob.digest).map_err(io::Error::other)?;
            Ok(Box::new(file))
        };
        let pushed = self.client.push_blob(
            self.reference,
            blob,
            &mut open,
            self.elsewhere.get(&blob.digest),
            Some(reported.progress()),
        )?;
        reported.end(match pushed {
            Pushed::Existed | Pushed::Mounted => TransferOutcome::Exists,
            Pushed::Uploaded => TransferOutcome::Done,
        });
        Ok(())
    }

    /// Brings a layer into the repository, and returns the blob that it is there.
    fn layer(&self, layer: &Layer, packing: &Packing) -> Result<Descriptor, TransferError> {
        match packing.find(self.transfer.store, &layer.meta.diff_id) {
            Packed::Here(descriptor) => {
                self.blob(&descriptor)?;
                return Ok(descriptor);
            }
            Packed::Gone(descriptor)
                if self
                    .client
                    .blob_exists(self.reference, &descriptor.digest)? =>
            {
                let name = descriptor.digest.short();
                let reported = self.transfer.begin(name, Verb::Push, Some(descriptor.size));
                reported.end(TransferOutcome::Exists);
                return Ok(descriptor);
            }
            Packed::Gone(_) | Packed::Never => {}
        }
        self.new_blob(layer, packing)
    }

    /// Compresses a layer and sends it meanwhile.
    fn new_blob(&self, layer: &Layer, packing: &Packing) -> Result<Descriptor, TransferError> {
        let diff_id = &layer.meta.diff_id.0;
        let turn = self.compressing.lock();
        let reported = self.transfer.begin(diff_id.short(), Verb::Push, None);
        let mut blob = self.transfer.store.new_blob(self.transfer.session)?;
        let growing = blob.grow()?;
        let (descriptor, is_sent) = send_while_made(
            self.client,
            self.reference,
            &format!("layer {diff_id}"),
            &growing,
            reported.progress(),
            || {
                let packed = packing.fill(self.transfer, layer, blob);
                drop(turn);
                packed
            },
        )?;
        if is_sent {
            reported.end(TransferOutcome::Done);
        } else {
            // What may pass is tried again, and now the blob is known and whole.
            reported.end(TransferOutcome::Failed);
            self.blob(&descriptor)?;
        }
        Ok(descriptor)
    }
}

/// Sends a blob to a registry while it is made. Returns what `make` returns, and whether the
/// registry has the blob: where that failed, another try may succeed.
///
/// # Errors
/// It could not be made, or the registry refuses for good.
pub(crate) fn send_while_made<T, E: From<RegistryError>>(
    client: &Client,
    reference: &Reference,
    name: &str,
    growing: &GrowingBlob,
    progress: Progress,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<(T, bool), E> {
    let (sent, made) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let sent = client.push_stream(
                reference,
                name,
                &mut || Ok(Box::new(growing.reader())),
                &|| growing.whole().map(|(digest, _)| digest),
                Some(progress),
            );
            if sent.as_ref().is_err_and(is_final) {
                growing.abandon();
            }
            sent
        });
        let made = make();
        (sending.join(), made)
    });
    let sent = match sent {
        Ok(sent) => sent,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    match (sent, made) {
        (Ok(()), Ok(made)) => Ok((made, true)),
        (Err(error), _) if is_final(&error) => Err(error.into()),
        (Err(_), Ok(made)) => Ok((made, false)),
        (_, Err(error)) => Err(error),
    }
}

/// Tells whether another way of sending would meet the same refusal.
fn is_final(error: &RegistryError) -> bool {
    matches!(
        error.reason(),
        Reason::Unauthorized { .. }
            | Reason::Denied(_)
            | Reason::Unreachable(_)
            | Reason::Certificate(_)
            | Reason::ClientCertificate
            | Reason::CertificateFile(_)
            | Reason::NotTls
            | Reason::TokenServer { .. }
            | Reason::Proxy(_)
            | Reason::Credentials(_)
    )
}
