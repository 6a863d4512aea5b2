//! Keeping a credential, and forgetting it: what `login` and `logout` leave in files.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::file::{ConfigFile, DOCKER_HUB_KEY, is_docker_hub, match_key, read_text};
use super::program::HelperRunner;
use super::{CredentialPaths, CredentialsError};

/// Where a credential went.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// To a credential helper, which is this program.
    Helper(String),
    /// Into a file, as plain text for who can read that.
    File(PathBuf),
}

impl CredentialPaths {
    /// Keeps a user's name and password for `registry`: with the helper that the file names
    /// for it, else in the file itself. The file is the one that was named, else the first
    /// that there is.
    ///
    /// # Errors
    /// Where the file can't be read or written, or the helper fails.
    pub fn log_in(
        &self,
        runner: &dyn HelperRunner,
        registry: &str,
        username: &str,
        password: &str,
    ) -> Result<Kept, CredentialsError> {
        let Some(path) = self.written_file() else {
            return Err(CredentialsError::NoFile);
        };
        let file = ConfigFile::read(path.clone())?.unwrap_or_default();
        let mut document = Document::read(&path)?;
        document.forget(|key| match_key(key, registry, "") == Some(0))?;
        let auths = document.auths()?;
        let kept = match file.helper(registry, runner) {
            Some((helper, server)) => {
                helper.store(server, username, password)?;
                // The mark that docker leaves: the registry is known, its secret elsewhere.
                auths.insert(key_of(registry).to_owned(), json!({}));
                Kept::Helper(helper.program())
            }
            None => {
                let pair = STANDARD.encode(format!("{username}:{password}"));
                auths.insert(key_of(registry).to_owned(), json!({"auth": pair}));
                Kept::File(path.clone())
            }
        };
        document.write()?;
        Ok(kept)
    }

    /// Forgets what all files and their helpers have for `registry`; tells whether there was
    /// anything.
    ///
    /// # Errors
    /// Where a file can't be read or written, or a helper fails.
    pub fn log_out(
        &self,
        runner: &dyn HelperRunner,
        registry: &str,
    ) -> Result<bool, CredentialsError> {
        let mut found = false;
        for path in self.files() {
            let Some(file) = ConfigFile::read(path.clone())? else {
                continue;
            };
            if let Some((helper, server)) = file.helper(registry, runner)
                && helper.get(server)?.is_some()
            {
                helper.erase(server)?;
                found = true;
            }
            let mut document = Document::read(&path)?;
            if document.forget(|key| match_key(key, registry, "") == Some(0))? {
                document.write()?;
                found = true;
            }
        }
        Ok(found)
    }

    /// Forgets what all files and their helpers have.
    ///
    /// # Errors
    /// As [`CredentialPaths::log_out`].
    pub fn log_out_everywhere(&self, runner: &dyn HelperRunner) -> Result<(), CredentialsError> {
        for path in self.files() {
            let Some(file) = ConfigFile::read(path.clone())? else {
                continue;
            };
            for (helper, only) in file.helpers(runner) {
                for server in helper.list()? {
                    if only.is_none_or(|only| only == server) {
                        helper.erase(&server)?;
                    }
                }
            }
            let mut document = Document::read(&path)?;
            if document.forget(|_| true)? {
                document.write()?;
            }
        }
        Ok(())
    }

    /// Returns the file that a login is written to.
    fn written_file(&self) -> Option<PathBuf> {
        let files = self.files();
        let there = files.iter().position(|file| file.exists());
        let at = match self.registry_auth_file {
            Some(_) => 0,
            None => there.unwrap_or(0),
        };
        files.into_iter().nth(at)
    }
}

/// Returns the key under which docker and podman both find a registry.
fn key_of(registry: &str) -> &str {
    if is_docker_hub(registry) {
        DOCKER_HUB_KEY
    } else {
        registry
    }
}

/// A file with all that stands in it, whether kiln knows it or not.
struct Document {
    path: PathBuf,
    content: Map<String, Value>,
}

impl Document {
    fn read(path: &Path) -> Result<Document, CredentialsError> {
        let content = match read_text(path)? {
            Some(text) => serde_json::from_slice(&text).map_err(|_| malformed(path))?,
            None => Map::new(),
        };
        Ok(Document {
            path: path.to_owned(),
            content,
        })
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>, CredentialsError> {
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        auths.as_object_mut().ok_or_else(|| malformed(&self.path))
    }

    /// Removes the entries whose keys are `meant`; tells whether there were any.
    fn forget(&mut self, meant: impl Fn(&str) -> bool) -> Result<bool, CredentialsError> {
        let auths = self.auths()?;
        let before = auths.len();
        auths.retain(|key, _| !meant(key));
        Ok(auths.len() != before)
    }

    /// Writes the file anew, so that a reader sees the old one or the new one, and nobody but
    /// the user either of them.
    fn write(&self) -> Result<(), CredentialsError> {
        let failed = |error| CredentialsError::Write {
            path: self.path.clone(),
            error,
        };
        let text =
            serde_json::to_string_pretty(&self.content).map_err(|_| malformed(&self.path))?;
        // Who keeps the file elsewhere and links to it wants the link to stay.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        replace(&path, text.as_bytes()).map_err(failed)
    }
}

fn malformed(path: &Path) -> CredentialsError {
    CredentialsError::Malformed {
        path: path.to_owned(),
        problem: "it holds no JSON object with an object `auths`".to_owned(),
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    // A bare name has an empty parent.
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let name = format!(".{}.{}", name.to_string_lossy(), std::process::id());
    let temporary = directory.join(name);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    let result = write();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}
