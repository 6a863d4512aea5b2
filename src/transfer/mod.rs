//! Images between a registry and the store.

mod layers;
mod packing;
mod pull;
mod push;

pub use layers::{LayerSource, bring_layer, bring_layers};
pub use packing::Packing;
pub(crate) use packing::{format_of, media_type_of};
pub(crate) use pull::pair;
pub use pull::{Pulled, pull, pull_named, tags_named};
pub(crate) use push::send_while_made;
pub use push::{Exported, compress_layers, manifest_of, push, repositories};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::{Event, Reporter, StepId, TransferId, TransferOutcome, Verb};
use crate::image::Digest;
use crate::layer::{LayerError, space_hint};
use crate::registry::RegistryError;
use crate::store::{Session, Store, StoreError};

/// Why an image could not be brought or sent.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer that can't be extracted.
    #[error("layer {digest}: {source}")]
    Layer {
        /// The layer's blob or diff id.
        digest: Digest,
        /// Why not.
        source: LayerError,
    },
    /// Reading a layer failed.
    #[error("layer {digest}: {source}")]
    Read {
        /// The layer's blob or diff id.
        digest: Digest,
        /// Why.
        source: std::io::Error,
    },
    /// The tar in a layer is another than the config says.
    #[error(
        "layer {digest}: its content has the diff id {found}, and the image's config says {expected}"
    )]
    WrongDiffId {
        /// The layer's blob.
        digest: Digest,
        /// From the config.
        expected: Digest,
        /// From the content.
        found: Digest,
    },
    /// A name without a registry that no search registry has.
    #[error("{name} is in none of the registries that registries.conf names: {}", list(.tried))]
    NotFound {
        /// The name.
        name: String,
        /// What each said.
        tried: Vec<TransferError>,
    },
    /// What is no name of an image.
    #[error(transparent)]
    Reference(#[from] crate::image::ReferenceError),
    /// A config that does not fit its manifest, or is none.
    #[error("the image's config is unusable: {0}")]
    Config(String),
}

fn list(errors: &[TransferError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl TransferError {
    /// Returns the error of a layer's stream. What the registry did wrong passes through it as
    /// a failed read, and comes out as itself.
    pub(crate) fn layer(digest: &Digest, source: LayerError) -> TransferError {
        let source = match source {
            LayerError::Read(error) => match error.downcast::<RegistryError>() {
                Ok(error) => return TransferError::Registry(error),
                Err(error) => LayerError::Read(error),
            },
            other => other,
        };
        TransferError::Layer {
            digest: digest.clone(),
            source,
        }
    }

    /// As [`TransferError::layer`], for a plain read.
    pub(crate) fn read(digest: &Digest, error: std::io::Error) -> TransferError {
        match error.downcast::<RegistryError>() {
            Ok(error) => TransferError::Registry(error),
            Err(source) => TransferError::Read {
                digest: digest.clone(),
                source,
            },
        }
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            TransferError::Registry(error) => error.hint(),
            TransferError::Store(error) => error.hint(),
            TransferError::Reference(error) => error.hint(),
            TransferError::NotFound { name, .. } => Some(format!(
                "write the registry too, as in docker.io/{name}, or change \
                 unqualified-search-registries"
            )),
            TransferError::Layer { source, .. } => source.hint(),
            TransferError::Read { source, .. } => space_hint(source),
            TransferError::WrongDiffId { .. } | TransferError::Config(_) => Some(
                "the image is damaged or was tampered with where it comes from; nothing of it was kept"
                    .to_owned(),
            ),
        }
    }
}

/// What a transfer works with.
pub struct Transfer<'a> {
    /// Where images are kept.
    pub store: &'a Store,
    /// Where half-done things are.
    pub session: &'a Session,
    /// Who is told.
    pub reporter: &'a Arc<dyn Reporter>,
    /// The step that this is part of.
    pub step: Option<StepId>,
}

impl Transfer<'_> {
    /// Reports a transfer, and returns a handle for its progress.
    pub(crate) fn begin(&self, name: &str, verb: Verb, total: Option<u64>) -> Reported {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = TransferId(NEXT.fetch_add(1, Ordering::Relaxed));
        self.reporter.report(Event::TransferStarted {
            id,
            step: self.step,
            name: name.to_owned(),
            verb,
            total,
        });
        Reported {
            id,
            reporter: self.reporter.clone(),
            outcome: TransferOutcome::Failed,
        }
    }
}

/// A transfer that was reported to have begun; its end is reported when this is dropped.
pub(crate) struct Reported {
    id: TransferId,
    reporter: Arc<dyn Reporter>,
    outcome: TransferOutcome,
}

impl Reported {
    pub(crate) fn progress(&self) -> Arc<dyn Fn(u64) + Send + Sync> {
        let (id, reporter) = (self.id, self.reporter.clone());
        Arc::new(move |bytes| reporter.report(Event::TransferProgress { id, bytes }))
    }

    pub(crate) fn end(mut self, outcome: TransferOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        self.reporter.report(Event::TransferFinished {
            id: self.id,
            outcome: self.outcome,
        });
    }
}
