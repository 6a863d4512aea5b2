//! A store that is kept below a size.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::inventory::tree_bytes;
use super::prune::{Extent, PruneOptions};
use super::{Result, Store};

/// A store that is over its limit is brought to this much of it, in percent: else each build
/// would have something to remove.
const AIM: u64 = 90;

/// Images without a name that came or were built within this time stay: somebody may know them
/// by their ids.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// What was measured of directories that only change when they are used.
const MEASURED: &str = "measured.json";

/// The bytes of a directory, and when it was used last by then, in nanoseconds since 1970.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Measured {
    used: u128,
    bytes: u64,
}

/// What was done about a store that was over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The bytes of what went.
    pub freed: u64,
    /// The bytes that it has now.
    pub usage: u64,
}

impl Store {
    /// Brings the store below a limit in bytes, where it is over: cache goes that was used
    /// longest ago, and images that have no name. Nothing goes that a process uses, this one
    /// as well. Returns nothing where there is nothing to do.
    ///
    /// # Errors
    /// Something can't be read or removed.
    pub fn shrink(&self, limit: u64) -> Result<Option<Shrunk>> {
        if self.usage()? <= limit {
            return Ok(None);
        }
        let mut options = PruneOptions {
            images: Extent::Dangling,
            idle: Some(FRESH),
            cache: Extent::Dangling,
            only_what_frees: true,
            ..PruneOptions::default()
        };
        let inventory = self.for_collection().inventory()?;
        let left = inventory
            .images
            .iter()
            .filter(|image| !options.wants(image));
        let other = inventory.image_bytes(left) + inventory.blobs.bytes;
        options.keep = Some((limit / 100 * AIM).saturating_sub(other));
        let pruned = self.prune(&options)?;
        Ok(Some(Shrunk {
            freed: pruned.map_or(0, |pruned| pruned.bytes),
            usage: self.usage()?,
        }))
    }

    /// Returns the bytes of all that takes room, without walking what has not changed.
    fn usage(&self) -> Result<u64> {
        let layers: u64 = self.layer_sizes()?.values().sum();
        let blobs = self.blob_files()?.into_iter();
        let blobs: u64 = blobs
            .filter_map(|(_, path)| Some(fs::symlink_metadata(path).ok()?.len()))
            .sum();
        Ok(layers + blobs + self.measured_bytes()?)
    }

    /// Returns the bytes of cache mounts and of snapshots of contexts.
    fn measured_bytes(&self) -> Result<u64> {
        let path = self.root().join(MEASURED);
        let known: BTreeMap<String, Measured> = super::files::read_json(&path)
            .ok()
            .flatten()
            .unwrap_or_default();
        let mut now: BTreeMap<String, Measured> = BTreeMap::new();
        let mut has_news = false;
        for kind in ["mounts", "contexts"] {
            for form in super::files::names(&self.dir(kind))? {
                for name in super::files::names(&self.dir(kind).join(&form))? {
                    let place = format!("{kind}/{form}/{name}");
                    let Ok(meta) = fs::symlink_metadata(self.root().join(&place)) else {
                        continue;
                    };
                    let used = meta.modified().ok();
                    let used =
                        used.and_then(|used| used.duration_since(SystemTime::UNIX_EPOCH).ok());
                    let used = used.unwrap_or_default().as_nanos();
                    let measured = match known.get(&place) {
                        Some(measured) if measured.used == used => *measured,
                        _ => {
                            has_news = true;
                            let bytes = tree_bytes(&self.root().join(&place));
                            Measured { used, bytes }
                        }
                    };
                    now.insert(place, measured);
                }
            }
        }
        if has_news || now.len() != known.len() {
            super::files::write_json(&path, &now)?;
        }
        Ok(now.values().map(|measured| measured.bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_measured_again_when_it_was_used() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let slot = root.path().join("mounts/form/cache");
        fs::create_dir_all(slot.join("fs")).unwrap();
        fs::write(slot.join("fs/a"), [0; 100]).unwrap();
        assert_eq!(store.usage().unwrap(), 100);
        // Not seen, since nobody says that it was used.
        fs::write(slot.join("fs/b"), [0; 100]).unwrap();
        assert_eq!(store.usage().unwrap(), 100);
        super::super::files::touch(&slot);
        assert_eq!(store.usage().unwrap(), 200);
        fs::remove_dir_all(&slot).unwrap();
        assert_eq!(store.usage().unwrap(), 0);
    }
}
