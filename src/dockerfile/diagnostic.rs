//! What is wrong with a Dockerfile, and where: messages with an excerpt of the source.

use std::fmt;
use std::fmt::Write as _;

use super::{Source, Span};

/// Excerpts show at most this many lines of one instruction …
const MAX_LINES: usize = 12;
/// … and of each line a window of this many columns.
const MAX_COLUMNS: usize = 160;

/// One finding with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where; the default span stands for the file as a whole.
    pub span: Span,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// Returns a finding without a hint.
    pub fn new(span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            span,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds a hint.
    pub fn hinted(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint where there is one.
    pub fn maybe_hinted(mut self, hint: Option<String>) -> Diagnostic {
        self.hint = hint.or(self.hint);
        self
    }

    /// Returns the finding as people read it: message, place, source lines, hint.
    /// Control characters of the source are made visible, so that a hostile file can't
    /// play with the terminal.
    pub fn render(&self, source: &Source) -> String {
        let mut out = format!("error: {}\n", printable(&self.message));
        if self.span.is_whole_file() {
            let _ = writeln!(out, " --> {}", printable(&source.name));
        } else {
            out.push_str(&lines(source, self.span, true));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "hint: {}", printable(hint));
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// All findings of one file, in the order of the source. Never empty as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Returns all findings as people read them, with a blank line between.
    pub fn render(&self, source: &Source) -> String {
        let rendered: Vec<String> = self.0.iter().map(|d| d.render(source)).collect();
        rendered.join("\n")
    }

    /// Returns the hint of the first finding.
    pub fn hint(&self) -> Option<String> {
        self.0.first().and_then(|d| d.hint.clone())
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Diagnostics {
        Diagnostics(vec![one])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("no error"),
            [one] => one.fmt(f),
            [first, _] => write!(f, "{first} (and 1 more error)"),
            [first, rest @ ..] => write!(f, "{first} (and {} more errors)", rest.len()),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// Returns the lines of a span with their numbers, as a failing step shows its instruction.
pub fn excerpt(source: &Source, span: Span) -> String {
    lines(source, span, false)
}

fn lines(source: &Source, span: Span, underline: bool) -> String {
    let (first, last) = source.lines_of(span);
    let shown = last.min(first + MAX_LINES - 1);
    let width = shown.to_string().len();
    let mut out = String::new();
    let _ = write!(out, "{:width$}--> {}:{first}", " ", printable(&source.name));
    if underline {
        let _ = write!(out, ":{}", source.column_of(span.start));
    }
    let _ = writeln!(out, "\n{:width$} |", "");
    let mut start = source.line_range(first).start;
    for number in first..=shown {
        let text = source.text[start..].split('\n').next().unwrap_or_default();
        let next = start + text.len() + 1;
        let text = text.trim_end_matches('\r');
        let mark = (underline && number == first).then(|| {
            let from = span.start.saturating_sub(start).min(text.len());
            let to = span.end.saturating_sub(start).clamp(from, text.len());
            (from, to)
        });
        let (line, carets) = window(text, mark);
        let _ = writeln!(out, "{}", format!("{number:width$} | {line}").trim_end());
        if let Some(carets) = carets {
            let _ = writeln!(out, "{:width$} | {carets}", "");
        }
        start = next.min(source.text.len());
    }
    if shown < last {
        let _ = writeln!(out, "{:width$} | … {} more lines", "", last - shown);
    }
    out
}

/// Returns the part of a line around `mark` that fits, and the carets below it.
fn window(text: &str, mark: Option<(usize, usize)>) -> (String, Option<String>) {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let column = |byte: usize| chars.partition_point(|(at, _)| *at < byte);
    let focus = mark.map_or(0, |(from, _)| column(from));
    let first = if chars.len() <= MAX_COLUMNS || focus < MAX_COLUMNS / 2 {
        0
    } else {
        focus - MAX_COLUMNS / 4
    };
    let last = chars.len().min(first + MAX_COLUMNS);
    let mut line: String = chars[first..last]
        .iter()
        .map(|(_, c)| visible(*c))
        .collect();
    let mut shift = 0;
    if first > 0 {
        line.insert_str(0, "… ");
        shift = 2;
    }
    if last < chars.len() {
        line.push_str(" …");
    }
    let carets = mark.map(|(from, to)| {
        let from = column(from).clamp(first, last) - first + shift;
        let to = column(to).clamp(first, last) - first + shift;
        " ".repeat(from) + &"^".repeat(to.saturating_sub(from).max(1))
    });
    (line, carets)
}

fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() || is_direction_mark(c) => '\u{fffd}',
        c => c,
    }
}

/// Characters that reorder what a terminal shows could make one line look like another.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_points_at_its_place() {
        let source = Source::new("Dockerfile", "FROM x\nRUN --mont=y true\n");
        let at = source.text.find("--mont").unwrap();
        let finding =
            Diagnostic::new(Span::new(at, at + 6), "unknown flag").hinted("did you mean --mount?");
        assert_eq!(
            finding.render(&source),
            "error: unknown flag\n --> Dockerfile:2:5\n  |\n2 | RUN --mont=y true\n  \
             |     ^^^^^^\nhint: did you mean --mount?\n"
        );
    }

    #[test]
    fn an_excerpt_shows_all_lines_of_an_instruction_up_to_a_limit() {
        let source = Source::new("D", "FROM x\nRUN a \\\n  b\n");
        assert_eq!(
            excerpt(&source, Span::new(7, source.text.len())),
            " --> D:2\n  |\n2 | RUN a \\\n3 |   b\n"
        );
        let long = Source::new("D", "x\n".repeat(40));
        let shown = excerpt(&long, Span::new(0, 80));
        assert_eq!(shown.lines().count(), 2 + MAX_LINES + 1);
        assert!(shown.ends_with("… 28 more lines\n"), "{shown}");
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let source = Source::new("D", "RUN \x1b[2J\u{202e}x");
        let rendered = Diagnostic::new(Span::new(0, 3), "bad \x1b]0;x\x07").render(&source);
        assert!(!rendered.contains(['\x1b', '\x07', '\u{202e}']));
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_mark() {
        let text = format!("{}HERE{}", "a".repeat(5000), "b".repeat(5000));
        let source = Source::new("D", text);
        let rendered = Diagnostic::new(Span::new(5000, 5004), "m").render(&source);
        assert!(rendered.contains("aHEREb") && rendered.len() < 1000);
        let lines: Vec<&str> = rendered.lines().collect();
        let chars = |s: &str, p: &str| s[..s.find(p).unwrap()].chars().count();
        assert_eq!(chars(lines[3], "HERE"), chars(lines[4], "^^^^"));
    }

    #[test]
    fn a_finding_about_the_file_has_no_excerpt() {
        let rendered = Diagnostic::new(Span::default(), "file with no instructions")
            .render(&Source::new("D", ""));
        assert_eq!(rendered, "error: file with no instructions\n --> D\n");
    }
}
