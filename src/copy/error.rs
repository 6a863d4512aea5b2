//! Why an image could not be copied.

use std::io;

use crate::archive::ArchiveError;
use crate::image::{ConversionError, Digest, ManifestError, Platform};
use crate::registry::RegistryError;
use crate::store::StoreError;
use crate::transfer::TransferError;

/// Why an image could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An archive or a layout.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Layers on their way into or out of the store.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A document that is neither a manifest nor an index.
    #[error("manifest {digest}: {source}")]
    Manifest {
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A document that can't be what it was to become.
    #[error("manifest {digest}: {source}")]
    Conversion {
        /// The document.
        digest: Digest,
        /// Why not.
        source: ConversionError,
    },
    /// An index without an image for the platform.
    #[error("index {digest}: no image for platform {wanted}")]
    NoPlatform {
        /// The index.
        digest: Digest,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        available: Vec<String>,
    },
    /// A blob that could not be read.
    #[error("blob {digest}: {source}")]
    Read {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// What a document refers to is not in the store.
    #[error("{name}: not all of its index is in the store: {digest} is missing")]
    NotComplete {
        /// The name.
        name: String,
        /// A manifest or a blob.
        digest: Digest,
    },
    /// Something that can't be copied.
    #[error("{0}")]
    Unusable(String),
    /// As [`CopyError::Unusable`], with a remedy.
    #[error("{text}")]
    Refused {
        /// What is wrong.
        text: String,
        /// What to do about it.
        hint: String,
    },
}

impl CopyError {
    /// Returns the error of reading a blob; what a registry did wrong comes out as itself.
    pub(super) fn read(digest: &Digest, error: io::Error) -> CopyError {
        match error.downcast::<RegistryError>() {
            Ok(error) => CopyError::Registry(error),
            Err(source) => CopyError::Read {
                digest: digest.clone(),
                source,
            },
        }
    }

    pub(super) fn refused(text: impl Into<String>, hint: impl Into<String>) -> CopyError {
        CopyError::Refused {
            text: text.into(),
            hint: hint.into(),
        }
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            CopyError::Registry(error) => error.hint(),
            CopyError::Archive(error) => error.hint(),
            CopyError::Store(error) => error.hint(),
            CopyError::Transfer(error) => error.hint(),
            CopyError::Manifest { source, .. } => source.hint(),
            CopyError::Conversion { .. } => {
                Some("leave out --format, or say --format oci".to_owned())
            }
            CopyError::NoPlatform { available, .. } => Some(format!(
                "platforms that exist: {}; --all copies all of them",
                available.join(", ")
            )),
            CopyError::Read { source, .. } => crate::layer::space_hint(source),
            CopyError::NotComplete { name, .. } => {
                Some(format!("fetch all of it: kiln pull --all-platforms {name}"))
            }
            CopyError::Refused { hint, .. } => Some(hint.clone()),
            CopyError::Unusable(_) => None,
        }
    }
}
