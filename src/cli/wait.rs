//! `kiln wait`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{CliError, Result, container, output_line, session};
use crate::store::{Container, ContainerState, Store, StoreError};

/// Arguments of `kiln wait`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    container::each(&arguments.containers, |name| {
        let container = store.find_container(name)?;
        output_line(&exit_code(&store, &container)?.to_string())
    })
}

/// Waits for the end of a container.
fn exit_code(store: &Store, container: &Container) -> Result<i32> {
    let watched = container.watch()?;
    watched.wait()?;
    match store.find_container(&container.record.id) {
        Ok(container) => match container.state {
            ContainerState::Exited(code) => Ok(code),
            ContainerState::Created | ContainerState::Running | ContainerState::Paused => Ok(0),
        },
        // It went with its end, and is not gone from the disk yet.
        Err(StoreError::NoContainer(name)) => watched.exit_code().ok_or_else(|| {
            CliError::message(format!("container {name} is gone, and its exit code too"))
        }),
        Err(error) => Err(error.into()),
    }
}
