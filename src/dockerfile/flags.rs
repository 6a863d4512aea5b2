//! The `--name=value` words between an instruction's name and its arguments.

use std::collections::BTreeSet;

use super::lexer::Slice;
use super::suggest::did_you_mean;
use super::{Diagnostic, Span, Word};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// `--name`, `--name=true`, `--name=false`.
    Bool,
    /// `--name=value`, once.
    Text,
    /// `--name=value`, repeatable.
    Texts,
}

#[derive(Debug)]
struct Flag {
    name: String,
    value: Option<Word>,
    span: Span,
}

/// The flags of one instruction.
#[derive(Debug, Default)]
pub(super) struct Flags(Vec<Flag>);

impl Flags {
    /// Splits the flags off an instruction's arguments. Quotes are removed and escapes are
    /// resolved; `--` ends the flags.
    pub(super) fn split(arguments: Slice<'_>, escape: char) -> (Flags, Slice<'_>) {
        let mut flags = Flags::default();
        let mut rest = arguments.trim();
        while rest.text().starts_with("--") {
            let (text, value_at, length) = unquote(rest.text(), escape);
            let word = rest.part(0, length);
            rest = rest.from(length).trim();
            if text == "--" {
                break;
            }
            let (name, value) = match text[2..].split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&text[2..], None),
            };
            flags.0.push(Flag {
                name: name.to_owned(),
                value: value.map(|value| Word {
                    text: value.to_owned(),
                    span: word.from(value_at.unwrap_or(0)).span(),
                }),
                span: word.span(),
            });
        }
        (flags, rest)
    }

    /// Reports flags that the instruction doesn't know, duplicates, and values of the wrong
    /// kind.
    pub(super) fn check(&self, instruction: &str, known: &[(&str, Kind)]) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        let mut seen = BTreeSet::new();
        for flag in &self.0 {
            let name = &flag.name;
            let shown: String = name.chars().take(60).collect();
            let Some((_, kind)) = known.iter().find(|(known, _)| known == name) else {
                let hint = match did_you_mean(name, known.iter().map(|(name, _)| *name)) {
                    Some(hint) => Some(hint.replace("mean ", "mean --")),
                    None if known.is_empty() => Some(format!(
                        "{instruction} has no flags; write -- before an argument that starts with --"
                    )),
                    None => None,
                };
                let message = format!("unknown flag for {instruction}: --{shown}");
                errors.push(Diagnostic::new(flag.span, message).maybe_hinted(hint));
                continue;
            };
            let seen = !seen.insert(name);
            let value = flag.value.as_ref().map(|v| v.text.to_ascii_lowercase());
            let message = match (kind, value.as_deref()) {
                (Kind::Bool | Kind::Text, _) if seen => format!("--{name} is given twice"),
                (Kind::Bool, None | Some("true" | "false")) => continue,
                (Kind::Bool, Some(_)) => format!("--{name} takes true or false"),
                (Kind::Text | Kind::Texts, None) => format!("--{name} needs a value: --{name}=…"),
                (Kind::Text | Kind::Texts, Some(_)) => continue,
            };
            errors.push(Diagnostic::new(flag.span, message));
        }
        errors
    }

    /// Returns the value of a flag; an empty one counts as none.
    pub(super) fn text(&self, name: &str) -> Option<Word> {
        self.texts(name).pop().filter(|word| !word.text.is_empty())
    }

    /// Returns all values of a repeatable flag.
    pub(super) fn texts(&self, name: &str) -> Vec<Word> {
        self.0
            .iter()
            .filter(|flag| flag.name == name)
            .filter_map(|flag| flag.value.clone())
            .collect()
    }

    /// Returns what a switch says, nothing if it isn't there.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.0.iter().find(|flag| flag.name == name)?;
        Some(match &flag.value {
            None => true,
            Some(word) => word.text.eq_ignore_ascii_case("true"),
        })
    }
}

/// Reads one word: its text without quotes and escapes, where in the source its value
/// starts (behind the first `=`), and its length in the source.
fn unquote(text: &str, escape: char) -> (String, Option<usize>, usize) {
    let mut out = String::new();
    let mut value_at = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (out, value_at, at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (_, c) if c == escape => out.extend(chars.next().map(|(_, c)| c)),
            (_, c) => {
                if c == '=' && value_at.is_none() {
                    value_at = Some(at + 1);
                }
                out.push(c);
            }
        }
    }
    (out, value_at, text.len())
}

#[cfg(test)]
mod tests {
    use super::super::{Source, lexer::Lexer};
    use super::*;

    fn with<T>(text: &str, check: impl FnOnce(Flags, Slice<'_>) -> T) -> T {
        let source = Source::new("Dockerfile", text);
        let (mut lexer, ..) = Lexer::new(&source);
        let line = lexer.logical().unwrap();
        let (_, arguments) = line.slice().split_first();
        let (flags, rest) = Flags::split(arguments, '\\');
        check(flags, rest)
    }

    const KNOWN: &[(&str, Kind)] = &[
        ("link", Kind::Bool),
        ("chown", Kind::Text),
        ("exclude", Kind::Texts),
    ];

    /// SEMANTICS 5
    #[test]
    fn flags_end_at_the_first_other_word_or_at_two_dashes() {
        let cases: [(&str, usize, &str); 6] = [
            ("COPY --link a b", 1, "a b"),
            ("COPY a --link b", 0, "a --link b"),
            ("COPY -- --link b", 0, "--link b"),
            ("COPY --link -- --b c", 1, "--b c"),
            ("COPY --link", 1, ""),
            ("COPY -x a", 0, "-x a"),
        ];
        for (text, count, expected) in cases {
            with(text, |flags, rest| {
                assert_eq!((flags.0.len(), rest.text()), (count, expected), "{text}");
            });
        }
    }

    /// SEMANTICS 5
    #[test]
    fn quotes_and_escapes_are_honoured() {
        for (text, expected) in [
            ("COPY --chown=\"a b\" x y", "a b"),
            ("COPY --chown=a\\ b x y", "a b"),
            ("COPY \"--chown\"=x y", ""),
            ("COPY --ch'own=a  b' x y", "a  b"),
            ("COPY --chown=é x y", "é"),
            ("COPY --chown= x y", ""),
        ] {
            with(text, |flags, _| {
                let value = flags.text("chown").map(|w| w.text).unwrap_or_default();
                assert_eq!(value, expected, "{text}");
                assert_eq!(flags.check("COPY", KNOWN), []);
            });
        }
    }

    #[test]
    fn a_value_knows_its_place() {
        let text = "COPY --chown=abc x y";
        with(text, |flags, _| {
            let span = flags.text("chown").unwrap().span;
            assert_eq!(&text[span.start..span.end], "abc");
        });
    }

    /// SEMANTICS 5
    #[test]
    fn wrong_flags_are_reported_together() {
        let text = "COPY --lnik --chown --link=maybe --link --chown=a --exclude=a --exclude=b x y";
        with(text, |flags, _| {
            let errors = flags.check("COPY", KNOWN);
            let messages: Vec<&str> = errors.iter().map(|e| e.message.as_str()).collect();
            assert_eq!(
                messages,
                [
                    "unknown flag for COPY: --lnik",
                    "--chown needs a value: --chown=…",
                    "--link takes true or false",
                    "--link is given twice",
                    "--chown is given twice",
                ]
            );
            assert_eq!(errors[0].hint.as_deref(), Some("did you mean --link?"));
            assert_eq!(flags.texts("exclude").len(), 2);
        });
        with("USER --x root", |flags, _| {
            let errors = flags.check("USER", &[]);
            assert!(errors[0].hint.as_ref().unwrap().contains("no flags"));
        });
    }
}
