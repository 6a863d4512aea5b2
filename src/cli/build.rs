//! `kiln build`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::run::NetworkChoice;
use super::session::{self, Workshop};
use super::tag::parse_tag;
use super::{CliError, Result, interrupt, output_line};
use crate::archive::{self, Destination, Output, OutputSpec};
use crate::build::{self, Built, Options};
use crate::dockerfile;
use crate::event::{Event, Reporter};
use crate::transfer::Transfer;
use crate::ui;

/// Arguments of `kiln build`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The directory to build from
    context: PathBuf,
    /// The Dockerfile [default: Dockerfile in the context]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A name for the image; may be given several times
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Set a build argument; without a value, the caller's variable
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Add a label; applied last, not expanded
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Don't take results of earlier builds
    #[arg(long)]
    no_cache: bool,
    /// Don't take results of earlier builds for this stage; may be given several times
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Don't take results of earlier builds that are older, as in 36h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    cache_ttl: Option<Duration>,
    /// How many steps may run at once [default: twice the processors, at least 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// A secret for RUN --mount=type=secret
    #[arg(long, value_name = "id=NAME[,src=FILE|,env=VARIABLE]")]
    secret: Vec<String>,
    /// An SSH agent or keys for RUN --mount=type=ssh
    #[arg(long, value_name = "default|ID[=SOCKET|=KEY,…]")]
    ssh: Vec<String>,
    /// Pull base images although they are in the store
    #[arg(long)]
    pull: bool,
    /// The platform of the image, as in linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// Which network RUN sees
    #[arg(long, value_enum, default_value_t = NetworkChoice::Host)]
    network: NetworkChoice,
    /// Print nothing but the id
    #[arg(short, long)]
    quiet: bool,
    /// Write the id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    /// Where the result goes beside the store:
    /// type=oci|docker|tar|local,dest=PATH[,tar=false]
    #[arg(short, long, value_name = "SPEC")]
    output: Vec<String>,
    /// Don't check certificates of registries; use plain HTTP where HTTPS fails
    #[arg(long)]
    insecure: bool,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let (options, outputs) = options(arguments)?;
    let workshop = Workshop::enter(root)?;
    let mode = if arguments.quiet {
        ui::Mode::Quiet
    } else {
        arguments.progress
    };
    let progress = workshop.progress(mode);
    let reporter = progress.reporter();
    let client = || workshop.registry_client(arguments.insecure);
    let sandboxes = || workshop.sandboxes(reporter.as_ref());
    let cancel: Arc<build::Cancel> = Arc::default();
    let doomed = cancel.clone();
    // Steps end before anything of them is taken away.
    interrupt::on_interrupt(move || doomed.cancel());
    let shop = build::Workshop {
        store: &workshop.store,
        session: &workshop.session,
        reporter: reporter.clone(),
        client: &client,
        sandboxes: &sandboxes,
        cancel: &cancel,
    };
    let result = build::build(&shop, &options);
    let written = match &result {
        Ok(built) => export(&workshop, &reporter, built, &options, &outputs),
        Err(_) => Ok(()),
    };
    progress.finish();
    let built = result?;
    written?;
    if let Some(path) = &arguments.iidfile {
        session::write_whole(path, built.id.to_string().as_bytes())?;
    }
    // An archive on standard output is not to be mixed with it.
    let is_taken = |output: &OutputSpec| {
        matches!(
            output.output,
            Output::Images(_, Destination::Stdout) | Output::Tar(Destination::Stdout)
        )
    };
    if arguments.quiet && !outputs.iter().any(is_taken) {
        output_line(&built.id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the result to where `-o` says.
fn export(
    workshop: &Workshop,
    reporter: &Arc<dyn Reporter>,
    built: &Built,
    options: &Options,
    outputs: &[OutputSpec],
) -> Result<()> {
    let transfer = Transfer {
        store: &workshop.store,
        session: &workshop.session,
        reporter,
        step: None,
    };
    for output in outputs {
        let warnings =
            archive::write_output(&transfer, output, &built.id, &built.stack, &options.tags)?;
        for message in warnings {
            reporter.report(Event::Warning {
                message,
                hint: None,
            });
        }
    }
    Ok(())
}

fn options(arguments: &Arguments) -> Result<(Options, Vec<OutputSpec>)> {
    let mut outputs = Vec::new();
    for text in &arguments.output {
        outputs.push(archive::parse_output(text)?);
    }
    let mut build_args = BTreeMap::new();
    // As docker's client passes it on; --build-arg overrides it.
    if let Ok(seconds) = std::env::var("SOURCE_DATE_EPOCH") {
        build_args.insert("SOURCE_DATE_EPOCH".to_owned(), seconds);
    }
    for text in &arguments.build_arg {
        match text.split_once('=') {
            Some((name, value)) => {
                build_args.insert(name.to_owned(), value.to_owned());
            }
            None => {
                if let Ok(value) = std::env::var(text) {
                    build_args.insert(text.clone(), value);
                }
            }
        }
    }
    let label = |text: &String| match text.split_once('=') {
        Some(("", _)) => Err(CliError::message(format!(
            "invalid label {text:?}: it has no name"
        ))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Ok((text.clone(), String::new())),
    };
    let options = Options {
        context: arguments.context.clone(),
        dockerfile: arguments.file.clone(),
        tags: arguments
            .tag
            .iter()
            .map(|text| parse_tag(text))
            .collect::<Result<_>>()?,
        build_args,
        target: arguments.target.clone(),
        no_cache: arguments.no_cache,
        no_cache_filter: arguments.no_cache_filter.clone(),
        cache_ttl: arguments.cache_ttl,
        jobs: jobs(arguments.jobs),
        pull: arguments.pull,
        network: arguments.network.into(),
        labels: arguments.label.iter().map(label).collect::<Result<_>>()?,
        secrets: arguments
            .secret
            .iter()
            .map(|text| text.parse())
            .collect::<std::result::Result<_, build::GivenError>>()?,
        ssh: arguments
            .ssh
            .iter()
            .map(|text| text.parse())
            .collect::<std::result::Result<_, build::GivenError>>()?,
        platform: arguments.platform.as_deref().map(str::parse).transpose()?,
    };
    Ok((options, outputs))
}

/// Returns how many steps may run at once: most of them wait for a network or a disk now and
/// then, so that more than there are processors are of use.
fn jobs(given: Option<u32>) -> usize {
    match given {
        Some(jobs) => jobs as usize,
        None => {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            (2 * processors).max(4)
        }
    }
}

/// Parses the age of a record: as Go writes durations, or in days.
fn parse_age(text: &str) -> std::result::Result<Duration, String> {
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse().ok()) {
        return Ok(Duration::from_secs(24 * 60 * 60).saturating_mul(days));
    }
    let nanoseconds = dockerfile::parse_duration(text).map_err(|error| error.to_string())?;
    match u64::try_from(nanoseconds) {
        Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds)),
        Err(_) => Err("it is negative".to_owned()),
    }
}
