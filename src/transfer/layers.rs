//! Layers into the store: read, verified, decompressed and extracted in one pass, each on a
//! thread of its own, and several layers at once.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{Transfer, TransferError};
use crate::event::{TransferOutcome, Verb};
use crate::image::{Algorithm, Descriptor, DiffId};
use crate::layer::{
    Applied, ApplyMode, ApplyOptions, Digester, LayerMeta, Limits, View, apply, decode_through,
};
use crate::store::{CompressedBlob, Layer, Stack};

/// How many layers are brought at once.
const PARALLEL: usize = 4;

/// Where the layers of one image come from.
pub trait LayerSource: Sync {
    /// Opens a layer's blob. What is read has been verified by the time it ends, and is
    /// reported to `progress` as a number of bytes so far.
    ///
    /// # Errors
    /// The blob is not there.
    fn open(
        &self,
        layer: &Descriptor,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Box<dyn Read + Send>, TransferError>;

    /// What is being done, for people.
    fn verb(&self) -> Verb {
        Verb::Pull
    }
}

/// A layer that has been extracted and not yet published.
struct Extracted {
    staged: PathBuf,
    applied: Applied,
}

/// Copies what is read from it.
struct Tee<R, W> {
    reader: R,
    writer: W,
}

impl<R: Read, W: io::Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.writer.write_all(&buffer[..read])?;
        Ok(read)
    }
}

/// Brings the layers of an image into the store, bottom first in `layers`, and returns them as
/// a stack. Layers that are there already are not read. Nothing is published before its
/// digest and its diff id have proved right.
///
/// # Errors
/// The first that occurs.
pub fn bring_layers(
    transfer: &Transfer<'_>,
    layers: &[(Descriptor, DiffId)],
    source: &dyn LayerSource,
) -> Result<Stack, TransferError> {
    let present = present(transfer, layers)?;
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Extracted, TransferError>>>> =
        layers.iter().map(|_| Mutex::new(None)).collect();
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || {
            while failed.load(Ordering::Relaxed) == 0 {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((descriptor, diff_id)) = layers.get(index) else {
                    return;
                };
                if present[index] {
                    transfer
                        .begin(
                            descriptor.digest.short(),
                            source.verb(),
                            Some(descriptor.size),
                        )
                        .end(TransferOutcome::Exists);
                    continue;
                }
                let result = fetch(transfer, descriptor, diff_id, source);
                if result.is_err() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                if let Ok(mut slot) = results[index].lock() {
                    *slot = Some(result);
                }
            }
        };
        for _ in 1..PARALLEL.min(layers.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut extracted = Vec::with_capacity(layers.len());
    for slot in results {
        match slot
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            Some(Err(error)) => return Err(error),
            Some(Ok(layer)) => extracted.push(Some(layer)),
            None => extracted.push(None),
        }
    }
    publish(transfer, Stack::default(), layers, extracted)
}

/// Brings one layer into the store, on top of `below`. As [`bring_layers`].
///
/// # Errors
/// It can't be read, or is not what it should be.
pub fn bring_layer(
    transfer: &Transfer<'_>,
    below: &Stack,
    layer: (Descriptor, DiffId),
    source: &dyn LayerSource,
) -> Result<Arc<Layer>, TransferError> {
    let (descriptor, diff_id) = &layer;
    if let Some(present) = transfer.store.layer(below.chain_id(), diff_id)? {
        return Ok(present);
    }
    let extracted = vec![Some(fetch(transfer, descriptor, diff_id, source)?)];
    let stack = publish(transfer, below.clone(), &[layer], extracted)?;
    let published = stack.layers().last().cloned();
    Ok(published.expect("a layer was published"))
}

/// Tells which layers are here already, in a tree that does not depend on what lies below or
/// depends on just this.
fn present(
    transfer: &Transfer<'_>,
    layers: &[(Descriptor, DiffId)],
) -> Result<Vec<bool>, TransferError> {
    let mut below = None;
    let mut present = Vec::with_capacity(layers.len());
    for (_, diff_id) in layers {
        let here = transfer.store.layer(below.as_ref(), diff_id)?.is_some();
        present.push(here);
        below = Some(crate::image::ChainId::extend(below.as_ref(), diff_id));
    }
    Ok(present)
}

fn fetch(
    transfer: &Transfer<'_>,
    descriptor: &Descriptor,
    diff_id: &DiffId,
    source: &dyn LayerSource,
) -> Result<Extracted, TransferError> {
    // Another process may be bringing the same layer: one of the two waits, and then reads
    // the other's blob.
    let _one = transfer.store.lock(&format!("pull-{}", diff_id.0.hex()))?;
    let digest = &descriptor.digest;
    let read_error = |source| TransferError::read(digest, source);
    let known = transfer.store.compressed(diff_id);
    if let Some(blob) = known.iter().find(|b| b.descriptor.digest == *digest) {
        let reported = transfer.begin(digest.short(), Verb::Extract, Some(descriptor.size));
        let file = transfer.store.open_blob(&blob.descriptor.digest)?;
        let extracted = extract(
            transfer,
            descriptor,
            diff_id,
            &mut &file,
            &View::new(Vec::new()),
        );
        // A blob that was lost in a crash shows here: then it is fetched again.
        if let Ok((staged, applied)) = extracted {
            reported.end(TransferOutcome::Done);
            return Ok(Extracted { staged, applied });
        }
    }
    let reported = transfer.begin(digest.short(), source.verb(), Some(descriptor.size));
    let reader = source.open(descriptor, reported.progress())?;
    let mut tee = Tee {
        reader,
        writer: transfer
            .store
            .new_verified_blob(transfer.session, digest.clone())?,
    };
    let (staged, applied) = extract(
        transfer,
        descriptor,
        diff_id,
        &mut tee,
        &View::new(Vec::new()),
    )?;
    // A decompressor may stop before the end; the digest counts all bytes.
    io::copy(&mut tee, &mut io::sink()).map_err(read_error)?;
    tee.writer.commit()?;
    let how = "pulled".to_owned();
    transfer.store.add_compressed(
        diff_id,
        CompressedBlob {
            descriptor: descriptor.clone(),
            how,
        },
    )?;
    reported.end(TransferOutcome::Done);
    Ok(Extracted { staged, applied })
}

/// Decompresses, hashes and extracts a layer into a new directory of the session.
fn extract(
    transfer: &Transfer<'_>,
    descriptor: &Descriptor,
    diff_id: &DiffId,
    reader: &mut (dyn Read + Send),
    lower: &View,
) -> Result<(PathBuf, Applied), TransferError> {
    let digest = &descriptor.digest;
    let layer_error = |source| TransferError::layer(digest, source);
    let read_error = |source| TransferError::read(digest, source);
    let staged = transfer.session.directory()?;
    let fs = staged.join("fs");
    let io_error = |source| crate::store::StoreError::Io {
        action: "cannot create",
        path: fs.clone(),
        source,
    };
    std::fs::create_dir(&fs).map_err(io_error)?;
    let directory = std::fs::File::open(&fs).map_err(io_error)?;
    let options = ApplyOptions {
        ownership: transfer.store.form().ownership,
        lower,
        mode: ApplyMode::Layer,
        limits: Limits::default(),
    };
    let mut digester = Digester::new(Algorithm::Sha256);
    let applied = decode_through(reader, &mut digester, |content| {
        let applied = apply(content, directory.as_fd(), &options).map_err(layer_error)?;
        // Zeros behind the end of the archive belong to the stream.
        io::copy(content, &mut io::sink()).map_err(read_error)?;
        Ok::<_, TransferError>(applied)
    })
    .map_err(read_error)??;
    let found = digester.finish().map_err(read_error)?;
    if found != diff_id.0 {
        return Err(TransferError::WrongDiffId {
            digest: digest.clone(),
            expected: diff_id.0.clone(),
            found,
        });
    }
    Ok((staged, applied))
}

/// Publishes what was extracted, bottom first. A tree whose tar lacks entries for parents is
/// extracted again, now on top of what lies below.
fn publish(
    transfer: &Transfer<'_>,
    mut stack: Stack,
    layers: &[(Descriptor, DiffId)],
    extracted: Vec<Option<Extracted>>,
) -> Result<Stack, TransferError> {
    for ((descriptor, diff_id), extracted) in layers.iter().zip(extracted) {
        let store = transfer.store;
        if let Some(layer) = store.layer(stack.chain_id(), diff_id)? {
            if let Some(spare) = extracted {
                transfer.session.discard(&spare.staged);
            }
            stack.push(layer);
            continue;
        }
        let (staged, applied) = match extracted {
            Some(layer) if layer.applied.self_contained || stack.layers().is_empty() => {
                (layer.staged, layer.applied)
            }
            other => {
                if let Some(spare) = other {
                    transfer.session.discard(&spare.staged);
                }
                let file = store.open_blob(&descriptor.digest)?;
                let view = store.view(&stack)?;
                extract(transfer, descriptor, diff_id, &mut &file, &view)?
            }
        };
        let meta = LayerMeta {
            diff_id: diff_id.clone(),
            content_id: None,
            omit: applied.omit.clone(),
            overrides: applied.overrides.clone(),
            self_contained: applied.self_contained,
            size: applied.size_bytes,
            entries: applied.entries,
        };
        stack.push(store.publish_layer(stack.chain_id(), &staged, meta)?);
    }
    Ok(stack)
}
