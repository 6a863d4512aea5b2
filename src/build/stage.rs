//! One stage: from its base through its instructions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::contexts::Named;
use super::error::{BuildError, Step, Trouble};
use super::{Build, Running};
use crate::context::Context;
use crate::dockerfile::{
    BaseRef, Instruction, InstructionKind, Plan, Scope, Source, Span, apply_metadata,
    parse_onbuild_trigger, suggest,
};
use crate::event::StepOutcome;
use crate::image::{HistoryEntry, ImageConfig, Platform};
use crate::layer::View;
use crate::sandbox::DEFAULT_PATH;
use crate::store::{Layer, Stack, StepRecord};

/// A stage that is being built.
pub(super) struct State {
    /// The layers so far.
    pub(super) stack: Stack,
    /// The tree that they make up.
    pub(super) view: View,
    /// The config so far; its diff ids are filled in at the end.
    pub(super) config: ImageConfig,
    /// The variables.
    pub(super) scope: Scope,
    /// Whether CMD was set in this stage: ENTRYPOINT clears an inherited one only.
    pub(super) cmd_is_own: bool,
    /// What `COPY --from` may refer to.
    pub(super) index: usize,
    /// For names of steps.
    pub(super) label: String,
    pub(super) number: usize,
    pub(super) total: usize,
}

/// A stage that is built.
pub(super) struct Finished {
    pub(super) stack: Stack,
    pub(super) view: View,
    pub(super) config: ImageConfig,
    pub(super) scope: Scope,
}

/// Where `--from` leads.
pub(super) enum Origin {
    /// The tree of a stage or an image.
    Image(View),
    /// A named context.
    Context(Arc<Context>),
}

/// What an instruction came to, for its line of history and of progress.
pub(super) struct Outcome {
    /// The instruction in the words of docker's history.
    pub(super) created_by: String,
    /// The layer that it made.
    pub(super) layer: Option<Arc<Layer>>,
    /// Whether it came from the cache.
    pub(super) cached: bool,
    /// When it ran first, where that is known.
    pub(super) created: Option<String>,
}

impl Outcome {
    /// Returns the outcome of a step that made a layer now.
    pub(super) fn made(created_by: String, layer: Arc<Layer>) -> Outcome {
        Outcome {
            created_by,
            layer: Some(layer),
            cached: false,
            created: None,
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

impl Build<'_> {
    /// Builds a stage on those that are done. Returns nothing where its base turned out to
    /// need further stages first.
    pub(super) fn stage(
        &self,
        plan: &mut Plan,
        index: usize,
        done: &BTreeMap<usize, Finished>,
    ) -> Result<Option<Finished>, BuildError> {
        let stage = &self.file.stages[index];
        let is_replaced = plan.stages[index].is_replaced;
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
        let base = match &plan.stages[index].base {
            BaseRef::Scratch => "scratch".to_owned(),
            BaseRef::Stage(base) => self.file.stages[*base].display_name(),
            BaseRef::Image(name) => name.clone(),
            BaseRef::Context(name) => format!("context {name}"),
        };
        let name = format!("[{label}1/{total}] FROM {base}");
        let step = self.begin(&name);
        let based = self.begin_stage(plan, index, done, &step);
        let mut state = match based {
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
                self.end(step, StepOutcome::Failed, Some(trouble.summary()));
                return Err(trouble.at(&self.source, stage.from.span));
            }
        };
        state.label = label;
        state.number = 1;
        state.total = total;

        // The triggers of the base, which are cleared: there is no chaining.
        let triggers = match is_replaced {
            true => Vec::new(),
            false => std::mem::take(&mut state.config.config.on_build),
        };
        let mut parsed = Vec::new();
        for text in triggers {
            let source = Arc::new(Source::new("ONBUILD trigger of the base", text.clone()));
            let trigger = parse_onbuild_trigger(&text).map_err(|d| BuildError::Dockerfile {
                diagnostics: d,
                source_text: source.clone(),
            })?;
            parsed.push((trigger, source));
        }
        if !parsed.is_empty() {
            let instructions: Vec<Instruction> = parsed.iter().map(|(i, _)| i.clone()).collect();
            plan.adopt_triggers(self.file, index, &instructions)
                .map_err(|diagnostics| BuildError::Dockerfile {
                    diagnostics,
                    source_text: self.source.clone(),
                })?;
            if plan
                .needs(index)
                .iter()
                .any(|need| !done.contains_key(need))
            {
                return Ok(None);
            }
            state.total += instructions.iter().filter(|i| is_step(&i.kind)).count();
        }
        for (trigger, source) in &parsed {
            self.instruction(plan, &mut state, trigger, source, done)?;
        }
        for instruction in instructions {
            self.instruction(plan, &mut state, instruction, &self.source, done)?;
        }
        Ok(Some(Finished {
            stack: state.stack,
            view: state.view,
            config: state.config,
            scope: state.scope,
        }))
    }

    fn begin_stage(
        &self,
        plan: &Plan,
        index: usize,
        done: &BTreeMap<usize, Finished>,
        step: &Running,
    ) -> Step<(State, bool)> {
        let planned = &plan.stages[index];
        let platform = planned.platform.as_ref().unwrap_or(&self.platform);
        let mut files = None;
        let (config, stack, scope, cached) = match &planned.base {
            BaseRef::Scratch => {
                let mut config = ImageConfig::scratch(platform);
                config.config.working_dir = "/".to_owned();
                (config, Stack::default(), None, true)
            }
            BaseRef::Stage(base) => {
                let base = done
                    .get(base)
                    .ok_or_else(|| Trouble::new("the stage is not built yet"))?;
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
                        files = Some((name, context));
                        (scratch, Stack::default(), None, false)
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
            None => Scope::new(
                &plan.globals,
                &self.options.build_args,
                &config.config.env,
                self.file.escape,
            ),
        };
        let mut state = State {
            view: self.shop.store.view(&stack)?,
            stack,
            config,
            scope,
            cmd_is_own: false,
            index,
            label: String::new(),
            number: 0,
            total: 0,
        };
        // Files that stand for an image are its only layer.
        if let Some((name, context)) = files {
            let layer = self.layer_of_context(&state, &context)?;
            let opened = self.shop.store.layer_dir(&layer.fs(), &layer.meta)?;
            state.view.push(opened);
            state.stack.push(layer);
            let created_by = format!("FROM context {name}");
            let (created, _) = self.recall_metadata(&state, &created_by)?;
            let entry = history(created_by, created, false);
            state.config.history.push(entry);
        }
        Ok((state, cached))
    }

    fn instruction(
        &self,
        plan: &Plan,
        state: &mut State,
        instruction: &Instruction,
        source: &Arc<Source>,
        done: &BTreeMap<usize, Finished>,
    ) -> Result<(), BuildError> {
        let span = instruction.span;
        if !is_step(&instruction.kind) {
            let created_by = apply_metadata(
                &mut state.config,
                &mut state.scope,
                instruction,
                &mut state.cmd_is_own,
            )
            .map_err(|error| Trouble::from(error).at(source, span))?;
            let (created, _) = self
                .recall_metadata(state, &created_by)
                .map_err(|trouble| trouble.at(source, span))?;
            state
                .config
                .history
                .push(history(created_by, created, true));
            return Ok(());
        }
        state.number += 1;
        let name = format!(
            "[{}{}/{}] {}",
            state.label, state.number, state.total, instruction.raw
        );
        let step = self.begin(&name);
        match self.perform(plan, state, instruction, source, span, done, &step) {
            Ok(outcome) => {
                let created = match outcome.created {
                    Some(created) => created,
                    None => self.now.to_string(),
                };
                let empty = outcome.layer.is_none();
                if let Some(layer) = outcome.layer {
                    let opened = self.shop.store.layer_dir(&layer.fs(), &layer.meta);
                    state
                        .view
                        .push(opened.map_err(|e| Trouble::from(e).at(source, span))?);
                    state.stack.push(layer);
                }
                state
                    .config
                    .history
                    .push(history(outcome.created_by, created, empty));
                let how = if outcome.cached {
                    StepOutcome::Cached
                } else {
                    StepOutcome::Done
                };
                self.end(step, how, None);
                Ok(())
            }
            Err(trouble) => {
                self.end(step, StepOutcome::Failed, Some(trouble.summary()));
                Err(trouble.at(source, span))
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all of them are what a step can see"
    )]
    fn perform(
        &self,
        plan: &Plan,
        state: &mut State,
        instruction: &Instruction,
        source: &Arc<Source>,
        span: Span,
        done: &BTreeMap<usize, Finished>,
        step: &Running,
    ) -> Step<Outcome> {
        match &instruction.kind {
            InstructionKind::Run(run) => self.run_step(state, run, source, span, step),
            InstructionKind::Copy(copy) => {
                let from = match &copy.from {
                    Some(word) => Some(self.source_of(plan, state, &word.text, done, step)?),
                    None => None,
                };
                self.copy_step(state, instruction, &copy.files, from, copy.parents, step)
            }
            InstructionKind::Add(add) => self.add_step(state, instruction, add, step),
            InstructionKind::Workdir(word) => self.workdir_step(state, word),
            _ => Err(Trouble::new("this instruction makes no step")),
        }
    }

    /// Returns the files that `--from` names.
    fn source_of(
        &self,
        plan: &Plan,
        state: &State,
        name: &str,
        done: &BTreeMap<usize, Finished>,
        step: &Running,
    ) -> Step<Origin> {
        let unknown = || Trouble::new(format!("there is no stage or image {name:?}"));
        let planned = &plan.stages[state.index];
        match planned.sources.get(name).ok_or_else(unknown)? {
            BaseRef::Scratch => Ok(Origin::Image(View::new(Vec::new()))),
            BaseRef::Stage(index) => {
                let finished = done.get(index).ok_or_else(unknown)?;
                Ok(Origin::Image(finished.view.clone()))
            }
            BaseRef::Image(image) => {
                let based = self.base_image(image, &self.platform, step);
                let (_, stack, _) = based
                    .map_err(|trouble| self.suggest_stage(trouble.with_stage_hint(image), image))?;
                Ok(Origin::Image(self.shop.store.view(&stack)?))
            }
            BaseRef::Context(name) => match self.named_context(name, &self.platform, step)? {
                Named::Scratch => Ok(Origin::Image(View::new(Vec::new()))),
                Named::Image { stack, .. } => Ok(Origin::Image(self.shop.store.view(&stack)?)),
                Named::Files(context) => Ok(Origin::Context(context)),
            },
        }
    }

    /// Asks, where an image can't be had, whether a stage was meant.
    fn suggest_stage(&self, trouble: Trouble, name: &str) -> Trouble {
        let stages = self.file.stages.iter();
        let near = suggest::closest(name, stages.filter_map(|stage| stage.name.as_deref()));
        match (trouble, near) {
            (Trouble::Message { text, .. }, Some(near)) => {
                Trouble::hinted(text, format!("did you mean the stage {near}?"))
            }
            (trouble, _) => trouble,
        }
    }

    /// Returns when an instruction that changes only the config was seen first on top of what
    /// is there, and whether that was before.
    pub(super) fn recall_metadata(&self, state: &State, created_by: &str) -> Step<(String, bool)> {
        let mut key = self.key("metadata");
        key.chain(state.stack.chain_id());
        key.bytes(&serde_json::to_vec(&state.config.config).unwrap_or_default());
        key.text(created_by);
        let key = key.finish();
        if !self.options.no_cache
            && let Some(record) = self.shop.store.step_record(&key)
        {
            return Ok((record.created, true));
        }
        let record = StepRecord {
            diff_id: None,
            created: self.now.to_string(),
        };
        self.shop.store.write_step_record(&key, &record)?;
        Ok((record.created, false))
    }

    /// Returns what is recorded under a key, where its layer is there.
    pub(super) fn recall(
        &self,
        state: &State,
        key: &str,
        created_by: &str,
    ) -> Step<Option<Outcome>> {
        if self.options.no_cache {
            return Ok(None);
        }
        let Some(StepRecord {
            diff_id: Some(diff_id),
            created,
        }) = self.shop.store.step_record(key)
        else {
            return Ok(None);
        };
        let layer = self.shop.store.layer(state.stack.chain_id(), &diff_id)?;
        Ok(layer.map(|layer| Outcome {
            created_by: created_by.to_owned(),
            layer: Some(layer),
            cached: true,
            created: Some(created),
        }))
    }

    /// Records what a step came to.
    pub(super) fn record(&self, key: &str, layer: &Layer) -> Step<()> {
        let record = StepRecord {
            diff_id: Some(layer.meta.diff_id.clone()),
            created: self.now.to_string(),
        };
        Ok(self.shop.store.write_step_record(key, &record)?)
    }
}

fn set_platform(config: &mut ImageConfig, wanted: &Platform) {
    config.architecture = wanted.architecture.clone();
    config.os = wanted.os.clone();
    config.variant = wanted.variant.clone();
}

fn history(created_by: String, created: String, empty_layer: bool) -> HistoryEntry {
    HistoryEntry {
        created: Some(created),
        created_by: Some(created_by),
        comment: Some("kiln".to_owned()),
        empty_layer,
        ..HistoryEntry::default()
    }
}
