//! `kiln rm`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::session::{self, Workshop};
use super::{CliError, Result, output_line, stop};
use crate::container::ContainerError;
use crate::store::{Container, Hold, StoreError};

/// Arguments of `kiln rm`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Kill a container that runs; don't complain about one that is not there
    #[arg(short, long)]
    force: bool,
    /// Its volumes too: kiln has none
    #[arg(short, long)]
    volumes: bool,
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    // Outside the namespace: only there may processes of another kiln's be killed.
    let store = session::open_store(root.clone())?;
    let mut code = ExitCode::SUCCESS;
    let mut found: Vec<(&String, Container)> = Vec::new();
    for name in &arguments.containers {
        match store.find_container(name) {
            Ok(container) => {
                if container.is_running() && arguments.force {
                    stop::kill(&store, &container)?;
                }
                found.push((name, container));
            }
            Err(StoreError::NoContainer(_)) if arguments.force => {}
            Err(error) => {
                CliError::from(error).show();
                code = ExitCode::FAILURE;
            }
        }
    }
    if found.is_empty() {
        return Ok(code);
    }
    let workshop = Workshop::enter(root)?;
    for (name, container) in found {
        match remove(&workshop, &container) {
            Ok(()) => output_line(name)?,
            // As with --rm, whose kiln was first.
            Err(ContainerError::Store(StoreError::NoContainer(_))) if arguments.force => {
                output_line(name)?;
            }
            Err(error) => {
                CliError::from(error).show();
                code = ExitCode::FAILURE;
            }
        }
    }
    workshop.collect()?;
    Ok(code)
}

fn remove(workshop: &Workshop, container: &Container) -> crate::container::Result<()> {
    let store = &workshop.store;
    match store.hold_container(container, Hold::Alone)? {
        Some((lock, container)) => Ok(store.remove_container(&container, &lock)?),
        None => Err(ContainerError::Running(container.record.name.clone())),
    }
}
