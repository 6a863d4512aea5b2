//! Builds an image from the stages of a Dockerfile.

pub mod event;
