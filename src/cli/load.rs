//! `kiln load`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `kiln load`.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments, _root: Option<PathBuf>) -> super::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
