//! An ignore matcher as simple as can be: it tries every length for every star.

/// Tells whether a pattern matches all of a path.
fn matches(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] => {
            let rest = rest.strip_prefix(&['/']).unwrap_or(rest);
            if rest.is_empty() {
                return true;
            }
            // Nothing, or anything that ends with a slash.
            matches(rest, path)
                || (0..path.len()).any(|at| path[at] == '/' && matches(rest, &path[at + 1..]))
        }
        ['*', rest @ ..] => {
            let end = path.iter().position(|c| *c == '/').unwrap_or(path.len());
            (0..=end).any(|length| matches(rest, &path[length..]))
        }
        ['[', rest @ ..] => {
            let Some((c, after)) = path.split_first() else {
                return false;
            };
            let (is_in, rest) = class(rest, *c);
            is_in && matches(rest, after)
        }
        ['\\', c, rest @ ..] => path.first() == Some(c) && matches(rest, &path[1..]),
        ['?', rest @ ..] => path.first().is_some_and(|c| *c != '/') && matches(rest, &path[1..]),
        [c, rest @ ..] => path.first() == Some(c) && matches(rest, &path[1..]),
    }
}

/// Tells whether a class, which is well formed, has a character; returns what follows it.
fn class(pattern: &[char], wanted: char) -> (bool, &[char]) {
    let mut at = 0;
    let negated = pattern[0] == '^';
    if negated {
        at += 1;
    }
    let one = |at: &mut usize| {
        if pattern[*at] == '\\' {
            *at += 1;
        }
        *at += 1;
        pattern[*at - 1]
    };
    let mut is_in = false;
    loop {
        let low = one(&mut at);
        let mut high = low;
        if pattern[at] == '-' {
            at += 1;
            high = one(&mut at);
        }
        is_in |= low <= wanted && wanted <= high;
        if pattern[at] == ']' {
            return (is_in != negated, &pattern[at + 1..]);
        }
    }
}

/// Tells what a list of rules says of a path: each rule is asked for the path and all of its
/// parents, and the last that has an answer is right.
pub fn excluded(rules: &str, path: &str) -> bool {
    let mut excluded = false;
    let rules = rules.strip_prefix('\u{feff}').unwrap_or(rules);
    for line in rules.split('\n').filter(|line| !line.starts_with('#')) {
        let line = line.trim();
        let (mut exception, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        let rooted = pattern.starts_with('/');
        let mut parts: Vec<&str> = Vec::new();
        for part in pattern.split('/').filter(|part| !matches!(*part, "" | ".")) {
            match part {
                ".." if !matches!(parts.last(), None | Some(&"..")) => drop(parts.pop()),
                ".." if rooted => {}
                part => parts.push(part),
            }
        }
        let mut pattern = parts.join("/");
        if !exception && pattern.starts_with('!') {
            exception = true;
            pattern.remove(0);
        }
        if line.is_empty() || pattern.is_empty() {
            continue;
        }
        let fits = |path: &str| match pattern.strip_prefix("**") {
            // `**name`, alone, is any path with that end.
            Some(end) if !end.contains(['*', '?', '[', ']', '\\']) => {
                path.ends_with(end) || (end.starts_with('/') && format!("/{path}") == end)
            }
            _ => {
                let chars = |text: &str| text.chars().collect::<Vec<char>>();
                matches(&chars(&pattern), &chars(path))
            }
        };
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        if parents.chain([path]).any(fits) {
            excluded = !exception;
        }
    }
    excluded
}
