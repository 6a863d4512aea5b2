//! `kiln create`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::container::settings::SettingsArguments;
use super::session::Workshop;
use super::{Result, output_line};

/// Arguments of `kiln create`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let workshop = Workshop::enter(root)?;
    let (made, _lock) = arguments.settings.create(&workshop)?;
    output_line(&made.record.id)?;
    Ok(ExitCode::SUCCESS)
}
