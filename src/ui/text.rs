//! Text from steps, registries and Dockerfiles, made safe to show: it may hold control
//! sequences that move the cursor, set the window's title or the clipboard, or reorder
//! what is read.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A line of output longer than this is shown as several.
const MAX_LINE: usize = 8 * 1024;

/// Columns between tab stops.
const TAB: usize = 8;

/// Returns `bytes` as text without control sequences and control characters. Newlines and
/// tabs stay.
pub fn sanitise(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let introducer = match c {
            '\n' | '\t' => {
                out.push(c);
                continue;
            }
            '\x1b' => chars.next_if(|c| (' '..='~').contains(c)),
            // The C1 characters that stand for ESC and one of P X [ ] ^ _.
            '\u{90}' | '\u{98}' | '\u{9b}' | '\u{9d}'..='\u{9f}' => char::from_u32(c as u32 - 0x40),
            c if c.is_control() || is_bidi_control(c) => None,
            c => {
                out.push(c);
                continue;
            }
        };
        match introducer {
            // A control sequence: parameters, intermediates and one final character
            // (ECMA-48 section 5.4).
            Some('[') => {
                while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
                chars.next_if(|c| ('@'..='~').contains(c));
            }
            // A control string (ECMA-48 section 5.6), ended by ST, or by BEL in xterm.
            // It doesn't reach over the end of its line, lest it swallow what follows.
            Some('P' | 'X' | ']' | '^' | '_') => {
                while let Some(c) = chars.next_if(|c| *c != '\n') {
                    match c {
                        '\x07' | '\u{9c}' => break,
                        '\x1b' if chars.next_if_eq(&'\\').is_some() => break,
                        _ => {}
                    }
                }
            }
            // Other escape sequences: intermediates and one final character.
            Some(' '..='/') => {
                while chars.next_if(|c| (' '..='/').contains(c)).is_some() {}
                chars.next_if(|c| ('0'..='~').contains(c));
            }
            _ => {}
        }
    }
    out
}

/// Characters that change the order in which a terminal shows the others (Unicode
/// Technical Report 36, section 2.4).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns `text` as one safe line: every run of white space that holds a newline or a tab
/// becomes one blank.
pub fn one_line(text: &str) -> String {
    let text = sanitise(text.as_bytes());
    if !text.contains(['\n', '\t']) {
        return text.trim().to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for part in text.split(['\n', '\t']).map(str::trim) {
        if !part.is_empty() && !out.is_empty() {
            out.push(' ');
        }
        out.push_str(part);
    }
    out
}

/// Returns the number of columns that `text` takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Cuts `text` to at most `columns`; what is cut ends in `…`.
pub fn truncate(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut used = 0;
    let mut end = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        // One column is for the ellipsis.
        if used >= columns {
            break;
        }
        end = at + c.len_utf8();
    }
    let ellipsis = if columns == 0 { "" } else { "…" };
    Cow::Owned(format!("{}{ellipsis}", &text[..end]))
}

/// Replaces tabs by blanks up to the next tab stop.
pub fn expand_tabs(line: &str) -> Cow<'_, str> {
    if !line.contains('\t') {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + TAB);
    for (n, part) in line.split('\t').enumerate() {
        if n > 0 {
            let blanks = TAB - width(&out) % TAB;
            out.extend(std::iter::repeat_n(' ', blanks));
        }
        out.push_str(part);
    }
    Cow::Owned(out)
}

/// Makes lines of chunks. Where a tool returns the carriage to draw over its line, such as
/// a progress bar, only the last state of the line is left.
#[derive(Debug, Default)]
pub struct LineBuffer {
    line: Vec<u8>,
    returned: bool,
}

impl LineBuffer {
    /// Takes a chunk and hands each line that it completes to `emit`.
    pub fn push(&mut self, chunk: &[u8], mut emit: impl FnMut(String)) {
        for &byte in chunk {
            match byte {
                b'\n' => self.complete(&mut emit),
                b'\r' => self.returned = true,
                _ => {
                    if std::mem::take(&mut self.returned) {
                        self.line.clear();
                    }
                    // Between two characters of UTF-8, unless that is no text at all.
                    let boundary = byte & 0xc0 != 0x80;
                    let len = self.line.len();
                    if (len >= MAX_LINE && boundary) || len >= 2 * MAX_LINE {
                        self.complete(&mut emit);
                    }
                    self.line.push(byte);
                }
            }
        }
    }

    /// Hands what is left of an unfinished line to `emit`.
    pub fn finish(&mut self, mut emit: impl FnMut(String)) {
        if !self.line.is_empty() {
            self.complete(&mut emit);
        }
    }

    /// Returns the unfinished line as it stands.
    pub fn partial(&self) -> String {
        sanitise(&self.line)
    }

    fn complete(&mut self, emit: &mut impl FnMut(String)) {
        emit(sanitise(&self.line));
        self.line.clear();
        self.returned = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> Vec<String> {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            buffer.push(chunk.as_bytes(), |line| lines.push(line));
        }
        buffer.finish(|line| lines.push(line));
        lines
    }

    #[test]
    fn control_sequences_leave_no_trace() {
        for (dirty, clean) in [
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b[2K\x1b[1Gline", "line"),
            ("\x1b]0;title\x07text", "text"),
            ("\x1b]52;c;cm0gLXJm\x1b\\text", "text"),
            ("\x1bPq#0;2\x1b\\sixel", "sixel"),
            ("\x1b(Bascii", "ascii"),
            ("\x1bcreset", "reset"),
            ("\u{9b}31mred", "red"),
            ("\u{9d}0;title\u{9c}text", "text"),
            ("a\x08\x07\x00b", "ab"),
            ("rtl \u{202e}txt", "rtl txt"),
            ("a\tb\nc", "a\tb\nc"),
            ("\x1b", ""),
            ("\x1b[31", ""),
            ("\x1b]unterminated", ""),
            ("\x1b]unterminated\nnext", "\nnext"),
            ("\x1b\x1b[31mtwice", "twice"),
            ("schön 漢字", "schön 漢字"),
        ] {
            assert_eq!(sanitise(dirty.as_bytes()), clean, "{dirty:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        assert_eq!(sanitise(b"a\x9b31m\xff"), "a\u{fffd}31m\u{fffd}");
    }

    #[test]
    fn one_line_joins_lines_and_keeps_inner_blanks() {
        assert_eq!(
            one_line("RUN <<EOF\n\tmake\n\n\tall\nEOF\n"),
            "RUN <<EOF make all EOF"
        );
        assert_eq!(one_line("RUN a  b \x1b[31mc"), "RUN a  b c");
        assert_eq!(one_line("\n"), "");
    }

    #[test]
    fn truncation_counts_columns_and_never_splits_a_character() {
        assert_eq!(truncate("abcdef", 6), "abcdef");
        assert_eq!(truncate("abcdefg", 6), "abcde…");
        assert_eq!(truncate("漢字漢字", 6), "漢字…");
        assert_eq!(truncate("漢字漢字", 5), "漢字…");
        assert_eq!(truncate("漢字漢字", 4), "漢…");
        assert_eq!(truncate("abc", 1), "…");
        assert_eq!(truncate("abc", 0), "");
    }

    #[test]
    fn tabs_reach_the_next_stop() {
        assert_eq!(expand_tabs("a\tb"), "a       b");
        assert_eq!(expand_tabs("12345678\tb"), "12345678        b");
        assert_eq!(expand_tabs("plain"), "plain");
    }

    #[test]
    fn lines_are_put_together_from_chunks() {
        assert_eq!(
            lines(&["one\ntw", "o\n", "thr", "ee"]),
            ["one", "two", "three"]
        );
        assert_eq!(lines(&["\n\n"]), ["", ""]);
        assert_eq!(lines(&["dos\r\n", "unix\n"]), ["dos", "unix"]);
        assert_eq!(lines(&["dos\r", "\nunix\n"]), ["dos", "unix"]);
    }

    #[test]
    fn progress_bar_collapses_to_its_last_state() {
        assert_eq!(lines(&["10%\r50", "%\r", "100%\nend"]), ["100%", "end"]);
        assert_eq!(lines(&["10%\r50%\r\r\n"]), ["50%"]);
        assert_eq!(lines(&["10%\r50%\r"]), ["50%"]);
    }

    #[test]
    fn line_without_end_is_cut_between_characters() {
        let start = "a".repeat(MAX_LINE - 1);
        assert_eq!(
            lines(&[&start, "漢字"]),
            [start.clone() + "漢", "字".to_owned()]
        );
        let mut longest = 0;
        LineBuffer::default().push(&[0x80; 5 * MAX_LINE], |line| {
            longest = longest.max(line.chars().count());
        });
        assert_eq!(longest, 2 * MAX_LINE);
    }
}
