//! What commands that talk to registries share: how they connect, and what they leave behind.

use std::path::PathBuf;

use super::session::{self, Workshop};
use super::{CliError, Result};
use crate::image::Digest;
use crate::registry::Client;

/// How to connect to registries.
#[derive(clap::Args)]
pub(super) struct Connection {
    /// Don't check certificates; use plain HTTP where HTTPS fails
    #[arg(long)]
    insecure: bool,
    /// Whether certificates are checked
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL",
        hide = true
    )]
    tls_verify: Option<bool>,
    /// Read credentials from this file
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl Connection {
    /// Returns a client of registries.
    pub(super) fn client(&self, workshop: &Workshop) -> Result<Client> {
        self.client_for(workshop, None)
    }

    /// As [`Connection::client`], for one side of a copy that may have a word of its own.
    pub(super) fn client_for(&self, workshop: &Workshop, verify: Option<bool>) -> Result<Client> {
        let insecure = self.insecure || verify.or(self.tls_verify) == Some(false);
        Ok(workshop.registry_client(insecure, self.authfile.clone())?)
    }
}

/// Where the digest of what was sent is written.
#[derive(clap::Args)]
pub(super) struct DigestFile {
    /// Write the digest of the manifest to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
}

impl DigestFile {
    /// Checks that it can be written, before any work is done.
    pub(super) fn probe(&self) -> Result<()> {
        match &self.digestfile {
            Some(path) => session::probe_writable(path),
            None => Ok(()),
        }
    }

    /// Writes it, where it was asked for.
    pub(super) fn write(&self, digest: &Digest) -> Result<()> {
        match &self.digestfile {
            Some(path) => session::write_whole(path, digest.to_string().as_bytes()),
            None => Ok(()),
        }
    }
}

/// Returns the error of a flag that asks for two things.
pub(super) fn contradiction(text: &str, hint: &str) -> CliError {
    CliError::message(text).hinted(hint).with_code(2)
}
