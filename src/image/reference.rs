//! Names of images, as people write them and as registries want them.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// A name that is no image reference.
#[derive(Debug, thiserror::Error)]
#[error("invalid image reference {name:?}: {reason}")]
pub struct ReferenceError {
    /// What was written.
    pub name: String,
    reason: String,
}

impl ReferenceError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let lower = self.name.to_lowercase();
        if lower != self.name && lower.parse::<Reference>().is_ok() {
            return Some("repositories have no capitals in their names; tags may".to_owned());
        }
        Some("a name is [registry/]repository[:tag][@sha256:digest]".to_owned())
    }
}

/// A normalised image reference: `busybox` is `docker.io/library/busybox:latest`.
///
/// Parsed by hand: oci-spec's reference does it by a regular expression, which takes 40 ms to
/// compile, ten times as long as all else in a build without changes. A test holds the two
/// together.
/// See <https://pkg.go.dev/github.com/distribution/reference>.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";

/// No repository, with its registry, is longer, in bytes.
const LONGEST_NAME: usize = 255;

/// No tag is longer, in bytes.
const LONGEST_TAG: usize = 128;

/// Tells whether the text is `host[:port]`, the host a name, an address or a bracketed IPv6
/// address.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => (&text[..=end], &text[end + 1..]),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<core::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    is_host && is_port
}

/// Tells whether the text is a part of a repository between slashes: lower-case letters and
/// digits, with one dot, one or two underscores or any number of dashes between them.
fn is_component(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = text.split(is_plain).filter(|between| !between.is_empty());
    text.starts_with(is_plain)
        && text.ends_with(is_plain)
        && separators.into_iter().all(|between| {
            matches!(between, "." | "_" | "__") || between.bytes().all(|b| b == b'-')
        })
}

/// Tells whether what stands before the first slash is a registry.
fn looks_like_host(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':', '['])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

impl Reference {
    /// Returns the registry's name as written in references, such as `docker.io`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository, such as `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag, where there is one. A reference by digest alone has none.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, where the reference pins one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest.clone()
    }

    /// Returns what stands behind the repository in a manifest URL: the digest, else the tag.
    pub fn manifest_selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Returns the repository as docker prints it: without `docker.io` and `library`.
    pub fn familiar_repository(&self) -> String {
        if self.registry() == "docker.io" {
            let repository = self.repository();
            repository
                .strip_prefix("library/")
                .unwrap_or(repository)
                .to_owned()
        } else {
            format!("{}/{}", self.registry(), self.repository())
        }
    }

    /// Returns the whole reference as docker prints it.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_repository();
        if let Some(tag) = self.tag() {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }

    /// Tells whether a name as people write it leaves the registry open, as `busybox` and
    /// `me/app` do.
    pub fn is_short(text: &str) -> bool {
        text.split_once('/')
            .is_none_or(|(first, _)| !looks_like_host(first))
    }

    /// Tells whether a name as people write it says more than a repository: a tag or a digest.
    pub fn has_selector(text: &str) -> bool {
        let last = text.rsplit('/').next().unwrap_or(text);
        last.contains([':', '@'])
    }

    /// Returns the tag of the same repository; nothing where no tag can be called that.
    pub fn with_tag(&self, tag: &str) -> Option<Reference> {
        let name = format!("{}/{}:{tag}", self.registry, self.repository);
        let name: Reference = name.parse().ok()?;
        (name.tag() == Some(tag) && name.digest.is_none()).then_some(name)
    }

    /// Returns the same repository pinned to `digest`, without a tag.
    pub fn with_digest(&self, digest: &Digest) -> Reference {
        Reference {
            tag: None,
            digest: Some(digest.clone()),
            ..self.clone()
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(name: &str) -> Result<Reference, ReferenceError> {
        let error = |reason: &str| ReferenceError {
            name: name.chars().take(300).collect(),
            reason: reason.to_owned(),
        };
        let malformed = || error("invalid reference format");
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse::<Digest>();
                (
                    rest,
                    Some(digest.map_err(|_| error("its digest is malformed"))?),
                )
            }
            None => (name, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest[last..].find(':') {
            Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(malformed());
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if looks_like_host(first) => (first, rest.to_owned()),
            _ => (DEFAULT_REGISTRY, path.to_owned()),
        };
        let registry = match registry {
            "index.docker.io" => DEFAULT_REGISTRY,
            other => other,
        };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if !is_registry(registry) || !repository.split('/').all(is_component) {
            return Err(malformed());
        }
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(error("it is longer than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Reference {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    /// Writes the normalised, complete form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry(), self.repository())?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_normalised_as_docker_does() {
        for (name, full, familiar) in [
            (
                "busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("me/app:1", "docker.io/me/app:1", "me/app:1"),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "localhost:5000/x/y:z",
                "localhost:5000/x/y:z",
                "localhost:5000/x/y:z",
            ),
            (
                "127.0.0.1:5000/a",
                "127.0.0.1:5000/a:latest",
                "127.0.0.1:5000/a:latest",
            ),
        ] {
            let reference: Reference = name.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(full.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn a_digest_pins_and_a_malformed_one_is_refused() {
        let digest = Digest::of(b"x");
        let pinned: Reference = format!("a/b@{digest}").parse().unwrap();
        assert_eq!(pinned.digest(), Some(digest.clone()));
        assert_eq!(pinned.manifest_selector(), digest.to_string());
        assert!("a/b@sha256:zz".parse::<Reference>().is_err());
        assert!("me/Case".parse::<Reference>().is_err());
        assert!("".parse::<Reference>().is_err());
    }

    #[test]
    fn names_are_taken_and_refused_as_oci_spec_does() {
        let digest = Digest::of(b"x");
        let pinned = format!("reg.example.com:443/a/b_c@{digest}");
        let both = format!("a:1@{digest}");
        let long = "a".repeat(129);
        for name in [
            "a",
            "a/b",
            "a/b/c:d",
            "a.b/c",
            "localhost/a",
            "a__b",
            "a___b",
            "a..b",
            "a-b--c",
            "-a",
            "a-",
            "a_",
            "a:",
            "a:-x",
            "a:_x.y-z",
            "a:b:c",
            "a//b",
            "/a",
            "a/",
            "",
            " ",
            "a b",
            "a@",
            "a@sha256:1",
            "host:12/a:x",
            "host:1x/a",
            "-x.com/a",
            "1.2.3.4:5/a",
            "a/B",
            &pinned,
            &both,
            &format!("a:{}", &long[1..]),
            &format!("a:{long}"),
        ] {
            let ours = name.parse::<Reference>();
            let theirs = name.parse::<oci_spec::distribution::Reference>();
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => {
                    assert_eq!(ours.registry(), theirs.registry(), "{name}");
                    assert_eq!(ours.repository(), theirs.repository(), "{name}");
                    assert_eq!(ours.tag(), theirs.tag(), "{name}");
                    let pinned = ours.digest().map(|d| d.to_string());
                    assert_eq!(pinned.as_deref(), theirs.digest(), "{name}");
                }
                (Err(_), Err(_)) => {}
                (ours, theirs) => panic!("{name:?}: {ours:?} and {theirs:?}"),
            }
        }
    }

    #[test]
    fn a_first_part_with_capitals_is_a_registry_as_in_docker() {
        let reference: Reference = "Host/a".parse().unwrap();
        assert_eq!(reference.to_string(), "Host/a:latest");
    }

    #[test]
    fn an_ipv6_address_is_a_registry() {
        let reference: Reference = "[::1]:5000/a:b".parse().unwrap();
        assert_eq!(reference.registry(), "[::1]:5000");
        assert_eq!(reference.to_string(), "[::1]:5000/a:b");
        assert!("[::x]/a".parse::<Reference>().is_err());
    }
}
