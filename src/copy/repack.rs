//! Copies that are not as they were: layers compressed anew on their way, and documents that
//! say so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;

use super::files::config_of;
use super::{BlobStream, CopyError, Document, Goal, Origin, Plan};
use crate::event::{TransferOutcome, Verb};
use crate::image::{
    Algorithm, Descriptor, DiffId, Family, ManifestKind, Replaced, convert_index, convert_manifest,
};
use crate::layer::{Compressor, DigestingWriter, decode_through};
use crate::registry::Progress;
use crate::store::{BlobWriter, CompressedBlob};
use crate::transfer::{Transfer, TransferError, format_of, media_type_of, pair};

/// What becomes of an image on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What layers are compressed with that come in another format.
    pub compressor: Option<Compressor>,
    /// The media types of manifests and indexes.
    pub family: Option<Family>,
}

impl Plan {
    /// Has layers and documents changed on their way. Layers of artifacts stay as they are.
    ///
    /// # Errors
    /// The config of an image can't be read.
    pub fn change(&mut self, origin: &dyn Origin, changes: Changes) -> Result<(), CopyError> {
        self.changes = changes;
        let Some(compressor) = changes.compressor else {
            return Ok(());
        };
        for manifest in &self.manifests {
            let other = |layer: &Descriptor| {
                format_of(layer).is_some_and(|format| format != compressor.format())
            };
            if !manifest.layers.iter().any(other) {
                continue;
            }
            let Some(config) = config_of(origin, &manifest.config)? else {
                continue;
            };
            for (layer, diff_id) in pair(&manifest.layers, &config).unwrap_or_default() {
                if other(&layer) {
                    self.anew.insert(layer.digest, diff_id);
                }
            }
        }
        Ok(())
    }

    /// Returns the plan with its documents as they are once blobs were replaced.
    pub(super) fn changed(&self, mut replaced: Replaced) -> Result<Plan, CopyError> {
        if replaced.is_empty() && self.changes.family.is_none() {
            return Ok(self.clone());
        }
        let now = |blob: &Descriptor| replaced.get(&blob.digest).unwrap_or(blob).clone();
        let mut plan = Plan {
            documents: Vec::new(),
            blobs: self.blobs.iter().map(now).collect(),
            manifests: Vec::new(),
            anew: BTreeMap::new(),
            changes: Changes::default(),
        };
        for document in &self.documents {
            let document = self.convert(document, &mut replaced)?;
            let media_type = &document.descriptor.media_type;
            let kind = ManifestKind::parse(&document.bytes, Some(media_type));
            let kind = kind.map_err(|source| CopyError::Manifest {
                digest: document.descriptor.digest.clone(),
                source,
            })?;
            if let ManifestKind::Image(manifest) = kind {
                plan.manifests.push(manifest);
            }
            plan.documents.push(document);
        }
        Ok(plan)
    }

    /// Makes a document anew, and takes note of what it has become.
    fn convert(&self, document: &Document, replaced: &mut Replaced) -> Result<Document, CopyError> {
        let descriptor = &document.descriptor;
        let (bytes, media_type) = (&document.bytes, descriptor.media_type.as_str());
        let family = self.changes.family;
        let is_index = matches!(
            ManifestKind::parse(bytes, Some(media_type)),
            Ok(ManifestKind::Index(_))
        );
        let converted = match is_index {
            true => convert_index(bytes, media_type, replaced, family),
            false => convert_manifest(bytes, media_type, replaced, family),
        };
        let converted = converted.map_err(|source| CopyError::Conversion {
            digest: descriptor.digest.clone(),
            source,
        })?;
        let Some(bytes) = converted else {
            return Ok(document.clone());
        };
        let now = Descriptor::of(&ManifestKind::media_type(&bytes), &bytes);
        replaced.insert(descriptor.digest.clone(), now.clone());
        Ok(Document {
            descriptor: now,
            bytes,
        })
    }
}

/// Compresses layers anew, and brings them to a goal.
pub(super) struct Repacking<'a> {
    pub transfer: &'a Transfer<'a>,
    pub origin: &'a dyn Origin,
    pub goal: &'a dyn Goal,
    pub compressor: Compressor,
    /// Held by who compresses: one layer at a time has all cores, and takes memory once.
    pub turn: Mutex<()>,
}

impl Repacking<'_> {
    /// Brings a layer, and returns the blob that it has become.
    pub fn layer(
        &self,
        layer: &Descriptor,
        diff_id: &DiffId,
        verb: Verb,
    ) -> Result<Descriptor, CopyError> {
        let begin = |size| {
            let name = diff_id.0.short();
            self.transfer.begin(name, verb, size)
        };
        if let Some(known) = self.known(diff_id) {
            if self.goal.has(&known)? {
                begin(Some(known.size)).end(TransferOutcome::Exists);
                return Ok(known);
            }
            let store = self.transfer.store;
            let here = store.compressed(diff_id);
            if here.iter().any(|blob| blob.descriptor == known) {
                let file = store.open_blob(&known.digest)?;
                let reported = begin(Some(known.size));
                let made = Made {
                    descriptor: known,
                    file,
                };
                let outcome = self
                    .goal
                    .blob(&made.descriptor, &made, reported.progress())?;
                reported.end(outcome);
                return Ok(made.descriptor);
            }
        }
        let turn = self.turn.lock();
        let reported = begin(None);
        let mut blob = self.transfer.store.new_blob(self.transfer.session)?;
        let growing = blob.grow()?;
        let mut made = None;
        let is_there = self.goal.growing(
            &format!("layer {}", diff_id.0),
            &growing,
            reported.progress(),
            Box::new(|| {
                made = Some(self.compress(layer, diff_id, blob)?);
                drop(turn);
                Ok(())
            }),
        )?;
        let unmade = || CopyError::Unusable(format!("the layer {} was not made", diff_id.0));
        let made = made.ok_or_else(unmade)?;
        let descriptor = made.descriptor.clone();
        let outcome = match is_there {
            true => TransferOutcome::Done,
            false => self.goal.blob(&descriptor, &made, reported.progress())?,
        };
        reported.end(outcome);
        let how = self.compressor.name();
        let record = CompressedBlob {
            descriptor: descriptor.clone(),
            how,
        };
        self.transfer.store.add_compressed(diff_id, record)?;
        Ok(descriptor)
    }

    /// Returns what the layer became when it was compressed so before.
    fn known(&self, diff_id: &DiffId) -> Option<Descriptor> {
        let name = self.compressor.name();
        let known = self.transfer.store.recorded_blobs(diff_id);
        let mut known = known.into_iter();
        Some(known.rfind(|blob| blob.how == name)?.descriptor)
    }

    /// Compresses a layer into a file that has no name.
    fn compress(
        &self,
        layer: &Descriptor,
        diff_id: &DiffId,
        blob: BlobWriter,
    ) -> Result<Made, CopyError> {
        let failed = |error| CopyError::read(&layer.digest, error);
        let nobody: Progress = std::sync::Arc::new(|_| {});
        let mut reader = self.origin.blob(layer, nobody)?;
        let mut encoder = self.compressor.encoder(blob).map_err(failed)?;
        let mut out = DigestingWriter::new(&mut encoder, Algorithm::Sha256);
        let drain = |content: &mut dyn Read| io::copy(content, &mut io::sink());
        let drained = decode_through(&mut reader, &mut out, drain);
        drained.and_then(|drained| drained).map_err(failed)?;
        let found = out.finish().map_err(failed)?;
        // A decompressor may stop before the end; the digest counts all bytes.
        io::copy(&mut reader, &mut io::sink()).map_err(failed)?;
        if found != diff_id.0 {
            return Err(CopyError::Transfer(TransferError::WrongDiffId {
                digest: layer.digest.clone(),
                expected: diff_id.0.clone(),
                found,
            }));
        }
        let (digest, size, file) = encoder.finish().map_err(failed)?.set_aside()?;
        let descriptor = Descriptor {
            media_type: media_type_of(self.compressor).to_owned(),
            digest,
            size,
        };
        Ok(Made { descriptor, file })
    }
}

/// A layer that was compressed, as the origin of it.
struct Made {
    descriptor: Descriptor,
    file: File,
}

impl Origin for Made {
    fn root(&self) -> Result<Document, CopyError> {
        Err(CopyError::Unusable("it is a layer".to_owned()))
    }

    fn document(&self, _descriptor: &Descriptor) -> Result<Vec<u8>, CopyError> {
        Err(CopyError::Unusable("it is a layer".to_owned()))
    }

    fn blob(&self, blob: &Descriptor, progress: Progress) -> Result<BlobStream, CopyError> {
        let file = self.file.try_clone();
        let file = file.map_err(|error| CopyError::read(&blob.digest, error))?;
        Ok(Box::new(FromStart {
            file,
            at: 0,
            progress,
        }))
    }
}

/// Reads a file from its start, wherever others are in it.
struct FromStart {
    file: File,
    at: u64,
    progress: Progress,
}

impl io::Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        (self.progress)(self.at);
        Ok(read)
    }
}
