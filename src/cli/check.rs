//! `kiln check`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{CliError, Result, build, output};
use crate::dockerfile::check::{Check, catalog};
use crate::dockerfile::suggest::closest;
use crate::ui::format::Table;

/// Arguments of `kiln check`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The directory that would be built from [default: .], or a Dockerfile, or - for one on
    /// standard input
    context: Option<String>,
    /// The Dockerfile [default: Dockerfile in the context]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Say what a check is for, with examples
    #[arg(long, value_name = "NAME", conflicts_with_all = ["context", "list"])]
    explain: Option<String>,
    /// List the checks
    #[arg(long, conflicts_with = "context")]
    list: bool,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    if let Some(name) = &arguments.explain {
        let check = find(name)?;
        output(&explanation(check))?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.list {
        let mut table = Table::new(["NAME", "OF", "", "FINDS"]);
        for check in catalog::ALL {
            let of = if check.is_own() { "kiln" } else { "BuildKit" };
            let off = if check.experimental { "off" } else { "" };
            table.row([check.name, of, off, check.summary]);
        }
        output(&table.render())?;
        return Ok(ExitCode::SUCCESS);
    }
    let context = arguments.context.as_deref().unwrap_or(".");
    build::check(context, arguments.file.clone(), root)
}

fn find(name: &str) -> Result<&'static Check> {
    let all = || catalog::ALL.iter().copied();
    let known = all().find(|check| check.name.eq_ignore_ascii_case(name));
    known.ok_or_else(|| {
        let error = CliError::message(format!("no check is named {name:?}"));
        error.hinted(match closest(name, all().map(|check| check.name)) {
            Some(near) => format!("did you mean {near}?"),
            None => "kiln check --list names them".to_owned(),
        })
    })
}

/// Returns a text in lines of at most 80 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.len() - 1;
        match lines[line].len() + 1 + word.len() {
            _ if lines[line].is_empty() => lines[line].push_str(word),
            ..=80 => lines[line].push_str(&format!(" {word}")),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

fn explanation(check: &Check) -> String {
    let name = check.name;
    let of = match (check.is_own(), check.experimental) {
        (true, false) => "one of kiln's own",
        (true, true) => "one of kiln's own, off by default",
        (false, false) => "one of BuildKit's",
        (false, true) => "one of BuildKit's, off by default",
    };
    let indented = |text: &str| -> String { text.lines().map(|l| format!("    {l}\n")).collect() };
    let mut text = format!("{name}: {} ({of})\n\n{}", check.summary, wrapped(check.why));
    text.push_str(&format!("\nBad:\n{}", indented(check.bad)));
    text.push_str(&format!("\nGood:\n{}", indented(check.good)));
    if check.experimental {
        text.push_str(&format!(
            "\nTo switch it on, at the top of the file:\n    # check=experimental={name}\n"
        ));
    }
    text.push_str(&format!(
        "\nTo skip it, at the top of the file or above the instruction:\n    # check=skip={name}\n\
         or for one build:\n    --build-arg BUILDKIT_DOCKERFILE_CHECK=skip={name}\n"
    ));
    if let Some(url) = check.url() {
        text.push_str(&format!("\nMore: {url}\n"));
    }
    text
}
