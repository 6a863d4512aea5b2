//! Who the user is at a registry: docker's `config.json`, podman's `auth.json`, and the
//! credential helpers that they name.

mod file;
mod login;
mod program;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use file::ConfigFile;
pub use login::Kept;
pub use program::HelperRunner;

/// Credentials that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file that can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file that can't be written.
    #[error("can't write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// There is no place for a file.
    #[error("there is no place for credentials: HOME is not set")]
    NoFile,
    /// A file that does not parse.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A helper that can't be run, or fails.
    #[error("{program} (named in {}): {problem}", path.display())]
    Helper {
        /// The file that names it.
        path: PathBuf,
        /// The helper.
        program: String,
        /// What went wrong.
        problem: String,
    },
}

impl CredentialsError {
    /// Returns the remedy, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            CredentialsError::Read { .. } => None,
            CredentialsError::Write { .. } | CredentialsError::NoFile => {
                Some("name another file with --authfile".to_owned())
            }
            CredentialsError::Malformed { path, .. } => Some(format!(
                "repair {}, or remove it and log in again",
                path.display()
            )),
            CredentialsError::Helper { path, program, .. } => Some(format!(
                "install {program}, or remove it from credsStore or credHelpers in {}",
                path.display()
            )),
        }
    }
}

/// What proves to a registry who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A refresh token for the token server.
    IdentityToken(String),
    /// A bearer token for the registry itself.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    /// Writes the kind and the user, never a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Basic { username, .. } => write!(f, "Basic({username:?})"),
            Credential::IdentityToken(_) => f.write_str("IdentityToken"),
            Credential::RegistryToken(_) => f.write_str("RegistryToken"),
        }
    }
}

/// Where to look for credentials: the environment and home of the user.
#[derive(Clone, Debug, Default)]
pub struct CredentialPaths {
    /// `$DOCKER_CONFIG`, a directory.
    pub docker_config: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$REGISTRY_AUTH_FILE`.
    pub registry_auth_file: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
}

impl CredentialPaths {
    /// Reads the variables of the process.
    pub fn from_environment() -> CredentialPaths {
        let path = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        CredentialPaths {
            docker_config: path("DOCKER_CONFIG"),
            home: path("HOME"),
            registry_auth_file: path("REGISTRY_AUTH_FILE"),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
        }
    }

    /// Returns the paths of a file that was named on the command line, and of no other.
    pub fn only(file: PathBuf) -> CredentialPaths {
        CredentialPaths {
            registry_auth_file: Some(file),
            ..CredentialPaths::default()
        }
    }

    /// Returns the files in order: the one that was named, docker's, podman's.
    fn files(&self) -> Vec<PathBuf> {
        let below = |root: &Option<PathBuf>, rest: &str| root.as_ref().map(|p| p.join(rest));
        let docker = below(&self.docker_config, "config.json")
            .or_else(|| below(&self.home, ".docker/config.json"));
        let mut files = vec![self.registry_auth_file.clone(), docker];
        if self.registry_auth_file.is_none() {
            files.push(below(&self.xdg_runtime_dir, "containers/auth.json"));
            files.push(below(&self.home, ".config/containers/auth.json"));
        }
        files.into_iter().flatten().collect()
    }
}

/// The credentials of one user. Files are read once; helpers run when a registry asks.
#[derive(Clone, Default)]
pub struct Credentials {
    files: Vec<ConfigFile>,
    runner: Option<Arc<dyn HelperRunner>>,
    fixed: BTreeMap<String, Credential>,
}

impl Credentials {
    /// Returns no credentials at all.
    pub fn anonymous() -> Credentials {
        Credentials::default()
    }

    /// Reads the files that exist among those that `paths` leads to.
    ///
    /// # Errors
    /// Where one exists but can't be read or parsed.
    pub fn load(paths: &CredentialPaths) -> Result<Credentials, CredentialsError> {
        let files = paths.files().into_iter().map(ConfigFile::read);
        let files: Result<Vec<_>, _> = files.filter_map(Result::transpose).collect();
        Ok(Credentials {
            files: files?,
            ..Credentials::default()
        })
    }

    /// Sets who runs credential helpers. Without one, helpers are passed over.
    pub fn with_helpers(mut self, runner: Arc<dyn HelperRunner>) -> Credentials {
        self.runner = Some(runner);
        self
    }

    /// Sets the credential of `registry`, ahead of all files.
    pub fn with(mut self, registry: &str, credential: Credential) -> Credentials {
        self.fixed.insert(registry.to_owned(), credential);
        self
    }

    /// Returns the credential for a repository, from the first file that has one.
    ///
    /// # Errors
    /// Where an entry is malformed or a helper fails.
    pub fn get(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialsError> {
        if let Some(credential) = self.fixed.get(registry) {
            return Ok(Some(credential.clone()));
        }
        for file in &self.files {
            let helper = self
                .runner
                .as_ref()
                .and_then(|runner| file.helper(registry, runner.as_ref()));
            let helped = match helper {
                Some((helper, server)) => helper.get(server)?,
                None => None,
            };
            let found = match helped {
                Some(credential) => Some(credential),
                None => file.find(registry, repository)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}
