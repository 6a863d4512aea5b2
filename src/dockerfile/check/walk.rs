//! The instructions of the stages, in order, with the variables that each of them sees.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::*;
use super::variables::expand_noting;
use super::{Place, Reporter, files, script};
use crate::dockerfile::plan::BaseRef;
use crate::dockerfile::{
    ArgItem, Command, Instruction, InstructionKind, KeyValue, Scope, Span, Stage, Word, join_path,
};

/// What an instruction finds.
#[derive(Clone)]
pub(super) struct Environment {
    pub(super) scope: Scope,
    /// Whether all variables are known, those of the base image too.
    pub(super) complete: bool,
    /// The names that ARG declared, with a value or without.
    pub(super) declared: BTreeSet<String>,
    /// Whether a WORKDIR came.
    workdir: bool,
    /// The working directory; one of an unknown base image has a name of its own.
    pub(super) cwd: String,
    /// The user, where known.
    pub(super) user: Option<String>,
    /// SHELL, the base image's or the file's.
    pub(super) shell: Option<Vec<String>>,
    /// Where COPY and ADD put files.
    pub(super) copied: Vec<Copied>,
    /// A RUN with nothing but the update of apt's lists, that no install has followed yet.
    pub(super) stale: Option<Span>,
}

/// Where a COPY or ADD put something.
#[derive(Clone)]
pub(super) struct Copied {
    /// The destination.
    pub(super) path: String,
    /// Whether it is likely more than a single small file.
    pub(super) many: bool,
}

/// Where relative paths begin while the base image is unknown.
const UNKNOWN: &str = "/<unknown>";

/// Checks the instructions of all stages.
pub(super) fn check(reporter: &mut Reporter<'_>) {
    let subject = reporter.subject;
    let target = subject.file.stages.len() - 1;
    let globals = subject
        .file
        .globals(target, subject.build_args, subject.predefined);
    let Ok(globals) = globals else {
        return;
    };
    let mut ends: Vec<Environment> = Vec::new();
    let mut bases: Vec<Option<usize>> = Vec::new();
    for stage in &subject.file.stages {
        let base = subject
            .file
            .base(stage, &globals, subject.build_args, subject.contexts)
            .ok();
        bases.push(match &base {
            Some(BaseRef::Stage(index)) => Some(*index),
            _ => None,
        });
        let mut env = begin(reporter, &globals, base.as_ref(), &ends);
        // What is not asked for is walked all the same: other stages may stand on it.
        let wanted = subject
            .stages
            .is_none_or(|only| only.contains(&stage.index));
        let before = reporter.found.len();
        walk(reporter, &mut env, stage);
        if !wanted {
            reporter.found.truncate(before);
        }
        ends.push(env);
    }
    script::lists_left(reporter, &final_stages(&bases, subject.stages));
}

/// Returns the stages whose layers are in the image.
fn final_stages(bases: &[Option<usize>], only: Option<&[usize]>) -> Vec<usize> {
    let last = only.and_then(|only| only.iter().max().copied());
    let mut next = Some(last.unwrap_or(bases.len() - 1));
    let mut stages = Vec::new();
    while let Some(index) = next {
        stages.push(index);
        next = bases[index];
    }
    stages
}

fn begin(
    reporter: &Reporter<'_>,
    globals: &BTreeMap<String, String>,
    base: Option<&BaseRef>,
    ends: &[Environment],
) -> Environment {
    let subject = reporter.subject;
    let config = match base {
        Some(BaseRef::Stage(index)) => {
            return ends[*index].clone();
        }
        Some(BaseRef::Image(name)) => (subject.base)(name),
        _ => None,
    };
    let scratch = base == Some(&BaseRef::Scratch);
    let env = config
        .as_ref()
        .map(|c| c.config.env.as_slice())
        .unwrap_or_default();
    let mut scope = Scope::new(globals, subject.build_args, env, subject.file.escape);
    if scope.lookup("PATH").is_none() {
        scope.set_env("PATH", "/usr/bin");
    }
    let complete = scratch || config.is_some();
    let (cwd, user, shell) = match config {
        Some(config) => (
            config.config.working_dir.clone(),
            Some(config.config.user.clone()),
            config.config.shell.clone(),
        ),
        None if scratch => ("/".to_owned(), Some(String::new()), None),
        None => (UNKNOWN.to_owned(), None, None),
    };
    Environment {
        scope,
        complete,
        declared: BTreeSet::new(),
        workdir: false,
        cwd: join_path("/", &cwd),
        user,
        shell,
        copied: Vec::new(),
        stale: None,
    }
}

fn walk(reporter: &mut Reporter<'_>, env: &mut Environment, stage: &Stage) {
    let mut once: BTreeMap<&str, Span> = BTreeMap::new();
    for instruction in &stage.instructions {
        let place = reporter.place(instruction.span);
        if matches!(
            instruction.kind.name(),
            "CMD" | "ENTRYPOINT" | "HEALTHCHECK"
        ) {
            let name = instruction.kind.name();
            if let Some(earlier) = once.insert(name, instruction.span) {
                let message = format!("only the last {name} of a stage counts");
                reporter.report_at(
                    &MULTIPLE_INSTRUCTIONS_DISALLOWED,
                    &place,
                    earlier,
                    message,
                    None,
                );
            }
        }
        step(reporter, env, &place, instruction);
    }
}

fn step(
    reporter: &mut Reporter<'_>,
    env: &mut Environment,
    place: &Place,
    instruction: &Instruction,
) {
    match &instruction.kind {
        InstructionKind::Arg(items) => {
            for item in items {
                argument(reporter, env, place, item);
            }
        }
        InstructionKind::Env(pairs) => {
            let expanded = key_values(reporter, env, place, "ENV", pairs);
            for (name, value) in expanded {
                reporter.secret(place, "ENV", &name);
                env.scope.set_env(&name, &value);
            }
        }
        InstructionKind::Label(pairs) => {
            key_values(reporter, env, place, "LABEL", pairs);
        }
        InstructionKind::Add(_) | InstructionKind::Copy(_) => {
            files::check(reporter, env, place, instruction);
        }
        InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => {
            let name = instruction.kind.name();
            if matches!(command, Command::Shell(_)) && env.shell.is_none() {
                let message = format!("{name} in shell form: signals end at the shell");
                reporter.report(&JSON_ARGS_RECOMMENDED, place, message);
            }
            script::form(reporter, env, place, name, command);
        }
        InstructionKind::Run(run) => {
            for mount in &run.mounts {
                let escape = reporter.subject.file.escape;
                let scope = &env.scope;
                let lookup = |name: &str| scope.lookup(name);
                let (_, met) =
                    expand_noting(&lookup, |lookup| mount.expand(lookup, escape).map(|_| ()));
                reporter.undefined(env, place, &met);
            }
            script::form(reporter, env, place, "RUN", &run.command);
            script::check(reporter, env, place, instruction, run);
        }
        InstructionKind::Expose(words) => {
            for word in words {
                expose(reporter, env, place, word);
            }
        }
        InstructionKind::Maintainer(_) => {
            let message = "MAINTAINER is deprecated: a label does the same";
            let hint = "LABEL org.opencontainers.image.authors=\"…\"".to_owned();
            reporter.report_at(
                &MAINTAINER_DEPRECATED,
                place,
                place.span,
                message,
                Some(hint),
            );
        }
        InstructionKind::Shell(shell) => env.shell = Some(shell.clone()),
        InstructionKind::StopSignal(word) => {
            reporter.expand(env, place, word);
        }
        InstructionKind::User(word) => env.user = Some(reporter.expand(env, place, word)),
        InstructionKind::Volume(words) => {
            for word in words {
                if reporter.expand(env, place, word).starts_with('[') {
                    script::broken_json(reporter, place, "VOLUME", "a path of that name");
                    break;
                }
            }
        }
        InstructionKind::Workdir(word) => {
            let path = reporter.expand(env, place, word);
            if !env.workdir && !path.starts_with('/') {
                let message = format!("WORKDIR {path} is relative to what the base image says");
                reporter.report(&WORKDIR_RELATIVE_PATH, place, message);
            }
            env.workdir = true;
            env.cwd = join_path(&env.cwd, &path);
        }
        InstructionKind::From(_)
        | InstructionKind::Healthcheck(_)
        | InstructionKind::OnBuild(_) => {}
    }
}

fn argument(reporter: &mut Reporter<'_>, env: &mut Environment, place: &Place, item: &ArgItem) {
    reporter.secret(place, "ARG", &item.name);
    if let Some(default) = &item.default
        && !reporter.subject.build_args.contains_key(&item.name)
    {
        reporter.expand(env, place, default);
    }
    // A default that can't be expanded is reported by the build.
    let _ = env.scope.declare_arg(item);
    env.declared.insert(item.name.clone());
}

fn key_values(
    reporter: &mut Reporter<'_>,
    env: &Environment,
    place: &Place,
    name: &str,
    pairs: &[KeyValue],
) -> Vec<(String, String)> {
    let mut expanded = Vec::new();
    for pair in pairs {
        if pair.legacy {
            let key = &pair.name.text;
            let message = format!("write {name} {key}=… in place of {name} {key} …");
            reporter.report(&LEGACY_KEY_VALUE_FORMAT, place, message);
        }
        let key = reporter.expand(env, place, &pair.name);
        let value = reporter.expand(env, place, &pair.value);
        expanded.push((key, value));
    }
    expanded
}

fn expose(reporter: &mut Reporter<'_>, env: &Environment, place: &Place, word: &Word) {
    let ports = env.scope.expand_words(word).unwrap_or_default();
    for port in ports {
        if let Some((_, protocol)) = port.rsplit(':').next().and_then(|p| p.split_once('/'))
            && protocol != protocol.to_lowercase()
        {
            let message = format!("the protocol of {port} should be in lower case");
            reporter.report(&EXPOSE_PROTO_CASING, place, message);
        }
        if port.contains(':') {
            let message = format!("EXPOSE takes a port of the container only, not {port}");
            reporter.report(&EXPOSE_INVALID_FORMAT, place, message);
        }
    }
}
