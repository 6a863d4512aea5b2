//! Images out of archives.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use super::source::{Section, blob_name};
use super::{Archive, ArchiveError, Result, docker, oci};
use crate::event::Verb;
use crate::image::{Algorithm, Descriptor, Digest, ImageConfig, Platform, Reference};
use crate::store::{Stack, Verifying};
use crate::transfer::{LayerSource, Transfer, TransferError, bring_layers, pair};

/// No manifest, index or config is larger, in bytes …
pub(super) const DOCUMENT_LIMIT: u64 = 8 << 20;
/// … and all configs of an archive together are not either.
const CONFIGS_LIMIT: u64 = 64 << 20;
/// No archive that kiln takes has more images …
const MAX_IMAGES: usize = 512;
/// … and no image more layers: an overlay takes 500.
const MAX_LAYERS: usize = 512;

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The digest of its config.
    pub id: Digest,
    /// The names that it has got.
    pub names: Vec<Reference>,
}

/// An image of an archive, before its layers are looked at.
pub(super) struct Found {
    pub(super) names: Vec<Reference>,
    pub(super) id: Digest,
    pub(super) config: Vec<u8>,
    /// The digest and the bytes, where the archive has one.
    pub(super) manifest: Option<(Digest, Vec<u8>)>,
    pub(super) layers: Vec<Descriptor>,
    /// Layers that are no blobs of a layout.
    pub(super) files: HashMap<Digest, Section>,
}

/// Loads all images of an archive; of those with several platforms, the one for `platform`,
/// else for the host. They get their names when all of them are there.
///
/// # Errors
/// See [`ArchiveError`]. Nothing is published then.
pub fn load(
    transfer: &Transfer<'_>,
    archive: &Archive,
    platform: Option<&Platform>,
) -> Result<Vec<Loaded>> {
    let has = |name: &str| archive.find(name).map(|section| section.is_some());
    // The specification wants `oci-layout` too; not every program writes it.
    let images = if has("index.json")? && (has("oci-layout")? || !has("manifest.json")?) {
        oci::images(archive, platform)?
    } else if has("manifest.json")? {
        docker::images(transfer, archive)?
    } else if has("repositories")? {
        return Err(ArchiveError::TooOld);
    } else {
        return Err(ArchiveError::NoImages);
    };
    if images.is_empty() {
        return Err(ArchiveError::NoImages);
    }
    let mut ready = Vec::with_capacity(images.len());
    let mut configs = 0;
    for image in images {
        configs += image.config.len() as u64;
        if configs > CONFIGS_LIMIT {
            return Err(ArchiveError::Limit {
                what: "bytes of configs",
                limit: CONFIGS_LIMIT,
            });
        }
        let (_, stack) = bring(transfer, archive, &image, platform)?;
        ready.push((image, stack));
    }
    let store = transfer.store;
    for (image, _) in &ready {
        store.write_document_as(&image.id, &image.config)?;
        if let Some((digest, bytes)) = &image.manifest {
            store.write_document_as(digest, bytes)?;
        }
    }
    store.sync(ready.iter().flat_map(|(_, stack)| stack.layers()))?;
    let mut loaded = Vec::with_capacity(ready.len());
    for (image, stack) in ready {
        store.publish_image(&image.id, &stack)?;
        let manifest = image.manifest.map(|(digest, _)| digest);
        for name in &image.names {
            store.tag(name, &image.id, manifest.clone())?;
        }
        loaded.push(Loaded {
            id: image.id,
            names: image.names,
        });
    }
    Ok(loaded)
}

/// Brings the layers of one image of an OCI layout into the store, without making it an image
/// there. `wanted` is its tag or digest; nothing means the only one.
///
/// # Errors
/// See [`ArchiveError`].
pub fn load_base(
    transfer: &Transfer<'_>,
    archive: &Archive,
    wanted: Option<&str>,
    platform: &Platform,
) -> Result<(ImageConfig, Stack)> {
    if archive.find("index.json")?.is_none() {
        return Err(ArchiveError::NoImages);
    }
    let image = oci::image(archive, wanted, Some(platform))?;
    bring(transfer, archive, &image, Some(platform))
}

/// Checks the config of an image and brings its layers into the store.
fn bring(
    transfer: &Transfer<'_>,
    archive: &Archive,
    image: &Found,
    platform: Option<&Platform>,
) -> Result<(ImageConfig, Stack)> {
    if image.id.algorithm() != Algorithm::Sha256 {
        return Err(TransferError::Config("its digest is no sha256".to_owned()).into());
    }
    let config: ImageConfig = serde_json::from_slice(&image.config)
        .map_err(|error| TransferError::Config(error.to_string()))?;
    if let Some(wanted) = platform
        && !config.platform().matches(wanted)
    {
        return Err(ArchiveError::Platform {
            wanted: Box::new(wanted.clone()),
            found: vec![config.platform()],
        });
    }
    limit_layers(image.layers.len())?;
    let layers = pair(&image.layers, &config)?;
    let source = Layers {
        archive,
        files: &image.files,
    };
    let stack = bring_layers(transfer, &layers, &source)?;
    Ok((config, stack))
}

/// The layers of one image in an archive.
pub(super) struct Layers<'a> {
    pub(super) archive: &'a Archive,
    pub(super) files: &'a HashMap<Digest, Section>,
}

impl LayerSource for Layers<'_> {
    fn open(
        &self,
        layer: &Descriptor,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> std::result::Result<Box<dyn Read + Send>, TransferError> {
        let error = |source| TransferError::Read {
            digest: layer.digest.clone(),
            source,
        };
        let section = match self.files.get(&layer.digest) {
            Some(section) => section.clone(),
            None => self
                .archive
                .get(&blob_name(&layer.digest))
                .map_err(|e| error(io::Error::other(e)))?,
        };
        if section.len() != layer.size {
            let text = format!(
                "it has {} bytes, and its manifest says {}",
                section.len(),
                layer.size
            );
            return Err(error(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        let counted = Counted::new(section, progress);
        Ok(Box::new(Verifying::new(counted, layer.digest.clone())))
    }

    fn verb(&self) -> Verb {
        Verb::Extract
    }
}

/// Reports how much was read.
pub(super) struct Counted<R> {
    inner: R,
    count: u64,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
}

impl<R> Counted<R> {
    pub(super) fn new(inner: R, progress: Arc<dyn Fn(u64) + Send + Sync>) -> Counted<R> {
        Counted {
            inner,
            count: 0,
            progress,
        }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        (self.progress)(self.count);
        Ok(read)
    }
}

/// Parses a name out of an archive. One that pins a digest is no name that an archive can
/// give: it would promise content that nobody has verified.
pub(super) fn name(text: &str) -> Option<Reference> {
    let reference: Reference = text.parse().ok()?;
    reference.digest().is_none().then_some(reference)
}

/// Refuses more images than an honest archive has.
pub(super) fn limit_images(count: usize) -> Result<()> {
    limit(count, MAX_IMAGES, "images")
}

/// Refuses more layers than an image can have.
pub(super) fn limit_layers(count: usize) -> Result<()> {
    limit(count, MAX_LAYERS, "layers in an image")
}

fn limit(count: usize, limit: usize, what: &'static str) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    let limit = limit as u64;
    Err(ArchiveError::Limit { what, limit })
}
