//! `kiln container …`: the commands about containers, by docker's longer names.

mod refused;
pub(super) mod settings;

use std::path::PathBuf;
use std::process::ExitCode;

use super::{
    CliError, Result, commit, cp, create, diff, exec, export, inspect, kill, logs, pause, prune,
    ps, rename, rm, run, start, stop, wait,
};
use crate::container;
use crate::store::{Container, ContainerLock, Store};

/// Arguments of `kiln container`.
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
    /// Show containers as JSON
    Inspect(inspect::ContainerArguments),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Arguments),
    /// Remove containers that don't run
    Prune(prune::ContainerArguments),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
}

/// The commands that are called so with and without `container` before them.
#[derive(clap::Subcommand)]
pub(super) enum Plain {
    /// Make an image of a container
    Commit(commit::Arguments),
    /// Copy files into a container, or out of one
    Cp(cp::Arguments),
    /// Make a container, and don't start it
    Create(Box<create::Arguments>),
    /// Show what a container has changed
    Diff(diff::Arguments),
    /// Run another command in a container that runs
    Exec(exec::Arguments),
    /// Write the files of a container as a tar
    Export(export::Arguments),
    /// Send a signal to containers
    Kill(kill::Arguments),
    /// Show what a container wrote in the background
    Logs(logs::Arguments),
    /// Stop all processes of containers for a while
    Pause(pause::Arguments),
    /// Give a container another name
    Rename(rename::Arguments),
    /// Run a command in a new container
    Run(Box<run::Arguments>),
    /// Start containers
    Start(start::Arguments),
    /// Stop containers
    Stop(stop::Arguments),
    /// Let the processes of paused containers go on
    Unpause(pause::Arguments),
    /// Wait for the end of containers
    Wait(wait::Arguments),
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    match &arguments.command {
        Command::Plain(command) => command.run(root),
        Command::Inspect(arguments) => inspect::run_containers(arguments, root),
        Command::Ls(arguments) => ps::run(arguments, root),
        Command::Prune(arguments) => prune::run_containers(arguments, root),
        Command::Rm(arguments) => rm::run(arguments, root),
    }
}

impl Plain {
    pub(super) fn run(&self, root: Option<PathBuf>) -> Result<ExitCode> {
        match self {
            Plain::Commit(arguments) => commit::run(arguments, root),
            Plain::Cp(arguments) => cp::run(arguments, root),
            Plain::Create(arguments) => create::run(arguments, root),
            Plain::Diff(arguments) => diff::run(arguments, root),
            Plain::Exec(arguments) => exec::run(arguments, root),
            Plain::Export(arguments) => export::run(arguments, root),
            Plain::Kill(arguments) => kill::run(arguments, root),
            Plain::Logs(arguments) => logs::run(arguments, root),
            Plain::Pause(arguments) => pause::run(arguments, root),
            Plain::Rename(arguments) => rename::run(arguments, root),
            Plain::Run(arguments) => run::run(arguments, root),
            Plain::Start(arguments) => start::run(arguments, root),
            Plain::Stop(arguments) => stop::run(arguments, root),
            Plain::Unpause(arguments) => pause::run_unpause(arguments, root),
            Plain::Wait(arguments) => wait::run(arguments, root),
        }
    }
}

/// Does something with each container, and tells of all that can't be done.
pub(super) fn each(names: &[String], action: impl Fn(&str) -> Result<()>) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        if let Err(error) = action(name) {
            CliError::show(&error);
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Prepares to read the files of a container. Where it doesn't run, it is not started meanwhile.
pub(super) fn read(
    store: &Store,
    container: &Container,
) -> Result<(Option<ContainerLock>, Container)> {
    Ok(container::read(store, container)?)
}
