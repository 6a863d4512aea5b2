//! kiln builds OCI images from Dockerfiles without root and without a daemon.
//!
//! Arrows between modules point one way:
//! `cli → {ui, build, copy} → {sandbox, transfer, archive, fetch}
//! → {store, registry, context, dockerfile} → layer → image`, and the crate `kiln-runtime` is a leaf below them.
//! ARCHITECTURE.md is the map.
#![forbid(unsafe_code)]

pub mod archive;
pub mod build;
pub mod cli;
pub mod container;
pub mod context;
pub mod copy;
pub mod dockerfile;
pub mod event;
pub mod fetch;
pub mod image;
pub mod layer;
pub mod registry;
pub mod sandbox;
pub mod store;
pub mod transfer;
pub mod ui;
