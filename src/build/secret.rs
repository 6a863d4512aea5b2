//! `--secret`: where the secrets of `RUN --mount=type=secret` come from.

use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::{Step, Trouble};
use crate::dockerfile::suggest;
use crate::fetch::Authorizations;

/// No secret is larger, in bytes.
const LIMIT: u64 = 500 << 10;

/// A secret that the caller gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// What mounts call it.
    pub id: String,
    source: SecretSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SecretSource {
    File(PathBuf),
    Variable(String),
}

/// A `--secret` or `--ssh` that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid {flag} {text:?}: {problem}")]
pub struct GivenError {
    /// The flag.
    pub flag: &'static str,
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
    /// How it is written instead.
    pub hint: &'static str,
}

impl GivenError {
    /// Returns how it is written.
    pub fn hint(&self) -> Option<String> {
        Some(self.hint.to_owned())
    }
}

impl FromStr for Secret {
    type Err = GivenError;

    /// Reads `id=X,src=FILE`, `id=X,env=VARIABLE`, `id=VARIABLE`, `id=FILE`.
    /// See <https://docs.docker.com/reference/cli/docker/buildx/build/#secret>.
    fn from_str(text: &str) -> Result<Secret, GivenError> {
        let error = |problem: String| GivenError {
            flag: "--secret",
            text: text.to_owned(),
            problem,
            hint: "it is id=NAME,src=FILE or id=NAME,env=VARIABLE",
        };
        let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
        for field in text.split(',') {
            let Some((key, value)) = field.split_once('=') else {
                return Err(error(format!("{field:?} has no value")));
            };
            let slot = match key.to_ascii_lowercase().as_str() {
                "id" => &mut id,
                "type" => &mut kind,
                "src" | "source" => &mut file,
                "env" => &mut variable,
                _ => return Err(error(format!("unknown key {key:?}"))),
            };
            *slot = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        let Some(id) = id else {
            return Err(error("it has no id".to_owned()));
        };
        match kind.as_deref() {
            None | Some("file") => {}
            Some("env") => variable = variable.or(file.take()).or(Some(id.clone())),
            Some(other) => return Err(error(format!("unknown type {other:?}"))),
        }
        let source = match (file, variable) {
            (Some(_), Some(_)) => return Err(error("it takes either src or env".to_owned())),
            (Some(file), None) => SecretSource::File(file.into()),
            (None, Some(variable)) => SecretSource::Variable(variable),
            (None, None) if kind.is_none() && std::env::var_os(&id).is_some() => {
                SecretSource::Variable(id.clone())
            }
            (None, None) => SecretSource::File(id.clone().into()),
        };
        Ok(Secret { id, source })
    }
}

/// A secret that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct SecretError {
    text: String,
    hint: String,
}

impl SecretError {
    /// Returns where it was given.
    pub fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}

impl From<SecretError> for Trouble {
    fn from(error: SecretError) -> Trouble {
        Trouble::hinted(error.text, error.hint)
    }
}

impl Secret {
    /// Reads the secret; nothing where the variable is not set.
    fn read(&self) -> Result<Option<Vec<u8>>, SecretError> {
        use std::os::unix::ffi::OsStringExt;
        let path = match &self.source {
            SecretSource::Variable(name) => {
                return Ok(std::env::var_os(name).map(OsStringExt::into_vec));
            }
            SecretSource::File(path) => path,
        };
        let unreadable = |why: &dyn std::fmt::Display| {
            let path = path.display();
            SecretError {
                text: format!("cannot read the secret {:?} from {path}: {why}", self.id),
                hint: format!("see --secret id={},src={path}", self.id),
            }
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
        let read = file.take(LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|e| unreadable(&e))?;
        if bytes.len() as u64 > LIMIT {
            return Err(unreadable(&format!("it has more than {LIMIT} bytes")));
        }
        Ok(Some(bytes))
    }
}

/// Returns what servers are told, of those secrets that are meant for them.
///
/// # Errors
/// Such a secret can't be read, or can't be sent.
pub fn authorizations(secrets: &[Secret]) -> Result<Authorizations, SecretError> {
    let mut all = Authorizations::default();
    for secret in secrets {
        if !Authorizations::is_meant(&secret.id) {
            continue;
        }
        let Some(value) = secret.read()? else {
            continue;
        };
        all.add(&secret.id, &value).map_err(|why| SecretError {
            text: format!("cannot send the secret {:?} to a server: {why}", secret.id),
            hint: format!("see --secret id={}", secret.id),
        })?;
    }
    Ok(all)
}

/// Returns the secret of an id; nothing where none was given and none is required.
pub(super) fn find(secrets: &[Secret], id: &str, required: bool) -> Step<Option<Vec<u8>>> {
    // The last one given counts.
    let given = secrets.iter().rfind(|secret| secret.id == id);
    let found = match given {
        Some(secret) => secret.read()?,
        None => None,
    };
    if found.is_some() || !required {
        return Ok(found);
    }
    let text = match given.map(|secret| &secret.source) {
        Some(SecretSource::Variable(name)) => {
            format!("the secret {id:?} is required, and its variable {name} is not set")
        }
        _ => format!("the secret {id:?} is required, and was not given"),
    };
    let hint = match suggest::closest(id, secrets.iter().map(|secret| secret.id.as_str())) {
        Some(near) if given.is_none() => {
            format!("a secret {near:?} was given: does the mount mean that?")
        }
        _ => format!("give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE"),
    };
    Err(Trouble::hinted(text, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(id: &str, path: &str) -> Secret {
        Secret {
            id: id.to_owned(),
            source: SecretSource::File(path.into()),
        }
    }

    fn variable(id: &str, name: &str) -> Secret {
        Secret {
            id: id.to_owned(),
            source: SecretSource::Variable(name.to_owned()),
        }
    }

    #[test]
    fn sources_of_secrets_as_docker_writes_them() {
        let cases = [
            ("id=a,src=/x", file("a", "/x")),
            ("id=a,source=/x", file("a", "/x")),
            ("type=file,id=a,src=/x", file("a", "/x")),
            ("id=a,env=V", variable("a", "V")),
            ("id=a,type=env", variable("a", "a")),
            ("id=a,type=env,src=V", variable("a", "V")),
            ("id=PATH", variable("PATH", "PATH")),
            ("id=PATH,type=file", file("PATH", "PATH")),
            (
                "id=no-such-variable",
                file("no-such-variable", "no-such-variable"),
            ),
            ("ID=a,SRC=b", file("a", "b")),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Secret>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, problem) in [
            ("src=/x", "it has no id"),
            ("id=", "it has no id"),
            ("a", "\"a\" has no value"),
            ("id=a,file=b", "unknown key \"file\""),
            ("id=a,type=x", "unknown type \"x\""),
            ("id=a,src=b,env=c", "it takes either src or env"),
        ] {
            assert_eq!(text.parse::<Secret>().unwrap_err().problem, problem);
        }
    }
}
