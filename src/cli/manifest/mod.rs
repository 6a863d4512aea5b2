//! `kiln manifest …`: indexes, which are one name for the images of several platforms.

mod inspect;
mod push;

use std::path::PathBuf;
use std::process::ExitCode;

use super::connection::Access;
use super::place::{self, Place};
use super::session::{self, Workshop};
use super::{CliError, Result, output_line};
use crate::copy::ManifestList;
use crate::image::{Digest, EntryChanges, Platform, Reference};
use crate::transfer::{Packing, manifest_of};
use crate::ui;

/// Arguments of `kiln manifest`.
#[derive(clap::Args)]
#[command(disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Add images to a list
    Add(Add),
    /// Say more of an image of a list
    Annotate(Annotate),
    /// Make a list, of images of the store or of registries
    Create(Create),
    /// End with 0 where there is a list of that name, else with 1
    Exists(Exists),
    /// Show a list, or what a name stands for in its registry
    Inspect(inspect::Arguments),
    /// Upload a list, and its images where they are not there
    Push(push::Arguments),
    /// Remove an image from a list
    Remove(Remove),
    /// Remove lists
    Rm(Rm),
}

/// `manifest create`.
#[derive(clap::Args)]
struct Create {
    /// The name of the list
    list: String,
    /// Its images: names or ids of the store, names in registries
    images: Vec<String>,
    /// Add to the list where there is one
    #[arg(short, long)]
    amend: bool,
    /// Add all images of those that are for several platforms
    #[arg(long)]
    all: bool,
    /// Annotate the list
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    access: Access,
}

/// `manifest add`.
#[derive(clap::Args)]
struct Add {
    /// The name of the list
    list: String,
    /// Names or ids of the store, names in registries
    #[arg(required = true)]
    images: Vec<String>,
    /// Add all images of those that are for several platforms
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    access: Access,
}

/// `manifest annotate`.
#[derive(clap::Args)]
struct Annotate {
    /// The name of the list
    list: String,
    /// The image: the name it was added by, or its digest
    image: Option<String>,
    /// Annotate the list as a whole
    #[arg(long, conflicts_with = "image")]
    index: bool,
    #[command(flatten)]
    changes: Changes,
}

/// What is said of an image.
#[derive(clap::Args)]
struct Changes {
    /// The operating system
    #[arg(long)]
    os: Option<String>,
    /// The CPU architecture
    #[arg(long)]
    arch: Option<String>,
    /// The variant of the architecture
    #[arg(long)]
    variant: Option<String>,
    /// The version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Features of the operating system that are required
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Features of the CPU that are required
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    features: Vec<String>,
    /// Annotate it
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
}

/// `manifest exists`.
#[derive(clap::Args)]
struct Exists {
    /// The name of the list
    list: String,
}

/// `manifest remove`.
#[derive(clap::Args)]
struct Remove {
    /// The name of the list
    list: String,
    /// The images: the names they were added by, or their digests
    #[arg(required = true)]
    images: Vec<String>,
}

/// `manifest rm`.
#[derive(clap::Args)]
struct Rm {
    /// The names of the lists
    #[arg(required = true)]
    lists: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    match &arguments.command {
        Command::Add(arguments) => add(arguments, root),
        Command::Annotate(arguments) => annotate(arguments, root),
        Command::Create(arguments) => create(arguments, root),
        Command::Exists(arguments) => exists(arguments, root),
        Command::Inspect(arguments) => inspect::run(arguments, root),
        Command::Push(arguments) => push::run(arguments, root),
        Command::Remove(arguments) => remove(arguments, root),
        Command::Rm(arguments) => rm(arguments, root),
    }
}

/// Parses the name of a list.
fn list_name(text: &str) -> Result<Reference> {
    let name: Reference = text.parse()?;
    match name.digest() {
        Some(_) => Err(CliError::message(format!(
            "invalid name {text:?}: a list can't be named by a digest"
        ))),
        None => Ok(name),
    }
}

fn no_list(name: &Reference) -> CliError {
    let name = name.familiar();
    CliError::message(format!("no such manifest list: {name}"))
        .hinted(format!("make one: kiln manifest create {name} IMAGE..."))
}

fn open(store: &crate::store::Store, name: &Reference) -> Result<ManifestList> {
    ManifestList::open(store, name)?.ok_or_else(|| no_list(name))
}

fn parse_annotations(texts: &[String]) -> Result<Vec<(String, String)>> {
    let parse = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(
            CliError::message(format!("invalid annotation {text:?}: expected KEY=VALUE"))
                .with_code(2),
        ),
    };
    texts.iter().map(parse).collect()
}

impl Changes {
    fn parse(&self) -> Result<EntryChanges> {
        Ok(EntryChanges {
            os: self.os.clone(),
            architecture: self.arch.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            features: self.features.clone(),
            annotations: parse_annotations(&self.annotation)?,
        })
    }
}

/// Adds images to a list.
fn add_images(
    workshop: &Workshop,
    list: &mut ManifestList,
    images: &[String],
    all: bool,
    access: &Access,
) -> Result<Vec<Digest>> {
    let places = images.iter().map(|image| place::find(workshop, image));
    let places = places.collect::<Result<Vec<Place>>>()?;
    let names: Vec<String> = (places.iter().filter_map(Place::in_registry))
        .map(ToString::to_string)
        .collect();
    let client = access.client_of(workshop, names.iter().map(String::as_str))?;
    let mut added = Vec::new();
    for (image, place) in images.iter().zip(places) {
        let source = match &place {
            Place::Registry(name) => Some(name),
            Place::Store(_) => None,
            Place::Files { .. } => {
                return Err(CliError::message(format!(
                    "{image}: a list has images of the store and of registries"
                ))
                .hinted(format!("bring it there: kiln copy {image} store:NAME")));
            }
        };
        let digests = workshop.transfer(true, ui::Mode::Quiet, |transfer| {
            let origin = place.origin(transfer, &client, all, &Packing::default())?;
            list.add(origin.as_ref(), all, &Platform::host(), source)
        })?;
        added.extend(digests);
    }
    Ok(added)
}

fn create(arguments: &Create, root: Option<PathBuf>) -> Result<ExitCode> {
    let name = list_name(&arguments.list)?;
    let annotations = parse_annotations(&arguments.annotation)?;
    let workshop = Workshop::enter(root)?;
    let store = &workshop.store;
    let _changing = store.lock_lists()?;
    let mut list = match ManifestList::open(store, &name)? {
        Some(_) if !arguments.amend => {
            let name = name.familiar();
            return Err(
                CliError::message(format!("there is a manifest list {name} already")).hinted(
                    format!("add to it with --amend, or remove it: kiln manifest rm {name}"),
                ),
            );
        }
        Some(list) => list,
        None => ManifestList::new(&name),
    };
    list.index.annotate_all(&annotations);
    let (images, all) = (&arguments.images, arguments.all);
    add_images(&workshop, &mut list, images, all, &arguments.access)?;
    list.save(store)?;
    output_line(&format!("Created manifest list {}", name.familiar()))?;
    Ok(ExitCode::SUCCESS)
}

fn add(arguments: &Add, root: Option<PathBuf>) -> Result<ExitCode> {
    let name = list_name(&arguments.list)?;
    let changes = arguments.changes.parse()?;
    let workshop = Workshop::enter(root)?;
    let store = &workshop.store;
    let _changing = store.lock_lists()?;
    let mut list = open(store, &name)?;
    let (images, all) = (&arguments.images, arguments.all);
    let added = add_images(&workshop, &mut list, images, all, &arguments.access)?;
    for digest in &added {
        list.index.annotate(digest, &changes);
    }
    list.save(store)?;
    for digest in added {
        output_line(&digest.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds an entry: by its digest, by the name in a registry that it came from, or by what an
/// image of the store has now.
fn entry(workshop: &Workshop, list: &ManifestList, text: &str) -> Result<Digest> {
    let digests = list.index.digests();
    let reference = text.parse::<Reference>().ok();
    let named = text
        .parse::<Digest>()
        .ok()
        .or_else(|| reference.as_ref().and_then(Reference::digest))
        .or_else(|| list.entry_from(reference.as_ref()?));
    let found = match named {
        Some(digest) => Some(digest),
        None => workshop
            .store
            .find(text)
            .ok()
            .map(|image| {
                workshop.transfer(true, ui::Mode::Quiet, |transfer| {
                    manifest_of(transfer, &image, &Packing::default())
                })
            })
            .transpose()?
            .map(|exported| exported.digest),
    };
    found
        .filter(|digest| digests.contains(digest))
        .ok_or_else(|| {
            let known: Vec<String> = digests.iter().map(ToString::to_string).collect();
            let hint = match known.is_empty() {
                true => "the list is empty".to_owned(),
                false => format!("its images are {}", known.join(", ")),
            };
            CliError::message(format!("{text} is not in the list")).hinted(hint)
        })
}

fn annotate(arguments: &Annotate, root: Option<PathBuf>) -> Result<ExitCode> {
    let name = list_name(&arguments.list)?;
    let changes = arguments.changes.parse()?;
    let workshop = Workshop::enter(root)?;
    let store = &workshop.store;
    let _changing = store.lock_lists()?;
    let mut list = open(store, &name)?;
    match &arguments.image {
        Some(image) => {
            let digest = entry(&workshop, &list, image)?;
            list.index.annotate(&digest, &changes);
        }
        None if arguments.index => list.index.annotate_all(&changes.annotations),
        None => {
            return Err(CliError::message("which image of the list?")
                .hinted("name it, or say --index for the list as a whole")
                .with_code(2));
        }
    }
    list.save(store)?;
    Ok(ExitCode::SUCCESS)
}

fn remove(arguments: &Remove, root: Option<PathBuf>) -> Result<ExitCode> {
    let name = list_name(&arguments.list)?;
    let workshop = Workshop::enter(root)?;
    let store = &workshop.store;
    let _changing = store.lock_lists()?;
    let mut list = open(store, &name)?;
    let mut removed = Vec::new();
    for image in &arguments.images {
        let digest = entry(&workshop, &list, image)?;
        list.index.remove(&digest);
        removed.push(digest);
    }
    list.save(store)?;
    for digest in removed {
        output_line(&digest.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn exists(arguments: &Exists, root: Option<PathBuf>) -> Result<ExitCode> {
    let name = list_name(&arguments.list)?;
    let store = session::open_store_if_there(root);
    let list = store.map(|store| store.list(&name)).transpose()?;
    Ok(match list.flatten() {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

fn rm(arguments: &Rm, root: Option<PathBuf>) -> Result<ExitCode> {
    let workshop = Workshop::enter(root)?;
    let mut code = ExitCode::SUCCESS;
    for text in &arguments.lists {
        let name = list_name(text)?;
        match workshop.store.list(&name)? {
            Some(_) => {
                workshop.store.remove_list(&name)?;
                output_line(&format!("Untagged: {}", name.familiar()))?;
            }
            None => {
                no_list(&name).show();
                code = ExitCode::FAILURE;
            }
        }
    }
    workshop.collect()?;
    Ok(code)
}
