//! `kiln unshare`.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use kiln_runtime::Builder;

use super::session::store_root;
use super::{CliError, Result};

/// Arguments of `kiln unshare`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The command [default: $SHELL, else /bin/sh]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    // Who asks where the store is gets an answer, even where there is none yet.
    let root = std::path::absolute(store_root(root)?)?;
    let shell = std::env::var("SHELL")
        .ok()
        .filter(|shell| !shell.is_empty());
    let (program, rest) = match arguments.command.split_first() {
        Some((program, rest)) => (program.clone(), rest),
        None => (shell.unwrap_or_else(|| "/bin/sh".to_owned()), [].as_slice()),
    };
    Builder::enter()?;
    // In the place of kiln, so that signals go to the command and its exit code to the caller.
    let error = Command::new(&program)
        .args(rest)
        .env("KILN_ROOT", root)
        .exec();
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    };
    Err(CliError::message(format!("cannot execute {program:?}: {error}")).with_code(code))
}
