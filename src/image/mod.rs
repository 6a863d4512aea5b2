//! Pure data of images: digests, references, platforms, manifests and configs. No I/O.

mod config;
mod conversion;
mod digest;
mod index_document;
mod manifest;
mod platform;
mod reference;

pub use config::{Healthcheck, HistoryEntry, ImageConfig, RootFs, RunConfig};
pub use conversion::{ConversionError, Family, Replaced, convert_index, convert_manifest};
pub use digest::{Algorithm, ChainId, DiffId, Digest, DigestError, Hasher};
pub use index_document::{EntryChanges, IndexDocument};
pub use manifest::{
    Descriptor, Index, IndexEntry, Manifest, ManifestError, ManifestKind, media_type,
};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
