//! The command line: arguments in, library call, text out. One file per command.

mod ask;
mod attach;
mod build;
mod builder;
mod check;
mod cleaning;
mod commit;
mod config;
mod connection;
mod container;
mod copy;
mod cp;
mod create;
mod detach;
mod diff;
mod doctor;
mod du;
mod error;
mod exec;
mod export;
mod fsck;
mod history;
mod image;
mod images;
mod import;
mod inspect;
mod interrupt;
mod kill;
mod listing;
mod load;
mod login;
mod logout;
mod logs;
mod manifest;
mod packing;
mod pause;
mod place;
mod prune;
mod ps;
mod pull;
mod push;
mod relay;
mod rename;
mod rm;
mod rmi;
mod run;
mod save;
mod session;
mod start;
mod stop;
mod system;
mod tag;
mod terminal;
mod unshare;
mod version;
mod wait;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use error::{CliError, Result};

/// Build container images from Dockerfiles, without root and without a daemon.
#[derive(Parser)]
#[command(name = "kiln", version, disable_help_subcommand = true, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Arguments {
    /// The directory of images, layers and the build cache
    /// [default: $XDG_DATA_HOME/kiln, else ~/.local/share/kiln]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "KILN_ROOT",
        hide_env_values = true,
        // After what belongs to the command alone.
        display_order = 998
    )]
    root: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    it worked
  1    it failed: the message says what, where, and what to do
  2    the command line is wrong
  125  `run`: kiln itself failed      126  the command can't be executed
  127  the command is not in the image
  130  interrupted (143: by SIGTERM)
  N    `run` otherwise ends with the exit code of the command; `build` with 1";

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    OfContainers(container::Plain),
    #[command(flatten)]
    OfImages(image::Plain),
    /// Build an image from a Dockerfile
    Build(Box<build::Arguments>),
    /// Remove build cache: docker's longer names
    #[command(hide = true)]
    Builder(builder::Arguments),
    /// Look for likely mistakes in a Dockerfile, or explain one
    Check(check::Arguments),
    /// Docker's longer names: container ls, rm, inspect, prune …
    Container(container::Arguments),
    /// Copy an image between registries, layouts, archives and the store, as it is
    Copy(copy::Arguments),
    /// Say what this machine allows, and what would help
    Doctor(doctor::Arguments),
    /// Show what takes how much of the disk
    Du(du::Arguments),
    /// Remove what commands have left in the trash, for their own use
    #[command(hide = true)]
    EmptyTrash(cleaning::Arguments),
    /// Verify all blobs, layers, names and records of the store
    Fsck(fsck::Arguments),
    /// Docker's longer names: image ls, rm, inspect, history, prune …
    Image(image::Arguments),
    /// List images
    Images(images::Arguments),
    /// Show images and containers as JSON
    Inspect(inspect::Arguments),
    /// Log in to a registry
    Login(login::Arguments),
    /// Log out from a registry
    Logout(logout::Arguments),
    /// Put images for several platforms together as one: create, add, push …
    Manifest(manifest::Arguments),
    /// Remove what is not needed: stopped containers, dangling images, build cache, leftovers
    Prune(prune::Arguments),
    /// List containers
    Ps(ps::Arguments),
    /// Remove containers
    Rm(rm::Arguments),
    /// Remove images
    Rmi(rmi::Arguments),
    /// The whole store: system df, prune, reset
    System(system::Arguments),
    /// Run a command, or a shell, where the files of the store have their ids
    Unshare(unshare::Arguments),
    /// Show the version
    Version(version::Arguments),
}

/// Parses the arguments, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // A closed pipe is no reason to complain.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let root = arguments.root;
    let result = match arguments.command {
        Command::OfContainers(command) => command.run(root),
        Command::OfImages(command) => command.run(root),
        Command::Build(arguments) => build::run(&arguments, root),
        Command::Builder(arguments) => builder::run(&arguments, root),
        Command::Check(arguments) => check::run(&arguments, root),
        Command::Copy(arguments) => copy::run(&arguments, root),
        Command::Container(arguments) => container::run(&arguments, root),
        Command::Doctor(arguments) => doctor::run(&arguments, root),
        Command::Du(arguments) => du::run(&arguments, root),
        Command::EmptyTrash(arguments) => cleaning::run(&arguments, root),
        Command::Fsck(arguments) => fsck::run(&arguments, root),
        Command::Image(arguments) => image::run(&arguments, root),
        Command::Images(arguments) => images::run(&arguments, root),
        Command::Inspect(arguments) => inspect::run(&arguments, root),
        Command::Login(arguments) => login::run(&arguments),
        Command::Logout(arguments) => logout::run(&arguments),
        Command::Manifest(arguments) => manifest::run(&arguments, root),
        Command::Prune(arguments) => prune::run(&arguments, root),
        Command::Ps(arguments) => ps::run(&arguments, root),
        Command::Rm(arguments) => rm::run(&arguments, root),
        Command::Rmi(arguments) => rmi::run(&arguments, root),
        Command::System(arguments) => system::run(&arguments, root),
        Command::Unshare(arguments) => unshare::run(&arguments, root),
        Command::Version(arguments) => version::run(&arguments),
    };
    interrupt::yield_to_signal();
    match result {
        Ok(code) => code,
        Err(error) => {
            error.show();
            ExitCode::from(error.code())
        }
    }
}

fn parse() -> std::result::Result<Arguments, clap::Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Arguments::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Returns the whole command line interface, for documentation.
pub fn command() -> clap::Command {
    /// Lists commands by name, wherever they are declared.
    fn sorted(command: clap::Command) -> clap::Command {
        command.mut_subcommands(|command| sorted(command.display_order(0)))
    }
    sorted(Arguments::command())
}

/// Writes data to standard output.
fn output(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes a line of data to standard output.
fn output_line(text: &str) -> Result<()> {
    output(&format!("{text}\n"))
}
