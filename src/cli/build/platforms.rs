//! `--platform a,b` and `--manifest`: the images of builds as entries of an index.

use std::sync::Arc;

use super::super::session::Workshop;
use super::super::{CliError, Result};
use crate::archive::{Layout, Output, OutputSpec};
use crate::build::{self, Built, ContextSource, Options};
use crate::copy::{Files, ManifestList, Plan, RegistryGoal, StoreOrigin, Which, copy};
use crate::event::{Event, Reporter, Verb};
use crate::image::{Descriptor, Digest, IndexDocument, Platform, Reference};
use crate::registry::Client;
use crate::store::RefRecord;
use crate::transfer::{self, Packing, Transfer};

/// Checks that there can be a build for each of several platforms.
///
/// # Errors
/// What is read can be read once only; an output holds one image.
pub(super) fn check(
    platforms: &[Platform],
    options: &Options,
    outputs: &[OutputSpec],
) -> Result<()> {
    if platforms.len() < 2 {
        return Ok(());
    }
    let stdin = options
        .dockerfile
        .as_deref()
        .is_some_and(|file| file.as_os_str() == "-");
    if stdin || options.context == ContextSource::Stdin {
        return Err(
            CliError::message("standard input can't be read once for each platform")
                .hinted("put it into a file"),
        );
    }
    let is_one = |output: &&OutputSpec| {
        !matches!(
            output.output,
            Output::Image | Output::Images(Layout::Oci, _)
        )
    };
    match outputs.iter().find(is_one) {
        Some(_) => Err(CliError::message(
            "an output of this type holds one platform, and several are built",
        )
        .hinted("write type=oci, or build for one platform at a time")),
        None => Ok(()),
    }
}

/// Returns how the layers of images for several platforms are compressed: one index has them
/// all, wherever it goes.
pub(super) fn packing(outputs: &[OutputSpec]) -> Packing {
    let asked = outputs.iter().map(|output| output.packing);
    let mut chosen = asked.filter(|packing| *packing != Packing::default());
    chosen.next().unwrap_or_default()
}

/// Builds for each platform in turn, and gives the names to an index of the images. Returns
/// its digest.
///
/// # Errors
/// The first that occurs; then no name is given.
pub(super) fn build(
    shop: &build::Workshop<'_>,
    options: &Options,
    platforms: &[Platform],
    manifest: Option<&Reference>,
    packing: &Packing,
) -> Result<Digest> {
    let store = shop.store;
    let transfer = Transfer {
        store,
        session: shop.session,
        reporter: &shop.reporter,
        step: None,
    };
    let mut index = IndexDocument::default();
    let mut images = Vec::new();
    for platform in platforms {
        shop.reporter.report(Event::Info {
            message: format!("building for {platform}"),
        });
        let one = Options {
            platform: Some(platform.clone()),
            tags: Vec::new(),
            ..options.clone()
        };
        let built = build::build(shop, &one)?;
        let entry = entry(&transfer, &built, packing)?;
        index.add(&entry, Some(platform));
        images.push((platform, built, entry));
    }
    let digest = store.write_document(&index.to_bytes())?;
    let host = Platform::host();
    let is_own = |(platform, ..): &&(&Platform, Built, Descriptor)| platform.matches(&host);
    let chosen = images.iter().find(is_own).or(images.first());
    if let Some((_, built, entry)) = chosen {
        for tag in &options.tags {
            store.write_reference(&RefRecord {
                name: tag.to_string(),
                image: built.id.clone(),
                manifest: Some(entry.digest.clone()),
                index: Some(digest.clone()),
                registered: false,
            })?;
        }
    }
    if let Some(list) = manifest {
        for (platform, _, entry) in &images {
            add_to(&transfer, list, entry, platform)?;
        }
    }
    // They are found through the index: by themselves they would look like leftovers.
    if !options.tags.is_empty() || manifest.is_some() {
        for (_, built, _) in &images {
            store.unlist(&built.id)?;
        }
    }
    Ok(digest)
}

/// Returns the descriptor of an image's manifest; its layers are compressed now if they never
/// were.
fn entry(transfer: &Transfer<'_>, built: &Built, packing: &Packing) -> Result<Descriptor> {
    let image = transfer.store.find(&built.id.to_string())?;
    let exported = transfer::manifest_of(transfer, &image, packing)?;
    Ok(Descriptor {
        media_type: exported.manifest.media_type,
        digest: exported.digest,
        size: exported.bytes.len() as u64,
    })
}

/// Adds an image to the list that `--manifest` names, which is made where there is none.
///
/// # Errors
/// Disk full, and the like.
pub(super) fn add_built(
    transfer: &Transfer<'_>,
    list: &Reference,
    built: &Built,
    packing: &Packing,
) -> Result<()> {
    let entry = entry(transfer, built, packing)?;
    add_to(transfer, list, &entry, &built.config.platform())
}

fn add_to(
    transfer: &Transfer<'_>,
    name: &Reference,
    entry: &Descriptor,
    platform: &Platform,
) -> Result<()> {
    let store = transfer.store;
    let _changing = store.lock_lists()?;
    let mut list = ManifestList::open(store, name)?.unwrap_or_else(|| ManifestList::new(name));
    list.index.add(entry, Some(platform));
    Ok(list.save(store)?)
}

/// Writes the index to where `-o` says, and pushes it under names.
///
/// # Errors
/// The first that occurs.
pub(super) fn export(
    workshop: &Workshop,
    reporter: &Arc<dyn Reporter>,
    index: &Digest,
    options: &Options,
    outputs: &[OutputSpec],
    push: (&Client, &[(Reference, Packing)]),
) -> Result<()> {
    let store = &workshop.store;
    let transfer = Transfer {
        store,
        session: &workshop.session,
        reporter,
        step: None,
    };
    let origin = StoreOrigin::of_index(store, index)?;
    let plan = Plan::make(&origin, &Which::All)?;
    for output in outputs {
        if let Output::Images(layout, destination) = &output.output {
            let files = Files {
                destination: destination.clone(),
                layout: *layout,
                name: options.tags.first().map(ToString::to_string),
            };
            files.take(&transfer, &plan, &origin)?;
        }
    }
    let (client, names) = push;
    for (name, _) in names {
        let elsewhere = transfer::repositories(store, name.registry())?;
        let goal = RegistryGoal::new(client, name.clone(), elsewhere);
        copy(&transfer, &plan, &origin, &goal, Verb::Push)?;
        if let Some(record) = store.reference(name)? {
            store.write_reference(&RefRecord {
                registered: true,
                ..record
            })?;
        }
        reporter.report(Event::Info {
            message: format!("pushed {}: digest: {index}", name.familiar()),
        });
    }
    Ok(())
}
