//! Builds an image from the stages of a Dockerfile.

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[error("build")]
pub struct BuildError;

impl BuildError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        None
    }
    /// Returns the whole report.
    pub fn rendered(&self, _colour: bool) -> Option<String> {
        None
    }
}
