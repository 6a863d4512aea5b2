//! `--change` of `kiln import`: instructions that touch the config alone.

use std::collections::BTreeMap;

use super::{ArchiveError, Result};
use crate::dockerfile::{
    Diagnostic, InstructionKind, Scope, Source, Span, apply_metadata, join_path, parse,
};
use crate::image::ImageConfig;

/// Applies one instruction of a Dockerfile to a config.
///
/// # Errors
/// It does not parse, or is one that makes files.
pub fn apply_change(image: &mut ImageConfig, change: &str) -> Result<()> {
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
    let mut scope = Scope::new(&none, &none, &image.config.env, file.escape);
    if let InstructionKind::Workdir(word) = &instruction.kind {
        // Here it makes no directory.
        let path = scope
            .expand(word)
            .map_err(|error| failed(error.at(Span::default())))?;
        image.config.working_dir = join_path(&image.config.working_dir, &path);
        return Ok(());
    }
    // Each change stands for itself: ENTRYPOINT leaves a CMD alone.
    match apply_metadata(image, &mut scope, instruction, &mut true) {
        Ok(_) => Ok(()),
        Err(error) => {
            let hint = error.hint();
            Err(failed(
                Diagnostic::new(Span::default(), error.to_string()).maybe_hinted(hint),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_build_on_each_other() {
        let mut image = ImageConfig::default();
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
            apply_change(&mut image, change).unwrap();
        }
        let config = image.config;
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
            let error = apply_change(&mut ImageConfig::default(), bad).unwrap_err();
            assert!(matches!(error, ArchiveError::Change { .. }), "{bad}");
        }
    }
}
