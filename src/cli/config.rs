//! The user's settings: `$XDG_CONFIG_HOME/kiln/config.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::prune::size;
use super::{CliError, Result};

/// What a variable of the environment says in place of the file.
const LIMIT: &str = "KILN_STORE_LIMIT";

/// No file of settings is larger, in bytes.
const LARGEST: u64 = 1 << 20;

/// The settings of a user.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    /// What the store is kept below at the end of builds.
    store_limit: Option<String>,
}

/// Returns how many bytes the store may have; 0 stands for any number.
pub(super) fn store_limit() -> Result<Option<u64>> {
    let wrong = |place: String, text: &str, reason: String| {
        CliError::message(format!("{place}: {text:?} is no size: {reason}"))
    };
    let limit = match std::env::var(LIMIT) {
        Ok(text) if !text.is_empty() => {
            size(&text).map_err(|reason| wrong(LIMIT.to_owned(), &text, reason))?
        }
        _ => {
            let Some(path) = path() else {
                return Ok(None);
            };
            let Some(text) = read(&path)?.store_limit else {
                return Ok(None);
            };
            let place = || format!("store-limit in {}", path.display());
            size(&text).map_err(|reason| wrong(place(), &text, reason))?
        }
    };
    Ok((limit > 0).then_some(limit))
}

fn path() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let directory = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    Some(directory?.join("kiln/config.toml"))
}

fn read(path: &Path) -> Result<Settings> {
    use std::io::Read as _;
    let fail = |error: &dyn std::fmt::Display| {
        CliError::message(format!("cannot read {}: {error}", path.display()))
    };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Settings::default());
        }
        other => other.map_err(|error| fail(&error))?,
    };
    let mut text = String::new();
    file.take(LARGEST)
        .read_to_string(&mut text)
        .map_err(|error| fail(&error))?;
    toml::from_str(&text).map_err(|error| fail(&error.message()))
}
