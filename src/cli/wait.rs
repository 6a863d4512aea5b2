//! `kiln wait`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

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
        output_line(&exit_code(&store, container)?.to_string())
    })
}

/// Waits for the end of a container.
fn exit_code(store: &Store, mut container: Container) -> Result<i32> {
    let watched = container.watch()?;
    let mut pause = Duration::from_millis(1);
    loop {
        match container.state {
            ContainerState::Exited(code) => return Ok(code),
            ContainerState::Created => return Ok(0),
            ContainerState::Running => {}
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
        container = match store.find_container(&container.record.id) {
            // It went with its end.
            Err(StoreError::NoContainer(name)) => {
                return watched.exit_code().ok_or_else(|| {
                    CliError::message(format!("container {name} is gone, and its exit code too"))
                });
            }
            other => other?,
        };
    }
}
