//! `kiln rename`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Result, session};
use crate::container;

/// Arguments of `kiln rename`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A name, or the beginning of an id
    container: String,
    /// The name that it gets
    name: String,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let found = store.find_container(&arguments.container)?;
    container::rename(&store, &found, &arguments.name)?;
    Ok(ExitCode::SUCCESS)
}
