//! Paths within a tree: bytes, relative, clean. The empty path is the root.

use super::LayerError;

/// The longest path of an entry, with room for the NUL that PATH_MAX counts.
pub(super) const MAX_PATH: usize = 4095;
/// NAME_MAX.
pub(super) const MAX_NAME: usize = 255;

/// Returns `path` as text that is unambiguous and reversible: printable UTF-8 as it is, a
/// backslash and every other byte as `\xNN`.
pub fn escape(path: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    // Writing into a String can't fail.
                    let _ = write!(text, "\\x{byte:02x}");
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Returns the bytes that [`escape`] made `text` from, or nothing where it made no such text.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let digits = rest[at..].strip_prefix("\\x")?.get(..2)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

/// Returns the components of any path, without empty ones and `.`; `..` is kept.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/')
        .filter(|c| !c.is_empty() && *c != b".")
}

/// Returns `name` joined to `parent`.
pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    if !parent.is_empty() && !name.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Returns the parent of a clean path and its last component; both are empty for the root.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Returns the clean form of any path, with `..` clamped at the root and no look at links.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut stack: Vec<&[u8]> = Vec::new();
    for component in components(path) {
        if component == b".." {
            stack.pop();
        } else {
            stack.push(component);
        }
    }
    stack.join(&b'/')
}

/// Returns the clean form of a name in an archive: absolute ones count as relative, and one
/// whose `..` leave the root is an error.
pub(super) fn of_entry(name: &[u8]) -> Result<Vec<u8>, LayerError> {
    if name.contains(&0) {
        return Err(LayerError::entry(name, "its name holds a NUL byte"));
    }
    let mut stack: Vec<&[u8]> = Vec::new();
    for component in components(name) {
        if component == b".." {
            if stack.pop().is_none() {
                return Err(LayerError::entry(
                    name,
                    "its name leaves the root by \"..\"",
                ));
            }
        } else if component.len() > MAX_NAME {
            return Err(LayerError::entry(
                name,
                format!("a component of its name is longer than {MAX_NAME} bytes"),
            ));
        } else {
            stack.push(component);
        }
    }
    let path = stack.join(&b'/');
    if path.len() > MAX_PATH {
        return Err(LayerError::entry(
            name,
            format!("its name is longer than {MAX_PATH} bytes"),
        ));
    }
    Ok(path)
}

/// Returns whether `path` is `ancestor` or lies below it.
pub(super) fn is_within(path: &[u8], ancestor: &[u8]) -> bool {
    ancestor.is_empty()
        || path
            .strip_prefix(ancestor)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Another place for what lies below a path.
#[derive(Clone, Debug)]
pub struct Rebase {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Rebase {
    /// Returns the change of place from one path, below which all others are, to another.
    pub fn new(from: &[u8], to: &[u8]) -> Rebase {
        Rebase {
            from: clean(from),
            to: clean(to),
        }
    }

    /// Returns where a path lies then.
    pub fn apply(&self, path: &[u8]) -> Vec<u8> {
        let rest = path.strip_prefix(&self.from[..]).unwrap_or(path);
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        match (self.to.is_empty(), rest.is_empty()) {
            (_, true) => self.to.clone(),
            (true, _) => rest.to_vec(),
            (false, false) => [&self.to[..], b"/", rest].concat(),
        }
    }
}

/// A map from escaped paths in JSON to byte paths in memory.
pub(super) mod serde_map {
    use std::collections::BTreeMap;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<V: Serialize, S: Serializer>(
        map: &BTreeMap<Vec<u8>, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(path, value)| (super::escape(path), value)))
    }

    pub fn deserialize<'de, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Vec<u8>, V>, D::Error> {
        BTreeMap::<String, V>::deserialize(deserializer)?
            .into_iter()
            .map(|(text, value)| {
                let path = super::unescape(&text)
                    .ok_or_else(|| D::Error::custom(format!("malformed path {text:?}")))?;
                Ok((path, value))
            })
            .collect()
    }
}

/// A set of escaped paths in JSON.
pub(super) mod serde_set {
    use std::collections::BTreeSet;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        set: &BTreeSet<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(set.iter().map(|path| super::escape(path)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<Vec<u8>>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .into_iter()
            .map(|text| {
                super::unescape(&text)
                    .ok_or_else(|| D::Error::custom(format!("malformed path {text:?}")))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_a_path_lies_below_another() {
        let apply = |from: &str, to: &str, path: &str| {
            let placed = Rebase::new(from.as_bytes(), to.as_bytes()).apply(path.as_bytes());
            String::from_utf8(placed).unwrap()
        };
        assert_eq!(apply("a/b", "new", "a/b/c/d"), "new/c/d");
        assert_eq!(apply("a/b", "new", "a/b"), "new");
        assert_eq!(apply("a/b", "", "a/b/c"), "c");
        assert_eq!(apply("", "new", "a"), "new/a");
        assert_eq!(apply("", "", "a/b"), "a/b");
    }

    #[test]
    fn escaped_paths_come_back() {
        for path in [
            &b"etc/passwd"[..],
            b"caf\xc3\xa9",
            b"caf\xe9",
            b"back\\slash\\x41",
            b"new\nline",
            b"\xff\xfe\x00",
            b"",
        ] {
            let text = escape(path);
            assert_eq!(unescape(&text).as_deref(), Some(path), "{text}");
        }
        assert_eq!(escape(b"caf\xe9\n"), "caf\\xe9\\x0a");
        for bad in ["\\", "\\n", "\\x4", "\\xzz", "\\x+1"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }

    #[test]
    fn absolute_names_are_relative_and_dot_dot_must_not_leave() {
        assert_eq!(of_entry(b"/etc//./passwd/").unwrap(), b"etc/passwd");
        assert_eq!(of_entry(b"./").unwrap(), b"");
        assert_eq!(of_entry(b"a/../b").unwrap(), b"b");
        for bad in [&b"../x"[..], b"a/../../x", b"/..", b"a\0b"] {
            assert!(of_entry(bad).is_err(), "{bad:?}");
        }
        assert!(of_entry(&vec![b'x'; 256]).is_err());
        assert!(of_entry(&[b"a/".repeat(3000), b"b".to_vec()].concat()).is_err());
        assert_eq!(clean(b"/../../etc/./x/.."), b"etc");
    }

    #[test]
    fn within_counts_whole_components() {
        assert!(is_within(b"a/b", b"a"));
        assert!(is_within(b"a", b"a"));
        assert!(is_within(b"a", b""));
        assert!(!is_within(b"ab", b"a"));
    }
}
