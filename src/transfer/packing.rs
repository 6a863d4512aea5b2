//! The blobs that layers leave the store as.

use std::io::Write;

use super::{Transfer, TransferError};
use crate::image::{Algorithm, Descriptor, DiffId, media_type};
use crate::layer::{Chunked, Compression, Compressor, CompressorError, DigestingWriter, write_tar};
use crate::store::{BlobWriter, CompressedBlob, Layer, Store, Verifying};

/// What is recorded of a blob that kiln did not make.
pub(super) const PULLED: &str = "pulled";

/// What blobs layers leave the store as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// What a layer gets that has no blob yet.
    compressor: Compressor,
    /// Whether somebody asked for just this compressor.
    is_asked_for: bool,
    /// Whether it holds for layers that came compressed too.
    is_forced: bool,
}

/// What is known of a layer's blob.
pub(super) enum Packed {
    /// It is in the store.
    Here(Descriptor),
    /// It was made once, and is not here any more.
    Gone(Descriptor),
    /// None was ever made.
    Never,
}

impl Packing {
    /// Returns what a user asks for: a format, gzip where only a level is given, and whether
    /// layers that were pulled or loaded have to be in that format too. Else they stay as they
    /// came.
    ///
    /// # Errors
    /// There is no such compressor.
    pub fn new(
        format: Option<&str>,
        level: Option<i64>,
        forced: bool,
    ) -> Result<Packing, CompressorError> {
        Ok(Packing {
            compressor: Compressor::new(format.unwrap_or("gzip"), level)?,
            is_asked_for: format.is_some() || level.is_some(),
            is_forced: forced,
        })
    }

    /// Returns what all layers are to be compressed with, where somebody asked for that.
    pub fn asked_for(&self) -> Option<Compressor> {
        self.is_asked_for.then_some(self.compressor)
    }

    /// Tells whether a blob is what is asked for.
    fn accepts(&self, blob: &CompressedBlob) -> bool {
        let format = format_of(&blob.descriptor);
        if blob.how == self.compressor.name() {
            return true;
        }
        let came = blob.how == PULLED;
        match (self.is_forced, self.is_asked_for) {
            (true, _) => came && format == Some(self.compressor.format()),
            (false, true) => came && format != Some(Compression::None),
            (false, false) => format != Some(Compression::None),
        }
    }

    /// Tells whether a layer of a manifest under which an image came or went is here, and is
    /// what is asked for. Who asks for nothing takes any.
    pub(super) fn takes(&self, store: &Store, diff_id: &DiffId, layer: &Descriptor) -> bool {
        if !self.is_asked_for && !self.is_forced {
            return store.has_blob(&layer.digest);
        }
        let known = store.compressed(diff_id);
        let mut same = known.iter().filter(|b| b.descriptor.digest == layer.digest);
        same.any(|blob| self.accepts(blob))
    }

    /// Finds the blob of a layer.
    pub(super) fn find(&self, store: &Store, diff_id: &DiffId) -> Packed {
        let name = self.compressor.name();
        let best = |blobs: Vec<CompressedBlob>| {
            let mut accepted: Vec<_> = blobs.into_iter().filter(|b| self.accepts(b)).collect();
            // What came is what registries have; of what was made here, the latest of that name.
            accepted.sort_by_key(|b| (b.how != PULLED, b.how != name));
            accepted.into_iter().next().map(|blob| blob.descriptor)
        };
        match best(store.compressed(diff_id)) {
            Some(descriptor) => Packed::Here(descriptor),
            None => match best(store.recorded_blobs(diff_id)) {
                Some(descriptor) => Packed::Gone(descriptor),
                None => Packed::Never,
            },
        }
    }

    /// Returns the blob of a layer: as it came, as it was compressed before, or compressed now.
    pub(super) fn blob(
        &self,
        transfer: &Transfer<'_>,
        layer: &Layer,
    ) -> Result<Descriptor, TransferError> {
        match self.find(transfer.store, &layer.meta.diff_id) {
            Packed::Here(descriptor) => Ok(descriptor),
            _ => self.fill(transfer, layer, transfer.store.new_blob(transfer.session)?),
        }
    }

    /// Compresses a layer into a new blob, and records that.
    pub(super) fn fill(
        &self,
        transfer: &Transfer<'_>,
        layer: &Layer,
        blob: BlobWriter,
    ) -> Result<Descriptor, TransferError> {
        let diff_id = &layer.meta.diff_id;
        let failed = |source| TransferError::Read {
            digest: diff_id.0.clone(),
            source,
        };
        let mut encoder = self.compressor.encoder(blob).map_err(failed)?;
        write_layer(transfer, layer, &mut encoder)?;
        let blob = encoder.finish().map_err(failed)?;
        let (digest, size) = blob.commit()?;
        let descriptor = Descriptor {
            media_type: media_type_of(self.compressor).to_owned(),
            digest,
            size,
        };
        transfer.store.add_compressed(
            diff_id,
            CompressedBlob {
                descriptor: descriptor.clone(),
                how: self.compressor.name(),
            },
        )?;
        Ok(descriptor)
    }
}

/// Returns what OCI calls a layer that a compressor made.
pub(crate) fn media_type_of(compressor: Compressor) -> &'static str {
    match compressor {
        Compressor::None => media_type::OCI_LAYER,
        Compressor::Gzip(_) => media_type::OCI_LAYER_GZIP,
        Compressor::Zstd(_) => media_type::OCI_LAYER_ZSTD,
    }
}

/// Returns the compression that a layer's media type tells.
pub(crate) fn format_of(layer: &Descriptor) -> Option<Compression> {
    match layer.media_type.rsplit(['.', '+']).next() {
        Some("tar") => Some(Compression::None),
        Some("gzip") => Some(Compression::Gzip),
        Some("zstd") => Some(Compression::Zstd),
        _ => None,
    }
}

/// Writes a layer's stream and checks that it is the one that its diff id promises.
///
/// # Errors
/// [`TransferError::WrongDiffId`] where it is not what it was.
fn write_layer(
    transfer: &Transfer<'_>,
    layer: &Layer,
    out: &mut dyn Write,
) -> Result<(), TransferError> {
    let store = transfer.store;
    let diff_id = &layer.meta.diff_id;
    let read_error = |source| TransferError::read(&diff_id.0, source);
    let mut out = DigestingWriter::new(out, Algorithm::Sha256);
    let came = store.compressed(diff_id);
    match came.into_iter().find(|blob| blob.how == PULLED) {
        // The tar that another program wrote can't be made again from its tree.
        Some(blob) => {
            let digest = blob.descriptor.digest;
            let verifying = Verifying::new(store.open_blob(&digest)?, digest);
            let (_, mut content) = Compression::decode(verifying).map_err(read_error)?;
            let mut chunked = Chunked::new(out);
            chunked.copy_from(&mut content).map_err(read_error)?;
            out = chunked.finish().map_err(read_error)?;
        }
        None => {
            let directory = store.layer_dir(&layer.fs(), &layer.meta)?;
            write_tar(&directory, &layer.meta.omit, &mut out)
                .map_err(|source| TransferError::layer(&diff_id.0, source))?;
        }
    }
    let found = out.finish().map_err(read_error)?;
    if found != diff_id.0 {
        return Err(TransferError::WrongDiffId {
            digest: diff_id.0.clone(),
            expected: diff_id.0.clone(),
            found,
        });
    }
    Ok(())
}
