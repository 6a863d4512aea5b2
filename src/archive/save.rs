//! Images into archives and layouts.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use super::destination::{Directory, Sink};
use super::source::blob_name;
use super::{ArchiveError, Destination, IoContext, Result, docker, oci};
use crate::image::{
    Descriptor, Digest, Index, IndexEntry, Manifest, Platform, Reference, media_type,
};
use crate::layer::member_header;
use crate::store::{Image, Store, StoreError, Verifying};
use crate::transfer::{Packing, Transfer, manifest_of};

/// What an archive or a directory of images is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// An OCI layout.
    Oci,
    /// An OCI layout that is docker's format too.
    Docker,
}

/// An image, and the names that it is written under.
#[derive(Clone, Debug)]
pub struct NamedImage {
    /// The image. Its config and its layers are in the store.
    pub image: Image,
    /// Its names.
    pub names: Vec<Reference>,
}

/// Finds images as `docker save` takes them: a name with a tag or a digest, an id, or a name
/// without a tag, which stands for all its tags.
///
/// # Errors
/// [`StoreError::NoImage`], [`StoreError::Ambiguous`].
pub fn select(store: &Store, names: &[String]) -> Result<Vec<NamedImage>> {
    let mut selected: Vec<NamedImage> = Vec::new();
    let mut add = |image: Image, name: Option<Reference>| {
        let known = selected.iter().position(|s| s.image.id == image.id);
        let at = known.unwrap_or_else(|| {
            let names = Vec::new();
            selected.push(NamedImage { image, names });
            selected.len() - 1
        });
        if let Some(name) = name
            && !selected[at].names.contains(&name)
        {
            selected[at].names.push(name);
        }
    };
    let records = store.references()?;
    for text in names {
        let reference = text.parse::<Reference>().ok();
        let last = text.rsplit('/').next().unwrap_or(text);
        let mut all_tags = Vec::new();
        if let Some(wanted) = &reference
            && !last.contains([':', '@'])
        {
            let parsed = records.iter().filter_map(|r| r.name.parse().ok());
            all_tags.extend(parsed.filter(|name: &Reference| {
                (name.registry(), name.repository()) == (wanted.registry(), wanted.repository())
            }));
        }
        for name in &all_tags {
            add(store.find(&name.to_string())?, Some(name.clone()));
        }
        if all_tags.is_empty() {
            let image = store.find(text)?;
            let is_name = |name: &Reference| image.refs.iter().any(|r| r.name == name.to_string());
            let name = reference.filter(is_name);
            add(image, name);
        }
    }
    Ok(selected)
}

/// A file or directory of a layout.
enum Piece {
    Directory,
    Bytes(Vec<u8>),
    /// A blob of the store, and its size.
    Blob(Digest, u64),
}

/// Writes images as one archive or into one directory, and returns the digests of their
/// manifests. Equal images make equal bytes.
///
/// A directory may hold a layout already: then they are added, and replace images of the same
/// names.
///
/// # Errors
/// See [`ArchiveError`]. The destination is then as it was.
pub fn write_images(
    transfer: &Transfer<'_>,
    images: &[NamedImage],
    layout: Layout,
    destination: &Destination,
    packing: &Packing,
) -> Result<Vec<Digest>> {
    // First of all, so that what can't be written is known before layers are compressed.
    match destination {
        Destination::File(path) => {
            to_stream(transfer, images, layout, Sink::to_file(path)?, packing)
        }
        Destination::Stdout => to_stream(transfer, images, layout, Sink::to_stdout()?, packing),
        Destination::Directory(path) => to_directory(transfer, images, layout, path, packing),
    }
}

fn to_stream(
    transfer: &Transfer<'_>,
    images: &[NamedImage],
    layout: Layout,
    mut sink: Sink,
    packing: &Packing,
) -> Result<Vec<Digest>> {
    let target = sink.target().to_owned();
    let (pieces, digests) = pieces(transfer, images, layout, packing)?;
    let put = |sink: &mut Sink, bytes: &[u8]| sink.write_all(bytes).at("cannot write", &target);
    for (name, piece) in &pieces {
        let size = match piece {
            Piece::Directory => 0,
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Blob(_, size) => *size,
        };
        put(&mut sink, &member_header(name, size))?;
        write_piece(transfer.store, piece, &mut sink)?;
        let padding = size.next_multiple_of(512) - size;
        put(
            &mut sink,
            &[0; 512][..usize::try_from(padding).unwrap_or(0)],
        )?;
    }
    put(&mut sink, &[0; 1024])?;
    sink.commit()?;
    Ok(digests)
}

fn to_directory(
    transfer: &Transfer<'_>,
    images: &[NamedImage],
    layout: Layout,
    path: &Path,
    packing: &Packing,
) -> Result<Vec<Digest>> {
    let directory = Directory::open(path)?;
    let present = present_index(path)?;
    let (mut pieces, digests) = pieces(transfer, images, layout, packing)?;
    // The index makes the blobs count, so it comes last.
    let index = pieces.remove("index.json");
    for (name, piece) in &pieces {
        match piece {
            Piece::Directory => directory.directory(name)?,
            _ => directory.put(name, |sink| write_piece(transfer.store, piece, sink))?,
        }
    }
    if let Some(Piece::Bytes(index)) = index {
        let index = present.map_or(Ok(index.clone()), |old| merge(&old, &index))?;
        let piece = Piece::Bytes(index);
        directory.put("index.json", |sink| {
            write_piece(transfer.store, &piece, sink)
        })?;
    }
    directory.keep();
    Ok(digests)
}

/// Returns the index of a layout that is there; nothing where it has none yet, or the directory
/// is empty.
///
/// # Errors
/// [`ArchiveError::NotALayout`].
pub(super) fn present_index(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut entries = std::fs::read_dir(path).at("cannot list", path)?;
    match path.join("oci-layout").is_file() {
        true => Ok(std::fs::read(path.join("index.json")).ok()),
        false if entries.next().is_some() => Err(ArchiveError::NotALayout(path.to_owned())),
        false => Ok(None),
    }
}

/// Adds the images of one index to another: what that one has is kept as it is, but for images
/// of the same name or the same manifest.
pub(super) fn merge(old: &[u8], new: &[u8]) -> Result<Vec<u8>> {
    use serde_json::Value;
    let parse = |bytes: &[u8]| -> Result<Value> {
        serde_json::from_slice(bytes).map_err(|error| ArchiveError::Malformed {
            name: "index.json".to_owned(),
            reason: error.to_string(),
        })
    };
    let (mut merged, new) = (parse(old)?, parse(new)?);
    let manifests = |index: &Value| index["manifests"].as_array().cloned().unwrap_or_default();
    let added = manifests(&new);
    let replaced = |entry: &Value| {
        added.iter().any(|new| match new.get("annotations") {
            Some(names) => entry.get("annotations") == Some(names),
            None => entry["digest"] == new["digest"],
        })
    };
    let mut all = manifests(&merged);
    all.retain(|entry| !replaced(entry));
    all.extend(added.iter().cloned());
    if let Value::Object(index) = &mut merged {
        index.insert("manifests".to_owned(), Value::Array(all));
    }
    Ok(merged.to_string().into_bytes())
}

/// Returns all of a layout by name, and the digests of the manifests.
fn pieces(
    transfer: &Transfer<'_>,
    images: &[NamedImage],
    layout: Layout,
    packing: &Packing,
) -> Result<(BTreeMap<String, Piece>, Vec<Digest>)> {
    let mut pieces = BTreeMap::new();
    let (mut index, mut docker_entries, mut digests) = (Vec::new(), Vec::new(), Vec::new());
    let mut blob = |digest: &Digest, piece: Piece| {
        let name = blob_name(digest);
        for (slash, _) in name.match_indices('/') {
            pieces.insert(name[..=slash].to_owned(), Piece::Directory);
        }
        pieces.insert(name, piece);
    };
    for NamedImage { image, names } in images {
        let exported = manifest_of(transfer, image, packing)?;
        let (manifest, bytes) = as_oci(exported.manifest, exported.bytes);
        let config = transfer.store.read_document(&image.id)?;
        for layer in &manifest.layers {
            blob(&layer.digest, Piece::Blob(layer.digest.clone(), layer.size));
        }
        blob(&image.id, Piece::Bytes(config));
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        digests.push(descriptor.digest.clone());
        blob(&descriptor.digest, Piece::Bytes(bytes));
        index.extend(entries(&descriptor, image.config.platform(), names));
        let tags: Vec<_> = names.iter().filter(|n| n.tag().is_some()).collect();
        docker_entries.push(docker::Entry {
            config: blob_name(&image.id),
            repo_tags: (!tags.is_empty())
                .then(|| tags.iter().map(|name| name.familiar()).collect()),
            layers: manifest
                .layers
                .iter()
                .map(|l| blob_name(&l.digest))
                .collect(),
        });
    }
    let index = Index { entries: index };
    pieces.insert("index.json".to_owned(), Piece::Bytes(index.to_bytes()));
    let version = oci::LAYOUT.as_bytes().to_vec();
    pieces.insert("oci-layout".to_owned(), Piece::Bytes(version));
    if layout == Layout::Docker {
        let json =
            serde_json::to_vec(&docker_entries).map_err(|error| ArchiveError::Malformed {
                name: "manifest.json".to_owned(),
                reason: error.to_string(),
            })?;
        pieces.insert("manifest.json".to_owned(), Piece::Bytes(json));
    }
    Ok((pieces, digests))
}

/// Returns the entries of an index for an image: one for each name.
fn entries(descriptor: &Descriptor, platform: Platform, names: &[Reference]) -> Vec<IndexEntry> {
    // A platform that the config does not name can't be in an index either.
    let platform = (!platform.architecture.is_empty()).then_some(platform);
    let nameless = IndexEntry {
        descriptor: descriptor.clone(),
        platform,
        ref_name: None,
        image_name: None,
    };
    if names.is_empty() {
        return vec![nameless];
    }
    let named = |name: &Reference| IndexEntry {
        ref_name: name.tag().map(str::to_owned),
        image_name: Some(name.to_string()),
        ..nameless.clone()
    };
    names.iter().map(named).collect()
}

/// Returns a manifest as OCI's: a layout has no others. Blobs stay as they are, and so does
/// the image's id.
fn as_oci(mut manifest: Manifest, bytes: Vec<u8>) -> (Manifest, Vec<u8>) {
    if manifest.media_type == media_type::OCI_MANIFEST {
        return (manifest, bytes);
    }
    manifest.media_type = media_type::OCI_MANIFEST.to_owned();
    manifest.config.media_type = media_type::OCI_CONFIG.to_owned();
    for layer in &mut manifest.layers {
        layer.media_type = match layer.media_type.rsplit('.').next() {
            Some("gzip") => media_type::OCI_LAYER_GZIP.to_owned(),
            Some("zstd") => media_type::OCI_LAYER_ZSTD.to_owned(),
            Some("tar") => media_type::OCI_LAYER.to_owned(),
            _ => continue,
        };
    }
    let bytes = manifest.to_bytes();
    (manifest, bytes)
}

fn write_piece(store: &Store, piece: &Piece, sink: &mut Sink) -> Result<()> {
    let target = sink.target().to_owned();
    match piece {
        Piece::Directory => Ok(()),
        Piece::Bytes(bytes) => sink.write_all(bytes).at("cannot write", &target),
        Piece::Blob(digest, size) => {
            let file = store.open_blob(digest)?;
            let damaged = |source| ArchiveError::Blob {
                digest: digest.clone(),
                source,
            };
            let mut reader = Verifying::new(file, digest.clone());
            let mut buffer = vec![0; 1 << 17];
            let mut left = *size;
            loop {
                let read = reader.read(&mut buffer).map_err(damaged)?;
                if read == 0 {
                    break;
                }
                left = left
                    .checked_sub(read as u64)
                    .ok_or_else(|| wrong_size(store, digest))?;
                sink.write_all(&buffer[..read])
                    .at("cannot write", &target)?;
            }
            match left {
                0 => Ok(()),
                _ => Err(wrong_size(store, digest)),
            }
        }
    }
}

fn wrong_size(store: &Store, digest: &Digest) -> ArchiveError {
    StoreError::Damaged {
        path: store.blob_path(digest),
        reason: "its size is another".to_owned(),
    }
    .into()
}
