//! One stage: from its base through its instructions.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::Scope;

use super::contexts::Named;
use super::error::{BuildError, Step, Trouble};
use super::key::{Inputs, Key};
use super::pipeline::{Made, Pipeline};
use super::{Build, Running};
use crate::context::Context;
use crate::dockerfile::{
    BaseRef, Instruction, InstructionKind, PlannedStage, Scope as Variables, Source,
    apply_metadata, parse_onbuild_trigger,
};
use crate::event::StepOutcome;
use crate::image::{HistoryEntry, ImageConfig, Platform};
use crate::layer::{UpperKind, View};
use crate::sandbox::DEFAULT_PATH;
use crate::store::{Layer, Stack, StepRecord};

/// A stage that is being built.
pub(super) struct State {
    /// The layers that are in the store.
    pub(super) stack: Stack,
    /// How many of them are the base's.
    inherited: usize,
    /// Those that are on their way there.
    pub(super) pipeline: Option<Pipeline>,
    /// The trees of the latter, bottom first.
    pub(super) ahead: Vec<PathBuf>,
    /// The tree that all of them make up.
    pub(super) view: View,
    /// The config so far; its diff ids are filled in at the end.
    pub(super) config: ImageConfig,
    /// The variables.
    pub(super) scope: Variables,
    /// Whether CMD was set in this stage: ENTRYPOINT clears an inherited one only.
    pub(super) cmd_is_own: bool,
    /// Whether records of earlier builds are passed over.
    pub(super) no_cache: bool,
    /// What FROM and `--from` refer to.
    pub(super) planned: PlannedStage,
    /// A hash of the base and all steps so far: two builds with the same one do the same.
    lineage: [u8; 32],
    /// The first step that had no record.
    pub(super) first_miss: Option<String>,
    /// Names the stage among those of all Dockerfiles.
    identity: String,
    /// For names of steps.
    label: String,
    number: usize,
    total: usize,
}

impl State {
    /// Returns what names the step among those of all Dockerfiles, whatever it says.
    pub(super) fn place(&self) -> String {
        let place = format!("{} {}", self.identity, self.number);
        blake3::hash(place.as_bytes()).to_hex()[..32].to_owned()
    }

    /// Goes on by a step, and returns what names it among all steps of all builds.
    pub(super) fn advance(&mut self, inputs: &Inputs) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.lineage);
        hasher.update(inputs.hash.as_bytes());
        self.lineage = hasher.finalize().into();
        let mut place = [0; 8];
        place.copy_from_slice(&self.lineage[..8]);
        place
    }
}

/// A stage that is built.
pub(super) struct Finished {
    /// How many layers are the base's.
    pub(super) inherited: usize,
    pub(super) stack: Stack,
    pub(super) view: View,
    pub(super) config: ImageConfig,
    pub(super) scope: Variables,
}

/// What an instruction came to, for its line of history and of progress.
pub(super) struct Outcome {
    /// The instruction in the words of docker's history.
    created_by: String,
    result: Effect,
}

/// What an instruction made of the file system.
enum Effect {
    /// Nothing.
    Nothing,
    /// A layer that was there already, and when it was made.
    Cached(Arc<Layer>, String),
    /// A tree that is to become one.
    Made(Box<Made>),
}

impl Outcome {
    /// Returns the outcome of a step that had nothing to do.
    pub(super) fn nothing(created_by: String) -> Outcome {
        Outcome {
            created_by,
            result: Effect::Nothing,
        }
    }

    /// Returns the outcome of a step that was done before.
    pub(super) fn cached(created_by: String, layer: Arc<Layer>, created: String) -> Outcome {
        Outcome {
            created_by,
            result: Effect::Cached(layer, created),
        }
    }

    /// Returns what is recorded of a step that was done before.
    pub(super) fn record(&self) -> Option<StepRecord> {
        match &self.result {
            Effect::Cached(layer, created) => Some(StepRecord {
                diff_id: layer.meta.diff_id.clone(),
                created: created.clone(),
            }),
            _ => None,
        }
    }

    /// Returns the outcome of a step that was done now.
    pub(super) fn made(created_by: String, made: Made) -> Outcome {
        Outcome {
            created_by,
            result: Effect::Made(Box::new(made)),
        }
    }
}

/// Tells whether an instruction is shown as a step of its own: those that touch files.
fn is_step(kind: &InstructionKind) -> bool {
    matches!(
        kind,
        InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_)
    )
}

/// An instruction in its turn.
struct Turn<'a> {
    instruction: &'a Instruction,
    /// The text that it is in.
    source: &'a Arc<Source>,
    /// Whether more steps follow in the stage.
    is_last: bool,
}

impl Build<'_> {
    /// Builds a stage, waiting for those that it needs.
    pub(super) fn stage(&self, index: usize) -> Result<Finished, BuildError> {
        std::thread::scope(|scope| self.stage_within(scope, index))
    }

    fn stage_within<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        index: usize,
    ) -> Result<Finished, BuildError> {
        let stage = &self.file.stages[index];
        let from_here = |trouble: Trouble| trouble.at(&self.source, stage.from.span);
        let planned = self.plan().stages[index].clone();
        // Of a stage that a named context replaces, nothing is carried out.
        let is_replaced = planned.is_replaced;
        let instructions: &[Instruction] = match is_replaced {
            true => &[],
            false => &stage.instructions,
        };
        let own = instructions.iter().filter(|i| is_step(&i.kind));
        let total = 1 + own.count();
        let label = if self.file.stages.len() == 1 && stage.name.is_none() {
            String::new()
        } else {
            format!("{} ", stage.display_name())
        };
        let base = match &planned.base {
            BaseRef::Scratch => "scratch".to_owned(),
            BaseRef::Stage(base) => self.file.stages[*base].display_name(),
            BaseRef::Image(name) => name.clone(),
            BaseRef::Context(name) => format!("context {name}"),
        };
        if let BaseRef::Stage(base) = planned.base {
            self.finished(base).map_err(from_here)?;
        }
        self.check_canceled().map_err(from_here)?;
        let step = self.begin(&format!("[{label}1/{total}] FROM {base}"));
        let mut state = match self.begin_stage(planned, index, &step) {
            Ok((state, cached)) => {
                let outcome = if cached {
                    StepOutcome::Cached
                } else {
                    StepOutcome::Done
                };
                self.end(step, outcome, None);
                state
            }
            Err(trouble) => {
                let (outcome, detail) = trouble.outcome();
                self.end(step, outcome, detail);
                return Err(from_here(trouble));
            }
        };
        let inherited = state.config.history.len();
        state.label = label;
        state.number = 1;
        state.total = total;

        let triggers = match is_replaced {
            true => Vec::new(),
            false => self.triggers(&mut state, index)?,
        };
        let own = instructions.iter().map(|i| (i, &self.source));
        let all: Vec<_> = triggers.iter().map(|(i, s)| (i, s)).chain(own).collect();
        let last = all.iter().rposition(|(i, _)| is_step(&i.kind));
        for (position, (instruction, source)) in all.into_iter().enumerate() {
            let turn = Turn {
                instruction,
                source,
                is_last: Some(position) >= last,
            };
            self.instruction(scope, &mut state, &turn)?;
        }
        self.settle(&mut state).map_err(from_here)?;
        self.date_history(&mut state.config, inherited);
        Ok(Finished {
            inherited: state.inherited,
            stack: state.stack,
            view: state.view,
            config: state.config,
            scope: state.scope,
        })
    }

    /// Takes the triggers of the base, which are cleared: there is no chaining.
    fn triggers(
        &self,
        state: &mut State,
        index: usize,
    ) -> Result<Vec<(Instruction, Arc<Source>)>, BuildError> {
        let triggers = std::mem::take(&mut state.config.config.on_build);
        if triggers.is_empty() {
            return Ok(Vec::new());
        }
        let wrong = |diagnostics, source: &Arc<Source>| BuildError::Dockerfile {
            diagnostics,
            source_text: source.clone(),
        };
        let name = format!(
            "ONBUILD trigger of {}",
            self.file.stages[index].from.base.text
        );
        let mut parsed = Vec::new();
        for text in triggers {
            let source = Arc::new(Source::new(name.as_str(), text.clone()));
            let trigger = parse_onbuild_trigger(&text).map_err(|d| wrong(d, &source))?;
            parsed.push((trigger, source));
        }
        let instructions: Vec<Instruction> = parsed.iter().map(|(i, _)| i.clone()).collect();
        let mut plan = self.plan();
        plan.adopt_triggers(self.file, index, &instructions)
            .map_err(|diagnostics| wrong(diagnostics, &self.source))?;
        state.planned = plan.stages[index].clone();
        state.total += instructions.iter().filter(|i| is_step(&i.kind)).count();
        Ok(parsed)
    }

    fn begin_stage(
        &self,
        planned: PlannedStage,
        index: usize,
        step: &Running,
    ) -> Step<(State, bool)> {
        let platform = planned.platform.as_ref().unwrap_or(&self.platform);
        let mut files = None;
        let (config, stack, scope, mut cached) = match &planned.base {
            BaseRef::Scratch => {
                let mut config = ImageConfig::scratch(platform);
                config.config.working_dir = "/".to_owned();
                (config, Stack::default(), None, true)
            }
            BaseRef::Stage(base) => {
                let base = self.finished(*base)?;
                let scope = base.scope.inherit(&base.config.config.env);
                (base.config.clone(), base.stack.clone(), Some(scope), true)
            }
            BaseRef::Image(name) => {
                let based = self.base_image(name, platform, step);
                let (config, stack, cached) =
                    based.map_err(|trouble| self.suggest_stage(trouble, name))?;
                (config, stack, None, cached)
            }
            BaseRef::Context(name) => {
                let mut scratch = ImageConfig::scratch(platform);
                scratch.config.working_dir = "/".to_owned();
                match self.named_context(name, platform, step)? {
                    Named::Image {
                        config,
                        stack,
                        cached,
                    } => (*config, stack, None, cached),
                    Named::Scratch => (scratch, Stack::default(), None, true),
                    Named::Files(context) => {
                        files = Some((name.clone(), context));
                        (scratch, Stack::default(), None, true)
                    }
                }
            }
        };
        let mut config = config;
        if let Some(wanted) = planned.platform.as_ref().or(self.options.platform.as_ref()) {
            set_platform(&mut config, wanted);
        }
        if config.config.env_value("PATH").is_none() {
            config.config.set_env("PATH", DEFAULT_PATH);
        }
        let scope = match scope {
            Some(mut scope) => {
                scope.set_env("PATH", config.config.env_value("PATH").unwrap_or_default());
                scope
            }
            None => Variables::new(
                &self.plan().globals,
                &self.options.build_args,
                &config.config.env,
                self.file.escape,
            ),
        };
        let chain = stack.chain_id().map(ToString::to_string);
        let base = Key::new("base").list(chain).finish();
        let mut state = State {
            view: self.shop.store.view(&stack)?,
            inherited: stack.layers().len(),
            stack,
            pipeline: None,
            ahead: Vec::new(),
            config,
            scope,
            cmd_is_own: false,
            no_cache: self.options.passes_over(index, &self.file.stages[index]),
            planned,
            lineage: [0; 32],
            first_miss: None,
            identity: format!("{} {index}", self.identity),
            label: String::new(),
            number: 0,
            total: 0,
        };
        state.advance(&base);
        // Files that stand for an image are its only layer.
        if let Some((name, context)) = files {
            cached = self.stand_on_files(&mut state, &name, &context, step)?;
        }
        Ok((state, cached))
    }

    /// Makes the files of a named context the base of a stage. Returns whether they were in the
    /// store already.
    fn stand_on_files(
        &self,
        state: &mut State,
        name: &str,
        context: &Context,
        step: &Running,
    ) -> Step<bool> {
        let created_by = format!("FROM context {name}");
        let outcome = self.layer_of_context(state, context, created_by, step)?;
        let (layer, created, cached) = match outcome.result {
            Effect::Nothing => return Ok(true),
            Effect::Cached(layer, created) => (layer, created, true),
            Effect::Made(made) => {
                let committed = self.commit(&state.stack, &state.view, *made, state.no_cache)?;
                (committed.layer, self.now.to_string(), false)
            }
        };
        let directory = self.shop.store.layer_dir(&layer.fs(), &layer.meta)?;
        state.view.push(directory);
        state.stack.push(layer);
        let entry = history(outcome.created_by, Some(created), false);
        state.config.history.push(entry);
        Ok(cached)
    }

    fn instruction<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        state: &mut State,
        turn: &Turn<'_>,
    ) -> Result<(), BuildError> {
        let (instruction, source) = (turn.instruction, turn.source);
        let here = |trouble: Trouble| trouble.at(source, instruction.span);
        self.check_canceled().map_err(here)?;
        if !is_step(&instruction.kind) {
            let created_by = apply_metadata(
                &mut state.config,
                &mut state.scope,
                instruction,
                &mut state.cmd_is_own,
            )
            .map_err(|error| here(error.into()))?;
            if let Some(created_by) = created_by {
                state.config.history.push(history(created_by, None, true));
            }
            return Ok(());
        }
        // What a step waits for is not part of its time.
        self.wait_for_sources(state, instruction).map_err(here)?;
        state.number += 1;
        let mut name = format!(
            "[{}{}/{}] {}",
            state.label, state.number, state.total, instruction.raw
        );
        if let InstructionKind::Run(run) = &instruction.kind
            && let Some(summary) = run.script_summary()
        {
            name += &format!(" ({summary})");
        }
        let step = self.begin(&name);
        let done = self
            .perform(state, turn, &step)
            .and_then(|outcome| self.take_in(scope, state, outcome, turn));
        match done {
            Ok(outcome) => {
                self.end(step, outcome, None);
                Ok(())
            }
            Err(trouble) => {
                let (outcome, detail) = trouble.outcome();
                self.end(step, outcome, detail);
                Err(here(trouble))
            }
        }
    }

    /// Adds to a stage what an instruction came to.
    fn take_in<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        state: &mut State,
        outcome: Outcome,
        turn: &Turn<'_>,
    ) -> Step<StepOutcome> {
        let push = |created, empty| {
            let entry = history(outcome.created_by, created, empty);
            state.config.history.push(entry);
        };
        match outcome.result {
            Effect::Nothing => {
                push(None, true);
                Ok(StepOutcome::Cached)
            }
            Effect::Cached(layer, created) => {
                push(Some(created), false);
                state
                    .view
                    .push(self.shop.store.layer_dir(&layer.fs(), &layer.meta)?);
                state.stack.push(layer);
                Ok(StepOutcome::Cached)
            }
            Effect::Made(made) => {
                push(Some(self.now.to_string()), false);
                // The trees of fuse-overlayfs are not those of the kernel's.
                if turn.is_last || made.kind != UpperKind::Overlay {
                    self.settle(state)?;
                    let committed =
                        self.commit(&state.stack, &state.view, *made, state.no_cache)?;
                    let layer = committed.layer;
                    state
                        .view
                        .push(self.shop.store.layer_dir(&layer.fs(), &layer.meta)?);
                    state.stack.push(layer);
                } else {
                    let (source, span) = (turn.source, turn.instruction.span);
                    self.commit_beside(scope, state, *made, source, span)?;
                }
                Ok(StepOutcome::Done)
            }
        }
    }

    fn perform(&self, state: &mut State, turn: &Turn<'_>, step: &Running) -> Step<Outcome> {
        let Turn {
            instruction,
            source,
            ..
        } = turn;
        match &instruction.kind {
            InstructionKind::Run(run) => {
                let mut origins = Vec::new();
                for mount in &run.mounts {
                    let named = mount.from.as_deref();
                    let origin = named.map(|name| self.source_of(state, name, step));
                    origins.push(origin.transpose()?);
                }
                self.run_step(state, run, &origins, source, instruction.span, step)
            }
            InstructionKind::Copy(copy) => {
                let from = match &copy.from {
                    Some(word) => Some(self.source_of(state, &word.text, step)?),
                    None => None,
                };
                self.copy_step(state, instruction, &copy.files, from, copy.parents, step)
            }
            InstructionKind::Add(add) => self.add_step(state, instruction, add, step),
            InstructionKind::Workdir(word) => self.workdir_step(state, word, step),
            _ => Err(Trouble::new("this instruction makes no step")),
        }
    }

    /// Gives the instructions that made no layer the time of the layer before them, or of the
    /// stage's first one, as BuildKit does: so that they need no records of their own, and a
    /// build in which nothing changed gives the same image.
    fn date_history(&self, config: &mut ImageConfig, inherited: usize) {
        let (base, own) = config.history.split_at_mut(inherited);
        let mut time = match self.dated {
            true => Some(self.now.to_string()),
            false => own
                .iter()
                .chain(base.iter().rev())
                .find_map(|entry| entry.created.clone())
                .or_else(|| config.created.clone()),
        };
        for entry in own {
            match &entry.created {
                Some(created) => time = Some(created.clone()),
                None => entry.created.clone_from(&time),
            }
        }
    }
}

fn set_platform(config: &mut ImageConfig, wanted: &Platform) {
    config.architecture = wanted.architecture.clone();
    config.os = wanted.os.clone();
    config.variant = wanted.variant.clone();
}

fn history(created_by: String, created: Option<String>, empty_layer: bool) -> HistoryEntry {
    HistoryEntry {
        created,
        created_by: Some(created_by),
        comment: Some("kiln".to_owned()),
        empty_layer,
        ..HistoryEntry::default()
    }
}
