//! Rootless sandboxes for build steps.

pub mod capability;
pub mod seccomp;
pub mod subid;
pub mod sys;
