//! What FROM lines say: the target, the global arguments, bases and platforms.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::{BaseRef, image, is_named, named_context};
use crate::dockerfile::instruction::{Dockerfile, Instruction, InstructionKind, Stage};
use crate::dockerfile::suggest::{closest, did_you_mean};
use crate::dockerfile::{Diagnostic, Diagnostics, Span, Word};
use crate::image::Platform;

impl Dockerfile {
    pub(super) fn find_target(&self, target: Option<&str>) -> Result<usize, Diagnostic> {
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

    pub(in crate::dockerfile) fn globals(
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

    pub(in crate::dockerfile) fn base(
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

    pub(in crate::dockerfile) fn platform(
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
