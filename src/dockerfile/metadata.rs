//! Instructions that change the config of an image and none of its files, as a build carries
//! them out, and as `--change` of other commands takes them.

use serde_json::{Map, Value};

use super::expand::ExpandError;
use super::instruction::{Command, Instruction, InstructionKind};
use super::ports::{PortError, SignalError, parse_ports, parse_signal};
use super::{Scope, Word};
use crate::image::{Healthcheck, ImageConfig, RunConfig};

/// Why an instruction can't change a config.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetadataError {
    /// A word does not expand.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// EXPOSE of what is no port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// STOPSIGNAL of what is no signal.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// A word that must say something expands to nothing.
    #[error("{0} needs {1}: it expands to nothing")]
    Blank(&'static str, &'static str),
    /// The instruction makes files.
    #[error("{0} does not change the config alone")]
    MakesFiles(&'static str),
}

impl MetadataError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            MetadataError::Expand(error) => error.hint(),
            MetadataError::Port(error) => error.hint(),
            MetadataError::Signal(error) => error.hint(),
            MetadataError::Blank(..) => None,
            MetadataError::MakesFiles(_) => Some(
                "what does is CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, \
                 STOPSIGNAL, USER, VOLUME and WORKDIR"
                    .to_owned(),
            ),
        }
    }
}

/// Joins a path to a directory, and drops `.` and `..`: the result is absolute.
pub fn join_path(directory: &str, path: &str) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{directory}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns a list as Go's `%q` prints it, which is how docker's history shows commands.
fn quoted(list: &[String]) -> String {
    let words: Vec<String> = list.iter().map(|word| go_quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

/// Returns a text in quotes as Go's `strconv.Quote` writes it.
fn go_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            // Rust escapes what can't be printed, and combining characters, which can.
            c if c != '\'' && c.escape_debug().len() > 1 && !c.is_alphanumeric() => {
                match u32::from(c) {
                    code @ ..=0xffff => out.push_str(&format!("\\u{code:04x}")),
                    code => out.push_str(&format!("\\U{code:08x}")),
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Returns a duration of nanoseconds as Go prints it: `1m30s`, `1.5ms`.
fn go_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let decimal = |whole: u64, rest: u64, digits: usize, unit: &str| {
        let fraction = format!("{rest:0digits$}");
        match fraction.trim_end_matches('0') {
            "" => format!("{whole}{unit}"),
            fraction => format!("{whole}.{fraction}{unit}"),
        }
    };
    let text = match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{all}ns"),
        1_000..1_000_000 => decimal(all / 1_000, all % 1_000, 3, "µs"),
        1_000_000..1_000_000_000 => decimal(all / 1_000_000, all % 1_000_000, 6, "ms"),
        _ => {
            let seconds = all / 1_000_000_000;
            let last = decimal(seconds % 60, all % 1_000_000_000, 9, "s");
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => last,
                (0, minutes) => format!("{minutes}m{last}"),
                (hours, minutes) => format!("{hours}h{minutes}m{last}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// Returns a health check in the words of docker's history.
fn health_history(check: &Healthcheck) -> String {
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        go_duration(check.interval),
        go_duration(check.timeout),
        go_duration(check.start_period),
        go_duration(check.start_interval),
        check.retries,
    )
}

fn pairs(name: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(name.to_owned(), |line, (key, value)| {
        format!("{line} {key}={value}")
    })
}

/// Returns a command line in its exec form: a shell form goes through the image's shell.
fn command_line(config: &RunConfig, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(args) => args.clone(),
        Command::Shell(text) => {
            let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut args = config.shell.clone().unwrap_or_else(default);
            args.push(text.clone());
            args
        }
    }
}

fn not_blank(
    scope: &Scope,
    word: &Word,
    name: &'static str,
    what: &'static str,
) -> Result<String, MetadataError> {
    let text = scope.expand(word)?;
    if text.trim().is_empty() {
        return Err(MetadataError::Blank(name, what));
    }
    Ok(text)
}

/// Carries an instruction out that changes only the config, and returns its line of history;
/// nothing for ONBUILD, which is told of where its trigger runs. `cmd_is_own` says whether CMD was set since the base: ENTRYPOINT clears an inherited one.
///
/// # Errors
/// See [`MetadataError`].
pub fn apply_metadata(
    image: &mut ImageConfig,
    scope: &mut Scope,
    instruction: &Instruction,
    cmd_is_own: &mut bool,
) -> Result<Option<String>, MetadataError> {
    let empty = || Value::Object(Map::new());
    let config = &mut image.config;
    Ok(Some(match &instruction.kind {
        InstructionKind::Arg(items) => {
            let mut line = "ARG".to_owned();
            for item in items {
                line.push(' ');
                line.push_str(&item.name);
                if let Some(value) = scope.declare_arg(item)? {
                    line.push('=');
                    line.push_str(&value);
                }
            }
            line
        }
        InstructionKind::Env(items) => {
            let expanded = scope.expand_pairs(items)?;
            for (name, value) in &expanded {
                scope.set_env(name, value);
                config.set_env(name, value);
            }
            pairs("ENV", &expanded)
        }
        InstructionKind::Label(items) => {
            let expanded = scope.expand_pairs(items)?;
            let line = pairs("LABEL", &expanded);
            config.labels.extend(expanded);
            line
        }
        InstructionKind::Cmd(command) => {
            let args = command_line(config, command);
            let line = format!("CMD {}", quoted(&args));
            config.cmd = Some(args);
            *cmd_is_own = true;
            line
        }
        InstructionKind::Entrypoint(command) => {
            let args = command_line(config, command);
            let line = format!("ENTRYPOINT {}", quoted(&args));
            config.entrypoint = (!args.is_empty()).then_some(args);
            if !*cmd_is_own {
                config.cmd = None;
            }
            line
        }
        InstructionKind::Shell(shell) => {
            config.shell = Some(shell.clone());
            format!("SHELL [{}]", shell.join(" "))
        }
        InstructionKind::Healthcheck(check) => {
            config.healthcheck = Some(check.clone());
            health_history(check)
        }
        InstructionKind::Expose(words) => {
            // The reference sorts them as they are written, which shows in the history.
            let mut words: Vec<&Word> = words.iter().collect();
            words.sort_by(|a, b| a.text.cmp(&b.text));
            let mut expanded = Vec::new();
            for word in words {
                expanded.extend(scope.expand_words(word)?);
            }
            let ports = parse_ports(&expanded)?;
            let line = format!("EXPOSE [{}]", ports.join(" "));
            let ports = ports.into_iter().map(|port| (port, empty()));
            config.exposed_ports.extend(ports);
            line
        }
        InstructionKind::Volume(words) => {
            let mut volumes = Vec::new();
            for word in words {
                volumes.push(not_blank(scope, word, "VOLUME", "a directory")?);
            }
            let line = format!("VOLUME [{}]", volumes.join(" "));
            let volumes = volumes.into_iter().map(|volume| (volume, empty()));
            config.volumes.extend(volumes);
            line
        }
        InstructionKind::User(word) => {
            // One that expands to nothing is root, as in the reference.
            let user = scope.expand(word)?;
            config.user.clone_from(&user);
            format!("USER {user}")
        }
        InstructionKind::StopSignal(word) => {
            let signal = scope.expand(word)?;
            parse_signal(&signal)?;
            config.stop_signal.clone_from(&signal);
            format!("STOPSIGNAL {signal}")
        }
        InstructionKind::Maintainer(author) => {
            image.author = Some(author.clone());
            format!("MAINTAINER {author}")
        }
        InstructionKind::OnBuild(trigger) => {
            config.on_build.push(trigger.raw.clone());
            return Ok(None);
        }
        other @ (InstructionKind::Add(_)
        | InstructionKind::Copy(_)
        | InstructionKind::From(_)
        | InstructionKind::Run(_)
        | InstructionKind::Workdir(_)) => return Err(MetadataError::MakesFiles(other.name())),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Source, parse};
    use super::*;

    /// Carries all instructions of a stage out, and returns the lines of history.
    fn history(text: &str) -> Vec<String> {
        let file = parse(&Source::new("Dockerfile", format!("FROM scratch\n{text}"))).unwrap();
        let none = BTreeMap::new();
        let mut scope = Scope::new(&none, &none, &[], file.escape);
        let mut image = ImageConfig::default();
        let instructions = file.stages[0].instructions.iter();
        instructions
            .filter_map(|i| apply_metadata(&mut image, &mut scope, i, &mut false).unwrap())
            .collect()
    }

    /// SEMANTICS 59
    #[test]
    fn history_is_in_the_words_of_docker() {
        let cases: [(&str, &[&str]); 14] = [
            ("ARG A=1 B C=$A", &["ARG A=1 B C=1"]),
            ("ENV A=1 B=\"x y\"", &["ENV A=1 B=x y"]),
            ("ENV A the rest", &["ENV A=the rest"]),
            ("LABEL \"a b\"=c", &["LABEL a b=c"]),
            (
                "CMD echo \"a\"",
                &["CMD [\"/bin/sh\" \"-c\" \"echo \\\"a\\\"\"]"],
            ),
            (
                "CMD [\"\\u001b\", \"it's\", \"é\\u200b\"]",
                &["CMD [\"\\x1b\" \"it's\" \"é\\u200b\"]"],
            ),
            ("ENTRYPOINT []", &["ENTRYPOINT []"]),
            ("SHELL [\"/bin/bash\", \"-c\"]", &["SHELL [/bin/bash -c]"]),
            (
                "EXPOSE 80 443/UDP 100-101",
                &["EXPOSE [100/tcp 101/tcp 443/udp 80/tcp]"],
            ),
            ("VOLUME /a [b]", &["VOLUME [/a [b]]"]),
            ("USER $NONE", &["USER "]),
            (
                "HEALTHCHECK --interval=90s --timeout=1500us CMD a b",
                &[
                    "HEALTHCHECK {Test:[CMD-SHELL a b] Interval:1m30s Timeout:1.5ms StartPeriod:0s StartInterval:0s Retries:0}",
                ],
            ),
            (
                "HEALTHCHECK NONE",
                &[
                    "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
                ],
            ),
            ("ONBUILD RUN true", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(history(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_printed_as_in_go() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
        ];
        for (nanoseconds, expected) in cases {
            assert_eq!(go_duration(nanoseconds), expected);
        }
    }

    #[test]
    fn relative_paths_join_and_nothing_leaves_the_root() {
        assert_eq!(join_path("/a", "b"), "/a/b");
        assert_eq!(join_path("/a", "/b/"), "/b");
        assert_eq!(join_path("", "b"), "/b");
        assert_eq!(join_path("/a", "../../../c/./d"), "/c/d");
        assert_eq!(join_path("/", "."), "/");
    }
}
