//! FROM lines: variables, platforms, tags.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::*;
use super::variables::expand_noting;
use super::{Place, Reporter};
use crate::dockerfile::plan::{BaseRef, names_in};
use crate::dockerfile::suggest::closest;
use crate::dockerfile::{InstructionKind, Stage};
use crate::image::{Platform, Reference};

/// Checks all FROM lines.
pub(super) fn check(reporter: &mut Reporter<'_>) {
    let subject = reporter.subject;
    let target = subject.file.stages.len() - 1;
    let nothing = BTreeMap::new();
    let defaults = subject.file.globals(target, &nothing, subject.predefined);
    let globals = subject
        .file
        .globals(target, subject.build_args, subject.predefined);
    for stage in &subject.file.stages {
        let place = reporter.place(stage.from.span);
        if let Ok(defaults) = &defaults {
            default_base(reporter, &place, stage, defaults);
        }
        let Ok(globals) = &globals else {
            continue;
        };
        undefined(reporter, &place, stage, globals);
        if let Some(word) = &stage.from.platform {
            platform(reporter, &place, stage, &word.text, globals);
        }
        let base = subject
            .file
            .base(stage, globals, subject.build_args, subject.contexts);
        if let Ok(BaseRef::Image(name)) = base {
            let planned = subject.file.platform(stage, globals, subject.build_args);
            let wanted = planned.ok().flatten();
            base_platform(reporter, &place, &name, wanted.as_ref());
            floating(reporter, &place, &name);
        }
        mistyped(reporter, stage);
    }
}

/// Reports `--from` and mounts' `from` that are almost the name of a stage.
fn mistyped(reporter: &mut Reporter<'_>, stage: &Stage) {
    let stages = &reporter.subject.file.stages;
    let names: Vec<&str> = stages.iter().filter_map(|s| s.name.as_deref()).collect();
    // An image that a FROM names is one, however near.
    let bases: Vec<&str> = stages.iter().map(|s| s.from.base.text.as_str()).collect();
    for instruction in &stage.instructions {
        for (name, _) in names_in(instruction) {
            let is_index = name.parse::<usize>().is_ok();
            let is_image = name.contains(['/', ':', '@', '.']) || bases.contains(&name.as_str());
            let is_stage = names.iter().any(|known| known.eq_ignore_ascii_case(&name));
            let is_context = reporter.subject.contexts.contains(&name);
            if is_index || is_image || is_stage || is_context {
                continue;
            }
            if let Some(near) = closest(&name, names.iter().copied()) {
                let place = reporter.place(instruction.span);
                let span = reporter.find(instruction, &name);
                let message = format!("no stage is named {name}, so that it is an image");
                let hint = format!("did you mean the stage {near}?");
                reporter.report_at(&MISTYPED_STAGE_NAME, &place, span, message, Some(hint));
            }
        }
    }
}

type Globals = BTreeMap<String, String>;

fn default_base(reporter: &mut Reporter<'_>, place: &Place, stage: &Stage, defaults: &Globals) {
    let base = &stage.from.base;
    let lookup = |name: &str| defaults.get(name).cloned();
    let Ok(name) = base.expand(&lookup, reporter.subject.file.escape) else {
        return;
    };
    if name.parse::<Reference>().is_err() {
        let message = format!(
            "without --build-arg, the base image {} is not valid",
            base.text
        );
        reporter.report(&INVALID_DEFAULT_ARG_IN_FROM, place, message);
    }
}

fn undefined(reporter: &mut Reporter<'_>, place: &Place, stage: &Stage, globals: &Globals) {
    let file = reporter.subject.file;
    let mut declared: BTreeSet<&str> = globals.keys().map(String::as_str).collect();
    for instruction in &file.global_args {
        if let InstructionKind::Arg(items) = &instruction.kind {
            declared.extend(items.iter().map(|item| item.name.as_str()));
        }
    }
    let lookup = |name: &str| globals.get(name).cloned();
    for word in [Some(&stage.from.base), stage.from.platform.as_ref()] {
        let Some(word) = word else { continue };
        let (_, met) = expand_noting(&lookup, |lookup| word.expand(lookup, file.escape));
        for name in met.unmatched {
            if declared.contains(name.as_str()) {
                continue;
            }
            let mut message = format!("no ARG before the first FROM declares ${name}");
            if let Some(near) = closest(&name, declared.iter().copied()) {
                message.push_str(&format!(" (did you mean ${near}?)"));
            }
            reporter.report(&UNDEFINED_ARG_IN_FROM, place, message);
        }
    }
}

fn platform(
    reporter: &mut Reporter<'_>,
    place: &Place,
    stage: &Stage,
    written: &str,
    globals: &Globals,
) {
    const TARGET: &str = "TARGETPLATFORM";
    let Some(word) = &stage.from.platform else {
        return;
    };
    let escape = reporter.subject.file.escape;
    let lookup = |name: &str| globals.get(name).cloned();
    let (text, met) = expand_noting(&lookup, |lookup| word.expand(lookup, escape));
    let only_target = met.matched.len() == 1 && met.matched.contains(TARGET);
    if only_target && met.unmatched.is_empty() && globals.get(TARGET) == Some(&text) {
        let message = format!("--platform={written} is what holds anyway");
        reporter.report(&REDUNDANT_TARGET_PLATFORM, place, message);
    }
    if met.matched.is_empty()
        && met.unmatched.is_empty()
        && let Ok(fixed) = text.parse::<Platform>()
    {
        let name = stage.name.as_deref().unwrap_or_default();
        if !name.contains(&fixed.os) && !name.contains(&fixed.architecture) {
            let message = format!("--platform has the fixed value {text}");
            reporter.report(&FROM_PLATFORM_FLAG_CONST_DISALLOWED, place, message);
        }
    }
}

fn base_platform(
    reporter: &mut Reporter<'_>,
    place: &Place,
    name: &str,
    wanted: Option<&Platform>,
) {
    let wanted = wanted.unwrap_or(reporter.subject.platform);
    let Some(config) = (reporter.subject.base)(name) else {
        return;
    };
    let actual = config.platform();
    if actual.os != wanted.os || actual.architecture != wanted.architecture {
        let message = format!("the image {name} is for {actual}, and {wanted} is built");
        reporter.report(&INVALID_BASE_IMAGE_PLATFORM, place, message);
    }
}

fn floating(reporter: &mut Reporter<'_>, place: &Place, name: &str) {
    let Ok(reference) = name.parse::<Reference>() else {
        return;
    };
    // A name without a tag is taken as `latest`.
    if reference.digest().is_none() && matches!(reference.tag(), None | Some("latest")) {
        let message = format!("the image {name} changes with every release");
        reporter.report(&FLOATING_BASE_IMAGE, place, message);
    }
}
