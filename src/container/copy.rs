//! Files that are copied into containers, and found in them.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_runtime::Upper;

use super::{ContainerError, Inside, Result};
use crate::layer::{
    LayerDir, LayerError, LayerWriter, Limits, Node, Owners, Ownership, View, escape,
    write_part_tar,
};
use crate::sandbox::Sandboxes;
use crate::store::{Container, Hold};

/// What lies at a path of a container.
pub struct Found {
    /// All that the container has.
    pub view: View,
    /// Where the path leads, once links are followed.
    pub path: Vec<u8>,
    /// What is there.
    pub node: Option<Node>,
}

/// Looks for a path in a container, within its root.
///
/// # Errors
/// A tree can't be read.
pub fn find(view: View, path: &[u8], follow_last: bool) -> Result<Found> {
    let resolved = view.resolve(path, follow_last)?;
    Ok(Found {
        view,
        path: resolved.path,
        node: resolved.node,
    })
}

impl Found {
    /// Returns what is there.
    ///
    /// # Errors
    /// [`ContainerError::NoFile`].
    pub fn existing(&self, container: &Container) -> Result<&Node> {
        self.node.as_ref().ok_or_else(|| ContainerError::NoFile {
            path: format!("/{}", escape(&self.path)),
            name: container.record.name.clone(),
        })
    }
}

/// A container that something is copied into.
pub enum Target<'a> {
    /// One that doesn't run.
    Still(&'a Sandboxes, &'a Container),
    /// One that does.
    Running(&'a Inside),
}

/// Files of the user's.
pub struct Source {
    /// The directory that they are in.
    pub parent: OwnedFd,
    /// Their path below it; empty for all that is in it.
    pub path: Vec<u8>,
    /// Whose they are in the container; root's, where nothing is said.
    pub owners: Option<Owners>,
}

impl Target<'_> {
    /// Copies a file or directory of the user's into a directory, under a name, or what is in it
    /// where the name is empty.
    ///
    /// # Errors
    /// [`ContainerError::Running`]; something can't be read or written.
    pub fn copy_in(&self, source: Source, directory: &[u8], name: &[u8]) -> Result<()> {
        let view = View::new(vec![match source.owners {
            None => LayerDir::plain(source.parent),
            Some(owners) => LayerDir::owned(source.parent, owners),
        }]);
        let node = match &source.path[..] {
            b"" => view.root()?,
            path => view
                .lookup(path)?
                .ok_or_else(|| LayerError::Missing(escape(path)))?,
        };
        let (reader, writer) = io::pipe()?;
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let mut writer = writer;
                write_part_tar(&view, &node, name, &mut writer)
            });
            let mut reader = io::BufReader::with_capacity(128 << 10, reader);
            let extracted = self.extract(&mut reader, directory);
            drop(reader);
            let written = writing
                .join()
                .map_err(|_| io::Error::other("the files could not be read"))?;
            // Where the one end fails for want of the other, that one says why.
            match (extracted, written) {
                (Ok(()), Ok(_)) => Ok(()),
                (_, Err(error)) if !matches!(error, LayerError::Write(_)) => Err(error.into()),
                (Err(error), _) => Err(error),
                (_, Err(error)) => Err(error.into()),
            }
        })
    }

    /// Extracts an archive into a directory.
    ///
    /// # Errors
    /// [`ContainerError::Running`]; something can't be read or written.
    pub fn extract(&self, reader: &mut dyn Read, directory: &[u8]) -> Result<()> {
        match self {
            Target::Still(sandboxes, container) => {
                extract_still(sandboxes, container, reader, directory)
            }
            Target::Running(inside) => inside.extract(reader, directory),
        }
    }
}

fn extract_still(
    sandboxes: &Sandboxes,
    container: &Container,
    reader: &mut dyn Read,
    directory: &[u8],
) -> Result<()> {
    let store = sandboxes.store();
    let running = || ContainerError::Running(container.record.name.clone());
    // As long as it is copied, the container is changed by nobody else.
    let (_lock, mut container) = store
        .hold_container(container, Hold::Change)?
        .ok_or_else(running)?;
    super::start::settle(store, &mut container)?;
    let (stack, _, view) = store.container_views(&container)?;
    let work = container.work();
    super::start::renew(&work)?;
    let upper = Upper {
        changes: &container.changes(),
        work: &work,
        volatile: false,
    };
    let root = sandboxes.reopen(&sandboxes.trees(&stack)?, &view, &[], upper)?;
    let ownership = store.form().ownership;
    write_below(root.tree()?.as_fd(), ownership, reader, directory)?;
    drop(root);
    if sandboxes.overlay() == kiln_runtime::OverlayKind::Fuse {
        let changes = store.container_changes(&container)?;
        crate::layer::normalise_fuse(changes.fd())?;
    }
    Ok(())
}

/// Extracts an archive into a directory of a mounted root.
pub(super) fn write_below(
    root: BorrowedFd<'_>,
    ownership: Ownership,
    reader: &mut dyn Read,
    directory: &[u8],
) -> std::result::Result<(), LayerError> {
    let nothing = View::new(Vec::new());
    let mut writer = LayerWriter::into_existing(root, &nothing, ownership)?;
    writer.extract(reader, directory, None, Limits::default())?;
    writer.finish()?;
    // What follows the end of an archive: its writer must not fail for want of a reader.
    let _ = io::copy(reader, &mut io::sink());
    Ok(())
}
