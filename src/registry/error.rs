//! What goes wrong between kiln and a registry, and what to do about it.

mod failure;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{CertificateError, CredentialsError, RegistriesError};
use crate::image::{Digest, ManifestError};

pub(super) use failure::{ContentError, Failure, Retry};

/// The longest text of a registry that is shown.
const LONGEST_SHOWN: usize = 300;

/// A failed operation on a registry: it names the registry, the repository and the object.
#[derive(Debug)]
pub struct RegistryError(Box<Context>);

#[derive(Debug)]
struct Context {
    registry: String,
    repository: String,
    object: String,
    reason: Reason,
    /// The mirrors that were asked in vain before.
    mirrors: Vec<RegistryError>,
}

impl RegistryError {
    pub(super) fn new(
        registry: &str,
        repository: &str,
        object: &str,
        reason: Reason,
    ) -> RegistryError {
        RegistryError(Box::new(Context {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            object: object.to_owned(),
            reason,
            mirrors: Vec::new(),
        }))
    }

    /// Adds what mirrors said before the origin failed too.
    pub(super) fn after(mut self, mirrors: Vec<RegistryError>) -> RegistryError {
        self.0.mirrors = mirrors;
        self
    }

    /// Returns the registry's name as written in references.
    pub fn registry(&self) -> &str {
        &self.0.registry
    }

    /// Returns the repository; empty where the registry as a whole was asked.
    pub fn repository(&self) -> &str {
        &self.0.repository
    }

    /// Returns what went wrong.
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// Returns the error of reading what was to be pushed, where it is that.
    ///
    /// # Errors
    /// This one, where it is something else.
    pub fn into_content(self) -> Result<io::Error, RegistryError> {
        match *self.0 {
            Context {
                reason: Reason::Content(error),
                ..
            } => Ok(error),
            context => Err(RegistryError(Box::new(context))),
        }
    }

    /// Returns the error of this type that an [`io::Error`] of a [`super::BlobReader`] carries.
    pub fn in_io_error(error: &io::Error) -> Option<&RegistryError> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns the remedy, where there is one.
    pub fn hint(&self) -> Option<String> {
        self.reason().hint(self.registry())
    }

    /// Wraps this error so that it passes through [`io::Read`].
    pub(super) fn into_io(self) -> io::Error {
        let kind = match self.reason() {
            Reason::WrongDigest { .. }
            | Reason::WrongSize { .. }
            | Reason::TooLong { .. }
            | Reason::Malformed(_) => io::ErrorKind::InvalidData,
            Reason::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.registry())?;
        if !self.repository().is_empty() {
            write!(f, "/{}", self.repository())?;
        }
        if !self.0.object.is_empty() {
            write!(f, ": {}", self.0.object)?;
        }
        write!(f, ": {}", self.reason())?;
        for mirror in &self.0.mirrors {
            let (registry, reason) = (mirror.registry(), mirror.reason());
            write!(f, "; its mirror {registry} before: {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(self.reason())
    }
}

/// Why there is no client: the user's settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The `registries.conf`.
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    /// The certificates.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
}

impl SetupError {
    /// Returns the remedy, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            SetupError::Credentials(error) => error.hint(),
            SetupError::Registries(error) => error.hint(),
            SetupError::Certificates(_) => None,
        }
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The registry wants to know who asks, or did not accept the answer.
    #[error("unauthorized: {answer}")]
    Unauthorized {
        /// Whether credentials were sent.
        with_credentials: bool,
        /// What the registry, or its token server, said.
        answer: ServerAnswer,
    },
    /// The server that gives tokens for the registry does not.
    #[error("the token server {host}: {reason}")]
    TokenServer {
        /// Where it is.
        host: String,
        /// What it does in their place.
        reason: Box<Reason>,
    },
    /// The registry knows who asks, and refuses.
    #[error("denied: {0}")]
    Denied(ServerAnswer),
    /// The repository exists, the tag does not.
    #[error("no such tag")]
    TagNotFound {
        /// Some tags that do exist.
        known: Vec<String>,
    },
    /// There is no such repository.
    #[error("no such repository")]
    RepositoryNotFound,
    /// There is no such blob, or no manifest of this digest.
    #[error("not found")]
    NotFound,
    /// The user or the system forbids to use it.
    #[error("{prefix} is blocked in {}", path.display())]
    Blocked {
        /// What is blocked.
        prefix: String,
        /// The `registries.conf`.
        path: PathBuf,
    },
    /// No connection came about.
    #[error("can't connect: {0}")]
    Unreachable(String),
    /// The connection, or the answers on it, ended early too often.
    #[error("the connection failed: {0}")]
    Interrupted(String),
    /// The certificate is not trusted.
    #[error("the certificate is not trusted: {0}")]
    Certificate(String),
    /// The server wants to see a certificate of the user.
    #[error("the registry asks for a client certificate")]
    ClientCertificate,
    /// A file in `certs.d` can't be used.
    #[error(transparent)]
    CertificateFile(#[from] CertificateError),
    /// The server does not speak TLS.
    #[error("the server does not speak HTTPS")]
    NotTls,
    /// The proxy failed, or its setting is no URL.
    #[error("proxy: {0}")]
    Proxy(String),
    /// The content is not what its address says.
    #[error("wrong digest: expected {expected}, got {actual}")]
    WrongDigest {
        /// The address.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The registry announces another size than the descriptor.
    #[error("wrong size: expected {expected} bytes, the registry offers {actual}")]
    WrongSize {
        /// The descriptor's size.
        expected: u64,
        /// The announced size.
        actual: u64,
    },
    /// The content ended early.
    #[error("truncated: expected {expected} bytes, got {received}")]
    Truncated {
        /// The descriptor's size.
        expected: u64,
        /// What came.
        received: u64,
    },
    /// The content goes on where it should end.
    #[error("more than the expected {expected} bytes came")]
    TooLong {
        /// The descriptor's size.
        expected: u64,
    },
    /// A document exceeds what kiln is willing to hold.
    #[error("larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Too many requests.
    #[error("too many requests: {answer}")]
    RateLimited {
        /// When to come back, where the registry says so.
        retry_after: Option<Duration>,
        /// What the registry said.
        answer: ServerAnswer,
    },
    /// Any other refusal.
    #[error("the registry answered {0}")]
    Server(ServerAnswer),
    /// A redirect that is not followed.
    #[error("refused to follow a redirect to {0}")]
    Redirect(String),
    /// An answer that breaks the protocol.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// A manifest that kiln can't use.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The index has no image for the platform.
    #[error("no image for platform {wanted}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The credentials could not be read.
    #[error("credentials")]
    Credentials(#[from] CredentialsError),
    /// What was to be pushed could not be read.
    #[error("reading the content to push")]
    Content(#[source] io::Error),
}

impl Reason {
    /// Returns the remedy, where there is one, for what `registry` answered.
    fn hint(&self, registry: &str) -> Option<String> {
        let log_in = || format!("log in: kiln login {registry}");
        match self {
            Reason::Unauthorized {
                with_credentials: true,
                ..
            } => Some(format!(
                "the credentials may be old or wrong, or lack the right; {}",
                log_in()
            )),
            Reason::Unauthorized { .. } => Some(format!(
                "the repository is private or does not exist; {}",
                log_in()
            )),
            Reason::Denied(_) => Some(format!(
                "use an account that has the right to this repository; {}",
                log_in()
            )),
            Reason::TagNotFound { known, .. } if !known.is_empty() => {
                Some(format!("tags that exist: {}", known.join(", ")))
            }
            Reason::TagNotFound { .. } => Some("the repository exists; check the tag".to_owned()),
            Reason::RepositoryNotFound => {
                Some("check the spelling, and that the repository exists".to_owned())
            }
            Reason::Blocked { path, .. } => Some(format!(
                "use another registry, or remove `blocked = true` from {}",
                path.display()
            )),
            Reason::Unreachable(_) => Some(format!(
                "check the name and port, and that {registry} can be reached from here \
                 (HTTP_PROXY, HTTPS_PROXY and NO_PROXY are respected)"
            )),
            Reason::Certificate(_) => Some(format!(
                "put the registry's CA into ~/.config/containers/certs.d/{registry}/ca.crt or \
                 among the system's certificates, or name it in SSL_CERT_FILE"
            )),
            Reason::ClientCertificate => Some(format!(
                "put yours into ~/.config/containers/certs.d/{registry}/client.cert, and its key \
                 beside it into client.key"
            )),
            Reason::CertificateFile(_) => Some("repair or remove the file".to_owned()),
            Reason::NotTls => Some(format!(
                "if {registry} is meant to speak plain HTTP, allow that with --insecure"
            )),
            Reason::NoPlatform { available, .. } => {
                Some(format!("platforms that exist: {}", available.join(", ")))
            }
            Reason::RateLimited {
                retry_after: Some(delay),
                ..
            } => Some(format!("try again in {} s", delay.as_secs())),
            Reason::RateLimited { .. } => Some(format!(
                "try again later, or for a higher limit {}",
                log_in()
            )),
            Reason::WrongDigest { .. } | Reason::WrongSize { .. } | Reason::TooLong { .. } => Some(
                "the registry or something on the way altered the content; nothing was stored"
                    .to_owned(),
            ),
            Reason::Truncated { .. } | Reason::Interrupted(_) => {
                Some("the connection is unstable; try again".to_owned())
            }
            Reason::Credentials(error) => error.hint(),
            Reason::Manifest(error) => error.hint(),
            Reason::TokenServer { host, reason } => reason.hint(host),
            Reason::Proxy(_) => Some("check HTTP_PROXY, HTTPS_PROXY and NO_PROXY".to_owned()),
            _ => None,
        }
    }
}

/// What a registry said when it refused.
/// See <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The error code, such as `MANIFEST_UNKNOWN`.
    pub code: Option<String>,
    /// The text for people, without control characters and of bounded length.
    pub message: Option<String>,
}

impl ServerAnswer {
    /// Reads the first error of a registry's or token server's error document.
    pub(super) fn parse(status: u16, body: &[u8]) -> ServerAnswer {
        let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let first = &document["errors"][0];
        let text = |value: &serde_json::Value| {
            let text = printable(value.as_str()?);
            (!text.is_empty()).then_some(text)
        };
        // Token servers answer {"details": "…"}, or {"error_description": "…"} as OAuth does.
        let message = [
            &first["message"],
            &document["details"],
            &document["error_description"],
            &document["message"],
        ];
        ServerAnswer {
            status,
            code: text(&first["code"]).or_else(|| text(&document["error"])),
            message: message.into_iter().find_map(text),
        }
    }
}

impl fmt::Display for ServerAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        Ok(())
    }
}

/// Makes foreign text fit for a terminal: one line, no control or direction-changing
/// characters, and not too long.
pub(super) fn printable(text: &str) -> String {
    let unsafe_here = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let shown: String = text
        .chars()
        .take(LONGEST_SHOWN)
        .map(|c| if unsafe_here(c) { ' ' } else { c })
        .collect();
    shown.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_words_are_shown_bounded_and_without_control_characters() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m\nway\u202e"}]}"#;
        let answer = ServerAnswer::parse(403, body);
        assert_eq!(answer.to_string(), "403 DENIED: no [31m way");
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(5000));
        assert_eq!(
            ServerAnswer::parse(500, long.as_bytes())
                .message
                .unwrap()
                .len(),
            LONGEST_SHOWN
        );
        for body in [&b"<html>"[..], b"[]", b"{\"errors\":{}}", b"", b"\xff"] {
            assert_eq!(ServerAnswer::parse(502, body).to_string(), "502");
        }
    }

    #[test]
    fn errors_name_registry_repository_and_remedy() {
        let error = RegistryError::new(
            "r.example",
            "a/b",
            "manifest latest",
            Reason::Unauthorized {
                with_credentials: false,
                answer: ServerAnswer::parse(401, b""),
            },
        );
        assert_eq!(
            error.to_string(),
            "r.example/a/b: manifest latest: unauthorized: 401"
        );
        assert!(
            error
                .hint()
                .unwrap()
                .ends_with("log in: kiln login r.example")
        );
    }
}
