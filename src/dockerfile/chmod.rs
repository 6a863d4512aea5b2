//! `--chmod` of COPY and ADD, read after expansion: octal, or symbolic as chmod(1) has it.

/// A `--chmod` that can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid mode {0:?}")]
pub struct ChmodError(pub String);

impl ChmodError {
    /// Returns what a mode looks like.
    pub fn hint(&self) -> Option<String> {
        Some("a mode is octal from 0 to 07777, or symbolic as u=rwX,go=rX".to_owned())
    }
}

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// Exactly these bits, also for created parents.
    Octal(u32),
    /// Changes to the bits that are there.
    Symbolic(Vec<Clause>),
}

/// One operation of a symbolic mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Which bits may change: those of `u`, `g`, `o`.
    who: u32,
    /// `+`, `-` or `=`.
    operator: char,
    /// `rwxst` for all classes; `who` picks from them.
    bits: u32,
    /// `X`: execute, if it is a directory or anybody may execute it already.
    execute_if: bool,
    /// A class (its shift) whose bits are copied.
    copied: Vec<u32>,
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o1007;

impl Chmod {
    /// Reads a mode.
    pub fn parse(text: &str) -> Result<Chmod, ChmodError> {
        let error = || ChmodError(text.chars().take(100).collect());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok();
            let mode = mode.filter(|mode| *mode <= 0o7777);
            return mode.map(Chmod::Octal).ok_or_else(error);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let rest = part.trim_start_matches(['u', 'g', 'o', 'a']);
            let who = part[..part.len() - rest.len()]
                .chars()
                .fold(0, |who, c| match c {
                    'u' => who | USER,
                    'g' => who | GROUP,
                    'o' => who | OTHER,
                    _ => USER | GROUP | OTHER,
                });
            let who = if who == 0 { USER | GROUP | OTHER } else { who };
            if !rest.starts_with(['+', '-', '=']) {
                return Err(error());
            }
            for c in rest.chars() {
                if matches!(c, '+' | '-' | '=') {
                    clauses.push(Clause {
                        who,
                        operator: c,
                        bits: 0,
                        execute_if: false,
                        copied: Vec::new(),
                    });
                    continue;
                }
                let clause = clauses.last_mut().ok_or_else(error)?;
                match c {
                    'r' => clause.bits |= 0o444,
                    'w' => clause.bits |= 0o222,
                    'x' => clause.bits |= 0o111,
                    's' => clause.bits |= 0o6000,
                    't' => clause.bits |= 0o1000,
                    'X' => clause.execute_if = true,
                    'u' => clause.copied.push(6),
                    'g' => clause.copied.push(3),
                    'o' => clause.copied.push(0),
                    _ => return Err(error()),
                }
            }
        }
        Ok(Chmod::Symbolic(clauses))
    }

    /// Returns the permission bits of a file that had `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let clauses = match self {
            Chmod::Octal(mode) => return *mode,
            Chmod::Symbolic(clauses) => clauses,
        };
        clauses.iter().fold(mode & 0o7777, |mode, clause| {
            let mut bits = clause.bits;
            if clause.execute_if && (is_directory || mode & 0o111 != 0) {
                bits |= 0o111;
            }
            for shift in &clause.copied {
                let class = (mode >> shift) & 0o7;
                bits |= class << 6 | class << 3 | class;
            }
            bits &= clause.who;
            match clause.operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => mode & !clause.who | bits,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEMANTICS 46
    #[test]
    fn octal_modes_end_at_07777() {
        let cases = [
            ("0", Some(0)),
            ("755", Some(0o755)),
            ("07777", Some(0o7777)),
            ("10000", None),
            ("888", None),
            ("7x", None),
            ("99999999999999", None),
        ];
        for (text, expected) in cases {
            let mode = Chmod::parse(text).ok().map(|mode| mode.apply(0o600, false));
            assert_eq!(mode, expected, "{text}");
        }
    }

    /// SEMANTICS 46
    #[test]
    fn symbolic_modes_change_what_is_there() {
        let cases = [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("u=rwX,go=rX", 0o711, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("go=", 0o777, false, 0o700),
            ("g=u", 0o750, false, 0o770),
            ("go=u-w", 0o700, false, 0o755),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("+t", 0o777, true, 0o1777),
            ("u+rw-x", 0o100, false, 0o600),
            ("o+s", 0o644, false, 0o644),
        ];
        for (text, before, directory, after) in cases {
            let mode = Chmod::parse(text).unwrap().apply(before, directory);
            assert_eq!(mode, after, "{text}: {mode:o}");
        }
        for text in ["", "x", "u", "u=q", "+x,", "u+x,,g+x", "-é"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
