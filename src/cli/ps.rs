//! `kiln ps`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::listing::Listing;
use super::{CliError, Result, history, output_line, session};
use crate::store::{Container, ContainerState, LabelFilter, Store};
use crate::ui::format;

/// Arguments of `kiln ps`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Also containers that don't run
    #[arg(short, long)]
    all: bool,
    /// Print the ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only the last so many, whether they run or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Only the last one, whether it runs or not
    #[arg(short, long)]
    latest: bool,
    /// Print the bytes that each has changed
    #[arg(short, long)]
    size: bool,
    /// Only containers that fit: name=TEXT, id=ID, status=STATUS, exited=CODE, ancestor=IMAGE,
    /// label=NAME[=VALUE], before=CONTAINER, since=CONTAINER
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `json`, or a Go template such as '{{.Names}} {{.Status}}', which may begin with
    /// `table`
    #[arg(long)]
    format: Option<String>,
}

/// How many columns of a command are shown, as in docker.
const WIDTH: usize = 20;

/// What tells which containers are wanted. Filters of one kind are alternatives, but for labels.
#[derive(Default)]
struct Filters {
    names: Vec<String>,
    ids: Vec<String>,
    states: Vec<String>,
    codes: Vec<i32>,
    images: Vec<String>,
    labels: Vec<LabelFilter>,
    before: Option<String>,
    since: Option<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let filters = Filters::read(&store, &arguments.filter)?;
    let last = match arguments.latest {
        true => Some(1),
        false => arguments.last,
    };
    let all =
        arguments.all || last.is_some() || !filters.states.is_empty() || !filters.codes.is_empty();
    let mut containers = store.containers()?;
    containers.retain(|container| (all || container.is_running()) && filters.let_pass(container));
    containers.truncate(last.unwrap_or(usize::MAX));
    if arguments.quiet {
        for container in &containers {
            output_line(match arguments.no_trunc {
                true => &container.record.id,
                false => container.record.short_id(),
            })?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let row = |container: &Container| {
        let record = &container.record;
        let settings = &record.settings;
        let mut words = settings.entrypoint.clone();
        words.extend(settings.command.iter().cloned());
        let mut command = words.join(" ");
        if !arguments.no_trunc {
            command = format::ellipsis(&command, WIDTH);
        }
        let labels: Vec<String> = settings
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mounts: Vec<&str> = settings.mounts.iter().map(|m| m.target.as_str()).collect();
        let created = record.created.parse::<Timestamp>().ok();
        json!({
            "Command": format!("{command:?}"),
            "CreatedAt": created
                .map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
            "ID": match arguments.no_trunc {
                true => record.id.as_str(),
                false => record.short_id(),
            },
            "Image": record.image_name,
            "Labels": labels.join(","),
            "LocalVolumes": "0",
            "Mounts": mounts.join(","),
            "Names": record.name,
            "Networks": if settings.no_network { "none" } else { "host" },
            "Ports": "",
            "RunningFor": history::since(Some(&record.created)),
            "Size": match arguments.size {
                true => format::size(store.container_bytes(container)),
                false => "0B".to_owned(),
            },
            "State": container.state.name(),
            "Status": status(container),
        })
    };
    let mut columns = vec![
        "ID",
        "Image",
        "Command",
        "RunningFor",
        "Status",
        "Ports",
        "Names",
    ];
    if arguments.size {
        columns.push("Size");
    }
    let listing = Listing {
        columns: &columns,
        headers: &[
            ("ID", "CONTAINER ID"),
            ("RunningFor", "CREATED"),
            ("CreatedAt", "CREATED AT"),
        ],
        rows: containers.iter().map(row).collect(),
    };
    listing.show(arguments.format.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the state of a container in docker's words.
pub(super) fn status(container: &Container) -> String {
    let elapsed = |time: &Option<String>| {
        let time = time.as_deref()?.parse::<Timestamp>().ok()?;
        Some(Duration::try_from(Timestamp::now().duration_since(time)).unwrap_or_default())
    };
    match container.state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running => match elapsed(&container.status.started) {
            Some(elapsed) => format!("Up {}", format::age(elapsed)),
            None => "Up Less than a second".to_owned(),
        },
        ContainerState::Paused => {
            let elapsed = elapsed(&container.status.started).unwrap_or_default();
            format!("Up {} (Paused)", format::age(elapsed))
        }
        ContainerState::Exited(code) => match elapsed(&container.status.finished) {
            Some(elapsed) => format!("Exited ({code}) {}", format::ago(elapsed)),
            // Nobody was there to see it.
            None => format!("Exited ({code})"),
        },
    }
}

impl Filters {
    fn read(store: &Store, texts: &[String]) -> Result<Filters> {
        let mut filters = Filters::default();
        let created =
            |name: &str| -> Result<_> { Ok(Some(store.find_container(name)?.record.created)) };
        for text in texts {
            let wrong = || {
                CliError::message(format!("invalid filter {text:?}"))
                    .hinted(
                        "the filters are name=TEXT, id=ID, \
                         status=created|running|paused|exited, exited=CODE, ancestor=IMAGE, \
                         label=NAME[=VALUE], label!=NAME[=VALUE], before=CONTAINER and \
                         since=CONTAINER",
                    )
                    .with_code(2)
            };
            match text.split_once('=') {
                Some(("name", name)) => {
                    filters.names.push(name.trim_start_matches('/').to_owned());
                }
                Some(("id", id)) => filters.ids.push(id.to_owned()),
                Some(("status", state @ ("created" | "running" | "paused" | "exited"))) => {
                    filters.states.push(state.to_owned());
                }
                // States that no container of kiln's is ever in.
                Some(("status", "restarting" | "removing" | "dead")) => {
                    filters.states.push(String::new());
                }
                Some(("exited", code)) => filters.codes.push(code.parse().map_err(|_| wrong())?),
                Some(("ancestor", image)) => {
                    // One that is not there has no containers.
                    let found = store.find(image).map(|image| image.id.to_string());
                    filters
                        .images
                        .push(found.unwrap_or_else(|_| image.to_owned()));
                }
                Some(("label" | "label!", label)) => {
                    filters.labels.push(super::prune::label_filter(text, label));
                }
                Some(("before", name)) => filters.before = created(name)?,
                Some(("since", name)) => filters.since = created(name)?,
                _ => return Err(wrong()),
            }
        }
        Ok(filters)
    }

    fn let_pass(&self, container: &Container) -> bool {
        let record = &container.record;
        let one_of = |wanted: &[String], fits: &dyn Fn(&String) -> bool| {
            wanted.is_empty() || wanted.iter().any(fits)
        };
        // docker takes names for regular expressions; anchors are what people use of them.
        let named = |wanted: &String| {
            let inner = wanted.trim_start_matches('^').trim_end_matches('$');
            match (wanted.starts_with('^'), wanted.ends_with('$')) {
                (true, true) => record.name == inner,
                (true, false) => record.name.starts_with(inner),
                (false, true) => record.name.ends_with(inner),
                (false, false) => record.name.contains(inner),
            }
        };
        let code = match container.state {
            ContainerState::Exited(code) => Some(code),
            _ => None,
        };
        one_of(&self.names, &named)
            && one_of(&self.ids, &|id| record.id.starts_with(id.as_str()))
            && one_of(&self.states, &|state| container.state.name() == state)
            && one_of(&self.images, &|image| record.image.to_string() == *image)
            && (self.codes.is_empty() || code.is_some_and(|code| self.codes.contains(&code)))
            && self
                .labels
                .iter()
                .all(|label| label.fits(&record.settings.labels))
            && self
                .before
                .as_ref()
                .is_none_or(|before| record.created < *before)
            && self
                .since
                .as_ref()
                .is_none_or(|since| record.created > *since)
    }
}
