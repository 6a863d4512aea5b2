//! Values of flags that have a syntax of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use crate::cli::{CliError, Result};
use crate::dockerfile::suggest::did_you_mean;
use crate::sandbox::Surroundings;

/// No file of build arguments is larger, in bytes.
const ARG_FILE_LIMIT: u64 = 16 << 20;

/// Adds `NAME=value`, or `NAME` with the caller's value.
pub(super) fn add_variable(to: &mut BTreeMap<String, String>, text: &str) {
    match text.split_once('=') {
        Some((name, value)) => {
            to.insert(name.to_owned(), value.to_owned());
        }
        None => {
            if let Ok(value) = std::env::var(text) {
                to.insert(text.to_owned(), value);
            }
        }
    }
}

/// Reads build arguments, one on each line; blank lines and comments are skipped.
pub(super) fn build_arg_file(to: &mut BTreeMap<String, String>, path: &Path) -> Result<()> {
    use std::io::Read as _;
    let fail = |error: &dyn std::fmt::Display| {
        CliError::message(format!("cannot read {}: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| fail(&error))?;
    let mut text = String::new();
    file.take(ARG_FILE_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| fail(&error))?;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                to.insert(name.to_owned(), value.to_owned());
            }
            _ => {
                let place = format!("{}:{}", path.display(), index + 1);
                return Err(CliError::message(format!(
                    "{place}: {line:?} is not NAME=value"
                )));
            }
        }
    }
    Ok(())
}

/// Parses a size in bytes, with `k`, `m` or `g` behind it.
pub(in crate::cli) fn size(text: &str) -> std::result::Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err("a size is a number with k, m or g behind it".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a size is a number with k, m or g behind it".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "that is more than a machine can have".to_owned())
}

/// Parses `host:ip` or `host=ip`; an IPv6 address may stand in brackets.
pub(in crate::cli) fn host(text: &str) -> std::result::Result<(String, IpAddr), String> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or("it is HOST:ADDRESS")?;
    let valid = !name.is_empty()
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#');
    if !valid {
        return Err(format!("{name:?} is no name of a host"));
    }
    if address == "host-gateway" {
        return Err("steps share the host's network: use 127.0.0.1".to_owned());
    }
    let plain = address.trim_start_matches('[').trim_end_matches(']');
    let address = plain
        .parse()
        .map_err(|_| format!("{address:?} is no IP address"))?;
    Ok((name.to_owned(), address))
}

/// Parses a word of a resolver's configuration.
pub(in crate::cli) fn resolver_word(text: &str) -> std::result::Result<String, String> {
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err("it is a single word".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Names of limits, and what the kernel calls them.
const LIMITS: [(&str, Resource); 15] = [
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

/// Parses `name=soft[:hard]`; -1 and `unlimited` are no limit, and `host` is the caller's.
pub(in crate::cli) fn ulimit(text: &str) -> std::result::Result<Option<(u32, u64, u64)>, String> {
    if text == "host" {
        return Ok(None);
    }
    let (name, values) = text.split_once('=').ok_or("it is NAME=SOFT[:HARD]")?;
    let names = LIMITS.iter().map(|(name, _)| *name);
    let Some((_, resource)) = LIMITS.iter().find(|(known, _)| *known == name) else {
        let near = did_you_mean(name, names.clone());
        let all: Vec<&str> = names.collect();
        return Err(near.unwrap_or_else(|| format!("the limits are {}", all.join(", "))));
    };
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(libc::RLIM_INFINITY),
        number => number
            .parse()
            .map_err(|_| format!("{number:?} is no number")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err("the soft limit is above the hard one".to_owned());
    }
    // Raising a hard limit needs a right that nobody has here: better said now than by a step.
    let (_, ours) = getrlimit(*resource)
        .map_err(|errno| format!("its present value can't be read: {errno}"))?;
    if hard > ours {
        let shown = match ours {
            libc::RLIM_INFINITY => "unlimited".to_owned(),
            number => number.to_string(),
        };
        return Err(format!("your own hard limit of {name} is {shown}"));
    }
    Ok(Some((*resource as u32, soft, hard)))
}

/// Flags about what steps see around them.
#[derive(clap::Args)]
pub(super) struct Around {
    /// Give a host a name in RUN
    #[arg(long, value_name = "HOST:ADDRESS", value_parser = host)]
    add_host: Vec<(String, IpAddr)>,
    /// Ask this name server in RUN
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Look for short names in this domain in RUN
    #[arg(long, value_name = "DOMAIN", value_parser = resolver_word)]
    dns_search: Vec<String>,
    /// An option of the resolver in RUN
    #[arg(long, value_name = "OPTION", value_parser = resolver_word)]
    dns_option: Vec<String>,
    /// The size of /dev/shm in RUN [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shm_size: Option<u64>,
    /// Limit a resource of each process in RUN
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    ulimit: Vec<Option<(u32, u64, u64)>>,
}

impl From<&Around> for Surroundings {
    fn from(around: &Around) -> Surroundings {
        Surroundings {
            hosts: around.add_host.clone(),
            nameservers: around.dns.clone(),
            search: around.dns_search.clone(),
            resolver_options: around.dns_option.clone(),
            shm_size: around.shm_size,
            rlimits: around.ulimit.iter().flatten().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("64m", 64 << 20), ("1G", 1 << 30), ("5", 5), ("2kb", 2048)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "1x", "-1", "99999999999999g"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_have_addresses() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(
            host("a:10.0.0.1"),
            Ok(("a".to_owned(), "10.0.0.1".parse().unwrap()))
        );
        assert_eq!(host("a=2001:db8::1"), Ok(("a".to_owned(), v6)));
        assert_eq!(host("a:[2001:db8::1]"), Ok(("a".to_owned(), v6)));
        for text in ["a", ":1.1.1.1", "a:b", "a b:1.1.1.1", "a\nb:1.1.1.1"] {
            assert!(host(text).is_err(), "{text:?}");
        }
        assert!(host("a:host-gateway").unwrap_err().contains("127.0.0.1"));
    }

    #[test]
    fn limits_are_those_of_the_kernel() {
        let (resource, soft, hard) = ulimit("nofile=10:20").unwrap().unwrap();
        assert_eq!(
            (resource, soft, hard),
            (Resource::RLIMIT_NOFILE as u32, 10, 20)
        );
        assert_eq!(
            ulimit("core=0"),
            Ok(Some((Resource::RLIMIT_CORE as u32, 0, 0)))
        );
        assert_eq!(ulimit("host"), Ok(None));
        assert_eq!(ulimit("nofle=1").unwrap_err(), "did you mean nofile?");
        for text in ["nofile", "nofile=x", "nofile=2:1", "what=1"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_of_build_arguments() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("args");
        std::fs::write(&path, "# comment\n\nA=1\n  B=x = y  \nC=\n").unwrap();
        let mut found = BTreeMap::new();
        build_arg_file(&mut found, &path).unwrap();
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, [("A", "1"), ("B", "x = y"), ("C", "")]);
        std::fs::write(&path, "A\n").unwrap();
        assert!(build_arg_file(&mut BTreeMap::new(), &path).is_err());
    }
}
