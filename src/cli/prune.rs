//! `kiln prune`, which is also `system prune`, `image prune` and `builder prune`.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::session::{self, Workshop};
use super::{CliError, Result, output};
use crate::store::{Extent, LabelFilter, PruneOptions, Pruned};
use crate::ui::format;

/// Arguments of `kiln prune`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Remove all images and all build cache, not only what is dangling
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    room: Room,
}

/// Arguments of `kiln image prune`.
#[derive(clap::Args)]
pub(super) struct ImageArguments {
    /// Remove all images, not only those without a name
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `kiln container prune`.
#[derive(clap::Args)]
pub(super) struct ContainerArguments {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `kiln builder prune`.
#[derive(clap::Args)]
pub(super) struct BuilderArguments {
    /// Remove all build cache, not only what is dangling
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    room: Room,
}

#[derive(clap::Args)]
struct Common {
    /// Don't ask; without a terminal nobody is asked anyway
    #[arg(short, long)]
    force: bool,
    /// Only what fits: until=24h (or a date), label=NAME[=VALUE], label!=NAME[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

#[derive(clap::Args)]
struct Room {
    /// Keep so much of the build cache, what was used last, and remove the rest of it: 500MB, 10GB
    #[arg(
        long,
        value_name = "SIZE",
        visible_alias = "max-used-space",
        alias = "reserved-space",
        value_parser = size
    )]
    keep_storage: Option<u64>,
}

/// What is pruned, and how it is asked for.
struct Request<'a> {
    what: &'static str,
    containers: bool,
    images: Extent,
    cache: Extent,
    keep: Option<u64>,
    common: &'a Common,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let extent = extent(arguments.all);
    let request = Request {
        what: "system",
        containers: true,
        images: extent,
        cache: extent,
        keep: arguments.room.keep_storage,
        common: &arguments.common,
    };
    request.carry_out(root)
}

pub(super) fn run_images(arguments: &ImageArguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let request = Request {
        what: "image",
        containers: false,
        images: extent(arguments.all),
        cache: Extent::None,
        keep: None,
        common: &arguments.common,
    };
    request.carry_out(root)
}

pub(super) fn run_containers(
    arguments: &ContainerArguments,
    root: Option<PathBuf>,
) -> Result<ExitCode> {
    let request = Request {
        what: "container",
        containers: true,
        images: Extent::None,
        cache: Extent::None,
        keep: None,
        common: &arguments.common,
    };
    request.carry_out(root)
}

pub(super) fn run_builder(arguments: &BuilderArguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let request = Request {
        what: "builder",
        containers: false,
        images: Extent::None,
        cache: extent(arguments.all),
        keep: arguments.room.keep_storage,
        common: &arguments.common,
    };
    request.carry_out(root)
}

fn extent(all: bool) -> Extent {
    match all {
        true => Extent::All,
        false => Extent::Dangling,
    }
}

impl Request<'_> {
    fn carry_out(&self, root: Option<PathBuf>) -> Result<ExitCode> {
        let (until, labels) = filters(&self.common.filter)?;
        let options = PruneOptions {
            containers: self.containers,
            images: self.images,
            cache: self.cache,
            until,
            labels,
            keep: self.keep,
            ..PruneOptions::default()
        };
        if !self.common.force && !agreed(&self.warning())? {
            return Err(CliError::message(format!(
                "{} prune has been cancelled",
                self.what
            )));
        }
        // In the namespace: layers and cache directories have files that only it can remove.
        let pruned = Workshop::enter(root)?.prune(&options)?;
        output(&report(&pruned))?;
        Ok(ExitCode::SUCCESS)
    }

    fn warning(&self) -> String {
        let mut text = "WARNING! This will remove:\n".to_owned();
        if self.containers {
            text.push_str("  - all stopped containers\n");
        }
        match self.images {
            Extent::None => {}
            Extent::Dangling => text.push_str("  - all dangling images\n"),
            Extent::All => {
                text.push_str("  - all images without at least one container associated to them\n");
            }
        }
        match (self.cache, self.keep) {
            (Extent::None, _) => {}
            (_, Some(keep)) => {
                let keep = format::size(keep);
                text.push_str(&format!("  - all build cache but for the last {keep}\n"));
            }
            (Extent::Dangling, None) => text.push_str("  - all dangling build cache\n"),
            (Extent::All, None) => text.push_str("  - all build cache\n"),
        }
        if !self.common.filter.is_empty() {
            text.push_str("\n  Items to be pruned will be filtered with:\n");
            for filter in &self.common.filter {
                text.push_str(&format!("  - {filter}\n"));
            }
        }
        text
    }
}

/// Asks on a terminal; elsewhere, to call the command is to agree.
pub(super) fn agreed(warning: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    output(&format!(
        "{warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    // It ends in the middle of a line.
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn report(pruned: &Pruned) -> String {
    let mut text = String::new();
    if !pruned.containers.is_empty() {
        text.push_str("Deleted Containers:\n");
        for id in &pruned.containers {
            text.push_str(&format!("{id}\n"));
        }
        text.push('\n');
    }
    if !pruned.deleted.is_empty() {
        text.push_str("Deleted Images:\n");
        for name in &pruned.untagged {
            text.push_str(&format!("untagged: {name}\n"));
        }
        for id in &pruned.deleted {
            text.push_str(&format!("deleted: {id}\n"));
        }
        text.push('\n');
    }
    if !pruned.cache.is_empty() {
        text.push_str("Deleted build cache objects:\n");
        for id in &pruned.cache {
            text.push_str(&format!("{}\n", crate::ui::text::one_line(id)));
        }
        text.push('\n');
    }
    let bytes = format::size(pruned.bytes);
    text.push_str(&format!("Total reclaimed space: {bytes}\n"));
    text
}

fn filters(texts: &[String]) -> Result<(Option<SystemTime>, Vec<LabelFilter>)> {
    let (mut until, mut labels) = (None, Vec::new());
    for text in texts {
        match text.split_once('=') {
            Some(("until", time)) => until = Some(moment(time)?),
            Some(("label" | "label!", label)) => labels.push(label_filter(text, label)),
            _ => {
                return Err(CliError::message(format!("invalid filter {text:?}"))
                    .hinted(
                        "the filters are until=TIME, label=NAME[=VALUE] and label!=NAME[=VALUE]",
                    )
                    .with_code(2));
            }
        }
    }
    Ok((until, labels))
}

/// Returns a filter by label; `text` is the whole filter.
pub(super) fn label_filter(text: &str, label: &str) -> LabelFilter {
    let (name, value) = match label.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (label, None),
    };
    LabelFilter {
        name: name.to_owned(),
        value,
        wanted: !text.starts_with("label!"),
    }
}

/// Parses a time as docker does: a duration before now (`24h`, `1h30m`), seconds since 1970, a
/// date, or a date and time, which are UTC without a zone.
pub(super) fn moment(text: &str) -> Result<SystemTime> {
    let wrong = || {
        CliError::message(format!("invalid time {text:?} in the filter until"))
            .hinted("give a duration such as 24h, or a date such as 2026-01-31T12:00:00")
            .with_code(2)
    };
    if let Some(ago) = duration(text) {
        return SystemTime::now().checked_sub(ago).ok_or_else(wrong);
    }
    let time = if let Ok(seconds) = text.parse::<i64>() {
        jiff::Timestamp::from_second(seconds).map_err(|_| wrong())?
    } else if let Ok(time) = text.parse::<jiff::Timestamp>() {
        time
    } else {
        let local: jiff::civil::DateTime = text.parse().map_err(|_| wrong())?;
        local
            .to_zoned(jiff::tz::TimeZone::UTC)
            .map_err(|_| wrong())?
            .timestamp()
    };
    Ok(time.into())
}

/// Parses a duration as Go does: numbers with units, one after the other.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = number.parse::<f64>().ok()? * seconds;
        total = total.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// Parses a size as docker does: `10GB`, `512mb`, `1.5GiB`, `1000`.
pub(super) fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_lowercase();
    let (prefix, base) = match unit.strip_suffix("ib") {
        Some(prefix) => (prefix, 1024_f64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000.0),
    };
    let power = ["", "k", "m", "g", "t", "p"]
        .iter()
        .position(|known| *known == prefix);
    let number = number.parse::<f64>().ok();
    match (number, power) {
        (Some(number), Some(power)) => Ok((number * base.powi(power as i32)) as u64),
        _ => Err("expected a size such as 500MB or 10GB".to_owned()),
    }
}

impl Workshop {
    /// Gives up the hold, and removes what is to go.
    fn prune(mut self, options: &PruneOptions) -> Result<Pruned> {
        self.give_up();
        let pruned = self.store.prune(options)?;
        pruned.ok_or_else(|| session::busy("nothing was removed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_as_docker_does() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("10GB", 10_000_000_000),
            ("512mb", 512_000_000),
            ("1.5k", 1500),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert!(size("lots").is_err() && size("").is_err() && size("1x").is_err());
        for (text, seconds) in [
            ("24h", Some(86400)),
            ("1h30m", Some(5400)),
            ("90s", Some(90)),
            ("1.5h", Some(5400)),
            ("10", None),
            ("", None),
            ("1d", None),
        ] {
            assert_eq!(duration(text), seconds.map(Duration::from_secs), "{text}");
        }
        for (text, seconds) in [
            ("1700000000", 1_700_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("1970-01-02", 86400),
            ("1970-01-01T00:01:00", 60),
        ] {
            let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(moment(text).ok(), Some(expected), "{text}");
        }
    }
}
