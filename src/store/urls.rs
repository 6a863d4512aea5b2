//! What URLs gave when they were read last: `urls/<digest of the URL>`.

use serde::{Deserialize, Serialize};

use super::{IoContext, Result, Store};
use crate::image::Digest;

/// What a URL gave, and what tells whether it still does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlRecord {
    /// The URL, without a password: for people.
    pub url: String,
    /// The blob with the body.
    pub digest: Digest,
    /// `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

impl Store {
    fn url_path(&self, url: &str) -> std::path::PathBuf {
        self.dir("urls").join(Digest::of(url.as_bytes()).hex())
    }

    /// Returns what a URL gave last. A damaged record counts as none.
    pub fn url_record(&self, url: &str) -> Option<UrlRecord> {
        let path = self.url_path(url);
        let record = super::files::read_json(&path).ok().flatten();
        if record.is_some() {
            super::files::touch(&path);
        }
        record
    }

    /// Records what a URL gave, whose blob is in the store.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_url_record(&self, url: &str, record: &UrlRecord) -> Result<()> {
        let directory = self.dir("urls");
        // Stores of older versions have none.
        std::fs::create_dir_all(&directory).at("cannot create", &directory)?;
        super::files::write_json(&self.url_path(url), record)
    }

    /// Forgets what a URL gave: its blob turned out to be damaged.
    ///
    /// # Errors
    /// The record can't be removed.
    pub fn forget_url(&self, url: &str) -> Result<()> {
        super::files::remove_file(&self.url_path(url)).map(|_| ())
    }

    pub(super) fn url_records(&self) -> Result<Vec<UrlRecord>> {
        let files = self.url_files()?;
        Ok(files.into_iter().map(|(_, record)| record).collect())
    }

    /// Returns the records with their files.
    pub(super) fn url_files(&self) -> Result<Vec<(std::path::PathBuf, UrlRecord)>> {
        let directory = self.dir("urls");
        let names = super::files::names(&directory)?;
        let read = |name: &String| {
            let path = directory.join(name);
            let record = super::files::read_json(&path).ok().flatten()?;
            Some((path, record))
        };
        Ok(names.iter().filter_map(read).collect())
    }
}
