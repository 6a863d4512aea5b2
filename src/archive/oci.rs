//! OCI layouts.
//! See <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.

use std::collections::HashMap;

use serde::Deserialize;

use super::load::{self, DOCUMENT_LIMIT, Found, limit_images};
use super::{Archive, ArchiveError, Result};
use crate::image::{
    Descriptor, Index, IndexEntry, Manifest, ManifestKind, Platform, Reference, media_type,
};

/// No index that kiln takes has more entries.
const MAX_ENTRIES: usize = 4096;
/// Indexes within indexes.
const MAX_DEPTH: usize = 4;

/// The content of the file `oci-layout`.
pub(super) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Returns the images that the index names; one for each name, for the platform.
///
/// # Errors
/// What it refers to is missing or malformed, or is for other platforms.
pub(super) fn images(archive: &Archive, platform: Option<&Platform>) -> Result<Vec<Found>> {
    let index = root(archive)?;
    let mut images: Vec<Found> = Vec::new();
    for group in groups(index) {
        limit_images(images.len())?;
        let names: Vec<Reference> = group.first().and_then(name_of).into_iter().collect();
        let found = found(archive, choose(group, platform)?, platform)?;
        if let Some(same) = images.iter_mut().find(|image| image.id == found.id) {
            same.names.extend(names);
            continue;
        }
        images.push(Found { names, ..found });
    }
    Ok(images)
}

/// Returns what `wanted` names by its tag, its whole name or a digest; without, the only
/// one, or that of the tag `latest`. What is there for several platforms without an index of
/// its own gets one.
///
/// # Errors
/// There is no such thing; it is damaged.
pub(super) fn named(archive: &Archive, wanted: Option<&str>) -> Result<(Descriptor, Vec<u8>)> {
    let mut group = group(archive, wanted)?;
    if let [only] = group.as_slice() {
        let bytes = archive.blob(&only.descriptor.digest, DOCUMENT_LIMIT)?;
        return Ok((only.descriptor.clone(), bytes));
    }
    for entry in &mut group {
        (entry.ref_name, entry.image_name) = (None, None);
    }
    let bytes = Index { entries: group }.to_bytes();
    Ok((Descriptor::of(media_type::OCI_INDEX, &bytes), bytes))
}

/// Returns the image that `wanted` names by its tag, its whole name or a digest; without, the
/// only one, or that of the tag `latest`.
///
/// # Errors
/// There is no such image; what it refers to is missing or malformed.
pub(super) fn image(
    archive: &Archive,
    wanted: Option<&str>,
    platform: Option<&Platform>,
) -> Result<Found> {
    found(
        archive,
        choose(group(archive, wanted)?, platform)?,
        platform,
    )
}

/// Returns the entries that `wanted` names.
fn group(archive: &Archive, wanted: Option<&str>) -> Result<Vec<IndexEntry>> {
    let mut groups = groups(root(archive)?);
    let is_meant = |wanted: &str, entry: &IndexEntry| {
        entry.descriptor.digest.to_string() == wanted
            || [&entry.ref_name, &entry.image_name]
                .into_iter()
                .flatten()
                .any(|name| name == wanted || name.ends_with(&format!(":{wanted}")))
    };
    let at = match wanted {
        None if groups.len() == 1 => Some(0),
        wanted => {
            let wanted = wanted.unwrap_or("latest");
            let place = |group: &Vec<IndexEntry>| group.iter().any(|e| is_meant(wanted, e));
            groups.iter().position(place)
        }
    };
    let Some(at) = at else {
        let names = groups.iter().flatten().filter_map(|entry| {
            let name = entry.ref_name.clone().or_else(|| entry.image_name.clone());
            name.or_else(|| Some(entry.descriptor.digest.to_string()))
        });
        return Err(ArchiveError::NoSuchImage {
            wanted: wanted.unwrap_or("latest").to_owned(),
            found: names.collect(),
        });
    };
    let mut group = groups.swap_remove(at);
    if let Some(digest) = wanted
        && group
            .iter()
            .any(|e| e.descriptor.digest.to_string() == digest)
    {
        group.retain(|entry| entry.descriptor.digest.to_string() == digest);
    }
    Ok(group)
}

/// Returns the image of an entry, without names.
fn found(archive: &Archive, entry: IndexEntry, platform: Option<&Platform>) -> Result<Found> {
    let (descriptor, bytes, manifest) = descend(archive, entry, platform)?;
    Ok(Found {
        names: Vec::new(),
        config: archive.blob(&manifest.config.digest, DOCUMENT_LIMIT)?,
        id: manifest.config.digest,
        manifest: Some((descriptor.digest, bytes)),
        layers: manifest.layers,
        files: HashMap::new(),
    })
}

/// Reads the index that a layout begins with.
fn root(archive: &Archive) -> Result<Index> {
    check_version(archive)?;
    let bytes = archive.document("index.json", DOCUMENT_LIMIT)?;
    let index = match parse("index.json", &bytes, media_type::OCI_INDEX)? {
        ManifestKind::Index(index) => index,
        ManifestKind::Image(_) => return Err(malformed("index.json", "it is no index")),
    };
    if index.entries.len() > MAX_ENTRIES {
        return Err(ArchiveError::Limit {
            what: "entries in its index",
            limit: MAX_ENTRIES as u64,
        });
    }
    Ok(index)
}

fn check_version(archive: &Archive) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        image_layout_version: String,
    }
    if archive.find("oci-layout")?.is_none() {
        return Ok(());
    }
    let bytes = archive.document("oci-layout", 4096)?;
    let version: Version =
        serde_json::from_slice(&bytes).map_err(|error| malformed("oci-layout", error))?;
    if !version.image_layout_version.starts_with("1.") {
        let text = format!("unknown version {:?}", version.image_layout_version);
        return Err(malformed("oci-layout", text));
    }
    Ok(())
}

fn malformed(name: &str, reason: impl ToString) -> ArchiveError {
    ArchiveError::Malformed {
        name: name.to_owned(),
        reason: reason.to_string(),
    }
}

fn parse(name: &str, bytes: &[u8], content_type: &str) -> Result<ManifestKind> {
    ManifestKind::parse(bytes, Some(content_type)).map_err(|error| malformed(name, error))
}

/// Returns the name of an entry. What is in `ref.name` alone may be the tag of nobody knows
/// what: it counts where it is a whole name.
fn name_of(entry: &IndexEntry) -> Option<Reference> {
    let whole = |text: &&String| text.contains(['/', ':']);
    let text = entry.image_name.as_ref();
    let text = text.or(entry.ref_name.as_ref().filter(whole))?;
    load::name(text)
}

/// Returns the entries that are one image for several platforms, each time: those of one name,
/// and those without one if no two are for the same platform.
fn groups(index: Index) -> Vec<Vec<IndexEntry>> {
    let mut named: Vec<(String, Vec<IndexEntry>)> = Vec::new();
    let mut nameless: Vec<IndexEntry> = Vec::new();
    for entry in index.entries.into_iter().filter(is_image) {
        let key = match (&entry.image_name, &entry.ref_name) {
            (Some(name), _) => format!("image {name}"),
            (None, Some(name)) => format!("ref {name}"),
            (None, None) => {
                nameless.push(entry);
                continue;
            }
        };
        match named.iter_mut().find(|(name, _)| *name == key) {
            Some((_, group)) => group.push(entry),
            None => named.push((key, vec![entry])),
        }
    }
    let mut groups: Vec<_> = named.into_iter().map(|(_, group)| group).collect();
    let platforms: std::collections::BTreeSet<_> = nameless
        .iter()
        .filter_map(|e| e.platform.as_ref())
        .collect();
    if platforms.len() == nameless.len() && !nameless.is_empty() {
        groups.push(nameless);
    } else {
        groups.extend(nameless.into_iter().map(|entry| vec![entry]));
    }
    groups
}

/// Tells whether an entry is an image: attestations have the platform `unknown/unknown`.
fn is_image(entry: &IndexEntry) -> bool {
    entry.platform.as_ref().is_none_or(|p| p.os != "unknown")
}

/// Chooses the entry for a platform. Without one being asked for, a single entry is taken
/// whatever it is for.
fn choose(mut entries: Vec<IndexEntry>, platform: Option<&Platform>) -> Result<IndexEntry> {
    if entries.len() == 1
        && let Some(only) = entries.pop()
    {
        return Ok(only);
    }
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let found = entries.iter().filter_map(|e| e.platform.clone()).collect();
    let index = Index { entries };
    match index.select(&wanted) {
        Some(entry) => Ok(entry.clone()),
        None => {
            let wanted = Box::new(wanted);
            Err(ArchiveError::Platform { wanted, found })
        }
    }
}

/// Goes down from an entry to a manifest.
fn descend(
    archive: &Archive,
    mut entry: IndexEntry,
    platform: Option<&Platform>,
) -> Result<(Descriptor, Vec<u8>, Manifest)> {
    for _ in 0..MAX_DEPTH {
        let descriptor = entry.descriptor;
        let bytes = archive.blob(&descriptor.digest, DOCUMENT_LIMIT)?;
        let name = descriptor.digest.to_string();
        match parse(&name, &bytes, &descriptor.media_type)? {
            ManifestKind::Image(manifest) => return Ok((descriptor, bytes, manifest)),
            ManifestKind::Index(index) => {
                let entries: Vec<_> = index.entries.into_iter().filter(is_image).collect();
                if entries.is_empty() {
                    return Err(malformed(&name, "the index is empty"));
                }
                entry = choose(entries, platform)?;
            }
        }
    }
    Err(malformed("index.json", "indexes are nested too deeply"))
}
