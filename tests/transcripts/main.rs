//! What a person sees: sessions with every command, all their output and their exit codes.
//!
//! `UPDATE_EXPECT=1 cargo test --test transcripts` writes down what the commands say now; read
//! the difference as a user would.

#[path = "../support/mod.rs"]
mod support;

mod builds;
mod containers;
mod images;
mod registries;
mod store;
