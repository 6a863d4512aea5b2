//! `kiln builder …`: docker's longer names for what belongs to builds.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Result, build, prune};

/// Arguments of `kiln builder`.
#[derive(clap::Args)]
#[command(disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::Arguments>),
    /// Remove build cache
    Prune(prune::BuilderArguments),
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    match &arguments.command {
        Command::Build(arguments) => build::run(arguments, root),
        Command::Prune(arguments) => prune::run_builder(arguments, root),
    }
}
