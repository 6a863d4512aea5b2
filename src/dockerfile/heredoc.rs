//! Here-documents: `<<EOF`, `<<-EOF`, `<<"EOF"`.
//! See <https://docs.docker.com/reference/dockerfile/#here-documents>.

use super::Span;
use super::expand::{ExpandError, Lookup, expand, expand_heredoc};

/// A document within the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes: also the file's name below a directory.
    pub name: String,
    /// Whether variables are put in (COPY and ADD only): no quote in the delimiter.
    pub expands: bool,
    /// Whether leading tabs are stripped (`<<-`).
    pub strip_tabs: bool,
    /// The lines between, as they stand in the source.
    pub body: String,
    /// The `<<EOF` that opens it.
    pub span: Span,
}

impl Heredoc {
    /// Returns the document, with leading tabs stripped where `<<-` says so.
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.body.clone();
        }
        self.body
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }

    /// Returns the document as COPY and ADD write it, with variables put in.
    pub fn expand(&self, env: &Lookup<'_>) -> Result<String, ExpandError> {
        match self.expands {
            true => expand_heredoc(&self.content(), env),
            false => Ok(self.content()),
        }
    }
}

/// The opening of a heredoc: what stands behind `<<`.
#[derive(Debug, PartialEq)]
pub(super) struct Opening {
    pub(super) name: String,
    pub(super) expands: bool,
    pub(super) strip_tabs: bool,
}

/// Reads one word (or a whole command line) as the opening of a heredoc.
pub(super) fn parse_opening(word: &str) -> Option<Opening> {
    let rest = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let delimiter = rest.trim_start();
    if delimiter.is_empty() || delimiter.contains('<') {
        return None;
    }
    // Several words are no delimiter, and neither is an open quote.
    if shell_words(delimiter)?.len() != 1 {
        return None;
    }
    // A variable in a delimiter is plain text.
    let name = expand(delimiter, &|name| Some(format!("${name}")), '\\').ok()?;
    (!name.is_empty()).then(|| Opening {
        name,
        expands: !delimiter.contains(['\'', '"']),
        strip_tabs,
    })
}

/// Returns the heredocs that a RUN line opens, with the place of each in the line.
pub(super) fn openings(line: &str) -> Vec<(Opening, usize, usize)> {
    let Some(words) = shell_words(line) else {
        return Vec::new();
    };
    words
        .into_iter()
        .filter_map(|(start, end)| Some((parse_opening(&line[start..end])?, start, end)))
        .collect()
}

/// Splits a command line roughly as a shell does, keeping quotes; blanks behind `<<` do not
/// end a word. Nothing where a quote is open: the shell will complain of that.
fn shell_words(line: &str) -> Option<Vec<(usize, usize)>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if let Some(start) = start.take() {
                    words.push((start, at));
                }
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (quote, '\\') if quote != Some('\'') => {
                chars.next();
            }
            (None, '<') if chars.peek().is_some_and(|(_, c)| *c == '<') => {
                chars.next();
                while chars
                    .next_if(|(_, c)| matches!(c, ' ' | '\t' | '\r'))
                    .is_some()
                {}
            }
            _ => {}
        }
        start.get_or_insert(at);
    }
    if quote.is_some() {
        return None;
    }
    if let Some(start) = start {
        words.push((start, line.len()));
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_of_a_command_line() {
        let cases: [(&str, &[&str]); 15] = [
            ("RUN <<EOF", &["EOF"]),
            ("RUN cat <<A 3<<B >x", &["A", "B"]),
            ("RUN <<'EOF' | python", &["EOF"]),
            ("RUN <<\"E O F\" cat", &["E O F"]),
            ("RUN << EOF", &["EOF"]),
            ("RUN <<-EOF", &["EOF"]),
            ("RUN <<\\EOF", &["EOF"]),
            ("RUN <<$X", &["$X"]),
            ("RUN echo \"<<EOF\" '<<EOF'", &[]),
            ("RUN cat <<<x", &[]),
            ("RUN echo $((1<<2))", &[]),
            ("RUN echo <<", &[]),
            ("RUN echo <<\"\"", &[]),
            ("RUN echo it's <<EOF", &[]),
            ("RUN echo \\<<EOF", &[]),
        ];
        for (line, expected) in cases {
            let found: Vec<String> = openings(line).into_iter().map(|(o, ..)| o.name).collect();
            assert_eq!(found, expected, "{line}");
        }
    }

    /// SEMANTICS 12
    #[test]
    fn any_quote_in_the_delimiter_turns_expansion_off() {
        for (word, expands) in [
            ("<<EOF", true),
            ("<<'EOF'", false),
            ("<<\"EOF\"", false),
            ("<<E\"O\"F", false),
        ] {
            let opening = parse_opening(word).unwrap();
            assert_eq!((opening.name.as_str(), opening.expands), ("EOF", expands));
        }
    }

    /// SEMANTICS 15
    #[test]
    fn only_leading_tabs_are_stripped() {
        let mut doc = Heredoc {
            name: "EOF".to_owned(),
            expands: true,
            strip_tabs: true,
            body: "\t\ta\t$X\n  \tb\n\n\tc".to_owned(),
            span: Span::default(),
        };
        assert_eq!(doc.content(), "a\t$X\n  \tb\n\nc");
        assert_eq!(
            doc.expand(&|_| Some("1".into())).unwrap(),
            "a\t1\n  \tb\n\nc"
        );
        doc.expands = false;
        assert_eq!(doc.expand(&|_| Some("1".into())).unwrap(), doc.content());
        doc.strip_tabs = false;
        assert_eq!(doc.content(), doc.body);
    }
}
