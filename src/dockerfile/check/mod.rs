//! Checks: what is allowed in a Dockerfile and still most likely a mistake. Those of BuildKit
//! by their names, and kiln's own. Pure: what a check has to know of the context and of base
//! images comes from the caller.

pub mod catalog;
mod config;
mod files;
mod naming;
mod overview;
mod script;
mod shell;
mod stage;
#[cfg(test)]
mod tests;
mod variables;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

pub use catalog::{Check, Origin};
pub use config::{Config, ConfigError};
pub use overview::{ArgInfo, Outline, TargetInfo, UsedInfo};

use crate::dockerfile::lexer::is_directive;
use crate::dockerfile::{Diagnostic, Dockerfile, Instruction, Source, Span};
use crate::image::{ImageConfig, Platform};

/// The build argument that replaces the `check` directive.
pub const CONFIG_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What is checked, and what is known around it.
pub struct Subject<'a> {
    /// The text.
    pub source: &'a Source,
    /// The same, parsed.
    pub file: &'a Dockerfile,
    /// `--build-arg`.
    pub build_args: &'a BTreeMap<String, String>,
    /// The platform arguments, as [`Dockerfile::plan`] takes them.
    pub predefined: &'a BTreeMap<String, String>,
    /// The platform that is built for.
    pub platform: &'a Platform,
    /// The stages whose instructions are checked; all of them where it is missing.
    pub stages: Option<&'a [usize]>,
    /// The names of further contexts, which `--from` may mean.
    pub contexts: &'a BTreeSet<String>,
    /// Says by which rule (`file:line: rule`) the context leaves a path out.
    pub excluded: &'a dyn Fn(&str) -> Option<String>,
    /// Returns the config of a base image where it is at hand.
    pub base: &'a dyn Fn(&str) -> Option<ImageConfig>,
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The check.
    pub check: &'static Check,
    /// Where.
    pub span: Span,
    /// What, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What all checks together found, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// What they found.
    pub all: Vec<Finding>,
    /// Whether that is an error.
    pub error: bool,
}

impl Findings {
    /// Returns the names of the checks that found something, each once.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> = self.all.iter().map(|f| f.check.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Runs all checks that are on.
///
/// # Errors
/// The `check` directive, or the build argument in its place, can't be read.
pub fn run(subject: &Subject<'_>) -> Result<Findings, Diagnostic> {
    let config = configuration(subject)?;
    let mut reporter = Reporter {
        subject,
        config,
        found: Vec::new(),
    };
    reporter.unknown_names();
    naming::check(&mut reporter);
    stage::check(&mut reporter);
    walk::check(&mut reporter);
    let mut all = reporter.found;
    all.sort_by_key(|finding| finding.span.start);
    let mut seen: Vec<(&str, Span, String)> = Vec::new();
    all.retain(|finding| {
        let key = (finding.check.name, finding.span, finding.message.clone());
        let new = !seen.contains(&key);
        seen.push(key);
        new
    });
    Ok(Findings {
        error: reporter.config.error && !all.is_empty(),
        all,
    })
}

fn configuration(subject: &Subject<'_>) -> Result<Config, Diagnostic> {
    let (text, span) = match subject.build_args.get(CONFIG_ARG) {
        Some(given) => (given.as_str(), Span::default()),
        None => match &subject.file.check {
            Some(text) => (text.as_str(), directive_span(subject.source)),
            None => return Ok(Config::default()),
        },
    };
    Config::parse(text)
        .map_err(|error| Diagnostic::new(span, error.to_string()).maybe_hinted(error.hint()))
}

/// Returns where the `check` directive stands.
fn directive_span(source: &Source) -> Span {
    for number in 1.. {
        let line = source.line(number).trim_start_matches('\u{feff}');
        if !is_directive(line) {
            break;
        }
        let key = line.trim().trim_start_matches('#').trim_start();
        if key
            .get(..5)
            .is_some_and(|key| key.eq_ignore_ascii_case("check"))
        {
            let range = source.line_range(number);
            return Span::new(range.start, range.end);
        }
    }
    Span::default()
}

/// Collects what checks find, as far as they are on.
struct Reporter<'a> {
    subject: &'a Subject<'a>,
    config: Config,
    found: Vec<Finding>,
}

/// An instruction that is being checked, and what is on for it.
struct Place {
    span: Span,
    config: Config,
}

impl<'a> Reporter<'a> {
    /// Returns the place of an instruction, with what the comments above it say.
    fn place(&self, span: Span) -> Place {
        Place {
            span,
            config: self.config.with_comments(&self.comments(span)),
        }
    }

    fn report(&mut self, check: &'static Check, place: &Place, message: impl Into<String>) {
        self.report_at(check, place, place.span, message, None);
    }

    fn report_at(
        &mut self,
        check: &'static Check,
        place: &Place,
        span: Span,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        if place.config.has(check) {
            self.found.push(Finding {
                check,
                span,
                message: message.into(),
                hint,
            });
        }
    }

    /// Returns the comments right above a place, the first one first.
    fn comments(&self, span: Span) -> Vec<&'a str> {
        comments_above(self.subject.source, span)
    }

    /// Returns where a text stands within an instruction; else the whole of it.
    fn find(&self, instruction: &Instruction, text: &str) -> Span {
        let Span { start, end } = instruction.span;
        let source = &self.subject.source.text;
        match source.get(start..end).and_then(|part| part.find(text)) {
            Some(at) if !text.is_empty() => Span::new(start + at, start + at + text.len()),
            _ => instruction.span,
        }
    }

    fn unknown_names(&mut self) {
        let place = Place {
            span: directive_span(self.subject.source),
            config: Config::default(),
        };
        let unknown: Vec<(String, Option<&str>)> = self
            .config
            .unknown()
            .into_iter()
            .map(|(name, near)| (name.chars().take(60).collect(), near))
            .collect();
        for (name, near) in unknown {
            let mut message = format!("no check is named {name}");
            if let Some(near) = near {
                message.push_str(&format!(" (did you mean {near}?)"));
            }
            self.report(&catalog::UNKNOWN_CHECK_NAME, &place, message);
        }
    }
}

/// Returns the comments that stand right above a place, the first one first. An empty line or
/// comment ends them; directives are none.
fn comments_above(source: &Source, span: Span) -> Vec<&str> {
    let mut directives = 0;
    while is_directive(source.line(directives + 1).trim_start_matches('\u{feff}')) {
        directives += 1;
    }
    let mut comments = Vec::new();
    let mut number = source.line_of(span.start);
    while number > directives + 1 {
        number -= 1;
        match source.line(number).trim_start().strip_prefix('#') {
            Some(comment) if !comment.trim().is_empty() => comments.push(comment.trim()),
            _ => break,
        }
    }
    comments.reverse();
    comments
}
