//! `kiln push`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::connection::{Connection, DigestFile};
use super::packing::PackingFlags;
use super::place::Place;
use super::session::Workshop;
use super::{CliError, Result, output_line};
use crate::copy::{Changes, CopyError, Plan, StoreOrigin, Which};
use crate::image::{Descriptor, Platform, Reference};
use crate::store::RefRecord;
use crate::transfer::{self, Packing, Transfer};
use crate::ui;

/// Arguments of `kiln push`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The image, under the name that it shall have in the registry
    image: String,
    /// Where it goes, under another name or elsewhere: see `kiln copy`
    destination: Option<String>,
    /// Say nothing but the digest
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    packing: PackingFlags,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    /// Push the index that the name stands for, with the images for all platforms: done anyway
    /// where all of them are in the store
    #[arg(long)]
    all_platforms: bool,
    /// Push one image of the index, as in linux/arm64
    #[arg(long, conflicts_with = "all_platforms")]
    platform: Option<String>,
    #[command(flatten)]
    digestfile: DigestFile,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let destination = arguments.destination.as_deref().map(Place::parse);
    let destination = destination.transpose()?;
    let name = arguments.image.parse::<Reference>();
    let platform = arguments.platform.as_deref().map(str::parse).transpose()?;
    let packing = arguments.packing.packing()?;
    arguments.digestfile.probe()?;
    let workshop = Workshop::enter(root)?;
    let client = arguments.connection.client(&workshop)?;
    let store = &workshop.store;
    let (mut known, mut is_list) = (None, false);
    if let Ok(name) = &name {
        known = store.reference(name)?;
        is_list = known.is_none() && store.list(name)?.is_some();
    }
    if known.is_none() && !is_list {
        let found = store.find(&arguments.image)?;
        if destination.is_none() {
            let id = &arguments.image;
            let message = match found.refs.first() {
                Some(record) if name.is_ok() && !found.id.hex().starts_with(id.as_str()) => {
                    format!("{id} is short for {}: push that", record.name)
                }
                _ => {
                    format!("{id} is an id, not a name that a registry could keep the image under")
                }
            };
            return Err(CliError::message(message).hinted(format!(
                "name it first: kiln tag {id} REGISTRY/REPOSITORY:TAG"
            )));
        }
    }
    let asked = match platform {
        _ if arguments.all_platforms || is_list => Some(Which::All),
        platform => platform.map(Which::Platform),
    };
    let digest = workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
        let here = Place::Store(arguments.image.clone());
        let which = match asked {
            None if packing == Packing::default() && is_whole(transfer, &arguments.image) => {
                Some(Which::All)
            }
            asked => asked,
        };
        let place = match (destination, name) {
            (None, Ok(name)) if which.is_none() => {
                let image = store.find(&arguments.image)?;
                return Ok(transfer::push(transfer, &client, &image, &name, &packing)?);
            }
            (None, name) => Place::Registry(name.map_err(crate::store::StoreError::from)?),
            (Some(place), _) => place,
        };
        let origin = here.origin(transfer, &client, which.is_some(), &packing)?;
        let which = which.unwrap_or_else(|| Which::Platform(Platform::host()));
        let mut plan = Plan::make(origin.as_ref(), &which)?;
        if which == Which::All {
            let changes = Changes {
                compressor: packing.asked_for(),
                ..Changes::default()
            };
            plan.change(origin.as_ref(), changes)?;
        }
        let host = Platform::host();
        let digest = place.take(transfer, &client, &plan, origin.as_ref(), &host)?;
        if let (Place::Registry(_), None, Some(record), Which::All) =
            (&place, &arguments.destination, known, which)
        {
            let registered = true;
            store.write_reference(&RefRecord {
                registered,
                ..record
            })?;
        }
        Ok::<_, CopyError>(digest)
    })?;
    arguments.digestfile.write(&digest)?;
    if arguments.quiet {
        output_line(&digest.to_string())?;
    } else {
        let target = arguments.destination.as_ref().unwrap_or(&arguments.image);
        let target = target.parse::<Reference>();
        let shown = target.map_or_else(|_| arguments.image.clone(), |name| name.familiar());
        output_line(&format!("{shown}: digest: {digest}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells whether a name stands for an index all of which is in the store.
fn is_whole(transfer: &Transfer<'_>, name: &str) -> bool {
    let Ok(image) = transfer.store.find(name) else {
        return false;
    };
    let plan = image.index.and_then(|index| {
        let origin = StoreOrigin::of_index(transfer.store, &index).ok()?;
        Plan::make(&origin, &Which::All).ok()
    });
    plan.is_some_and(|plan| {
        let here = |blob: &Descriptor| transfer.store.has_blob(&blob.digest);
        plan.blobs.iter().all(here)
    })
}
