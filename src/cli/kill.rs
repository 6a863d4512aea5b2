//! `kiln kill`.

use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::signal::Signal;

use super::stop::{Running, settle, signal_of};
use super::{Result, container, output_line, session};
use crate::container::ContainerError;

/// Arguments of `kiln kill`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let signal = signal_of(&arguments.signal)?;
    container::each(&arguments.containers, |name| {
        let container = store.find_container(name)?;
        let running = Running::find(&container)?
            .ok_or_else(|| ContainerError::Ended(container.record.name.clone()))?;
        if signal == Signal::SIGKILL {
            running.killer.kill();
            settle(&store, &container)?;
        } else {
            running.killer.signal(signal);
        }
        output_line(name)
    })
}
