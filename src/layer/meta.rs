//! What `layer.json` says of a layer directory.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ownership::Overrides;
use super::path;
use crate::image::DiffId;

/// What of a directory is not in the layer's stream: the stream is a function of the directory
/// and of this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omit {
    /// Whether the root directory has no entry: its attributes are those of the layer below.
    #[serde(default)]
    pub root: bool,
    /// Entries that are left out, each with all that lies below it.
    #[serde(
        default,
        with = "path::serde_set",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub entries: BTreeSet<Vec<u8>>,
    /// Opaque directories whose marker is left out, since nothing lies below them.
    #[serde(
        default,
        with = "path::serde_set",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub opaque: BTreeSet<Vec<u8>>,
}

/// The hash of a layer's stream without its mtimes: two layers with the same one differ in
/// nothing but times. For keys within the store only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub [u8; 32]);

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

impl Serialize for ContentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ContentId, D::Error> {
        let text = String::deserialize(deserializer)?;
        blake3::Hash::from_hex(&text)
            .map(|hash| ContentId(*hash.as_bytes()))
            .map_err(serde::de::Error::custom)
    }
}

/// The content of `layer.json`. Keys that are not known are let pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// The digest of the uncompressed stream.
    pub diff_id: DiffId,
    /// The hash of the stream without mtimes, for layers that kiln made itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<ContentId>,
    /// What of the directory is not in the stream.
    #[serde(default)]
    pub omit: Omit,
    /// Records of entries that can't have `user.*` attributes.
    #[serde(default, with = "path::serde_map")]
    pub overrides: Overrides,
    /// Whether the tree depends on no layer below: no parent had to be taken from there.
    #[serde(default)]
    pub self_contained: bool,
    /// The bytes of all regular files.
    #[serde(default)]
    pub size: u64,
    /// The number of entries of the stream.
    #[serde(default)]
    pub entries: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    #[test]
    fn layer_json_comes_back_with_any_bytes_in_paths() {
        let meta = LayerMeta {
            diff_id: DiffId(Digest::of(b"x")),
            content_id: Some(ContentId([7; 32])),
            omit: Omit {
                root: true,
                entries: [b"caf\xe9\\".to_vec(), b"a\nb".to_vec()].into(),
                opaque: [b"var".to_vec()].into(),
            },
            overrides: [(b"\xff".to_vec(), "70000:1:120777:0:0".parse().unwrap())].into(),
            self_contained: true,
            size: 1,
            entries: 2,
        };
        let text = serde_json::to_string(&meta).unwrap();
        assert_eq!(serde_json::from_str::<LayerMeta>(&text).unwrap(), meta);
    }

    #[test]
    fn unknown_keys_and_missing_ones_are_let_pass() {
        let text = format!(r#"{{"diff_id":"{}","newer":[1]}}"#, Digest::of(b"x"));
        let meta: LayerMeta = serde_json::from_str(&text).unwrap();
        assert_eq!(meta.omit, Omit::default());
        assert!(!meta.self_contained);
    }
}
