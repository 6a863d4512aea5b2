//! What a name stands for, image by image, in the form of `docker manifest inspect --verbose`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::files::platform;
use super::{CopyError, Document, Origin, Plan, Which};
use crate::image::{Digest, Family, ManifestKind};

/// Describes an image: its name, descriptor and manifest. Of an index, it is a list of those of
/// all its images.
///
/// # Errors
/// A manifest can't be read.
pub fn describe(origin: &dyn Origin, name: &str) -> Result<Value, CopyError> {
    let plan = Plan::make(origin, &Which::All)?;
    let root = plan.root()?.clone();
    if let ([manifest], [_]) = (plan.manifests.as_slice(), plan.documents.as_slice()) {
        let descriptor = &root.descriptor;
        let mut entry = json!({
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        });
        if let Some(platform) = platform(origin, &manifest.config)? {
            entry["platform"] = json!(platform);
        }
        return Ok(image(name.to_string(), &entry, &root));
    }
    let documents: BTreeMap<&Digest, &Document> = plan
        .documents
        .iter()
        .map(|document| (&document.descriptor.digest, document))
        .collect();
    let mut images = Vec::new();
    list(name, &root, &documents, &mut images);
    Ok(Value::Array(images))
}

/// Describes the images of an index, and of those within it, which a plan has bounded.
fn list(
    name: &str,
    index: &Document,
    documents: &BTreeMap<&Digest, &Document>,
    images: &mut Vec<Value>,
) {
    let parsed: Value = serde_json::from_slice(&index.bytes).unwrap_or_default();
    for entry in parsed["manifests"].as_array().into_iter().flatten() {
        let digest = entry["digest"].as_str().and_then(|text| text.parse().ok());
        let Some(document) = digest.and_then(|digest: Digest| documents.get(&digest)) else {
            continue;
        };
        let media_type = &document.descriptor.media_type;
        match ManifestKind::parse(&document.bytes, Some(media_type)) {
            Ok(ManifestKind::Index(_)) => list(name, document, documents, images),
            _ => {
                let named = format!("{name}@{}", document.descriptor.digest);
                images.push(image(named, entry, document));
            }
        }
    }
}

fn image(name: String, descriptor: &Value, document: &Document) -> Value {
    let manifest: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
    let key = match Family::of(&document.descriptor.media_type) {
        Family::Docker => "SchemaV2Manifest",
        Family::Oci => "OCIManifest",
    };
    json!({"Ref": name, "Descriptor": descriptor, key: manifest})
}
