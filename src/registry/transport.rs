//! One HTTP exchange: agents by proxy, redirects followed by hand, bounded documents.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use ureq::http::{HeaderName, Method, Request, Response, StatusCode, Uri, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, Proxy, ProxyProtocol, SendBody};

use super::certificates::{CertificateDirectories, HostCertificates};
use super::client::Progress;
use super::endpoint::{join, same_origin};
use super::error::{ContentError, Failure, Reason, Retry, ServerAnswer, printable};
use super::proxy::Proxies;
use super::retry::parse_retry_after;

/// Hops after which a chain of redirects is taken for a loop.
const LONGEST_CHAIN: usize = 5;

/// The largest error document that is read.
const LARGEST_ERROR: u64 = 64 << 10;

/// How long silence is borne. Nothing limits the whole of an exchange: a large blob over a
/// slow line is no error.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection to come about, TLS included.
    pub connect: Duration,
    /// Between two arrivals of data, and for the first of an answer.
    pub silence: Duration,
    /// For the answer to an upload, which the registry may have to copy first.
    pub upload_answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            upload_answer: Duration::from_secs(600),
        }
    }
}

/// What a request carries. A stream is opened anew for each time that it is sent; one without
/// a size goes in chunks.
pub(super) enum Payload<'a> {
    Empty,
    Bytes(&'a [u8]),
    Stream {
        size: Option<u64>,
        open: &'a mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
        progress: Option<&'a Progress>,
    },
}

/// Sends requests. Connections are kept, and shared by threads.
pub(super) struct Transport {
    /// One agent per proxy and directory of certificates: their TLS set-up is dear, and
    /// per-request settings would redo it.
    agents: Mutex<HashMap<Route, Agent>>,
    proxies: Proxies,
    certificates: CertificateDirectories,
    insecure: bool,
    timeouts: Timeouts,
}

/// What tells one agent from another.
#[derive(PartialEq, Eq, Hash)]
struct Route {
    proxy: Option<String>,
    /// The directory of certificates.
    directory: Option<PathBuf>,
}

impl Transport {
    pub fn new(
        proxies: Proxies,
        certificates: CertificateDirectories,
        insecure: bool,
        timeouts: Timeouts,
    ) -> Transport {
        Transport {
            agents: Mutex::default(),
            proxies,
            certificates,
            insecure,
            timeouts,
        }
    }

    /// Sends a request and follows redirects; returns the answer and the URL that gave it.
    ///
    /// `authorization` goes to the origin of `url` and nowhere else: where a redirect leads
    /// away it is left behind.
    pub fn follow(
        &self,
        method: &Method,
        url: Uri,
        headers: &[(HeaderName, String)],
        authorization: Option<&str>,
        payload: &mut Payload<'_>,
    ) -> Result<(Response<Body>, Uri), Failure> {
        let mut current = url.clone();
        for _ in 0..=LONGEST_CHAIN {
            let authorization = authorization.filter(|_| same_origin(&url, &current));
            let response = self.exchange(method, &current, headers, authorization, payload)?;
            let repeatable = *method == Method::GET || *method == Method::HEAD;
            let is_redirect = match response.status() {
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
                // For other methods these mean to go on with GET, which no upload wants.
                StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
                    repeatable
                }
                _ => false,
            };
            if !is_redirect {
                return Ok((response, current));
            }
            let location = header_text(&response, header::LOCATION).unwrap_or_default();
            current = next_hop(&current, &location)?;
        }
        let shown = printable(current.path());
        Err(Reason::Redirect(format!("{shown} (the chain is too long)")).into())
    }

    /// Sends one request and returns its answer, whatever its status.
    pub fn exchange(
        &self,
        method: &Method,
        url: &Uri,
        headers: &[(HeaderName, String)],
        authorization: Option<&str>,
        payload: &mut Payload<'_>,
    ) -> Result<Response<Body>, Failure> {
        let agent = self.agent(url)?;
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let malformed = |e: ureq::http::Error| Failure::from(Reason::Malformed(e.to_string()));
        let result = match payload {
            Payload::Empty => {
                if *method == Method::POST || *method == Method::PUT {
                    request = request.header(header::CONTENT_LENGTH, 0);
                }
                agent.run(request.body(()).map_err(malformed)?)
            }
            Payload::Bytes(bytes) => agent.run(request.body(*bytes).map_err(malformed)?),
            Payload::Stream {
                size,
                open,
                progress,
            } => {
                let content = open().map_err(|e| Failure::from(Reason::Content(e)))?;
                let mut content = ExactReader::new(content, *size, *progress);
                if let Some(size) = size {
                    request = request.header(header::CONTENT_LENGTH, *size);
                }
                let request = request
                    .body(SendBody::from_reader(&mut content))
                    .map_err(malformed)?;
                let request = agent
                    .configure_request(request)
                    .timeout_per_read(Some(self.timeouts.upload_answer))
                    .build();
                agent.run(request)
            }
        };
        result.map_err(Failure::from_ureq)
    }

    fn agent(&self, url: &Uri) -> Result<Agent, Failure> {
        let proxy = self.proxies.choose(url).map(str::to_owned);
        let authority = url
            .authority()
            .filter(|_| url.scheme_str() == Some("https"));
        let directory = authority.and_then(|a| self.certificates.directory(a.as_str()));
        let route = Route { proxy, directory };
        let mut agents = super::client::lock(&self.agents);
        if let Some(agent) = agents.get(&route) {
            return Ok(agent.clone());
        }
        let invalid = |why: &str| Failure::from(Reason::Proxy(why.to_owned()));
        let settings = match &route.proxy {
            None => None,
            Some(text) => {
                let settings =
                    Proxy::new(text).map_err(|_| invalid("the setting is no URL of a proxy"))?;
                if !matches!(
                    settings.protocol(),
                    ProxyProtocol::Http | ProxyProtocol::Https
                ) {
                    return Err(invalid("only HTTP and HTTPS proxies are supported"));
                }
                Some(settings)
            }
        };
        let certificates = match &route.directory {
            None => HostCertificates::default(),
            Some(directory) => HostCertificates::read(directory).map_err(Reason::from)?,
        };
        let tls = TlsConfig::builder()
            .root_certs(certificates.roots())
            .client_cert(certificates.client)
            .disable_verification(self.insecure)
            .build();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            // A digest covers the bytes as stored: nothing may be compressed on the way.
            .accept_encoding("identity")
            .proxy(settings)
            .tls_config(tls)
            .max_idle_connections_per_host(8)
            .timeout_connect(Some(self.timeouts.connect))
            .timeout_per_read(Some(self.timeouts.silence))
            .timeout_per_write(Some(self.timeouts.silence))
            .build()
            .new_agent();
        agents.insert(route, agent.clone());
        Ok(agent)
    }
}

/// Returns where a redirect leads. From HTTPS none leads to HTTP.
pub(super) fn next_hop(current: &Uri, location: &str) -> Result<Uri, Failure> {
    let next = join(current, location);
    let encrypted = |url: &Uri| url.scheme_str() == Some("https");
    next.filter(|next| encrypted(next) || !encrypted(current))
        .ok_or_else(|| {
            // Queries of such URLs often carry a signature: nothing for a log.
            let shown = location.split('?').next().unwrap_or_default();
            Reason::Redirect(printable(shown)).into()
        })
}

/// Returns the value of a header, where it is there and is text.
pub(super) fn header_text(response: &Response<Body>, name: HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Reads a whole document of at most `limit` bytes.
pub(super) fn read_document(response: Response<Body>, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut reader = response.into_body().into_reader().take(limit + 1);
    reader.read_to_end(&mut bytes).map_err(Failure::from_io)?;
    if bytes.len() as u64 > limit {
        return Err(Reason::TooLarge { limit }.into());
    }
    Ok(bytes)
}

/// Reads what a registry says in a refusal. That nothing could be read is no error.
pub(super) fn read_answer(response: Response<Body>) -> ServerAnswer {
    let status = response.status().as_u16();
    let body = read_document(response, LARGEST_ERROR).unwrap_or_default();
    ServerAnswer::parse(status, &body)
}

/// Makes a failure of statuses that may pass by themselves; other answers are returned.
pub(super) fn refuse_passing_statuses(response: Response<Body>) -> Result<Response<Body>, Failure> {
    let limited = match response.status().as_u16() {
        429 => true,
        500 | 502 | 503 | 504 => false,
        _ => return Ok(response),
    };
    let retry_after = header_text(&response, header::RETRY_AFTER)
        .and_then(|value| parse_retry_after(&value, std::time::SystemTime::now()));
    let answer = read_answer(response);
    Err(Failure {
        reason: if limited {
            Reason::RateLimited {
                retry_after,
                answer,
            }
        } else {
            Reason::Server(answer)
        },
        retry: Retry::After(retry_after),
    })
}

/// Reads exactly as many bytes as were announced, if any were; a source with fewer or more is an error,
/// since the HTTP client would wait for ever or send another blob than was named.
struct ExactReader<'a> {
    source: Box<dyn Read + Send>,
    sent: u64,
    size: Option<u64>,
    progress: Option<&'a Progress>,
}

impl<'a> ExactReader<'a> {
    fn new(
        source: Box<dyn Read + Send>,
        size: Option<u64>,
        progress: Option<&'a Progress>,
    ) -> ExactReader<'a> {
        ExactReader {
            source,
            sent: 0,
            size,
            progress,
        }
    }

    fn read_source(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|e| io::Error::other(ContentError(e))),
            }
        }
    }
}

impl Read for ExactReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wrong = |text: String| {
            let error = io::Error::new(io::ErrorKind::InvalidData, text);
            io::Error::other(ContentError(error))
        };
        let left = self.size.map_or(u64::MAX, |size| size - self.sent);
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.read_source(&mut buffer[..most])?;
        if count == 0 {
            let (Some(size), sent) = (self.size, self.sent) else {
                return Ok(0);
            };
            return Err(wrong(format!("it has {sent} bytes instead of {size}")));
        }
        self.sent += count as u64;
        if Some(self.sent) == self.size && self.read_source(&mut [0])? != 0 {
            return Err(wrong(format!("it has more than {} bytes", self.sent)));
        }
        if let Some(progress) = self.progress {
            progress(self.sent);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_lead_from_https_to_http() {
        let hop = |from: &str, to: &str| next_hop(&from.parse().unwrap(), to).is_ok();
        assert!(hop("https://a.example/x", "https://b.example/y"));
        assert!(hop("http://a.example/x", "https://b.example/y"));
        assert!(hop("http://a.example/x", "http://b.example/y"));
        assert!(hop("https://a.example/x", "/y"));
        assert!(!hop("https://a.example/x", "http://a.example/y"));
        assert!(!hop("https://a.example/x", "file:///etc/passwd"));
        assert!(!hop("https://a.example/x", ""));
    }
}
