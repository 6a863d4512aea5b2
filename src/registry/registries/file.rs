//! One file in version 2 of the format.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Entry, Mirror, Mode, RegistriesError};

/// The largest file that is read.
const LARGEST_FILE: u64 = 4 << 20;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Document {
    registry: Vec<RegistryTable>,
    unqualified_search_registries: Option<Vec<String>>,
    aliases: BTreeMap<String, String>,
    /// Only version 1 has it.
    registries: Option<toml::Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RegistryTable {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorTable>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: Mode,
}

/// Returns the files `*.conf` of a directory, in the order of their names.
pub(super) fn drop_ins(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    files.sort();
    files
}

/// What one file says.
pub(super) struct Content {
    pub(super) entries: Vec<Entry>,
    /// Where names without a registry are looked for, if it says that.
    pub(super) search: Option<Vec<String>>,
    /// Repositories by the short names that stand for them.
    pub(super) aliases: BTreeMap<String, String>,
}

pub(super) fn read(path: &Path) -> Result<Content, RegistriesError> {
    let malformed = |problem: String| RegistriesError::Malformed {
        path: path.to_owned(),
        problem,
    };
    let failed = |error| RegistriesError::Read {
        path: path.to_owned(),
        error,
    };
    if fs::metadata(path).map_err(failed)?.len() > LARGEST_FILE {
        return Err(malformed(format!("larger than {LARGEST_FILE} bytes")));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let document: Document = toml::from_str(&text).map_err(|error| {
        let before = &text[..error.span().map_or(0, |span| span.start)];
        let line = before.matches('\n').count() + 1;
        malformed(format!("line {line}: {}", error.message()))
    })?;
    if document.registries.is_some() {
        return Err(malformed(
            "[registries.…] is version 1 of the format: write [[registry]] instead".to_owned(),
        ));
    }
    let entries = document.registry.into_iter();
    let entries = entries.map(|table| Entry::new(path, table).map_err(malformed));
    Ok(Content {
        entries: entries.collect::<Result<_, _>>()?,
        search: document.unqualified_search_registries,
        aliases: document.aliases,
    })
}

impl Entry {
    fn new(path: &Path, table: RegistryTable) -> Result<Entry, String> {
        let location = location_or_none(&table.location)?;
        let prefix = match location_or_none(&table.prefix)? {
            Some(prefix) => prefix,
            None => location
                .clone()
                .ok_or("a [[registry]] has neither prefix nor location")?,
        };
        let mirror = |mirror: MirrorTable| {
            Ok(Mirror {
                location: location_or_none(&mirror.location)?
                    .ok_or_else(|| format!("a mirror of {prefix} has no location"))?,
                insecure: mirror.insecure,
                mode: match mirror.pull_from_mirror {
                    Mode::All if table.mirror_by_digest_only => Mode::DigestOnly,
                    mode => mode,
                },
            })
        };
        Ok(Entry {
            path: path.to_owned(),
            mirrors: table
                .mirror
                .into_iter()
                .map(mirror)
                .collect::<Result<_, String>>()?,
            prefix,
            location,
            insecure: table.insecure,
            blocked: table.blocked,
        })
    }
}

/// Returns the location that a file gives, if it gives one.
fn location_or_none(text: &str) -> Result<Option<String>, String> {
    let text = text.trim_end_matches('/');
    if text.contains("://") {
        return Err(format!("{text:?}: a location has no http:// or https://"));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
