//! Instructions that change the config of an image and none of its files, as a build carries
//! them out, and as `--change` of other commands takes them.

use serde_json::{Map, Value};

use super::expand::ExpandError;
use super::instruction::{Command, Instruction, InstructionKind};
use super::ports::{PortError, SignalError, parse_ports, parse_signal};
use super::{Scope, Word};
use crate::image::{ImageConfig, RunConfig};

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
            MetadataError::Blank(..) | MetadataError::MakesFiles(_) => None,
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

/// Returns a list as Go's %q prints it, which is how docker's history shows commands.
fn quoted(list: &[String]) -> String {
    let words: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
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

/// Carries an instruction out that changes only the config, and returns its line of history.
/// `cmd_is_own` says whether CMD was set since the base: ENTRYPOINT clears an inherited one.
///
/// # Errors
/// See [`MetadataError`].
pub fn apply_metadata(
    image: &mut ImageConfig,
    scope: &mut Scope,
    instruction: &Instruction,
    cmd_is_own: &mut bool,
) -> Result<String, MetadataError> {
    let empty = || Value::Object(Map::new());
    let config = &mut image.config;
    Ok(match &instruction.kind {
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
            instruction.raw.clone()
        }
        InstructionKind::Expose(words) => {
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
            let user = not_blank(scope, word, "USER", "a name or a number")?;
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
            format!("ONBUILD {}", trigger.raw)
        }
        other @ (InstructionKind::Add(_)
        | InstructionKind::Copy(_)
        | InstructionKind::From(_)
        | InstructionKind::Run(_)
        | InstructionKind::Workdir(_)) => return Err(MetadataError::MakesFiles(other.name())),
    })
}

#[cfg(test)]
mod tests {
    use super::join_path;

    #[test]
    fn relative_paths_join_and_nothing_leaves_the_root() {
        assert_eq!(join_path("/a", "b"), "/a/b");
        assert_eq!(join_path("/a", "/b/"), "/b");
        assert_eq!(join_path("", "b"), "/b");
        assert_eq!(join_path("/a", "../../../c/./d"), "/c/d");
        assert_eq!(join_path("/", "."), "/");
    }
}
