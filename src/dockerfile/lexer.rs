//! From bytes to logical lines: directives, comments, continuations, heredoc bodies.
//! See <https://docs.docker.com/reference/dockerfile/#format>.

use super::suggest::did_you_mean;
use super::{Diagnostic, Source, Span};

/// Blanks that separate words (no line feed can stand within a logical line).
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

/// What the directives at the top of the file say.
#[derive(Debug, Default)]
pub(super) struct Directives {
    pub(super) escape: Option<char>,
    pub(super) syntax: Option<(String, Span)>,
    pub(super) check: Option<String>,
}

/// One instruction's text: continuation lines joined, comments between them dropped.
#[derive(Debug)]
pub(super) struct LogicalLine {
    pub(super) text: String,
    /// (offset in `text`, offset in the source) of each physical line that takes part.
    pieces: Vec<(usize, usize)>,
}

impl LogicalLine {
    /// Returns the whole line as a slice of itself, without blanks at its ends.
    pub(super) fn slice(&self) -> Slice<'_> {
        Slice {
            line: self,
            start: 0,
            end: self.text.len(),
        }
        .trim()
    }

    fn source_offset(&self, offset: usize) -> usize {
        let index = self.pieces.partition_point(|(at, _)| *at <= offset);
        let (at, source) = self.pieces[index.saturating_sub(1)];
        source + (offset - at)
    }
}

/// A part of a logical line that knows where it stands in the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice<'a> {
    line: &'a LogicalLine,
    start: usize,
    end: usize,
}

impl<'a> Slice<'a> {
    pub(super) fn text(self) -> &'a str {
        &self.line.text[self.start..self.end]
    }

    pub(super) fn span(self) -> Span {
        let start = self.line.source_offset(self.start);
        let end = match self.end > self.start {
            // The end of a piece must not become the start of the next one.
            true => self.line.source_offset(self.end - 1) + 1,
            false => start,
        };
        Span::new(start, end)
    }

    /// Returns the part from `start` up to `end`, counted within this slice.
    pub(super) fn part(self, start: usize, end: usize) -> Slice<'a> {
        Slice {
            line: self.line,
            start: self.start + start,
            end: self.start + end,
        }
    }

    /// Returns the part from `start` on.
    pub(super) fn from(self, start: usize) -> Slice<'a> {
        self.part(start, self.end - self.start)
    }

    /// Returns the slice without white space at its ends.
    pub(super) fn trim(self) -> Slice<'a> {
        let text = self.text();
        let start = text.len() - text.trim_start().len();
        self.part(start, start + text.trim().len())
    }

    /// Splits at the first run of blanks.
    pub(super) fn split_first(self) -> (Slice<'a>, Slice<'a>) {
        let text = self.text();
        let end = text.find(is_blank).unwrap_or(text.len());
        let rest = text[end..].trim_start_matches(is_blank);
        (self.part(0, end), self.from(text.len() - rest.len()))
    }

    /// Splits at every run of blanks; quotes mean nothing.
    pub(super) fn split_blanks(self) -> Vec<Slice<'a>> {
        let mut words = Vec::new();
        let mut rest = self.trim();
        while !rest.text().is_empty() {
            let (word, after) = rest.split_first();
            words.push(word);
            rest = after;
        }
        words
    }

    /// Splits at white space that is neither quoted nor escaped; quotes and escapes stay.
    pub(super) fn split_quoted(self, escape: char) -> Vec<Slice<'a>> {
        let mut words = Vec::new();
        let mut start = None;
        let mut quote = None;
        let mut chars = self.text().char_indices();
        while let Some((at, c)) = chars.next() {
            match (quote, c) {
                (None, c) if c.is_whitespace() => {
                    if let Some(start) = start.take() {
                        words.push(self.part(start, at));
                    }
                    continue;
                }
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                // Nothing is escaped within single quotes.
                (quote, c) if c == escape && quote != Some('\'') => {
                    chars.next();
                }
                _ => {}
            }
            start.get_or_insert(at);
        }
        if let Some(start) = start {
            words.push(self.part(start, self.text().len()));
        }
        words
    }
}

/// Reads a source line by line.
pub(super) struct Lexer<'a> {
    text: &'a str,
    position: usize,
    escape: char,
    /// Blank lines within continuations.
    pub(super) empty_continuations: Vec<Span>,
}

impl<'a> Lexer<'a> {
    /// Starts reading behind the byte order mark and the directives.
    pub(super) fn new(source: &'a Source) -> (Lexer<'a>, Directives, Vec<Diagnostic>) {
        let mut lexer = Lexer {
            text: &source.text,
            position: if source.text.starts_with('\u{feff}') {
                3
            } else {
                0
            },
            escape: '\\',
            empty_continuations: Vec::new(),
        };
        let (directives, errors) = lexer.directives();
        lexer.escape = directives.escape.unwrap_or('\\');
        (lexer, directives, errors)
    }

    /// Returns how far the lexer has come.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Returns the end of the last line that was read, without its line ending.
    pub(super) fn last_end(&self) -> usize {
        self.text[..self.position]
            .trim_end_matches(['\r', '\n'])
            .len()
    }

    /// Goes back to a position.
    pub(super) fn rewind(&mut self, position: usize) {
        self.position = position;
    }

    /// Returns the next physical line and its offset, with its line ending.
    fn physical(&mut self) -> Option<(usize, &'a str)> {
        let start = self.position;
        let rest = &self.text[start..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        self.position += length;
        Some((start, &rest[..length]))
    }

    fn directives(&mut self) -> (Directives, Vec<Diagnostic>) {
        let mut found = Directives::default();
        let mut errors = Vec::new();
        // Behind a `#!` line the parser of the reference looks for no escape directive, but
        // those who look for `syntax` and `check` do.
        let script = self.text[self.position..].starts_with("#!");
        if script {
            self.physical();
        }
        loop {
            let before = self.position;
            let directive = self
                .physical()
                .and_then(|(start, line)| Some((start, line, parse_directive(line)?)));
            let Some((start, line, (key, value))) = directive else {
                // Anything else ends the directives and is read again.
                self.position = before;
                return (found, errors);
            };
            let line = line.trim_end();
            let indent = line.len() - line.trim_start().len();
            let span = Span::new(start + indent, start + line.len());
            match key {
                Key::Escape if script => continue,
                Key::Escape => {
                    let mut chars = value.chars();
                    match (chars.next(), chars.next()) {
                        (Some(c @ ('\\' | '`')), None) if found.escape.is_none() => {
                            found.escape = Some(c);
                            continue;
                        }
                        (Some('\\' | '`'), None) => {}
                        _ => {
                            errors.push(
                                Diagnostic::new(
                                    span,
                                    format!("invalid escape character {value:?}"),
                                )
                                .hinted("it can be \\ or `"),
                            );
                            continue;
                        }
                    }
                }
                Key::Syntax if found.syntax.is_none() => {
                    found.syntax = Some((value.to_owned(), span));
                    continue;
                }
                Key::Check if found.check.is_none() => {
                    found.check = Some(value.to_owned());
                    continue;
                }
                Key::Syntax | Key::Check => {}
            }
            errors.push(Diagnostic::new(
                span,
                format!("only one {} directive can be used", key.name()),
            ));
        }
    }

    /// Returns the next instruction's line; comments and blank lines between are skipped.
    pub(super) fn logical(&mut self) -> Option<LogicalLine> {
        loop {
            let (start, line) = self.physical()?;
            let content = line.trim_end_matches(['\r', '\n']);
            let indent = content.len() - content.trim_start().len();
            let content = &content[indent..];
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let mut joined = LogicalLine {
                text: String::new(),
                pieces: Vec::new(),
            };
            let mut goes_on = self.append(&mut joined, start + indent, content);
            while goes_on {
                let Some((start, line)) = self.physical() else {
                    break;
                };
                let content = line.trim_end_matches(['\r', '\n']);
                match content.trim_start().chars().next() {
                    Some('#') => {}
                    None => self
                        .empty_continuations
                        .push(Span::new(start, start + line.len())),
                    Some(_) => goes_on = self.append(&mut joined, start, content),
                }
            }
            if !joined.text.trim().is_empty() {
                return Some(joined);
            }
        }
    }

    /// Adds a physical line; tells whether the next one continues it.
    fn append(&self, joined: &mut LogicalLine, start: usize, content: &str) -> bool {
        joined.pieces.push((joined.text.len(), start));
        let trimmed = content.trim_end_matches([' ', '\t']);
        let continued = trimmed
            .strip_suffix(self.escape)
            .filter(|before| !before.ends_with(self.escape));
        joined.text.push_str(continued.unwrap_or(content));
        continued.is_some()
    }

    /// Returns the lines up to one that is `delimiter` (with leading tabs if `tabs`), which
    /// is eaten too; nothing where that is missing.
    pub(super) fn heredoc_body(&mut self, delimiter: &str, tabs: bool) -> Option<&'a str> {
        let start = self.position;
        loop {
            let (at, line) = self.physical()?;
            let line = line.trim_end_matches(['\r', '\n']);
            let line = if tabs {
                line.trim_start_matches('\t')
            } else {
                line
            };
            if line == delimiter {
                return Some(&self.text[start..at]);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    Escape,
    Syntax,
    Check,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Key::Escape => "escape",
            Key::Syntax => "syntax",
            Key::Check => "check",
        }
    }
}

/// Tells whether a line is a directive, where it stands at the top.
pub(super) fn is_directive(line: &str) -> bool {
    parse_directive(line).is_some()
}

/// Reads `# key = value`.
fn parse_directive(line: &str) -> Option<(Key, &str)> {
    let (key, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let key = match key.trim().to_ascii_lowercase().as_str() {
        "escape" => Key::Escape,
        "syntax" => Key::Syntax,
        "check" => Key::Check,
        _ => return None,
    };
    let value = value.trim();
    (!value.is_empty()).then_some((key, value))
}

/// Tells whether a `syntax` directive names the official frontend, whose dialect this is.
fn is_known_frontend(value: &str) -> bool {
    let image = value.split(' ').next().unwrap_or_default();
    let name = image.split(['@', ':']).next().unwrap_or_default();
    let name = name
        .strip_prefix("docker.io/")
        .or_else(|| name.strip_prefix("index.docker.io/"))
        .unwrap_or(name);
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

/// Returns what is wrong with a frontend that is not the official one, whose dialect this is.
pub(super) fn unknown_frontend(value: &str, span: Span) -> Option<Diagnostic> {
    if is_known_frontend(value) {
        return None;
    }
    let image = value.split(' ').next().unwrap_or_default();
    let message = format!("this file is written for another frontend, {image}");
    Some(Diagnostic::new(span, message).hinted(
        "kiln reads the dialect of docker/dockerfile; if the file is plain, remove the syntax \
         directive",
    ))
}

/// The names of all instructions.
pub(super) const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Returns the finding about a word that is no instruction.
pub(super) fn unknown_instruction(word: Slice<'_>) -> Diagnostic {
    let name: String = word.text().chars().take(60).collect();
    let hint = did_you_mean(&name, INSTRUCTIONS).or_else(|| {
        let joined = name.strip_suffix('\u{a0}').is_some() || name.contains('\u{a0}');
        joined.then(|| "it contains a no-break space: type a plain one".to_owned())
    });
    Diagnostic::new(word.span(), format!("unknown instruction: {name}")).maybe_hinted(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let source = Source::new("Dockerfile", text);
        let (mut lexer, _, errors) = Lexer::new(&source);
        assert_eq!(errors, []);
        std::iter::from_fn(|| lexer.logical().map(|line| line.text)).collect()
    }

    /// SEMANTICS 3, SEMANTICS 4
    #[test]
    fn continuations_are_joined_as_the_reference_joins_them() {
        let cases: [(&str, &[&str]); 12] = [
            ("RUN a \\\n  b\nRUN c", &["RUN a   b", "RUN c"]),
            ("RUN a \\ \t\nb", &["RUN a b"]),
            ("RUN a\\\r\nb\r\n", &["RUN ab"]),
            ("RUN a \\\\\nRUN b", &["RUN a \\\\", "RUN b"]),
            ("RUN a \\", &["RUN a "]),
            ("RUN a \\\n# no\n  # no\nb", &["RUN a b"]),
            ("RUN a \\\n\n \nb", &["RUN a b"]),
            ("RUN a # b \\\nc", &["RUN a # b c"]),
            ("# comment \\\nRUN a", &["RUN a"]),
            ("  RUN a\n\t# x\n\nRUN b\n", &["RUN a", "RUN b"]),
            ("\\\nRUN a", &["RUN a"]),
            ("RUN a \\\n\\\nb", &["RUN a b"]),
        ];
        for (text, expected) in cases {
            assert_eq!(lines(text), expected, "{text:?}");
        }
    }

    /// SEMANTICS 4
    #[test]
    fn blank_lines_in_a_continuation_are_noted() {
        let source = Source::new("Dockerfile", "RUN a \\\n\nb");
        let (mut lexer, ..) = Lexer::new(&source);
        lexer.logical();
        assert_eq!(lexer.empty_continuations, [Span::new(8, 9)]);
    }

    #[test]
    fn a_slice_knows_its_place_in_the_source() {
        let source = Source::new("Dockerfile", "\u{feff}  RUN a \\\n# x\n  --bc d");
        let (mut lexer, ..) = Lexer::new(&source);
        let line = lexer.logical().unwrap();
        for word in line.slice().split_blanks() {
            let span = word.span();
            assert_eq!(&source.text[span.start..span.end], word.text());
        }
        let all = line.slice().span();
        assert_eq!((all.start, all.end), (5, source.text.len()));
    }

    /// SEMANTICS 8
    #[test]
    fn lines_may_be_of_any_length() {
        let text = format!("RUN {}", "a".repeat(1 << 20));
        assert_eq!(lines(&text), [text]);
    }

    /// SEMANTICS 1
    #[test]
    fn directives_stand_at_the_very_top_only() {
        let cases = [
            ("# escape=`\nRUN", Some('`')),
            ("\u{feff}# escape=`\nRUN", Some('`')),
            ("#ESCAPE = `  \nRUN", Some('`')),
            ("  # escape=`\nRUN", Some('`')),
            ("# check=skip=all\n# escape=`", Some('`')),
            ("# syntax=docker/dockerfile:1-labs\n# escape=`", Some('`')),
            ("\n# escape=`\nRUN", None),
            ("# a comment\n# escape=`\nRUN", None),
            ("# unknown=x\n# escape=`\nRUN", None),
            ("RUN a\n# escape=`", None),
            ("#!/usr/bin/env x\n# escape=`", None),
        ];
        for (text, expected) in cases {
            let source = Source::new("Dockerfile", text);
            let (_, directives, errors) = Lexer::new(&source);
            assert_eq!(errors, [], "{text}");
            assert_eq!(directives.escape, expected, "{text}");
        }
    }

    #[test]
    fn a_first_line_for_the_kernel_is_passed_over() {
        let source = Source::new("D", "#!/usr/bin/env kiln\n# check=skip=all\nFROM x");
        let (mut lexer, directives, errors) = Lexer::new(&source);
        assert_eq!(errors, []);
        assert_eq!(directives.check.as_deref(), Some("skip=all"));
        assert_eq!(lexer.logical().unwrap().text, "FROM x");
    }

    /// SEMANTICS 1
    #[test]
    fn directive_errors() {
        let cases = [
            ("#!x\n# check=a\n# check=b", "only one check"),
            ("# escape=\\\n# escape=`", "only one escape directive"),
            ("# escape=x", "invalid escape character \"x\""),
            (
                "# syntax=docker/dockerfile:1\n# Syntax=docker/dockerfile:1",
                "only one syntax",
            ),
            ("# check=a\n# check=b", "only one check"),
        ];
        for (text, expected) in cases {
            let source = Source::new("Dockerfile", text);
            let (_, _, errors) = Lexer::new(&source);
            assert_eq!(errors.len(), 1, "{text}");
            assert!(errors[0].message.contains(expected), "{}", errors[0]);
        }
    }

    /// SEMANTICS 1, SEMANTICS 2
    #[test]
    fn official_frontends_are_accepted_and_keep_their_case() {
        for value in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker.io/docker/dockerfile:1.20-labs",
            "docker/dockerfile-upstream:master@sha256:abc",
        ] {
            let source = Source::new("Dockerfile", format!("# syntax={value}\n"));
            let (_, directives, errors) = Lexer::new(&source);
            assert_eq!(errors, []);
            assert_eq!(directives.syntax.unwrap().0, value);
            assert_eq!(unknown_frontend(value, Span::default()), None);
        }
    }

    #[test]
    fn words_are_split_with_quotes_in_mind() {
        let source = Source::new("D", r#"a "b c"d e\ f 'g\' h i\"#);
        let (mut lexer, ..) = Lexer::new(&source);
        let line = lexer.logical().unwrap();
        let words: Vec<&str> = line
            .slice()
            .split_quoted('\\')
            .iter()
            .map(|w| w.text())
            .collect();
        assert_eq!(words, ["a", "\"b c\"d", "e\\ f", "'g\\'", "h", "i"]);
    }
}
