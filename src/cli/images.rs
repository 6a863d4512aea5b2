//! `kiln images`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{Result, output, output_line, session};
use crate::image::Reference;
use crate::store::Image;
use crate::ui::format;

/// Arguments of `kiln images`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Only images of this name
    name: Option<String>,
    /// Print the ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Print a JSON object per line
    #[arg(long, value_parser = ["json", "table"])]
    format: Option<String>,
}

/// A line: an image under one of its names.
pub(super) struct Row {
    pub(super) repository: String,
    pub(super) tag: String,
    pub(super) image: Image,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let mut images = store.images()?;
    images.sort_by(|a, b| b.config.created.cmp(&a.config.created));
    let mut rows: Vec<Row> = images.into_iter().flat_map(rows_of).collect();
    if let Some(name) = &arguments.name {
        let wanted: Reference = name.parse()?;
        let has_tag = name.rsplit('/').next().unwrap_or(name).contains(':');
        rows.retain(|row| {
            row.repository == wanted.familiar_repository()
                && (!has_tag || wanted.tag() == Some(row.tag.as_str()))
        });
    }
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
    if arguments.format.as_deref() == Some("json") {
        for row in &rows {
            let digest = row.image.manifest.as_ref();
            let line = json!({
                "Containers": "N/A",
                "CreatedAt": created_at(row.image.config.created.as_deref()),
                "CreatedSince": super::history::since(row.image.config.created.as_deref()),
                "Digest": digest.map_or("<none>".to_owned(), ToString::to_string),
                "ID": id(&row.image),
                "Repository": row.repository,
                "SharedSize": "N/A",
                "Size": format::size(row.image.size),
                "Tag": row.tag,
                "UniqueSize": "N/A",
                "VirtualSize": format::size(row.image.size),
            });
            output_line(&line.to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = format::Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    for row in &rows {
        table.row([
            row.repository.clone(),
            row.tag.clone(),
            id(&row.image),
            super::history::since(row.image.config.created.as_deref()),
            format::size(row.image.size),
        ]);
    }
    output(&table.render())?;
    Ok(ExitCode::SUCCESS)
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
        .filter_map(|record| record.name.parse::<Reference>().ok())
        .map(|reference| Row {
            repository: reference.familiar_repository(),
            tag: reference.tag().unwrap_or("<none>").to_owned(),
            image: image.clone(),
        })
        .collect();
    if rows.is_empty() {
        rows.push(Row {
            repository: "<none>".to_owned(),
            tag: "<none>".to_owned(),
            image,
        });
    }
    rows
}
