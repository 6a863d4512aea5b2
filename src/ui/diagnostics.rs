//! Errors, warnings and hints in the form in which a person reads them. Everything is
//! readable without colour.

use std::error::Error;
use std::fmt::Write as _;

use super::text;

/// Select Graphic Rendition (ECMA-48 section 8.3.117): the few looks that kiln uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Error,
    Warning,
    Hint,
    Good,
    Bold,
    Dim,
}

impl Look {
    /// Returns `text` in this look, or as it is where there is no colour.
    pub(super) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Look::Error => "1;31",
            Look::Warning => "1;33",
            Look::Hint => "1;36",
            Look::Good => "32",
            Look::Bold => "1",
            Look::Dim => "2",
        };
        match colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// Returns an error with the chain of its causes and a hint:
///
/// ```text
/// error: cannot pull debian:12
///   caused by: registry.example.org: connection refused
/// hint: …
/// ```
pub fn render_error(err: &dyn Error, hint: Option<&str>, colour: bool) -> String {
    let mut out = String::new();
    let mut above = err.to_string();
    push(&mut out, "", Look::Error, "error:", &above, colour);
    let mut cause = err.source();
    while let Some(err) = cause {
        let message = err.to_string();
        // Many errors quote their cause: it isn't said twice.
        if !above.ends_with(&message) {
            push(&mut out, "  ", Look::Bold, "caused by:", &message, colour);
            above = message;
        }
        cause = err.source();
    }
    push_hint(&mut out, hint, colour);
    out
}

/// Returns a warning with its hint.
pub fn render_warning(message: &str, hint: Option<&str>, colour: bool) -> String {
    let mut out = String::new();
    push(&mut out, "", Look::Warning, "warning:", message, colour);
    push_hint(&mut out, hint, colour);
    out
}

pub(super) fn push_hint(out: &mut String, hint: Option<&str>, colour: bool) {
    if let Some(hint) = hint {
        push(out, "", Look::Hint, "hint:", hint, colour);
    }
}

/// Adds `word message`; further lines of the message are aligned with its first one.
pub(super) fn push(
    out: &mut String,
    indent: &str,
    look: Look,
    word: &str,
    message: &str,
    colour: bool,
) {
    let message = text::sanitise(message.trim_end().as_bytes());
    let aligned = format!("\n{indent}{:1$} ", "", word.len());
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{indent}{} {}",
        look.paint(word, colour),
        message.replace('\n', &aligned)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Link {
        message: &'static str,
        source: Option<Box<Link>>,
    }

    fn chain(messages: &[&'static str]) -> Link {
        Link {
            message: messages[0],
            source: match &messages[1..] {
                [] => None,
                rest => Some(Box::new(chain(rest))),
            },
        }
    }

    #[test]
    fn error_shows_its_causes_and_its_hint() {
        let err = chain(&[
            "cannot pull debian:12",
            "127.0.0.1:5000: refused",
            "errno 111",
        ]);
        assert_eq!(
            render_error(&err, Some("start the registry"), false),
            "\
error: cannot pull debian:12
  caused by: 127.0.0.1:5000: refused
  caused by: errno 111
hint: start the registry
"
        );
    }

    #[test]
    fn cause_that_the_message_quotes_is_not_said_twice() {
        let err = chain(&["cannot open x: no such file", "no such file", "errno 2"]);
        assert_eq!(
            render_error(&err, None, false),
            "error: cannot open x: no such file\n  caused by: errno 2\n"
        );
    }

    #[test]
    fn lines_of_a_long_message_are_aligned() {
        assert_eq!(
            render_warning("one\ntwo", Some("do this\nthen that\n"), false),
            "warning: one\n         two\nhint: do this\n      then that\n"
        );
    }

    #[test]
    fn hostile_message_cannot_reach_the_terminal() {
        let err = chain(&["registry says \x1b]0;pwned\x07no"]);
        assert_eq!(render_error(&err, None, false), "error: registry says no\n");
    }

    #[test]
    fn colour_is_on_the_words_only() {
        assert_eq!(
            render_error(&chain(&["a", "b"]), Some("c"), true),
            "\x1b[1;31merror:\x1b[0m a\n  \x1b[1mcaused by:\x1b[0m b\n\x1b[1;36mhint:\x1b[0m c\n"
        );
    }
}
