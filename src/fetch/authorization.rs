//! What servers are told about who asks: the secrets of a build by which private URLs and
//! repositories are read, under the names that BuildKit has for them.
//!
//! | Secret | Sent | To |
//! |---|---|---|
//! | `GIT_AUTH_TOKEN`, `GIT_AUTH_TOKEN.HOST` | the password of `x-access-token` | git servers |
//! | `GIT_AUTH_HEADER`, `GIT_AUTH_HEADER.HOST` | as it is | git servers |
//! | `HTTP_AUTH_TOKEN_HOST` | a bearer token | web servers |
//! | `HTTP_AUTH_HEADER_HOST` | as it is | web servers |

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const GIT_TOKEN: &str = "GIT_AUTH_TOKEN";
const GIT_HEADER: &str = "GIT_AUTH_HEADER";
const WEB_TOKEN: &str = "HTTP_AUTH_TOKEN_";
const WEB_HEADER: &str = "HTTP_AUTH_HEADER_";

/// The longest value of a header that is sent.
const LONGEST: usize = 64 << 10;

/// The values of `Authorization` for the servers that a build reads from.
#[derive(Clone, Default)]
pub struct Authorizations {
    /// By the id of the secret.
    values: BTreeMap<String, String>,
}

impl fmt::Debug for Authorizations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Authorizations {
    /// Tells whether a secret of this id is for servers.
    pub fn is_meant(id: &str) -> bool {
        let of_host = |name: &str| {
            id.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.len() > 1 && rest.starts_with('.'))
        };
        let web = |name: &str| id.strip_prefix(name).is_some_and(|host| !host.is_empty());
        of_host(GIT_TOKEN) || of_host(GIT_HEADER) || web(WEB_TOKEN) || web(WEB_HEADER)
    }

    /// Adds a secret. White space around it does not count, since files end in a newline.
    ///
    /// # Errors
    /// It can't be the value of a header; the text says why.
    pub fn add(&mut self, id: &str, secret: &[u8]) -> Result<(), &'static str> {
        let text = std::str::from_utf8(secret).map_err(|_| "it is no text")?;
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty");
        }
        if text.chars().any(char::is_control) {
            return Err("it has more than one line, or control characters");
        }
        if text.len() > LONGEST {
            return Err("it is too long");
        }
        self.values.insert(id.to_owned(), text.to_owned());
        Ok(())
    }

    fn value(&self, name: &str, host: &str) -> Option<&str> {
        self.values
            .get(&format!("{name}{host}"))
            .map(String::as_str)
    }

    /// Returns what the server of a URL is told.
    pub fn of_url(&self, url: &str) -> Option<String> {
        let (_, host) = origin(url)?;
        let header = self.value(WEB_HEADER, host).map(str::to_owned);
        header.or_else(|| Some(format!("Bearer {}", self.value(WEB_TOKEN, host)?)))
    }

    /// Returns what git is to tell which servers, for a repository and its submodules: the
    /// beginnings of URLs, and the values. A secret without a host is for the server of the
    /// repository itself alone: where submodules are from, the repository says.
    pub(super) fn of_repository(&self, remote: &str) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let own = origin(remote);
        if let Some((scheme, host)) = own {
            let suffix = format!(".{host}");
            let value = (self.git_value(&suffix)).or_else(|| self.git_value(""));
            all.extend(value.map(|value| (format!("{scheme}://{host}/"), value)));
        }
        for id in self.values.keys() {
            let rest = [GIT_HEADER, GIT_TOKEN]
                .iter()
                .find_map(|name| id.strip_prefix(name)?.strip_prefix('.'));
            let Some(host) = rest.filter(|host| own.is_none_or(|(_, own)| own != *host)) else {
                continue;
            };
            let base = format!("https://{host}/");
            if !all.iter().any(|(other, _)| *other == base) {
                let value = self.git_value(&format!(".{host}"));
                all.extend(value.map(|value| (base, value)));
            }
        }
        all
    }

    fn git_value(&self, suffix: &str) -> Option<String> {
        let header = self.value(GIT_HEADER, suffix).map(str::to_owned);
        header.or_else(|| {
            let token = self.value(GIT_TOKEN, suffix)?;
            let encoded = STANDARD.encode(format!("x-access-token:{token}"));
            Some(format!("Basic {encoded}"))
        })
    }
}

/// Returns the scheme, and the host with the port, of a URL of a web server.
fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    (!host.is_empty()).then_some((scheme, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(secrets: &[(&str, &str)]) -> Authorizations {
        let mut all = Authorizations::default();
        for (id, secret) in secrets {
            assert!(Authorizations::is_meant(id), "{id}");
            all.add(id, secret.as_bytes()).unwrap();
        }
        all
    }

    #[test]
    fn tokens_go_to_the_host_that_they_are_for() {
        let all = given(&[
            ("HTTP_AUTH_TOKEN_h.example", "t\n"),
            ("HTTP_AUTH_HEADER_h.example:8080", "Basic eDp5"),
            ("HTTP_AUTH_TOKEN_h.example:8080", "less"),
        ]);
        let told = |url: &str| all.of_url(url);
        assert_eq!(told("https://h.example/x").as_deref(), Some("Bearer t"));
        assert_eq!(told("https://u:p@h.example?x").as_deref(), Some("Bearer t"));
        assert_eq!(
            told("http://h.example:8080/").as_deref(),
            Some("Basic eDp5")
        );
        assert_eq!(told("https://a.h.example/"), None);
        assert_eq!(told("https://h.example@evil.example/"), None);
        assert_eq!(told("ftp://h.example/"), None);
    }

    #[test]
    fn token_without_a_host_is_for_the_repository_alone() {
        let all = given(&[
            ("GIT_AUTH_TOKEN", "general"),
            ("GIT_AUTH_TOKEN.other.example", "other"),
            ("GIT_AUTH_HEADER.third.example", "Bearer third"),
        ]);
        let basic = |token: &str| {
            let encoded = STANDARD.encode(format!("x-access-token:{token}"));
            format!("Basic {encoded}")
        };
        let other = ("https://other.example/".to_owned(), basic("other"));
        let third = (
            "https://third.example/".to_owned(),
            "Bearer third".to_owned(),
        );
        assert_eq!(
            all.of_repository("https://h.example/a.git"),
            [
                ("https://h.example/".to_owned(), basic("general")),
                third.clone(),
                other.clone(),
            ]
        );
        // Of two, the one that names the host; and the URL's own scheme.
        assert_eq!(
            all.of_repository("http://other.example/a.git"),
            [
                ("http://other.example/".to_owned(), basic("other")),
                third.clone()
            ]
        );
        assert_eq!(all.of_repository("git@h.example:a.git"), [third, other]);
    }

    #[test]
    fn only_values_of_headers_are_taken() {
        let mut all = Authorizations::default();
        for wrong in [&b"a\nb"[..], b"", b" \n", b"\xff", b"a\0"] {
            assert!(all.add("GIT_AUTH_TOKEN", wrong).is_err(), "{wrong:?}");
        }
        for other in [
            "GIT_AUTH_TOKENS",
            "GIT_AUTH_TOKEN.",
            "HTTP_AUTH_TOKEN_",
            "x",
        ] {
            assert!(!Authorizations::is_meant(other), "{other}");
        }
        assert_eq!(
            format!("{:?}", given(&[("GIT_AUTH_TOKEN", "s")])),
            "{\"GIT_AUTH_TOKEN\"}"
        );
    }
}
