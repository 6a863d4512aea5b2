//! `--call`: what else than building can be done with a Dockerfile. What it shows, as text and
//! as JSON, has the shape that `docker buildx build --call` gives it.

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::build::Examined;
use crate::cli::{CliError, Result, output};
use crate::dockerfile::check::{Finding, UsedInfo};
use crate::dockerfile::suggest::did_you_mean;
use crate::dockerfile::{Source, Span};
use crate::ui::format::Table;
use crate::ui::text::sanitise;

/// Lines shown above and below an instruction.
const AROUND: usize = 2;

/// Of an instruction, this many lines are shown.
const LONGEST: usize = 12;

/// What is called, by its name and in words.
const METHODS: [(&str, Method, &str); 5] = [
    ("build", Method::Build, "Build an image"),
    ("check", Method::Check, "Look for likely mistakes"),
    ("lint", Method::Check, "Look for likely mistakes"),
    (
        "outline",
        Method::Outline,
        "List the arguments and secrets of a target",
    ),
    ("targets", Method::Targets, "List the targets"),
];

/// What buildx calls the list of methods.
const DESCRIBE: &str = "subrequests.describe";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Build,
    Check,
    Outline,
    Targets,
    Describe,
}

/// The value of `--call`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) method: Method,
    json: bool,
    /// Whether findings leave the exit code at 0.
    ignore_status: bool,
}

impl Call {
    /// What `--check` stands for.
    pub(super) const CHECK: Call = Call {
        method: Method::Check,
        json: false,
        ignore_status: false,
    };

    /// Parses `method[,format=json][,ignorestatus=true]`.
    pub(super) fn parse(text: &str) -> std::result::Result<Call, String> {
        let mut call = Call {
            method: Method::Build,
            ..Call::CHECK
        };
        for (index, field) in text.split(',').enumerate() {
            match field.split_once('=') {
                Some(("format", "json")) => call.json = true,
                Some(("format", "text" | "")) => call.json = false,
                Some(("ignorestatus", "true" | "1")) => call.ignore_status = true,
                Some(("ignorestatus", "false" | "0")) => call.ignore_status = false,
                None if index == 0 && text.is_empty() => {}
                None if index == 0 && field == DESCRIBE => call.method = Method::Describe,
                None if index == 0 => {
                    let method = METHODS.iter().find(|(name, ..)| *name == field);
                    let Some((_, method, _)) = method else {
                        let names = METHODS.iter().map(|(name, ..)| *name);
                        let near = did_you_mean(field, names);
                        return Err(near.unwrap_or_else(|| {
                            "it can be build, check, outline or targets".to_owned()
                        }));
                    };
                    call.method = *method;
                }
                _ => {
                    return Err(format!(
                        "{field:?} is neither format=json nor ignorestatus=true"
                    ));
                }
            }
        }
        Ok(call)
    }
}

/// Shows what was asked for; returns whether it is well.
pub(super) fn show(
    call: Call,
    examined: &Examined,
    target: Option<&str>,
    build_args: &std::collections::BTreeMap<String, String>,
) -> Result<ExitCode> {
    let source = &examined.source;
    if call.method == Method::Check {
        return check(call, examined);
    }
    if call.method == Method::Describe {
        describe(call)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(file) = &examined.file else {
        return Err(error_of(examined));
    };
    match call.method {
        Method::Targets => {
            let targets = file.targets(source);
            if call.json {
                return json(&Targets {
                    targets: targets
                        .iter()
                        .map(|target| Target {
                            name: target.name.as_deref().unwrap_or_default(),
                            default: target.default,
                            description: target.description.as_deref(),
                            base: &target.base,
                            platform: target.platform.as_deref(),
                            location: Location::of(source, target.span),
                        })
                        .collect(),
                    sources: [STANDARD.encode(&source.text)],
                });
            }
            let mut table = Table::new(["TARGET", "DESCRIPTION"]);
            for target in &targets {
                let name = match (&target.name, target.default) {
                    (Some(name), true) => format!("{name} (default)"),
                    (Some(name), false) => name.clone(),
                    (None, true) => "(default)".to_owned(),
                    (None, false) => continue,
                };
                table.row([name, target.description.clone().unwrap_or_default()]);
            }
            output(&table.render())?;
        }
        _ => {
            let outline = file
                .outline(source, target, build_args, &examined.predefined)
                .map_err(|error| CliError::rendered(error.render(source), error))?;
            let used = |list: &[UsedInfo]| -> Vec<Used> {
                let used = list.iter().map(|used| Used {
                    name: used.name.clone(),
                    required: used.required,
                    location: Location::of(source, used.span),
                });
                used.collect()
            };
            if call.json {
                return json(&Outline {
                    name: outline.name.as_deref(),
                    description: outline.description.as_deref(),
                    args: outline
                        .args
                        .iter()
                        .map(|arg| Arg {
                            name: &arg.name,
                            description: arg.description.as_deref(),
                            value: arg.value.as_deref().filter(|value| !value.is_empty()),
                            location: Location::of(source, arg.span),
                        })
                        .collect(),
                    secrets: used(&outline.secrets),
                    ssh: used(&outline.ssh),
                    sources: [STANDARD.encode(&source.text)],
                });
            }
            let mut parts = Vec::new();
            if outline.name.is_some() || outline.description.is_some() {
                let name = outline.name.as_deref().unwrap_or("(default)");
                let mut head = format!("TARGET:      {name}\n");
                if let Some(description) = &outline.description {
                    head.push_str(&format!("DESCRIPTION: {description}\n"));
                }
                parts.push(head);
            }
            if !outline.args.is_empty() {
                let mut table = Table::new(["BUILD ARG", "VALUE", "DESCRIPTION"]);
                for arg in &outline.args {
                    let value = arg.value.as_deref().unwrap_or_default();
                    table.row([
                        &arg.name,
                        value,
                        arg.description.as_deref().unwrap_or_default(),
                    ]);
                }
                parts.push(table.render());
            }
            for (heading, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
                if !list.is_empty() {
                    let mut table = Table::new([heading, "REQUIRED"]);
                    for used in list {
                        table.row([used.name.as_str(), if used.required { "true" } else { "" }]);
                    }
                    parts.push(table.render());
                }
            }
            output(&sanitise(parts.join("\n").as_bytes()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn json(value: &impl Serialize) -> Result<ExitCode> {
    let text = serde_json::to_string_pretty(value)?;
    output(&format!("{text}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn error_of(examined: &Examined) -> CliError {
    let error = examined.error.clone().unwrap_or_default();
    CliError::rendered(error.render(&examined.source), error)
}

fn check(call: Call, examined: &Examined) -> Result<ExitCode> {
    let source = &examined.source;
    let findings = &examined.findings.all;
    if call.json {
        let warnings = findings.iter().map(|finding| Warning {
            rule_name: finding.check.name,
            description: finding.check.summary,
            url: finding.check.url(),
            detail: detail(finding),
            location: Location::of(source, finding.span),
        });
        let error = examined.error.as_ref().map(|error| Wrong {
            message: error.to_string(),
            location: error
                .0
                .first()
                .map_or_else(Location::default, |first| Location::of(source, first.span)),
        });
        json(&Checked {
            warnings: warnings.collect(),
            sources: [SourceText {
                filename: &source.name,
                language: "Dockerfile",
                data: STANDARD.encode(&source.text),
            }],
            build_error: error,
        })?;
    } else {
        let mut text = match findings.len() {
            0 => String::new(),
            1 => "Check complete, 1 warning has been found!\n".to_owned(),
            count => format!("Check complete, {count} warnings have been found!\n"),
        };
        for finding in findings {
            text.push_str(&render(source, finding));
        }
        if findings.is_empty() && examined.error.is_none() {
            text.push_str("Check complete, no warnings found.\n");
        }
        output(&sanitise(text.as_bytes()))?;
        if examined.error.is_some() {
            return Err(error_of(examined));
        }
    }
    let bad = !findings.is_empty() || examined.error.is_some();
    Ok(match bad && !call.ignore_status {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn detail(finding: &Finding) -> String {
    match &finding.hint {
        Some(hint) => format!("{}; {hint}", finding.message),
        None => finding.message.clone(),
    }
}

/// Returns a finding as people read it.
fn render(source: &Source, finding: &Finding) -> String {
    let name = finding.check.name;
    let mut text = match finding.check.url() {
        Some(url) => format!("\nWARNING: {name} - {url}\n"),
        None if finding.check.is_own() => {
            format!("\nWARNING: {name} - kiln check --explain {name}\n")
        }
        None => format!("\nWARNING: {name}\n"),
    };
    text.push_str(&finding.message);
    text.push('\n');
    if !finding.span.is_whole_file() {
        text.push_str(&excerpt(source, finding.span));
    }
    if let Some(hint) = &finding.hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

/// Returns the lines of a place with those around it.
fn excerpt(source: &Source, span: Span) -> String {
    const RULE: &str = "--------------------\n";
    let (first, last) = source.lines_of(span);
    let count = source.text.lines().count();
    let shown = last.min(first + LONGEST - 1);
    let around = first.saturating_sub(AROUND).max(1)..=(shown + AROUND).min(count);
    let mut text = format!("{}:{first}\n{RULE}", source.name);
    for number in around {
        let mark = match (first..=last).contains(&number) {
            true => ">>>",
            false => "   ",
        };
        let line = format!(" {number:3} | {mark} {}", source.line(number));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text + RULE
}

fn describe(call: Call) -> Result<()> {
    let own = (DESCRIBE, Method::Describe, "List what can be called");
    let methods = METHODS
        .iter()
        .filter(|(name, ..)| !matches!(*name, "build" | "check"))
        .chain([&own]);
    if call.json {
        let listed = methods.map(|(name, _, description)| Request {
            name: format!("frontend.{name}"),
            version: "1.0.0",
            kind: "rpc",
            description,
        });
        json(&listed.collect::<Vec<_>>())?;
        return Ok(());
    }
    let mut table = Table::new(["NAME", "VERSION", "DESCRIPTION"]);
    for (name, _, description) in methods {
        table.row([name, "1.0.0", description]);
    }
    output(&table.render())
}

/// A place, as BuildKit's API has it: lines, from 1.
#[derive(Default, Serialize)]
struct Location {
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

impl Location {
    fn of(source: &Source, span: Span) -> Location {
        if span.is_whole_file() {
            return Location::default();
        }
        let (first, last) = source.lines_of(span);
        Location {
            ranges: vec![Range {
                start: Position { line: first },
                end: Position { line: last },
            }],
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked<'a> {
    warnings: Vec<Warning>,
    sources: [SourceText<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<Wrong>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: String,
    location: Location,
}

#[derive(Serialize)]
struct SourceText<'a> {
    filename: &'a str,
    language: &'static str,
    data: String,
}

#[derive(Serialize)]
struct Wrong {
    message: String,
    location: Location,
}

#[derive(Serialize)]
struct Targets<'a> {
    targets: Vec<Target<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: Location,
}

#[derive(Serialize)]
struct Outline<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Used>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Used>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Arg<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    location: Location,
}

#[derive(Serialize)]
struct Used {
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct Request {
    name: String,
    version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    description: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_call_are_those_of_buildx() {
        let parsed = |text| Call::parse(text).unwrap();
        assert_eq!(parsed("check"), Call::CHECK);
        assert_eq!(parsed("lint"), Call::CHECK);
        assert_eq!(parsed("").method, Method::Build);
        let call = parsed("outline,format=json,ignorestatus=true");
        assert_eq!(
            (call.method, call.json, call.ignore_status),
            (Method::Outline, true, true)
        );
        assert_eq!(parsed("subrequests.describe").method, Method::Describe);
        assert_eq!(Call::parse("chekc").unwrap_err(), "did you mean check?");
        assert_eq!(
            Call::parse("check,format=yaml").unwrap_err(),
            "\"format=yaml\" is neither format=json nor ignorestatus=true"
        );
    }

    #[test]
    fn an_excerpt_marks_the_instruction_and_has_lines_around_it() {
        let source = Source::new("Dockerfile", "1\n2\n3\n4 x\\\n5\n6\n7\n8\n");
        assert_eq!(
            excerpt(&source, Span::new(6, 12)),
            "Dockerfile:4\n--------------------\n   2 |     2\n   3 |     3\n   4 | >>> 4 x\\\n   \
             5 | >>> 5\n   6 |     6\n   7 |     7\n--------------------\n"
        );
    }
}
