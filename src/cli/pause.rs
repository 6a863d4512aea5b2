//! `kiln pause` and `kiln unpause`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Result, container, output_line, session};
use crate::container::{ContainerError, pause, unpause};
use crate::store::Container;

/// Arguments of `kiln pause` and `kiln unpause`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    each(arguments, root, pause)
}

pub(super) fn run_unpause(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    each(arguments, root, unpause)
}

fn each(
    arguments: &Arguments,
    root: Option<PathBuf>,
    action: impl Fn(&Container) -> std::result::Result<(), ContainerError>,
) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    container::each(&arguments.containers, |name| {
        action(&store.find_container(name)?)?;
        output_line(name)
    })
}
