//! Places of images as skopeo writes them: `docker://NAME`, `oci:DIR:REF`, `store:NAME` …

use std::path::PathBuf;

use super::session::Workshop;
use super::{CliError, Result};
use crate::archive::{Destination, Layout};
use crate::copy::{
    CopyError, FileOrigin, Files, ListOrigin, Origin, Plan, RegistryGoal, RegistryOrigin,
    StoreGoal, StoreOrigin, copy,
};
use crate::event::Verb;
use crate::image::{Digest, Platform, Reference};
use crate::registry::Client;
use crate::transfer::{self, Packing, Transfer};

/// A place that an image comes from or goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A repository of a registry.
    Registry(Reference),
    /// The store, by a name or an id.
    Store(String),
    /// An archive or a layout.
    Files {
        path: PathBuf,
        kind: Kind,
        name: Option<String>,
    },
}

/// What files are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    OciDirectory,
    OciArchive,
    DockerArchive,
}

/// What stands before the colon of a place, but for `docker://`.
const WORDS: [&str; 5] = [
    "containers-storage",
    "docker-archive",
    "oci",
    "oci-archive",
    "store",
];

impl Place {
    /// Parses a place. What has no word before it is a name in a registry.
    ///
    /// # Errors
    /// It is no name; the word is none that kiln knows.
    pub(super) fn parse(text: &str) -> Result<Place> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Place::Registry(name.parse()?));
        }
        let (word, rest) = text.split_once(':').unwrap_or(("", text));
        let kind = match word {
            // kiln's own, whatever podman has in its.
            "store" | "containers-storage" => return Ok(Place::Store(rest.to_owned())),
            "oci" => Kind::OciDirectory,
            "oci-archive" => Kind::OciArchive,
            "docker-archive" => Kind::DockerArchive,
            "dir" | "docker-daemon" | "ostree" | "sif" | "docker" | "http" | "https" => {
                let words = WORDS.join(":, ");
                return Err(
                    CliError::message(format!("kiln copies to and from no {word}:"))
                        .hinted(format!("it knows docker://, {words}:")),
                );
            }
            _ => return Ok(Place::Registry(text.parse()?)),
        };
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) if !name.is_empty() => (path, Some(name.to_owned())),
            Some((path, _)) => (path, None),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(CliError::message(format!("{text:?} names no file"))
                .hinted(format!("write {word}:PATH or {word}:PATH:NAME")));
        }
        Ok(Place::Files {
            path: path.into(),
            kind,
            name,
        })
    }

    /// Returns its name, where it is in a registry.
    pub(super) fn in_registry(&self) -> Option<&Reference> {
        match self {
            Place::Registry(name) => Some(name),
            _ => None,
        }
    }

    /// Opens the place as an origin. With `whole`, a name of the store stands for its index;
    /// without, layers of the store are compressed as `packing` asks.
    ///
    /// # Errors
    /// There is no such image.
    pub(super) fn origin<'a>(
        &self,
        transfer: &Transfer<'a>,
        client: &'a Client,
        whole: bool,
        packing: &Packing,
    ) -> std::result::Result<Box<dyn Origin + 'a>, CopyError> {
        Ok(match self {
            Place::Registry(reference) => Box::new(RegistryOrigin::new(client, reference.clone())),
            Place::Store(name) => {
                let list = match name.parse::<Reference>() {
                    Ok(reference) => transfer.store.list(&reference)?,
                    Err(_) => None,
                };
                match list {
                    Some(list) => Box::new(ListOrigin::new(transfer.store, client, list)),
                    None => Box::new(StoreOrigin::find(transfer, name, whole, packing)?),
                }
            }
            Place::Files { path, name, .. } => {
                Box::new(FileOrigin::open(transfer, path, name.as_deref())?)
            }
        })
    }

    /// Brings all of a plan here, and returns the digest of what was asked for. In the store,
    /// the image for `platform` gets the name.
    ///
    /// # Errors
    /// Of either place.
    pub(super) fn take(
        &self,
        transfer: &Transfer<'_>,
        client: &Client,
        plan: &Plan,
        origin: &dyn Origin,
        platform: &Platform,
    ) -> std::result::Result<Digest, CopyError> {
        let plan = match self {
            Place::Registry(reference) => {
                let elsewhere = transfer::repositories(transfer.store, reference.registry())?;
                let goal = RegistryGoal::new(client, reference.clone(), elsewhere);
                copy(transfer, plan, origin, &goal, Verb::Copy)?
            }
            Place::Store(name) => {
                let name: Reference = name.parse().map_err(crate::store::StoreError::from)?;
                let goal = StoreGoal::new(transfer);
                let plan = copy(transfer, plan, origin, &goal, Verb::Copy)?;
                goal.publish(&plan, &name, platform)?;
                plan
            }
            Place::Files { path, kind, name } => {
                let (layout, destination) = match kind {
                    Kind::OciDirectory => (Layout::Oci, Destination::Directory(path.clone())),
                    Kind::OciArchive => (Layout::Oci, Destination::File(path.clone())),
                    Kind::DockerArchive => (Layout::Docker, Destination::File(path.clone())),
                };
                let files = Files {
                    destination,
                    layout,
                    name: name.clone(),
                };
                files.take(transfer, plan, origin)?
            }
        };
        Ok(plan.root()?.descriptor.digest.clone())
    }
}

/// Finds what a name stands for: a list or an image of the store, else of its registry.
///
/// # Errors
/// It is no name, and no id either.
pub(super) fn find(workshop: &Workshop, text: &str) -> Result<Place> {
    let is_place = text.starts_with("docker://")
        || WORDS.iter().any(|word| {
            let rest = text.strip_prefix(word);
            rest.is_some_and(|rest| rest.starts_with(':'))
        });
    if is_place {
        return Place::parse(text);
    }
    let is_list = match text.parse::<Reference>() {
        Ok(name) => workshop.store.list(&name)?.is_some(),
        Err(_) => false,
    };
    match workshop.store.find(text) {
        _ if is_list => Ok(Place::Store(text.to_owned())),
        Ok(_) => Ok(Place::Store(text.to_owned())),
        Err(crate::store::StoreError::NoImage(_)) => Ok(Place::Registry(text.parse()?)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_skopeo_writes_them() {
        let files = |path: &str, kind, name: Option<&str>| Place::Files {
            path: path.into(),
            kind,
            name: name.map(str::to_owned),
        };
        let registry = |name: &str| Place::Registry(name.parse().unwrap());
        for (text, place) in [
            (
                "docker://r.example:5000/a:1",
                registry("r.example:5000/a:1"),
            ),
            ("r.example:5000/a:1", registry("r.example:5000/a:1")),
            ("busybox:1", registry("busybox:1")),
            ("store:busybox:1", Place::Store("busybox:1".to_owned())),
            ("containers-storage:x", Place::Store("x".to_owned())),
            ("oci:a/b", files("a/b", Kind::OciDirectory, None)),
            ("oci:a/b:", files("a/b", Kind::OciDirectory, None)),
            ("oci:a:b:1", files("a", Kind::OciDirectory, Some("b:1"))),
            (
                "oci-archive:x.tar:1",
                files("x.tar", Kind::OciArchive, Some("1")),
            ),
            (
                "docker-archive:/x.tar:b:1",
                files("/x.tar", Kind::DockerArchive, Some("b:1")),
            ),
        ] {
            assert_eq!(Place::parse(text).unwrap(), place, "{text}");
        }
        for text in ["dir:x", "oci:", "oci::x", "docker:x", "docker://"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
