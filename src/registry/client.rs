//! The client: sessions with registries, and how a call is authorized, retried and judged.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::Body;
use ureq::http::{HeaderName, Method, Response, StatusCode, Uri, header};

use super::auth::{Authorization, Caller, Challenge, Guard, Means};
use super::certificates::CertificateDirectories;
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::error::{Failure, Reason, RegistryError, Retry};
use super::proxy::Proxies;
use super::registries::{Registries, Source};
use super::retry::{Backoff, RetryPolicy};
use super::transport::{Payload, Timeouts, Transport, read_answer, refuse_passing_statuses};
use crate::image::{Reference, ReferenceError};

/// How often something is tried at a mirror.
const MIRROR_ATTEMPTS: u32 = 2;

/// Is told how many bytes have passed so far. A try that starts again starts at its first.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// How a [`Client`] behaves.
#[derive(Clone)]
pub struct ClientOptions {
    /// Whether certificates go unchecked, and plain HTTP is taken where HTTPS fails, for
    /// registries on other machines. Registries on loopback may always use plain HTTP.
    pub insecure: bool,
    /// Who the user is.
    pub credentials: Credentials,
    /// Mirrors, and which registries may be used how.
    pub registries: Registries,
    /// Where certificates of registries are.
    pub certificates: CertificateDirectories,
    /// The proxies to go through.
    pub proxies: Proxies,
    /// What to do about failures that may pass.
    pub retry: RetryPolicy,
    /// How long silence is borne.
    pub timeouts: Timeouts,
}

impl Default for ClientOptions {
    /// Returns the options of an anonymous user behind the proxies of the environment.
    fn default() -> ClientOptions {
        ClientOptions {
            insecure: false,
            credentials: Credentials::anonymous(),
            registries: Registries::default(),
            certificates: CertificateDirectories::default(),
            proxies: Proxies::from_environment(|name| std::env::var(name).ok()),
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// A client of registries. Clones share connections, tokens and what is known of registries.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    transport: Transport,
    /// For insecure registries: certificates go unchecked.
    trusting: Transport,
    credentials: Credentials,
    registries: Registries,
    insecure: bool,
    retry: RetryPolicy,
    /// By the registry's name, and whether it is insecure.
    sessions: Mutex<HashMap<(String, bool), Arc<Session>>>,
    /// Mirrors that did not answer: they are not asked again.
    down: Mutex<HashSet<String>>,
}

/// What is known of one registry.
struct Session {
    api_host: String,
    insecure: bool,
    endpoint: Mutex<Option<Endpoint>>,
    guard: Guard,
}

/// What a call is about, for errors and for authorization.
#[derive(Clone)]
pub(super) struct Subject {
    pub registry: String,
    pub repository: String,
    /// Whether certificates go unchecked, and plain HTTP will do.
    pub insecure: bool,
    pub is_mirror: bool,
    /// Such as `manifest latest`.
    pub object: String,
    pub scopes: Vec<String>,
}

impl Subject {
    fn new(source: Source, insecure: bool, object: &str, actions: &str) -> Subject {
        let scopes = vec![format!("repository:{}:{actions}", source.repository)];
        Subject {
            registry: source.registry,
            repository: source.repository,
            insecure: source.insecure || insecure,
            is_mirror: source.is_mirror,
            object: object.to_owned(),
            scopes,
        }
    }

    /// Returns the host (and port) that serves the registry's API.
    fn api_host(&self) -> &str {
        match self.registry.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    pub fn error(&self, reason: Reason) -> RegistryError {
        RegistryError::new(&self.registry, &self.repository, &self.object, reason)
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            registry: &self.registry,
            repository: &self.repository,
            scopes: &self.scopes,
        }
    }
}

/// Where a call goes: below the registry's root, or to a URL that the registry gave.
pub(super) enum Target<'a> {
    Path(&'a str),
    Url(&'a Uri),
}

/// An answer and the URL that gave it.
pub(super) struct Answer {
    pub response: Response<Body>,
    pub url: Uri,
}

impl Client {
    /// Makes a client; nothing is connected yet.
    pub fn new(options: ClientOptions) -> Client {
        let transport = |insecure| {
            let (proxies, certificates) = (options.proxies.clone(), options.certificates.clone());
            Transport::new(proxies, certificates, insecure, options.timeouts)
        };
        Client(Arc::new(Shared {
            transport: transport(false),
            trusting: transport(true),
            credentials: options.credentials,
            registries: options.registries,
            insecure: options.insecure,
            retry: options.retry,
            sessions: Mutex::default(),
            down: Mutex::default(),
        }))
    }

    /// Returns what a name as people write it may stand for: see [`Registries::candidates`].
    ///
    /// # Errors
    /// It is no name of an image.
    pub fn candidates(&self, text: &str) -> Result<Vec<Reference>, ReferenceError> {
        self.0.registries.candidates(text)
    }

    /// Checks that `registry` (such as `docker.io`, or `localhost:5000`) answers, and accepts
    /// the user's credentials if it asks for any.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn ping(&self, registry: &str) -> Result<(), RegistryError> {
        let fail = |reason| RegistryError::new(registry, "", "", reason);
        let source = self.0.registries.origin(registry, "").map_err(fail)?;
        let subject = Subject {
            scopes: Vec::new(),
            ..Subject::new(source, self.0.insecure, "", "")
        };
        self.retrying(&subject, || {
            let target = Target::Path("/v2/");
            let answer = self.attempt(&subject, &Method::GET, target, &[], &mut Payload::Empty)?;
            match answer.response.status() {
                StatusCode::OK => Ok(()),
                StatusCode::NOT_FOUND => {
                    Err(Reason::Malformed("this is no registry".to_owned()).into())
                }
                _ => Err(refuse(answer.response)),
            }
        })
    }

    /// Calls `attempt` until it succeeds, fails for good, or the retries are used up.
    pub(super) fn retrying<T>(
        &self,
        subject: &Subject,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, RegistryError> {
        let mut backoff = self.backoff(subject);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure {
                    retry: Retry::After(delay),
                    ..
                }) if backoff.wait(delay) => {}
                Err(failure) => return Err(subject.error(failure.reason)),
            }
        }
    }

    /// Returns the patience for a source: there is another one behind a mirror.
    pub(super) fn backoff(&self, subject: &Subject) -> Backoff {
        let mut policy = self.0.retry;
        if subject.is_mirror {
            policy.attempts = policy.attempts.min(MIRROR_ATTEMPTS);
        }
        Backoff::new(policy)
    }

    fn transport(&self, insecure: bool) -> &Transport {
        if insecure {
            &self.0.trusting
        } else {
            &self.0.transport
        }
    }

    /// Makes the subject of writing to the repository of `reference`.
    pub(super) fn written(
        &self,
        reference: &Reference,
        object: &str,
    ) -> Result<Subject, RegistryError> {
        let (registry, repository) = (reference.registry(), reference.repository());
        let source = self
            .0
            .registries
            .origin(registry, repository)
            .map_err(|reason| RegistryError::new(registry, repository, object, reason))?;
        Ok(Subject::new(source, self.0.insecure, object, "pull,push"))
    }

    /// Reads from the first source of `reference` that has what is asked for. Returns what
    /// `read` makes of it, that source, and those that were not asked.
    pub(super) fn read_from_sources<T>(
        &self,
        reference: &Reference,
        object: &str,
        mut read: impl FnMut(&Subject) -> Result<T, RegistryError>,
    ) -> Result<(T, Subject, Vec<Subject>), RegistryError> {
        let (registry, repository) = (reference.registry(), reference.repository());
        let fail = |reason| RegistryError::new(registry, repository, object, reason);
        let by_digest = reference.digest().is_some();
        let mut sources = self
            .0
            .registries
            .sources(registry, repository, by_digest)
            .map_err(fail)?;
        let down = lock(&self.0.down).clone();
        sources.retain(|source| !(source.is_mirror && down.contains(&source.registry)));
        let mut subjects = sources
            .into_iter()
            .map(|source| Subject::new(source, self.0.insecure, object, "pull"));
        let mut failed = Vec::new();
        while let Some(subject) = subjects.next() {
            match read(&subject) {
                Ok(value) => return Ok((value, subject, subjects.collect())),
                Err(error) if subject.is_mirror => {
                    self.note_failed_mirror(&subject, error.reason());
                    failed.push(error);
                }
                Err(error) => return Err(error.after(failed)),
            }
        }
        Err(fail(Reason::NotFound).after(failed))
    }

    /// Takes note of a mirror that failed, unless it only lacks what was asked for.
    pub(super) fn note_failed_mirror(&self, subject: &Subject, reason: &Reason) {
        let lacks = matches!(
            reason,
            Reason::NotFound
                | Reason::RepositoryNotFound
                | Reason::Unauthorized { .. }
                | Reason::Denied(_)
        );
        if !lacks {
            lock(&self.0.down).insert(subject.registry.clone());
        }
    }

    /// Sends one request, authorized as the registry wishes. A refused or expired token is
    /// renewed once. Answers with statuses that may pass by themselves are failures.
    pub(super) fn attempt(
        &self,
        subject: &Subject,
        method: &Method,
        target: Target<'_>,
        headers: &[(HeaderName, String)],
        payload: &mut Payload<'_>,
    ) -> Result<Answer, Failure> {
        let session = self.session(subject);
        let endpoint = self.endpoint(subject)?;
        let url = match target {
            Target::Path(path) => endpoint.url(path).ok_or_else(|| {
                Failure::from(Reason::Malformed("the name makes no URL".to_owned()))
            })?,
            Target::Url(url) => url.clone(),
        };
        let means = Means {
            transport: self.transport(subject.insecure),
            credentials: &self.0.credentials,
            endpoint: &endpoint,
            insecure: subject.insecure,
        };
        // A URL that the registry gave may lie on another host, which must not see who asks.
        let at_home = endpoint.owns(&url);
        let mut authorization = if at_home {
            session.guard.authorize(&means, subject.caller())?
        } else {
            None
        };
        let mut renewed = false;
        loop {
            let header = authorization.as_ref().map(|a| a.header.as_str());
            let (response, url) =
                means
                    .transport
                    .follow(method, url.clone(), headers, header, payload)?;
            if response.status() != StatusCode::UNAUTHORIZED || !endpoint.owns(&url) {
                let response = refuse_passing_statuses(response)?;
                return Ok(Answer { response, url });
            }
            let challenge = challenge_of(&response);
            let answer = read_answer(response);
            let better = if at_home && !renewed {
                session
                    .guard
                    .answer(&means, subject.caller(), challenge, authorization.as_ref())?
            } else {
                None
            };
            let is_known = |a: &Authorization| a.with_credentials;
            let Some(better) = better else {
                return Err(Reason::Unauthorized {
                    with_credentials: authorization.as_ref().is_some_and(is_known),
                    answer,
                }
                .into());
            };
            authorization = Some(better);
            renewed = true;
        }
    }

    fn session(&self, subject: &Subject) -> Arc<Session> {
        let mut sessions = lock(&self.0.sessions);
        let key = (subject.registry.clone(), subject.insecure);
        let session = sessions.entry(key).or_insert_with(|| {
            Arc::new(Session {
                api_host: subject.api_host().to_owned(),
                insecure: subject.insecure,
                endpoint: Mutex::default(),
                guard: Guard::default(),
            })
        });
        session.clone()
    }

    /// Returns where the registry answers. Where that may be one of several, they are tried
    /// once, without credentials.
    pub(super) fn endpoint(&self, subject: &Subject) -> Result<Endpoint, Failure> {
        let session = self.session(subject);
        let mut known = lock(&session.endpoint);
        if let Some(endpoint) = &*known {
            return Ok(endpoint.clone());
        }
        let candidates = Endpoint::candidates(&session.api_host, session.insecure);
        let endpoint = match &candidates[..] {
            [only] => only.clone(),
            several => self.first_that_answers(&session, several)?,
        };
        *known = Some(endpoint.clone());
        Ok(endpoint)
    }

    fn first_that_answers(
        &self,
        session: &Session,
        candidates: &[Endpoint],
    ) -> Result<Endpoint, Failure> {
        let mut second_best = None;
        let mut first_failure = None;
        for endpoint in candidates {
            let Some(url) = endpoint.url("/v2/") else {
                let why = "the registry's name makes no URL".to_owned();
                return Err(Reason::Malformed(why).into());
            };
            let transport = self.transport(session.insecure);
            match transport.exchange(&Method::GET, &url, &[], None, &mut Payload::Empty) {
                // What servers that expect TLS say to plain HTTP.
                Ok(response)
                    if endpoint.is_plain() && response.status() == StatusCode::BAD_REQUEST =>
                {
                    second_best.get_or_insert(endpoint);
                }
                Ok(response) => {
                    session.guard.note(challenge_of(&response));
                    return Ok(endpoint.clone());
                }
                // It does speak TLS, so what plain HTTP said is beside the point.
                Err(failure) if is_about_certificates(&failure.reason) => {
                    return Err(failure);
                }
                Err(failure) => {
                    first_failure.get_or_insert(failure);
                }
            }
        }
        match (second_best, first_failure) {
            (Some(endpoint), _) => Ok(endpoint.clone()),
            (None, Some(failure)) => Err(failure),
            (None, None) => Err(Reason::Unreachable("no endpoint".to_owned()).into()),
        }
    }
}

/// Makes the failure of an answer with a status that the call has no use for.
pub(super) fn refuse(response: Response<Body>) -> Failure {
    let status = response.status();
    let answer = read_answer(response);
    let reason = match status {
        StatusCode::UNAUTHORIZED => Reason::Unauthorized {
            with_credentials: false,
            answer,
        },
        StatusCode::FORBIDDEN => Reason::Denied(answer),
        StatusCode::NOT_FOUND if answer.code.as_deref() == Some("NAME_UNKNOWN") => {
            Reason::RepositoryNotFound
        }
        StatusCode::NOT_FOUND => Reason::NotFound,
        _ => Reason::Server(answer),
    };
    reason.into()
}

fn is_about_certificates(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Certificate(_) | Reason::ClientCertificate | Reason::CertificateFile(_)
    )
}

fn challenge_of(response: &Response<Body>) -> Option<Challenge> {
    let values = response.headers().get_all(header::WWW_AUTHENTICATE);
    Challenge::choose(values.iter().filter_map(|value| value.to_str().ok()))
}

/// Locks `mutex`. What it guards are caches that are whole at any moment, so a thread that
/// panicked with the lock held does no harm.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_is_served_by_another_host() {
        let source = Registries::default()
            .origin("docker.io", "library/x")
            .unwrap();
        let subject = Subject::new(source, false, "manifest 1", "pull");
        assert_eq!(subject.api_host(), "registry-1.docker.io");
        assert_eq!(subject.scopes, ["repository:library/x:pull"]);
    }
}
