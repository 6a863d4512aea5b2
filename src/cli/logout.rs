//! `kiln logout`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::login::registry_of;
use super::session::{self, OnTheSpot};
use super::{Result, output_line};

/// Arguments of `kiln logout`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The registry, as in registry.example:5000
    #[arg(default_value = "docker.io", conflicts_with = "all")]
    registry: String,
    /// Forget the credentials of all registries
    #[arg(short, long)]
    all: bool,
    /// Remove the credentials from this file only
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let paths = session::credential_paths(arguments.authfile.clone());
    if arguments.all {
        paths.log_out_everywhere(&OnTheSpot)?;
        output_line("Removed login credentials for all registries")?;
        return Ok(ExitCode::SUCCESS);
    }
    let registry = registry_of(&arguments.registry)?;
    let text = if paths.log_out(&OnTheSpot, registry)? {
        "Removing login credentials for"
    } else {
        "Not logged in to"
    };
    output_line(&format!("{text} {registry}"))?;
    Ok(ExitCode::SUCCESS)
}
