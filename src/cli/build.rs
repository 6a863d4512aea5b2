//! `kiln build`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use kiln_runtime::Killer;

use super::run::NetworkChoice;
use super::session::{self, Workshop};
use super::tag::parse_tag;
use super::{CliError, Result, interrupt, output_line};
use crate::archive::{self, Destination, Output, OutputSpec};
use crate::build::{self, Built, Options};
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
    // The step that runs now: it ends before anything of it is taken away.
    let running: Arc<Mutex<Option<Killer>>> = Arc::default();
    let doomed = running.clone();
    interrupt::on_interrupt(move || {
        if let Ok(mut step) = doomed.lock()
            && let Some(killer) = step.take()
        {
            killer.kill();
        }
    });
    let on_step = |killer: Killer| {
        if let Ok(mut step) = running.lock() {
            *step = Some(killer);
        }
    };
    let shop = build::Workshop {
        store: &workshop.store,
        session: &workshop.session,
        reporter: reporter.clone(),
        client: &client,
        sandboxes: &sandboxes,
        on_step: &on_step,
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
        pull: arguments.pull,
        network: arguments.network.into(),
        labels: arguments.label.iter().map(label).collect::<Result<_>>()?,
        platform: arguments.platform.as_deref().map(str::parse).transpose()?,
        show_checks: !arguments.quiet,
    };
    Ok((options, outputs))
}
