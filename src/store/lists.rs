//! Indexes that are put together here, by name, until they are pushed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::images::encode;
use super::{Lock, Result, Store};
use crate::image::{Digest, Reference};

/// A named index that is being put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRecord {
    /// The normalised reference.
    pub name: String,
    /// The index, which is a blob.
    pub index: Digest,
    /// Where the manifests are that are not in the store, by their digests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<Digest, String>,
}

impl Store {
    fn list_path(&self, name: &Reference) -> std::path::PathBuf {
        self.dir("lists").join(encode(&name.to_string()))
    }

    /// Takes the lock that lists are changed under.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn lock_lists(&self) -> Result<Lock> {
        self.lock("lists")
    }

    /// Returns the list of a name.
    ///
    /// # Errors
    /// The record can't be read.
    pub fn list(&self, name: &Reference) -> Result<Option<ListRecord>> {
        super::files::read_json(&self.list_path(name))
    }

    /// Returns all lists. Damaged records are left out.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn lists(&self) -> Result<Vec<ListRecord>> {
        let directory = self.dir("lists");
        let names = super::files::names(&directory)?;
        let read = |name: &String| super::files::read_json(&directory.join(name)).ok()?;
        Ok(names.iter().filter_map(read).collect())
    }

    /// Writes a list, whose index is in the store.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_list(&self, name: &Reference, record: &ListRecord) -> Result<()> {
        use super::IoContext as _;
        let _naming = self.lock(super::images::NAMING)?;
        let directory = self.dir("lists");
        std::fs::create_dir_all(&directory).at("cannot create", &directory)?;
        super::files::write_json(&self.list_path(name), record)
    }

    /// Removes a list.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn remove_list(&self, name: &Reference) -> Result<()> {
        super::files::remove_file(&self.list_path(name))?;
        Ok(())
    }
}
