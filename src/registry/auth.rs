//! What a registry asks of its callers, and the tokens that it wants.
//! See <https://distribution.github.io/distribution/spec/auth/token/>.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::{Method, StatusCode, Uri, header};

use super::client::lock;
use super::credentials::{Credential, Credentials};
use super::endpoint::{Endpoint, encode, is_loopback, parse_url};
use super::error::{Failure, Reason, printable};
use super::transport::{Payload, Transport, read_answer, read_document, refuse_passing_statuses};

/// The largest answer of a token server that is read.
const LARGEST_ANSWER: u64 = 1 << 20;

/// How long a token lives where its server does not say.
/// See <https://distribution.github.io/distribution/spec/auth/token/#token-response-fields>.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// Tokens are renewed this long before their end, so that none ends on the way.
const RENEWAL_MARGIN: Duration = Duration::from_secs(5);

/// What a registry asks for in `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token of the server at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// Returns the best challenge that kiln can meet among the given header values.
    pub fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let offered: Vec<Challenge> = values.flat_map(parse_challenges).collect();
        let bearer = offered
            .iter()
            .find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        bearer.or(offered.first()).cloned()
    }
}

/// Parses one `WWW-Authenticate` value; schemes that kiln does not know are left out.
/// See <https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1>.
fn parse_challenges(value: &str) -> Vec<Challenge> {
    let mut schemes: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() && after.is_empty() {
            break;
        }
        let after = after.trim_start_matches([' ', '\t']);
        let Some(after) = after.strip_prefix('=') else {
            schemes.push((word.to_ascii_lowercase(), HashMap::new()));
            rest = after;
            continue;
        };
        let (text, after) = parse_value(after.trim_start_matches([' ', '\t']));
        if let Some((_, parameters)) = schemes.last_mut() {
            parameters.entry(word.to_ascii_lowercase()).or_insert(text);
        }
        rest = after;
    }
    let known = |(scheme, mut parameters): (String, HashMap<String, String>)| {
        let mut take = |name: &str| parameters.remove(name).filter(|value| !value.is_empty());
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer {
                realm: take("realm")?,
                service: take("service"),
                scope: take("scope"),
            }),
            _ => None,
        }
    };
    schemes.into_iter().filter_map(known).collect()
}

/// Parses a token or a quoted string; returns it and what follows.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// A bearer token.
#[derive(Clone)]
struct Token {
    value: String,
    expires: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

/// The token of one set of scopes. Its lock is held while a token is fetched, so that
/// parallel requests wait for one answer instead of each asking.
type Slot = Arc<Mutex<Option<Token>>>;

/// What a request says of its sender.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorization {
    /// The value of the header.
    pub header: String,
    /// Whether the user's credentials stand behind it.
    pub with_credentials: bool,
}

/// Who asks, for what.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub registry: &'a str,
    pub repository: &'a str,
    /// Such as `repository:library/busybox:pull`.
    pub scopes: &'a [String],
}

/// What is known of how one registry identifies its callers.
#[derive(Default)]
pub(super) struct Guard {
    challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<HashMap<Vec<String>, Slot>>,
    credentials: Mutex<HashMap<String, Option<Credential>>>,
}

/// What is needed to answer a challenge.
pub(super) struct Means<'a> {
    pub transport: &'a Transport,
    pub credentials: &'a Credentials,
    pub endpoint: &'a Endpoint,
    pub insecure: bool,
}

impl Guard {
    /// Takes note of what the registry asks for.
    pub fn note(&self, challenge: Option<Challenge>) {
        if challenge.is_some() {
            *lock(&self.challenge) = challenge;
        }
    }

    /// Returns what to send before the registry asks: nothing, as long as it never has.
    pub fn authorize(
        &self,
        means: &Means<'_>,
        caller: Caller<'_>,
    ) -> Result<Option<Authorization>, Failure> {
        let Some(challenge) = lock(&self.challenge).clone() else {
            return Ok(None);
        };
        self.meet(means, caller, &challenge, None)
    }

    /// Returns what to send after the registry refused `refused` with `challenge`; nothing
    /// where there is no better answer.
    pub fn answer(
        &self,
        means: &Means<'_>,
        caller: Caller<'_>,
        challenge: Option<Challenge>,
        refused: Option<&Authorization>,
    ) -> Result<Option<Authorization>, Failure> {
        let Some(challenge) = challenge else {
            return Ok(None);
        };
        self.note(Some(challenge.clone()));
        let answer = self.meet(means, caller, &challenge, refused)?;
        Ok(answer.filter(|answer| Some(answer) != refused))
    }

    fn meet(
        &self,
        means: &Means<'_>,
        caller: Caller<'_>,
        challenge: &Challenge,
        refused: Option<&Authorization>,
    ) -> Result<Option<Authorization>, Failure> {
        let credential = self.credential(means, caller)?;
        let with_credentials = credential.is_some();
        let header = match (challenge, &credential) {
            (Challenge::Basic, Some(Credential::Basic { username, password })) => {
                basic(username, password)
            }
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { .. }, Some(Credential::RegistryToken(token))) => {
                format!("Bearer {token}")
            }
            (Challenge::Bearer { .. }, _) => {
                let slot = lock(&self.tokens)
                    .entry(caller.scopes.to_vec())
                    .or_default()
                    .clone();
                let mut slot = lock(&slot);
                let usable = slot.as_ref().filter(|token| {
                    token.expires > Instant::now()
                        && refused.is_none_or(|refused| refused.header != bearer(token))
                });
                match usable {
                    Some(token) => bearer(token),
                    None => {
                        let fetched = fetch_token(means, caller, challenge, credential.as_ref())?;
                        bearer(slot.insert(fetched))
                    }
                }
            }
        };
        Ok(Some(Authorization {
            header,
            with_credentials,
        }))
    }

    fn credential(
        &self,
        means: &Means<'_>,
        caller: Caller<'_>,
    ) -> Result<Option<Credential>, Failure> {
        let mut known = lock(&self.credentials);
        if let Some(credential) = known.get(caller.repository) {
            return Ok(credential.clone());
        }
        let credential = means
            .credentials
            .get(caller.registry, caller.repository)
            .map_err(Reason::Credentials)?;
        known.insert(caller.repository.to_owned(), credential.clone());
        Ok(credential)
    }
}

fn bearer(token: &Token) -> String {
    format!("Bearer {}", token.value)
}

fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}

/// Asks the token server that `challenge` names.
fn fetch_token(
    means: &Means<'_>,
    caller: Caller<'_>,
    challenge: &Challenge,
    credential: Option<&Credential>,
) -> Result<Token, Failure> {
    let Challenge::Bearer {
        realm,
        service,
        scope,
    } = challenge
    else {
        return Err(Reason::Malformed("no bearer challenge".to_owned()).into());
    };
    let realm = trusted_realm(means, realm)?;
    ask_for_token(means, caller, &realm, (service, scope), credential)
        .map_err(|failure| of_token_server(&realm, failure))
}

/// Says that it was the token server that failed, and not what the token is for. Who is not
/// let in is told so by the registry, whosever answer it is.
fn of_token_server(realm: &Uri, failure: Failure) -> Failure {
    let reason = match failure.reason {
        reason @ (Reason::Unauthorized { .. } | Reason::RateLimited { .. }) => reason,
        Reason::TooLarge { limit } => {
            let why = format!("it has more than {limit} bytes");
            token_server(realm, Reason::Malformed(why))
        }
        reason => token_server(realm, reason),
    };
    Failure { reason, ..failure }
}

fn token_server(realm: &Uri, reason: Reason) -> Reason {
    // A user's name and password in the URL are nothing for a screen.
    let host = printable(realm.host().unwrap_or_default());
    Reason::TokenServer {
        host: match realm.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        },
        reason: Box::new(reason),
    }
}

/// Asks the server at `realm` for a token for a service and a scope.
fn ask_for_token(
    means: &Means<'_>,
    caller: Caller<'_>,
    realm: &Uri,
    (service, scope): (&Option<String>, &Option<String>),
    credential: Option<&Credential>,
) -> Result<Token, Failure> {
    let mut scopes = caller.scopes.to_vec();
    // Some registries ask for another scope than the spec has; theirs is added to ours.
    scopes.extend(scope.clone().filter(|scope| !caller.scopes.contains(scope)));
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(service.as_deref().map(|service| ("service", service)));
    query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));

    let result = if let Some(Credential::IdentityToken(refresh)) = credential {
        let joined = scopes.join(" ");
        query.retain(|(name, _)| *name != "scope");
        query.extend([
            ("scope", joined.as_str()),
            ("grant_type", "refresh_token"),
            ("client_id", "kiln"),
            ("refresh_token", refresh),
        ]);
        let form = form(&query);
        let kind = "application/x-www-form-urlencoded".to_owned();
        // Sent without following redirects: the secret is in the body.
        means.transport.exchange(
            &Method::POST,
            realm,
            &[(header::CONTENT_TYPE, kind)],
            None,
            &mut Payload::Bytes(form.as_bytes()),
        )
    } else {
        let authorization = match credential {
            Some(Credential::Basic { username, password }) => {
                query.push(("account", username));
                Some(basic(username, password))
            }
            _ => None,
        };
        let separator = if realm.query().is_some() { '&' } else { '?' };
        let url = format!("{realm}{separator}{}", form(&query));
        let url = parse_url(&url).ok_or_else(|| malformed_realm(&url))?;
        means
            .transport
            .follow(
                &Method::GET,
                url,
                &[],
                authorization.as_deref(),
                &mut Payload::Empty,
            )
            .map(|(response, _)| response)
    };
    let response = refuse_passing_statuses(result?)?;
    let with_credentials = credential.is_some();
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            return Err(Reason::Unauthorized {
                with_credentials,
                answer: read_answer(response),
            }
            .into());
        }
        _ => return Err(Reason::Server(read_answer(response)).into()),
    }
    parse_token(&read_document(response, LARGEST_ANSWER)?)
}

/// Parses the URL of a token server. It sees the user's password, so it has to use HTTPS
/// wherever the registry does, and plain HTTP leaves this machine only by the user's flag.
fn trusted_realm(means: &Means<'_>, realm: &str) -> Result<Uri, Failure> {
    let url = parse_url(realm).ok_or_else(|| malformed_realm(realm))?;
    let encrypted = url.scheme_str() == Some("https");
    let local = url.host().is_some_and(is_loopback) && means.endpoint.is_plain();
    if encrypted || local || means.insecure {
        return Ok(url);
    }
    Err(Reason::Redirect(format!("the unencrypted token server {}", printable(realm))).into())
}

fn malformed_realm(realm: &str) -> Failure {
    Reason::Malformed(format!("token server {:?} is no URL", printable(realm))).into()
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn parse_token(body: &[u8]) -> Result<Token, Failure> {
    let malformed = |why: &str| Failure::from(Reason::Malformed(format!("token: {why}")));
    let answer: TokenAnswer =
        serde_json::from_slice(body).map_err(|_| malformed("the answer is no JSON object"))?;
    let value = answer
        .token
        .filter(|token| !token.is_empty())
        .or(answer.access_token)
        .unwrap_or_default();
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed(
            "it is empty or has characters that no header may have",
        ));
    }
    let lifetime = answer
        .expires_in
        .filter(|seconds| *seconds > 0.0)
        // No token outlives a day here, whatever its server says.
        .map_or(DEFAULT_LIFETIME, |s| {
            Duration::from_secs_f64(s.min(86_400.0))
        });
    Ok(Token {
        value,
        // One that lives no longer than the margin serves the request that it was fetched for.
        expires: Instant::now() + lifetime.saturating_sub(RENEWAL_MARGIN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(values: &[&str]) -> Option<Challenge> {
        Challenge::choose(values.iter().copied())
    }

    fn bearer_of(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_are_parsed_with_quotes_commas_and_escapes() {
        let full = r#"Bearer realm="https://a.example/t?x=1,2",service="r",scope="repository:a:pull,push""#;
        assert_eq!(
            choose(&[full]),
            bearer_of(
                "https://a.example/t?x=1,2",
                Some("r"),
                Some("repository:a:pull,push")
            )
        );
        assert_eq!(
            choose(&[r#"bearer   Realm = "https://a\"b" , error=invalid_token"#]),
            bearer_of("https://a\"b", None, None)
        );
        assert_eq!(choose(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(choose(&["Basic"]), Some(Challenge::Basic));
    }

    #[test]
    fn bearer_is_preferred_and_unknown_schemes_are_passed_over() {
        let combined = r#"Negotiate YWJj==, Basic realm="x", Bearer realm="https://t""#;
        assert_eq!(choose(&[combined]), bearer_of("https://t", None, None));
        let separate = [
            "Basic realm=x",
            "Digest nonce=\"1\"",
            "Bearer realm=https://t",
        ];
        assert_eq!(choose(&separate), bearer_of("https://t", None, None));
        assert_eq!(choose(&["Negotiate"]), None);
    }

    #[test]
    fn broken_challenges_neither_hang_nor_panic() {
        for value in [
            "",
            ",,,",
            "=",
            "Bearer",
            "Bearer realm=\"",
            "Bearer realm=\"\\",
            "a=b=c",
            "é=\"ü",
        ] {
            assert_eq!(choose(&[value]), None, "{value:?}");
        }
    }

    #[test]
    fn tokens_have_two_names_and_a_bounded_life() {
        let token = parse_token(br#"{"access_token":"abc","expires_in":1e300}"#).unwrap();
        assert_eq!(token.value, "abc");
        assert!(token.expires <= Instant::now() + Duration::from_secs(86_400));
        for body in [
            r#"{"token":"a b"}"#,
            r#"{"token":"a\r\nX: y"}"#,
            "{}",
            "[]",
            r#"{"token":""}"#,
        ] {
            assert!(parse_token(body.as_bytes()).is_err(), "{body}");
        }
    }
}
