//! Step records: what a step came to, under a key of all that it could see.

use serde::{Deserialize, Serialize};

use super::{Result, Store};
use crate::image::DiffId;

/// What a step came to. Its key is made in [`crate::build`]. The format is part of the store:
/// a record that does not parse is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The layer that it made; none for a step that changes the config only.
    pub diff_id: Option<DiffId>,
    /// When it ran first, RFC 3339: a step from the cache keeps its time, so that a build in
    /// which nothing changed gives the same image.
    pub created: String,
}

/// No file of the stat cache is larger, in bytes.
const STAT_CACHE_LIMIT: u64 = 256 << 20;

impl Store {
    /// Returns the record under a key. A damaged one counts as none.
    pub fn step_record(&self, key: &str) -> Option<StepRecord> {
        super::files::read_json(&self.dir("cache").join(key))
            .ok()
            .flatten()
    }

    /// Writes a record. Where another process wrote one first, that one is replaced.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_step_record(&self, key: &str, record: &StepRecord) -> Result<()> {
        super::files::write_json(&self.dir("cache").join(key), record)
    }

    /// Returns what is remembered of a context's files. What can't be read is nothing.
    pub fn stat_cache(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.dir("stat").join(name);
        super::files::read_bounded(&path, STAT_CACHE_LIMIT).ok()?
    }

    /// Remembers what is known of a context's files.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_stat_cache(&self, name: &str, bytes: &[u8]) -> Result<()> {
        super::files::create_private_dir(&self.dir("stat"))?;
        super::files::write_atomically(&self.dir("stat").join(name), bytes)
    }

    pub(super) fn step_records(&self) -> Result<Vec<(String, StepRecord)>> {
        let keys = super::files::names(&self.dir("cache"))?;
        Ok(keys
            .into_iter()
            .filter_map(|key| Some((key.clone(), self.step_record(&key)?)))
            .collect())
    }
}
