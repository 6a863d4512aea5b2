//! Manifests and indexes made anew for blobs that became others, or for the other family of
//! media types. What need not change stays, keys that kiln does not know too.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Descriptor, Digest, media_type};

/// The two families of media types, whose documents have the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// OCI's.
    Oci,
    /// Docker's schema 2.
    Docker,
}

/// What documents refer to in place of what they named before, by the digests of that.
pub type Replaced = BTreeMap<Digest, Descriptor>;

/// A document that has no form in the family that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// It does not parse.
    #[error("malformed manifest: {0}")]
    Malformed(String),
    /// Docker's schema 2 knows images and lists only, and layers of some types.
    #[error("docker's schema 2 has no {0:?}")]
    NotOfDocker(String),
    /// Each image of a list of docker's has a platform.
    #[error("docker's schema 2 has no images without a platform in a list")]
    NoPlatform,
}

/// What the families call the same things: OCI's word, and docker's.
const WORDS: [(&str, &str); 5] = [
    (media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST),
    (media_type::OCI_INDEX, media_type::DOCKER_LIST),
    (media_type::OCI_CONFIG, media_type::DOCKER_CONFIG),
    (media_type::OCI_LAYER, media_type::DOCKER_LAYER),
    (media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
];

/// What some programs call layers of docker images that are compressed with zstd.
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// Annotations that tell where in a layer's blob its files are: of another blob they are lies.
const ABOUT_THE_BLOB: [&str; 2] = [
    "containerd.io/snapshot/stargz/",
    "io.github.containers.zstd-chunked.",
];

/// The annotation with which an attestation names the image that it is about.
const ATTESTED: &str = "vnd.docker.reference.digest";

/// What documents of docker's have no place for.
const OF_OCI: [&str; 3] = ["annotations", "artifactType", "subject"];

impl Family {
    /// Returns the family of a manifest or an index.
    pub fn of(media_type: &str) -> Family {
        match media_type {
            media_type::DOCKER_MANIFEST | media_type::DOCKER_LIST => Family::Docker,
            _ => Family::Oci,
        }
    }

    /// Returns this family's word for a media type; nothing where it has none.
    fn word(self, media_type: &str) -> Option<&'static str> {
        let mut words = WORDS.iter();
        let found = words.find(|(oci, docker)| media_type == *oci || media_type == *docker);
        match (self, found) {
            (Family::Oci, Some((oci, _))) => Some(oci),
            (Family::Docker, Some((_, docker))) => Some(docker),
            (Family::Oci, None) if media_type == DOCKER_LAYER_ZSTD => {
                Some(media_type::OCI_LAYER_ZSTD)
            }
            (_, None) => None,
        }
    }

    /// Gives a descriptor the word of this family.
    fn name(self, descriptor: &mut Value) -> Result<(), ConversionError> {
        let named = descriptor["mediaType"].as_str().unwrap_or_default();
        match (self, self.word(named)) {
            (_, Some(word)) => descriptor["mediaType"] = json!(word),
            // Types of artifacts are the same everywhere.
            (Family::Oci, None) => {}
            (Family::Docker, None) => return Err(ConversionError::NotOfDocker(named.to_owned())),
        }
        if self == Family::Docker
            && let Some(descriptor) = descriptor.as_object_mut()
        {
            OF_OCI.iter().for_each(|key| remove(descriptor, key));
        }
        Ok(())
    }
}

/// Makes a manifest anew: `replaced` layers are others, and its family is the one that is asked
/// for. Of docker's, one that gets a layer that docker's can't name becomes OCI's. Returns
/// nothing where it can stay as it is.
///
/// # Errors
/// It can't be of that family.
pub fn convert_manifest(
    bytes: &[u8],
    media_type: &str,
    replaced: &Replaced,
    family: Option<Family>,
) -> Result<Option<Vec<u8>>, ConversionError> {
    let mut draft = Draft::read(bytes, media_type, "layers")?;
    let changed = draft.replace(replaced, forget_annotations);
    let named = |layer: &Value| {
        let named = layer["mediaType"].as_str().unwrap_or_default();
        Family::Docker.word(named).is_some()
    };
    let family = family.unwrap_or_else(|| draft.kept(changed, named));
    if family != draft.family || (changed && family == Family::Docker) {
        for layer in &mut draft.entries {
            family.name(layer)?;
        }
        if let Some(config) = draft.document.get_mut("config") {
            family.name(config)?;
        }
        draft.become_of(family, family.manifest());
    }
    Ok(draft.written())
}

/// Makes an index anew: `replaced` documents are others, and its family is the one that is asked
/// for. A list of docker's whose images are not all docker's becomes OCI's. Returns nothing
/// where it can stay as it is.
///
/// # Errors
/// It can't be of that family.
pub fn convert_index(
    bytes: &[u8],
    media_type: &str,
    replaced: &Replaced,
    family: Option<Family>,
) -> Result<Option<Vec<u8>>, ConversionError> {
    let mut draft = Draft::read(bytes, media_type, "manifests")?;
    let changed = draft.replace(replaced, |_| {});
    for entry in &mut draft.entries {
        let attested = entry["annotations"][ATTESTED].as_str();
        let attested = attested.and_then(|text| replaced.get(&text.parse().ok()?));
        if let Some(now) = attested {
            entry["annotations"][ATTESTED] = json!(now.digest);
        }
    }
    let of_docker = |entry: &Value| {
        Family::of(entry["mediaType"].as_str().unwrap_or_default()) == Family::Docker
    };
    let family = family.unwrap_or_else(|| draft.kept(changed, of_docker));
    if family != draft.family {
        if family == Family::Docker {
            for entry in &mut draft.entries {
                family.name(entry)?;
                if entry.get("platform").is_none() {
                    return Err(ConversionError::NoPlatform);
                }
            }
        }
        draft.become_of(family, family.index());
    }
    Ok(draft.written())
}

impl Family {
    fn manifest(self) -> &'static str {
        match self {
            Family::Oci => media_type::OCI_MANIFEST,
            Family::Docker => media_type::DOCKER_MANIFEST,
        }
    }

    fn index(self) -> &'static str {
        match self {
            Family::Oci => media_type::OCI_INDEX,
            Family::Docker => media_type::DOCKER_LIST,
        }
    }
}

/// A document that is made anew.
struct Draft {
    before: Map<String, Value>,
    document: Map<String, Value>,
    family: Family,
    /// What it lists, and under which key.
    entries: Vec<Value>,
    key: &'static str,
}

impl Draft {
    fn read(bytes: &[u8], media_type: &str, key: &'static str) -> Result<Draft, ConversionError> {
        let before: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| ConversionError::Malformed(error.to_string()))?;
        let mut document = before.clone();
        // It keeps its place there.
        let entries = match document.get_mut(key).map(Value::take) {
            Some(Value::Array(values)) => values,
            _ => Vec::new(),
        };
        Ok(Draft {
            before,
            document,
            family: Family::of(media_type),
            entries,
            key,
        })
    }

    /// Puts others into the place of entries, `each` of which is then seen to. Returns whether
    /// there were any.
    fn replace(&mut self, replaced: &Replaced, each: impl Fn(&mut Value)) -> bool {
        let mut any = false;
        for entry in &mut self.entries {
            if let Some(now) = replacement(entry, replaced) {
                replace(entry, now);
                each(entry);
                any = true;
            }
        }
        any
    }

    /// Returns the family where none is asked for: it stays in its own, unless it is docker's
    /// and was changed and has what docker's can't name. What is not touched stays, also where
    /// it was odd before.
    fn kept(&self, changed: bool, fits_docker: impl Fn(&Value) -> bool) -> Family {
        match changed && !self.entries.iter().all(fits_docker) {
            true => Family::Oci,
            false => self.family,
        }
    }

    /// Says of what family it is, and takes away what that has no place for.
    fn become_of(&mut self, family: Family, media_type: &str) {
        self.document
            .insert("mediaType".to_owned(), json!(media_type));
        if family == Family::Docker {
            OF_OCI
                .iter()
                .for_each(|key| remove(&mut self.document, key));
        }
    }

    /// Returns its bytes, if they are others than before.
    fn written(mut self) -> Option<Vec<u8>> {
        let entries = Value::Array(self.entries);
        self.document.insert(self.key.to_owned(), entries);
        (self.before != self.document)
            .then(|| Value::Object(self.document).to_string().into_bytes())
    }
}

fn replacement<'a>(entry: &Value, replaced: &'a Replaced) -> Option<&'a Descriptor> {
    replaced.get(&entry["digest"].as_str()?.parse().ok()?)
}

fn replace(entry: &mut Value, now: &Descriptor) {
    entry["mediaType"] = json!(now.media_type);
    entry["digest"] = json!(now.digest);
    entry["size"] = json!(now.size);
    // Content that is embedded, or lies elsewhere, is that of the old one.
    if let Some(entry) = entry.as_object_mut() {
        ["data", "urls"].iter().for_each(|key| remove(entry, key));
    }
}

fn forget_annotations(layer: &mut Value) {
    let Some(layer) = layer.as_object_mut() else {
        return;
    };
    if let Some(Value::Object(annotations)) = layer.get_mut("annotations") {
        annotations.retain(|key, _| !ABOUT_THE_BLOB.iter().any(|about| key.starts_with(about)));
        if annotations.is_empty() {
            remove(layer, "annotations");
        }
    }
}

/// Removes a key; the others keep their order.
fn remove(object: &mut Map<String, Value>, key: &str) {
    object.shift_remove(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(media_type: &str, content: &str) -> Value {
        json!({
            "mediaType": media_type,
            "size": content.len(),
            "digest": Digest::of(content.as_bytes()),
        })
    }

    fn bytes(document: &Value) -> Vec<u8> {
        document.to_string().into_bytes()
    }

    fn document(bytes: Option<Vec<u8>>) -> Value {
        serde_json::from_slice(&bytes.expect("it changed")).unwrap()
    }

    fn replaced(old: &str, media_type: &str, new: &str) -> Replaced {
        let now = Descriptor::of(media_type, new.as_bytes());
        [(Digest::of(old.as_bytes()), now)].into()
    }

    fn oci_manifest() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": blob(media_type::OCI_CONFIG, "{}"),
            "layers": [
                blob(media_type::OCI_LAYER_GZIP, "one"),
                blob(media_type::OCI_LAYER_GZIP, "two"),
            ],
            "annotations": {"k": "v"},
            "new": [1],
        })
    }

    #[test]
    fn odd_documents_stay_as_they_are_where_nothing_is_replaced() {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::DOCKER_MANIFEST,
            "config": blob(media_type::DOCKER_CONFIG, "{}"),
            "layers": [blob(foreign, "one"), blob(DOCKER_LAYER_ZSTD, "two")],
        });
        let list = json!({
            "schemaVersion": 2,
            "mediaType": media_type::DOCKER_LIST,
            "manifests": [blob(media_type::OCI_MANIFEST, "m")],
        });
        let other = replaced("elsewhere", media_type::OCI_LAYER_ZSTD, "1");
        for replaced in [Replaced::new(), other] {
            let kept = convert_manifest(
                &bytes(&manifest),
                media_type::DOCKER_MANIFEST,
                &replaced,
                None,
            );
            assert_eq!(kept, Ok(None));
            let kept = convert_index(&bytes(&list), media_type::DOCKER_LIST, &replaced, None);
            assert_eq!(kept, Ok(None));
        }
    }

    #[test]
    fn only_what_was_replaced_becomes_another() {
        let mut before = oci_manifest();
        before["layers"][0]["annotations"] = json!({
            "io.github.containers.zstd-chunked.manifest-checksum": "x",
            "kept": "y",
        });
        let now = replaced("one", media_type::OCI_LAYER_ZSTD, "1");
        let convert = |replaced: &Replaced| {
            convert_manifest(&bytes(&before), media_type::OCI_MANIFEST, replaced, None).unwrap()
        };
        assert_eq!(convert(&Replaced::new()), None);
        let after = document(convert(&now));
        let mut expected = before.clone();
        expected["layers"][0] = blob(media_type::OCI_LAYER_ZSTD, "1");
        expected["layers"][0]["annotations"] = json!({"kept": "y"});
        assert_eq!(after, expected);
    }

    #[test]
    fn docker_images_stay_dockers_as_long_as_that_has_a_word_for_their_layers() {
        let before = json!({
            "schemaVersion": 2,
            "mediaType": media_type::DOCKER_MANIFEST,
            "config": blob(media_type::DOCKER_CONFIG, "{}"),
            "layers": [
                blob(media_type::DOCKER_LAYER_GZIP, "one"),
                blob(media_type::DOCKER_LAYER_GZIP, "two"),
            ],
        });
        let convert = |replaced: &Replaced, family| {
            let bytes = bytes(&before);
            convert_manifest(&bytes, media_type::DOCKER_MANIFEST, replaced, family)
        };
        let types = |document: &Value| {
            let layers = document["layers"].as_array().unwrap().iter();
            let all = layers.chain([&document["config"], document]);
            let all = all.map(|entry| entry["mediaType"].as_str().unwrap().to_owned());
            all.collect::<Vec<_>>()
        };
        let plain = replaced("one", media_type::OCI_LAYER, "1");
        assert_eq!(
            types(&document(convert(&plain, None).unwrap())),
            [
                media_type::DOCKER_LAYER,
                media_type::DOCKER_LAYER_GZIP,
                media_type::DOCKER_CONFIG,
                media_type::DOCKER_MANIFEST,
            ]
        );
        let zstd = replaced("one", media_type::OCI_LAYER_ZSTD, "1");
        let oci = [
            media_type::OCI_LAYER_ZSTD,
            media_type::OCI_LAYER_GZIP,
            media_type::OCI_CONFIG,
            media_type::OCI_MANIFEST,
        ];
        assert_eq!(types(&document(convert(&zstd, None).unwrap())), oci);
        assert_eq!(
            convert(&zstd, Some(Family::Docker)).unwrap_err(),
            ConversionError::NotOfDocker(media_type::OCI_LAYER_ZSTD.to_owned())
        );
        assert_eq!(convert(&Replaced::new(), Some(Family::Docker)), Ok(None));
    }

    #[test]
    fn oci_images_become_dockers_without_what_that_has_no_place_for() {
        let none = Replaced::new();
        let convert = |document: &Value| {
            let family = Some(Family::Docker);
            convert_manifest(&bytes(document), media_type::OCI_MANIFEST, &none, family)
        };
        let after = document(convert(&oci_manifest()).unwrap());
        assert_eq!(
            after,
            json!({
                "schemaVersion": 2,
                "mediaType": media_type::DOCKER_MANIFEST,
                "config": blob(media_type::DOCKER_CONFIG, "{}"),
                "layers": [
                    blob(media_type::DOCKER_LAYER_GZIP, "one"),
                    blob(media_type::DOCKER_LAYER_GZIP, "two"),
                ],
                "new": [1],
            })
        );
        let mut artifact = oci_manifest();
        artifact["config"] = blob("application/vnd.oci.empty.v1+json", "{}");
        let refused = ConversionError::NotOfDocker("application/vnd.oci.empty.v1+json".to_owned());
        assert_eq!(convert(&artifact), Err(refused));
    }

    #[test]
    fn indexes_follow_their_images_and_attestations_too() {
        let mut attestation = blob(media_type::OCI_MANIFEST, "about");
        attestation["annotations"] = json!({(ATTESTED): Digest::of(b"old")});
        attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let mut image = blob(media_type::DOCKER_MANIFEST, "old");
        image["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let before = json!({
            "schemaVersion": 2,
            "mediaType": media_type::DOCKER_LIST,
            "manifests": [image, attestation],
        });
        let now = replaced("old", media_type::OCI_MANIFEST, "new");
        let convert = |document: &Value, replaced: &Replaced, family| {
            convert_index(&bytes(document), media_type::DOCKER_LIST, replaced, family)
        };
        let after = document(convert(&before, &now, None).unwrap());
        assert_eq!(after["mediaType"], media_type::OCI_INDEX);
        assert_eq!(after["manifests"][0]["digest"], json!(Digest::of(b"new")));
        assert_eq!(
            after["manifests"][0]["platform"],
            before["manifests"][0]["platform"]
        );
        assert_eq!(
            after["manifests"][1]["annotations"][ATTESTED],
            json!(Digest::of(b"new"))
        );
        let mut nameless = after.clone();
        nameless["manifests"][1] = blob(media_type::OCI_MANIFEST, "x");
        let none = Replaced::new();
        let refused = convert_index(
            &bytes(&nameless),
            media_type::OCI_INDEX,
            &none,
            Some(Family::Docker),
        );
        assert_eq!(refused, Err(ConversionError::NoPlatform));
    }
}
