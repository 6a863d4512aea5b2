//! Images in files: OCI layouts, archives of them, docker's archives.

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("archive")]
pub struct ArchiveError;

impl ArchiveError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        None
    }
}
