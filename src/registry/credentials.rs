//! Who the user is at a registry: docker's `config.json`, podman's `auth.json`, and the
//! credential helpers that they name.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::error::printable;

/// The largest file of credentials that is read.
const LARGEST_FILE: u64 = 4 << 20;

/// The key under which docker keeps the credentials of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Runs credential helpers, which need the user's own ids and so run outside the builder's
/// user namespace.
pub trait HelperRunner: Send + Sync {
    /// Runs `program` (found through `PATH`) to its end.
    ///
    /// # Errors
    /// Where the program can't be run at all.
    fn run(&self, program: &str, args: &[&str], stdin: &[u8]) -> io::Result<Output>;
}

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
            CredentialsError::Malformed { path, .. } => Some(format!(
                "repair {}, or log in again to have it written anew",
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

    /// Returns the files in order: docker's, then podman's.
    fn files(&self) -> Vec<PathBuf> {
        let below = |root: &Option<PathBuf>, rest: &str| root.as_ref().map(|p| p.join(rest));
        let docker = below(&self.docker_config, "config.json")
            .or_else(|| below(&self.home, ".docker/config.json"));
        let podman = match &self.registry_auth_file {
            Some(file) => vec![Some(file.clone())],
            None => vec![
                below(&self.xdg_runtime_dir, "containers/auth.json"),
                below(&self.home, ".config/containers/auth.json"),
            ],
        };
        std::iter::once(docker).chain(podman).flatten().collect()
    }
}

/// The credentials of one user. Files are read once; helpers run when a registry asks.
#[derive(Clone, Default)]
pub struct Credentials {
    files: Vec<ConfigFile>,
    runner: Option<Arc<dyn HelperRunner>>,
    fixed: BTreeMap<String, Credential>,
}

/// A file in the format that docker and podman share.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
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

/// What `docker-credential-* get` prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
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
            let helped = match &self.runner {
                Some(runner) => file.ask_helper(runner.as_ref(), registry)?,
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

impl ConfigFile {
    fn read(path: PathBuf) -> Result<Option<ConfigFile>, CredentialsError> {
        let malformed = |problem: String| CredentialsError::Malformed {
            path: path.clone(),
            problem,
        };
        let mut text = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut text));
        match read {
            Ok(_) if text.len() as u64 > LARGEST_FILE => {
                return Err(malformed(format!("larger than {LARGEST_FILE} bytes")));
            }
            Ok(_) => {}
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(CredentialsError::Read { path, error }),
        }
        // An empty file is what `touch` and some installers leave.
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        let mut file: ConfigFile =
            serde_json::from_slice(&text).map_err(|e| malformed(describe(&e)))?;
        file.path = path;
        Ok(Some(file))
    }

    /// Returns the stored entry with the most specific key.
    fn find(
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

    fn ask_helper(
        &self,
        runner: &dyn HelperRunner,
        registry: &str,
    ) -> Result<Option<Credential>, CredentialsError> {
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
        let (server, helper) = named.unwrap_or((server, &self.creds_store));
        if helper.is_empty() {
            return Ok(None);
        }
        let program = format!("docker-credential-{helper}");
        let fail = |problem: String| CredentialsError::Helper {
            path: self.path.clone(),
            program: printable(&program),
            problem,
        };
        if helper.contains(['/', '\0']) {
            return Err(fail("a helper's name has no slash".to_owned()));
        }
        let output = runner
            .run(&program, &["get"], server.as_bytes())
            .map_err(|e| fail(e.to_string()))?;
        if !output.status.success() {
            // The protocol has no code for "none stored": its standard text is the mark.
            let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
            let said = String::from_utf8_lossy(&said);
            if said.contains("credentials not found") {
                return Ok(None);
            }
            return Err(fail(format!("{}: {}", output.status, printable(&said))));
        }
        let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
            .map_err(|e| fail(format!("its answer is malformed: {}", describe(&e))))?;
        Ok(match (answer.username.as_str(), answer.secret) {
            (_, secret) if secret.is_empty() => None,
            ("<token>", secret) => Some(Credential::IdentityToken(secret)),
            (username, password) => Some(Credential::Basic {
                username: username.to_owned(),
                password,
            }),
        })
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
fn match_key(key: &str, registry: &str, repository: &str) -> Option<usize> {
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

fn is_docker_hub(host: &str) -> bool {
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
fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "unexpected kind of value",
        serde_json::error::Category::Eof => "unexpected end",
        _ => "not JSON",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::sync::Mutex;

    fn load(docker: &str) -> Result<Credentials, CredentialsError> {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), ".docker/config.json", docker);
        Credentials::load(&CredentialPaths {
            home: Some(home.path().to_owned()),
            ..CredentialPaths::default()
        })
    }

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn basic(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        })
    }

    #[test]
    fn docker_hub_has_several_names() {
        // me:pw
        let credentials =
            load(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cHc="}}}"#).unwrap();
        assert_eq!(
            credentials.get("docker.io", "library/x").unwrap(),
            basic("me", "pw")
        );
        assert_eq!(credentials.get("r.example", "x").unwrap(), None);
    }

    #[test]
    fn keys_are_hosts_urls_or_namespaces() {
        let credentials = load(
            r#"{"auths":{
                "https://url.example/v2/": {"username":"url","password":"1"},
                "r.example": {"username":"host","password":"2"},
                "r.example/team": {"username":"team","password":"3"},
                "r.example/team/app": {"username":"app","password":"4"},
                "port.example:5000": {"auth":"bWU6YTpi"}
            }}"#,
        )
        .unwrap();
        for (registry, repository, expected) in [
            ("url.example", "any", basic("url", "1")),
            ("r.example", "other", basic("host", "2")),
            ("r.example", "teams/x", basic("host", "2")),
            ("r.example", "team/x", basic("team", "3")),
            ("r.example", "team/app", basic("app", "4")),
            ("port.example:5000", "x", basic("me", "a:b")),
            ("port.example", "x", None),
        ] {
            let found = credentials.get(registry, repository).unwrap();
            assert_eq!(found, expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn tokens_are_told_apart_and_secrets_stay_out_of_debug_output() {
        let credentials = load(
            r#"{"auths":{
                "a": {"auth":"PHRva2VuPjo=","identitytoken":"refresh"},
                "b": {"registrytoken":"bearer"},
                "c": {}
            }}"#,
        )
        .unwrap();
        let get = |registry| credentials.get(registry, "x").unwrap();
        assert_eq!(get("a"), Some(Credential::IdentityToken("refresh".into())));
        assert_eq!(get("b"), Some(Credential::RegistryToken("bearer".into())));
        assert_eq!(get("c"), None);
        assert!(!format!("{:?}{:?}", get("a"), basic("u", "secret")).contains("secret"));
    }

    #[test]
    fn podmans_file_is_the_fallback() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path();
        write(
            root,
            "docker/config.json",
            r#"{"auths":{"a":{"auth":"ZDox"}}}"#,
        );
        let podman = r#"{"auths":{"a":{"auth":"cDox"},"b":{"auth":"cDox"}}}"#;
        write(root, "run/containers/auth.json", podman);
        write(root, "explicit.json", r#"{"auths":{"b":{"auth":"ZTox"}}}"#);
        let mut paths = CredentialPaths {
            docker_config: Some(root.join("docker")),
            xdg_runtime_dir: Some(root.join("run")),
            ..CredentialPaths::default()
        };
        let credentials = Credentials::load(&paths).unwrap();
        assert_eq!(credentials.get("a", "x").unwrap(), basic("d", "1"));
        assert_eq!(credentials.get("b", "x").unwrap(), basic("p", "1"));
        paths.registry_auth_file = Some(root.join("explicit.json"));
        let credentials = Credentials::load(&paths).unwrap();
        assert_eq!(credentials.get("b", "x").unwrap(), basic("e", "1"));
    }

    #[test]
    fn files_that_do_not_exist_are_no_error() {
        let credentials = Credentials::load(&CredentialPaths {
            docker_config: Some("/nonexistent/kiln".into()),
            home: Some("/dev/null".into()),
            ..CredentialPaths::default()
        });
        assert_eq!(credentials.unwrap().get("a", "x").unwrap(), None);
        assert!(load("").unwrap().get("a", "x").unwrap().is_none());
    }

    #[test]
    fn a_malformed_file_is_named_and_not_quoted() {
        for (text, place) in [
            ("{", "line 1"),
            (r#"{"auths":{"a":{"auth":["hunter2"]}}}"#, "line 1"),
            (r#"{"auths":"hunter2"}"#, "unexpected kind"),
        ] {
            let error = load(text).err().unwrap();
            let shown = error.to_string();
            assert!(
                shown.contains("config.json") && shown.contains(place),
                "{shown}"
            );
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(error.hint().is_some());
        }
        let credentials = load(r#"{"auths":{"a":{"auth":"!!"}}}"#).unwrap();
        let shown = credentials.get("a", "x").unwrap_err().to_string();
        assert!(shown.contains("not base64"), "{shown}");
    }

    /// Answers as helpers do, and records what it was asked.
    #[derive(Default)]
    struct Helpers(Mutex<Vec<String>>);

    impl HelperRunner for Helpers {
        fn run(&self, program: &str, args: &[&str], stdin: &[u8]) -> io::Result<Output> {
            let server = String::from_utf8(stdin.to_vec()).unwrap();
            self.0
                .lock()
                .unwrap()
                .push(format!("{program} {} {server}", args.join(" ")));
            let (code, stdout) = match server.as_str() {
                "token.example" => (0, r#"{"Username":"<token>","Secret":"refresh"}"#),
                "none.example" => (1, "credentials not found in native keychain\n"),
                "broken.example" => (2, "the keychain is locked\n"),
                "missing.example" => return Err(io::ErrorKind::NotFound.into()),
                _ => (0, r#"{"ServerURL":"x","Username":"me","Secret":"pw"}"#),
            };
            Ok(Output {
                status: ExitStatus::from_raw(code << 8),
                stdout: stdout.into(),
                stderr: Vec::new(),
            })
        }
    }

    #[test]
    fn helpers_are_asked_by_the_names_that_the_file_gives() {
        let helpers = Arc::new(Helpers::default());
        let credentials = load(
            r#"{"credsStore":"all","credHelpers":{"one.example":"one"},
                "auths":{"none.example":{"auth":"bWU6ZmlsZQ=="}}}"#,
        )
        .unwrap()
        .with_helpers(helpers.clone());
        let get = |registry| credentials.get(registry, "x");
        assert_eq!(get("one.example").unwrap(), basic("me", "pw"));
        assert_eq!(get("docker.io").unwrap(), basic("me", "pw"));
        assert_eq!(get("none.example").unwrap(), basic("me", "file"));
        let token = Credential::IdentityToken("refresh".to_owned());
        assert_eq!(get("token.example").unwrap(), Some(token));
        assert_eq!(
            *helpers.0.lock().unwrap(),
            [
                "docker-credential-one get one.example",
                "docker-credential-all get https://index.docker.io/v1/",
                "docker-credential-all get none.example",
                "docker-credential-all get token.example",
            ]
        );
        for (registry, problem) in [
            ("broken.example", "the keychain is locked"),
            ("missing.example", "entity not found"),
        ] {
            let error = get(registry).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
            assert!(error.hint().unwrap().contains("docker-credential-all"));
        }
    }

    #[test]
    fn a_helper_is_no_path() {
        let credentials = load(r#"{"credsStore":"../../bin/sh"}"#)
            .unwrap()
            .with_helpers(Arc::new(Helpers::default()));
        assert!(credentials.get("a", "x").is_err());
    }
}
