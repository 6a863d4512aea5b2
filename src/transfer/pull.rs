//! Images out of a registry.

use std::io::Read;
use std::sync::Arc;

use super::layers::{LayerSource, bring_layers};
use super::{Transfer, TransferError};
use crate::event::Event;
use crate::image::{
    Descriptor, DiffId, Digest, ImageConfig, ManifestError, ManifestKind, Platform, Reference,
};
use crate::registry::{Client, Reason};
use crate::store::{RefRecord, Stack};

/// No config is larger, in bytes.
const CONFIG_LIMIT: u64 = 8 << 20;

/// An image that was pulled.
pub struct Pulled {
    /// The digest of its config.
    pub id: Digest,
    /// Its config.
    pub config: ImageConfig,
    /// Its layers.
    pub stack: Stack,
    /// What the name stands for in the registry: the index, else the manifest.
    pub digest: Digest,
    /// Whether the name stood for the same image before.
    pub unchanged: bool,
}

/// The blobs of one repository.
struct Repository<'a> {
    client: &'a Client,
    reference: &'a Reference,
}

impl LayerSource for Repository<'_> {
    fn open(
        &self,
        layer: &Descriptor,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Box<dyn Read + Send>, TransferError> {
        let reader = self.client.blob(self.reference, layer)?;
        Ok(Box::new(reader.with_progress(progress)))
    }
}

/// Pulls an image, and gives it its name in the store when all of it is there. What is no index
/// may be an image for another platform: that is said, and it is taken, as docker does.
///
/// # Errors
/// See [`TransferError`]. Nothing is published then, but layers that had come whole.
pub fn pull(
    transfer: &Transfer<'_>,
    client: &Client,
    reference: &Reference,
    platform: &Platform,
) -> Result<Pulled, TransferError> {
    let resolved = client.resolve(reference, platform)?;
    let ManifestKind::Image(manifest) = &resolved.manifest.kind else {
        let error = ManifestError::UnknownMediaType(resolved.manifest.media_type.clone());
        return Err(TransferError::Config(error.to_string()));
    };
    let store = transfer.store;
    let config_bytes = match store.read_document(&manifest.config.digest) {
        Ok(bytes) => bytes,
        Err(_) => {
            if manifest.config.size > CONFIG_LIMIT {
                let text = format!("it has {} bytes", manifest.config.size);
                return Err(TransferError::Config(text));
            }
            let mut bytes = Vec::new();
            let digest = manifest.config.digest.clone();
            client
                .blob(reference, &manifest.config)?
                .read_to_end(&mut bytes)
                .map_err(|error| TransferError::read(&digest, error))?;
            bytes
        }
    };
    let config: ImageConfig =
        serde_json::from_slice(&config_bytes).map_err(|e| TransferError::Config(e.to_string()))?;
    if !config.fits(platform) {
        transfer.reporter.report(Event::Warning {
            message: format!(
                "{} is an image for {}, not for {platform}",
                reference.familiar(),
                config.platform()
            ),
            hint: None,
        });
    }
    let layers = pair(&manifest.layers, &config)?;
    let repository = Repository { client, reference };
    let stack = bring_layers(transfer, &layers, &repository)?;
    let id = manifest.config.digest.clone();
    store.write_document_as(&id, &config_bytes)?;
    store.write_document_as(&resolved.manifest.digest, &resolved.manifest.bytes)?;
    if let Some(index) = &resolved.index {
        store.write_document_as(&index.digest, &index.bytes)?;
    }
    store.sync(stack.layers())?;
    store.publish_image(&id, &stack)?;
    let before = store.reference(reference)?;
    let manifest_digest = resolved.manifest.digest.clone();
    let index = resolved.index.map(|index| index.digest);
    store.write_reference(&RefRecord {
        name: reference.to_string(),
        image: id.clone(),
        manifest: Some(manifest_digest.clone()),
        index: index.clone(),
        registered: true,
    })?;
    Ok(Pulled {
        unchanged: before.is_some_and(|r| r.image == id),
        digest: index.unwrap_or(manifest_digest),
        id,
        config,
        stack,
    })
}

/// Pulls what a name as people write it stands for, from the first of the registries that it may
/// belong to that has it; returns its whole name too.
///
/// # Errors
/// As for [`pull`]; [`TransferError::NotFound`] where several registries were asked in vain.
pub fn pull_named(
    transfer: &Transfer<'_>,
    client: &Client,
    name: &str,
    platform: &Platform,
) -> Result<(Reference, Pulled), TransferError> {
    first_of(client, name, |reference| {
        pull(transfer, client, reference, platform)
    })
}

/// Returns all tags of a repository, as for [`pull_named`].
///
/// # Errors
/// It can't be found, or lists no tags.
pub fn tags_named(client: &Client, name: &str) -> Result<Vec<Reference>, TransferError> {
    let (repository, tags) = first_of(client, name, |reference| Ok(client.tags(reference)?))?;
    let tags = tags.iter().filter_map(|tag| repository.with_tag(tag));
    Ok(tags.collect())
}

/// Does something with the first of the names that may be meant that is there.
fn first_of<T>(
    client: &Client,
    name: &str,
    mut read: impl FnMut(&Reference) -> Result<T, TransferError>,
) -> Result<(Reference, T), TransferError> {
    let mut tried = Vec::new();
    let candidates = client.candidates(name)?;
    let is_only = candidates.len() == 1;
    for reference in candidates {
        match read(&reference) {
            Ok(found) => return Ok((reference, found)),
            Err(TransferError::Registry(error)) if !is_only && lacks(error.reason()) => {
                tried.push(error.into());
            }
            Err(error) => return Err(error),
        }
    }
    Err(TransferError::NotFound {
        name: name.to_owned(),
        tried,
    })
}

/// Tells whether a registry has not what it was asked for, as far as the user may know.
fn lacks(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::NotFound
            | Reason::RepositoryNotFound
            | Reason::TagNotFound { .. }
            | Reason::Unauthorized { .. }
            | Reason::Denied(_)
            | Reason::Unreachable(_)
    )
}

/// Pairs the layers of a manifest with the diff ids of its config.
pub(crate) fn pair(
    layers: &[Descriptor],
    config: &ImageConfig,
) -> Result<Vec<(Descriptor, DiffId)>, TransferError> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        return Err(TransferError::Config(format!(
            "it names {} layers, and the manifest {}",
            diff_ids.len(),
            layers.len()
        )));
    }
    Ok(layers
        .iter()
        .cloned()
        .zip(diff_ids.iter().cloned())
        .collect())
}
