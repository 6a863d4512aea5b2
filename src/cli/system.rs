//! `kiln system …`: what concerns the whole store.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kiln_runtime::Builder;

use super::session::{self, store_root};
use super::{CliError, Result, du, prune};
use crate::store::Store;

/// Arguments of `kiln system`.
#[derive(clap::Args)]
#[command(disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show what takes how much of the disk
    Df(du::Arguments),
    /// Remove what is not needed
    Prune(prune::Arguments),
    /// Remove the whole store: all images, all layers, the build cache
    Reset(ResetArguments),
}

/// Arguments of `kiln system reset`.
#[derive(clap::Args)]
struct ResetArguments {
    /// Don't ask; without a terminal nobody is asked anyway
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    match &arguments.command {
        Command::Df(arguments) => du::run(arguments, root),
        Command::Prune(arguments) => prune::run(arguments, root),
        Command::Reset(arguments) => reset(arguments, root),
    }
}

fn reset(arguments: &ResetArguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let root = store_root(root)?;
    if !root.exists() {
        return Ok(ExitCode::SUCCESS);
    }
    // Whoever mistakes --root must not lose a directory of their own.
    if !Store::is_at(&root) {
        return Err(CliError::message(format!(
            "{} is no store of kiln: nothing was removed",
            root.display()
        )));
    }
    let warning = format!(
        "WARNING! This will remove:\n  - all containers\n  - all images\n  - all build cache\n  - the directory {}\n",
        root.display()
    );
    if !arguments.force && !prune::agreed(&warning)? {
        return Err(CliError::message("system reset has been cancelled"));
    }
    // In the namespace: the files belong to subordinate ids.
    Builder::enter()?;
    remove(&root)?;
    Ok(ExitCode::SUCCESS)
}

fn remove(root: &Path) -> Result<()> {
    match Store::open(root)?.remove() {
        Ok(true) => Ok(()),
        Ok(false) => Err(session::busy("nothing was removed")),
        Err(error) => Err(error.into()),
    }
}
