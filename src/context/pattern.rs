//! Patterns over paths as bytes: Go's `filepath.Match`, and with `**` those of
//! .dockerignore.
//! See <https://pkg.go.dev/path/filepath#Match>.

/// A malformed pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid pattern {0:?}: a '[' without its ']', or a '\\' at the end")]
pub struct PatternError(pub String);

impl PatternError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        // `["a", 'b']` is no array, and its first word comes here.
        let hint = match self.0.starts_with('[') && self.0.ends_with(',') {
            true => "an array has double quotes around each string: [\"a\", \"b\"]",
            false => "write \\[ and \\\\ for plain characters",
        };
        Some(hint.to_owned())
    }
}

/// A character, or a byte that is none (above all code points).
type Unit = u32;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    One(Unit),
    /// `?`: any but `/`.
    Any,
    /// `*`: any number of any but `/`.
    Star,
    /// `[…]`
    Class {
        negated: bool,
        ranges: Vec<(Unit, Unit)>,
    },
    /// `**/` or `**` before more: nothing, or anything up to a `/`. Two states: before it,
    /// and [`Token::WithinTree`].
    Tree,
    WithinTree,
    /// `**` at the end: anything.
    Rest,
}

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
    special: bool,
}

impl Pattern {
    /// Reads a pattern of `filepath.Match`: `*`, `?`, `[a-z]`, `[^a]` and `\`.
    pub fn parse(text: &[u8]) -> Result<Pattern, PatternError> {
        Pattern::read(text, false)
    }

    /// Reads a pattern in which `**` stands for any number of directories.
    pub(super) fn parse_tree(text: &[u8]) -> Result<Pattern, PatternError> {
        Pattern::read(text, true)
    }

    fn read(text: &[u8], trees: bool) -> Result<Pattern, PatternError> {
        let error = || PatternError(String::from_utf8_lossy(&text[..text.len().min(200)]).into());
        let mut tokens = Vec::new();
        let mut special = false;
        let mut rest = text;
        while let Some(unit) = take(&mut rest) {
            special |= matches!(char::from_u32(unit), Some('*' | '?' | '['));
            match char::from_u32(unit) {
                Some('*') if trees && rest.first() == Some(&b'*') => {
                    rest = &rest[1..];
                    rest = rest.strip_prefix(b"/").unwrap_or(rest);
                    match rest.is_empty() {
                        true => tokens.push(Token::Rest),
                        false => tokens.extend([Token::Tree, Token::WithinTree]),
                    }
                }
                Some('*') => {
                    if tokens.last() != Some(&Token::Star) {
                        tokens.push(Token::Star);
                    }
                }
                Some('?') => tokens.push(Token::Any),
                Some('[') => tokens.push(class(&mut rest).ok_or_else(error)?),
                Some('\\') => tokens.push(Token::One(take(&mut rest).ok_or_else(error)?)),
                _ => tokens.push(Token::One(unit)),
            }
        }
        Ok(Pattern { tokens, special })
    }

    /// Tells whether the pattern has wildcards (escaped ones don't count).
    pub fn has_wildcards(&self) -> bool {
        self.special
    }

    /// Returns the one path that a pattern without wildcards matches, escapes resolved.
    pub fn literal(&self) -> Option<Vec<u8>> {
        let mut path = Vec::new();
        for token in &self.tokens {
            match token {
                Token::One(unit) => push(&mut path, *unit),
                _ => return None,
            }
        }
        Some(path)
    }

    /// Tells whether the pattern matches the whole of `path`.
    /// All states are followed at once, so that no pattern takes exponential time.
    pub fn matches(&self, path: &[u8]) -> bool {
        let end = self.tokens.len();
        let mut states = vec![false; end + 1];
        let mut next = vec![false; end + 1];
        self.enter(&mut states, 0);
        let mut rest = path;
        while let Some(unit) = take(&mut rest) {
            next.fill(false);
            let mut alive = false;
            let live = self.tokens.iter().enumerate().filter(|(at, _)| states[*at]);
            for (at, token) in live {
                let slash = unit == Unit::from(b'/');
                let to = match token {
                    Token::One(own) if *own == unit => at + 1,
                    Token::Any if !slash => at + 1,
                    Token::Star if !slash => at,
                    Token::Class { negated, ranges }
                        if *negated != ranges.iter().any(|(a, b)| (*a..=*b).contains(&unit)) =>
                    {
                        at + 1
                    }
                    Token::WithinTree => {
                        if slash {
                            self.enter(&mut next, at + 1);
                        }
                        at
                    }
                    Token::Rest => at,
                    _ => continue,
                };
                self.enter(&mut next, to);
                alive = true;
            }
            if !alive {
                return false;
            }
            std::mem::swap(&mut states, &mut next);
        }
        states[end]
    }

    /// Marks a state, and those that it reaches without eating anything.
    fn enter(&self, states: &mut [bool], mut at: usize) {
        while !states[at] {
            states[at] = true;
            match self.tokens.get(at) {
                Some(Token::Star | Token::Rest) => at += 1,
                Some(Token::Tree) => {
                    states[at + 1] = true;
                    at += 2;
                }
                _ => return,
            }
        }
    }
}

/// Reads the rest of a class, behind its `[`.
fn class(rest: &mut &[u8]) -> Option<Token> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        *rest = &rest[1..];
    }
    let bound = |rest: &mut &[u8]| match *rest.first()? {
        b'-' | b']' => None,
        b'\\' => {
            *rest = &rest[1..];
            take(rest)
        }
        _ => take(rest),
    };
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.first() == Some(&b']') {
            *rest = &rest[1..];
            return Some(Token::Class { negated, ranges });
        }
        let low = bound(rest)?;
        let high = match rest.first() {
            Some(b'-') => {
                *rest = &rest[1..];
                bound(rest)?
            }
            _ => low,
        };
        ranges.push((low, high));
    }
}

const NOT_UTF8: Unit = 0x11_0000;

/// Eats one character, or one byte that begins none.
fn take(rest: &mut &[u8]) -> Option<Unit> {
    let first = *rest.first()?;
    if first.is_ascii() {
        *rest = &rest[1..];
        return Some(first.into());
    }
    let length = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let found = rest.get(..length).and_then(|b| std::str::from_utf8(b).ok());
    if let Some(c) = found.and_then(|text| text.chars().next()) {
        *rest = &rest[length..];
        return Some(c.into());
    }
    *rest = &rest[1..];
    Some(NOT_UTF8 + Unit::from(first))
}

fn push(out: &mut Vec<u8>, unit: Unit) {
    match char::from_u32(unit) {
        Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.push((unit - NOT_UTF8) as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEMANTICS 41
    #[test]
    fn patterns_match_as_in_go() {
        let cases: [(&str, &str, bool); 32] = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("[!a]", "!", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("a[^a]b", "a☺b", true),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("a**b", "axb", true),
            ("a**b", "a/b", false),
            ("(a|b)+", "(a|b)+", true),
        ];
        for (pattern, path, expected) in cases {
            let found = Pattern::parse(pattern.as_bytes()).unwrap();
            assert_eq!(found.matches(path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for text in [
            "[", "[a", "[]a]", "[-]", "[x-]", "[a-b-c]", "[^", "[^bc", "a\\", "[a\\",
        ] {
            assert!(Pattern::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_characters_match_themselves() {
        let pattern = Pattern::parse(b"a\xff?").unwrap();
        assert!(pattern.matches(b"a\xff\xfe"));
        assert!(!pattern.matches(b"a\xfe\xfe"));
        assert_eq!(
            Pattern::parse(b"\xff\xc3").unwrap().literal().unwrap(),
            b"\xff\xc3"
        );
    }

    #[test]
    fn a_literal_has_its_escapes_resolved() {
        let pattern = Pattern::parse("a\\*\\[é".as_bytes()).unwrap();
        assert!(!pattern.has_wildcards());
        assert_eq!(pattern.literal().unwrap(), "a*[é".as_bytes());
        assert!(Pattern::parse(b"a[b]").unwrap().has_wildcards());
        assert_eq!(Pattern::parse(b"a*").unwrap().literal(), None);
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = Pattern::parse("*a".repeat(50).as_bytes()).unwrap();
        assert!(!pattern.matches(("a".repeat(4000) + "b").as_bytes()));
        let pattern = Pattern::parse_tree("**/".repeat(100_000).as_bytes()).unwrap();
        assert!(pattern.matches(b"a/b"));
    }
}
