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
/// Equality and order are those of the normalised text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference(oci_spec::distribution::Reference);

impl Reference {
    /// Returns the registry's name as written in references, such as `docker.io`.
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// Returns the host (and port) that serves the registry's API.
    pub fn api_host(&self) -> &str {
        match self.registry() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    /// Returns the repository, such as `library/busybox`.
    pub fn repository(&self) -> &str {
        self.0.repository()
    }

    /// Returns the tag, where there is one. A reference by digest alone has none.
    pub fn tag(&self) -> Option<&str> {
        self.0.tag()
    }

    /// Returns the digest, where the reference pins one.
    pub fn digest(&self) -> Option<Digest> {
        self.0.digest().and_then(|text| text.parse().ok())
    }

    /// Returns what stands behind the repository in a manifest URL: the digest, else the tag.
    pub fn manifest_selector(&self) -> &str {
        self.0.digest().or(self.0.tag()).unwrap_or("latest")
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
        if let Some(digest) = self.0.digest() {
            text.push('@');
            text.push_str(digest);
        }
        text
    }

    /// Returns the same repository pinned to `digest`, without a tag.
    pub fn with_digest(&self, digest: &Digest) -> Reference {
        Reference(oci_spec::distribution::Reference::with_digest(
            self.registry().to_owned(),
            self.repository().to_owned(),
            digest.to_string(),
        ))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(name: &str) -> Result<Reference, ReferenceError> {
        let error = |reason: String| ReferenceError {
            name: name.chars().take(300).collect(),
            reason,
        };
        let parsed: oci_spec::distribution::Reference = name
            .parse()
            .map_err(|e: oci_spec::distribution::ParseError| error(e.to_string()))?;
        if parsed
            .digest()
            .is_some_and(|d| d.parse::<Digest>().is_err())
        {
            return Err(error("its digest is malformed".to_owned()));
        }
        Ok(Reference(parsed))
    }
}

impl fmt::Display for Reference {
    /// Writes the normalised, complete form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry(), self.repository())?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = self.0.digest() {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Reference) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Reference) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
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
    fn docker_hub_is_served_by_another_host() {
        let reference: Reference = "busybox".parse().unwrap();
        assert_eq!(reference.api_host(), "registry-1.docker.io");
    }
}
