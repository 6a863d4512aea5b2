//! `kiln push`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::connection::{Access, DigestFile, contradiction};
use super::packing::PackingFlags;
use super::place::Place;
use super::session::Workshop;
use super::{CliError, Result, output_line};
use crate::copy::{Changes, CopyError, Plan, StoreOrigin, Which};
use crate::image::{Descriptor, Digest, Platform, Reference};
use crate::registry::Client;
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
    /// Push all tags of the name that the store has
    #[arg(short, long, conflicts_with_all = ["destination", "digestfile"])]
    all_tags: bool,
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
    access: Access,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    if arguments.all_tags && Reference::has_selector(&arguments.image) {
        return Err(contradiction(
            "tag can't be used with --all-tags/-a",
            "write the name without a tag",
        ));
    }
    let destination = arguments.destination.as_deref().map(Place::parse);
    let destination = destination.transpose()?;
    let name = arguments.image.parse::<Reference>();
    let platform = arguments.platform.as_deref().map(str::parse).transpose()?;
    let packing = arguments.packing.packing()?;
    arguments.digestfile.probe()?;
    let workshop = Workshop::enter(root)?;
    let to = match &destination {
        Some(place) => place.in_registry(),
        None => name.as_ref().ok(),
    };
    let client = arguments.access.client_at(&workshop, to)?;
    let push = Push {
        arguments,
        workshop: &workshop,
        client: &client,
        destination,
        platform,
        packing,
    };
    if !arguments.all_tags {
        let digest = push.image(&arguments.image)?;
        arguments.digestfile.write(&digest)?;
        return Ok(ExitCode::SUCCESS);
    }
    let repository = name?;
    for name in tags_of(&workshop, &repository, &arguments.image)? {
        push.image(&name.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the names of the store that are tags of a repository.
fn tags_of(workshop: &Workshop, repository: &Reference, text: &str) -> Result<Vec<Reference>> {
    let records = workshop.store.references()?;
    let names = records
        .iter()
        .filter_map(|record| record.name.parse().ok())
        .filter(|name: &Reference| {
            name.tag().is_some()
                && name.registry() == repository.registry()
                && name.repository() == repository.repository()
        });
    let names: Vec<Reference> = names.collect();
    match names.is_empty() {
        true => Err(crate::store::StoreError::NoImage(text.to_owned()).into()),
        false => Ok(names),
    }
}

struct Push<'a> {
    arguments: &'a Arguments,
    workshop: &'a Workshop,
    client: &'a Client,
    destination: Option<Place>,
    platform: Option<Platform>,
    packing: Packing,
}

impl Push<'_> {
    /// Pushes an image of the store, and returns the digest that it has there.
    fn image(&self, image: &str) -> Result<Digest> {
        let (arguments, packing) = (self.arguments, self.packing);
        let (workshop, store) = (self.workshop, &self.workshop.store);
        let name = image.parse::<Reference>();
        let (mut known, mut is_list) = (None, false);
        if let Ok(name) = &name {
            known = store.reference(name)?;
            is_list = known.is_none() && store.list(name)?.is_some();
        }
        if known.is_none() && !is_list && self.destination.is_none() {
            return Err(self.nameless(image, name.is_ok())?);
        }
        let asked = match &self.platform {
            _ if arguments.all_platforms || is_list => Some(Which::All),
            platform => platform.clone().map(Which::Platform),
        };
        let digest = workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
            let here = Place::Store(image.to_owned());
            let which = match asked {
                None if packing == Packing::default() && is_whole(transfer, image) => {
                    Some(Which::All)
                }
                asked => asked,
            };
            let place = match (&self.destination, name) {
                (None, Ok(name)) if which.is_none() => {
                    let image = store.find(image)?;
                    return Ok(transfer::push(
                        transfer,
                        self.client,
                        &image,
                        &name,
                        &packing,
                    )?);
                }
                (None, name) => Place::Registry(name.map_err(crate::store::StoreError::from)?),
                (Some(place), _) => place.clone(),
            };
            let origin = here.origin(transfer, self.client, which.is_some(), &packing)?;
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
            let digest = place.take(transfer, self.client, &plan, origin.as_ref(), &host)?;
            if let (Place::Registry(_), None, Some(record), Which::All) =
                (&place, &self.destination, known, which)
            {
                let registered = true;
                store.write_reference(&RefRecord {
                    registered,
                    ..record
                })?;
            }
            Ok::<_, CopyError>(digest)
        })?;
        if arguments.quiet {
            output_line(&digest.to_string())?;
        } else {
            let target = arguments.destination.as_deref().unwrap_or(image);
            let name = target.parse::<Reference>();
            let shown = name.map_or_else(|_| image.to_owned(), |name| name.familiar());
            output_line(&format!("{shown}: digest: {digest}"))?;
        }
        Ok(digest)
    }

    /// Returns the error of what has no name that a registry could keep it under.
    fn nameless(&self, id: &str, is_name: bool) -> Result<CliError> {
        let found = self.workshop.store.find(id)?;
        let message = match found.refs.first() {
            Some(record) if is_name && !found.id.hex().starts_with(id) => {
                format!("{id} is short for {}: push that", record.name)
            }
            _ => format!("{id} is an id, not a name that a registry could keep the image under"),
        };
        Ok(CliError::message(message).hinted(format!(
            "name it first: kiln tag {id} REGISTRY/REPOSITORY:TAG"
        )))
    }
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
