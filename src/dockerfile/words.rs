//! The words of an instruction that a build expands, and whether they can be expanded at all:
//! a broken `${` is found before anything is built.

use std::collections::BTreeMap;

use super::expand::{ExpandError, Word, expand_heredoc};
use super::instruction::{Files, Instruction, InstructionKind, SourceArg};
use super::{Diagnostic, Span};

/// Returns what is wrong with the words of an instruction whatever the variables hold. Defaults
/// of ARGs that have a build argument are not looked at: they are never expanded.
pub(super) fn check(
    instruction: &Instruction,
    escape: char,
    given: &BTreeMap<String, String>,
) -> Vec<Diagnostic> {
    // Set and not empty, so that `${x:?}` holds; a star, so that it may stand behind an escape.
    let any = |_: &str| Some("*".to_owned());
    let is_copy = files(&instruction.kind).is_some();
    let takes_array = is_copy || matches!(instruction.kind, InstructionKind::Volume(_));
    let mut found: Vec<Diagnostic> = Vec::new();
    for word in words(&instruction.kind, given) {
        match word.expand(&any, escape) {
            // Blanks end a path even within quotes: each half lacks a quote, and one is said.
            Err(error @ ExpandError::UnclosedQuote(_)) if takes_array => {
                let name = instruction.kind.name();
                let hint = format!(
                    "quotes don't hold a path with blanks together, an array does: \
                     {name} [\"a b\", \"c\"]"
                );
                found.push(error.at(word.span).hinted(hint));
                break;
            }
            expanded => found.extend(finding(expanded, word.span)),
        }
    }
    if is_copy {
        let documents = files(&instruction.kind)
            .into_iter()
            .flat_map(|f| &f.sources);
        found.extend(documents.filter_map(|source| match source {
            SourceArg::Heredoc(document) if document.expands => {
                finding(expand_heredoc(&document.body, &any), document.span)
            }
            _ => None,
        }));
    }
    found
}

fn finding(expanded: Result<String, ExpandError>, span: Span) -> Option<Diagnostic> {
    expanded.err().map(|error| error.at(span))
}

fn files(kind: &InstructionKind) -> Option<&Files> {
    match kind {
        InstructionKind::Copy(copy) => Some(&copy.files),
        InstructionKind::Add(add) => Some(&add.files),
        _ => None,
    }
}

/// Returns the words that are expanded when the build comes to an instruction.
fn words<'i>(kind: &'i InstructionKind, given: &BTreeMap<String, String>) -> Vec<&'i Word> {
    match kind {
        InstructionKind::Arg(items) => {
            let used = items.iter().filter(|item| !given.contains_key(&item.name));
            used.filter_map(|item| item.default.as_ref()).collect()
        }
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            pairs.iter().flat_map(|p| [&p.name, &p.value]).collect()
        }
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => words.iter().collect(),
        InstructionKind::StopSignal(word)
        | InstructionKind::User(word)
        | InstructionKind::Workdir(word) => vec![word],
        InstructionKind::Run(run) => run.mounts.iter().flat_map(|m| m.words()).collect(),
        InstructionKind::Copy(_) | InstructionKind::Add(_) => {
            let checksum = match kind {
                InstructionKind::Add(add) => add.checksum.as_ref(),
                _ => None,
            };
            let in_files = files(kind).into_iter().flat_map(|files| {
                let paths = files.sources.iter().filter_map(|source| match source {
                    SourceArg::Path(word) => Some(word),
                    SourceArg::Heredoc(_) => None,
                });
                paths
                    .chain([&files.destination])
                    .chain(&files.chown)
                    .chain(&files.chmod)
            });
            in_files.chain(checksum).collect()
        }
        // FROM sees other variables; the text of the rest is not the builder's.
        InstructionKind::From(_)
        | InstructionKind::Cmd(_)
        | InstructionKind::Entrypoint(_)
        | InstructionKind::Healthcheck(_)
        | InstructionKind::Maintainer(_)
        | InstructionKind::OnBuild(_)
        | InstructionKind::Shell(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, parse};
    use super::*;

    fn broken(text: &str, given: &[(&str, &str)]) -> Vec<String> {
        let file = parse(&Source::new("Dockerfile", format!("FROM x\n{text}"))).unwrap();
        let given = given.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let given = given.collect();
        let instructions = file.stages[0].instructions.iter();
        instructions
            .flat_map(|i| check(i, file.escape, &given))
            .map(|finding| finding.message)
            .collect()
    }

    /// SEMANTICS 20
    #[test]
    fn the_words_that_are_expanded_are_checked_and_no_others() {
        for text in [
            "ADD ${ /x",
            "ADD --checksum=${ a /x",
            "COPY a ${",
            "COPY --chown=${ a /x",
            "COPY --chmod=${ a /x",
            "COPY <<E /x\n${\nE",
            "ENV A=${",
            "ENV ${=a",
            "EXPOSE ${",
            "LABEL a=${",
            "STOPSIGNAL ${",
            "USER ${",
            "VOLUME ${",
            "WORKDIR ${",
            "ARG A=${",
            "RUN --mount=target=${ x",
        ] {
            assert_eq!(broken(text, &[]).len(), 1, "{text}");
        }
        for text in [
            "RUN ${",
            "CMD ${",
            "ENTRYPOINT ${",
            "HEALTHCHECK CMD ${",
            "SHELL [\"${\"]",
            "MAINTAINER ${",
            "ONBUILD ENV A=${",
            "COPY <<'E' /x\n${\nE",
            "RUN <<E\n${\nE",
            "ARG ${=1",
            "ENV A=\\${ B='${'",
        ] {
            assert_eq!(broken(text, &[]), [""; 0], "{text}");
        }
    }

    #[test]
    fn what_depends_on_values_is_left_to_the_build() {
        for text in [
            "ENV A=${B:?needed} C=${D?needed}",
            "ENV A=${B#$C} D=${E/$F/$G}",
            "ENV A=${B#'\\'$C}",
        ] {
            assert_eq!(broken(text, &[]), [""; 0], "{text}");
        }
        assert_eq!(
            broken("ENV A=${B#\\c}", &[]),
            ["invalid escape '\\c' in a pattern"]
        );
    }

    /// SEMANTICS 23
    #[test]
    fn a_default_that_is_overridden_is_not_looked_at() {
        assert_eq!(broken("ARG A=${", &[("A", "1")]), [""; 0]);
    }
}
