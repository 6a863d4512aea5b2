//! The file that docker and podman share: `config.json`, or `auth.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::program::{Helper, HelperRunner};
use super::{Credential, CredentialsError};

/// The largest file of credentials that is read.
const LARGEST_FILE: u64 = 4 << 20;

/// The key under which docker keeps the credentials of Docker Hub.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A file in the format that docker and podman share.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigFile {
    #[serde(skip)]
    path: PathBuf,
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl ConfigFile {
    /// Reads a file; none is returned where there is none.
    pub fn read(path: PathBuf) -> Result<Option<ConfigFile>, CredentialsError> {
        let Some(text) = read_text(&path)? else {
            return Ok(None);
        };
        let mut file: ConfigFile =
            serde_json::from_slice(&text).map_err(|e| CredentialsError::Malformed {
                path: path.clone(),
                problem: describe(&e),
            })?;
        file.path = path;
        Ok(Some(file))
    }

    /// Returns the stored entry with the most specific key.
    pub fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialsError> {
        let matches = self.auths.iter().filter_map(|(key, entry)| {
            let specific = match_key(key, registry, repository)?;
            Some((specific, key, entry))
        });
        // The first of equals wins, so that the order of keys decides and not chance.
        let mut best: Option<(usize, &String, &AuthEntry)> = None;
        for candidate in matches.filter(|(_, _, entry)| !entry.is_empty()) {
            if best.is_none_or(|(specific, _, _)| candidate.0 > specific) {
                best = Some(candidate);
            }
        }
        let Some((_, key, entry)) = best else {
            return Ok(None);
        };
        entry
            .credential()
            .map(Some)
            .ok_or_else(|| CredentialsError::Malformed {
                path: self.path.clone(),
                problem: format!("auths: {key:?}: `auth` is not base64 of user:password"),
            })
    }

    /// Returns the helper that has the credentials of `registry`, and what it knows the
    /// registry as.
    pub fn helper<'a>(
        &'a self,
        registry: &'a str,
        runner: &'a dyn HelperRunner,
    ) -> Option<(Helper<'a>, &'a str)> {
        let named = self
            .cred_helpers
            .iter()
            .find(|(key, _)| match_key(key, registry, "") == Some(0))
            .map(|(key, helper)| (key.as_str(), helper.as_str()));
        let server = if is_docker_hub(registry) {
            DOCKER_HUB_KEY
        } else {
            registry
        };
        let (server, name) = named.unwrap_or((server, &self.creds_store));
        let helper = Helper {
            path: &self.path,
            name,
            runner,
        };
        (!name.is_empty()).then_some((helper, server))
    }

    /// Returns all helpers, each with the only server that it is for, if it is for one.
    pub fn helpers<'a>(
        &'a self,
        runner: &'a dyn HelperRunner,
    ) -> impl Iterator<Item = (Helper<'a>, Option<&'a str>)> {
        let named = self
            .cred_helpers
            .iter()
            .map(|(server, name)| (name, Some(server.as_str())));
        let helper = move |(name, server): (&'a String, _)| {
            let helper = Helper {
                path: &self.path,
                name,
                runner,
            };
            (helper, server)
        };
        std::iter::once((&self.creds_store, None))
            .chain(named)
            .filter(|(name, _)| !name.is_empty())
            .map(helper)
    }
}

/// Reads a file of credentials; none is returned where it does not exist or is empty, as
/// `touch` and some installers leave it.
pub(super) fn read_text(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut text));
    match read {
        Ok(_) if text.len() as u64 > LARGEST_FILE => Err(CredentialsError::Malformed {
            path: path.to_owned(),
            problem: format!("larger than {LARGEST_FILE} bytes"),
        }),
        Ok(_) => Ok((!text.trim_ascii().is_empty()).then_some(text)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(CredentialsError::Read {
            path: path.to_owned(),
            error,
        }),
    }
}

impl AuthEntry {
    /// Tells whether this is a mere mark that the registry is known, as docker leaves it
    /// where a helper has the secret.
    fn is_empty(&self) -> bool {
        [
            &self.auth,
            &self.username,
            &self.identitytoken,
            &self.registrytoken,
        ]
        .iter()
        .all(|field| field.is_empty())
    }

    fn credential(&self) -> Option<Credential> {
        if !self.identitytoken.is_empty() {
            return Some(Credential::IdentityToken(self.identitytoken.clone()));
        }
        if !self.registrytoken.is_empty() {
            return Some(Credential::RegistryToken(self.registrytoken.clone()));
        }
        if self.auth.is_empty() {
            return Some(Credential::Basic {
                username: self.username.clone(),
                password: self.password.clone(),
            });
        }
        // Some tools write the padding and some do not.
        let engine = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let pair = String::from_utf8(engine.decode(self.auth.trim()).ok()?).ok()?;
        let (username, password) = pair.split_once(':')?;
        Some(Credential::Basic {
            username: username.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        })
    }
}

/// Returns how specifically `key` of a file means a repository (the length of the
/// namespace that it names), or nothing where it means another.
pub(super) fn match_key(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let (bare, had_scheme) = match key.split_once("://") {
        Some((_, rest)) => (rest, true),
        None => (key, false),
    };
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let same =
        host.eq_ignore_ascii_case(registry) || (is_docker_hub(host) && is_docker_hub(registry));
    if !same {
        return None;
    }
    let path = path.trim_end_matches('/');
    // docker's keys are URLs whose path means nothing, podman's are prefixes of names.
    if had_scheme || matches!(path, "" | "v1" | "v2") {
        return Some(0);
    }
    let rest = repository.strip_prefix(path)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(path.len())
}

pub(super) fn is_docker_hub(host: &str) -> bool {
    matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    )
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns where and in what way a JSON document is wrong, without quoting from it.
pub(super) fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "unexpected kind of value",
        serde_json::error::Category::Eof => "unexpected end",
        _ => "not JSON",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}
