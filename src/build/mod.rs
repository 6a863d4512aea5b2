//! Builds an image from the stages of a Dockerfile. Emits events and never prints.

mod base;
mod cancel;
mod carried;
mod check;
mod commit;
mod context_source;
mod contexts;
mod copy;
mod error;
mod explain;
mod key;
mod mount;
mod origin;
mod pipeline;
mod recall;
mod remote;
mod run;
mod schedule;
mod secret;
mod sources;
mod ssh;
mod stage;
mod workdir;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kiln_runtime::{HostHelper, Network};

pub use cancel::Cancel;
pub use carried::CarriedTo;
pub use check::{Examined, examine};
pub use context_source::{ContextSource, NamedSource, NamedSourceError};
pub use error::{BuildError, RunFailure};
use key::Key;
use schedule::Schedule;
pub use secret::{GivenError, Secret, SecretError, authorizations};
pub use ssh::Ssh;

use crate::context::Context;
use crate::dockerfile::{
    self, Diagnostic, Diagnostics, Dockerfile, InstructionKind, Plan, Source, Span, Stage,
};
use crate::event::{Event, Reporter, StepId, StepOutcome};
use crate::fetch::Authorizations;
use crate::image::{Digest, ImageConfig, Platform, Reference};
use crate::layer::Timestamp;
use crate::registry::{Client, SetupError, Web};
use crate::sandbox::{SandboxError, Sandboxes, Surroundings};
use crate::store::{Session, Stack, Store};

/// What is to be built, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What to build from.
    pub context: ContextSource,
    /// `--build-context`, by names in the form of [`dockerfile::context_name`].
    pub contexts: BTreeMap<String, NamedSource>,
    /// `-f`; `-` is standard input.
    pub dockerfile: Option<PathBuf>,
    /// `--ignorefile`.
    pub ignorefile: Option<PathBuf>,
    /// The names that the image gets.
    pub tags: Vec<Reference>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--target`.
    pub target: Option<String>,
    /// Whether records of earlier builds are passed over.
    pub no_cache: bool,
    /// The stages for which they are passed over, by name or number.
    pub no_cache_filter: Vec<String>,
    /// Records that are older than this don't count.
    pub cache_ttl: Option<Duration>,
    /// Directories with steps that other machines did.
    pub cache_from: Vec<PathBuf>,
    /// Directories that steps are kept in for other machines.
    pub cache_to: Vec<CarriedTo>,
    /// How many bytes the layers in such a directory may have.
    pub cache_max_size: Option<u64>,
    /// How many steps may run at once.
    pub jobs: usize,
    /// Whether it is said of each step why it runs or not.
    pub explain: bool,
    /// When base images are pulled.
    pub pull: Pull,
    /// The network of RUN.
    pub network: Network,
    /// What RUN sees around it beside that.
    pub surroundings: Surroundings,
    /// `--label`, applied last.
    pub labels: Vec<(String, String)>,
    /// What else is changed about the config at the end.
    pub changes: ConfigChanges,
    /// `--secret`.
    pub secrets: Vec<Secret>,
    /// `--ssh`.
    pub ssh: Vec<Ssh>,
    /// `--platform`; the host's where none is given.
    pub platform: Option<Platform>,
    /// Whether what checks find is shown. Where the file makes it an error, it is one anyway.
    pub show_checks: bool,
}

/// When base images are pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// Although they are in the store.
    Always,
    /// When they are not in the store.
    #[default]
    Missing,
    /// Not at all.
    Never,
}

/// Changes to the config of an image that its Dockerfile doesn't say.
#[derive(Clone, Debug, Default)]
pub struct ConfigChanges {
    /// Variables that are set where ENV doesn't.
    pub env: BTreeMap<String, String>,
    /// Variables that are removed.
    pub unset_env: Vec<String>,
    /// Labels that are removed.
    pub unset_labels: Vec<String>,
}

impl ConfigChanges {
    /// Applies the changes to the config of a target.
    fn apply(&self, config: &mut ImageConfig, file: &Dockerfile, target: usize) {
        let own = file.stages[target].instructions.iter();
        let mut set: Vec<&str> = Vec::new();
        for instruction in own {
            if let InstructionKind::Env(pairs) = &instruction.kind {
                set.extend(pairs.iter().map(|pair| pair.name.text.as_str()));
            }
        }
        for (name, value) in &self.env {
            if !set.contains(&name.as_str()) {
                config.config.set_env(name, value);
            }
        }
        let is_unset = |entry: &String| {
            let name = entry.split('=').next().unwrap_or_default();
            self.unset_env.iter().any(|unset| unset == name)
        };
        config.config.env.retain(|entry| !is_unset(entry));
        for name in &self.unset_labels {
            config.config.labels.remove(name);
        }
    }
}

impl Options {
    /// Tells whether records of earlier builds are passed over in a stage.
    fn passes_over(&self, index: usize, stage: &Stage) -> bool {
        let is_meant = |name: &String| {
            let named = stage.name.as_ref();
            named.is_some_and(|own| own.eq_ignore_ascii_case(name)) || *name == index.to_string()
        };
        self.no_cache || self.no_cache_filter.iter().any(is_meant)
    }
}

/// What a build works with.
pub struct Workshop<'a> {
    /// Where images and layers are kept.
    pub store: &'a Store,
    /// Where half-done things are.
    pub session: &'a Arc<Session>,
    /// Who is told.
    pub reporter: Arc<dyn Reporter>,
    /// Makes the client of registries when the first base image is pulled.
    pub client: &'a (dyn Fn() -> Result<Client, SetupError> + Sync),
    /// Runs git outside the builder's namespace.
    pub host: &'a HostHelper,
    /// Reads URLs.
    pub web: Web,
    /// What servers of URLs and of git repositories are told.
    pub authorizations: Authorizations,
    /// Makes what RUN needs when the first one comes.
    pub sandboxes: &'a (dyn Fn() -> Result<Sandboxes, SandboxError> + Sync),
    /// Ends the build early, for when it is interrupted.
    pub cancel: &'a Cancel,
}

/// An image that was built.
pub struct Built {
    /// The digest of its config.
    pub id: Digest,
    /// Its config.
    pub config: ImageConfig,
    /// Its layers.
    pub stack: Stack,
}

/// A build that is under way.
struct Build<'a> {
    shop: &'a Workshop<'a>,
    options: &'a Options,
    source: Arc<Source>,
    file: &'a Dockerfile,
    context: &'a Context,
    named: contexts::NamedContexts,
    plan: Mutex<Plan>,
    schedule: Schedule,
    /// Names the Dockerfile among others.
    identity: String,
    platform: Platform,
    /// The time of what this build makes.
    now: jiff::Timestamp,
    /// Whether SOURCE_DATE_EPOCH gives that time: results then depend on it.
    dated: bool,
    next_step: AtomicU32,
    carried: carried::Carried,
    client: OnceLock<Client>,
    sandboxes: OnceLock<Sandboxes>,
}

/// Builds an image, stores it, and gives it its names.
///
/// # Errors
/// See [`BuildError`]. Layers of steps that went well stay in the cache; nothing else is left.
pub fn build(shop: &Workshop<'_>, options: &Options) -> Result<Built, BuildError> {
    let steps = contexts::Steps::default();
    let contexts::Opened {
        context,
        dockerfile,
    } = contexts::open(shop, options, &steps)?;
    let source = Arc::new(dockerfile);
    let wrong = |diagnostics| BuildError::Dockerfile {
        diagnostics,
        source_text: source.clone(),
    };
    let frontend = options.build_args.get("BUILDKIT_SYNTAX");
    let file = dockerfile::parse_for(&source, frontend.map(String::as_str)).map_err(wrong)?;
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let predefined = predefined_args(&platform, options.target.as_deref());
    let plan = file
        .plan_with_contexts(
            options.target.as_deref(),
            &options.build_args,
            &predefined,
            &options.contexts.keys().cloned().collect(),
        )
        .map_err(wrong)?;
    let around = check::Around {
        options,
        context: &context,
        store: Some(shop.store),
        platform: &platform,
        predefined: &predefined,
    };
    around.warn(&source, &file, &plan, shop.reporter.as_ref())?;
    let epoch = source_date_epoch(&plan).map_err(wrong)?;
    let build = Build {
        shop,
        options,
        source: source.clone(),
        file: &file,
        context: &context,
        named: contexts::NamedContexts::default(),
        schedule: Schedule::new(plan.stages.len(), options.jobs),
        plan: Mutex::new(plan),
        identity: format!(
            "{:?} {:?} {:?} {:?}",
            std::env::current_dir().unwrap_or_default(),
            options.context,
            options.dockerfile,
            options.target
        ),
        platform,
        now: epoch.unwrap_or_else(jiff::Timestamp::now),
        dated: epoch.is_some(),
        next_step: AtomicU32::new(steps.next()),
        carried: carried::Carried::default(),
        client: OnceLock::new(),
        sandboxes: OnceLock::new(),
    };
    let built = build.run();
    // Not earlier: the triggers of base images take arguments too.
    build.report_unused_args();
    built
}

/// Returns the time that new things get where the caller gives it.
/// See <https://reproducible-builds.org/specs/source-date-epoch/>.
fn source_date_epoch(plan: &Plan) -> Result<Option<jiff::Timestamp>, Diagnostics> {
    let Some(text) = plan.setting("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let seconds = text.parse().ok();
    match seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
        Some(time) => Ok(Some(time)),
        None => Err(Diagnostic::new(
            Span::default(),
            format!("invalid SOURCE_DATE_EPOCH: {text:?}"),
        )
        .hinted("it is a number of seconds since 1970, as date +%s prints it")
        .into()),
    }
}

/// Returns the arguments that a stage may declare without giving them a value.
fn predefined_args(target: &Platform, stage: Option<&str>) -> BTreeMap<String, String> {
    let host = Platform::host();
    let mut args = BTreeMap::new();
    for (prefix, platform) in [("BUILD", &host), ("TARGET", target)] {
        let mut set = |name: &str, value: String| {
            args.insert(format!("{prefix}{name}"), value);
        };
        set("PLATFORM", platform.to_string());
        set("OS", platform.os.clone());
        set("OSVERSION", String::new());
        set("ARCH", platform.architecture.clone());
        set("VARIANT", platform.variant.clone().unwrap_or_default());
    }
    if let Some(stage) = stage.filter(|stage| !stage.is_empty()) {
        args.insert("TARGETSTAGE".to_owned(), stage.to_owned());
    }
    args
}

impl Build<'_> {
    fn run(&self) -> Result<Built, BuildError> {
        let finished = self.build_stages()?;
        let (mut config, stack) = (finished.config.clone(), finished.stack.clone());
        let target = self.plan().target;
        self.options.changes.apply(&mut config, self.file, target);
        for (name, value) in &self.options.labels {
            config.config.labels.insert(name.clone(), value.clone());
        }
        config.created = config
            .history
            .iter()
            .rev()
            .find_map(|entry| entry.created.clone())
            .or(config.created);
        config.rootfs.diff_ids = stack
            .layers()
            .iter()
            .map(|layer| layer.meta.diff_id.clone())
            .collect();
        let step = self.begin("exporting to image");
        let store = self.shop.store;
        let id = store.write_document(&config.to_bytes())?;
        store.publish_image(&id, &stack)?;
        for tag in &self.options.tags {
            store.tag(tag, &id, None)?;
        }
        let mut detail = format!("image {}", id.short());
        for tag in &self.options.tags {
            detail.push_str(&format!(", named {}", tag.familiar()));
        }
        self.end(step, StepOutcome::Done, Some(detail));
        // The references are there; that all lies on the disk is what the next boot asks for.
        // The layers of other stages count too: the cache leads to them.
        let done = self.schedule.done();
        store.sync(done.iter().flat_map(|stage| stage.stack.layers()))?;
        self.export_carried(&stack);
        Ok(Built { id, config, stack })
    }

    /// Starts the key of a kind of step.
    fn key(&self, kind: &str) -> Key {
        let mut key = Key::new(kind);
        if self.dated {
            key.text("at").text(&self.now.to_string());
        }
        key
    }

    /// Returns the time that directories get which a step creates.
    fn time_of_new(&self) -> Timestamp {
        match self.dated {
            true => Timestamp::from_seconds(self.now.as_second()),
            // Not that of the build's start: a directory is not older than what is in it.
            false => Timestamp::now(),
        }
    }

    /// Reports that a step begins.
    fn begin(&self, name: &str) -> Running {
        let id = StepId(self.next_step.fetch_add(1, Ordering::Relaxed));
        self.shop.reporter.report(Event::StepStarted {
            step: id,
            name: name.to_owned(),
        });
        Running {
            id,
            name: name.to_owned(),
            started: Instant::now(),
        }
    }

    /// Reports that a step has ended.
    fn end(&self, step: Running, outcome: StepOutcome, detail: Option<String>) {
        self.shop.reporter.report(Event::StepFinished {
            step: step.id,
            outcome,
            elapsed: step.started.elapsed(),
            detail,
        });
    }

    fn report_unused_args(&self) {
        let unused = self
            .file
            .unused_build_args(&self.plan(), &self.options.build_args);
        if !unused.is_empty() {
            self.shop.reporter.report(Event::Warning {
                message: format!(
                    "build argument{} not used: {}",
                    if unused.len() == 1 { "" } else { "s" },
                    unused.join(", ")
                ),
                hint: Some("a stage takes one with ARG NAME".to_owned()),
            });
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Result<&Client, SetupError> {
        if self.client.get().is_none() {
            let _ = self.client.set((self.shop.client)()?);
        }
        Ok(self.client.get().expect("it was set above"))
    }

    fn sandboxes(&self) -> Result<&Sandboxes, SandboxError> {
        if self.sandboxes.get().is_none() {
            let _ = self.sandboxes.set((self.shop.sandboxes)()?);
        }
        Ok(self.sandboxes.get().expect("it was set above"))
    }
}

/// A step that was reported to have begun.
struct Running {
    id: StepId,
    name: String,
    started: Instant,
}
