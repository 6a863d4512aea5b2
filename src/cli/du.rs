//! `kiln du`, which is also `system df`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::images::{newest_first, rows_of};
use super::listing::Listing;
use super::session::Workshop;
use super::{Result, history, output};
use crate::store::{Amount, CacheItem, CacheKind, Image, Inventory};
use crate::ui::format::{self, Table};

/// Arguments of `kiln du`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// List each image and each piece of the build cache
    #[arg(short, long)]
    verbose: bool,
    /// `table`, `json`, or a Go template such as '{{.Type}} {{.Size}}'
    #[arg(long, conflicts_with = "verbose")]
    format: Option<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    // In the namespace: cache directories may have files that only it can see.
    let workshop = Workshop::enter(root)?;
    let inventory = workshop.store.inventory()?;
    if arguments.verbose {
        output(&details(&inventory))?;
        return Ok(ExitCode::SUCCESS);
    }
    let listing = Listing {
        columns: &["Type", "TotalCount", "Active", "Size", "Reclaimable"],
        headers: &[
            ("Type", "TYPE"),
            ("TotalCount", "TOTAL"),
            ("Active", "ACTIVE"),
            ("Size", "SIZE"),
            ("Reclaimable", "RECLAIMABLE"),
        ],
        rows: summary(&inventory),
    };
    listing.show(arguments.format.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a row: `unused` is what a prune would free.
fn row(kind: &str, total: Amount, unused: Amount) -> Value {
    let share = match total.bytes {
        0 => String::new(),
        bytes => format!(" ({}%)", u128::from(unused.bytes) * 100 / u128::from(bytes)),
    };
    json!({
        "Type": kind,
        "TotalCount": total.count.to_string(),
        "Active": (total.count - unused.count).to_string(),
        "Size": format::size(total.bytes),
        "Reclaimable": format::size(unused.bytes) + &share,
    })
}

fn summary(inventory: &Inventory) -> Vec<Value> {
    let named: Vec<&Image> = inventory
        .images
        .iter()
        .filter(|image| !image.refs.is_empty())
        .collect();
    let bytes = inventory.image_bytes(&inventory.images);
    let images = Amount {
        count: inventory.images.len(),
        bytes,
    };
    let dangling = Amount {
        count: images.count - named.len(),
        bytes: bytes - inventory.image_bytes(named),
    };
    let mut rows = vec![row("Images", images, dangling)];
    let (mut containers, mut stopped) = (Amount::default(), Amount::default());
    for (container, bytes) in &inventory.containers {
        let mut amounts = vec![&mut containers];
        if !container.is_running() {
            amounts.push(&mut stopped);
        }
        for amount in amounts {
            amount.count += 1;
            amount.bytes += bytes;
        }
    }
    rows.push(row("Containers", containers, stopped));
    for (name, kind) in [
        ("Build Cache", CacheKind::Step),
        ("Cache Mounts", CacheKind::Mount),
        ("URLs", CacheKind::Url),
        ("Contexts", CacheKind::Context),
    ] {
        let of_kind = |item: &&CacheItem| item.kind == kind;
        let bytes = inventory.cache_bytes(|item| item.kind == kind);
        let total = Amount {
            count: inventory.cache.iter().filter(of_kind).count(),
            bytes,
        };
        let unshared = inventory.cache.iter().filter(of_kind);
        let unused = Amount {
            count: unshared.filter(|item| !item.shared).count(),
            bytes,
        };
        rows.push(row(name, total, unused));
    }
    rows.push(row(
        "Unused Layers",
        inventory.unused_layers,
        inventory.unused_layers,
    ));
    rows.push(row("Blobs", inventory.blobs, inventory.unused_blobs));
    rows.push(row("Records", inventory.records, inventory.unused_records));
    rows.push(row("Merged Trees", inventory.merged, inventory.merged));
    rows.push(row(
        "Sessions",
        inventory.sessions,
        inventory.unused_sessions,
    ));
    rows.push(row("Trash", inventory.trash, inventory.trash));
    rows
}

fn details(inventory: &Inventory) -> String {
    let mut text = "Images space usage:\n\n".to_owned();
    let mut table = Table::new([
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
    ]);
    let mut images = inventory.images.clone();
    images.sort_by(newest_first);
    for row in images.into_iter().flat_map(rows_of) {
        let (shared, unique) = inventory.shared_and_unique(&row.image);
        table.row([
            row.repository,
            row.tag,
            row.image.id.short().to_owned(),
            history::since(row.image.config.created.as_deref()),
            format::size(row.image.size),
            format::size(shared),
            format::size(unique),
        ]);
    }
    text.push_str(&table.render());
    let bytes = format::size(inventory.cache_bytes(|_| true));
    text.push_str(&format!("\nBuild cache usage: {bytes}\n\n"));
    let mut table = Table::new([
        "CACHE ID",
        "CACHE TYPE",
        "SIZE",
        "CREATED",
        "LAST USED",
        "SHARED",
    ]);
    let mut cache: Vec<&CacheItem> = inventory.cache.iter().collect();
    cache.sort_by_key(|item| (std::cmp::Reverse(item.used), item.id.clone()));
    for item in cache {
        table.row([
            item.id.clone(),
            item.kind.name().to_owned(),
            format::size(item.size),
            ago(item.created),
            ago(item.used),
            item.shared.to_string(),
        ]);
    }
    text.push_str(&table.render());
    text
}

fn ago(time: SystemTime) -> String {
    format::ago(SystemTime::now().duration_since(time).unwrap_or_default())
}
