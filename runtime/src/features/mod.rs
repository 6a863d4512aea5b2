//! What this host allows: found out by trying, never by version, and told with the remedy
//! where something is missing.
//!
//! [`HostFeatures::probe`] tries everything, for `kiln doctor`; [`overlay_kind`] the one thing
//! that a build has to choose by.

mod overlay;
mod probe;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;

pub use overlay::{OverlayChoice, overlay_kind};

/// Something that kiln uses where the host allows it, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// User namespaces for ordinary users.
    UserNamespaces,
    /// Entries in /etc/subuid and /etc/subgid.
    SubordinateIds,
    /// newuidmap and newgidmap, and what they answer.
    IdMaps,
    /// A step's namespaces and mounts, all of them, down to the exec.
    Sandbox,
    /// A /proc of the step's own.
    FreshProc,
    /// A net namespace with a loopback interface, for `--network none`.
    NetNamespace,
    /// Filters of system calls.
    Seccomp,
    /// The kernel's overlay on the store.
    KernelOverlay,
    /// fuse-overlayfs on the store.
    FuseOverlay,
    /// `clone3(2)`, which containers' filters may refuse.
    Clone3,
    /// Landlock's scopes, which close the host's abstract sockets.
    Landlock,
    /// A cgroup whose limits this user may set.
    Cgroups,
    /// Whiteouts as device nodes 0:0 in the store.
    WhiteoutNodes,
    /// Whiteouts as extended attributes in the store.
    WhiteoutXattrs,
    /// Copies that share their data, in the store.
    Reflinks,
}

impl Feature {
    /// Tells whether kiln only works better with it.
    pub fn is_optional(self) -> bool {
        !matches!(
            self,
            Feature::UserNamespaces
                | Feature::SubordinateIds
                | Feature::IdMaps
                | Feature::Sandbox
                | Feature::FreshProc
                | Feature::Seccomp
        )
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Feature::UserNamespaces => "user namespaces",
            Feature::SubordinateIds => "subordinate ids",
            Feature::IdMaps => "newuidmap, newgidmap",
            Feature::Sandbox => "sandbox",
            Feature::FreshProc => "own /proc",
            Feature::NetNamespace => "net namespaces",
            Feature::Seccomp => "seccomp filters",
            Feature::KernelOverlay => "kernel overlay",
            Feature::FuseOverlay => "fuse-overlayfs",
            Feature::Clone3 => "clone3",
            Feature::Landlock => "Landlock scopes",
            Feature::Cgroups => "cgroup limits",
            Feature::WhiteoutNodes => "whiteout nodes",
            Feature::WhiteoutXattrs => "whiteout xattrs",
            Feature::Reflinks => "reflinks",
        })
    }
}

/// What came of trying a feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum State {
    /// It works.
    Works {
        /// How much or which version, where that is worth a word.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// It does not.
    Missing {
        /// What the kernel or a program said.
        reason: String,
        /// What to do about it; "" where that is said of what this one needs.
        remedy: String,
    },
}

impl State {
    fn works(detail: impl Into<String>) -> State {
        let detail = detail.into();
        State::Works { detail }
    }

    fn missing(reason: impl fmt::Display, remedy: impl Into<String>) -> State {
        State::Missing {
            reason: reason.to_string(),
            remedy: remedy.into(),
        }
    }

    /// Makes a state of an error, with its own hint where it has one.
    fn of_error(error: &Error, remedy: &str) -> State {
        State::missing(error, error.hint().unwrap_or_else(|| remedy.to_owned()))
    }

    /// Tells whether it works.
    pub fn is_works(&self) -> bool {
        matches!(self, State::Works { .. })
    }
}

/// A feature and what came of trying it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Which.
    pub feature: Feature,
    /// What came of it.
    #[serde(flatten)]
    pub state: State,
}

/// How RUN works here: the rung of the ladder that the host allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// Namespaces, subordinate ids and the kernel's overlay.
    Full,
    /// The same with fuse-overlayfs.
    Fuse,
    /// Not at all: pull, push and builds without RUN work.
    None,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rung::Full => "full: RUN has its own namespaces and ids, over the kernel's overlay",
            Rung::Fuse => "full with fuse-overlayfs: RUN has its own namespaces and ids",
            Rung::None => "none: RUN does not work here; pull, push and builds without RUN do",
        })
    }
}

/// What this host allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFeatures {
    /// The boot that this holds for.
    pub boot_id: String,
    /// The kernel's version: for reports, nothing is decided by it.
    pub kernel: String,
    /// All features, in the order in which they are shown.
    pub features: Vec<Probed>,
}

impl HostFeatures {
    /// Tries all features; those of file systems on `directory`. What is tried happens in
    /// processes of its own: this one stays as it is.
    ///
    /// # Errors
    /// [`Error::Threads`] in a process with threads; a `directory` that can't be written; what
    /// fork(2) says.
    pub fn probe(directory: &Path) -> Result<HostFeatures, Error> {
        // Where nothing can be written, nothing can be said of the rest.
        drop(overlay::Scratch::new(directory)?);
        let features = probe::in_child(|| probe::all(directory))?;
        Ok(HostFeatures {
            boot_id: boot_id(),
            kernel: nix::sys::utsname::uname()
                .map(|name| name.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            features,
        })
    }

    /// Tells whether a feature works.
    pub fn works(&self, feature: Feature) -> bool {
        let mut features = self.features.iter();
        features.any(|p| p.feature == feature && p.state.is_works())
    }

    /// Returns the rung that RUN can stand on.
    pub fn rung(&self) -> Rung {
        let required = |p: &&Probed| !p.feature.is_optional();
        if !self
            .features
            .iter()
            .filter(required)
            .all(|p| p.state.is_works())
        {
            Rung::None
        } else if self.works(Feature::KernelOverlay) {
            Rung::Full
        } else if self.works(Feature::FuseOverlay) {
            Rung::Fuse
        } else {
            Rung::None
        }
    }
}

/// Returns what is new at every boot; "" where the kernel hides it.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(missing: &[Feature]) -> HostFeatures {
        let all = [
            Feature::UserNamespaces,
            Feature::SubordinateIds,
            Feature::IdMaps,
            Feature::Sandbox,
            Feature::FreshProc,
            Feature::Seccomp,
            Feature::KernelOverlay,
            Feature::FuseOverlay,
            Feature::Reflinks,
        ];
        let state = |feature| match missing.contains(feature) {
            true => State::missing("EPERM", "ask root"),
            false => State::works(""),
        };
        HostFeatures {
            boot_id: "b".to_owned(),
            kernel: "k".to_owned(),
            features: all
                .iter()
                .map(|feature| Probed {
                    feature: *feature,
                    state: state(feature),
                })
                .collect(),
        }
    }

    #[test]
    fn rung_follows_from_what_works() {
        assert_eq!(host(&[]).rung(), Rung::Full);
        assert_eq!(host(&[Feature::Reflinks]).rung(), Rung::Full);
        assert_eq!(host(&[Feature::FuseOverlay]).rung(), Rung::Full);
        assert_eq!(host(&[Feature::KernelOverlay]).rung(), Rung::Fuse);
        let none = host(&[Feature::KernelOverlay, Feature::FuseOverlay]);
        assert_eq!(none.rung(), Rung::None);
        assert_eq!(host(&[Feature::UserNamespaces]).rung(), Rung::None);
        assert_eq!(host(&[Feature::FreshProc]).rung(), Rung::None);
    }

    #[test]
    fn features_survive_json() {
        let host = host(&[Feature::KernelOverlay]);
        let json = serde_json::to_string(&host).unwrap();
        assert!(json.contains(
            r#"{"feature":"kernel-overlay","state":"missing","reason":"EPERM","remedy":"ask root"}"#
        ));
        assert_eq!(serde_json::from_str::<HostFeatures>(&json).unwrap(), host);
    }
}
