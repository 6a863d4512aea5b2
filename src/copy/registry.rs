//! Registries as places of images.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::{BlobStream, CopyError, Document, Goal, Origin};
use crate::event::TransferOutcome;
use crate::image::{Descriptor, Digest, Reference};
use crate::registry::{Client, Progress, Pushed};
use crate::store::GrowingBlob;
use crate::transfer::send_while_made;

/// A repository of a registry as the origin.
pub struct RegistryOrigin<'a> {
    client: &'a Client,
    reference: Reference,
}

impl<'a> RegistryOrigin<'a> {
    /// Makes an origin of what `reference` stands for; nothing is asked yet.
    pub fn new(client: &'a Client, reference: Reference) -> RegistryOrigin<'a> {
        RegistryOrigin { client, reference }
    }
}

impl Origin for RegistryOrigin<'_> {
    fn root(&self) -> Result<Document, CopyError> {
        let fetched = self.client.manifest(&self.reference)?;
        Ok(Document {
            descriptor: Descriptor {
                media_type: fetched.media_type,
                digest: fetched.digest,
                size: fetched.bytes.len() as u64,
            },
            bytes: fetched.bytes,
        })
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CopyError> {
        let reference = self.reference.with_digest(&descriptor.digest);
        Ok(self.client.manifest(&reference)?.bytes)
    }

    fn blob(&self, blob: &Descriptor, progress: Progress) -> Result<BlobStream, CopyError> {
        let reader = self.client.blob(&self.reference, blob)?;
        Ok(Box::new(reader.with_progress(progress)))
    }

    fn repository(&self, _blob: &Digest) -> Option<Reference> {
        Some(self.reference.clone())
    }
}

/// A repository of a registry as the goal.
pub struct RegistryGoal<'a> {
    client: &'a Client,
    reference: Reference,
    /// Repositories of the registry that have blobs.
    elsewhere: HashMap<Digest, Reference>,
}

impl<'a> RegistryGoal<'a> {
    /// Makes a goal of a name; `elsewhere` tells which repositories of the registry have
    /// which blobs, as far as is known.
    pub fn new(
        client: &'a Client,
        reference: Reference,
        elsewhere: HashMap<Digest, Reference>,
    ) -> RegistryGoal<'a> {
        RegistryGoal {
            client,
            reference,
            elsewhere,
        }
    }
}

impl Goal for RegistryGoal<'_> {
    fn blob(
        &self,
        blob: &Descriptor,
        origin: &dyn Origin,
        progress: Progress,
    ) -> Result<TransferOutcome, CopyError> {
        let from = origin.repository(&blob.digest);
        let from = from.filter(|from| from.registry() == self.reference.registry());
        let from = from.as_ref().or(self.elsewhere.get(&blob.digest));
        // What the origin does wrong passes through the upload, and comes out as itself.
        let mut failed = None;
        let mut open = || -> io::Result<BlobStream> {
            origin.blob(blob, Arc::new(|_| {})).map_err(|error| {
                failed = Some(error);
                io::Error::other("the origin failed")
            })
        };
        let pushed = self
            .client
            .push_blob(&self.reference, blob, &mut open, from, Some(progress));
        match (pushed, failed) {
            (Ok(Pushed::Existed | Pushed::Mounted), _) => Ok(TransferOutcome::Exists),
            (Ok(Pushed::Uploaded), _) => Ok(TransferOutcome::Done),
            (Err(_), Some(error)) => Err(error),
            (Err(error), None) => Err(match error.into_content() {
                Ok(content) => CopyError::read(&blob.digest, content),
                Err(error) => error.into(),
            }),
        }
    }

    fn document(&self, document: &Document, is_root: bool) -> Result<(), CopyError> {
        let Descriptor {
            media_type, digest, ..
        } = &document.descriptor;
        let reference = match is_root {
            true => self.reference.clone(),
            false => self.reference.with_digest(digest),
        };
        self.client
            .push_manifest(&reference, media_type, &document.bytes)?;
        Ok(())
    }

    fn has(&self, blob: &Descriptor) -> Result<bool, CopyError> {
        Ok(self.client.blob_exists(&self.reference, &blob.digest)?)
    }

    fn growing(
        &self,
        name: &str,
        blob: &GrowingBlob,
        progress: Progress,
        make: Box<dyn FnOnce() -> Result<(), CopyError> + '_>,
    ) -> Result<bool, CopyError> {
        let sent = send_while_made(self.client, &self.reference, name, blob, progress, make);
        sent.map(|((), is_sent)| is_sent)
    }
}
