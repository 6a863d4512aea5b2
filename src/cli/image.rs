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
    #[command(flatten)]
    Plain(Plain),
    /// Show images as JSON
    Inspect(inspect::Arguments),
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::Arguments),
    /// Remove images that have no name
    Prune(prune::ImageArguments),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rmi::Arguments),
}

/// The commands that are called so with and without `image` before them.
#[derive(clap::Subcommand)]
pub(super) enum Plain {
    /// Show the history of an image
    History(history::Arguments),
    /// Make an image from a tar of a root file system
    Import(import::Arguments),
    /// Load images from an archive or a layout
    Load(load::Arguments),
    /// Download an image from a registry
    Pull(pull::Arguments),
    /// Upload an image to a registry
    Push(push::Arguments),
    /// Save images to an archive or a layout
    Save(save::Arguments),
    /// Give an image another name
    Tag(tag::Arguments),
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    match &arguments.command {
        Command::Plain(command) => command.run(root),
        Command::Inspect(arguments) => inspect::run_images(arguments, root),
        Command::Ls(arguments) => images::run(arguments, root),
        Command::Prune(arguments) => prune::run_images(arguments, root),
        Command::Rm(arguments) => rmi::run(arguments, root),
    }
}

impl Plain {
    pub(super) fn run(&self, root: Option<PathBuf>) -> Result<ExitCode> {
        match self {
            Plain::History(arguments) => history::run(arguments, root),
            Plain::Import(arguments) => import::run(arguments, root),
            Plain::Load(arguments) => load::run(arguments, root),
            Plain::Pull(arguments) => pull::run(arguments, root),
            Plain::Push(arguments) => push::run(arguments, root),
            Plain::Save(arguments) => save::run(arguments, root),
            Plain::Tag(arguments) => tag::run(arguments, root),
        }
    }
}
