//! `kiln build`.

mod caches;
mod call;
mod foreign;
mod platforms;
pub(super) mod settings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use call::{Call, Method};
use foreign::Foreign;

use super::connection::Connection;
use super::container::settings::NetworkChoice;
use super::prune::size;
use super::session::{self, Workshop, open_store_if_there};
use super::tag::parse_tag;
use super::{CliError, Result, config, interrupt, output_line};
use crate::archive::{self, Destination, Output, OutputSpec};
use crate::build::{self, Built, ConfigChanges, ContextSource, NamedSource, Options, Pull};
use crate::dockerfile;
use crate::event::{Event, Reporter};
use crate::image::{Digest, Platform, Reference};
use crate::registry::Web;
use crate::store::Shrunk;
use crate::transfer::{self, Packing, Transfer};
use crate::ui;

/// Arguments of `kiln build`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// What to build from: a directory, a tar archive, a git or http(s) URL, or - for a tar
    /// archive or a Dockerfile on standard input
    context: String,
    /// Files for a name of the Dockerfile, instead of the stage or image of that name: a
    /// directory, docker-image://, oci-layout://, or a git or http(s) URL
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<String>,
    /// The Dockerfile, - for standard input [default: Dockerfile in the context]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The ignore file, in place of .dockerignore
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,
    /// A name for the image; may be given several times
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Set a build argument; without a value, the caller's variable
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Set build arguments from a file with a NAME=VALUE on each line
    #[arg(long, value_name = "FILE")]
    build_arg_file: Vec<PathBuf>,
    /// Add a label; applied last, not expanded
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Don't build: check the Dockerfile, or list its targets or a target's arguments
    #[arg(
        long,
        visible_alias = "print",
        value_name = "check|outline|targets[,format=json]",
        default_value = "build",
        hide_default_value = true,
        value_parser = Call::parse,
        conflicts_with = "check"
    )]
    call: Call,
    /// Look for likely mistakes and don't build: short for --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    check: Option<bool>,
    /// Don't take results of earlier builds
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    no_cache: Option<bool>,
    /// Don't take results of earlier builds for this stage; may be given several times
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Don't take results of earlier builds that are older, as in 36h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    cache_ttl: Option<Duration>,
    /// Take steps that other machines did from a cache: type=local,src=DIR
    #[arg(long, value_name = "SPEC")]
    cache_from: Vec<String>,
    /// Keep the steps of this build for other machines: type=local,dest=DIR[,mode=min|max]
    #[arg(long, value_name = "SPEC")]
    cache_to: Vec<String>,
    /// Keep such a cache below a size, by removing what was used longest ago: 500MB, 10GB
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "cache_to")]
    cache_max_size: Option<u64>,
    /// How many steps may run at once [default: twice the processors, at least 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Say of each step why it runs, or that it was done before
    #[arg(long)]
    explain: bool,
    /// A secret for RUN --mount=type=secret
    #[arg(long, value_name = "id=NAME[,src=FILE|,env=VARIABLE]")]
    secret: Vec<String>,
    /// An SSH agent or keys for RUN --mount=type=ssh
    #[arg(long, value_name = "default|ID[=SOCKET|=KEY,…]")]
    ssh: Vec<String>,
    /// When to pull base images: always (without a value), missing or never
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "always", value_name = "WHEN", value_parser = pull)]
    pull: Option<Pull>,
    /// The platform of the image, as in linux/arm64; with several, the result is an index
    #[arg(long, value_name = "PLATFORM[,…]", value_delimiter = ',')]
    platform: Vec<String>,
    /// Add the image to this list, which is made where there is none: see `kiln manifest`
    #[arg(long, value_name = "LIST")]
    manifest: Option<String>,
    /// The architecture of the image
    #[arg(long, conflicts_with = "platform", hide = true)]
    arch: Option<String>,
    /// The operating system of the image
    #[arg(long, conflicts_with = "platform", hide = true)]
    os: Option<String>,
    /// The variant of the architecture
    #[arg(long, conflicts_with = "platform", hide = true)]
    variant: Option<String>,
    /// Which network RUN sees
    #[arg(long, visible_alias = "net", value_enum, default_value_t = NetworkChoice::Host)]
    network: NetworkChoice,
    #[command(flatten)]
    around: settings::Around,
    /// Give RUN the proxies of the caller's environment
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    http_proxy: Option<bool>,
    /// Set a variable of the image, unless ENV does; without a value, the caller's
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Remove a variable from the image
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// Remove a label from the image
    #[arg(long, value_name = "NAME")]
    unsetlabel: Vec<String>,
    /// The time that new things get, in seconds since 1970: as SOURCE_DATE_EPOCH
    #[arg(long, visible_alias = "timestamp", value_name = "SECONDS")]
    source_date_epoch: Option<i64>,
    /// Print nothing but the id
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    quiet: Option<bool>,
    /// Write the id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write the id without sha256: to a file
    #[arg(long, value_name = "FILE")]
    iidfile_raw: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Push the image under all its names
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    push: Option<bool>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    /// Where the result goes beside the store:
    /// type=oci|docker|tar|local,dest=PATH[,tar=false] or type=registry
    #[arg(short, long, value_name = "SPEC")]
    output: Vec<String>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    foreign: Foreign,
}

impl Arguments {
    fn quiet(&self) -> bool {
        self.quiet.unwrap_or(false)
    }

    fn push(&self) -> bool {
        self.push.unwrap_or(false)
    }

    fn call(&self) -> Call {
        match self.check {
            Some(true) => Call::CHECK,
            _ => self.call,
        }
    }
}

/// Parses `--pull`, in the words of docker and buildah.
fn pull(text: &str) -> std::result::Result<Pull, String> {
    match text {
        "always" | "true" | "newer" | "ifnewer" => Ok(Pull::Always),
        "missing" | "ifmissing" | "false" => Ok(Pull::Missing),
        "never" => Ok(Pull::Never),
        _ => Err("it can be always, missing or never".to_owned()),
    }
}

/// Checks the Dockerfile of a context, as `kiln check` does.
pub(super) fn check(
    context: &str,
    file: Option<PathBuf>,
    root: Option<PathBuf>,
) -> Result<ExitCode> {
    let options = Options {
        context: ContextSource::parse(context)?,
        dockerfile: file,
        ..Options::default()
    };
    examine(Call::CHECK, &options, root)
}

/// Looks at a Dockerfile without building. Needs neither namespaces nor a store; of one that
/// is there, the base images are known.
fn examine(call: Call, options: &Options, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = open_store_if_there(root);
    let examined = build::examine(options, store.as_ref())?;
    call::show(
        call,
        &examined,
        options.target.as_deref(),
        &options.build_args,
    )
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    arguments.foreign.refuse()?;
    let limit = config::store_limit()?;
    let (options, outputs) = options(arguments)?;
    let platforms = platforms(arguments)?;
    let list = arguments.manifest.as_deref().map(parse_tag).transpose()?;
    let call = arguments.call();
    if call.method != Method::Build {
        return examine(call, &options, root);
    }
    let names = names_to_push(arguments, &options, &outputs)?;
    platforms::check(&platforms, &options, &outputs)?;
    // Better now than when all is built.
    for path in [
        &arguments.iidfile,
        &arguments.iidfile_raw,
        &arguments.metadata_file,
    ]
    .into_iter()
    .flatten()
    {
        session::probe_writable(path)?;
    }
    let authorizations = build::authorizations(&options.secrets)?;
    let workshop = Workshop::enter(root)?;
    let mode = if arguments.quiet() {
        ui::Mode::Quiet
    } else {
        arguments.progress
    };
    let progress = workshop.progress(mode);
    let reporter = progress.reporter();
    arguments.foreign.note(reporter.as_ref());
    caches::note_elsewhere(
        &arguments.cache_from,
        &arguments.cache_to,
        reporter.as_ref(),
    );
    let client = || arguments.connection.client(&workshop);
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
        host: workshop.builder.host(),
        web: Web::new(),
        authorizations,
        sandboxes: &sandboxes,
        cancel: &cancel,
    };
    let packing = platforms::packing(&outputs);
    if platforms.len() > 1 {
        let result = platforms::build(&shop, &options, &platforms, list.as_ref(), &packing);
        let exported = result.and_then(|index| {
            let client = arguments.connection.client(&workshop)?;
            let push = (&client, names.as_slice());
            platforms::export(&workshop, &reporter, &index, &options, &outputs, push)?;
            Ok(index)
        });
        if let Some(limit) = limit {
            shrink(&workshop, limit, reporter.as_ref());
        }
        progress.finish();
        return tell(arguments, &exported?, None, &options, &outputs);
    }
    let result = build::build(&shop, &options);
    let written = match &result {
        Ok(built) => export(&workshop, &reporter, built, &options, &outputs),
        Err(_) => Ok(()),
    };
    let listed = match (&result, &list) {
        (Ok(built), Some(list)) => {
            let transfer = Transfer {
                store: &workshop.store,
                session: &workshop.session,
                reporter: &reporter,
                step: None,
            };
            platforms::add_built(&transfer, list, built, &packing)
        }
        _ => Ok(()),
    };
    let pushed = match (&result, &written) {
        (Ok(built), Ok(())) => push(arguments, &workshop, &reporter, built, &names),
        _ => Ok(None),
    };
    if let Some(limit) = limit {
        shrink(&workshop, limit, reporter.as_ref());
    }
    progress.finish();
    let built = result?;
    written?;
    listed?;
    tell(arguments, &built.id, Some(pushed?), &options, &outputs)
}

/// Tells scripts what was built: an image, whether it was pushed or not, or else an index.
fn tell(
    arguments: &Arguments,
    id: &Digest,
    pushed: Option<Option<Digest>>,
    options: &Options,
    outputs: &[OutputSpec],
) -> Result<ExitCode> {
    if let Some(path) = &arguments.iidfile {
        session::write_whole(path, id.to_string().as_bytes())?;
    }
    if let Some(path) = &arguments.iidfile_raw {
        session::write_whole(path, id.hex().as_bytes())?;
    }
    if let Some(path) = &arguments.metadata_file {
        session::write_whole(path, metadata(id, pushed, options).as_bytes())?;
    }
    // An archive on standard output is not to be mixed with it.
    let is_taken = |output: &OutputSpec| {
        matches!(
            output.output,
            Output::Images(_, Destination::Stdout) | Output::Tar(Destination::Stdout)
        )
    };
    if arguments.quiet() && !outputs.iter().any(is_taken) {
        output_line(&id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings the store below its limit, if this build has added to it. That it can't be is no reason
/// for the build to fail.
fn shrink(workshop: &Workshop, limit: u64, reporter: &dyn Reporter) {
    if !workshop.session.has_work() {
        return;
    }
    let size = ui::format::size;
    match workshop.store.shrink(limit) {
        Ok(None) => {}
        Ok(Some(Shrunk { freed, usage })) => {
            let message = format!(
                "freed {}: the store was over its limit of {}",
                size(freed),
                size(limit)
            );
            reporter.report(Event::Info { message });
            if usage > limit {
                reporter.report(Event::Warning {
                    message: format!(
                        "the store still has {}, and its limit is {}",
                        size(usage),
                        size(limit)
                    ),
                    hint: Some(
                        "kiln du says what takes it; images with a name stay until kiln rmi"
                            .to_owned(),
                    ),
                });
            }
        }
        Err(error) => reporter.report(Event::Warning {
            message: format!("the store could not be brought below its limit: {error}"),
            hint: error.hint(),
        }),
    }
}

/// Returns the names under which the image is pushed.
fn names_to_push(
    arguments: &Arguments,
    options: &Options,
    outputs: &[OutputSpec],
) -> Result<Vec<(Reference, Packing)>> {
    let mut names: Vec<(Reference, Packing)> = Vec::new();
    let mut asked = arguments.push();
    if asked {
        // As with buildx, where --push is short for such an output.
        let images = outputs.iter().filter(|o| o.output == Output::Image);
        let packing = images.map(|o| o.packing).next().unwrap_or_default();
        names.extend(options.tags.iter().map(|name| (name.clone(), packing)));
    }
    for output in outputs.iter().filter(|output| output.push) {
        asked = true;
        let own = match output.names.is_empty() {
            true => &options.tags,
            false => &output.names,
        };
        for name in own {
            if !names.iter().any(|(known, _)| known == name) {
                names.push((name.clone(), output.packing));
            }
        }
    }
    match asked && names.is_empty() {
        true => Err(CliError::message("what is pushed needs a name")
            .hinted("give one with -t REGISTRY/REPOSITORY:TAG")),
        false => Ok(names),
    }
}

/// Pushes the image under names; returns the digest of its manifest.
fn push(
    arguments: &Arguments,
    workshop: &Workshop,
    reporter: &Arc<dyn Reporter>,
    built: &Built,
    names: &[(Reference, Packing)],
) -> Result<Option<Digest>> {
    if names.is_empty() {
        return Ok(None);
    }
    let transfer = Transfer {
        store: &workshop.store,
        session: &workshop.session,
        reporter,
        step: None,
    };
    let client = arguments.connection.client(workshop)?;
    let mut pushed = None;
    for (tag, packing) in names {
        // Anew for each: a push notes the manifest, which the next one then takes.
        let image = workshop.store.find(&built.id.to_string())?;
        let digest = transfer::push(&transfer, &client, &image, tag, packing)?;
        reporter.report(Event::Info {
            message: format!("pushed {}: digest: {digest}", tag.familiar()),
        });
        pushed = Some(digest);
    }
    Ok(pushed)
}

/// Returns what was built in the words of buildx. Without a push there is no manifest yet: as
/// with docker's own store, the digest is then that of the config.
fn metadata(id: &Digest, pushed: Option<Option<Digest>>, options: &Options) -> String {
    let names: Vec<String> = options.tags.iter().map(ToString::to_string).collect();
    let mut metadata = match pushed {
        Some(manifest) => serde_json::json!({
            "containerimage.config.digest": id.to_string(),
            "containerimage.digest": manifest.as_ref().unwrap_or(id).to_string(),
        }),
        None => serde_json::json!({"containerimage.digest": id.to_string()}),
    };
    if !names.is_empty() {
        metadata["image.name"] = names.join(",").into();
    }
    format!("{metadata:#}\n")
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
    let options = Options {
        context: ContextSource::parse(&arguments.context)?,
        contexts: arguments
            .build_context
            .iter()
            .map(|text| Ok(NamedSource::parse(text)?))
            .collect::<Result<_>>()?,
        dockerfile: arguments.file.clone(),
        ignorefile: arguments.ignorefile.clone(),
        tags: arguments
            .tag
            .iter()
            .map(|text| parse_tag(text))
            .collect::<Result<_>>()?,
        build_args: build_args(arguments)?,
        target: arguments.target.clone(),
        no_cache: arguments.no_cache.unwrap_or(false),
        no_cache_filter: arguments.no_cache_filter.clone(),
        cache_ttl: arguments.cache_ttl,
        cache_from: caches::sources(&arguments.cache_from)?,
        cache_to: caches::destinations(&arguments.cache_to)?,
        cache_max_size: arguments.cache_max_size,
        jobs: jobs(arguments.jobs),
        explain: arguments.explain,
        pull: arguments.pull.unwrap_or_default(),
        network: arguments.network.into(),
        surroundings: (&arguments.around).into(),
        labels: arguments.label.iter().map(label).collect::<Result<_>>()?,
        changes: changes(arguments),
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
        platform: platforms(arguments)?.into_iter().next(),
        show_checks: !arguments.quiet(),
    };
    Ok((options, outputs))
}

/// Parses a label.
fn label(text: &String) -> Result<(String, String)> {
    match text.split_once('=') {
        Some(("", _)) => Err(CliError::message(format!(
            "invalid label {text:?}: it has no name"
        ))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Ok((text.clone(), String::new())),
    }
}

fn build_args(arguments: &Arguments) -> Result<BTreeMap<String, String>> {
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    let mut args = BTreeMap::new();
    if arguments.http_proxy == Some(true) {
        for name in [
            "http_proxy",
            "https_proxy",
            "ftp_proxy",
            "no_proxy",
            "all_proxy",
        ] {
            settings::add_variable(&mut args, &name.to_ascii_uppercase());
            settings::add_variable(&mut args, name);
        }
    }
    for path in &arguments.build_arg_file {
        settings::build_arg_file(&mut args, path)?;
    }
    for text in &arguments.build_arg {
        settings::add_variable(&mut args, text);
    }
    match arguments.source_date_epoch {
        Some(seconds) => {
            args.insert(EPOCH.to_owned(), seconds.to_string());
        }
        // As docker's client passes it on; --build-arg overrides it.
        None if !args.contains_key(EPOCH) => settings::add_variable(&mut args, EPOCH),
        None => {}
    }
    Ok(args)
}

fn changes(arguments: &Arguments) -> ConfigChanges {
    let mut env = BTreeMap::new();
    for text in &arguments.env {
        settings::add_variable(&mut env, text);
    }
    ConfigChanges {
        env,
        unset_env: arguments.unsetenv.clone(),
        unset_labels: arguments.unsetlabel.clone(),
    }
}

fn platforms(arguments: &Arguments) -> Result<Vec<Platform>> {
    let host = Platform::host();
    let parts = (&arguments.os, &arguments.arch, &arguments.variant);
    let text = match (arguments.platform.as_slice(), parts) {
        ([], (None, None, None)) => return Ok(Vec::new()),
        ([], (os, arch, variant)) => {
            let mut text = os.clone().unwrap_or(host.os);
            text = format!("{text}/{}", arch.as_ref().unwrap_or(&host.architecture));
            if let Some(variant) = variant {
                text = format!("{text}/{variant}");
            }
            text
        }
        (several, _) => {
            let mut platforms: Vec<Platform> = Vec::new();
            for text in several {
                let platform = text.parse()?;
                if !platforms.contains(&platform) {
                    platforms.push(platform);
                }
            }
            return Ok(platforms);
        }
    };
    Ok(vec![text.parse()?])
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
