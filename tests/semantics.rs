//! The table from the list of semantics to the tests that hold it.
//!
//! [`LINES`] names what implementations of Dockerfiles (1 to 61) and of layers (62 to 72) get
//! wrong. A test that holds a line says so in its doc comment: `SEMANTICS` and the number. This
//! test reads the sources, and fails for a line that no test names.
//! `cargo test --test semantics -- --nocapture` shows the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

mod support;

/// The list, counted from 1.
const LINES: [&str; 72] = [
    "byte order mark and directives at the very top",
    "`# syntax` is accepted and never fetched",
    "what is a continuation",
    "comments and blank lines within continuations",
    "flags, `--` and unknown flags",
    "JSON arrays and what falls back to the shell form",
    "ENV and LABEL in both forms",
    "no limit on the length of lines",
    "names of stages",
    "files without instructions or stages",
    "where heredocs may stand",
    "expansion of heredocs in COPY and ADD",
    "no expansion of heredocs in RUN",
    "what a heredoc of RUN executes",
    "`<<-`, modes and names of heredocs",
    "unset variables and broken substitutions",
    "quotes and escapes",
    "all forms of substitution",
    "what ENV and ARG see within one instruction",
    "where words are expanded",
    "EXPOSE after expansion",
    "the global scope",
    "priority of the values of ARG",
    "ARG against ENV",
    "what stages inherit",
    "predefined proxy arguments",
    "ARG in cache keys",
    "which stages are built, and what names mean",
    "FROM scratch, and bases without PATH",
    "ONBUILD triggers",
    "order of the environment",
    "SHELL, exec form and HOME",
    "USER and its groups",
    "mounts and their defaults",
    "cache keys of RUN",
    "mount points leave no trace",
    "network, environment and small things of RUN",
    "source directories",
    "destinations",
    "sources stay in the context",
    "wildcards and what is missing",
    "links among sources and parents",
    "directories and files don't replace each other",
    "owners of copied files",
    "`--chown`",
    "`--chmod`",
    "times of copied files",
    "`--link`",
    "`--parents` and `--exclude`",
    "hard links, mode bits and attributes of copied files",
    "archives in ADD",
    "URLs and git repositories in ADD",
    "rules of .dockerignore",
    "which ignore file counts, and for what",
    "ENTRYPOINT and CMD",
    "HEALTHCHECK",
    "WORKDIR",
    "VOLUME, STOPSIGNAL, labels and SHELL",
    "history",
    "rebuilds and times",
    "platform of the config",
    "whiteouts",
    "application of entries to a tree",
    "opaque directories",
    "what counts as a change",
    "forms of whiteouts and private attributes",
    "the stream is a function of the tree",
    "ids without mapping and device nodes",
    "attributes and the order of their application",
    "hard links in layers",
    "sparse files",
    "what a step inherits",
];

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
    for (number, line) in (1..).zip(LINES) {
        let _ = writeln!(shown, "{number:>2}  {line}");
        for test in table.get(&number).into_iter().flatten() {
            let _ = writeln!(shown, "      {test}");
        }
    }
    if std::env::args().any(|argument| argument == "--nocapture") {
        support::say(&shown);
    }
    let numbers = 1..=LINES.len() as u32;
    let missing: Vec<u32> = numbers
        .clone()
        .filter(|number| !table.contains_key(number))
        .collect();
    assert!(missing.is_empty(), "no test names these lines: {missing:?}");
    let unknown: Vec<&u32> = table.keys().filter(|n| !numbers.contains(*n)).collect();
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
