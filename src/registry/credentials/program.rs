//! The programs that keep secrets in a keychain.
//! See <https://github.com/docker/docker-credential-helpers#development>.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Output;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::file::describe;
use super::{Credential, CredentialsError};
use crate::registry::error::printable;

/// The user name that says that the secret is a refresh token.
const TOKEN_USER: &str = "<token>";

/// Runs credential helpers, which need the user's own ids and so run outside the builder's
/// user namespace.
pub trait HelperRunner: Send + Sync {
    /// Runs `program` (found through `PATH`) to its end.
    ///
    /// # Errors
    /// Where the program can't be run at all.
    fn run(&self, program: &str, args: &[&str], stdin: &[u8]) -> io::Result<Output>;
}

/// What `get` prints, and `store` reads.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Entry {
    #[serde(rename = "ServerURL")]
    server: String,
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// A helper that a file names.
pub(super) struct Helper<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its name there, which is the end of the program's name.
    pub name: &'a str,
    pub runner: &'a dyn HelperRunner,
}

impl Helper<'_> {
    /// Returns the credential of `server`, if the helper has one.
    pub fn get(&self, server: &str) -> Result<Option<Credential>, CredentialsError> {
        let Some(printed) = self.run("get", server.as_bytes())? else {
            return Ok(None);
        };
        let Entry {
            username, secret, ..
        } = self.parse(&printed)?;
        Ok(match username.as_str() {
            _ if secret.is_empty() => None,
            TOKEN_USER => Some(Credential::IdentityToken(secret)),
            _ => Some(Credential::Basic {
                username,
                password: secret,
            }),
        })
    }

    /// Gives a credential to the helper.
    pub fn store(
        &self,
        server: &str,
        username: &str,
        password: &str,
    ) -> Result<(), CredentialsError> {
        let entry = Entry {
            server: server.to_owned(),
            username: username.to_owned(),
            secret: password.to_owned(),
        };
        let entry = serde_json::to_vec(&entry).map_err(|e| self.failure(describe(&e)))?;
        self.run("store", &entry).map(drop)
    }

    /// Has the helper forget what it has for `server`.
    pub fn erase(&self, server: &str) -> Result<(), CredentialsError> {
        self.run("erase", server.as_bytes()).map(drop)
    }

    /// Returns the servers that the helper has something for.
    pub fn list(&self) -> Result<Vec<String>, CredentialsError> {
        let Some(printed) = self.run("list", b"")? else {
            return Ok(Vec::new());
        };
        let users: BTreeMap<String, String> = self.parse(&printed)?;
        Ok(users.into_keys().collect())
    }

    /// Runs an action; none is returned where the helper has nothing stored.
    fn run(&self, action: &str, stdin: &[u8]) -> Result<Option<Vec<u8>>, CredentialsError> {
        if self.name.contains(['/', '\0']) {
            return Err(self.failure("a helper's name has no slash".to_owned()));
        }
        let output = self
            .runner
            .run(&self.program(), &[action], stdin)
            .map_err(|e| self.failure(e.to_string()))?;
        if output.status.success() {
            return Ok(Some(output.stdout));
        }
        // The protocol has no code for "none stored": its standard text is the mark.
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let said = String::from_utf8_lossy(&said);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        Err(self.failure(format!("{}: {}", output.status, printable(&said))))
    }

    fn parse<T: DeserializeOwned>(&self, printed: &[u8]) -> Result<T, CredentialsError> {
        serde_json::from_slice(printed)
            .map_err(|e| self.failure(format!("its answer is malformed: {}", describe(&e))))
    }

    /// Returns the name of the program.
    pub fn program(&self) -> String {
        format!("docker-credential-{}", self.name)
    }

    fn failure(&self, problem: String) -> CredentialsError {
        CredentialsError::Helper {
            path: self.path.to_owned(),
            program: printable(&self.program()),
            problem,
        }
    }
}
