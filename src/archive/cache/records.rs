//! The records of a cache that travels: which steps it has, and what they came to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::image::{ChainId, Descriptor, DiffId, Digest};

/// The form of the document. Another one is not read.
const VERSION: u32 = 1;

/// No honest cache has more layers.
const MAX_LAYERS: usize = 1 << 16;

/// Keys that lead to one layer: what is beyond was made by chance.
const MAX_KEYS: usize = 64;

/// The length of a key, as hexadecimal digits.
const KEY_LENGTH: usize = 64;

/// Why a document can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// It is no JSON of this form.
    #[error("its records can't be read: {0}")]
    Malformed(String),
    /// It is one of another form.
    #[error("another version of kiln wrote it")]
    Version,
}

/// The layer that steps came to, on top of what they were done on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedLayer {
    /// What the steps were done on; nothing where that does not matter, or is nothing.
    pub below: Option<ChainId>,
    /// What they came to.
    pub diff_id: DiffId,
    /// The blob with it.
    pub blob: Descriptor,
    /// The keys of the steps, and when each was done, RFC 3339.
    pub keys: BTreeMap<String, String>,
    /// When a build used it last, in seconds since 1970.
    pub used: u64,
}

/// All records of a cache: what was used longest ago comes first, and what one build used in
/// its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) layers: Vec<CachedLayer>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    layers: Vec<CachedLayer>,
}

impl Records {
    /// Parses and checks a document.
    pub(super) fn parse(bytes: &[u8]) -> Result<Records, RecordsError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let malformed = |error: serde_json::Error| RecordsError::Malformed(error.to_string());
        let wrong = |what: &str| Err(RecordsError::Malformed(what.to_owned()));
        let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
        if head.version != VERSION {
            return Err(RecordsError::Version);
        }
        let document: Document = serde_json::from_slice(bytes).map_err(malformed)?;
        if document.layers.len() > MAX_LAYERS {
            return wrong("it has too many layers");
        }
        for layer in &document.layers {
            if layer.keys.len() > MAX_KEYS {
                return wrong("a layer has too many keys");
            }
            if layer.blob.size > i64::MAX as u64 {
                return wrong("a blob is too large");
            }
            for (key, created) in &layer.keys {
                if key.len() != KEY_LENGTH || !key.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return wrong("a key is no hash");
                }
                if created.parse::<jiff::Timestamp>().is_err() {
                    return wrong("a time is none");
                }
            }
        }
        Ok(Records {
            layers: document.layers,
        })
    }

    /// Returns the document.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let document = Document {
            version: VERSION,
            layers: self.layers.clone(),
        };
        serde_json::to_vec(&document).expect("a document has string keys only")
    }

    /// Returns what the step of a key came to on top of `below`, and when it was done.
    pub(super) fn find(
        &self,
        key: &str,
        below: Option<&ChainId>,
    ) -> Option<(&CachedLayer, &String)> {
        let at_place = self
            .layers
            .iter()
            .rev()
            .filter(|l| l.below.as_ref() == below);
        at_place
            .filter_map(|layer| Some((layer, layer.keys.get(key)?)))
            .next()
    }

    /// Tells whether a key has a record on top of anything.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.layers.iter().any(|layer| layer.keys.contains_key(key))
    }

    /// Adds what a build used now. Of a key that led elsewhere before, the new record counts.
    pub(super) fn add(&mut self, used: Vec<CachedLayer>) {
        for mut layer in used {
            let mut known = BTreeMap::new();
            self.layers.retain_mut(|old| {
                if old.below != layer.below {
                    return true;
                }
                if old.diff_id == layer.diff_id {
                    known = std::mem::take(&mut old.keys);
                    return false;
                }
                old.keys.retain(|key, _| !layer.keys.contains_key(key));
                !old.keys.is_empty()
            });
            for (key, created) in known {
                if layer.keys.len() < MAX_KEYS {
                    layer.keys.entry(key).or_insert(created);
                }
            }
            self.layers.push(layer);
        }
        let surplus = self.layers.len().saturating_sub(MAX_LAYERS);
        self.layers.drain(..surplus);
    }

    /// Returns the blobs, each once.
    pub(super) fn blobs(&self) -> BTreeMap<&Digest, &Descriptor> {
        let blobs = self.layers.iter().map(|layer| &layer.blob);
        blobs.map(|blob| (&blob.digest, blob)).collect()
    }

    /// Removes layers until their blobs have at most `limit` bytes: what was used longest ago
    /// first, and of what one build used the last steps first, since they stand on the others.
    pub(super) fn limit(&mut self, limit: u64) {
        let mut order: Vec<usize> = (0..self.layers.len()).collect();
        order.sort_by_key(|&index| (self.layers[index].used, std::cmp::Reverse(index)));
        let mut holders: BTreeMap<&Digest, usize> = BTreeMap::new();
        for layer in &self.layers {
            *holders.entry(&layer.blob.digest).or_default() += 1;
        }
        let sizes = self.blobs();
        let mut total: u64 = sizes
            .values()
            .fold(0, |sum, blob| sum.saturating_add(blob.size));
        let mut gone = BTreeSet::new();
        for index in order {
            if total <= limit {
                break;
            }
            let blob = &self.layers[index].blob;
            gone.insert(index);
            if let Some(count) = holders.get_mut(&blob.digest) {
                *count -= 1;
                if *count == 0 {
                    total = total.saturating_sub(blob.size);
                }
            }
        }
        let mut index = 0;
        self.layers.retain(|_| {
            index += 1;
            !gone.contains(&(index - 1))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::media_type;

    fn key(name: &str) -> String {
        blake3::hash(name.as_bytes()).to_hex().to_string()
    }

    /// A layer of 10 bytes that a step of this name came to.
    fn layer(name: &str, below: Option<&CachedLayer>, used: u64) -> CachedLayer {
        let diff_id = DiffId(Digest::of(name.as_bytes()));
        CachedLayer {
            below: below.map(|l| ChainId::extend(l.below.as_ref(), &l.diff_id)),
            diff_id,
            blob: Descriptor {
                media_type: media_type::OCI_LAYER_GZIP.to_owned(),
                digest: Digest::of(format!("blob of {name}").as_bytes()),
                size: 10,
            },
            keys: [(key(name), "2026-01-01T00:00:00Z".to_owned())].into(),
            used,
        }
    }

    fn left(layers: &[&CachedLayer], limit: u64) -> Vec<CachedLayer> {
        let layers = layers.iter().map(|layer| (*layer).clone()).collect();
        let mut records = Records { layers };
        records.limit(limit);
        records.layers
    }

    #[test]
    fn document_round_trips() {
        let base = layer("a", None, 1);
        let records = Records {
            layers: vec![layer("b", Some(&base), 2), base],
        };
        assert_eq!(Records::parse(&records.to_bytes()).unwrap(), records);
    }

    #[test]
    fn what_no_kiln_writes_is_refused() {
        let text = String::from_utf8(
            Records {
                layers: vec![layer("a", None, 1)],
            }
            .to_bytes(),
        )
        .unwrap();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{text}");
            Records::parse(text.replace(from, to).as_bytes())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused("\"version\":1", "\"version\":2"),
            "another version of kiln wrote it"
        );
        let malformed = "its records can't be read: ";
        for (from, to, why) in [
            (key("a").as_str(), "../../x", "a key is no hash"),
            ("2026-01-01T00:00:00Z", "yesterday", "a time is none"),
            (
                "\"size\":10",
                "\"size\":18446744073709551615",
                "a blob is too large",
            ),
        ] {
            assert_eq!(refused(from, to), format!("{malformed}{why}"));
        }
        assert!(refused("\"sha256:", "\"sha256:../").starts_with(malformed));
        assert!(Records::parse(b"{\"version\":1").is_err());
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_of_one_build_the_last_step() {
        let old = layer("old", None, 1);
        let a = layer("a", None, 2);
        let b = layer("b", Some(&a), 2);
        let all = [&old, &a, &b];
        let names = |limit| {
            let left = left(&all, limit);
            let name = |l: &CachedLayer| {
                let known = [("old", &old), ("a", &a), ("b", &b)];
                known.into_iter().find(|(_, k)| *k == l).unwrap().0
            };
            left.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(30), ["old", "a", "b"]);
        assert_eq!(names(29), ["a", "b"]);
        assert_eq!(names(19), ["a"]);
        assert_eq!(names(9), [""; 0]);
    }

    #[test]
    fn equal_blobs_count_once() {
        let a = layer("same", None, 1);
        let b = CachedLayer {
            below: Some(ChainId(Digest::of(b"x"))),
            ..a.clone()
        };
        assert_eq!(left(&[&a, &b], 10).len(), 2);
        assert_eq!(left(&[&a, &b], 9).len(), 0);
    }

    #[test]
    fn second_build_joins_the_first() {
        let a = layer("a", None, 1);
        let mut records = Records {
            layers: vec![a.clone(), layer("x", None, 1)],
        };
        let mut again = CachedLayer {
            keys: layer("other way", None, 1).keys,
            used: 2,
            ..a.clone()
        };
        records.add(vec![again.clone()]);
        again.keys.extend(a.keys.clone());
        assert_eq!(records.layers, [layer("x", None, 1), again]);
        assert!(records.knows(&key("a")) && records.knows(&key("other way")));
    }

    #[test]
    fn newer_result_of_a_key_replaces_the_older() {
        let old = layer("a", None, 1);
        let new = CachedLayer {
            diff_id: DiffId(Digest::of(b"new")),
            used: 2,
            ..old.clone()
        };
        let mut records = Records { layers: vec![old] };
        records.add(vec![new.clone()]);
        assert_eq!(records.layers, [new]);
    }
}
