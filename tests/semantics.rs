//! The table from the list of semantics to the tests that hold it.
//!
//! Each line of the list (the traps of Dockerfiles 1 to 61 and of layers 62 to 72) has a number;
//! a test that holds a line says so in its doc comment: `SEMANTICS` and the number. This test
//! reads the sources, and fails for a number that no test names.
//! `cargo test --test semantics -- --nocapture` shows the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

mod support;

/// How many lines the list has.
const LINES: u32 = 72;

/// Lines whose code and tests are being written: [`every_line_has_a_test`] lets them pass until
/// there is one. Empty at the end.
const EXPECTED: [u32; 4] = [34, 35, 49, 52];

/// Returns the tests of all sources by the numbers that they name.
fn table() -> BTreeMap<u32, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut table = BTreeMap::new();
    for directory in ["src", "tests", "runtime/src", "runtime/tests"] {
        read_directory(root, &root.join(directory), &mut table);
    }
    table
}

fn read_directory(root: &Path, directory: &Path, table: &mut BTreeMap<u32, BTreeSet<String>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_directory(root, &path, table);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            for (number, test) in tests_of(&text) {
                table
                    .entry(number)
                    .or_default()
                    .insert(format!("{name}: {test}"));
            }
        }
    }
}

/// Returns the pairs of number and test that a source has.
fn tests_of(text: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    let mut numbers = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            let parts = comment.split("SEMANTICS ").skip(1);
            numbers.extend(parts.filter_map(|part| {
                let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
                digits.parse::<u32>().ok()
            }));
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]";
        } else {
            if let Some(rest) = line.strip_prefix("fn ")
                && is_test
            {
                let name = rest.split('(').next().unwrap_or_default();
                found.extend(numbers.iter().map(|number| (*number, name.to_owned())));
            }
            numbers.clear();
            is_test = false;
        }
    }
    found
}

#[test]
fn every_line_has_a_test() {
    let table = table();
    let mut shown = String::new();
    for (number, tests) in &table {
        for test in tests {
            let _ = writeln!(shown, "{number:>3}  {test}");
        }
    }
    if std::env::args().any(|argument| argument == "--nocapture") {
        support::say(&shown);
    }
    let missing: Vec<u32> = (1..=LINES)
        .filter(|number| !table.contains_key(number) && !EXPECTED.contains(number))
        .collect();
    assert!(missing.is_empty(), "no test names these lines: {missing:?}");
    let unknown: Vec<&u32> = table.keys().filter(|n| !(1..=LINES).contains(*n)).collect();
    assert!(unknown.is_empty(), "there are no such lines: {unknown:?}");
}

#[test]
fn only_tests_count() {
    let text = "/// SEMANTICS 1, SEMANTICS 12\n#[test]\nfn a() {}\n/// SEMANTICS 3\nfn b() {}\n\
                /// See\n/// SEMANTICS 4: x\n#[should_panic]\n#[test]\nfn c() {}\n\
                // SEMANTICS 5\n#[test]\nfn d() {}\n";
    let expected = [(1, "a"), (12, "a"), (4, "c")].map(|(n, name)| (n, name.to_owned()));
    assert_eq!(tests_of(text), expected);
}
