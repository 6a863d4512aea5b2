//! Variables in words: quotes, escapes and `${…}`.
//! See <https://docs.docker.com/reference/dockerfile/#environment-replacement>.

use std::iter::Peekable;
use std::str::Chars;

use super::glob::{Glob, GlobError};
use super::{Diagnostic, Span};

/// Nesting of `${a:-${b:-…}}` beyond this is refused: the recursion lives on the stack.
const MAX_DEPTH: usize = 100;
/// A longer result is refused: a few lines that double a variable would fill the memory.
const MAX_LENGTH: usize = 16 << 20;

/// What a name stands for; nothing where it is unset.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A word that could not be expanded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExpandError {
    /// `${`, `${}`, `${:…}`.
    #[error("bad substitution")]
    BadSubstitution,
    /// `${name` without an end.
    #[error("missing '}}' of a substitution")]
    MissingBrace,
    /// `${name/pattern}`.
    #[error("missing the second '/' of ${{name/pattern/replacement}}")]
    MissingSlash,
    /// `'` or `"` without its partner.
    #[error("missing the closing {0}")]
    UnclosedQuote(char),
    /// `${name:=word}` and the like.
    #[error("unsupported modifier {0:?} in a substitution")]
    UnsupportedModifier(String),
    /// `${name:?message}` of a name that is unset or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the Dockerfile says about it.
        message: String,
    },
    /// `\x` in a pattern, where `x` needs no escape.
    #[error(transparent)]
    Pattern(#[from] GlobError),
    /// Substitutions within substitutions without end.
    #[error("substitutions are nested too deeply")]
    TooDeep,
    /// A result that would fill the memory.
    #[error("the expanded text is longer than 16 MiB")]
    TooLong,
    /// A name in ENV or LABEL that expands to nothing.
    #[error("a name can't be blank")]
    BlankName,
}

impl ExpandError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            ExpandError::BadSubstitution | ExpandError::UnsupportedModifier(_) => {
                "the forms are ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?m} ${v?m} ${v#p} ${v##p} \
                 ${v%p} ${v%%p} ${v/p/r} ${v//p/r}; write \\$ for a plain dollar sign"
                    .to_owned()
            }
            ExpandError::UnclosedQuote(quote) => {
                format!("write \\{quote} for a plain {quote}")
            }
            ExpandError::Required { name, .. } => format!("give it with --build-arg {name}=…"),
            ExpandError::TooDeep => {
                format!(
                    "at most {MAX_DEPTH} may stand within each other; use an ARG for the inner ones"
                )
            }
            ExpandError::MissingBrace | ExpandError::MissingSlash => {
                "write \\$ for a plain dollar sign".to_owned()
            }
            _ => return None,
        };
        Some(text)
    }

    /// Returns the error as a finding at `span`.
    pub fn at(&self, span: Span) -> Diagnostic {
        Diagnostic::new(span, self.to_string()).maybe_hinted(self.hint())
    }
}

/// Text as it stands in the source, with its place; expanded when the build gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Quotes, escapes and variables as written.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl Word {
    /// Returns the text with variables put in and quotes removed.
    pub fn expand(&self, env: &Lookup<'_>, escape: char) -> Result<String, ExpandError> {
        expand(&self.text, env, escape)
    }

    /// Returns the words of the expanded text, split at blanks that are not quoted, also
    /// where they come out of a variable.
    pub fn expand_words(&self, env: &Lookup<'_>, escape: char) -> Result<Vec<String>, ExpandError> {
        let mut expander = Expander::new(&self.text, env, escape, true);
        expander.splitting = Some(Words::default());
        expander.until(None, false)?;
        Ok(expander.splitting.unwrap_or_default().finish())
    }

    /// Tells whether expanding could look up a variable.
    pub fn has_variables(&self) -> bool {
        self.text.contains('$')
    }
}

/// Returns `text` with variables put in and quotes removed.
pub fn expand(text: &str, env: &Lookup<'_>, escape: char) -> Result<String, ExpandError> {
    Expander::new(text, env, escape, true).until(None, false)
}

/// Returns the body of a heredoc with variables put in: quotes stay, and the escape
/// character is always a backslash.
pub fn expand_heredoc(text: &str, env: &Lookup<'_>) -> Result<String, ExpandError> {
    Expander::new(text, env, '\\', false).until(None, false)
}

/// Collects words as the characters of an expansion pass by.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if c.is_whitespace() {
            if !self.current.is_empty() {
                self.done.push(std::mem::take(&mut self.current));
            }
        } else {
            self.current.push(c);
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.push(' ');
        self.done
    }
}

struct Expander<'a> {
    chars: Peekable<Chars<'a>>,
    env: &'a Lookup<'a>,
    escape: char,
    /// Whether quotes are special.
    quotes: bool,
    /// Whether an escape character stays before what it escapes (for patterns).
    keep_escapes: bool,
    depth: usize,
    splitting: Option<Words>,
}

impl<'a> Expander<'a> {
    fn new(text: &'a str, env: &'a Lookup<'a>, escape: char, quotes: bool) -> Expander<'a> {
        Expander {
            chars: text.chars().peekable(),
            env,
            escape,
            quotes,
            keep_escapes: false,
            depth: 0,
            splitting: None,
        }
    }

    /// Expands up to `stop` (which is eaten) or the end.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<String, ExpandError> {
        if self.depth > MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        // Words are split only at the outermost level.
        let words = self.splitting.take();
        let result = self.run(stop, words);
        self.keep_escapes = outer;
        self.depth -= 1;
        result
    }

    fn run(&mut self, stop: Option<char>, mut words: Option<Words>) -> Result<String, ExpandError> {
        let mut out = String::new();
        // The flag tells whether blanks in the text end a word.
        let mut emit = |text: &str, splits: bool, out: &mut String| {
            if out.len() + text.len() > MAX_LENGTH {
                return Err(ExpandError::TooLong);
            }
            out.push_str(text);
            match &mut words {
                Some(words) if splits => text.chars().for_each(|c| words.push(c)),
                Some(words) => words.current.push_str(text),
                None => {}
            }
            Ok(())
        };
        let mut buffer = [0; 4];
        while let Some(&c) = self.chars.peek() {
            match c {
                c if Some(c) == stop => {
                    self.chars.next();
                    return Ok(out);
                }
                '$' => {
                    let value = self.dollar()?;
                    emit(&value, true, &mut out)?;
                }
                '\'' if self.quotes => emit(&self.single_quoted()?, false, &mut out)?,
                '"' if self.quotes => {
                    let value = self.double_quoted()?;
                    emit(&value, false, &mut out)?;
                }
                c if c == self.escape => {
                    self.chars.next();
                    if self.keep_escapes {
                        emit(c.encode_utf8(&mut buffer), false, &mut out)?;
                    }
                    let Some(escaped) = self.chars.next() else {
                        break;
                    };
                    emit(escaped.encode_utf8(&mut buffer), false, &mut out)?;
                }
                c => {
                    self.chars.next();
                    emit(c.encode_utf8(&mut buffer), true, &mut out)?;
                }
            }
        }
        match stop {
            Some('/') => Err(ExpandError::MissingSlash),
            Some(_) => Err(ExpandError::MissingBrace),
            None => {
                self.splitting = words;
                Ok(out)
            }
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        self.chars.next();
        let mut out = String::new();
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(out);
            }
            out.push(c);
        }
        Err(ExpandError::UnclosedQuote('\''))
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        self.chars.next();
        let mut out = String::new();
        while let Some(&c) = self.chars.peek() {
            if c == '$' {
                out.push_str(&self.dollar()?);
                if out.len() > MAX_LENGTH {
                    return Err(ExpandError::TooLong);
                }
                continue;
            }
            self.chars.next();
            if c == '"' {
                return Ok(out);
            }
            if c != self.escape {
                out.push(c);
                continue;
            }
            if self.keep_escapes {
                out.push(c);
            }
            match self.chars.peek() {
                None => {}
                Some(&next) if next == '"' || next == '$' || next == self.escape => {
                    self.chars.next();
                    out.push(next);
                }
                // Before anything else an escape character is a plain one.
                Some(_) => out.push(c),
            }
        }
        Err(ExpandError::UnclosedQuote('"'))
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.chars.next();
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            return Ok(match name.as_str() {
                "" => "$".to_owned(),
                name => (self.env)(name).unwrap_or_default(),
            });
        }
        self.chars.next();
        match self.chars.peek() {
            None => return Err(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let modifier = self.chars.next().ok_or(ExpandError::MissingBrace)?;
        if name.is_empty() {
            return Err(ExpandError::BadSubstitution);
        }
        match modifier {
            '}' => Ok((self.env)(&name).unwrap_or_default()),
            ':' => {
                let operator = self.chars.next().ok_or(ExpandError::MissingBrace)?;
                if !matches!(operator, '-' | '+' | '?') {
                    return Err(ExpandError::UnsupportedModifier(format!(":{operator}")));
                }
                let word = self.until(Some('}'), false)?;
                let value = (self.env)(&name);
                let empty = value.as_deref() == Some("");
                choose(name, value.filter(|v| !v.is_empty()), operator, word, empty)
            }
            '-' | '+' | '?' => {
                let word = self.until(Some('}'), false)?;
                let value = (self.env)(&name);
                choose(name, value, modifier, word, false)
            }
            '#' | '%' => self.trim(&name, modifier),
            '/' => self.replace(&name),
            other => Err(ExpandError::UnsupportedModifier(other.to_string())),
        }
    }

    /// `${name#pattern}` and its kin.
    fn trim(&mut self, name: &str, side: char) -> Result<String, ExpandError> {
        let word = self.until(Some('}'), true)?;
        let (longest, pattern) = match word.strip_prefix(side) {
            Some(pattern) => (true, pattern),
            None => (false, word.as_str()),
        };
        let glob = Glob::parse(pattern)?;
        let value = (self.env)(name).unwrap_or_default();
        Ok(match side {
            '#' => glob.trim_start(&value, longest),
            _ => glob.trim_end(&value, longest),
        })
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`.
    fn replace(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.chars.peek() == Some(&'/');
        if all {
            self.chars.next();
        }
        let pattern = self.until(Some('/'), true)?;
        let replacement = self.until(Some('}'), true)?;
        let glob = Glob::parse(&pattern)?;
        let value = (self.env)(name).unwrap_or_default();
        glob.replace(&value, &replacement, all, MAX_LENGTH)
            .ok_or(ExpandError::TooLong)
    }

    /// Eats a name: letters, digits and `_`, or digits alone, or one special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let digits = self.chars.peek().is_some_and(char::is_ascii_digit);
        while let Some(&c) = self.chars.peek() {
            if name.is_empty() && matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
                self.chars.next();
                return c.to_string();
            }
            let fits = match digits {
                true => c.is_ascii_digit(),
                // Letters of any script, but no superscripts: `$x²` is `$x` and a `²`.
                false => c.is_alphabetic() || c.is_ascii_digit() || c == '_',
            };
            if !fits {
                break;
            }
            name.push(c);
            self.chars.next();
        }
        name
    }
}

/// Picks value or word for the operators `-`, `+` and `?`.
fn choose(
    name: String,
    value: Option<String>,
    operator: char,
    word: String,
    empty: bool,
) -> Result<String, ExpandError> {
    match (operator, value) {
        ('+', Some(_)) => Ok(word),
        ('+', None) => Ok(String::new()),
        (_, Some(value)) => Ok(value),
        ('-', None) => Ok(word),
        (_, None) => {
            let message = match (word.is_empty(), empty) {
                (false, _) => word,
                (true, true) => "is not allowed to be empty".to_owned(),
                (true, false) => "is not allowed to be unset".to_owned(),
            };
            Err(ExpandError::Required { name, message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "HOME" => "/home",
            "SHELL" => "bash",
            "EMPTY" => "",
            "SPACES" => "  ab c ",
            "PATTERN" => "/tmp",
            "FILE" => "/tmp/tmp/bar.txt",
            "STARS" => "a***yy*",
            "XXYY" => "xxyy",
            "ODD" => "()[]{}^$.*?|\\x",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn word(text: &str) -> Word {
        Word {
            text: text.to_owned(),
            span: Span::default(),
        }
    }

    /// SEMANTICS 17
    #[test]
    fn quotes_and_escapes_follow_the_shell() {
        let cases = [
            ("he'll'o", Some("hello")),
            ("he\\'llo", Some("he'llo")),
            ("he'llo", None),
            ("abc\\tdef", Some("abctdef")),
            ("\"abc\\tdef\"", Some("abc\\tdef")),
            ("\"abc\\\\tdef\"", Some("abc\\tdef")),
            ("'abc\\tdef'", Some("abc\\tdef")),
            ("hello\\", Some("hello")),
            ("hello\\\\", Some("hello\\")),
            ("\"hello\\\"", None),
            ("'hello\\'", Some("hello\\")),
            ("\"he'$HOME'\"", Some("he'/home'")),
            ("'$HOME'", Some("$HOME")),
            ("he\\$HOME", Some("he$HOME")),
            ("\"he\\$HOME\"", Some("he$HOME")),
            ("안\"녕\"", Some("안녕")),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env, '\\').ok().as_deref(), expected, "{text}");
        }
    }

    /// SEMANTICS 16
    #[test]
    fn unset_names_are_empty_and_broken_forms_are_errors() {
        let cases = [
            ("he$NONE.", Some("he.")),
            ("$.", Some("$.")),
            ("he$.x", Some("he$.x")),
            ("a$", Some("a$")),
            ("he$1x", Some("hex")),
            ("$@@@", Some("@@")),
            ("$$", Some("")),
            ("$001aaa", Some("aaa")),
            ("$NONE²", Some("²")),
            ("${NONE²}", None),
            ("$NONÉx.", Some(".")),
            ("$0a$#b$?c$-d$!e$*f", Some("abcdef")),
            ("${#}${?}", Some("")),
            ("${#HOME}", None),
            ("${HOME^^}", None),
            ("${!HOME}", None),
            ("${1:-bbb}", Some("bbb")),
            ("${@:-bbb}", Some("bbb")),
            ("\\${}", Some("${}")),
            ("${}", None),
            ("${.}", None),
            ("${:}", None),
            ("${{x}", None),
            ("${HOME", None),
            ("${", None),
            ("${HOME:=x}", None),
            ("${HOME=x}", None),
            ("${NONE:Y}", None),
            ("${NONE:-a ${b}", None),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env, '\\').ok().as_deref(), expected, "{text}");
        }
    }

    /// SEMANTICS 18
    #[test]
    fn every_form_of_substitution() {
        let cases = [
            ("${NONE:-w}", "w"),
            ("${EMPTY:-w}", "w"),
            ("${EMPTY-w}", ""),
            ("${NONE-w}", "w"),
            ("${HOME:-w}", "/home"),
            ("${NONE:-${NONE:-$HOME}}", "/home"),
            ("${NONE:-\\$HOME:}xx", "$HOME:xx"),
            ("${NONE:-'a}'}", "a}"),
            ("${HOME:+w}", "w"),
            ("${EMPTY:+w}", ""),
            ("${EMPTY+w}", "w"),
            ("${NONE+w}", ""),
            ("${HOME:?m}", "/home"),
            ("${EMPTY?m}", ""),
            ("${XXYY#x}", "xyy"),
            ("${XXYY#*x}", "xyy"),
            ("${XXYY##*x}", "yy"),
            ("${XXYY#*x*y}", "y"),
            ("${XXYY#}", "xxyy"),
            ("${XXYY%y}", "xxy"),
            ("${XXYY%%x*}", ""),
            ("${XXYY%x}", "xxyy"),
            ("${STARS%%\\**\\*}", "a"),
            ("${ODD#()[]{\\}^$.\\*\\?|\\\\}", "x"),
            ("${FILE/$PATTERN/}", "/tmp/bar.txt"),
            ("${FILE//$PATTERN/}", "/bar.txt"),
            ("${FILE//\\//-}", "-tmp-tmp-bar.txt"),
            ("${FILE/%x/y}", "/tmp/tmp/bar.txt"),
            ("${XXYY/?x/_}", "_yy"),
            ("${XXYY/$EMPTY/ww}", "wwxxyy"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env, '\\').as_deref(), Ok(expected), "{text}");
        }
        for text in ["${XXYY/x}", "${XXYY//}", "${XXYY#\\a}", "${XXYY:#x}"] {
            assert!(expand(text, &env, '\\').is_err(), "{text}");
        }
    }

    #[test]
    fn a_required_variable_says_so() {
        let error = expand("${NONE:?give me}", &env, '\\').unwrap_err();
        assert_eq!(error.to_string(), "NONE: give me");
        assert_eq!(
            error.hint().as_deref(),
            Some("give it with --build-arg NONE=…")
        );
        let error = expand("${EMPTY:?}", &env, '\\').unwrap_err();
        assert_eq!(error.to_string(), "EMPTY: is not allowed to be empty");
        let error = expand("${NONE?}", &env, '\\').unwrap_err();
        assert_eq!(error.to_string(), "NONE: is not allowed to be unset");
    }

    #[test]
    fn the_other_escape_character_leaves_backslashes_alone() {
        assert_eq!(expand("C:\\x`$HOME", &env, '`').unwrap(), "C:\\x$HOME");
    }

    /// SEMANTICS 21
    #[test]
    fn words_are_split_after_expansion() {
        let cases: [(&str, &[&str]); 7] = [
            ("a b", &["a", "b"]),
            ("x${SPACES}y", &["x", "ab", "c", "y"]),
            ("x\"${SPACES}\"y", &["x  ab c y"]),
            ("a\\ b", &["a b"]),
            ("$NONE", &[]),
            ("\"\"", &[]),
            ("$SPACES$SPACES", &["ab", "c", "ab", "c"]),
        ];
        for (text, expected) in cases {
            assert_eq!(
                word(text).expand_words(&env, '\\').unwrap(),
                expected,
                "{text}"
            );
        }
    }

    /// SEMANTICS 12
    #[test]
    fn a_heredoc_keeps_quotes_and_knows_backslashes_only() {
        let cases = [
            ("\"$HOME\" '$HOME'", "\"/home\" '/home'"),
            ("a\\\nb", "a\nb"),
            ("\\\\ \\$HOME", "\\ $HOME"),
            ("`$HOME", "`/home"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand_heredoc(text, &env).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn hostile_words_are_refused_and_not_run_into() {
        let deep = "${x:-".repeat(100_000);
        assert_eq!(expand(&deep, &env, '\\'), Err(ExpandError::TooDeep));
        let big = |_: &str| Some("x".repeat(1 << 20));
        assert_eq!(
            expand(&"$a".repeat(17), &big, '\\'),
            Err(ExpandError::TooLong)
        );
        let quoted = format!("\"{}\"", "$a".repeat(17));
        assert_eq!(expand(&quoted, &big, '\\'), Err(ExpandError::TooLong));
        assert_eq!(
            expand("${a//x/xxxxxxxxxxxxxxxxxxxxxxxxxx}", &big, '\\'),
            Err(ExpandError::TooLong)
        );
    }
}
