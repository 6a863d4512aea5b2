//! `kiln images`.

use std::path::PathBuf;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::json;

use super::listing::Listing;
use super::prune::moment;
use super::{CliError, Result, output_line, session};
use crate::context::pattern::Pattern;
use crate::image::{Digest, Reference};
use crate::store::{Image, LabelFilter, Store};
use crate::ui::format;

/// Arguments of `kiln images`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Only images of this name; it may have wildcards
    name: Option<String>,
    /// All images: kiln has none that it would hide
    #[arg(short, long)]
    all: bool,
    /// Print the ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Print the digests of manifests
    #[arg(long)]
    digests: bool,
    /// Only images that fit: reference=PATTERN, label=NAME[=VALUE], dangling=true, before=IMAGE,
    /// since=IMAGE, until=24h (or a date)
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `json`, or a Go template such as '{{.Repository}} {{.ID}}', which may begin with
    /// `table`
    #[arg(long)]
    format: Option<String>,
}

/// A line: an image under one of its names.
pub(super) struct Row {
    pub(super) repository: String,
    pub(super) tag: String,
    manifest: Option<Digest>,
    pub(super) image: Image,
}

/// What tells which lines are wanted. Filters of one kind are alternatives, but for labels.
#[derive(Default)]
struct Filters {
    labels: Vec<LabelFilter>,
    dangling: Option<bool>,
    patterns: Vec<Pattern>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// Orders images by when they were made, and where that is the same moment, as in builds that can
/// be reproduced, by when they came here.
pub(super) fn newest_first(a: &Image, b: &Image) -> std::cmp::Ordering {
    (&b.config.created, b.used).cmp(&(&a.config.created, a.used))
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let mut filters = Filters::read(&store, &arguments.filter)?;
    let mut images = store.images()?;
    images.sort_by(newest_first);
    let mut rows: Vec<Row> = images.into_iter().flat_map(rows_of).collect();
    match &arguments.name {
        Some(name) if name.contains(['*', '?', '[']) => {
            filters.patterns.push(pattern(name)?);
        }
        Some(name) => {
            let wanted: Reference = name.parse()?;
            let tagged = name.split('@').next().unwrap_or(name);
            let has_tag = tagged.rsplit('/').next().unwrap_or(tagged).contains(':');
            rows.retain(|row| {
                row.repository == wanted.familiar_repository()
                    && (!has_tag || wanted.tag() == Some(row.tag.as_str()))
                    && (wanted.digest().is_none() || wanted.digest() == row.manifest)
            });
        }
        None => {}
    }
    rows.retain(|row| filters.let_pass(row));
    let id = |image: &Image| {
        if arguments.no_trunc {
            image.id.to_string()
        } else {
            image.id.short().to_owned()
        }
    };
    if arguments.quiet {
        let mut seen = std::collections::BTreeSet::new();
        for row in &rows {
            if seen.insert(row.image.id.clone()) {
                output_line(&id(&row.image))?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let describe = |row: &Row| {
        let created = row.image.config.created.as_deref();
        let size = format::size(row.image.size);
        json!({
            "Containers": "N/A",
            "CreatedAt": created_at(created),
            "CreatedSince": super::history::since(created),
            "Digest": row.manifest.as_ref().map_or("<none>".to_owned(), ToString::to_string),
            "ID": id(&row.image),
            "Repository": row.repository,
            "SharedSize": "N/A",
            "Size": size,
            "Tag": row.tag,
            "UniqueSize": "N/A",
            "VirtualSize": size,
        })
    };
    let mut columns = vec!["Repository", "Tag", "ID", "CreatedSince", "Size"];
    if arguments.digests {
        columns.insert(2, "Digest");
    }
    let listing = Listing {
        columns: &columns,
        headers: &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("Digest", "DIGEST"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("Size", "SIZE"),
            ("Containers", "CONTAINERS"),
            ("VirtualSize", "SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
        ],
        rows: rows.iter().map(describe).collect(),
    };
    listing.show(arguments.format.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

impl Filters {
    fn read(store: &Store, texts: &[String]) -> Result<Filters> {
        let mut filters = Filters::default();
        for text in texts {
            match text.split_once('=') {
                Some(("label" | "label!", label)) => {
                    filters.labels.push(super::prune::label_filter(text, label));
                }
                Some(("dangling", "true" | "1")) => filters.dangling = Some(true),
                Some(("dangling", "false" | "0")) => filters.dangling = Some(false),
                Some(("reference", text)) => filters.patterns.push(pattern(text)?),
                Some(("before", name)) => filters.before = created(&store.find(name)?),
                Some(("until", time)) => {
                    let until = Timestamp::try_from(moment(time)?);
                    filters.until = Some(until.unwrap_or(Timestamp::MAX));
                }
                Some(("since", name)) => filters.since = created(&store.find(name)?),
                _ => {
                    return Err(CliError::message(format!("invalid filter {text:?}"))
                        .hinted(
                            "the filters are reference=PATTERN, label=NAME[=VALUE], \
                             label!=NAME[=VALUE], dangling=true|false, before=IMAGE, \
                             since=IMAGE and until=TIME",
                        )
                        .with_code(2));
                }
            }
        }
        Ok(filters)
    }

    fn let_pass(&self, row: &Row) -> bool {
        let created = created(&row.image);
        let name = format!("{}:{}", row.repository, row.tag);
        let named = |pattern: &Pattern| {
            pattern.matches(row.repository.as_bytes()) || pattern.matches(name.as_bytes())
        };
        self.labels.iter().all(|label| label.matches(&row.image))
            && self
                .dangling
                .is_none_or(|dangling| dangling == row.image.refs.is_empty())
            && (self.patterns.is_empty() || self.patterns.iter().any(named))
            && self.before.is_none_or(|before| created < Some(before))
            && self.until.is_none_or(|until| created < Some(until))
            && self.since.is_none_or(|since| created > Some(since))
    }
}

fn pattern(text: &str) -> Result<Pattern> {
    Pattern::parse(text.as_bytes()).map_err(|error| {
        CliError::message(format!("invalid pattern {:?}", error.0))
            .hinted("a '[' needs its ']'")
            .with_code(2)
    })
}

fn created(image: &Image) -> Option<Timestamp> {
    image.config.created.as_deref()?.parse().ok()
}

/// Returns a time in the form that docker's JSON of `images` has.
fn created_at(created: Option<&str>) -> String {
    created
        .and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
        .unwrap_or_default()
}

pub(super) fn rows_of(image: Image) -> Vec<Row> {
    let mut rows: Vec<Row> = image
        .refs
        .iter()
        .filter_map(|record| {
            let reference = record.name.parse::<Reference>().ok()?;
            Some(Row {
                repository: reference.familiar_repository(),
                tag: reference.tag().unwrap_or("<none>").to_owned(),
                manifest: record.digest().cloned(),
                image: image.clone(),
            })
        })
        .collect();
    if rows.is_empty() {
        rows.push(Row {
            repository: "<none>".to_owned(),
            tag: "<none>".to_owned(),
            manifest: None,
            image,
        });
    }
    rows
}
