//! What commands do: RUN in shell form, and the forms of RUN, CMD and ENTRYPOINT.

use super::catalog::*;
use super::shell::{Script, SimpleCommand};
use super::walk::{Copied, Environment};
use super::{Place, Reporter};
use crate::dockerfile::heredoc::parse_opening;
use crate::dockerfile::{Command, Instruction, InstructionKind, Invocation, Run, join_path};

/// Programs that read a command line as the Bourne shell does.
const SHELLS: [&str; 7] = ["sh", "bash", "ash", "dash", "ksh", "zsh", "busybox"];

/// The greatest uid whose lastlog is small enough, at 292 bytes each.
const HARMLESS_UID: u64 = 1_000_000;

/// Checks the form of a command line.
pub(super) fn form(
    reporter: &mut Reporter<'_>,
    env: &Environment,
    place: &Place,
    name: &str,
    command: &Command,
) {
    match command {
        // `[ -f x ]` is a test, and has a blank.
        Command::Shell(text) if text.starts_with("['") || text.starts_with("[\"") => {
            broken_json(reporter, place, name, "a command for the shell");
        }
        Command::Shell(_) => {}
        Command::Exec(arguments) => {
            let Some((program, arguments)) = arguments.split_first() else {
                return;
            };
            let program = program.rsplit('/').next().unwrap_or(program);
            if SHELLS.contains(&program) || arguments.iter().any(|a| a == "-c") {
                return;
            }
            for argument in arguments {
                if let Some(variable) = whole_variable(argument)
                    && (env.scope.lookup(variable).is_some() || env.declared.contains(variable))
                {
                    let message =
                        format!("{name} passes the text {argument} on: there is no shell");
                    let hint =
                        format!("write {name} [\"sh\", \"-c\", \"exec {program} {argument} …\"]");
                    let at = place.span;
                    reporter.report_at(&VARIABLE_IN_EXEC_FORM, place, at, message, Some(hint));
                }
            }
        }
    }
}

/// Reports an array that is none.
pub(super) fn broken_json(reporter: &mut Reporter<'_>, place: &Place, name: &str, taken: &str) {
    let message = format!("{name} has no valid JSON array: it is taken as {taken}");
    let hint = "put each element into double quotes, with commas between them".to_owned();
    reporter.report_at(&BROKEN_JSON_FORM, place, place.span, message, Some(hint));
}

/// Returns the name where the text is `$name` or `${name}` and nothing else.
fn whole_variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let name = match name.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}')?,
        None => name,
    };
    let mut chars = name.chars();
    let first = chars.next()?;
    let valid = (first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    valid.then_some(name)
}

/// Returns the script of a RUN, if a shell that we know reads it.
fn script_of(run: &Run, shell: Option<&[String]>) -> Option<String> {
    let text = match &run.command {
        Command::Exec(_) => return None,
        Command::Shell(text) => text,
    };
    let is_known = |program: &str| {
        let program = program.rsplit('/').next().unwrap_or(program);
        SHELLS.contains(&program)
    };
    match run.invocation() {
        Invocation::Exec(_) => None,
        Invocation::Script { content, .. } => {
            let first = content.lines().next()?.strip_prefix("#!")?.trim();
            let mut words = first.split_whitespace();
            let program = words.next()?;
            let program = match program.ends_with("/env") {
                true => words.next()?,
                false => program,
            };
            is_known(program).then_some(content)
        }
        Invocation::Shell(whole) => {
            if let Some(program) = shell.and_then(<[String]>::first)
                && !is_known(program)
            {
                return None;
            }
            match run.heredocs.is_empty() || is_sole_heredoc(run) {
                true => Some(whole),
                // What the documents hold is input of a command.
                false => Some(text.clone()),
            }
        }
    }
}

fn is_sole_heredoc(run: &Run) -> bool {
    matches!(&run.command, Command::Shell(text)
        if run.heredocs.len() == 1 && parse_opening(text).is_some())
}

/// Checks what a RUN does.
pub(super) fn check(
    reporter: &mut Reporter<'_>,
    env: &mut Environment,
    place: &Place,
    instruction: &Instruction,
    run: &Run,
) {
    let Some(text) = script_of(run, env.shell.as_deref()) else {
        return;
    };
    let script = Script::parse(&text);
    undeclared(reporter, env, place, instruction, &script);
    state_lost(reporter, place, instruction, &script);
    stale_lists(reporter, env, place, &script, run);
    if is_sole_heredoc(run) {
        ignored_errors(reporter, env, place, &script, &text);
    }
    let mut moved = false;
    for command in &script.commands {
        match command.program() {
            "cd" | "pushd" => moved = true,
            "sudo" => sudo(reporter, env, place, instruction, command),
            "useradd" => lastlog(reporter, place, instruction, command),
            "chown" | "chgrp" | "chmod" => {
                ownership(reporter, env, place, instruction, command, moved);
            }
            _ => {}
        }
    }
}

fn undeclared(
    reporter: &mut Reporter<'_>,
    env: &Environment,
    place: &Place,
    instruction: &Instruction,
    script: &Script,
) {
    let sources = script.assigned.iter().any(|name| name == "*");
    for name in &script.variables {
        let known = env.scope.lookup(name).is_some() || env.declared.contains(name);
        if known || sources || script.assigned.contains(name) {
            continue;
        }
        if let Some(hint) = reporter.why_undefined(env, name) {
            let message = format!("RUN uses ${name}, which is empty in this stage");
            let span = reporter.find(instruction, name);
            reporter.report_at(&ARG_NOT_IN_STAGE, place, span, message, Some(hint));
        }
    }
}

fn state_lost(
    reporter: &mut Reporter<'_>,
    place: &Place,
    instruction: &Instruction,
    script: &Script,
) {
    let (what, hint) = match script.commands.last() {
        None if !script.assigned.is_empty() => ("the variable", "use ENV"),
        Some(last) if script.ends_plainly => match last.program() {
            "cd" | "pushd" => ("the directory", "use WORKDIR"),
            "export" => ("the variable", "use ENV"),
            "." | "source" => ("what it sets", "use ENV, or do both in one RUN"),
            "alias" => ("the alias", "make it a script in the image"),
            "umask" | "ulimit" => ("the limit", "do both in one RUN"),
            _ => return,
        },
        _ => return,
    };
    let span = match script.commands.last() {
        Some(last) => reporter.find(instruction, last.program()),
        None => instruction.span,
    };
    let message = format!("{what} is gone when this RUN ends");
    reporter.report_at(
        &SHELL_STATE_LOST,
        place,
        span,
        message,
        Some(hint.to_owned()),
    );
}

/// What a script does with apt.
#[derive(Default)]
struct Apt {
    updates: bool,
    installs: bool,
    cleans: bool,
}

impl Apt {
    fn of(script: &Script, run: &Run) -> Apt {
        let mut apt = Apt::default();
        for command in &script.commands {
            match command.program() {
                "apt-get" | "apt" | "aptitude" => {
                    apt.updates |= command.has("update");
                    let others = [
                        "install",
                        "upgrade",
                        "dist-upgrade",
                        "full-upgrade",
                        "build-dep",
                    ];
                    apt.installs |= others.iter().any(|other| command.has(other));
                }
                "rm" => {
                    let lists = |text: &str| text.contains("/var/lib/apt");
                    apt.cleans |= command.arguments().iter().any(|word| lists(&word.text));
                }
                _ => {}
            }
        }
        // Lists in a mount are in no layer, and are kept from step to step.
        let lookup = |_: &str| None;
        apt.cleans |= run.mounts.iter().any(|mount| {
            mount
                .expand(&lookup, '\\')
                .is_ok_and(|spec| spec.target.is_some_and(|t| t.starts_with("/var/lib/apt")))
        });
        apt
    }
}

fn stale_lists(
    reporter: &mut Reporter<'_>,
    env: &mut Environment,
    place: &Place,
    script: &Script,
    run: &Run,
) {
    let apt = Apt::of(script, run);
    if apt.updates {
        env.stale = (!apt.installs && !apt.cleans).then_some(place.span);
    } else if apt.installs
        && let Some(span) = env.stale.take()
    {
        let message =
            "apt-get update stands in a step of its own, and is cached without the install";
        let hint = "write RUN apt-get update && apt-get install …".to_owned();
        reporter.report_at(&PACKAGE_LISTS_STALE, place, span, message, Some(hint));
    }
}

/// Reports lists of apt that stay in layers of the image.
pub(super) fn lists_left(reporter: &mut Reporter<'_>, stages: &[usize]) {
    for index in stages {
        for instruction in &reporter.subject.file.stages[*index].instructions {
            let InstructionKind::Run(run) = &instruction.kind else {
                continue;
            };
            let Some(text) = script_of(run, None) else {
                continue;
            };
            let apt = Apt::of(&Script::parse(&text), run);
            if apt.updates && apt.installs && !apt.cleans {
                let place = reporter.place(instruction.span);
                let message = "the lists of apt stay in the image";
                let hint = "end the step with && rm -rf /var/lib/apt/lists/*".to_owned();
                reporter.report_at(&PACKAGE_LISTS_LEFT, &place, place.span, message, Some(hint));
            }
        }
    }
}

fn ignored_errors(
    reporter: &mut Reporter<'_>,
    env: &Environment,
    place: &Place,
    script: &Script,
    text: &str,
) {
    let is_errexit =
        |word: &str| word.starts_with('-') && !word.starts_with("--") && word.contains('e');
    let by_shell = env.shell.iter().flatten().any(|word| is_errexit(word));
    let first = text.lines().next().unwrap_or_default();
    let by_first_line = first.starts_with("#!") && first.split(' ').any(is_errexit);
    let by_set = script
        .commands
        .iter()
        .any(|c| c.program() == "set" && (c.has_option('e', "-e") || c.has("errexit")));
    if script.commands.len() > 1 && !by_shell && !by_first_line && !by_set {
        let message = "an error within this script does not end the step";
        let hint = "begin it with set -e".to_owned();
        reporter.report_at(
            &HEREDOC_IGNORES_ERRORS,
            place,
            place.span,
            message,
            Some(hint),
        );
    }
}

fn sudo(
    reporter: &mut Reporter<'_>,
    env: &Environment,
    place: &Place,
    instruction: &Instruction,
    command: &SimpleCommand,
) {
    let user = env
        .user
        .as_deref()
        .map(|user| user.split(':').next().unwrap_or_default());
    let as_other = command
        .arguments()
        .first()
        .is_none_or(|word| word.text.starts_with('-'));
    if matches!(user, Some("" | "root" | "0")) && !as_other {
        let span = reporter.find(instruction, "sudo");
        let message = "RUN is root already: sudo does nothing";
        let hint = "remove it".to_owned();
        reporter.report_at(&SUDO_AS_ROOT, place, span, message, Some(hint));
    }
}

fn lastlog(
    reporter: &mut Reporter<'_>,
    place: &Place,
    instruction: &Instruction,
    command: &SimpleCommand,
) {
    if command.has_option('l', "--no-log-init") {
        return;
    }
    let mut uid = None;
    let mut arguments = command.arguments().iter();
    while let Some(word) = arguments.next() {
        let text = word.text.as_str();
        if matches!(text, "-u" | "--uid") || (is_letters(text) && text.ends_with('u')) {
            uid = arguments.next().map(|word| word.text.as_str());
        } else if let Some(value) = text.strip_prefix("--uid=").or(text.strip_prefix("-u")) {
            uid = Some(value);
        }
    }
    if let Some(uid) = uid.and_then(|uid| uid.parse::<u64>().ok())
        && uid > HARMLESS_UID
    {
        let span = reporter.find(instruction, "useradd");
        let size = gibibytes(uid);
        let message = format!("useradd of uid {uid} makes a /var/log/lastlog of {size} GiB");
        let hint = "write useradd --no-log-init".to_owned();
        reporter.report_at(&USERADD_FILLS_LASTLOG, place, span, message, Some(hint));
    }
}

fn is_letters(text: &str) -> bool {
    text.len() > 1 && text.starts_with('-') && text[1..].chars().all(|c| c.is_ascii_alphabetic())
}

/// Returns the size of a lastlog that reaches up to a uid.
fn gibibytes(uid: u64) -> String {
    let size = uid.saturating_mul(292) as f64 / f64::from(1 << 30);
    format!("{size:.1}")
}

fn ownership(
    reporter: &mut Reporter<'_>,
    env: &Environment,
    place: &Place,
    instruction: &Instruction,
    command: &SimpleCommand,
    moved: bool,
) {
    if !command.has_option('R', "--recursive") {
        return;
    }
    let program = command.program().to_owned();
    let mut words = command.arguments().iter();
    // A mode may begin with a dash too, but hardly ever does.
    let mut words = words.by_ref().filter(|word| !word.text.starts_with('-'));
    let Some(value) = words.next() else {
        return;
    };
    for word in words {
        if word.expands || (moved && !word.text.starts_with('/')) {
            continue;
        }
        let path = join_path(&env.cwd, &word.text);
        if !env
            .copied
            .iter()
            .any(|copied| copied.many && copied.is_within(&path))
        {
            continue;
        }
        let span = reporter.find(instruction, &program);
        let message = format!("{program} -R {path} stores files again that COPY brought");
        let flag = if program == "chmod" {
            "--chmod"
        } else {
            "--chown"
        };
        let value = match program.as_str() {
            "chgrp" => format!(":{}", value.text),
            _ => value.text.clone(),
        };
        let hint = format!("write COPY {flag}={value}");
        reporter.report_at(&OWNERSHIP_DOUBLES_LAYER, place, span, message, Some(hint));
        return;
    }
}

impl Copied {
    /// Tells whether it is a path, or below it.
    fn is_within(&self, path: &str) -> bool {
        let rest = self.path.strip_prefix(path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}
