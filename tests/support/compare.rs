//! Compares two images, file by file and in their configs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::image::Image;
use super::tree::{Kind, Node, Tree, show_path};

/// One thing in which two images differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// A path (`/etc/passwd`) or a place in the config (`config/Env/0`).
    pub subject: String,
    /// What differs there: `presence`, `type`, `mode`, `uid`, `gid`, `target`, `device`,
    /// `content`, `hard link`, `xattr NAME`, `value`.
    pub aspect: String,
    /// On the left.
    pub left: String,
    /// On the right.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {} | {}",
            self.subject, self.aspect, self.left, self.right
        )
    }
}

/// A difference that is known and right.
pub struct Ignore {
    /// A short name.
    pub name: &'static str,
    /// Why it is right that the images differ here.
    pub reason: &'static str,
    /// Whether a difference is this one.
    pub matcher: fn(&Difference) -> bool,
}

/// Compares the files and the configs of two images, without what is ignored.
///
/// Of the config, `architecture`, `os`, `variant` and all that containers see are compared; times,
/// history and layer digests belong to the builder. Times of files are not compared.
pub fn compare(left: &Image, right: &Image, ignore: &[Ignore]) -> Vec<Difference> {
    let mut differences = compare_configs(&left.config, &right.config);
    differences.extend(compare_trees(&left.tree, &right.tree));
    differences.retain(|difference| !ignore.iter().any(|ignore| (ignore.matcher)(difference)));
    differences
}

/// Compares two image configs.
pub fn compare_configs(left: &Value, right: &Value) -> Vec<Difference> {
    let [left, right] = [left, right].map(|config| {
        let mut values = BTreeMap::new();
        for key in ["architecture", "os", "variant", "config"] {
            flatten(key.to_owned(), &config[key], &mut values);
        }
        values
    });
    let mut differences = Vec::new();
    let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for key in keys {
        push_unless_equal(
            &mut differences,
            key,
            "value",
            left.get(key),
            right.get(key),
            |value| value.map_or("nothing".to_owned(), |value| value.to_string()),
        );
    }
    differences
}

/// Takes a JSON value apart; what is empty counts as absent, as builders write either.
fn flatten(place: String, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null | Value::Bool(false) => {}
        Value::String(text) if text.is_empty() => {}
        Value::Object(fields) if fields.is_empty() && place.matches('/').count() < 2 => {}
        // The members of sets such as ExposedPorts and Volumes are empty objects.
        Value::Object(fields) if fields.is_empty() => {
            into.insert(place, value.clone());
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                flatten(format!("{place}/{name}"), field, into);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(format!("{place}/{index}"), item, into);
            }
        }
        _ => {
            into.insert(place, value.clone());
        }
    }
}

/// Compares two root file systems.
pub fn compare_trees(left: &Tree, right: &Tree) -> Vec<Difference> {
    let mut differences = Vec::new();
    let (left_first, right_first) = (left.first_names(), right.first_names());
    let paths: BTreeSet<_> = left.names.keys().chain(right.names.keys()).collect();
    for path in paths {
        let (l, r) = (left.names.get(path), right.names.get(path));
        let shown = show_path(path);
        let (Some(&l), Some(&r)) = (l, r) else {
            push_unless_equal(
                &mut differences,
                &shown,
                "presence",
                l.is_some(),
                r.is_some(),
                |there| if there { "there" } else { "absent" }.to_owned(),
            );
            continue;
        };
        let names = (left_first[&l], right_first[&r]);
        compare_nodes(&mut differences, &shown, &left.nodes[l], &right.nodes[r]);
        push_unless_equal(
            &mut differences,
            &shown,
            "hard link",
            names.0,
            names.1,
            show_path,
        );
    }
    differences
}

fn compare_nodes(differences: &mut Vec<Difference>, path: &str, l: &Node, r: &Node) {
    push_unless_equal(differences, path, "type", l.kind, r.kind, |kind| {
        format!("{kind:?}")
    });
    // The mode of a symbolic link means nothing.
    if (l.kind, r.kind) != (Kind::Symlink, Kind::Symlink) {
        push_unless_equal(differences, path, "mode", l.mode, r.mode, |mode| {
            format!("{mode:04o}")
        });
    }
    push_unless_equal(differences, path, "uid", l.uid, r.uid, |uid| {
        uid.to_string()
    });
    push_unless_equal(differences, path, "gid", l.gid, r.gid, |gid| {
        gid.to_string()
    });
    push_unless_equal(
        differences,
        path,
        "target",
        &l.target,
        &r.target,
        |target| String::from_utf8_lossy(target).into_owned(),
    );
    push_unless_equal(differences, path, "device", l.device, r.device, |device| {
        format!("{device:?}")
    });
    if l.sha256 != r.sha256 {
        differences.push(Difference {
            subject: path.to_owned(),
            aspect: "content".to_owned(),
            left: show_content(l),
            right: show_content(r),
        });
    }
    let names: BTreeSet<_> = l.xattrs.keys().chain(r.xattrs.keys()).collect();
    for name in names {
        let aspect = format!("xattr {}", String::from_utf8_lossy(name));
        push_unless_equal(
            differences,
            path,
            &aspect,
            l.xattrs.get(name),
            r.xattrs.get(name),
            |value| {
                value.map_or("nothing".to_owned(), |value| {
                    value.escape_ascii().to_string()
                })
            },
        );
    }
}

/// Shows a short text as it is, all else by its digest.
fn show_content(node: &Node) -> String {
    match node.content.as_deref().map(std::str::from_utf8) {
        Some(Ok(text)) if text.len() <= 200 => format!("{text:?}"),
        _ => node.sha256.clone(),
    }
}

fn push_unless_equal<T: PartialEq>(
    differences: &mut Vec<Difference>,
    subject: &str,
    aspect: &str,
    left: T,
    right: T,
    show: impl Fn(T) -> String,
) {
    if left != right {
        differences.push(Difference {
            subject: subject.to_owned(),
            aspect: aspect.to_owned(),
            left: show(left),
            right: show(right),
        });
    }
}
