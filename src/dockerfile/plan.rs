//! Which stages a target needs, and what each of them stands on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::image::{Platform, Reference};

use super::instruction::{Dockerfile, Instruction, InstructionKind, Stage};
use super::scope::is_proxy;
use super::suggest::{closest, did_you_mean};
use super::{Diagnostic, Diagnostics, Span, Word, words};

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

    fn find_target(&self, target: Option<&str>) -> Result<usize, Diagnostic> {
        let Some(target) = target else {
            return Ok(self.stages.len() - 1);
        };
        if let Some(index) = self.stages.iter().rposition(|s| is_named(s, target)) {
            return Ok(index);
        }
        if let Ok(index) = target.parse::<usize>()
            && index < self.stages.len()
        {
            return Ok(index);
        }
        let names: Vec<&str> = self
            .stages
            .iter()
            .filter_map(|s| s.name.as_deref())
            .collect();
        let hint = match (
            did_you_mean(target, names.iter().copied()),
            names.is_empty(),
        ) {
            (Some(near), _) => format!("{near} The stages are {}", names.join(", ")),
            (None, false) => format!("the stages are {}", names.join(", ")),
            (None, true) => "no stage of the file has a name".to_owned(),
        };
        Err(Diagnostic::new(Span::default(), format!("there is no stage {target:?}")).hinted(hint))
    }

    pub(super) fn globals(
        &self,
        target: usize,
        build_args: &BTreeMap<String, String>,
        predefined: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Diagnostics> {
        let mut errors = Vec::new();
        let mut globals = predefined.clone();
        if let Some(given) = build_args.get("SOURCE_DATE_EPOCH") {
            globals.insert("SOURCE_DATE_EPOCH".to_owned(), given.clone());
        }
        globals.entry("TARGETSTAGE".to_owned()).or_insert_with(|| {
            let name = self.stages[target].name.clone();
            name.unwrap_or_else(|| "default".to_owned())
        });
        for (name, value) in &mut globals {
            if let Some(given) = build_args.get(name) {
                value.clone_from(given);
            }
        }
        for instruction in &self.global_args {
            let InstructionKind::Arg(items) = &instruction.kind else {
                continue;
            };
            for item in items {
                let value = match (build_args.get(&item.name), &item.default) {
                    (Some(given), _) => Ok(given.clone()),
                    (None, Some(default)) => default
                        .expand(&|name| globals.get(name).cloned(), self.escape)
                        .map_err(|error| error.at(default.span)),
                    (None, None) => continue,
                };
                match value {
                    Ok(value) => {
                        globals.insert(item.name.clone(), value);
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        match errors.is_empty() {
            true => Ok(globals),
            false => Err(Diagnostics(errors)),
        }
    }

    /// Expands a word of a FROM line; returns the names that have no value too.
    fn expand_global(
        &self,
        word: &Word,
        globals: &BTreeMap<String, String>,
    ) -> Result<(String, Vec<String>), Diagnostic> {
        let missing = RefCell::new(Vec::new());
        let lookup = |name: &str| {
            let value = globals.get(name).cloned();
            if value.is_none() {
                missing.borrow_mut().push(name.to_owned());
            }
            value
        };
        let text = word.expand(&lookup, self.escape);
        let text = text.map_err(|error| error.at(word.span))?;
        Ok((text, missing.into_inner()))
    }

    pub(super) fn base(
        &self,
        stage: &Stage,
        globals: &BTreeMap<String, String>,
        build_args: &BTreeMap<String, String>,
        contexts: &BTreeSet<String>,
    ) -> Result<BaseRef, Diagnostic> {
        let word = &stage.from.base;
        let (name, missing) = self.expand_global(word, globals)?;
        let hint = || self.missing_hint(&missing, globals, build_args);
        if name.trim().is_empty() {
            let message = format!("the base image {:?} is blank", word.text);
            return Err(Diagnostic::new(word.span, message).maybe_hinted(hint()));
        }
        if let Some(name) = named_context(contexts, &name) {
            return Ok(BaseRef::Context(name));
        }
        let earlier = &self.stages[..stage.index];
        match earlier.iter().rposition(|s| is_named(s, &name)) {
            Some(index) => Ok(BaseRef::Stage(index)),
            None => image(&name, self, stage.index, word.span)
                .map_err(|error| error.maybe_hinted(hint())),
        }
    }

    pub(super) fn platform(
        &self,
        stage: &Stage,
        globals: &BTreeMap<String, String>,
        build_args: &BTreeMap<String, String>,
    ) -> Result<Option<Platform>, Diagnostic> {
        let Some(word) = &stage.from.platform else {
            return Ok(None);
        };
        let (text, missing) = self.expand_global(word, globals)?;
        let hint = || self.missing_hint(&missing, globals, build_args);
        if text.is_empty() {
            let message = format!("the platform {:?} is empty", word.text);
            return Err(Diagnostic::new(word.span, message).maybe_hinted(hint()));
        }
        match text.parse::<Platform>() {
            Ok(platform) => Ok(Some(platform)),
            Err(error) => Err(Diagnostic::new(word.span, error.to_string()).maybe_hinted(hint())),
        }
    }

    /// Says how a variable of a FROM line would get a value.
    fn missing_hint(
        &self,
        missing: &[String],
        globals: &BTreeMap<String, String>,
        build_args: &BTreeMap<String, String>,
    ) -> Option<String> {
        let name = missing.first()?;
        let declares = |instruction: &Instruction| {
            matches!(&instruction.kind, InstructionKind::Arg(items)
                if items.iter().any(|item| item.name == *name))
        };
        if self.global_args.iter().any(declares) {
            return Some(format!(
                "ARG {name} has no value: give it a default, or --build-arg {name}=…"
            ));
        }
        let mut in_stages = self.stages.iter().flat_map(|stage| &stage.instructions);
        if build_args.contains_key(name) || in_stages.any(declares) {
            return Some(format!(
                "FROM sees only what is declared before the first FROM: put ARG {name} there"
            ));
        }
        Some(match closest(name, globals.keys().map(String::as_str)) {
            Some(near) => format!("{name} is not declared; did you mean {near}?"),
            None => format!("{name} is not declared: put ARG {name}=… before the first FROM"),
        })
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
mod tests {
    use super::super::{Source, parse, parse_onbuild_trigger};
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        owned.collect()
    }

    fn plan_with(text: &str, target: &str, args: &[(&str, &str)]) -> Result<Plan, Diagnostics> {
        let file = parse(&Source::new("Dockerfile", text)).unwrap();
        let predefined = map(&[("TARGETARCH", "arm64"), ("BUILDPLATFORM", "linux/amd64")]);
        file.plan(Some(target), &map(args), &predefined)
    }

    fn plan(text: &str) -> Plan {
        plan_with(text, "", &[]).unwrap()
    }

    fn error(text: &str) -> Diagnostic {
        plan_with(text, "", &[]).unwrap_err().0.remove(0)
    }

    fn image_of(name: &str) -> BaseRef {
        BaseRef::Image(name.to_owned())
    }

    /// SEMANTICS 9, SEMANTICS 28
    #[test]
    fn unused_stages_are_left_out() {
        let text = "FROM a AS a\nFROM b AS b\nFROM a AS c\nCOPY --from=b / /\nFROM scratch\n\
                    COPY --from=0 / /\nRUN --mount=target=/x,from=B true";
        assert_eq!(plan(text).order, [0, 1, 3]);
        assert_eq!(plan_with(text, "a", &[]).unwrap().order, [0]);
        assert_eq!(plan_with(text, "C", &[]).unwrap().order, [0, 1, 2]);
        assert_eq!(plan_with(text, "1", &[]).unwrap().order, [1]);
        let last = &plan(text).stages[3];
        assert_eq!(last.base, BaseRef::Scratch);
        assert_eq!(last.sources["0"], BaseRef::Stage(0));
        assert_eq!(last.sources["B"], BaseRef::Stage(1));
    }

    /// SEMANTICS 28
    #[test]
    fn names_are_stages_first_and_images_else() {
        let text = "FROM debian AS Debian\nFROM DEBIAN AS x\nCOPY --from=busybox:1 / /\n\
                    COPY --from=scratch / /\nFROM 0";
        let plan = plan_with(text, "x", &[]).unwrap();
        assert_eq!(plan.stages[0].base, image_of("debian"));
        assert_eq!(plan.stages[1].base, BaseRef::Stage(0));
        assert_eq!(plan.stages[1].sources["busybox:1"], image_of("busybox:1"));
        assert_eq!(plan.stages[1].sources["scratch"], BaseRef::Scratch);
        // FROM has no numbers.
        assert_eq!(plan.stages[2].base, image_of("0"));
    }

    #[test]
    fn a_named_context_stands_for_stages_and_images_of_its_name() {
        let text = "FROM debian AS Base\nCOPY --from=nowhere-yet:1 / /\nFROM base AS x\n\
                    FROM docker.io/library/Alpine\nCOPY --from=BASE / /\nCOPY --from=0 / /\n\
                    COPY --from=x / /";
        let file = parse(&Source::new("Dockerfile", text)).unwrap();
        let contexts = ["base", "alpine"].map(str::to_owned).into();
        let plan = |target| {
            let none = BTreeMap::new();
            let plan = file.plan_with_contexts(target, &none, &none, &contexts);
            plan.unwrap()
        };
        let context = |name: &str| BaseRef::Context(name.to_owned());
        let all = plan(None);
        assert_eq!(all.order, [0, 1, 2]);
        // Nothing of the stage counts any more, but its number still leads to it.
        assert!(all.stages[0].is_replaced && all.stages[0].sources.is_empty());
        assert_eq!(all.stages[0].base, context("base"));
        assert_eq!(all.stages[1].base, context("base"));
        assert_eq!(all.stages[2].base, context("alpine"));
        assert_eq!(all.stages[2].sources["BASE"], context("base"));
        assert_eq!(all.stages[2].sources["0"], BaseRef::Stage(0));
        assert_eq!(all.stages[2].sources["x"], BaseRef::Stage(1));
        assert_eq!(plan(Some("base")).order, [0]);
    }

    #[test]
    fn names_of_contexts_are_those_of_images_as_people_write_them() {
        for (name, same) in [
            ("Alpine", "alpine"),
            ("alpine:latest", "alpine"),
            ("docker.io/library/alpine:3", "alpine:3"),
            ("r.example/a:latest", "r.example/a"),
            ("not a name", "not a name"),
        ] {
            assert_eq!(context_name(name), same);
        }
    }

    #[test]
    fn a_stage_named_twice_means_the_nearest_before() {
        let plan = plan("FROM a AS x\nFROM b AS x\nFROM x\nFROM x AS x");
        assert_eq!(plan.stages[2].base, BaseRef::Stage(1));
        assert_eq!(plan.stages[3].base, BaseRef::Stage(1));
    }

    /// SEMANTICS 28
    #[test]
    fn later_stages_and_cycles_are_errors() {
        let cases = [
            (
                "FROM a AS x\nCOPY --from=b / /\nFROM a AS b\nFROM x",
                "stage b is defined after stage x",
            ),
            (
                "FROM a\nRUN --mount=target=/x,from=1 true\nFROM a\nCOPY --from=0 / /",
                "circular dependency: stage-0 needs stage-1, which needs stage-0",
            ),
            (
                "FROM a AS x\nCOPY --from=y / /\nFROM x AS y",
                "circular dependency: x needs y, which needs x",
            ),
            (
                "FROM a AS x\nCOPY --from=X / /",
                "stage x can't copy or mount from itself",
            ),
            ("FROM a\nCOPY --from=3 / /", "there is no stage 3"),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text).message, expected, "{text}");
        }
        // What is not needed does no harm.
        assert_eq!(plan("FROM a\nCOPY --from=b / /\nFROM a AS b").order, [1]);
    }

    #[test]
    fn unknown_targets_name_the_stages() {
        let text = "FROM a AS builder\nFROM b AS final";
        let error = plan_with(text, "bulider", &[]).unwrap_err().0.remove(0);
        assert_eq!(error.message, "there is no stage \"bulider\"");
        assert_eq!(
            error.hint.as_deref(),
            Some("did you mean builder? The stages are builder, final")
        );
        let error = plan_with("FROM a", "5", &[]).unwrap_err().0.remove(0);
        assert_eq!(
            error.hint.as_deref(),
            Some("no stage of the file has a name")
        );
    }

    /// SEMANTICS 22
    #[test]
    fn from_lines_see_global_args_only() {
        let text = "ARG NAME=debian TAG=1 FULL=$NAME:$TAG\nFROM ${FULL}-slim\nFROM x:$TARGETARCH";
        let bases: Vec<BaseRef> = plan(text).stages.into_iter().map(|s| s.base).collect();
        assert_eq!(bases, [image_of("debian:1-slim"), image_of("x:arm64")]);
        assert_eq!(plan("FROM a AS Last").globals["TARGETSTAGE"], "last");
        let given = plan_with(text, "", &[("TAG", "2"), ("TARGETARCH", "s390x")]).unwrap();
        assert_eq!(given.stages[0].base, image_of("debian:2-slim"));
        assert_eq!(given.stages[1].base, image_of("x:s390x"));
        assert_eq!(given.globals["FULL"], "debian:2");
        assert_eq!(given.globals["TARGETSTAGE"], "default");
        // A build argument counts for FROM only where it is declared.
        let undeclared = plan_with("FROM $BASE", "", &[("BASE", "x")]).unwrap_err();
        assert!(
            undeclared.0[0]
                .hint
                .as_ref()
                .unwrap()
                .contains("put ARG BASE there")
        );
    }

    #[test]
    fn an_empty_base_says_why() {
        let cases = [
            ("FROM $BASE", "BASE is not declared: put ARG BASE=…"),
            ("ARG BASE\nFROM $BASE", "ARG BASE has no value"),
            ("FROM x\nARG BASE=y\nFROM $BASE", "put ARG BASE there"),
            ("ARG BAES=y\nFROM $BASE", "did you mean BAES?"),
            ("FROM debian:$TAG", "TAG is not declared"),
            ("FROM --platform=$P x", "P is not declared"),
        ];
        for (text, expected) in cases {
            let hint = error(text).hint.unwrap_or_default();
            assert!(hint.contains(expected), "{text}: {hint}");
        }
        let finding = error("FROM ${X:?unset}");
        assert_eq!(finding.message, "X: unset");
    }

    #[test]
    fn broken_words_of_what_is_needed_are_reported_together() {
        let text = "FROM a AS unused\nENV A=${\nFROM b AS base\nONBUILD USER ${x\nENV B=${B\n\
                    FROM base\nEXPOSE ${:}\nWORKDIR $OK";
        let file = parse(&Source::new("Dockerfile", text)).unwrap();
        let errors = file.plan(None, &map(&[]), &map(&[])).unwrap_err().0;
        let words: Vec<&str> = errors
            .iter()
            .map(|e| &text[e.span.start..e.span.end])
            .collect();
        assert_eq!(words, ["${x", "${B", "${:}"]);
        // One pass shows them beside what is wrong with the stages themselves.
        let errors = plan_with("ARG X=${\nARG Y=${\nFROM $X\nUSER ${", "", &[]).unwrap_err();
        assert_eq!(errors.0.len(), 3, "{errors:?}");
        let errors = plan_with("FROM a\nUSER ${\nCOPY --from=7 / /", "", &[]).unwrap_err();
        assert_eq!(errors.0.len(), 2, "{errors:?}");
        let errors = parse(&Source::new("D", "FROM a\nUSER ${\nFOO\n")).unwrap_err();
        assert_eq!(errors.0.len(), 2, "{errors:?}");
    }

    #[test]
    fn platforms_are_expanded_and_checked() {
        let plan = plan("FROM --platform=$BUILDPLATFORM x");
        let platform = plan.stages[0].platform.as_ref().unwrap();
        assert_eq!(platform.architecture, "amd64");
        assert!(
            error("FROM --platform=no/such/thing/at/all x")
                .message
                .contains("platform")
        );
    }

    /// SEMANTICS 30
    #[test]
    fn triggers_of_a_stage_belong_to_its_child() {
        let text = "FROM a AS files\nFROM b AS parent\nONBUILD COPY --from=files / /\nFROM parent";
        let built = plan(text);
        assert_eq!(built.order, [0, 1, 2]);
        assert_eq!(built.stages[2].sources["files"], BaseRef::Stage(0));
        // The stage itself doesn't run its triggers.
        assert_eq!(plan_with(text, "parent", &[]).unwrap().order, [1]);
    }

    /// SEMANTICS 37
    #[test]
    fn triggers_of_an_image_may_need_further_stages() {
        let text = "FROM a AS files\nFROM b";
        let file = parse(&Source::new("Dockerfile", text)).unwrap();
        let mut plan = file.plan(None, &map(&[]), &map(&[])).unwrap();
        assert_eq!(plan.order, [1]);
        let trigger = parse_onbuild_trigger("COPY --from=files /a /a").unwrap();
        plan.adopt_triggers(&file, 1, &[trigger]).unwrap();
        assert_eq!(plan.order, [0, 1]);
        let trigger = parse_onbuild_trigger("COPY --from=7 /a /a").unwrap();
        let error = plan.adopt_triggers(&file, 1, &[trigger]).unwrap_err();
        assert_eq!(error.0[0].span, file.stages[1].from.span);
    }

    #[test]
    fn build_args_that_nothing_declares_are_found() {
        let text = "ARG A\nFROM x\nARG B\nONBUILD ARG C\nFROM y\nARG D=1";
        let file = parse(&Source::new("Dockerfile", text)).unwrap();
        let given = [
            "A",
            "B",
            "C",
            "D",
            "E",
            "https_proxy",
            "TARGETOS",
            "BUILDKIT_X",
        ];
        let given = given.iter().map(|name| (name.to_string(), String::new()));
        let given: BTreeMap<_, _> = given.collect();
        let mut plan = file.plan(None, &given, &map(&[])).unwrap();
        assert_eq!(file.unused_build_args(&plan, &given), ["E"]);
        let trigger = parse_onbuild_trigger("ARG E").unwrap();
        plan.adopt_triggers(&file, 1, &[trigger]).unwrap();
        assert!(file.unused_build_args(&plan, &given).is_empty());
    }
}
