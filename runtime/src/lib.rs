//! Rootless sandboxes for build steps.
//!
//! [`Builder::enter`] moves the process into a user namespace in which the caller is id 0 and
//! its subordinate ids are 1 and up. [`Builder::spawn`] then starts a command in a sandbox of
//! its own, whose root is a subordinate id: an escape from it reaches neither the caller's
//! files nor the builder.
//!
//! The crate is a leaf: it knows no image, no Dockerfile and no registry.

mod attached;
mod builder;
pub mod capability;
mod compile;
mod error;
pub mod features;
mod host;
mod overlay;
mod pause;
mod plan;
pub mod seccomp;
mod spawner;
mod spec;
mod step;
pub mod subid;
pub mod sys;
mod visitor;

pub use attached::Attached;
pub use builder::Builder;
pub use error::Error;
pub use features::{HostFeatures, OverlayChoice, overlay_kind};
pub use host::{HostCommand, HostHelper, HostProcess, OUTPUT_LIMIT, Output};
pub use overlay::{Layers, Overlay, OverlayKind, Upper, mount_directory, mount_file, mount_tmpfs};
pub use pause::{Pause, is_paused, pause, resume};
pub use spec::{Addition, Create, Mount, Network, Spec, Stdio, User, WindowSize};
pub use step::{Exit, Killer, Step};
pub use visitor::Visitor;
