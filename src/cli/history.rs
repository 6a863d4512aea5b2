//! `kiln history`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::listing::Listing;
use super::{Result, output_line, session};
use crate::image::ChainId;
use crate::ui::format;

/// Arguments of `kiln history`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A name, or the beginning of an id
    image: String,
    /// Don't shorten the instructions
    #[arg(long)]
    no_trunc: bool,
    /// Print sizes and times for people; with =false, as bytes and dates
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    human: Option<bool>,
    /// Print the ids only
    #[arg(short, long)]
    quiet: bool,
    /// `table`, `json`, or a Go template such as '{{.CreatedBy}}', which may begin with `table`
    #[arg(long)]
    format: Option<String>,
}

/// How many columns of an instruction are shown, as in docker.
const WIDTH: usize = 45;

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let image = store.find(&arguments.image)?;
    let mut below: Option<ChainId> = None;
    let mut diff_ids = image.config.rootfs.diff_ids.iter();
    let mut rows = Vec::new();
    for entry in &image.config.history {
        let size = if entry.empty_layer {
            0
        } else {
            diff_ids.next().map_or(0, |diff_id| {
                let size = store.layer_size(below.as_ref(), diff_id).unwrap_or(0);
                below = Some(ChainId::extend(below.as_ref(), diff_id));
                size
            })
        };
        rows.push((entry, size));
    }
    // The newest first; only the image itself has an id.
    let id = if arguments.no_trunc {
        image.id.to_string()
    } else {
        image.id.short().to_owned()
    };
    let ids = std::iter::once(id.as_str()).chain(std::iter::repeat("<missing>"));
    let human = arguments.human.unwrap_or(true);
    let mut lines = Vec::new();
    for ((entry, size), id) in rows.into_iter().rev().zip(ids) {
        if arguments.quiet {
            output_line(id)?;
            continue;
        }
        let created_by = entry.created_by.clone().unwrap_or_default();
        // JSON is for programs, which get all of it.
        let whole = arguments.no_trunc || arguments.format.as_deref() == Some("json");
        lines.push(json!({
            "Comment": entry.comment.clone().unwrap_or_default(),
            "CreatedAt": entry.created,
            "CreatedBy": match whole {
                true => created_by,
                false => format::ellipsis(&created_by, WIDTH),
            },
            "CreatedSince": since(entry.created.as_deref()),
            "ID": id,
            "Size": match human {
                true => format::size(size),
                false => size.to_string(),
            },
        }));
    }
    if arguments.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    let when = if human { "CreatedSince" } else { "CreatedAt" };
    let listing = Listing {
        columns: &["ID", when, "CreatedBy", "Size", "Comment"],
        headers: &[
            ("ID", "IMAGE"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("CreatedBy", "CREATED BY"),
            ("Size", "SIZE"),
            ("Comment", "COMMENT"),
        ],
        rows: lines,
    };
    listing.show(arguments.format.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns how long ago a time was, in docker's words.
pub(super) fn since(created: Option<&str>) -> String {
    let Some(created) = created.and_then(|text| text.parse::<jiff::Timestamp>().ok()) else {
        return "N/A".to_owned();
    };
    let elapsed = jiff::Timestamp::now().duration_since(created);
    format::ago(Duration::try_from(elapsed).unwrap_or_default())
}
