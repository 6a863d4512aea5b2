//! Manifests and indexes, OCI's and docker's. oci-spec reads and writes the documents;
//! what the rest of kiln sees has validated digests.

use oci_spec::image as oci;

use super::{Digest, Platform};

/// The media types that kiln reads or writes.
pub mod media_type {
    /// An OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An uncompressed OCI layer.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// An OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// An OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// A docker schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// An uncompressed docker layer.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// A docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// A document that is no manifest or index that kiln can use.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It does not parse.
    #[error("malformed manifest: {0}")]
    Malformed(String),
    /// A schema 1 manifest.
    #[error("this is a docker schema 1 manifest, a format whose layers can't be verified")]
    Schema1,
    /// Something else, such as an artifact.
    #[error("media type {0:?} is neither an image manifest nor an index")]
    UnknownMediaType(String),
    /// A layer that lies on a third host.
    #[error("foreign layers ({0}) are not supported")]
    ForeignLayer(Digest),
}

impl ManifestError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ManifestError::Schema1 => Some(
                "have it converted: push it again with a current docker, or copy it with skopeo"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A pointer to a blob: media type, digest and size in bytes.
/// See <https://github.com/opencontainers/image-spec/blob/main/descriptor.md>.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Descriptor {
    /// Returns the descriptor of `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        }
    }

    fn from_oci(descriptor: &oci::Descriptor) -> Result<Descriptor, ManifestError> {
        Ok(Descriptor {
            media_type: descriptor.media_type().to_string(),
            digest: descriptor
                .digest()
                .to_string()
                .parse()
                .map_err(|e: super::DigestError| ManifestError::Malformed(e.to_string()))?,
            size: descriptor.size(),
        })
    }

    fn to_oci(&self) -> oci::Descriptor {
        let digest: oci::Digest = self
            .digest
            .to_string()
            .parse()
            .expect("a Digest is well-formed");
        oci::Descriptor::new(
            oci::MediaType::from(self.media_type.as_str()),
            self.size,
            digest,
        )
    }
}

/// An image manifest: a config and its layers.
/// See <https://github.com/opencontainers/image-spec/blob/main/manifest.md>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The manifest's own media type, OCI's or docker's.
    pub media_type: String,
    /// The image config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// Returns the document in OCI form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let manifest = oci::ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(oci::MediaType::from(self.media_type.as_str()))
            .config(self.config.to_oci())
            .layers(
                self.layers
                    .iter()
                    .map(Descriptor::to_oci)
                    .collect::<Vec<_>>(),
            )
            .build()
            .expect("all mandatory fields are set");
        serde_json::to_vec(&manifest).expect("a manifest has string keys only")
    }
}

/// One image of an [`Index`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The manifest of the image, or a nested index.
    pub descriptor: Descriptor,
    /// The platform, where the index names one.
    pub platform: Option<Platform>,
    /// The annotation `org.opencontainers.image.ref.name`, which layouts name their images with.
    pub ref_name: Option<String>,
    /// The annotation `io.containerd.image.name`, in which docker and containerd put the whole
    /// name.
    pub image_name: Option<String>,
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

/// An index: one name for the images of several platforms; also the root of an OCI layout.
/// See <https://github.com/opencontainers/image-spec/blob/main/image-index.md>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// In the index's order.
    pub entries: Vec<IndexEntry>,
}

impl Index {
    /// Returns the first image for `wanted`. Attestations (`unknown/unknown`) never match.
    pub fn select(&self, wanted: &Platform) -> Option<&IndexEntry> {
        let exact = |e: &&IndexEntry| e.platform.as_ref().is_some_and(|p| p == wanted);
        let loose = |e: &&IndexEntry| e.platform.as_ref().is_some_and(|p| p.matches(wanted));
        self.entries
            .iter()
            .find(exact)
            .or_else(|| self.entries.iter().find(loose))
    }

    /// Returns the entry for `platform`. Where no entry names one, a lone entry is it, or an
    /// index within.
    pub fn choose(&self, platform: &Platform) -> Option<&IndexEntry> {
        let is_index = |entry: &&IndexEntry| {
            let kind = entry.descriptor.media_type.as_str();
            entry.platform.is_none()
                && matches!(kind, media_type::OCI_INDEX | media_type::DOCKER_LIST)
        };
        let unnamed = || match &self.entries[..] {
            [only] if only.platform.is_none() => Some(only),
            entries => entries.iter().find(is_index),
        };
        self.select(platform).or_else(unnamed)
    }

    /// Returns the platforms of the images, for people. Attestations, which call themselves
    /// `unknown/unknown`, are none.
    pub fn platforms(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for platform in self.entries.iter().filter_map(|e| e.platform.as_ref()) {
            let name: String = platform
                .to_string()
                .chars()
                .take(100)
                .map(|c| if c.is_ascii_graphic() { c } else { '?' })
                .collect();
            if platform.os != "unknown" && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Returns the document in OCI form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(|entry| {
            let mut descriptor = entry.descriptor.to_oci();
            if let Some(platform) = &entry.platform {
                let mut builder = oci::PlatformBuilder::default()
                    .architecture(platform.architecture.as_str())
                    .os(platform.os.as_str());
                if let Some(variant) = &platform.variant {
                    builder = builder.variant(variant.clone());
                }
                let platform = builder.build().expect("all mandatory fields are set");
                descriptor.set_platform(Some(platform));
            }
            let names = [(REF_NAME, &entry.ref_name), (IMAGE_NAME, &entry.image_name)];
            let annotations: std::collections::HashMap<String, String> = names
                .into_iter()
                .filter_map(|(key, name)| Some((key.to_owned(), name.clone()?)))
                .collect();
            if !annotations.is_empty() {
                descriptor.set_annotations(Some(annotations));
            }
            descriptor
        });
        let index = oci::ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(oci::MediaType::ImageIndex)
            .manifests(entries.collect::<Vec<_>>())
            .build()
            .expect("all mandatory fields are set");
        let mut index = serde_json::to_value(&index).expect("an index has string keys only");
        // oci-spec keeps annotations in a hash map, whose order is another in each process.
        index.sort_all_objects();
        index.to_string().into_bytes()
    }
}

/// What a manifest URL answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestKind {
    /// One image.
    Image(Manifest),
    /// Several, by platform.
    Index(Index),
}

impl ManifestKind {
    /// Returns the media type of a document that is a manifest or an index: what it says
    /// itself, else OCI's for its members.
    pub fn media_type(bytes: &[u8]) -> String {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let head: Option<Head> = serde_json::from_slice(bytes).ok();
        let is_index = head.as_ref().is_some_and(|head| head.manifests.is_some());
        head.and_then(|head| head.media_type)
            .unwrap_or_else(|| match is_index {
                true => media_type::OCI_INDEX.to_owned(),
                false => media_type::OCI_MANIFEST.to_owned(),
            })
    }

    /// Parses a document. `content_type` is what the transport says of it; the document's
    /// own `mediaType` decides where it has one.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<ManifestKind, ManifestError> {
        let malformed = |e: &dyn std::fmt::Display| ManifestError::Malformed(e.to_string());
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            schema_version: Option<u32>,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|e| malformed(&e))?;
        if head.schema_version == Some(1) {
            return Err(ManifestError::Schema1);
        }
        let declared = head.media_type.as_deref().or(content_type);
        let declared = declared.map(|t| t.split(';').next().unwrap_or(t).trim());
        let is_index = match declared {
            Some(media_type::OCI_INDEX | media_type::DOCKER_LIST) => true,
            Some(media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST) => false,
            Some(other) if head.media_type.is_some() => {
                return Err(ManifestError::UnknownMediaType(other.to_owned()));
            }
            // OCI documents need not carry their type: the members tell.
            _ if head.manifests.is_some() && head.config.is_none() => true,
            _ if head.config.is_some() && head.manifests.is_none() => false,
            other => {
                return Err(ManifestError::UnknownMediaType(
                    other.unwrap_or_default().to_owned(),
                ));
            }
        };
        if is_index {
            let index = oci::ImageIndex::from_reader(bytes).map_err(|e| malformed(&e))?;
            let annotation = |descriptor: &oci::Descriptor, key: &str| {
                let annotations = descriptor.annotations().as_ref();
                annotations.and_then(|a| a.get(key).cloned())
            };
            let entry = |descriptor: &oci::Descriptor| {
                Ok(IndexEntry {
                    descriptor: Descriptor::from_oci(descriptor)?,
                    platform: descriptor.platform().as_ref().map(|p| Platform {
                        architecture: p.architecture().to_string(),
                        os: p.os().to_string(),
                        variant: p.variant().clone(),
                        os_version: p.os_version().clone(),
                        os_features: p.os_features().clone().unwrap_or_default(),
                    }),
                    ref_name: annotation(descriptor, REF_NAME),
                    image_name: annotation(descriptor, IMAGE_NAME),
                })
            };
            let entries = index.manifests().iter().map(entry);
            return Ok(ManifestKind::Index(Index {
                entries: entries.collect::<Result<_, _>>()?,
            }));
        }
        let manifest = oci::ImageManifest::from_reader(bytes).map_err(|e| malformed(&e))?;
        let layers: Result<Vec<_>, _> =
            manifest.layers().iter().map(Descriptor::from_oci).collect();
        let layers = layers?;
        if let Some(layer) = layers.iter().find(|layer| is_foreign(layer)) {
            return Err(ManifestError::ForeignLayer(layer.digest.clone()));
        }
        Ok(ManifestKind::Image(Manifest {
            media_type: declared.unwrap_or(media_type::OCI_MANIFEST).to_owned(),
            config: Descriptor::from_oci(manifest.config())?,
            layers,
        }))
    }
}

/// Tells whether a layer lies on a host of its own, by OCI's word or docker's.
fn is_foreign(layer: &Descriptor) -> bool {
    let words = ["foreign", "nondistributable"];
    words.iter().any(|word| layer.media_type.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: Descriptor::of(media_type::OCI_CONFIG, b"{}"),
            layers: vec![Descriptor::of(media_type::OCI_LAYER_GZIP, b"x")],
        }
    }

    #[test]
    fn manifests_and_indexes_round_trip() {
        let manifest = manifest();
        let bytes = manifest.to_bytes();
        assert_eq!(
            ManifestKind::parse(&bytes, None).unwrap(),
            ManifestKind::Image(manifest)
        );
        let index = Index {
            entries: vec![IndexEntry {
                descriptor: Descriptor::of(media_type::OCI_MANIFEST, &bytes),
                platform: Some("linux/arm64".parse().unwrap()),
                ref_name: Some("latest".to_owned()),
                image_name: Some("docker.io/library/a:latest".to_owned()),
            }],
        };
        let parsed = ManifestKind::parse(&index.to_bytes(), None).unwrap();
        assert_eq!(parsed, ManifestKind::Index(index.clone()));
        assert!(index.select(&"linux/amd64".parse().unwrap()).is_none());
        assert!(index.select(&"linux/arm64/v8".parse().unwrap()).is_some());
    }

    #[test]
    fn what_is_no_image_is_named() {
        let parse = |text: &str| ManifestKind::parse(text.as_bytes(), None);
        assert!(matches!(
            parse(r#"{"schemaVersion":1,"fsLayers":[]}"#),
            Err(ManifestError::Schema1)
        ));
        assert!(matches!(
            parse(r#"{"schemaVersion":2,"mediaType":"application/x"}"#),
            Err(ManifestError::UnknownMediaType(t)) if t == "application/x"
        ));
        assert!(matches!(parse("{"), Err(ManifestError::Malformed(_))));
        assert!(matches!(
            parse(
                r#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:1","size":1},"layers":[]}"#
            ),
            Err(ManifestError::Malformed(_))
        ));
    }
}
