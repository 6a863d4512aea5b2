//! `--change` of `kiln import`: instructions that touch the config alone.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{ArchiveError, Result};
use crate::dockerfile::{
    Command, Diagnostic, InstructionKind, Scope, Source, Span, parse, parse_ports,
};
use crate::image::RunConfig;

/// Applies one instruction of a Dockerfile to a config.
///
/// # Errors
/// It does not parse, or is one that makes files.
pub(super) fn apply_change(config: &mut RunConfig, change: &str) -> Result<()> {
    let source = Source::new("--change", format!("FROM scratch\n{change}\n"));
    let failed = |found: Diagnostic| ArchiveError::change(change, &found.into());
    let file = parse(&source).map_err(|found| ArchiveError::change(change, &found))?;
    let [stage] = file.stages.as_slice() else {
        return Err(failed(Diagnostic::new(
            Span::default(),
            "FROM makes no sense here",
        )));
    };
    let [instruction] = stage.instructions.as_slice() else {
        return Err(failed(Diagnostic::new(
            Span::default(),
            "it is not one instruction",
        )));
    };
    let none = BTreeMap::new();
    let scope = Scope::new(&none, &none, &config.env, file.escape);
    apply(config, &scope, &instruction.kind)
        .map_err(|reason| failed(Diagnostic::new(Span::default(), reason)))
}

type Applied = std::result::Result<(), String>;

fn apply(config: &mut RunConfig, scope: &Scope, kind: &InstructionKind) -> Applied {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let empty = || Value::Object(Map::new());
    match kind {
        InstructionKind::Cmd(command) => config.cmd = Some(command_line(config, command)),
        InstructionKind::Entrypoint(command) => {
            let line = command_line(config, command);
            config.entrypoint = (!line.is_empty()).then_some(line);
        }
        InstructionKind::Env(pairs) => {
            for (name, value) in scope.expand_pairs(pairs).map_err(|e| text(&e))? {
                config.set_env(&name, &value);
            }
        }
        InstructionKind::Label(pairs) => {
            let pairs = scope.expand_pairs(pairs).map_err(|e| text(&e))?;
            config.labels.extend(pairs);
        }
        InstructionKind::Expose(words) => {
            for word in words {
                let words = scope.expand_words(word).map_err(|e| text(&e))?;
                let ports = parse_ports(&words).map_err(|e| text(&e))?;
                let ports = ports.into_iter().map(|port| (port, empty()));
                config.exposed_ports.extend(ports);
            }
        }
        InstructionKind::Volume(words) => {
            for word in words {
                let path = scope.expand(word).map_err(|e| text(&e))?;
                config.volumes.insert(path, empty());
            }
        }
        InstructionKind::User(word) => config.user = scope.expand(word).map_err(|e| text(&e))?,
        InstructionKind::Workdir(word) => {
            let path = scope.expand(word).map_err(|e| text(&e))?;
            let base = match path.starts_with('/') {
                true => "",
                false => config.working_dir.as_str(),
            };
            config.working_dir = clean(&format!("{base}/{path}"));
        }
        InstructionKind::StopSignal(word) => {
            let signal = scope.expand(word).map_err(|e| text(&e))?;
            crate::dockerfile::parse_signal(&signal).map_err(|e| text(&e))?;
            config.stop_signal = signal;
        }
        InstructionKind::Healthcheck(check) => config.healthcheck = Some(check.clone()),
        InstructionKind::Shell(shell) => config.shell = Some(shell.clone()),
        InstructionKind::OnBuild(trigger) => config.on_build.push(trigger.raw.clone()),
        other => return Err(format!("{} does not change the config", other.name())),
    }
    Ok(())
}

fn command_line(config: &RunConfig, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(arguments) => arguments.clone(),
        Command::Shell(text) => {
            let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut line = config.shell.clone().unwrap_or_else(default);
            line.push(text.clone());
            line
        }
    }
}

/// Returns an absolute path without `.`, `..` and needless slashes.
fn clean(path: &str) -> String {
    let mut stack: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(stack.pop()),
            part => stack.push(part),
        }
    }
    format!("/{}", stack.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_build_on_each_other() {
        let mut config = RunConfig::default();
        for change in [
            "ENV A=1 B=\"two words\"",
            "env C=$A-$B",
            "CMD echo hi",
            "ENTRYPOINT [\"/x\"]",
            "EXPOSE 80 90-91/udp",
            "LABEL k=v",
            "USER 1:2",
            "VOLUME /data",
            "WORKDIR /a",
            "WORKDIR b/../c",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
        ] {
            apply_change(&mut config, change).unwrap();
        }
        assert_eq!(config.env, ["A=1", "B=two words", "C=1-two words"]);
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(config.entrypoint.unwrap(), ["/x"]);
        let ports: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["80/tcp", "90/udp", "91/udp"]);
        assert_eq!(config.labels["k"], "v");
        assert_eq!(config.user, "1:2");
        assert!(config.volumes.contains_key("/data"));
        assert_eq!(config.working_dir, "/a/c");
        assert_eq!(config.on_build, ["RUN true"]);
    }

    #[test]
    fn what_makes_files_or_is_no_single_instruction_is_refused() {
        for bad in [
            "RUN true",
            "COPY a b",
            "FROM x",
            "",
            "CMD a\nCMD b",
            "CDM x",
        ] {
            let error = apply_change(&mut RunConfig::default(), bad).unwrap_err();
            assert!(matches!(error, ArchiveError::Change { .. }), "{bad}");
        }
    }
}
