//! Where a registry answers: scheme and host, and how one URL leads to the next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// The root of a registry's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    scheme: Scheme,
    authority: String,
}

impl Endpoint {
    /// Returns the endpoints that may serve `authority`, in the order in which to try them.
    ///
    /// HTTPS is the only one unless the host is this machine or the caller has said that the
    /// registry is insecure. On loopback plain HTTP is the rule, so it comes first.
    pub fn candidates(authority: &str, insecure: bool) -> Vec<Endpoint> {
        let schemes: &[Scheme] = if is_loopback(host_of(authority)) {
            &[Scheme::HTTP, Scheme::HTTPS]
        } else if insecure {
            &[Scheme::HTTPS, Scheme::HTTP]
        } else {
            &[Scheme::HTTPS]
        };
        let endpoint = |scheme: &Scheme| Endpoint {
            scheme: scheme.clone(),
            authority: authority.to_owned(),
        };
        schemes.iter().map(endpoint).collect()
    }

    /// Returns the URL of `path_and_query` below this endpoint; nothing where that is no URL.
    pub fn url(&self, path_and_query: &str) -> Option<Uri> {
        parse_url(&format!(
            "{}://{}{path_and_query}",
            self.scheme, self.authority
        ))
    }

    /// Tells whether `url` has the scheme, host and port of this endpoint.
    pub fn owns(&self, url: &Uri) -> bool {
        self.url("/").is_some_and(|root| same_origin(&root, url))
    }

    /// Tells whether requests travel unencrypted.
    pub fn is_plain(&self) -> bool {
        self.scheme == Scheme::HTTP
    }

    /// Returns the URL that an upload's `Location` stands for.
    ///
    /// Registries behind a proxy that ends TLS often name their own host with `http://`:
    /// that is taken as a path on the connection that works.
    pub fn upload_url(&self, base: &Uri, location: &str) -> Option<Uri> {
        let url = join(base, location)?;
        let own = self.url("/")?;
        let downgraded = own.scheme() == Some(&Scheme::HTTPS)
            && url.scheme() == Some(&Scheme::HTTP)
            && own.host() == url.host()
            && (url.port_u16().is_none() || url.port_u16() == own.port_u16());
        if downgraded {
            return self.url(url.path_and_query()?.as_str());
        }
        Some(url)
    }
}

/// Tells whether two URLs share scheme, host and port.
pub(super) fn same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |url: &Uri| url.port_u16().unwrap_or_else(|| default_port(url));
    let host = |url: &Uri| url.host().map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

/// Returns the port that a URL without one means.
pub(super) fn default_port(url: &Uri) -> u16 {
    if url.scheme() == Some(&Scheme::HTTP) {
        80
    } else {
        443
    }
}

/// Returns the host of `host[:port]` or `[v6]:port`, without brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match authority.rsplit_once(':') {
        // More than one colon and no brackets: an IPv6 address without a port.
        Some((host, _)) if !host.contains(':') => host,
        Some(_) | None => authority,
    }
}

/// Tells whether `host` is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    host.parse::<Ipv6Addr>()
        .is_ok_and(|address| IpAddr::from(address).to_canonical().is_loopback())
}

/// Parses an absolute `http` or `https` URL. One that carries a user name is refused:
/// nobody but the user decides which credentials go where.
pub(super) fn parse_url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let scheme = url.scheme()?;
    if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
        return None;
    }
    if url.host()?.is_empty() || url.authority()?.as_str().contains('@') {
        return None;
    }
    Some(url)
}

/// Resolves `location` against `base`.
/// See <https://www.rfc-editor.org/rfc/rfc3986#section-5.2>; dot segments are left to the server.
pub(super) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or(location).trim();
    let root = format!("{}://{}", base.scheme()?, base.authority()?);
    let head = location.split(['/', '?']).next().unwrap_or_default();
    let absolute = if head.ends_with(':') {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", base.scheme()?)
    } else if location.starts_with('/') {
        format!("{root}{location}")
    } else if location.starts_with('?') {
        format!("{root}{}{location}", base.path())
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(head, _)| head);
        format!("{root}{directory}/{location}")
    };
    // An empty reference means the same document, which no redirect can want.
    parse_url(&absolute).filter(|_| !location.is_empty())
}

/// Writes `text` for use as a value in a query or a form.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "LOCALHOST:5000",
            "127.0.0.1",
            "127.8.9.1:80",
            "[::1]:5000",
            "::1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback(host_of(host)), "{host}");
        }
        for host in [
            "localhost.evil.example",
            "128.0.0.1:5000",
            "127.0.0.1.evil.example:5000",
            "[::2]:5000",
            "registry",
        ] {
            assert!(!is_loopback(host_of(host)), "{host}");
        }
    }

    #[test]
    fn plain_http_is_tried_on_loopback_or_by_flag_only() {
        let schemes = |authority: &str, insecure| -> Vec<String> {
            Endpoint::candidates(authority, insecure)
                .iter()
                .map(|e| e.scheme.to_string())
                .collect()
        };
        assert_eq!(schemes("registry.example", false), ["https"]);
        assert_eq!(schemes("registry.example", true), ["https", "http"]);
        assert_eq!(schemes("localhost:5000", false), ["http", "https"]);
    }

    #[test]
    fn locations_are_resolved_against_the_request() {
        let base = url("https://r.example:8443/v2/a/blobs/uploads/");
        for (location, expected) in [
            (
                "/v2/x?_state=a%2Fb",
                "https://r.example:8443/v2/x?_state=a%2Fb",
            ),
            (
                "uuid?s=1",
                "https://r.example:8443/v2/a/blobs/uploads/uuid?s=1",
            ),
            ("?s=1", "https://r.example:8443/v2/a/blobs/uploads/?s=1"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("http://cdn.example/x:y#z", "http://cdn.example/x:y"),
        ] {
            assert_eq!(join(&base, location).unwrap(), url(expected));
        }
        for location in [
            "ftp://r.example/x",
            "https://me:pw@r.example/",
            "https:///x",
        ] {
            assert_eq!(join(&base, location), None, "{location}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let base = url("https://R.example/a");
        assert!(same_origin(&base, &url("https://r.example:443/b")));
        assert!(!same_origin(&base, &url("http://r.example:443/b")));
        assert!(!same_origin(&base, &url("https://r.example:444/b")));
        assert!(!same_origin(&base, &url("https://x.r.example/b")));
    }

    #[test]
    fn an_upload_location_never_downgrades_the_registrys_own_host() {
        let endpoint = &Endpoint::candidates("r.example", false)[0];
        let base = endpoint.url("/v2/a/blobs/uploads/").unwrap();
        let upload = |location| endpoint.upload_url(&base, location).unwrap().to_string();
        assert_eq!(upload("http://r.example/u?x=1"), "https://r.example/u?x=1");
        assert_eq!(upload("http://other.example/u"), "http://other.example/u");
    }
}
