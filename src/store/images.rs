//! Names and images.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Result, Store, StoreError};
use crate::image::{Digest, ImageConfig, Reference};

/// The lock that names are given and taken under.
pub(super) const NAMING: &str = "refs";

/// A name and its image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefRecord {
    /// The normalised reference.
    pub name: String,
    /// The digest of the image's config, which is its id.
    pub image: Digest,
    /// The manifest under which it came from or went to a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The index that the name stands for there, and that has the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// Whether it came from or went to the registry under this very name. A name that was
    /// given here keeps the manifest all the same, so that the image leaves as it came.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub registered: bool,
}

impl Image {
    /// Tells whether the name that was asked for stands for this image on all platforms, where
    /// it comes from: to pull it again brings no other.
    pub fn is_for_one_platform(&self) -> bool {
        self.manifest.is_some() && self.index.is_none()
    }
}

impl RefRecord {
    /// Returns what the name stands for in its registry: the index, else the manifest.
    pub fn digest(&self) -> Option<&Digest> {
        let digest = self.index.as_ref().or(self.manifest.as_ref());
        digest.filter(|_| self.registered)
    }
}

/// When an image came into the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ImageRecord {
    arrived: u64,
    size: u64,
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of the config.
    pub id: Digest,
    /// The config.
    pub config: ImageConfig,
    /// The bytes of all files of all layers.
    pub size: u64,
    /// When it came or was built last.
    pub used: SystemTime,
    /// Its names.
    pub refs: Vec<RefRecord>,
    /// The manifest as pulled or pushed, of the name that was asked for.
    pub manifest: Option<Digest>,
    /// The index that the name that was asked for stands for.
    pub index: Option<Digest>,
}

/// What a removal did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// The image that is gone with its last name.
    pub deleted: Option<Digest>,
}

/// Returns a reference as a file name: what is not plain is percent-encoded.
pub(super) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(byte as char),
            b'.' if !encoded.is_empty() => encoded.push('.'),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    // A file name has at most 255 bytes; the record itself holds the name.
    if encoded.len() > 240 {
        encoded = format!("%{}", Digest::of(name.as_bytes()).hex());
    }
    encoded
}

impl Store {
    fn ref_path(&self, reference: &Reference) -> std::path::PathBuf {
        self.dir("refs").join(encode(&reference.to_string()))
    }

    fn image_path(&self, id: &Digest) -> std::path::PathBuf {
        self.dir("images").join(id.hex())
    }

    /// Publishes an image, whose config is in the store. To be called when all that it needs
    /// is there; names are given by [`Store::tag`].
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn publish_image(&self, id: &Digest, stack: &super::Stack) -> Result<()> {
        let path = self.image_path(id);
        if path.exists() {
            super::files::touch(&path);
            return Ok(());
        }
        let size = stack.layers().iter().map(|layer| layer.meta.size).sum();
        let arrived = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        super::files::write_json(&path, &ImageRecord { arrived, size })
    }

    /// Gives an image a name. The image that had it before loses it.
    ///
    /// # Errors
    /// [`StoreError::NoImage`] where it has been removed meanwhile; disk full, and the like.
    pub fn tag(&self, name: &Reference, image: &Digest, manifest: Option<Digest>) -> Result<()> {
        self.write_reference(&RefRecord {
            name: name.to_string(),
            image: image.clone(),
            manifest,
            index: None,
            registered: false,
        })
    }

    /// As [`Store::tag`], with all that is known of the name.
    ///
    /// # Errors
    /// As for [`Store::tag`].
    pub fn write_reference(&self, record: &RefRecord) -> Result<()> {
        let name: Reference = record.name.parse()?;
        let _naming = self.lock(NAMING)?;
        if !self.has_blob(&record.image) {
            return Err(StoreError::NoImage(record.image.to_string()));
        }
        super::files::write_json(&self.ref_path(&name), record)
    }

    /// Returns what a name stands for. A damaged record counts as none: to pull or to build
    /// the image again then mends it.
    ///
    /// # Errors
    /// The record can't be read.
    pub fn reference(&self, name: &Reference) -> Result<Option<RefRecord>> {
        match super::files::read_json(&self.ref_path(name)) {
            Err(StoreError::Damaged { .. }) => Ok(None),
            other => other,
        }
    }

    /// Returns all names, sorted. Damaged records are left out.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn references(&self) -> Result<Vec<RefRecord>> {
        let directory = self.dir("refs");
        let mut records: Vec<RefRecord> = super::files::names(&directory)?
            .iter()
            .filter_map(|name| {
                super::files::read_json(&directory.join(name))
                    .ok()
                    .flatten()
            })
            .collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// Returns the config of an image.
    ///
    /// # Errors
    /// It is not here, or damaged.
    pub fn config(&self, id: &Digest) -> Result<ImageConfig> {
        let bytes = self.read_document(id)?;
        serde_json::from_slice(&bytes).map_err(|error| StoreError::Damaged {
            path: self.blob_path(id),
            reason: error.to_string(),
        })
    }

    /// Returns all images, those without a name too. Damaged ones are left out.
    ///
    /// # Errors
    /// A directory can't be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        let refs = self.references()?;
        let mut images = Vec::new();
        for id in self.image_ids(&refs)? {
            let Ok(config) = self.config(&id) else {
                continue;
            };
            let refs: Vec<_> = refs.iter().filter(|r| r.image == id).cloned().collect();
            images.push(Image {
                size: self.image_size(&id),
                used: super::inventory::modified(&self.image_path(&id)),
                manifest: refs.iter().find_map(|r| r.manifest.clone()),
                index: None,
                id,
                config,
                refs,
            });
        }
        Ok(images)
    }

    /// Returns the ids of all images: of those with a record, and of those with a name.
    pub(super) fn image_ids(&self, refs: &[RefRecord]) -> Result<BTreeSet<Digest>> {
        let mut ids: BTreeSet<Digest> = refs.iter().map(|r| r.image.clone()).collect();
        for hex in super::files::names(&self.dir("images"))? {
            ids.extend(format!("sha256:{hex}").parse::<Digest>());
        }
        Ok(ids)
    }

    fn image_size(&self, id: &Digest) -> u64 {
        let record: Option<ImageRecord> =
            super::files::read_json(&self.image_path(id)).ok().flatten();
        record.map_or(0, |record| record.size)
    }

    /// Finds an image as people name it: a reference, or the beginning of its id.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], [`StoreError::Ambiguous`]; a damaged record.
    pub fn find(&self, name: &str) -> Result<Image> {
        let (id, record) = match self.find_id(name)? {
            Some(found) => found,
            None => return Err(StoreError::NoImage(name.to_owned())),
        };
        let refs: Vec<_> = self
            .references()?
            .into_iter()
            .filter(|r| r.image == id)
            .collect();
        let config = match self.config(&id) {
            // It was removed just now.
            Err(StoreError::NoBlob(_)) if self.find_id(name)?.is_none() => {
                return Err(StoreError::NoImage(name.to_owned()));
            }
            other => other?,
        };
        let (manifest, index) = record.map_or((None, None), |r| (r.manifest, r.index));
        Ok(Image {
            config,
            size: self.image_size(&id),
            used: super::inventory::modified(&self.image_path(&id)),
            manifest: manifest.or_else(|| refs.iter().find_map(|r| r.manifest.clone())),
            index,
            id,
            refs,
        })
    }

    /// Returns the id, and the record of the name that was asked for.
    fn find_id(&self, name: &str) -> Result<Option<(Digest, Option<RefRecord>)>> {
        if let Ok(reference) = name.parse::<Reference>() {
            if let Some(record) = self.reference(&reference)? {
                return Ok(Some((record.image.clone(), Some(record))));
            }
            if Reference::is_short(name) {
                for candidate in (self.short_names)(name) {
                    if let Some(record) = self.reference(&candidate)? {
                        return Ok(Some((record.image.clone(), Some(record))));
                    }
                }
            }
            // name@digest: an image of that repository that came under that manifest.
            if let Some(digest) = reference.digest() {
                let repository = |n: &str| {
                    n.parse::<Reference>()
                        .map(|r| (r.registry().to_owned(), r.repository().to_owned()))
                        .ok()
                };
                let wanted = repository(name);
                let found = self.references()?.into_iter().find(|r| {
                    let is_it = |known: &Option<Digest>| known.as_ref() == Some(&digest);
                    (is_it(&r.manifest) || is_it(&r.index)) && repository(&r.name) == wanted
                });
                return Ok(found.map(|r| (r.image.clone(), Some(r))));
            }
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let ids = super::files::names(&self.dir("images"))?;
        let mut matches = ids.iter().filter(|hex| hex.starts_with(prefix));
        match (matches.next(), matches.next()) {
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(StoreError::Ambiguous(name.to_owned())),
            (Some(hex), None) => Ok(format!("sha256:{hex}").parse().ok().map(|id| (id, None))),
        }
    }

    /// Removes an image with its names. The caller has the lock of names.
    pub(super) fn delete_image(&self, id: &Digest, refs: &[&RefRecord]) -> Result<Removed> {
        let mut removed = Removed::default();
        for record in refs {
            if let Ok(reference) = record.name.parse::<Reference>() {
                super::files::remove_file(&self.ref_path(&reference))?;
                removed.untagged.push(familiar(&record.name));
            }
        }
        super::files::remove_file(&self.image_path(id))?;
        removed.deleted = Some(id.clone());
        Ok(removed)
    }

    /// Takes an image without a name out of the list of images: something else leads to it.
    ///
    /// # Errors
    /// The record can't be removed.
    pub fn unlist(&self, id: &Digest) -> Result<()> {
        let _naming = self.lock(NAMING)?;
        if !self.references()?.iter().any(|r| r.image == *id) {
            super::files::remove_file(&self.image_path(id))?;
        }
        Ok(())
    }

    /// Removes an image as `docker rmi` does: by name, its name, and the image itself with its
    /// last name; by id, the image, which must not have several names unless `force`.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], [`StoreError::SeveralNames`].
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Removed> {
        let _naming = self.lock(NAMING)?;
        let image = self.find(name)?;
        let by_name = name.parse::<Reference>().ok();
        let by_name = by_name.filter(|r| matches!(self.reference(r), Ok(Some(_))));
        let mut removed = Removed::default();
        let doomed: Vec<&super::RefRecord> = match &by_name {
            Some(reference) => {
                let name = reference.to_string();
                image.refs.iter().filter(|r| r.name == name).collect()
            }
            None if image.refs.len() > 1 && !force => {
                let names: Vec<_> = image.refs.iter().map(|r| familiar(&r.name)).collect();
                return Err(StoreError::SeveralNames {
                    id: image.id.short().to_owned(),
                    names: names.join(", "),
                });
            }
            None => image.refs.iter().collect(),
        };
        if doomed.len() == image.refs.len()
            && let Some(container) = self.containers_of(&image.id)?.first()
            && (!force || container.is_running())
        {
            return Err(StoreError::ImageInUse {
                id: image.id.short().to_owned(),
                container: container.record.short_id().to_owned(),
                runs: container.is_running(),
            });
        }
        for record in &doomed {
            if let Ok(reference) = record.name.parse::<Reference>() {
                super::files::remove_file(&self.ref_path(&reference))?;
                removed.untagged.push(familiar(&record.name));
            }
        }
        if doomed.len() == image.refs.len() {
            super::files::remove_file(&self.image_path(&image.id))?;
            removed.deleted = Some(image.id);
        }
        Ok(removed)
    }
}

/// Returns a normalised name as people write it.
fn familiar(name: &str) -> String {
    name.parse::<Reference>()
        .map_or_else(|_| name.to_owned(), |r| r.familiar())
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn encoded_names_are_distinct_and_never_hidden_or_too_long() {
        assert_eq!(
            encode("docker.io/library/a:b"),
            "docker.io%2flibrary%2fa%3ab"
        );
        assert_ne!(encode("a/b"), encode("a%2fb"));
        assert!(!encode("..").starts_with('.'));
        assert!(encode(&"x/".repeat(300)).len() < 255);
    }
}
