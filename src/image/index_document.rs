//! An index as a document to be edited: what is in it stays, keys that kiln does not know too.

use serde_json::{Map, Value, json};

use super::{Descriptor, Digest, ManifestError, Platform, media_type};

/// An index that can be edited.
/// See <https://github.com/opencontainers/image-spec/blob/main/image-index.md>.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexDocument(Map<String, Value>);

/// Changes to an entry, or to the index as a whole; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryChanges {
    /// The operating system.
    pub os: Option<String>,
    /// The CPU architecture.
    pub architecture: Option<String>,
    /// The variant of the architecture.
    pub variant: Option<String>,
    /// The version of the operating system.
    pub os_version: Option<String>,
    /// Features of the operating system that are required.
    pub os_features: Vec<String>,
    /// Features of the CPU that are required.
    pub features: Vec<String>,
    /// Annotations, which are added to those that are there.
    pub annotations: Vec<(String, String)>,
}

impl Default for IndexDocument {
    fn default() -> IndexDocument {
        let Value::Object(object) = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": [],
        }) else {
            return IndexDocument(Map::new());
        };
        IndexDocument(object)
    }
}

impl IndexDocument {
    /// Parses an index.
    ///
    /// # Errors
    /// It is no index.
    pub fn parse(bytes: &[u8]) -> Result<IndexDocument, ManifestError> {
        let object: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if !object.get("manifests").is_some_and(Value::is_array) {
            return Err(ManifestError::Malformed("it is no index".to_owned()));
        }
        Ok(IndexDocument(object))
    }

    fn entries(&self) -> &[Value] {
        let entries = self.0.get("manifests").and_then(Value::as_array);
        entries.map_or(&[], Vec::as_slice)
    }

    fn entry(&mut self, digest: &Digest) -> Option<&mut Value> {
        let entries = self.0.get_mut("manifests")?.as_array_mut()?;
        entries.iter_mut().find(|entry| is_of(entry, digest))
    }

    /// Returns the digests of the entries.
    pub fn digests(&self) -> Vec<Digest> {
        let digest = |entry: &Value| entry["digest"].as_str()?.parse().ok();
        self.entries().iter().filter_map(digest).collect()
    }

    /// Adds an entry; one of the same digest is replaced.
    pub fn add(&mut self, descriptor: &Descriptor, platform: Option<&Platform>) {
        let mut entry = json!({
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        });
        if let Some(platform) = platform {
            entry["platform"] = json!(platform);
        }
        self.put(entry);
    }

    fn put(&mut self, entry: Value) {
        let digest = entry["digest"].clone();
        let entries = self.0.entry("manifests").or_insert_with(|| json!([]));
        let Some(entries) = entries.as_array_mut() else {
            return;
        };
        match entries.iter_mut().find(|known| known["digest"] == digest) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
    }

    /// Adds all entries of another index, and returns their digests.
    pub fn add_all_of(&mut self, other: &[u8]) -> Vec<Digest> {
        let Ok(other) = IndexDocument::parse(other) else {
            return Vec::new();
        };
        for entry in other.entries() {
            self.put(entry.clone());
        }
        other.digests()
    }

    /// Adds the entry of a digest as another index has it; tells whether that has it.
    pub fn add_entry_of(&mut self, other: &[u8], digest: &Digest) -> bool {
        let found = IndexDocument::parse(other)
            .ok()
            .and_then(|mut other| other.entry(digest).cloned())
            .filter(|entry| entry.get("platform").is_some());
        let is_there = found.is_some();
        if let Some(entry) = found {
            self.put(entry);
        }
        is_there
    }

    /// Removes the entry of a digest; tells whether there was one.
    pub fn remove(&mut self, digest: &Digest) -> bool {
        let Some(Value::Array(entries)) = self.0.get_mut("manifests") else {
            return false;
        };
        let before = entries.len();
        entries.retain(|entry| !is_of(entry, digest));
        entries.len() < before
    }

    /// Changes the entry of a digest; tells whether there is one.
    pub fn annotate(&mut self, digest: &Digest, changes: &EntryChanges) -> bool {
        let Some(Value::Object(entry)) = self.entry(digest) else {
            return false;
        };
        let words = [
            ("architecture", &changes.architecture),
            ("os", &changes.os),
            ("os.version", &changes.os_version),
            ("variant", &changes.variant),
        ];
        for (key, word) in words {
            if let Some(word) = word {
                member(entry, "platform").insert(key.to_owned(), json!(word));
            }
        }
        let lists = [
            ("os.features", &changes.os_features),
            ("features", &changes.features),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                member(entry, "platform").insert(key.to_owned(), json!(list));
            }
        }
        for (key, value) in &changes.annotations {
            member(entry, "annotations").insert(key.clone(), json!(value));
        }
        true
    }

    /// Adds annotations to the index as a whole.
    pub fn annotate_all(&mut self, annotations: &[(String, String)]) {
        for (key, value) in annotations {
            member(&mut self.0, "annotations").insert(key.clone(), json!(value));
        }
    }

    /// Returns the document. It is docker's kind of list where all its images are docker's,
    /// and nothing is in it that docker's has no place for; else OCI's.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut document = self.clone();
        let entries = document.entries();
        let docker = |entry: &Value| {
            entry["mediaType"] == media_type::DOCKER_MANIFEST
                && entry.get("annotations").is_none()
                && entry.get("platform").is_some()
        };
        let is_docker = !entries.is_empty()
            && entries.iter().all(docker)
            && document
                .0
                .keys()
                .all(|key| ["schemaVersion", "mediaType", "manifests"].contains(&key.as_str()));
        let kind = match is_docker {
            true => media_type::DOCKER_LIST,
            false => media_type::OCI_INDEX,
        };
        document.0.insert("mediaType".to_owned(), json!(kind));
        Value::Object(document.0).to_string().into_bytes()
    }
}

/// Returns the object of a key, which is made where there is none.
fn member<'a>(object: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = object.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it was made one"),
    }
}

fn is_of(entry: &Value, digest: &Digest) -> bool {
    entry["digest"].as_str() == Some(digest.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_stays_as_it_is() {
        let digest = Digest::of(b"x");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"a/b","manifests":[{{"mediaType":"m","digest":"{digest}","size":1,"platform":{{"architecture":"arm64","os":"linux","new":1}},"annotations":{{"b":"2"}}}}],"subject":{{}}}}"#,
            media_type::OCI_INDEX
        );
        let mut index = IndexDocument::parse(text.as_bytes()).unwrap();
        assert_eq!(index.to_bytes(), text.as_bytes());
        let changes = EntryChanges {
            variant: Some("v8".to_owned()),
            annotations: vec![("a".to_owned(), "1".to_owned())],
            ..EntryChanges::default()
        };
        assert!(index.annotate(&digest, &changes));
        let entry = &index.entries()[0];
        assert_eq!(
            entry["platform"],
            json!({"architecture": "arm64", "os": "linux", "new": 1, "variant": "v8"})
        );
        assert_eq!(entry["annotations"], json!({"a": "1", "b": "2"}));
        assert!(!index.annotate(&Digest::of(b"y"), &changes));
        assert!(index.remove(&digest) && !index.remove(&digest));
    }

    #[test]
    fn index_of_docker_images_is_dockers_until_it_has_what_that_cannot_have() {
        let kind = |index: &IndexDocument| {
            let document: Value = serde_json::from_slice(&index.to_bytes()).unwrap();
            document["mediaType"].as_str().unwrap().to_owned()
        };
        let mut index = IndexDocument::default();
        assert_eq!(kind(&index), media_type::OCI_INDEX);
        let manifest = Descriptor::of(media_type::DOCKER_MANIFEST, b"x");
        let platform: Platform = "linux/arm64".parse().unwrap();
        index.add(&manifest, Some(&platform));
        index.add(&manifest, Some(&platform));
        assert_eq!(index.digests().len(), 1);
        assert_eq!(kind(&index), media_type::DOCKER_LIST);
        index.annotate_all(&[("k".to_owned(), "v".to_owned())]);
        assert_eq!(kind(&index), media_type::OCI_INDEX);
    }
}
