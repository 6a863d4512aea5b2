//! Rootless sandboxes for build steps.

pub mod sys;
