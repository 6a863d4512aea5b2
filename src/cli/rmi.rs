//! `kiln rmi`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::session::Workshop;
use super::{Result, output_line};

/// Arguments of `kiln rmi`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image that has several names; don't complain about one that is not there
    #[arg(short, long)]
    force: bool,
    /// Docker keeps parents without a name then; kiln's images have none
    #[arg(long, hide = true)]
    no_prune: bool,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    // In the namespace: layers have files that only it can remove.
    let workshop = Workshop::enter(root)?;
    let mut code = ExitCode::SUCCESS;
    for name in &arguments.images {
        match workshop.store.remove_image(name, arguments.force) {
            Ok(removed) => {
                for name in removed.untagged {
                    output_line(&format!("Untagged: {name}"))?;
                }
                if let Some(id) = removed.deleted {
                    output_line(&format!("Deleted: {id}"))?;
                }
            }
            Err(crate::store::StoreError::NoImage(_)) if arguments.force => {}
            Err(error) => {
                super::CliError::from(error).show();
                code = ExitCode::FAILURE;
            }
        }
    }
    workshop.collect()?;
    Ok(code)
}
