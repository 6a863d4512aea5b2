//! Platforms: operating system, CPU architecture and variant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform that could not be parsed.
#[derive(Debug, thiserror::Error)]
#[error("invalid platform {0:?}: expected os/architecture[/variant], as in linux/arm64/v8")]
pub struct PlatformError(String);

/// The platform of an image, in Go's names (`amd64`, not `x86_64`).
/// See <https://github.com/opencontainers/image-spec/blob/main/image-index.md>.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The CPU architecture, such as `amd64`.
    pub architecture: String,
    /// The operating system, such as `linux`.
    pub os: String,
    /// The variant of the architecture, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The version of the operating system (Windows only).
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// Required features of the operating system.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

impl Platform {
    /// Returns the platform that this binary runs on.
    pub fn host() -> Platform {
        let (architecture, variant) = normalise(std::env::consts::ARCH, None);
        Platform {
            architecture,
            os: "linux".to_owned(),
            variant,
            os_version: None,
            os_features: Vec::new(),
        }
    }

    /// Tells whether an image of platform `self` runs where `wanted` is asked for.
    /// A variant that one side does not name matches, after normalisation.
    pub fn matches(&self, wanted: &Platform) -> bool {
        let (have, have_variant) = normalise(&self.architecture, self.variant.as_deref());
        let (want, want_variant) = normalise(&wanted.architecture, wanted.variant.as_deref());
        self.os.eq_ignore_ascii_case(&wanted.os)
            && have == want
            && (have_variant == want_variant || want_variant.is_none() || have_variant.is_none())
    }
}

/// Maps the many names of one architecture to Go's, and drops default variants.
fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let lower = architecture.to_ascii_lowercase();
    let (name, default) = match lower.as_str() {
        "x86_64" | "x86-64" => ("amd64", None),
        "i386" | "i486" | "i586" | "i686" | "x86" => ("386", None),
        "aarch64" => ("arm64", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        "powerpc64le" | "ppc64el" => ("ppc64le", None),
        "loongarch64" => ("loong64", None),
        other => (other, None),
    };
    let variant = variant.filter(|v| !v.is_empty()).or(default);
    let variant = match (name, variant) {
        ("arm64", Some("8" | "v8")) | ("amd64", Some("v1")) => None,
        ("arm", Some(v @ ("5" | "6" | "7" | "8"))) => Some(format!("v{v}")),
        (_, v) => v.map(str::to_owned),
    };
    (name.to_owned(), variant)
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |p: &&str| {
            !p.is_empty()
                && p.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if !parts.iter().all(valid) {
            return Err(PlatformError(text.to_owned()));
        }
        let (os, architecture, variant) = match parts[..] {
            // A lone word is an operating system or an architecture, as docker takes it.
            ["linux"] => ("linux", std::env::consts::ARCH, None),
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(PlatformError(text.to_owned())),
        };
        let (architecture, variant) = normalise(architecture, variant);
        Ok(Platform {
            architecture,
            os: os.to_ascii_lowercase(),
            variant,
            os_version: None,
            os_features: Vec::new(),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_of_one_architecture_are_equal() {
        assert_eq!(parse("linux/x86_64"), parse("amd64"));
        assert_eq!(parse("linux/aarch64/v8"), parse("linux/arm64"));
        assert_eq!(parse("linux/armhf").to_string(), "linux/arm/v7");
        assert!("linux/".parse::<Platform>().is_err());
        assert!("a/b/c/d".parse::<Platform>().is_err());
    }

    #[test]
    fn matching_ignores_an_unnamed_variant() {
        assert!(parse("linux/arm/v7").matches(&parse("linux/arm")));
        assert!(!parse("linux/arm/v6").matches(&parse("linux/arm/v7")));
        assert!(!parse("linux/amd64").matches(&parse("linux/arm64")));
    }
}
