//! How things are written: casing, names of stages, comments that describe.

use super::catalog::*;
use super::{Place, Reporter};
use crate::dockerfile::{InstructionKind, Span};

/// Checks the file as a whole.
pub(super) fn check(reporter: &mut Reporter<'_>) {
    casing(reporter);
    continuations(reporter);
    stage_names(reporter);
    descriptions(reporter);
}

/// Returns the first word of an instruction as it is written.
fn keyword<'a>(reporter: &Reporter<'a>, span: Span) -> &'a str {
    let text = &reporter.subject.source.text;
    let text = text.get(span.start..span.end).unwrap_or_default();
    let end = text.find(|c: char| !c.is_ascii_alphabetic());
    &text[..end.unwrap_or(text.len())]
}

fn is_lower(text: &str) -> bool {
    !text.contains(|c: char| c.is_ascii_uppercase())
}

fn is_upper(text: &str) -> bool {
    !text.contains(|c: char| c.is_ascii_lowercase())
}

fn casing(reporter: &mut Reporter<'_>) {
    let mut spans: Vec<Span> = Vec::new();
    for stage in &reporter.subject.file.stages {
        spans.push(stage.from.span);
        spans.extend(stage.instructions.iter().map(|i| i.span));
    }
    let words: Vec<&str> = spans.iter().map(|span| keyword(reporter, *span)).collect();
    let lower = words.iter().filter(|word| is_lower(word)).count();
    let upper = words.iter().filter(|word| is_upper(word)).count();
    let (fits, casing): (fn(&str) -> bool, &str) = match lower > upper {
        true => (is_lower, "lower case"),
        false => (is_upper, "upper case"),
    };
    for (span, word) in spans.into_iter().zip(words) {
        if !fits(word) {
            let message = format!("{word} should be in {casing}, as most instructions here are");
            let place = reporter.place(span);
            reporter.report(&CONSISTENT_INSTRUCTION_CASING, &place, message);
        }
    }
}

fn continuations(reporter: &mut Reporter<'_>) {
    for span in &reporter.subject.file.empty_continuations {
        let place = Place {
            span: *span,
            config: reporter.config.clone(),
        };
        let message = "empty line within an instruction";
        reporter.report(&NO_EMPTY_CONTINUATION, &place, message);
    }
}

fn stage_names(reporter: &mut Reporter<'_>) {
    let stages = &reporter.subject.file.stages;
    for (index, stage) in stages.iter().enumerate() {
        let place = reporter.place(stage.from.span);
        let mut words = stage.from.raw.split_whitespace();
        let from = words.next().unwrap_or_default();
        let mut words = words.skip_while(|word| word.starts_with("--"));
        let (Some(_), Some(keyword), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if name.to_lowercase() != name {
            let message = format!("the name of stage {name} should be in lower case");
            reporter.report(&STAGE_NAME_CASING, &place, message);
        }
        let mixed =
            (is_lower(from) && !is_lower(keyword)) || (is_upper(from) && !is_upper(keyword));
        if mixed {
            let message = format!("{keyword} is not in the casing of {from}");
            reporter.report(&FROM_AS_CASING, &place, message);
        }
        let name = name.to_lowercase();
        if matches!(name.as_str(), "context" | "scratch") {
            let message = format!("a stage should not be named {name}");
            reporter.report(&RESERVED_STAGE_NAME, &place, message);
        }
        if stages[..index]
            .iter()
            .any(|other| other.name.as_deref() == Some(&name))
        {
            let message = format!("another stage is named {name} too");
            reporter.report(&DUPLICATE_STAGE_NAME, &place, message);
        }
    }
}

fn descriptions(reporter: &mut Reporter<'_>) {
    let file = reporter.subject.file;
    let mut named: Vec<(&str, Span, Vec<&str>)> = Vec::new();
    for stage in &file.stages {
        if let Some(name) = &stage.from.name {
            named.push(("stage", stage.from.span, vec![name]));
        }
    }
    let in_stages = file.stages.iter().flat_map(|stage| &stage.instructions);
    for instruction in file.global_args.iter().chain(in_stages) {
        if let InstructionKind::Arg(items) = &instruction.kind {
            let names = items.iter().map(|item| item.name.as_str()).collect();
            named.push(("ARG", instruction.span, names));
        }
    }
    for (what, span, names) in named {
        let comments = reporter.comments(span);
        let Some(first) = comments.last().and_then(|line| line.split(' ').next()) else {
            continue;
        };
        if !names.contains(&first) {
            let name = match names.as_slice() {
                [name] => *name,
                _ => "<name>",
            };
            let message = format!("the comment on {what} should be: # {name} <description>");
            let place = reporter.place(span);
            reporter.report(&INVALID_DEFINITION_DESCRIPTION, &place, message);
        }
    }
}
