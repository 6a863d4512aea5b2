//! Which stages a target needs, and what each of them stands on.

mod from;

use std::collections::{BTreeMap, BTreeSet};

use crate::image::{Platform, Reference};

use super::instruction::{Dockerfile, Instruction, InstructionKind, Stage};
use super::scope::is_proxy;
use super::suggest::did_you_mean;
use super::{Diagnostic, Diagnostics, Span, words};

/// What FROM, `COPY --from` or a mount's `from` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseRef {
    /// Nothing at all.
    Scratch,
    /// An earlier stage, by its index.
    Stage(usize),
    /// An image.
    Image(String),
    /// A named context, by its name as [`context_name`] has it.
    Context(String),
}

/// A stage with its names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStage {
    /// What FROM means; for a stage that a named context replaces, that context.
    pub base: BaseRef,
    /// Whether a named context has the stage's name, so that nothing of it is carried out.
    pub is_replaced: bool,
    /// What `--platform` says.
    pub platform: Option<Platform>,
    /// What `COPY --from` and mounts' `from` mean, by the text as written. Filled for the
    /// stages that are needed.
    pub sources: BTreeMap<String, BaseRef>,
}

/// What has to be built, and in which order.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The stage that becomes the image.
    pub target: usize,
    /// All stages of the file, needed or not.
    pub stages: Vec<PlannedStage>,
    /// The stages that are needed: each comes after those that it needs.
    pub order: Vec<usize>,
    /// The values that `ARG NAME` without default takes in a stage: the ARGs before the first
    /// FROM and the predefined ones.
    pub globals: BTreeMap<String, String>,
    /// The names of the contexts that were given beside the build context.
    contexts: BTreeSet<String>,
    /// Names that triggers of base images refer to, by stage.
    adopted: BTreeMap<usize, BTreeSet<String>>,
    /// The build arguments that triggers of base images take.
    adopted_args: BTreeSet<String>,
}

impl Plan {
    /// Returns the stages that a stage needs, without repetition.
    pub fn needs(&self, stage: usize) -> BTreeSet<usize> {
        let planned = &self.stages[stage];
        let refs = planned.sources.values().chain([&planned.base]);
        refs.filter_map(|reference| match reference {
            BaseRef::Stage(index) => Some(*index),
            _ => None,
        })
        .collect()
    }

    /// Returns what a build argument, or an ARG before the first FROM, tells the builder itself.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let value = self.globals.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// Takes triggers in that the base image of `stage` turned out to have: they may need
    /// further stages or images. Findings point at the stage's FROM.
    pub fn adopt_triggers(
        &mut self,
        file: &Dockerfile,
        stage: usize,
        triggers: &[Instruction],
    ) -> Result<(), Diagnostics> {
        let names = triggers.iter().flat_map(names_in).map(|(name, _)| name);
        self.adopted.entry(stage).or_default().extend(names);
        for trigger in triggers {
            if let InstructionKind::Arg(items) = &trigger.kind {
                let names = items.iter().map(|item| item.name.clone());
                self.adopted_args.extend(names);
            }
        }
        self.trace(file)
    }

    /// Fills in `order` and the sources of all needed stages.
    fn trace(&mut self, file: &Dockerfile) -> Result<(), Diagnostics> {
        let mut errors = Vec::new();
        let mut needed = BTreeSet::new();
        let mut waiting = vec![self.target];
        while let Some(index) = waiting.pop() {
            if !needed.insert(index) {
                continue;
            }
            if self.stages[index].is_replaced {
                continue;
            }
            let stage = &file.stages[index];
            let mut names: Vec<(String, Span)> =
                stage.instructions.iter().flat_map(names_in).collect();
            if let BaseRef::Stage(base) = self.stages[index].base {
                let triggers = file.stages[base].triggers();
                names.extend(triggers.flat_map(|trigger| names_in(&trigger.instruction)));
            }
            if let Some(adopted) = self.adopted.get(&index) {
                let from = stage.from.span;
                names.extend(adopted.iter().map(|name| (name.clone(), from)));
            }
            for (name, span) in names {
                match self.resolve_source(file, index, &name, span) {
                    Ok(found) => {
                        self.stages[index].sources.insert(name, found);
                    }
                    Err(error) => errors.push(error),
                }
            }
            waiting.extend(self.needs(index));
        }
        if !errors.is_empty() {
            return Err(sorted(errors));
        }
        // Stages can only need earlier ones, so their own order will do.
        self.order = needed.into_iter().collect();
        Ok(())
    }

    /// Resolves `COPY --from=name` or a mount's `from=name` within a stage.
    fn resolve_source(
        &self,
        file: &Dockerfile,
        stage: usize,
        name: &str,
        span: Span,
    ) -> Result<BaseRef, Diagnostic> {
        if let Some(name) = named_context(&self.contexts, name) {
            return Ok(BaseRef::Context(name));
        }
        let found = match name.parse::<usize>() {
            Ok(index) if index < file.stages.len() => Some(index),
            Ok(index) => {
                let last = file.stages.len() - 1;
                return Err(Diagnostic::new(span, format!("there is no stage {index}"))
                    .hinted(format!("stages are counted from 0; the last one is {last}")));
            }
            Err(_) => {
                let named = |s: &Stage| is_named(s, name);
                let earlier = file.stages[..stage].iter().rposition(named);
                earlier.or_else(|| file.stages.iter().position(named))
            }
        };
        match found {
            Some(index) if index < stage => Ok(BaseRef::Stage(index)),
            Some(index) => Err(self.out_of_order(file, stage, index, span)),
            None => image(name, file, stage, span),
        }
    }

    fn out_of_order(
        &self,
        file: &Dockerfile,
        stage: usize,
        other: usize,
        span: Span,
    ) -> Diagnostic {
        let own = file.stages[stage].display_name();
        let name = file.stages[other].display_name();
        if stage == other {
            let message = format!("stage {own} can't copy or mount from itself");
            return Diagnostic::new(span, message);
        }
        if self.reaches(file, other, stage) {
            let message = format!("circular dependency: {own} needs {name}, which needs {own}");
            return Diagnostic::new(span, message);
        }
        Diagnostic::new(span, format!("stage {name} is defined after stage {own}"))
            .hinted(format!("move stage {name} before stage {own}"))
    }

    /// Tells whether a stage needs another, directly or not, whatever their order.
    fn reaches(&self, file: &Dockerfile, from: usize, to: usize) -> bool {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![from];
        while let Some(index) = waiting.pop() {
            if index == to {
                return true;
            }
            if !seen.insert(index) {
                continue;
            }
            if let BaseRef::Stage(base) = self.stages[index].base {
                waiting.push(base);
            }
            let names = file.stages[index].instructions.iter().flat_map(names_in);
            waiting.extend(names.filter_map(|(name, _)| match name.parse::<usize>() {
                Ok(index) => (index < file.stages.len()).then_some(index),
                Err(_) => file.stages.iter().position(|s| is_named(s, &name)),
            }));
        }
        false
    }
}

impl Dockerfile {
    /// Resolves the stages that `target` (a name, a number, or nothing for the last stage)
    /// needs. `predefined` are the platform arguments (TARGETPLATFORM and its kin); build
    /// arguments override them.
    pub fn plan(
        &self,
        target: Option<&str>,
        build_args: &BTreeMap<String, String>,
        predefined: &BTreeMap<String, String>,
    ) -> Result<Plan, Diagnostics> {
        self.plan_with_contexts(target, build_args, predefined, &BTreeSet::new())
    }

    /// As [`Dockerfile::plan`], where the given named contexts, by their [`context_name`]s,
    /// stand for the stages and images of these names.
    pub fn plan_with_contexts(
        &self,
        target: Option<&str>,
        build_args: &BTreeMap<String, String>,
        predefined: &BTreeMap<String, String>,
        contexts: &BTreeSet<String>,
    ) -> Result<Plan, Diagnostics> {
        let target = self.find_target(target.filter(|name| !name.is_empty()))?;
        // Without the global values, what FROM names would be noise.
        let globals = self
            .globals(target, build_args, predefined)
            .map_err(|found| self.with_broken_words(found.0, build_args))?;
        let mut errors = Vec::new();
        let mut stages = Vec::new();
        for stage in &self.stages {
            let own = stage.name.as_deref();
            let replacement = own.and_then(|name| named_context(contexts, name));
            let is_replaced = replacement.is_some();
            let base = match replacement {
                Some(name) => Ok(BaseRef::Context(name)),
                None => self.base(stage, &globals, build_args, contexts),
            };
            let planned = base.and_then(|base| {
                Ok(PlannedStage {
                    base,
                    is_replaced,
                    platform: self.platform(stage, &globals, build_args)?,
                    sources: BTreeMap::new(),
                })
            });
            match planned {
                Ok(planned) => stages.push(planned),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(self.with_broken_words(errors, build_args));
        }
        let mut plan = Plan {
            target,
            stages,
            order: Vec::new(),
            globals,
            contexts: contexts.clone(),
            adopted: BTreeMap::new(),
            adopted_args: BTreeSet::new(),
        };
        plan.trace(self)
            .map_err(|found| self.with_broken_words(found.0, build_args))?;
        let needed = plan.order.iter().copied();
        let carried_out = needed.filter(|index| !plan.stages[*index].is_replaced);
        let mut broken = self.broken_words(carried_out, build_args);
        for index in &plan.order {
            if let BaseRef::Stage(base) = plan.stages[*index].base {
                let triggers = self.stages[base].triggers();
                broken.extend(triggers.flat_map(|trigger| {
                    words::check(&trigger.instruction, self.escape, build_args)
                }));
            }
        }
        match broken.is_empty() {
            true => Ok(plan),
            false => Err(sorted(broken)),
        }
    }

    /// Returns the errors of a plan that can't be made, and what else would come next.
    fn with_broken_words(
        &self,
        mut errors: Vec<Diagnostic>,
        build_args: &BTreeMap<String, String>,
    ) -> Diagnostics {
        errors.extend(self.broken_words(0..self.stages.len(), build_args));
        sorted(errors)
    }

    /// Returns what is wrong with the words of stages.
    fn broken_words(
        &self,
        stages: impl IntoIterator<Item = usize>,
        build_args: &BTreeMap<String, String>,
    ) -> Vec<Diagnostic> {
        let instructions = stages
            .into_iter()
            .flat_map(|i| &self.stages[i].instructions);
        instructions
            .flat_map(|instruction| words::check(instruction, self.escape, build_args))
            .collect()
    }

    /// Returns the build arguments that no ARG declares, in the file or among the triggers that
    /// the plan took in, and that have no meaning of their own: most likely mistyped.
    pub fn unused_build_args(
        &self,
        plan: &Plan,
        build_args: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let in_stages = self.stages.iter().flat_map(|stage| &stage.instructions);
        let mut declared: BTreeSet<&str> = plan.adopted_args.iter().map(String::as_str).collect();
        for instruction in self.global_args.iter().chain(in_stages) {
            let kind = match &instruction.kind {
                InstructionKind::OnBuild(trigger) => &trigger.instruction.kind,
                kind => kind,
            };
            if let InstructionKind::Arg(items) = kind {
                declared.extend(items.iter().map(|item| item.name.as_str()));
            }
        }
        let unused = build_args.keys().filter(|name| {
            !declared.contains(name.as_str()) && !is_proxy(name) && !is_special(name)
        });
        unused.cloned().collect()
    }
}

/// Returns the form of a context's name under which it is found: that of images as people
/// write them, without the tag `latest`.
pub fn context_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let familiar = match lower.parse::<Reference>() {
        Ok(reference) => reference.familiar(),
        Err(_) => lower,
    };
    match familiar.strip_suffix(":latest") {
        Some(bare) => bare.to_owned(),
        None => familiar,
    }
}

fn named_context(contexts: &BTreeSet<String>, name: &str) -> Option<String> {
    if contexts.is_empty() || name == "scratch" {
        return None;
    }
    Some(context_name(name)).filter(|name| contexts.contains(name))
}

fn sorted(mut errors: Vec<Diagnostic>) -> Diagnostics {
    errors.sort_by_key(|error| error.span);
    Diagnostics(errors)
}

fn is_named(stage: &Stage, name: &str) -> bool {
    let own = stage.name.as_deref();
    own.is_some_and(|own| own.eq_ignore_ascii_case(name))
}

fn image(name: &str, file: &Dockerfile, stage: usize, span: Span) -> Result<BaseRef, Diagnostic> {
    if name == "scratch" {
        return Ok(BaseRef::Scratch);
    }
    match name.parse::<Reference>() {
        Ok(_) => Ok(BaseRef::Image(name.to_owned())),
        Err(error) => {
            let stages = file.stages[..stage]
                .iter()
                .filter_map(|s| s.name.as_deref());
            let hint = did_you_mean(name, stages).or_else(|| error.hint());
            Err(Diagnostic::new(span, error.to_string()).maybe_hinted(hint))
        }
    }
}

/// Returns the stages, contexts or images that an instruction names, with their places.
/// Those of an ONBUILD are meant by whoever runs it.
impl Instruction {
    /// Returns the names of stages and images that the instruction takes files from.
    pub fn sources(&self) -> Vec<String> {
        names_in(self).into_iter().map(|(name, _)| name).collect()
    }
}

pub(super) fn names_in(instruction: &Instruction) -> Vec<(String, Span)> {
    match &instruction.kind {
        InstructionKind::Copy(copy) => {
            let from = copy.from.iter();
            from.map(|word| (word.text.clone(), word.span)).collect()
        }
        InstructionKind::Run(run) => {
            let froms = run
                .mounts
                .iter()
                .filter_map(|m| Some((m.from.clone()?, m.span)));
            froms.collect()
        }
        _ => Vec::new(),
    }
}

/// Build arguments that mean something to the builder itself.
fn is_special(name: &str) -> bool {
    name == "SOURCE_DATE_EPOCH"
        || name.starts_with("BUILDKIT_")
        || matches!(
            name,
            "TARGETPLATFORM"
                | "TARGETOS"
                | "TARGETOSVERSION"
                | "TARGETARCH"
                | "TARGETVARIANT"
                | "TARGETSTAGE"
                | "BUILDPLATFORM"
                | "BUILDOS"
                | "BUILDOSVERSION"
                | "BUILDARCH"
                | "BUILDVARIANT"
        )
}

#[cfg(test)]
mod tests;
