//! The client: sessions with registries, and how a call is authorized, retried and judged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::Body;
use ureq::http::{HeaderName, Method, Response, StatusCode, Uri, header};

use super::auth::{Authorization, Caller, Challenge, Guard, Means};
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::error::{Failure, Reason, RegistryError, Retry};
use super::proxy::Proxies;
use super::retry::{Backoff, RetryPolicy};
use super::transport::{Payload, Timeouts, Transport, read_answer, refuse_passing_statuses};
use crate::image::Reference;

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
    credentials: Credentials,
    insecure: bool,
    retry: RetryPolicy,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

/// What is known of one registry.
struct Session {
    api_host: String,
    endpoint: Mutex<Option<Endpoint>>,
    guard: Guard,
}

/// What a call is about, for errors and for authorization.
pub(super) struct Subject {
    pub registry: String,
    pub api_host: String,
    pub repository: String,
    /// Such as `manifest latest`.
    pub object: String,
    pub scopes: Vec<String>,
}

impl Subject {
    /// Makes the subject of reading from the repository of `reference`.
    pub fn pull(reference: &Reference, object: String) -> Subject {
        Subject::new(reference, object, "pull")
    }

    /// Makes the subject of writing to the repository of `reference`.
    pub fn push(reference: &Reference, object: String) -> Subject {
        Subject::new(reference, object, "pull,push")
    }

    fn new(reference: &Reference, object: String, actions: &str) -> Subject {
        Subject {
            registry: reference.registry().to_owned(),
            api_host: reference.api_host().to_owned(),
            repository: reference.repository().to_owned(),
            object,
            scopes: vec![format!("repository:{}:{actions}", reference.repository())],
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
        Client(Arc::new(Shared {
            transport: Transport::new(options.proxies, options.insecure, options.timeouts),
            credentials: options.credentials,
            insecure: options.insecure,
            retry: options.retry,
            sessions: Mutex::default(),
        }))
    }

    /// Checks that `registry` (such as `docker.io`, or `localhost:5000`) answers, and accepts
    /// the user's credentials if it asks for any.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn ping(&self, registry: &str) -> Result<(), RegistryError> {
        let api_host = match registry {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        };
        let subject = Subject {
            registry: registry.to_owned(),
            api_host: api_host.to_owned(),
            repository: String::new(),
            object: String::new(),
            scopes: Vec::new(),
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
        let mut backoff = self.backoff();
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

    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.0.retry)
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
            transport: &self.0.transport,
            credentials: &self.0.credentials,
            endpoint: &endpoint,
            insecure: self.0.insecure,
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
                self.0
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
        let session = sessions.entry(subject.registry.clone()).or_insert_with(|| {
            Arc::new(Session {
                api_host: subject.api_host.clone(),
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
        let candidates = Endpoint::candidates(&session.api_host, self.0.insecure);
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
            let transport = &self.0.transport;
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
                Err(failure) if matches!(failure.reason, Reason::Certificate(_)) => {
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

fn challenge_of(response: &Response<Body>) -> Option<Challenge> {
    let values = response.headers().get_all(header::WWW_AUTHENTICATE);
    Challenge::choose(values.iter().filter_map(|value| value.to_str().ok()))
}

/// Locks `mutex`. What it guards are caches that are whole at any moment, so a thread that
/// panicked with the lock held does no harm.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
