//! Runs a command in a sandbox whose root is a directory:
//! `cargo run -p kiln-runtime --example run_in_directory -- [OPTION…] ROOT COMMAND [ARGUMENT…]`.
//!
//! The files of the directory keep their owners: those of the caller belong to no id that
//! the sandbox has. The options are in `options/mod.rs`.

use std::error::Error;
use std::process::ExitCode;

use kiln_runtime::{Builder, mount_directory};

mod options;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| options::report(&*error))
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut options = options::Options::parse()?;
    let root = options.path("the root directory")?;
    // Before any thread is started.
    let builder = Builder::enter()?;
    let spec = options.spec(mount_directory(&root)?)?;
    let exit = builder.spawn(spec)?.wait()?;
    Ok(ExitCode::from(exit.code() as u8))
}
