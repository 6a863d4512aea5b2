//! `kiln manifest inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::connection::Access;
use crate::cli::place::Place;
use crate::cli::session::Workshop;
use crate::cli::{CliError, Result, output_line};
use crate::copy::describe;
use crate::image::Reference;
use crate::transfer::Packing;
use crate::ui;

/// `manifest inspect`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A list, or a name in a registry
    name: String,
    /// Show each image, with its platform and its manifest
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let workshop = Workshop::enter(root)?;
    // A list is shown as it is here; of an image, the manifest that its registry has.
    let place = match Place::parse(&arguments.name)? {
        Place::Registry(name) if workshop.store.list(&name)?.is_some() => {
            Place::Store(arguments.name.clone())
        }
        place => place,
    };
    let client = arguments.access.client_at(&workshop, place.in_registry())?;
    let whole = match place.in_registry() {
        Some(name) => Some(name.clone()),
        None => arguments.name.parse::<Reference>().ok(),
    };
    let name = whole.map_or_else(|| arguments.name.clone(), |name| name.to_string());
    let document = workshop.transfer(true, ui::Mode::Quiet, |transfer| {
        let packing = Packing::default();
        let origin = place.origin(transfer, &client, true, &packing)?;
        if arguments.verbose {
            return Ok(describe(origin.as_ref(), &name)?);
        }
        let root = origin.root()?;
        Ok::<serde_json::Value, CliError>(serde_json::from_slice(&root.bytes)?)
    })?;
    output_line(&serde_json::to_string_pretty(&document)?)?;
    Ok(ExitCode::SUCCESS)
}
