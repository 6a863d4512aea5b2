//! What commands that talk to registries share: how they connect, and what they leave behind.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::session::{self, Workshop};
use super::{CliError, Result, ask};
use crate::image::{Digest, Reference};
use crate::registry::{CertificateDirectories, Client, Credential, SetupError};

/// Which servers are trusted to be the registry.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Trust {
    /// Don't check certificates of registries; use plain HTTP where HTTPS fails
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
    /// Take certificates and keys for registries from this directory, in place of certs.d
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
}

impl Trust {
    /// Returns whether certificates go unchecked.
    pub(super) fn is_insecure(&self) -> bool {
        self.insecure || self.tls_verify == Some(false)
    }

    /// Returns where certificates are.
    pub(super) fn certificates(&self) -> std::result::Result<CertificateDirectories, SetupError> {
        match &self.cert_dir {
            Some(directory) => Ok(CertificateDirectories::only(directory)?),
            None => Ok(CertificateDirectories::from_environment()),
        }
    }
}

/// How to connect to registries.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Connection {
    #[command(flatten)]
    trust: Trust,
    /// Read credentials of registries from this file
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl Connection {
    /// Returns a client of registries.
    pub(super) fn client(&self, workshop: &Workshop) -> std::result::Result<Client, SetupError> {
        workshop.registry_client(&self.trust, self.authfile.clone(), None)
    }
}

/// How to connect to the registry that a command is about.
#[derive(clap::Args)]
pub(super) struct Access {
    #[command(flatten)]
    connection: Connection,
    /// Who you are there, for this command only; without a password, it is asked for
    #[arg(long, value_name = "USER[:PASSWORD]")]
    creds: Option<String>,
}

impl Access {
    /// Returns a client for the registry of images that are named as people name them.
    ///
    /// # Errors
    /// `--creds` is of no use, or not meant for one registry alone.
    pub(super) fn client_of<'n>(
        &self,
        workshop: &Workshop,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Client> {
        let mut registries = BTreeSet::new();
        if self.creds.is_some() {
            for name in names {
                let may_be = session::candidates(name)?;
                registries.extend(may_be.iter().map(|name| name.registry().to_owned()));
            }
        }
        let given = Given::read(self.creds.as_deref(), "--creds", &registries)?;
        let Connection { trust, authfile } = &self.connection;
        Ok(workshop.registry_client(trust, authfile.clone(), given)?)
    }

    /// As [`Access::client_of`], of a place that may be in no registry.
    pub(super) fn client_at(
        &self,
        workshop: &Workshop,
        place: Option<&Reference>,
    ) -> Result<Client> {
        let name = place.map(ToString::to_string);
        self.client_of(workshop, name.as_deref())
    }
}

/// How one side of a copy is talked to, where it has a word of its own.
pub(super) struct Side<'a> {
    /// How both are.
    pub(super) connection: &'a Connection,
    /// The flag of the credentials, and what it says.
    pub(super) creds: (&'static str, Option<&'a str>),
    /// `--…-tls-verify`.
    pub(super) tls_verify: Option<bool>,
    /// `--…-cert-dir`.
    pub(super) cert_dir: Option<&'a PathBuf>,
    /// `--…-authfile`.
    pub(super) authfile: Option<&'a PathBuf>,
}

impl Side<'_> {
    /// Returns a client for this side, which is a name in a registry or something else.
    ///
    /// # Errors
    /// As for [`Access::client_of`].
    pub(super) fn client(&self, workshop: &Workshop, name: Option<&Reference>) -> Result<Client> {
        let Connection { trust, authfile } = self.connection.clone();
        let trust = Trust {
            tls_verify: self.tls_verify.or(trust.tls_verify),
            cert_dir: self.cert_dir.cloned().or(trust.cert_dir),
            ..trust
        };
        let authfile = self.authfile.cloned().or(authfile);
        let registries = name.map(|name| name.registry().to_owned());
        let (flag, creds) = self.creds;
        let given = Given::read(creds, flag, &registries.into_iter().collect())?;
        Ok(workshop.registry_client(&trust, authfile, given)?)
    }
}

/// Credentials that were given for one registry.
pub(super) struct Given {
    pub(super) registry: String,
    pub(super) credential: Credential,
}

impl Given {
    /// Reads `USER[:PASSWORD]`, and asks for the password where it is missing. Who names a
    /// password means one registry: no other gets to see it.
    fn read(
        text: Option<&str>,
        flag: &str,
        registries: &BTreeSet<String>,
    ) -> Result<Option<Given>> {
        let Some(text) = text else {
            return Ok(None);
        };
        let mut names = registries.iter();
        let registry = match (names.next(), names.next()) {
            (Some(registry), None) => registry.clone(),
            (None, _) => {
                return Err(contradiction(
                    &format!("{flag} is for a registry, and none is asked here"),
                    &format!("leave {flag} out"),
                ));
            }
            (Some(_), Some(_)) => {
                let names: Vec<&str> = registries.iter().map(String::as_str).collect();
                return Err(contradiction(
                    &format!(
                        "{flag} is for one registry, and this may ask {}",
                        names.join(" and ")
                    ),
                    "log in to each with kiln login, or write the registry before the name",
                ));
            }
        };
        let (username, password) = match text.split_once(':') {
            Some((username, password)) => (username, Some(password.to_owned())),
            None => (text, None),
        };
        let empty = |what: &str| {
            CliError::message(format!("{flag}: the {what} is empty"))
                .hinted("write USER:PASSWORD, or USER to be asked for the password")
                .with_code(2)
        };
        if username.is_empty() {
            return Err(empty("user name"));
        }
        let password = match password {
            Some(password) => password,
            None => ask::password(
                &format!("Password of {username} at {registry}: "),
                &format!("the password of {username} at {registry}"),
                &format!("write {flag} USER:PASSWORD, or log in: kiln login {registry}"),
            )?,
        };
        if password.is_empty() {
            return Err(empty("password"));
        }
        let credential = Credential::Basic {
            username: username.to_owned(),
            password,
        };
        Ok(Some(Given {
            registry,
            credential,
        }))
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
