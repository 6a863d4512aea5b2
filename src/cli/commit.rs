//! `kiln commit`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::session::{self, Workshop};
use super::{CliError, Result, output_line};
use crate::container::{self, CommitOptions};
use crate::image::Reference;

/// Arguments of `kiln commit`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Apply an instruction of a Dockerfile to the image, such as "CMD /bin/sh"
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// The comment in the image's history
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    message: String,
    /// Who made it, such as "Name <name@example.com>"
    #[arg(short, long, default_value = "", hide_default_value = true)]
    author: String,
    /// Stop its processes meanwhile [default: true]
    #[arg(
        short,
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "true",
        hide_default_value = true,
        action = clap::ArgAction::Set
    )]
    pause: bool,
    /// A name, or the beginning of an id
    container: String,
    /// The image's name
    name: Option<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let options = CommitOptions {
        changes: arguments.change.clone(),
        message: arguments.message.clone(),
        author: arguments.author.clone(),
        name: match &arguments.name {
            Some(name) => Some(name.parse::<Reference>()?),
            None => None,
        },
    };
    let container = session::open_store(root.clone())?.find_container(&arguments.container)?;
    let still = match arguments.pause {
        true => container::hold_still(&container).map_err(|error| {
            CliError::from(error).hinted("leave it running meanwhile: kiln commit --pause=false")
        })?,
        false => None,
    };
    let workshop = Workshop::enter(root)?;
    let store = &workshop.store;
    let container = store.find_container(&container.record.id)?;
    let (_reading, container) = super::container::read(store, &container)?;
    let id = container::commit(store, &workshop.session, &container, &options)?;
    drop(still);
    output_line(&id.to_string())?;
    Ok(ExitCode::SUCCESS)
}
