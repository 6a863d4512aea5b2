//! Ports of EXPOSE and the signal of STOPSIGNAL, both read after expansion.

// The type alone: an address in a text, and no network.
use core::net::IpAddr;

use super::suggest::did_you_mean;

/// An argument of EXPOSE that is no port.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid port {text:?}: {reason}")]
pub struct PortError {
    text: String,
    reason: &'static str,
}

impl PortError {
    /// Returns what a port looks like.
    pub fn hint(&self) -> Option<String> {
        Some("a port is 80, 80/udp, or a range as 8000-8010/tcp".to_owned())
    }
}

/// Returns the ports of EXPOSE as the config names them, `80/tcp`: ranges written out,
/// protocols in lower case. As in the reference, an address and a port of the host
/// (`127.0.0.1:80:80`) are accepted and mean nothing.
pub fn parse_ports(words: &[String]) -> Result<Vec<String>, PortError> {
    let mut ports = Vec::new();
    for word in words {
        let error = |reason| PortError {
            text: word.chars().take(100).collect(),
            reason,
        };
        let (host, container) = word.rsplit_once(':').unwrap_or(("", word));
        let (range, protocol) = match container.split_once('/') {
            Some((range, protocol)) => (range, protocol.to_ascii_lowercase()),
            None => (container, String::new()),
        };
        let protocol = match protocol.as_str() {
            "" => "tcp",
            "tcp" | "udp" | "sctp" => &protocol,
            _ => return Err(error("the protocol must be tcp, udp or sctp")),
        };
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = plain.then(|| text.parse::<u16>().ok()).flatten();
            number.ok_or(error("expected a number from 0 to 65535"))
        };
        let bounds = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (number(first)?, number(last)?);
            match last < first {
                true => Err(error("the range ends before it starts")),
                false => Ok((first, last)),
            }
        };
        let (first, last) = bounds(range)?;
        let (address, host) = host.rsplit_once(':').unwrap_or(("", host));
        if !host.is_empty() {
            let (from, to) = bounds(host)?;
            if first != last && to - from != last - first {
                return Err(error("the ranges of host and container differ in length"));
            }
        }
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
        if !address.is_empty() && bare.unwrap_or(address).parse::<IpAddr>().is_err() {
            return Err(error("the host must be an IP address"));
        }
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(ports)
}

/// A STOPSIGNAL that Linux doesn't know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid signal {0:?}")]
pub struct SignalError(pub String);

impl SignalError {
    /// Returns the nearest name, or what a signal looks like.
    pub fn hint(&self) -> Option<String> {
        let name = self.0.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let near = did_you_mean(name, SIGNALS.iter().map(|(name, _)| *name));
        near.map(|hint| hint.replace("mean ", "mean SIG"))
            .or_else(|| Some("a signal is a name as SIGTERM or a number from 1 to 64".to_owned()))
    }
}

const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// Returns the number of a signal: a number, or a name with or without `SIG`.
pub fn parse_signal(text: &str) -> Result<i32, SignalError> {
    let error = || SignalError(text.chars().take(100).collect());
    let in_range = |number: i32| {
        (1..=64)
            .contains(&number)
            .then_some(number)
            .ok_or_else(error)
    };
    if let Ok(number) = text.parse::<i32>() {
        return in_range(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<i32>().ok()).flatten()
    };
    if let Some(above) = name.strip_prefix("RTMIN+").and_then(offset) {
        return in_range(above.saturating_add(34));
    }
    if let Some(below) = name.strip_prefix("RTMAX-").and_then(offset) {
        let number = 64_i32.saturating_sub(below);
        return if number >= 34 {
            Ok(number)
        } else {
            Err(error())
        };
    }
    let known = SIGNALS.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEMANTICS 21
    #[test]
    fn ports_are_written_out() {
        let cases: [(&str, Option<&[&str]>); 22] = [
            ("80", Some(&["80/tcp"])),
            ("80/UDP", Some(&["80/udp"])),
            ("53/sctp", Some(&["53/sctp"])),
            ("80/", Some(&["80/tcp"])),
            ("7000-7002/udp", Some(&["7000/udp", "7001/udp", "7002/udp"])),
            ("80-80", Some(&["80/tcp"])),
            ("127.0.0.1:8080:80", Some(&["80/tcp"])),
            ("127.0.0.1::80", Some(&["80/tcp"])),
            ("[::1]:8080:80", Some(&["80/tcp"])),
            ("8080:80/udp", Some(&["80/udp"])),
            ("8080-8090:80", Some(&["80/tcp"])),
            ("8080-8081:80-81", Some(&["80/tcp", "81/tcp"])),
            ("8080-8082:80-81", None),
            ("localhost:80:80", None),
            ("http:80", None),
            ("80/icmp", None),
            ("", None),
            ("/tcp", None),
            ("65536", None),
            ("90-80", None),
            ("+80", None),
            ("a", None),
        ];
        for (text, expected) in cases {
            let ports = parse_ports(&[text.to_owned()]).ok();
            let expected = expected.map(|e| e.iter().map(|s| s.to_string()).collect::<Vec<_>>());
            assert_eq!(ports, expected, "{text}");
        }
    }

    /// SEMANTICS 58
    #[test]
    fn signals_are_names_or_numbers() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMIN", Some(34)),
            ("0", None),
            ("65", None),
            ("-1", None),
            ("SIGFOO", None),
            ("RTMIN+99", None),
            ("RTMAX-63", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_signal(text).ok(), expected, "{text}");
        }
        let error = parse_signal("SIGTREM").unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("did you mean SIGTERM?"));
    }
}
