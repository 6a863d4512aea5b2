//! What the command line says of the build context and of the named ones.

use std::path::PathBuf;

use crate::dockerfile::context_name;
use crate::fetch::{Location, LocationError};

/// Standard input, where a path is expected.
pub(super) const STDIN: &str = "-";

/// Where the build context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextSource {
    /// An archive on standard input, or a Dockerfile without any context.
    Stdin,
    /// A directory, an archive, a URL or a repository.
    At(Location),
}

/// What stands for a name of the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedSource {
    /// A directory, a URL or a repository.
    At(Location),
    /// An image; nothing for `scratch`.
    Image(Option<String>),
    /// An image of an OCI layout.
    Layout {
        /// Where the layout is.
        path: PathBuf,
        /// Its tag or digest there; nothing for the only one.
        image: Option<String>,
    },
}

/// A `--build-context` that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NamedSourceError {
    /// It is no pair.
    #[error("invalid build context {0:?}: it is NAME=VALUE")]
    NoPair(String),
    /// A kind that only `docker buildx bake` has.
    #[error("the build context {0:?} is a target of a bake file, which kiln does not read")]
    Target(String),
    /// A repository.
    #[error(transparent)]
    Location(#[from] LocationError),
}

impl NamedSourceError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            NamedSourceError::Location(error) => error.hint(),
            NamedSourceError::Target(_) => Some(
                "build the target first with -t NAME, and give it as docker-image://NAME"
                    .to_owned(),
            ),
            NamedSourceError::NoPair(_) => Some(
                "VALUE is a directory, docker-image://REFERENCE, oci-layout://PATH:TAG, a git URL \
                 or an http(s) URL"
                    .to_owned(),
            ),
        }
    }
}

impl Default for ContextSource {
    fn default() -> ContextSource {
        ContextSource::At(Location::Path(".".to_owned()))
    }
}

impl ContextSource {
    /// Reads the last argument of `kiln build`.
    ///
    /// # Errors
    /// A git URL that has no meaning.
    pub fn parse(text: &str) -> Result<ContextSource, LocationError> {
        match text {
            STDIN => Ok(ContextSource::Stdin),
            text => Location::of_context(text).map(ContextSource::At),
        }
    }
}

impl NamedSource {
    /// Reads a `--build-context`, and returns the name in the form of [`context_name`].
    ///
    /// # Errors
    /// See [`NamedSourceError`].
    pub fn parse(text: &str) -> Result<(String, NamedSource), NamedSourceError> {
        let Some((name, value)) = text
            .split_once('=')
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        else {
            return Err(NamedSourceError::NoPair(text.to_owned()));
        };
        let source = if let Some(image) = value.strip_prefix("docker-image://") {
            NamedSource::Image(Some(image.to_owned()).filter(|image| image != "scratch"))
        } else if let Some(place) = value.strip_prefix("oci-layout://") {
            let (path, image) = split_layout(place);
            NamedSource::Layout {
                path: PathBuf::from(path),
                image: image.map(str::to_owned),
            }
        } else if value.starts_with("target:") {
            return Err(NamedSourceError::Target(value.to_owned()));
        } else {
            NamedSource::At(Location::of_context(value)?)
        };
        Ok((context_name(name), source))
    }
}

/// Splits `PATH[:TAG|@DIGEST]`.
fn split_layout(text: &str) -> (&str, Option<&str>) {
    if let Some((path, digest)) = text.rsplit_once('@')
        && digest.parse::<crate::image::Digest>().is_ok()
    {
        // A tag before a digest says nothing more.
        return (split_layout(path).0, Some(digest));
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !tag.is_empty() => (path, Some(tag)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_contexts_are_told_by_their_scheme() {
        let parse = |text: &str| NamedSource::parse(text).unwrap();
        assert_eq!(
            parse("Docker.io/library/Alpine:latest=docker-image://alpine:3"),
            (
                "alpine".to_owned(),
                NamedSource::Image(Some("alpine:3".to_owned()))
            )
        );
        assert_eq!(
            parse("x=docker-image://scratch").1,
            NamedSource::Image(None)
        );
        let layout = |path: &str, image: Option<&str>| NamedSource::Layout {
            path: path.into(),
            image: image.map(str::to_owned),
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(parse("x=oci-layout:///a/b").1, layout("/a/b", None));
        assert_eq!(
            parse("x=oci-layout://../a:v1").1,
            layout("../a", Some("v1"))
        );
        assert_eq!(
            parse(&format!("x=oci-layout://a:v1@{digest}")).1,
            layout("a", Some(&digest))
        );
        assert_eq!(
            parse("x=../dir=y").1,
            NamedSource::At(Location::Path("../dir=y".to_owned()))
        );
        assert!(NamedSource::parse("x=target:base").is_err());
        assert!(NamedSource::parse("x").is_err());
        assert!(NamedSource::parse("=x").is_err());
    }
}
