//! `kiln export`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::session::Workshop;
use super::{CliError, Result};
use crate::archive::ArchiveError;
use crate::container::ContainerError;
use crate::layer::write_merged_tar;

/// Arguments of `kiln export`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Write to this file, and not to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A name, or the beginning of an id
    container: String,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let output = arguments.output.as_deref();
    let output = output.filter(|path| path.as_os_str() != "-");
    if output.is_none() && io::stdout().is_terminal() {
        return Err(ArchiveError::Terminal("write an archive to").into());
    }
    let workshop = Workshop::enter(root)?;
    let store = &workshop.store;
    let container = store.find_container(&arguments.container)?;
    let (_reading, container) = super::container::read(store, &container)?;
    let (_, _, view) = store.container_views(&container)?;
    let mut out: Box<dyn Write> = match output {
        Some(path) => {
            let file = File::create(path).map_err(|error| {
                CliError::message(format!("cannot write {}: {error}", path.display()))
            })?;
            Box::new(file)
        }
        None => Box::new(io::stdout().lock()),
    };
    write_merged_tar(&view, &mut out).map_err(ContainerError::from)?;
    Ok(ExitCode::SUCCESS)
}
