//! What a command finds around it beside its files: names of hosts, resolvers, limits.

use std::fmt::Write as _;
use std::net::IpAddr;

/// What a command finds around it. The default is what kiln gives it unasked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Names for /etc/hosts, with their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// Name servers, in place of the host's.
    pub nameservers: Vec<IpAddr>,
    /// Domains that short names are looked for in, in place of the host's.
    pub search: Vec<String>,
    /// Options of the resolver, in place of the host's.
    pub resolver_options: Vec<String>,
    /// The size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// Resource limits: resource (`RLIMIT_…`), soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
}

impl Surroundings {
    /// Hands out what a command may see of it, for a cache key. The default has nothing.
    pub fn add_to(&self, mut key: impl FnMut(&str)) {
        if *self != Surroundings::default() {
            key("surroundings");
            key(&format!("{self:?}"));
        }
    }

    /// Returns the resolver's configuration; `host` is that of the host.
    pub(super) fn resolv_conf(&self, host: &str) -> String {
        let replaced = [
            ("nameserver", !self.nameservers.is_empty()),
            ("search", !self.search.is_empty()),
            ("domain", !self.search.is_empty()),
            ("options", !self.resolver_options.is_empty()),
        ];
        if replaced.iter().all(|(_, replaced)| !replaced) {
            return host.to_owned();
        }
        let stays = |line: &&str| {
            let word = line.split_whitespace().next().unwrap_or_default();
            !replaced.contains(&(word, true))
        };
        let mut text: String = host
            .lines()
            .filter(stays)
            .map(|l| format!("{l}\n"))
            .collect();
        for address in &self.nameservers {
            let _ = writeln!(text, "nameserver {address}");
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        if !self.resolver_options.is_empty() {
            let _ = writeln!(text, "options {}", self.resolver_options.join(" "));
        }
        text
    }

    /// Returns lines for /etc/hosts.
    pub(super) fn hosts_lines(&self) -> String {
        let lines = self.hosts.iter();
        lines
            .map(|(name, address)| format!("{address}\t{name}\n"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_resolver_stays_as_far_as_nothing_else_is_said() {
        const HOST: &str = "# c\nnameserver 10.0.0.1\nsearch a.example\noptions edns0\n";
        let surroundings = Surroundings::default();
        assert_eq!(surroundings.resolv_conf(HOST), HOST);
        let surroundings = Surroundings {
            nameservers: vec!["192.0.2.1".parse().unwrap()],
            resolver_options: vec!["ndots:2".to_owned()],
            ..Surroundings::default()
        };
        assert_eq!(
            surroundings.resolv_conf(HOST),
            "# c\nsearch a.example\nnameserver 192.0.2.1\noptions ndots:2\n"
        );
    }

    #[test]
    fn only_what_was_asked_for_is_part_of_a_key() {
        let mut seen = Vec::new();
        Surroundings::default().add_to(|text| seen.push(text.to_owned()));
        assert!(seen.is_empty());
        let surroundings = Surroundings {
            shm_size: Some(1),
            ..Surroundings::default()
        };
        surroundings.add_to(|text| seen.push(text.to_owned()));
        assert_eq!(seen.len(), 2);
    }
}
