//! The text of a Dockerfile, and places in it.

use std::ops::Range;

/// A text with a name that people know it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What to call it in messages, usually the path as it was given.
    pub name: String,
    /// The text.
    pub text: String,
}

impl Source {
    /// Returns a source of the given name and text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Source {
        Source {
            name: name.into(),
            text: text.into(),
        }
    }

    /// Returns the line, counted from 1, in which a byte offset lies.
    pub fn line_of(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        1 + self.text.as_bytes()[..end]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
    }

    /// Returns the column, counted in characters from 1, of a byte offset.
    pub fn column_of(&self, offset: usize) -> usize {
        let start = self.line_range(self.line_of(offset)).start;
        1 + self
            .text
            .get(start..offset)
            .map_or(0, |before| before.chars().count())
    }

    /// Returns where a line (counted from 1) lies, without its line ending.
    pub fn line_range(&self, line: usize) -> Range<usize> {
        let mut start = 0;
        for _ in 1..line {
            match self.text[start..].find('\n') {
                Some(at) => start += at + 1,
                None => return self.text.len()..self.text.len(),
            }
        }
        let end = self.text[start..]
            .find('\n')
            .map_or(self.text.len(), |at| start + at);
        let text = self.text[start..end].trim_end_matches('\r');
        start..start + text.len()
    }

    /// Returns the text of a line (counted from 1), without its line ending.
    pub fn line(&self, line: usize) -> &str {
        &self.text[self.line_range(line)]
    }

    /// Returns the first and last line that a span touches.
    pub fn lines_of(&self, span: Span) -> (usize, usize) {
        let last = span.end.saturating_sub(1).max(span.start);
        (self.line_of(span.start), self.line_of(last))
    }
}

/// A range of bytes in a [`Source`]. The default, empty at 0, stands for the whole file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
}

impl Span {
    /// Returns the span from `start` up to `end`.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }

    /// Returns the smallest span that covers both.
    pub fn to(self, other: Span) -> Span {
        Span::new(self.start.min(other.start), self.end.max(other.end))
    }

    /// Tells whether the span names no particular place.
    pub fn is_whole_file(self) -> bool {
        self == Span::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines_and_columns() {
        let source = Source::new("Dockerfile", "FROM x\r\nRUN é y\n");
        let y = source.text.find('y').unwrap();
        assert_eq!((source.line_of(y), source.column_of(y)), (2, 7));
        assert_eq!(source.line(1), "FROM x");
        assert_eq!(source.line(2), "RUN é y");
        assert_eq!(source.line(3), "");
        assert_eq!(source.line(99), "");
        assert_eq!(source.lines_of(Span::new(0, y + 1)), (1, 2));
        assert_eq!(source.line_of(usize::MAX), 3);
    }
}
