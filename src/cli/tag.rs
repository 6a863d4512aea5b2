//! `kiln tag`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{CliError, Result, session};
use crate::image::Reference;
use crate::store::RefRecord;

/// Arguments of `kiln tag`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A name, or the beginning of an id
    image: String,
    /// The new name
    name: String,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let name = parse_tag(&arguments.name)?;
    // What the image is made of must not be collected before it has its name.
    let _lease = store.lease()?;
    let image = store.find(&arguments.image)?;
    store.write_reference(&RefRecord {
        name: name.to_string(),
        image: image.id,
        manifest: image.manifest,
        index: image.index,
        registered: false,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Parses a name that an image may be given: with a tag, not with a digest.
pub(super) fn parse_tag(text: &str) -> Result<Reference> {
    let name: Reference = text.parse()?;
    if name.digest().is_some() {
        return Err(CliError::message(format!(
            "invalid name {text:?}: an image can't be tagged with a digest"
        )));
    }
    Ok(name)
}
