//! `kiln diff`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::session::Workshop;
use super::{Result, output_line};
use crate::container;
use crate::layer::{Change, escape};

/// Arguments of `kiln diff`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A name, or the beginning of an id
    container: String,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    // In the namespace: the files have ids that only it knows.
    let workshop = Workshop::enter(root)?;
    let store = &workshop.store;
    let container = store.find_container(&arguments.container)?;
    let (_reading, container) = super::container::read(store, &container)?;
    for changed in container::changed(store, &container)? {
        let letter = match changed.change {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Deleted => 'D',
        };
        output_line(&format!("{letter} /{}", escape(&changed.path)))?;
    }
    Ok(ExitCode::SUCCESS)
}
