//! Instructions that change the config and no file.

use super::Build;
use super::error::{Step, Trouble};
use super::stage::State;
use crate::dockerfile::{Command, Instruction, InstructionKind, parse_ports, parse_signal};

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

/// Returns a command line in its exec form: a shell form goes through the stage's shell.
fn command_line(state: &State, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(args) => args.clone(),
        Command::Shell(text) => {
            let shell = state.config.config.shell.clone();
            let mut args = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            args.push(text.clone());
            args
        }
    }
}

impl Build<'_> {
    /// Carries an instruction out that changes only the config, and returns its line of
    /// history.
    pub(super) fn metadata(&self, state: &mut State, instruction: &Instruction) -> Step<String> {
        let empty = || serde_json::Value::Object(serde_json::Map::new());
        match &instruction.kind {
            InstructionKind::Arg(items) => {
                let mut line = "ARG".to_owned();
                for item in items {
                    let value = state.scope.declare_arg(item)?;
                    line.push(' ');
                    line.push_str(&item.name);
                    if let Some(value) = value {
                        line.push('=');
                        line.push_str(&value);
                    }
                }
                Ok(line)
            }
            InstructionKind::Env(items) => {
                let expanded = state.scope.expand_pairs(items)?;
                for (name, value) in &expanded {
                    state.scope.set_env(name, value);
                    state.config.config.set_env(name, value);
                }
                Ok(pairs("ENV", &expanded))
            }
            InstructionKind::Label(items) => {
                let expanded = state.scope.expand_pairs(items)?;
                for (name, value) in &expanded {
                    let labels = &mut state.config.config.labels;
                    labels.insert(name.clone(), value.clone());
                }
                Ok(pairs("LABEL", &expanded))
            }
            InstructionKind::Cmd(command) => {
                let args = command_line(state, command);
                let line = format!("CMD {}", quoted(&args));
                state.config.config.cmd = Some(args);
                state.cmd_is_own = true;
                Ok(line)
            }
            InstructionKind::Entrypoint(command) => {
                let args = command_line(state, command);
                let line = format!("ENTRYPOINT {}", quoted(&args));
                state.config.config.entrypoint = (!args.is_empty()).then_some(args);
                if !state.cmd_is_own {
                    state.config.config.cmd = None;
                }
                Ok(line)
            }
            InstructionKind::Shell(shell) => {
                state.config.config.shell = Some(shell.clone());
                Ok(format!("SHELL [{}]", shell.join(" ")))
            }
            InstructionKind::Healthcheck(check) => {
                state.config.config.healthcheck = Some(check.clone());
                Ok(instruction.raw.clone())
            }
            InstructionKind::Expose(words) => {
                let mut expanded = Vec::new();
                for word in words {
                    expanded.extend(state.scope.expand_words(word)?);
                }
                let ports = parse_ports(&expanded)
                    .map_err(|error| with_hint(error.to_string(), error.hint()))?;
                let line = format!("EXPOSE [{}]", ports.join(" "));
                for port in ports {
                    state.config.config.exposed_ports.insert(port, empty());
                }
                Ok(line)
            }
            InstructionKind::Volume(words) => {
                let mut line = Vec::new();
                for word in words {
                    let volume = state.scope.expand(word)?;
                    if volume.trim().is_empty() {
                        return Err(Trouble::new("VOLUME: a directory must not be blank"));
                    }
                    line.push(volume.clone());
                    state.config.config.volumes.insert(volume, empty());
                }
                Ok(format!("VOLUME [{}]", line.join(" ")))
            }
            InstructionKind::User(word) => {
                let user = state.scope.expand(word)?;
                if user.trim().is_empty() {
                    return Err(Trouble::new(
                        "USER needs a name or a number: it expands to nothing",
                    ));
                }
                state.config.config.user = user.clone();
                Ok(format!("USER {user}"))
            }
            InstructionKind::StopSignal(word) => {
                let signal = state.scope.expand(word)?;
                parse_signal(&signal)
                    .map_err(|error| with_hint(error.to_string(), error.hint()))?;
                state.config.config.stop_signal = signal.clone();
                Ok(format!("STOPSIGNAL {signal}"))
            }
            InstructionKind::Maintainer(author) => {
                state.config.author = Some(author.clone());
                Ok(format!("MAINTAINER {author}"))
            }
            InstructionKind::OnBuild(trigger) => {
                state.config.config.on_build.push(trigger.raw.clone());
                Ok(format!("ONBUILD {}", trigger.raw))
            }
            InstructionKind::Add(_)
            | InstructionKind::Copy(_)
            | InstructionKind::From(_)
            | InstructionKind::Run(_)
            | InstructionKind::Workdir(_) => Err(Trouble::new("this instruction touches files")),
        }
    }
}

fn with_hint(text: String, hint: Option<String>) -> Trouble {
    Trouble::Message { text, hint }
}
