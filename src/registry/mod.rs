//! A client of registries: pulls and pushes manifests and blobs, streaming and verified.
//! See <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>.
//!
//! [`Client`] is what the rest of kiln sees. Below it, `transport` does one HTTP exchange
//! (proxies, redirects), `auth` knows what a registry asks of its callers, `retry` decides
//! what is worth a second try, and [`Credentials`] finds what a `login` left behind.

mod auth;
mod blob;
mod certificates;
mod client;
mod credentials;
mod endpoint;
mod error;
mod manifest;
mod proxy;
mod push;
mod registries;
mod retry;
mod tags;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod testserver;
mod transport;
mod web;

pub use blob::BlobReader;
pub use certificates::{CertificateDirectories, CertificateError};
pub use client::{Client, ClientOptions, Progress};
pub use credentials::{
    Credential, CredentialPaths, Credentials, CredentialsError, HelperRunner, Kept,
};
pub use error::{Reason, RegistryError, ServerAnswer, SetupError};
pub use manifest::{FetchedManifest, ResolvedImage};
pub use proxy::Proxies;
pub use push::Pushed;
pub use registries::{Registries, RegistriesError, RegistriesPaths};
pub use retry::RetryPolicy;
pub use transport::Timeouts;
pub use web::{Validators, Web, WebAnswer, WebError, percent_decoded, shown_url};
