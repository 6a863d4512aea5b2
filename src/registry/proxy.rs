//! Which proxy a request goes through, from the environment's usual variables.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::http::uri::Scheme;

use super::endpoint::{default_port, is_loopback};

/// The proxies of the environment. They may carry passwords, so there is no `Debug`.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    bypass: Vec<String>,
}

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, or their lower-case
    /// forms, through `variable`.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let read = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .or_else(|| variable(&name.to_ascii_lowercase()))
                .filter(|value| !value.is_empty())
        };
        let all = read("ALL_PROXY");
        Proxies {
            http: read("HTTP_PROXY").or_else(|| all.clone()),
            https: read("HTTPS_PROXY").or(all),
            bypass: read("NO_PROXY")
                .unwrap_or_default()
                .split([',', ' '])
                .filter(|entry| !entry.is_empty())
                .map(str::to_ascii_lowercase)
                .collect(),
        }
    }

    /// Returns the proxy for `url`. Loopback never goes through one.
    pub(super) fn choose(&self, url: &Uri) -> Option<&str> {
        let host = url.host()?.to_ascii_lowercase();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_u16().unwrap_or_else(|| default_port(url));
        if is_loopback(host) || self.bypass.iter().any(|e| bypasses(e, host, port)) {
            return None;
        }
        if url.scheme() == Some(&Scheme::HTTP) {
            self.http.as_deref()
        } else {
            self.https.as_deref()
        }
    }
}

/// Tells whether one entry of `NO_PROXY` names `host`: `*`, an address, a CIDR block, a
/// domain (with its subdomains), or a domain with a leading dot (its subdomains only).
fn bypasses(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
            return false;
        };
        return host
            .parse()
            .is_ok_and(|address: IpAddr| in_network(address, network, bits));
    }
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    if let (Ok(entry), Ok(address)) = (bare.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return entry == address;
    }
    let domain = match entry.rsplit_once(':') {
        Some((domain, wanted)) => match wanted.parse::<u16>() {
            Ok(wanted) if wanted == port => domain,
            _ => return false,
        },
        None => entry,
    };
    let domain = domain.strip_prefix('*').unwrap_or(domain);
    match domain.strip_prefix('.') {
        Some(parent) => host.strip_suffix(parent).is_some_and(|h| h.ends_with('.')),
        None => host
            .strip_suffix(domain)
            .is_some_and(|h| h.is_empty() || h.ends_with('.')),
    }
}

fn in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            (u64::from(a.to_bits() ^ n.to_bits()) >> (32 - bits)) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            bits == 0 || (a.to_bits() ^ n.to_bits()) >> (128 - bits) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(no_proxy: &str) -> Proxies {
        Proxies::from_environment(|name| match name {
            "HTTP_PROXY" => Some("http://plain:1".to_owned()),
            "https_proxy" => Some("http://tls:2".to_owned()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        })
    }

    fn chosen(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.choose(&url.parse().unwrap()).map(str::to_owned)
    }

    #[test]
    fn the_scheme_of_the_request_picks_the_proxy() {
        let proxies = proxies("");
        let tls = chosen(&proxies, "https://r.example/");
        assert_eq!(tls.as_deref(), Some("http://tls:2"));
        let plain = chosen(&proxies, "http://r.example/");
        assert_eq!(plain.as_deref(), Some("http://plain:1"));
    }

    #[test]
    fn loopback_is_never_proxied() {
        for url in [
            "http://localhost:5000/",
            "http://127.9.9.9/",
            "https://[::1]:1/",
        ] {
            assert_eq!(chosen(&proxies(""), url), None, "{url}");
        }
    }

    #[test]
    fn no_proxy_takes_domains_ports_addresses_and_networks() {
        let proxies = proxies(
            "corp.example, .sub.example,*.star.example,10.0.0.0/8 p.example:81,fd00::/8,1.2.3.4",
        );
        for (url, direct) in [
            ("https://corp.example/", true),
            ("https://a.corp.example/", true),
            ("https://acorp.example/", false),
            ("https://sub.example/", false),
            ("https://a.sub.example/", true),
            ("https://a.star.example/", true),
            ("https://10.200.0.1/", true),
            ("https://11.0.0.1/", false),
            ("http://p.example:81/", true),
            ("http://p.example/", false),
            ("https://[fd12::1]/", true),
            ("https://1.2.3.4:5000/", true),
        ] {
            assert_eq!(chosen(&proxies, url).is_none(), direct, "{url}");
        }
        let none =
            Proxies::from_environment(|n| Some(if n == "NO_PROXY" { "*" } else { "p" }.into()));
        assert_eq!(chosen(&none, "https://r.example/"), None);
    }
}
