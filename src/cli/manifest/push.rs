//! `kiln manifest push`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{list_name, no_list};
use crate::cli::connection::{Access, DigestFile};
use crate::cli::packing::RepackingFlags;
use crate::cli::place::Place;
use crate::cli::session::Workshop;
use crate::cli::{Result, output_line};
use crate::copy::{Changes, CopyError, ListOrigin, Plan, Which};
use crate::image::{Family, Platform};
use crate::ui;

/// `manifest push`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The name of the list
    list: String,
    /// Where it goes [default: to the registry, under its name]
    destination: Option<String>,
    /// Images go too anyway
    #[arg(long, hide = true)]
    all: bool,
    /// Of what kind the list and its images are there [default: as they are]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    packing: RepackingFlags,
    /// Remove the list when it has been uploaded
    #[arg(short, long, visible_alias = "rm")]
    purge: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    #[command(flatten)]
    digestfile: DigestFile,
    #[command(flatten)]
    access: Access,
}

/// A kind of manifests, as podman calls them.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// OCI's
    Oci,
    /// Docker's schema 2
    #[value(alias = "docker")]
    V2s2,
}

impl Format {
    fn family(self) -> Family {
        match self {
            Format::Oci => Family::Oci,
            Format::V2s2 => Family::Docker,
        }
    }
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let name = list_name(&arguments.list)?;
    let destination = match &arguments.destination {
        Some(text) => Place::parse(text)?,
        None => Place::Registry(name.clone()),
    };
    let packing = arguments.packing.packing()?;
    arguments.digestfile.probe()?;
    let workshop = Workshop::enter(root)?;
    let client = arguments
        .access
        .client_at(&workshop, destination.in_registry())?;
    let store = &workshop.store;
    let record = store.list(&name)?.ok_or_else(|| no_list(&name))?;
    let digest = workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
        let origin = ListOrigin::new(store, &client, record);
        let mut plan = Plan::make(&origin, &Which::All)?;
        if plan.manifests.is_empty() {
            return Err(CopyError::Refused {
                text: format!("the manifest list {} is empty", name.familiar()),
                hint: format!("add images: kiln manifest add {} IMAGE", name.familiar()),
            });
        }
        let changes = Changes {
            compressor: packing.asked_for(),
            family: arguments.format.map(Format::family),
        };
        plan.change(&origin, changes)?;
        destination.take(transfer, &client, &plan, &origin, &Platform::host())
    })?;
    if arguments.purge {
        store.remove_list(&name)?;
    }
    arguments.digestfile.write(&digest)?;
    output_line(&digest.to_string())?;
    Ok(ExitCode::SUCCESS)
}
