//! Step records: what a step came to. They lie by a hash of its inputs, then by what was below
//! it: whether it can have been done anywhere is seen without knowing what lies below.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{IoContext, Result, Store};
use crate::image::{ChainId, DiffId};

/// What a step came to. Its key is made in [`crate::build`]. The format is part of the store:
/// a record that does not parse is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The layer that it made.
    pub diff_id: DiffId,
    /// When it ran first, RFC 3339: a step from the cache keeps its time, so that a build in
    /// which nothing changed gives the same image.
    pub created: String,
}

/// A record and its file.
pub(super) struct StepFile {
    /// The hash of what the step was given.
    pub(super) inputs: String,
    /// What the step was done on.
    pub(super) below: Option<ChainId>,
    /// What it came to.
    pub(super) record: StepRecord,
    /// The file.
    pub(super) path: PathBuf,
}

/// No file of the stat cache is larger, in bytes.
const STAT_CACHE_LIMIT: u64 = 256 << 20;

/// The name of the record of a step with nothing below it.
const NOTHING_BELOW: &str = "nothing";

impl Store {
    fn step_path(&self, inputs: &str, below: Option<&ChainId>) -> PathBuf {
        let below = below.map_or(NOTHING_BELOW, |chain_id| chain_id.0.hex());
        self.dir("cache").join(inputs).join(below)
    }

    /// Returns the record of a step with these inputs on top of `below`. A damaged one counts
    /// as none.
    pub fn step_record(&self, inputs: &str, below: Option<&ChainId>) -> Option<StepRecord> {
        let path = self.step_path(inputs, below);
        let record = super::files::read_json(&path).ok().flatten();
        if record.is_some() {
            super::files::touch(&path);
        }
        record
    }

    /// Tells whether a step with these inputs has a record on top of anything.
    pub fn has_step_records(&self, inputs: &str) -> bool {
        self.dir("cache").join(inputs).is_dir()
    }

    /// Writes a record. Where another process wrote one first, that one is replaced.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_step_record(
        &self,
        inputs: &str,
        below: Option<&ChainId>,
        record: &StepRecord,
    ) -> Result<()> {
        let path = self.step_path(inputs, below);
        let directory = self.dir("cache").join(inputs);
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).at("cannot create", &directory);
            }
            _ => {}
        }
        super::files::write_json(&path, record)
    }

    /// Returns what is remembered of a context's files. What can't be read is nothing.
    pub fn stat_cache(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.dir("stat").join(name);
        let bytes = super::files::read_bounded(&path, STAT_CACHE_LIMIT).ok()??;
        super::files::touch(&path);
        Some(bytes)
    }

    /// Remembers what is known of a context's files.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_stat_cache(&self, name: &str, bytes: &[u8]) -> Result<()> {
        super::files::write_atomically(&self.dir("stat").join(name), bytes)
    }

    /// Returns what was kept of a step for the next build's explanations.
    pub fn trace(&self, place: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dir("traces").join(place)).ok()
    }

    /// Keeps something of a step. It is a comfort: what a crash leaves of it is none.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_trace(&self, place: &str, bytes: &[u8]) -> Result<()> {
        let directory = self.dir("traces");
        let path = directory.join(place);
        match std::fs::write(&path, bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&directory).at("cannot create", &directory)?;
                std::fs::write(&path, bytes).at("cannot write", &path)
            }
            other => other.at("cannot write", &path),
        }
    }

    /// Returns what is recorded of steps that came to one of some layers: the hash of what
    /// each was given, what it was done on, and its record.
    ///
    /// # Errors
    /// A directory can't be read.
    pub fn steps_leading_to(
        &self,
        layers: &BTreeSet<&DiffId>,
    ) -> Result<Vec<(String, Option<ChainId>, StepRecord)>> {
        let files = self.step_files()?.into_iter();
        let leading = files.filter(|file| layers.contains(&file.record.diff_id));
        Ok(leading
            .map(|file| (file.inputs, file.below, file.record))
            .collect())
    }

    pub(super) fn step_records(&self) -> Result<Vec<StepRecord>> {
        let files = self.step_files()?;
        Ok(files.into_iter().map(|file| file.record).collect())
    }

    /// Returns the records with their files.
    pub(super) fn step_files(&self) -> Result<Vec<StepFile>> {
        let mut records = Vec::new();
        for inputs in super::files::names(&self.dir("cache"))? {
            let directory = self.dir("cache").join(&inputs);
            if !directory.is_dir() {
                continue;
            }
            for below in super::files::names(&directory)? {
                let path = directory.join(&below);
                let Ok(Some(record)) = super::files::read_json(&path) else {
                    continue;
                };
                let chain_id = format!("sha256:{below}").parse().ok().map(ChainId);
                if chain_id.is_none() && below != NOTHING_BELOW {
                    continue;
                }
                records.push(StepFile {
                    inputs: inputs.clone(),
                    below: chain_id,
                    record,
                    path,
                });
            }
        }
        Ok(records)
    }
}
