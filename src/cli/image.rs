//! `kiln image …`: the commands about images, by docker's longer names.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Result, history, images, import, inspect, load, prune, pull, push, rmi, save, tag};

/// Arguments of `kiln image`.
#[derive(clap::Args)]
#[command(disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the history of an image
    History(history::Arguments),
    /// Make an image from a tar of a root file system
    Import(import::Arguments),
    /// Show images as JSON
    Inspect(inspect::Arguments),
    /// Load images from an archive or a layout
    Load(load::Arguments),
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::Arguments),
    /// Remove images that have no name
    Prune(prune::ImageArguments),
    /// Download an image from a registry
    Pull(pull::Arguments),
    /// Upload an image to a registry
    Push(push::Arguments),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rmi::Arguments),
    /// Save images to an archive or a layout
    Save(save::Arguments),
    /// Give an image another name
    Tag(tag::Arguments),
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    match &arguments.command {
        Command::History(arguments) => history::run(arguments, root),
        Command::Import(arguments) => import::run(arguments, root),
        Command::Inspect(arguments) => inspect::run_images(arguments, root),
        Command::Load(arguments) => load::run(arguments, root),
        Command::Ls(arguments) => images::run(arguments, root),
        Command::Prune(arguments) => prune::run_images(arguments, root),
        Command::Pull(arguments) => pull::run(arguments, root),
        Command::Push(arguments) => push::run(arguments, root),
        Command::Rm(arguments) => rmi::run(arguments, root),
        Command::Save(arguments) => save::run(arguments, root),
        Command::Tag(arguments) => tag::run(arguments, root),
    }
}
