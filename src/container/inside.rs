//! The files of a container that runs, as its own processes see them: with all that is mounted.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kiln_runtime::Visitor;
use serde::{Deserialize, Serialize};

use super::copy::write_below;
use super::{ContainerError, Result};
use crate::layer::{LayerDir, Ownership, View};
use crate::sandbox::SandboxError;
use crate::store::{Container, Store};

/// A way into a container that runs. What is read is read by this process, below the container's
/// root; what is written is written by a process in there, as the container's root: see
/// [`Visitor`].
pub struct Inside(Visitor);

/// What came of an archive.
#[derive(Serialize, Deserialize)]
enum Reply {
    Done,
    Failed { error: String, hint: Option<String> },
}

impl Inside {
    /// Enters a container. Must come before any thread, and in the builder's namespace that the
    /// container lies in.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`]; what the kernel says.
    pub fn enter(container: &Container) -> Result<Inside> {
        let not_running = || ContainerError::NotRunning(container.record.name.clone());
        let process = container.process().ok_or_else(not_running)?;
        let visitor = Visitor::enter(process.pid, |root, socket| {
            // Who can't be told has gone.
            let _ = serve(&root, &socket);
        })
        .map_err(SandboxError::from)?;
        // The pid was joined; now it is known whose it was.
        container.process().ok_or_else(not_running)?;
        Ok(Inside(visitor))
    }

    /// Returns all files. What changes meanwhile is found or not.
    ///
    /// # Errors
    /// EMFILE.
    pub fn view(&self, store: &Store) -> Result<View> {
        let root = self.0.root().try_clone_to_owned()?;
        let live = LayerDir::live(root, store.form().ownership);
        Ok(View::new(vec![live]))
    }

    /// Extracts an archive into a directory. To be called once.
    ///
    /// # Errors
    /// Something can't be read or written.
    pub(super) fn extract(&self, reader: &mut dyn Read, directory: &[u8]) -> Result<()> {
        let mut socket = self.0.socket();
        let length = u32::try_from(directory.len()).map_err(io::Error::other)?;
        let sent = socket
            .write_all(&length.to_ne_bytes())
            .and_then(|()| socket.write_all(directory))
            .and_then(|()| io::copy(reader, &mut socket));
        let _ = socket.shutdown(Shutdown::Write);
        let mut reply = Vec::new();
        // It may close its end while there is something left to read for it.
        let _ = socket.read_to_end(&mut reply);
        match serde_json::from_slice(&reply) {
            Ok(Reply::Failed { error, hint }) => Err(ContainerError::Inside { error, hint }),
            Ok(Reply::Done) => sent.map(drop).map_err(ContainerError::from),
            Err(_) => Err(match sent {
                Err(error) => error.into(),
                Ok(_) => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            }),
        }
    }
}

/// Does in the container what [`Inside::extract`] asks for.
fn serve(root: &OwnedFd, mut socket: &UnixStream) -> io::Result<()> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut directory = vec![0; u32::from_ne_bytes(length) as usize];
    socket.read_exact(&mut directory)?;
    // Ids are those of the container here.
    let written = write_below(root.as_fd(), Ownership::Real, &mut socket, &directory);
    let reply = match written {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Failed {
            error: error.to_string(),
            hint: error.hint(),
        },
    };
    socket.write_all(&serde_json::to_vec(&reply)?)
}
