//! What a container has changed.

use super::{ContainerError, Result};
use crate::layer::{Change, UpperKind, changes};
use crate::store::{Container, Store};

/// A path that is not as in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The path, from the root.
    pub path: Vec<u8>,
    /// What became of it.
    pub change: Change,
}

/// Returns what a container has changed, sorted.
///
/// # Errors
/// A tree can't be read.
pub fn changed(store: &Store, container: &Container) -> Result<Vec<Changed>> {
    let (_, below, _) = store.container_views(container)?;
    let upper = store.container_changes(container)?;
    let found = changes(&upper, &below, UpperKind::Overlay).map_err(ContainerError::from)?;
    Ok(found
        .into_iter()
        .map(|(path, change)| Changed { path, change })
        .collect())
}
