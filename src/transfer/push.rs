//! Images into a registry, and the compressed layers that leave the store.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Transfer, TransferError};
use crate::event::TransferOutcome;
use crate::event::Verb;
use crate::image::{
    Algorithm, Descriptor, Digest, Hasher, Manifest, ManifestKind, Reference, media_type,
};
use crate::layer::{gzip_encoder, write_tar};
use crate::registry::{Client, Pushed};
use crate::store::{CompressedBlob, Image, Layer, RefRecord, Stack, Store, Verifying};

/// How many blobs are uploaded at once.
const PARALLEL: usize = 4;

/// The level of gzip, zlib's default.
const GZIP_LEVEL: u32 = 6;

/// The compressor, its level and its version. Changing any changes the bytes.
const GZIP: &str = "gzip-6-zlib-rs-1";

/// An image with its blobs in the store, ready to leave it.
pub struct Exported {
    /// The manifest, and its bytes.
    pub manifest: Manifest,
    /// What is sent, byte for byte.
    pub bytes: Vec<u8>,
    /// The digest of the bytes.
    pub digest: Digest,
}

/// Writes a layer's stream again and checks that it is the one that its diff id promises.
///
/// # Errors
/// [`TransferError::WrongDiffId`] where the tree is not what it was.
pub(crate) fn write_layer(
    transfer: &Transfer<'_>,
    layer: &Layer,
    out: &mut dyn Write,
) -> Result<(), TransferError> {
    struct Hashing<'w> {
        out: &'w mut dyn Write,
        hasher: Hasher,
    }
    impl Write for Hashing<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.out.write(bytes)?;
            self.hasher.update(&bytes[..written]);
            Ok(written)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.out.flush()
        }
    }
    let diff_id = &layer.meta.diff_id;
    let directory = transfer.store.layer_dir(&layer.fs(), &layer.meta)?;
    let mut hashing = Hashing {
        out,
        hasher: Hasher::new(Algorithm::Sha256),
    };
    write_tar(&directory, &layer.meta.omit, &mut hashing).map_err(|source| {
        TransferError::Layer {
            digest: diff_id.0.clone(),
            source,
        }
    })?;
    let found = hashing.hasher.finish();
    if found != diff_id.0 {
        return Err(TransferError::WrongDiffId {
            digest: diff_id.0.clone(),
            expected: diff_id.0.clone(),
            found,
        });
    }
    Ok(())
}

/// Returns a blob of each layer: as it was pulled, as it was compressed before, or compressed
/// now.
///
/// # Errors
/// A layer can't be read, or the disk is full.
pub fn compress_layers(
    transfer: &Transfer<'_>,
    stack: &Stack,
) -> Result<Vec<Descriptor>, TransferError> {
    let mut descriptors = Vec::new();
    for layer in stack.layers() {
        let diff_id = &layer.meta.diff_id;
        let known = transfer.store.compressed(diff_id);
        let is_plain = |b: &&CompressedBlob| b.descriptor.media_type.ends_with("tar");
        let compressed = known.iter().find(|b| b.how == GZIP);
        if let Some(blob) = compressed.or(known.iter().find(|b| !is_plain(b))) {
            descriptors.push(blob.descriptor.clone());
            continue;
        }
        let mut blob = transfer.store.new_blob(transfer.session)?;
        let read_error = |source| TransferError::Read {
            digest: diff_id.0.clone(),
            source,
        };
        let mut gzip = gzip_encoder(&mut blob, GZIP_LEVEL).map_err(read_error)?;
        match known.iter().find(is_plain) {
            // Loaded without compression: its tree might not give the same tar again.
            Some(plain) => {
                let digest = &plain.descriptor.digest;
                let file = transfer.store.open_blob(digest)?;
                let mut verifying = Verifying::new(file, digest.clone());
                io::copy(&mut verifying, &mut gzip).map_err(read_error)?;
            }
            None => write_layer(transfer, layer, &mut gzip)?,
        }
        gzip.finish().map_err(read_error)?;
        let (digest, size) = blob.commit()?;
        let descriptor = Descriptor {
            media_type: media_type::OCI_LAYER_GZIP.to_owned(),
            digest,
            size,
        };
        transfer.store.add_compressed(
            diff_id,
            CompressedBlob {
                descriptor: descriptor.clone(),
                how: GZIP.to_owned(),
            },
        )?;
        descriptors.push(descriptor);
    }
    Ok(descriptors)
}

/// Returns the manifest of an image: the one under which it was pulled, as long as all its
/// blobs are here, else a new one.
///
/// # Errors
/// A layer is missing or can't be read.
pub fn manifest_of(transfer: &Transfer<'_>, image: &Image) -> Result<Exported, TransferError> {
    let store = transfer.store;
    if let Some(digest) = &image.manifest
        && let Ok(bytes) = store.read_document(digest)
        && let Ok(ManifestKind::Image(manifest)) = ManifestKind::parse(&bytes, None)
        && manifest.config.digest == image.id
        && manifest.layers.iter().all(|l| store.has_blob(&l.digest))
    {
        return Ok(Exported {
            manifest,
            bytes,
            digest: digest.clone(),
        });
    }
    let stack = store
        .stack(&image.config.rootfs.diff_ids)?
        .ok_or_else(|| TransferError::Config("a layer of the image is not in the store".into()))?;
    let config = store.read_document(&image.id)?;
    let manifest = Manifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::of(media_type::OCI_CONFIG, &config),
        layers: compress_layers(transfer, &stack)?
            .into_iter()
            .map(as_oci)
            .collect(),
    };
    let bytes = manifest.to_bytes();
    let digest = store.write_document(&bytes)?;
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

/// Pushes an image: blobs that exist are skipped, the manifest comes last.
///
/// # Errors
/// See [`TransferError`].
pub fn push(
    transfer: &Transfer<'_>,
    client: &Client,
    image: &Image,
    reference: &Reference,
) -> Result<Digest, TransferError> {
    let exported = manifest_of(transfer, image)?;
    let elsewhere = repositories(transfer.store, reference.registry())?;
    let mut blobs: Vec<&Descriptor> = exported.manifest.layers.iter().collect();
    blobs.push(&exported.manifest.config);
    let next = AtomicUsize::new(0);
    let first_error: Mutex<Option<TransferError>> = Mutex::new(None);
    let failed = || first_error.lock().is_ok_and(|e| e.is_some());
    std::thread::scope(|scope| {
        let work = || {
            while !failed()
                && let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let mount_from = elsewhere.get(&blob.digest);
                if let Err(error) = push_blob(transfer, client, reference, blob, mount_from)
                    && let Ok(mut first) = first_error.lock()
                {
                    first.get_or_insert(error);
                }
            }
        };
        for _ in 1..PARALLEL.min(blobs.len()) {
            scope.spawn(work);
        }
        work();
    });
    if let Some(error) = first_error.into_inner().unwrap_or_default() {
        return Err(error);
    }
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

fn push_blob(
    transfer: &Transfer<'_>,
    client: &Client,
    reference: &Reference,
    blob: &Descriptor,
    mount_from: Option<&Reference>,
) -> Result<(), TransferError> {
    let reported = transfer.begin(blob.digest.short(), Verb::Push, Some(blob.size));
    let store = transfer.store;
    let digest = blob.digest.clone();
    let mut open = || -> io::Result<Box<dyn io::Read + Send>> {
        let file = store.open_blob(&digest).map_err(io::Error::other)?;
        Ok(Box::new(file))
    };
    let pushed = client.push_blob(
        reference,
        blob,
        &mut open,
        mount_from,
        Some(reported.progress()),
    )?;
    reported.end(match pushed {
        Pushed::Existed | Pushed::Mounted => TransferOutcome::Exists,
        Pushed::Uploaded => TransferOutcome::Done,
    });
    Ok(())
}
