//! URLs that belong to no registry: read through the same proxies, with the same roots of
//! trust, retries and redirects, and without any registry's credentials.

use std::fmt;
use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::BodyReader;
use ureq::http::{HeaderName, Method, StatusCode, Uri, header};

use super::certificates::CertificateDirectories;
use super::endpoint::parse_url;
use super::error::{Failure, Reason, Retry, printable};
use super::proxy::Proxies;
use super::retry::{Backoff, RetryPolicy};
use super::transport::{Payload, Timeouts, Transport, header_text, refuse_passing_statuses};

/// The longest value of a header that is kept.
const LONGEST_HEADER: usize = 1024;

/// Reads URLs.
pub struct Web {
    transport: Transport,
    retry: RetryPolicy,
}

/// What tells one state of a resource from another.
/// See <https://www.rfc-editor.org/rfc/rfc9110#section-8.8>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
}

/// An answer whose body is still to be read.
pub struct WebAnswer {
    /// What tells whether it is still the same later.
    pub validators: Validators,
    /// The announced length of the body.
    pub length: Option<u64>,
    /// The body; nothing where what the caller has is still valid.
    pub body: Option<WebBody>,
}

/// The body of an answer.
pub struct WebBody(BodyReader<'static>);

impl Read for WebBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .read(buffer)
            .map_err(|error| io::Error::other(Broken(Failure::from_io(error))))
    }
}

/// Marks the errors of the connection among those of whoever reads a body.
#[derive(Debug)]
struct Broken(Failure);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.reason.fmt(f)
    }
}

impl std::error::Error for Broken {}

/// Why a URL could not be read. It names the URL, without a password.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch {url}: {reason}")]
pub struct WebError {
    url: String,
    reason: WebReason,
}

#[derive(Debug, thiserror::Error)]
enum WebReason {
    #[error("this is no URL that can be fetched")]
    Unusable,
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Exchange(Reason),
    #[error("{0}")]
    Local(io::Error),
}

impl WebError {
    /// Returns the remedy, where there is one.
    pub fn hint(&self) -> Option<String> {
        let text = match &self.reason {
            WebReason::Unusable => "write it as https://HOST/PATH",
            WebReason::Status(StatusCode::NOT_FOUND | StatusCode::GONE) => {
                "check the spelling: the server has nothing there"
            }
            WebReason::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                "the server wants to know who asks: give a token with --secret \
                 id=HTTP_AUTH_TOKEN_HOST,env=VARIABLE"
            }
            WebReason::Status(status) if status.is_server_error() => {
                "the server has a problem of its own: try again later"
            }
            WebReason::Status(_) => return None,
            WebReason::Exchange(Reason::Unreachable(_)) => {
                "check the name and port, and that it can be reached from here (HTTP_PROXY, \
                 HTTPS_PROXY and NO_PROXY are respected)"
            }
            WebReason::Exchange(Reason::Certificate(_)) => {
                "add the server's CA to the system's certificates, or name it in SSL_CERT_FILE"
            }
            WebReason::Exchange(Reason::NotTls) => "the server speaks plain HTTP: write http://",
            WebReason::Exchange(Reason::Interrupted(_)) => "the connection is unstable: try again",
            WebReason::Exchange(Reason::RateLimited { .. }) => "try again later",
            WebReason::Exchange(Reason::Proxy(_)) => "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
            WebReason::Exchange(_) => return None,
            WebReason::Local(_) => return None,
        };
        Some(text.to_owned())
    }

    /// Returns the error of whoever read the body, where it was that one.
    pub fn local(&self) -> Option<&io::Error> {
        match &self.reason {
            WebReason::Local(error) => Some(error),
            _ => None,
        }
    }
}

/// Returns a URL as it may be shown: without user name and password.
pub fn shown_url(url: &str) -> String {
    let shown = match split_user(url) {
        Some((scheme, _, rest)) => format!("{scheme}{rest}"),
        None => url.to_owned(),
    };
    printable(&shown)
}

/// Splits a URL with a user name into what stands before it, the user, and the rest.
fn split_user(url: &str) -> Option<(&str, &str, &str)> {
    let start = url.find("://")? + 3;
    let end = url[start..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| start + at);
    let at = start + url[start..end].rfind('@')?;
    Some((&url[..start], &url[start..at], &url[at + 1..]))
}

/// Writes what may not stand in a URL as people write it.
fn escaped(url: &str) -> String {
    let mut escaped = String::with_capacity(url.len());
    for byte in url.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"<>\\^`{|}".contains(&byte) => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Undoes percent-encoding; what is no code stays.
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    decoded
}

impl Web {
    /// Returns a reader of URLs behind the proxies of the environment.
    pub fn new() -> Web {
        let proxies = Proxies::from_environment(|name| std::env::var(name).ok());
        Web {
            transport: Transport::new(
                proxies,
                CertificateDirectories::default(),
                false,
                Timeouts::default(),
            ),
            retry: RetryPolicy::default(),
        }
    }

    /// Gets a URL, unless it is still what `known` says, and hands the answer to `take`. That
    /// is called again, with a new answer, where the connection breaks while it reads. The
    /// server, and no other that it may lead to, gets the `authorization`, unless the URL has
    /// a user.
    ///
    /// # Errors
    /// See [`WebError`]; an error of `take` that is not the connection's ends it.
    pub fn get<T>(
        &self,
        url: &str,
        authorization: Option<String>,
        known: &Validators,
        mut take: impl FnMut(WebAnswer) -> io::Result<T>,
    ) -> Result<T, WebError> {
        let error = |reason| WebError {
            url: shown_url(url),
            reason,
        };
        let bare = url.split('#').next().unwrap_or(url);
        let (bare, authorization) = match split_user(bare) {
            Some((scheme, user, rest)) => {
                let user = if user.contains(':') {
                    user.to_owned()
                } else {
                    format!("{user}:")
                };
                let encoded = STANDARD.encode(percent_decoded(&user));
                (format!("{scheme}{rest}"), Some(format!("Basic {encoded}")))
            }
            None => (bare.to_owned(), authorization),
        };
        let uri = parse_url(&escaped(&bare)).ok_or_else(|| error(WebReason::Unusable))?;
        let mut headers: Vec<(HeaderName, String)> = Vec::new();
        let conditions = [
            (header::IF_NONE_MATCH, &known.etag),
            (header::IF_MODIFIED_SINCE, &known.last_modified),
        ];
        for (name, value) in conditions {
            headers.extend(value.clone().map(|value| (name, value)));
        }
        let mut backoff = Backoff::new(self.retry);
        loop {
            let failure = match self.attempt(&uri, &headers, authorization.as_deref()) {
                Ok(Ok(answer)) => match take(answer) {
                    Ok(value) => return Ok(value),
                    Err(failed) => match failed.downcast::<Broken>() {
                        Ok(Broken(failure)) => failure,
                        Err(failed) => return Err(error(WebReason::Local(failed))),
                    },
                },
                Ok(Err(status)) => return Err(error(WebReason::Status(status))),
                Err(failure) => failure,
            };
            let again = match failure.retry {
                Retry::After(delay) => backoff.wait(delay),
                Retry::No => false,
            };
            if !again {
                return Err(error(match failure.reason {
                    Reason::Server(answer) => match StatusCode::from_u16(answer.status) {
                        Ok(status) => WebReason::Status(status),
                        Err(_) => WebReason::Exchange(Reason::Server(answer)),
                    },
                    reason => WebReason::Exchange(reason),
                }));
            }
        }
    }

    fn attempt(
        &self,
        uri: &Uri,
        headers: &[(HeaderName, String)],
        authorization: Option<&str>,
    ) -> Result<Result<WebAnswer, StatusCode>, Failure> {
        let (response, _) = self.transport.follow(
            &Method::GET,
            uri.clone(),
            headers,
            authorization,
            &mut Payload::Empty,
        )?;
        let response = refuse_passing_statuses(response)?;
        let text =
            |name| header_text(&response, name).filter(|value| value.len() <= LONGEST_HEADER);
        let validators = Validators {
            etag: text(header::ETAG),
            last_modified: text(header::LAST_MODIFIED),
        };
        let length = text(header::CONTENT_LENGTH).and_then(|value| value.parse().ok());
        Ok(match response.status() {
            StatusCode::OK => Ok(WebAnswer {
                validators,
                length,
                body: Some(WebBody(response.into_body().into_reader())),
            }),
            StatusCode::NOT_MODIFIED if !headers.is_empty() => Ok(WebAnswer {
                validators,
                length: None,
                body: None,
            }),
            status => Err(status),
        })
    }
}

impl Default for Web {
    fn default() -> Web {
        Web::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        assert_eq!(
            shown_url("https://me:p@ss@h.example/x@y"),
            "https://h.example/x@y"
        );
        assert_eq!(shown_url("http://h.example/a@b"), "http://h.example/a@b");
        assert_eq!(
            shown_url("http://h.example?q=a@b"),
            "http://h.example?q=a@b"
        );
    }

    #[test]
    fn urls_are_taken_as_people_write_them() {
        assert_eq!(
            escaped("http://h/a b/é?x=%20#"),
            "http://h/a%20b/%C3%A9?x=%20#"
        );
        assert_eq!(percent_decoded("a%20b%2"), b"a b%2");
        assert_eq!(percent_decoded("%zz%C3%A9"), "%zzé".as_bytes());
    }
}
