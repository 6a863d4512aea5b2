//! Certificates for single registries: docker's `certs.d`.
//! See <https://docs.docker.com/engine/security/certificates/>.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, parse_pem};

/// The largest file that is read.
const LARGEST_FILE: u64 = 4 << 20;

/// The directories that hold one of each registry.
#[derive(Clone, Debug, Default)]
pub struct CertificateDirectories {
    below: Vec<PathBuf>,
    /// This one for all registries.
    only: Option<PathBuf>,
}

/// A file of `certs.d` that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct CertificateError {
    path: PathBuf,
    problem: String,
}

/// What the files of one registry say.
#[derive(Default)]
pub(super) struct HostCertificates {
    /// Authorities, beside those of the system.
    authorities: Vec<Certificate<'static>>,
    /// What proves who the user is.
    pub client: Option<ClientCert>,
}

impl CertificateDirectories {
    /// Returns the directories of this process: the user's, podman's, docker's.
    pub fn from_environment() -> CertificateDirectories {
        let path = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let user =
            path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|home| home.join(".config")));
        let user = user.map(|config| config.join("containers/certs.d"));
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        CertificateDirectories {
            below: user.into_iter().chain(system).collect(),
            only: None,
        }
    }

    /// Returns a directory that was named on the command line, for whatever registry.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn only(directory: &Path) -> Result<CertificateDirectories, CertificateError> {
        if let Err(error) = fs::read_dir(directory) {
            return Err(failed(directory, &error));
        }
        Ok(CertificateDirectories {
            below: Vec::new(),
            only: Some(directory.to_owned()),
        })
    }

    /// Returns the directory of `authority`, which is `HOST` or `HOST:PORT`: the first there is.
    pub(super) fn directory(&self, authority: &str) -> Option<PathBuf> {
        if self.only.is_some() {
            return self.only.clone();
        }
        // It comes from names and redirects, and is to be no path.
        if authority.contains('/') || authority.starts_with('.') {
            return None;
        }
        let mut directories = self.below.iter().map(|directory| directory.join(authority));
        directories.find(|directory| directory.is_dir())
    }
}

impl HostCertificates {
    /// Reads the files of a registry's directory: authorities in `*.crt`, the user's own
    /// certificate in `*.cert` with its key in `*.key`.
    pub fn read(directory: &Path) -> Result<HostCertificates, CertificateError> {
        let entries = fs::read_dir(directory).map_err(|e| failed(directory, &e))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut found = HostCertificates::default();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.extend(certificates(&path)?),
                Some("cert") if found.client.is_none() => {
                    found.client = Some(client_certificate(&path)?);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Returns the authorities to trust: the system's (those of `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` where these are set), and the registry's own.
    pub fn roots(&self) -> RootCerts {
        if self.authorities.is_empty() {
            return RootCerts::PlatformVerifier;
        }
        let system = rustls_native_certs::load_native_certs().certs;
        let system = system
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned());
        let own = self.authorities.iter().map(Certificate::to_owned);
        let all: Vec<_> = system.chain(own).collect();
        RootCerts::new_with_certs(&all)
    }
}

fn failed(path: &Path, error: &io::Error) -> CertificateError {
    malformed(path, &error.to_string())
}

fn malformed(path: &Path, problem: &str) -> CertificateError {
    CertificateError {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let size = fs::metadata(path).map_err(|e| failed(path, &e))?.len();
    if size > LARGEST_FILE {
        return Err(malformed(
            path,
            &format!("larger than {LARGEST_FILE} bytes"),
        ));
    }
    fs::read(path).map_err(|e| failed(path, &e))
}

/// Reads the certificates of a PEM file, of which there is at least one.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, CertificateError> {
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(malformed(path, "it is not PEM")),
        }
    }
    if found.is_empty() {
        return Err(malformed(path, "it holds no certificate"));
    }
    Ok(found)
}

fn client_certificate(path: &Path) -> Result<ClientCert, CertificateError> {
    let chain = certificates(path)?;
    let key_path = path.with_extension("key");
    let key = PrivateKey::from_pem(&read(&key_path)?)
        .map_err(|_| malformed(&key_path, "it holds no private key in PEM"))?;
    // The HTTP client takes it for granted that they belong together.
    let ders: Vec<_> = chain
        .iter()
        .map(|certificate| CertificateDer::from(certificate.der().to_vec()))
        .collect();
    let key_der =
        PrivateKeyDer::try_from(key.der().to_vec()).map_err(|why| malformed(&key_path, why))?;
    CertifiedKey::from_der(ders, key_der, &ring::default_provider())
        .map_err(|e| malformed(&key_path, &format!("no key for {}: {e}", path.display())))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}
