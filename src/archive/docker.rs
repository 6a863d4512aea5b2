//! docker's `manifest.json`.
//! See <https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format>.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::load::{self, DOCUMENT_LIMIT, Found, limit_images, limit_layers};
use super::source::{Section, decompressed, printable};
use super::{Archive, ArchiveError, IoContext, Result};
use crate::image::{Algorithm, Descriptor, Digest, Hasher, ImageConfig, media_type};
use crate::layer::Compression;
use crate::transfer::{Transfer, TransferError};

/// One image of a `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    /// The name of the config in the archive.
    pub(super) config: String,
    /// The image's names as docker prints them.
    pub(super) repo_tags: Option<Vec<String>>,
    /// The names of the layers in the archive, bottom first.
    pub(super) layers: Vec<String>,
}

/// Returns the images that `manifest.json` names.
///
/// # Errors
/// What it refers to is missing or malformed.
pub(super) fn images(transfer: &Transfer<'_>, archive: &Archive) -> Result<Vec<Found>> {
    let bytes = archive.document("manifest.json", DOCUMENT_LIMIT)?;
    let malformed = |name: &str, reason: String| ArchiveError::Malformed {
        name: printable(name),
        reason,
    };
    let entries: Vec<Entry> = serde_json::from_slice(&bytes)
        .map_err(|error| malformed("manifest.json", error.to_string()))?;
    let mut images: Vec<Found> = Vec::new();
    limit_images(entries.len())?;
    for entry in entries {
        limit_layers(entry.layers.len())?;
        let mut names = Vec::new();
        for text in entry.repo_tags.unwrap_or_default() {
            let name = load::name(&text)
                .ok_or_else(|| malformed("manifest.json", format!("{text:?} is no image name")))?;
            names.push(name);
        }
        let config = archive.document(&entry.config, DOCUMENT_LIMIT)?;
        let id = Digest::of(&config);
        if named_digest(&entry.config).is_some_and(|named| named != id) {
            return Err(ArchiveError::WrongDigest {
                name: printable(&entry.config),
                found: id,
            });
        }
        if let Some(same) = images.iter_mut().find(|image| image.id == id) {
            same.names.extend(names);
            continue;
        }
        let parsed: ImageConfig = serde_json::from_slice(&config)
            .map_err(|error| TransferError::Config(error.to_string()))?;
        let mut layers = Vec::new();
        let mut files = HashMap::new();
        for (index, name) in entry.layers.iter().enumerate() {
            let diff_id = parsed.rootfs.diff_ids.get(index).map(|diff_id| &diff_id.0);
            let (descriptor, section) = layer(transfer, archive, name, diff_id)?;
            files.insert(descriptor.digest.clone(), section);
            layers.push(descriptor);
        }
        images.push(Found {
            names,
            id,
            config,
            manifest: None,
            layers,
            files,
        });
    }
    Ok(images)
}

/// Returns the digest that a name promises: `blobs/sha256/<hex>` and `<hex>.json`.
fn named_digest(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next()?;
    let hex = last.strip_suffix(".json").unwrap_or(last);
    format!("sha256:{hex}").parse().ok()
}

/// Returns the descriptor of a layer, which docker's format does not have, and its bytes.
fn layer(
    transfer: &Transfer<'_>,
    archive: &Archive,
    name: &str,
    diff_id: Option<&Digest>,
) -> Result<(Descriptor, Section)> {
    let mut section = archive.get(name)?;
    let mut magic = Vec::new();
    section
        .clone()
        .take(6)
        .read_to_end(&mut magic)
        .at("cannot read", Path::new(name))?;
    let media_type = match Compression::detect(&magic) {
        Compression::None => media_type::OCI_LAYER,
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        // No registry knows such layers.
        Compression::Bzip2 | Compression::Xz => {
            section = decompressed(transfer.session, section)?;
            media_type::OCI_LAYER
        }
    };
    let digest = match diff_id {
        // What is read is verified, so the promise is enough.
        Some(diff_id) if media_type == media_type::OCI_LAYER => diff_id.clone(),
        _ => match named_digest(name).filter(|_| name.starts_with("blobs/sha256/")) {
            Some(digest) => digest,
            None => digest_of(section.clone()).at("cannot read", Path::new(name))?,
        },
    };
    let descriptor = Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: section.len(),
    };
    Ok((descriptor, section))
}

fn digest_of(mut section: Section) -> io::Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 1 << 17];
    loop {
        match section.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
