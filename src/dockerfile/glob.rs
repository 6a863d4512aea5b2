//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and escapes, nothing else.

/// A pattern with an escape before a character that needs none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid escape '\\{0}' in a pattern")]
pub struct GlobError(String);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Any,
}

impl Token {
    /// As in the reference, wildcards do not match a line feed.
    fn matches(self, c: char) -> bool {
        match self {
            Token::Char(own) => own == c,
            Token::One | Token::Any => c != '\n',
        }
    }
}

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Glob(Vec<Token>);

impl Glob {
    pub(super) fn parse(text: &str) -> Result<Glob, GlobError> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' if tokens.last() == Some(&Token::Any) => continue,
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => match chars.next() {
                    Some(c @ ('}' | '/' | '*' | '?' | '\\')) => Token::Char(c),
                    other => return Err(GlobError(other.map(String::from).unwrap_or_default())),
                },
                c => Token::Char(c),
            });
        }
        Ok(Glob(tokens))
    }

    /// Returns `value` without the part at its start that matches.
    pub(super) fn trim_start(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let length = prefix(&self.0, &chars, longest).unwrap_or(0);
        chars[length..].iter().collect()
    }

    /// Returns `value` without the part at its end that matches.
    pub(super) fn trim_end(&self, value: &str, longest: bool) -> String {
        let mut chars: Vec<char> = value.chars().rev().collect();
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let length = prefix(&tokens, &chars, longest).unwrap_or(0);
        chars.drain(..length);
        chars.iter().rev().collect()
    }

    /// Returns `value` with the first match or all of them replaced; nothing if the result
    /// would be longer than `limit`. The leftmost match counts, and of those the longest.
    pub(super) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
        limit: usize,
    ) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut last_end = None;
        let mut replaced = false;
        while at <= chars.len() {
            let found = match replaced && !all {
                true => None,
                false => prefix(&self.0, &chars[at..], true),
            };
            match found {
                // An empty match right behind the last one is none.
                Some(length) if length > 0 || last_end != Some(at) => {
                    out.push_str(replacement);
                    replaced = true;
                    last_end = Some(at + length);
                    if length > 0 {
                        at += length;
                        continue;
                    }
                }
                _ => {}
            }
            if let Some(c) = chars.get(at) {
                out.push(*c);
            }
            at += 1;
            if out.len() > limit {
                return None;
            }
        }
        (out.len() <= limit).then_some(out)
    }
}

/// Returns how many characters at the start of `text` match, all states at once so that no
/// pattern takes exponential time.
fn prefix(tokens: &[Token], text: &[char], longest: bool) -> Option<usize> {
    let end = tokens.len();
    let mut states = vec![false; end + 1];
    let mut next = vec![false; end + 1];
    let enter = |states: &mut [bool], mut at: usize| {
        states[at] = true;
        while at < end && tokens[at] == Token::Any {
            at += 1;
            states[at] = true;
        }
    };
    enter(&mut states, 0);
    let mut found = None;
    for length in 0..=text.len() {
        if states[end] {
            found = Some(length);
            if !longest {
                break;
            }
        }
        let Some(&c) = text.get(length) else { break };
        next.fill(false);
        let mut alive = false;
        for at in 0..end {
            if states[at] && tokens[at].matches(c) {
                alive = true;
                let to = if tokens[at] == Token::Any { at } else { at + 1 };
                enter(&mut next, to);
            }
        }
        if !alive {
            break;
        }
        std::mem::swap(&mut states, &mut next);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEMANTICS 18
    #[test]
    fn only_star_and_question_mark_are_special() {
        let glob = Glob::parse("[a]?").unwrap();
        assert_eq!(glob.trim_start("[a]xy", false), "y");
        assert_eq!(glob.trim_start("axy", false), "axy");
        assert!(Glob::parse("\\a").is_err());
        assert!(Glob::parse("a\\").is_err());
    }

    #[test]
    fn a_match_of_all_is_replaced_once() {
        let glob = Glob::parse("*").unwrap();
        assert_eq!(glob.replace("xxyy", "r", true, 100).unwrap(), "r");
        let empty = Glob::parse("").unwrap();
        assert_eq!(empty.replace("ab", "-", true, 100).unwrap(), "-a-b-");
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let glob = Glob::parse(&"*a".repeat(40)).unwrap();
        let text = "a".repeat(2000) + "b";
        assert_eq!(glob.trim_end(&text, true), text);
    }
}
