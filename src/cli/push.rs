//! `kiln push`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::packing::PackingFlags;
use super::session::Workshop;
use super::{CliError, Result, output_line};
use crate::image::Reference;
use crate::transfer;
use crate::ui;

/// Arguments of `kiln push`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The image, under the name that it shall have in the registry
    image: String,
    /// Say nothing but the digest
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    packing: PackingFlags,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    /// Don't check certificates; use plain HTTP where HTTPS fails
    #[arg(long)]
    insecure: bool,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let reference: Reference = arguments.image.parse()?;
    let packing = arguments.packing.packing()?;
    let workshop = Workshop::enter(root)?;
    let image = workshop.store.find(&arguments.image)?;
    if workshop.store.reference(&reference)?.is_none() {
        let id = &arguments.image;
        return Err(CliError::message(format!(
            "{id} is an id, not a name that a registry could keep the image under"
        ))
        .hinted(format!(
            "name it first: kiln tag {id} REGISTRY/REPOSITORY:TAG"
        )));
    }
    let client = workshop.client(arguments.insecure)?;
    let digest = workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
        transfer::push(transfer, &client, &image, &reference, &packing)
    })?;
    if arguments.quiet {
        output_line(&digest.to_string())?;
    } else {
        output_line(&format!("{}: digest: {digest}", reference.familiar()))?;
    }
    Ok(ExitCode::SUCCESS)
}
