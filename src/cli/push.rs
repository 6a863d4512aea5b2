//! `kiln push`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::connection::{Connection, DigestFile};
use super::packing::PackingFlags;
use super::place::Place;
use super::session::Workshop;
use super::{CliError, Result, output_line};
use crate::copy::{CopyError, Plan, Which};
use crate::image::{Digest, Platform, Reference};
use crate::store::RefRecord;
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
    /// Push the index that the name stands for, with the images for all platforms
    #[arg(long)]
    all_platforms: bool,
    #[command(flatten)]
    digestfile: DigestFile,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let reference: Reference = arguments.image.parse()?;
    let packing = arguments.packing.packing()?;
    arguments.digestfile.probe()?;
    let workshop = Workshop::enter(root)?;
    let client = arguments.connection.client(&workshop)?;
    let is_list = workshop.store.list(&reference)?.is_some();
    let known = workshop.store.reference(&reference)?;
    if arguments.all_platforms || (is_list && known.is_none()) {
        let place = Place::Registry(reference.clone());
        let digest = workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
            let here = Place::Store(arguments.image.clone());
            let origin = here.origin(transfer, &client, true)?;
            let plan = Plan::make(origin.as_ref(), &Which::All)?;
            place.take(transfer, &client, &plan, origin.as_ref(), &Platform::host())?;
            Ok::<_, CopyError>(plan.root()?.descriptor.digest.clone())
        })?;
        if let Some(record) = known {
            let registered = true;
            workshop.store.write_reference(&RefRecord {
                registered,
                ..record
            })?;
        }
        return show(arguments, &reference, &digest);
    }
    let image = workshop.store.find(&arguments.image)?;
    if known.is_none() {
        let id = &arguments.image;
        return Err(CliError::message(format!(
            "{id} is an id, not a name that a registry could keep the image under"
        ))
        .hinted(format!(
            "name it first: kiln tag {id} REGISTRY/REPOSITORY:TAG"
        )));
    }
    let digest = workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
        transfer::push(transfer, &client, &image, &reference, &packing)
    })?;
    show(arguments, &reference, &digest)
}

fn show(arguments: &Arguments, reference: &Reference, digest: &Digest) -> Result<ExitCode> {
    arguments.digestfile.write(digest)?;
    if arguments.quiet {
        output_line(&digest.to_string())?;
    } else {
        output_line(&format!("{}: digest: {digest}", reference.familiar()))?;
    }
    Ok(ExitCode::SUCCESS)
}
