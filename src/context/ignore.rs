//! .dockerignore: which paths of a context do not take part in a build.
//! See <https://docs.docker.com/build/concepts/context/#dockerignore-files>.

use super::pattern::{Pattern, PatternError};

/// An ignore file that can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{name}:{line}: {kind}")]
pub struct IgnoreError {
    /// The file.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub kind: IgnoreErrorKind,
}

/// What is wrong with a line of an ignore file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IgnoreErrorKind {
    /// `!` and nothing behind it.
    #[error("\"!\" needs a pattern behind it")]
    BareException,
    /// A broken pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl IgnoreError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match &self.kind {
            IgnoreErrorKind::BareException => Some("write !pattern, or remove the line".to_owned()),
            IgnoreErrorKind::Pattern(error) => error.hint(),
        }
    }
}

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The line, from 1.
    pub line: usize,
    /// The line without blanks at its ends, as far as it is text.
    pub text: String,
    /// Whether it starts with `!`.
    pub exception: bool,
    /// The cleaned pattern.
    cleaned: Vec<u8>,
    matcher: Matcher,
}

/// How a rule is matched. `**name` without further wildcards matches any path that ends so,
/// as in the reference, where `**name*` does not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    Exact(Vec<u8>),
    Suffix(Vec<u8>),
    Pattern(Pattern),
}

impl Rule {
    fn matches(&self, path: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact(own) => path == own,
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path)
            }
            Matcher::Pattern(pattern) => pattern.matches(path),
        }
    }

    /// Tells whether the rule may match a path below `directory`: sure if not.
    fn may_match_below(&self, directory: &[u8]) -> bool {
        if directory.is_empty() {
            return true;
        }
        let mut parts = directory.split(|b| *b == b'/');
        let mut patterns = self.cleaned.split(|b| *b == b'/');
        loop {
            let Some(pattern) = patterns.next() else {
                return false;
            };
            // A class or an escape may hold a slash that is no separator.
            if pattern.windows(2).any(|pair| pair == b"**")
                || pattern.iter().any(|b| matches!(b, b'[' | b'\\'))
            {
                return true;
            }
            let Some(part) = parts.next() else {
                return true;
            };
            if !Pattern::parse(pattern).is_ok_and(|pattern| pattern.matches(part)) {
                return false;
            }
        }
    }
}

/// The pattern of `COPY --parents`: it takes what it matches, with all that lies below that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include(Rule);

impl Include {
    /// Reads a pattern as a line of an ignore file is read, except that every character
    /// counts: no `!`, no blanks at the ends.
    ///
    /// # Errors
    /// It is malformed.
    pub fn parse(cleaned: &[u8]) -> Result<Include, PatternError> {
        Ok(Include(Rule {
            line: 1,
            text: String::from_utf8_lossy(cleaned).into_owned(),
            exception: false,
            cleaned: cleaned.to_vec(),
            matcher: matcher(cleaned)?,
        }))
    }

    /// Tells whether the pattern is empty, which means all.
    pub fn is_all(&self) -> bool {
        self.0.cleaned.is_empty()
    }

    /// Tells whether the pattern matches a path; its parents are not looked at.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.is_all() || self.0.matches(path)
    }

    /// Tells whether the pattern may match a path below `directory`: sure if not.
    pub fn may_match_below(&self, directory: &[u8]) -> bool {
        self.is_all() || self.0.may_match_below(directory)
    }

    /// Returns the only path that the pattern matches, where it has no wildcards.
    pub fn literal(&self) -> Option<Vec<u8>> {
        Pattern::parse(&self.0.cleaned).ok()?.literal()
    }
}

/// The rules of an ignore file, in order: the last one that matches a path or one of its
/// parents decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreFile {
    /// What to call the file in messages.
    pub name: String,
    rules: Vec<Rule>,
}

/// What an ignore file says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether the path is left out.
    pub excluded: bool,
    /// The rule that decided; none where no rule says anything.
    pub rule: Option<&'a Rule>,
    /// How many rules up to and including that one.
    upto: usize,
}

impl IgnoreFile {
    /// Reads an ignore file.
    pub fn parse(text: &[u8], name: &str) -> Result<IgnoreFile, IgnoreError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let lines = text.split(|b| *b == b'\n').enumerate();
        let lines = lines.filter(|(_, line)| !line.starts_with(b"#"));
        IgnoreFile::read(lines, name)
    }

    /// Reads patterns, as `COPY --exclude` gives them.
    pub fn from_patterns<'p>(
        patterns: impl IntoIterator<Item = &'p [u8]>,
        name: &str,
    ) -> Result<IgnoreFile, IgnoreError> {
        IgnoreFile::read(patterns.into_iter().enumerate(), name)
    }

    fn read<'p>(
        lines: impl Iterator<Item = (usize, &'p [u8])>,
        name: &str,
    ) -> Result<IgnoreFile, IgnoreError> {
        let mut rules = Vec::new();
        for (index, line) in lines {
            let line = trim(line);
            if line.is_empty() {
                continue;
            }
            let error = |kind| IgnoreError {
                name: name.to_owned(),
                line: index + 1,
                kind,
            };
            let (exception, pattern) = match line.strip_prefix(b"!") {
                Some(pattern) => (true, trim(pattern)),
                None => (false, line),
            };
            let mut cleaned = match pattern {
                b"" => Vec::new(),
                pattern => clean(pattern),
            };
            if cleaned.len() > 1 && cleaned[0] == b'/' {
                cleaned.remove(0);
            }
            // The reference looks for the `!` once more when the path is clean: `./!a` too is
            // an exception.
            let exception = exception || {
                let hidden = cleaned.starts_with(b"!");
                cleaned.drain(..usize::from(hidden));
                hidden
            };
            if cleaned.is_empty() {
                return Err(error(IgnoreErrorKind::BareException));
            }
            let matcher = matcher(&cleaned).map_err(|e| error(e.into()))?;
            rules.push(Rule {
                line: index + 1,
                text: String::from_utf8_lossy(line).into_owned(),
                exception,
                cleaned,
                matcher,
            });
        }
        Ok(IgnoreFile {
            name: name.to_owned(),
            rules,
        })
    }

    /// Tells whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns what holds for the root of the context, which is never excluded.
    pub fn root(&self) -> Decision<'_> {
        Decision {
            excluded: false,
            rule: None,
            upto: 0,
        }
    }

    /// Returns what holds for a path, relative and with `/` between its parts. The root itself
    /// always takes part.
    pub fn decide(&self, path: &[u8]) -> Decision<'_> {
        if path.is_empty() {
            return self.root();
        }
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        let ends = ends.map(|(at, _)| at).chain([path.len()]);
        ends.fold(self.root(), |parent, end| {
            self.decide_below(parent, &path[..end])
        })
    }

    /// Returns what holds for a path, given what holds for its parent directory: a walk asks
    /// so, since only rules behind the parent's can change anything.
    pub fn decide_below<'a>(&'a self, parent: Decision<'a>, path: &[u8]) -> Decision<'a> {
        let rules = &self.rules[parent.upto..];
        match rules.iter().rposition(|rule| rule.matches(path)) {
            Some(at) => Decision {
                excluded: !rules[at].exception,
                rule: Some(&rules[at]),
                upto: parent.upto + at + 1,
            },
            None => parent,
        }
    }

    /// Returns the rule, as `file:line: text`, by which a source of COPY is left out whatever
    /// it is. Where there are exceptions, something below it may be there all the same.
    pub fn excludes_for_good(&self, source: &str) -> Option<String> {
        if self.rules.iter().any(|rule| rule.exception) {
            return None;
        }
        let parts = source.split('/').filter(|part| !matches!(*part, "" | "."));
        let path = parts.collect::<Vec<_>>().join("/");
        let rule = match path.is_empty() {
            true => self
                .rules
                .iter()
                .find(|rule| matches!(rule.cleaned.as_slice(), b"*" | b"**" | b"**/*"))?,
            false => {
                let decision = self.decide(path.as_bytes());
                decision.rule.filter(|_| decision.excluded)?
            }
        };
        Some(format!("{}:{}: {}", self.name, rule.line, rule.text))
    }

    /// Tells whether an exception may bring back something below a directory that is
    /// excluded; if not, it need not be walked.
    pub fn may_reinclude_below(&self, directory: &[u8]) -> bool {
        let decided = self.decide(directory).upto;
        self.rules[decided..]
            .iter()
            .any(|rule| rule.exception && rule.may_match_below(directory))
    }
}

/// Returns a line without white space at its ends: as in the reference that of all scripts,
/// as far as the line is text.
fn trim(line: &[u8]) -> &[u8] {
    match std::str::from_utf8(line) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => line.trim_ascii(),
    }
}

fn matcher(cleaned: &[u8]) -> Result<Matcher, PatternError> {
    // Checked in Go's own syntax, where `**` is two stars.
    Pattern::parse(cleaned)?;
    let is_plain = |bytes: &[u8]| {
        !bytes
            .iter()
            .any(|b| matches!(b, b'*' | b'?' | b'[' | b']' | b'\\'))
    };
    Ok(match cleaned.strip_prefix(b"**") {
        Some(suffix) if is_plain(suffix) => Matcher::Suffix(suffix.to_vec()),
        None if is_plain(cleaned) => Matcher::Exact(cleaned.to_vec()),
        _ => Matcher::Pattern(Pattern::parse_tree(cleaned)?),
    })
}

/// Returns the shortest path with the same meaning, as Go's `filepath.Clean`.
fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> IgnoreFile {
        IgnoreFile::parse(text.as_bytes(), ".dockerignore").unwrap()
    }

    fn excluded(text: &str, path: &str) -> bool {
        file(text).decide(path.as_bytes()).excluded
    }

    /// SEMANTICS 53, SEMANTICS 54
    #[test]
    fn patterns_match_as_in_the_reference() {
        let cases: [(&str, &str, bool); 64] = [
            ("**", "file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**", "dir", false),
            ("**/dir", "dir", true),
            ("**/dir", "dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir3/file", true),
            ("**file", "file", true),
            ("**file", "dir/dir/file", true),
            ("**file", "dir/myfile", true),
            ("**file*", "dir/myfile", false),
            ("**/file", "dir/dir/file", true),
            ("**/file", "dir/myfile", false),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt**", "a/file.txt", true),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcZdef", false),
            ("abc?def", "abcZdef", true),
            ("a\\\\", "a\\", true),
            ("a\\*b", "a*b", true),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/dir2/foo/bar", true),
            ("abc/**", "abc/def/ghi", true),
            ("**/.foo", ".foo", true),
            ("**/.foo", "bar.foo", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("*a|b{2}+$", "xa|b{2}+$", true),
            ("*a|b", "b", false),
            ("dist/*.whl", "dist/x-2.4.0rc3+g08-any.whl", true),
            ("docs", "docs/a/b", true),
            ("docs/", "docs", true),
            ("/docs", "docs", true),
            ("./docs/../docs//x", "docs/x", true),
            ("../docs", "docs", false),
            ("docs", "docs2", false),
            ("doc", "a/doc", false),
            ("*", "a/b/c", true),
            ("*/b", "a/b", true),
            ("*/b", "a/c/b", false),
            ("  a b\t\r", "a b", true),
            ("\u{a0}a\u{b}", "a", true),
            ("!!a", "!a", false),
            ("*\n!!a", "!a", false),
            ("*\n./!a", "a", false),
            ("*\n/!a", "a", false),
            ("\\!a", "!a", true),
            ("#a", "#a", false),
            (" #a", "#a", true),
            ("\u{feff}a", "a", true),
            ("\u{feff}#a\nb", "b", true),
        ];
        for (text, path, expected) in cases {
            assert_eq!(excluded(text, path), expected, "{text:?} {path}");
        }
    }

    /// SEMANTICS 53
    #[test]
    fn the_last_match_wins_and_parents_cover_their_children() {
        let cases = [
            ("docs\n!docs/README.md", "docs/README.md", false),
            ("docs\n!docs/README.md", "docs/other", true),
            ("docs/*\n!docs/README.md", "docs/README.md", false),
            ("!x.go\n*.go", "x.go", true),
            ("*.go\n!x.go", "x.go", false),
            ("**\n!util/web", "util/web/foo", false),
            ("**\n!util/web\nutil/web/foo", "util/web/foo", true),
            ("docs\n  !  docs/x  ", "docs/x", false),
            ("docs\n! /docs/x", "docs/x", false),
            ("docs\n!docs/*/keep", "docs/a/keep/b", false),
            ("a/b\n!a", "a/b", false),
        ];
        for (text, path, expected) in cases {
            assert_eq!(excluded(text, path), expected, "{text:?} {path}");
        }
    }

    #[test]
    fn a_decision_names_its_rule() {
        let file = file("# comment\n\n*.log\n!keep.log\n");
        let rule = file.decide(b"a.log").rule.unwrap();
        assert_eq!((rule.line, rule.text.as_str()), (3, "*.log"));
        let rule = file.decide(b"keep.log").rule.unwrap();
        assert_eq!((rule.line, rule.exception), (4, true));
        assert_eq!(file.decide(b"x").rule, None);
    }

    /// SEMANTICS 53
    #[test]
    fn only_subtrees_that_an_exception_can_reach_are_walked() {
        let cases = [
            ("docs\n!docs/x", "docs", true),
            ("docs\n!docs/a/x", "docs/a", true),
            ("docs\n!docs/a/x", "docs/b", false),
            ("docs\n!other/x", "docs", false),
            ("docs\n!*/x", "docs", true),
            ("docs\n!*/x", "docs/a", false),
            ("docs\n!d?c*/*/x", "docs/a", true),
            ("docs\n!**/x", "docs/a/b/c", true),
            ("docs\n!x", "docs", false),
            ("!docs/x\ndocs", "docs", false),
            ("docs", "docs", false),
            ("a\n!a[^b]c/d", "a", true),
        ];
        for (text, directory, expected) in cases {
            let found = file(text).may_reinclude_below(directory.as_bytes());
            assert_eq!(found, expected, "{text:?} {directory}");
        }
    }

    #[test]
    fn root_takes_part_whatever_the_rules_say() {
        let file = file("*\n!kept");
        assert!(!file.decide(b"").excluded);
        assert!(file.decide(b"x").excluded);
        assert!(file.may_reinclude_below(b""));
    }

    #[test]
    fn a_walk_decides_as_a_single_question_does() {
        let file = file("*\n!src\nsrc/**/*.o\n!src/keep/\n**/tmp");
        for path in [
            "a",
            "src/a.o",
            "src/keep/a.o",
            "src/keep/tmp/x",
            "src/x/y.c",
        ] {
            let mut decision = file.root();
            for end in path
                .match_indices('/')
                .map(|(at, _)| at)
                .chain([path.len()])
            {
                decision = file.decide_below(decision, &path.as_bytes()[..end]);
            }
            assert_eq!(decision, file.decide(path.as_bytes()), "{path}");
        }
        assert!(!file.decide(b"src/keep/a.o").excluded);
        assert!(file.decide(b"src/keep/tmp/x").excluded);
    }

    #[test]
    fn broken_lines_are_errors_with_their_place() {
        let error = IgnoreFile::parse(b"a\n !  \n", "x.ignore").unwrap_err();
        assert_eq!(
            (error.line, error.kind),
            (2, IgnoreErrorKind::BareException)
        );
        assert!(IgnoreFile::parse(b"./!", "x.ignore").is_err());
        let error = IgnoreFile::parse(b"[", "x.ignore").unwrap_err();
        assert!(error.to_string().starts_with("x.ignore:1: invalid pattern"));
        assert!(error.hint().is_some());
    }

    #[test]
    fn paths_are_bytes() {
        let file = IgnoreFile::parse(b"a\xff*\n", "i").unwrap();
        assert!(file.decide(b"a\xff\xfe/x").excluded);
        assert!(!file.decide(b"a\xfe").excluded);
    }

    #[test]
    fn excludes_of_a_copy_have_the_same_syntax() {
        let rules = IgnoreFile::from_patterns([b"*.o".as_slice(), b"!keep.o", b"#x"], "--exclude");
        let rules = rules.unwrap();
        assert!(rules.decide(b"a.o").excluded);
        assert!(!rules.decide(b"keep.o").excluded);
        assert!(rules.decide(b"#x").excluded);
        assert!(!rules.is_empty());
    }
}
