//! The source keeps the shape that ARCHITECTURE.md promises: arrows between modules point one
//! way, `unsafe` lives in one place, and nothing prints behind the back of `ui`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/` by level, the highest first. A module may use those of lower levels;
/// within a level, only what [`SIDEWAYS`] lists.
const LEVELS: [&[&str]; 6] = [
    &["cli"],
    &["ui", "build", "container", "copy"],
    &["sandbox", "transfer", "archive", "fetch"],
    &["store", "registry", "context", "dockerfile"],
    &["layer"],
    &["image"],
];

/// Arrows within a level: an archive is a source of a transfer, and its destination; what is
/// fetched is reported as one.
const SIDEWAYS: [(&str, &str); 2] = [("archive", "transfer"), ("fetch", "transfer")];

/// Used by whoever tells what happens, or shows it; uses nothing.
const LEAF: &str = "event";

/// Arrows that go down and must not be there all the same.
const FORBIDDEN: [(&str, &str); 3] = [
    // The language is text to a plan, and a registry moves bytes: neither knows trees.
    ("dockerfile", "layer"),
    ("registry", "layer"),
    // What is shown are events, errors and numbers, never the things themselves.
    ("ui", "store"),
];

/// Who may use the crate `kiln-runtime`: those that start sandboxes, those that need its safe
/// system calls or its helper on the host, and those that name its errors.
const RUNTIME: [&str; 8] = [
    "cli",
    "build",
    "container",
    "sandbox",
    "store",
    "layer",
    "transfer",
    "fetch",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Rust files below a directory of the tree, with their code: comments and the
/// content of string literals are left out.
fn sources(directory: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root().join(directory)];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = code_of(&fs::read_to_string(&path).unwrap());
                found.insert(path.strip_prefix(root()).unwrap().to_owned(), code);
            }
        }
    }
    assert!(!found.is_empty(), "{directory} has no source");
    found
}

/// Returns source text without comments and without what stands in string literals.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with("/*") {
            rest = rest.split_once("*/").map_or("", |(_, after)| after);
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            rest = rest[hashes + 2..]
                .split_once(&end)
                .map_or("", |(_, after)| after);
            code.push_str("\"\"");
        } else if first == '"' {
            rest = after_string(&rest[1..]);
            code.push_str("\"\"");
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest = &rest[rest[1..].find('\'').unwrap() + 2..];
            code.push_str("' '");
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// Returns how many `#` a raw string has that starts here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// Returns the words that follow `prefix::`, of a list in braces each.
fn used<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let after = &code[at + prefix.len()..];
        let Some(list) = after.strip_prefix('{') else {
            found.insert(after.split(|c| !is_word(c)).next().unwrap());
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && is_word(c) => {
                    found.insert(list[at..].split(|c| !is_word(c)).next().unwrap());
                    start = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// Returns the module of `src/` that a file belongs to; none for lib.rs and main.rs.
fn module_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix("src").unwrap();
    let first = below.iter().next().unwrap().to_str().unwrap();
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main"].contains(&name)).then(|| name.to_owned())
}

fn level(module: &str) -> usize {
    let found = LEVELS.iter().position(|level| level.contains(&module));
    found.unwrap_or_else(|| panic!("the module {module} has no level: give it one"))
}

fn is_allowed(from: &str, to: &str) -> bool {
    if from == to || to == LEAF {
        return true;
    }
    let sideways = SIDEWAYS.contains(&(from, to));
    from != LEAF && !FORBIDDEN.contains(&(from, to)) && (level(from) < level(to) || sideways)
}

#[test]
fn arrows_between_modules_point_one_way() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, code) in sources("src") {
        let Some(module) = module_of(&path) else {
            continue;
        };
        for target in used(&code, "crate::") {
            seen.insert((module.clone(), target.to_owned()));
            if !is_allowed(&module, target) {
                wrong.push(format!(
                    "{}: {module} must not use {target}",
                    path.display()
                ));
            }
        }
        let runtime = !used(&code, "kiln_runtime::").is_empty();
        if runtime && !RUNTIME.contains(&module.as_str()) {
            wrong.push(format!(
                "{}: {module} must not use the runtime",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The test itself is worth nothing if it sees nothing.
    for arrow in [("cli", "build"), ("build", "store"), ("store", "image")] {
        let arrow = (arrow.0.to_owned(), arrow.1.to_owned());
        assert!(seen.contains(&arrow), "{arrow:?} was not found");
    }
}

#[test]
fn language_and_image_formats_are_pure() {
    for directory in ["src/dockerfile", "src/image"] {
        for (path, code) in sources(directory) {
            for world in [
                "std::fs",
                "std::net",
                "std::env::var",
                "std::process",
                "nix::",
            ] {
                assert!(!code.contains(world), "{} uses {world}", path.display());
            }
        }
    }
}

#[test]
fn runtime_knows_nothing_of_images() {
    for directory in ["runtime/src", "runtime/tests", "runtime/examples"] {
        for (path, code) in sources(directory) {
            assert!(
                used(&code, "kiln::").is_empty(),
                "{} uses kiln",
                path.display()
            );
        }
    }
    let manifest = fs::read_to_string(root().join("runtime/Cargo.toml")).unwrap();
    assert!(!manifest.contains("path = \".."), "{manifest}");
}

#[test]
fn unsafe_is_in_the_system_calls_of_the_runtime_alone() {
    let word = |code: &str| {
        code.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|w| w == "unsafe")
    };
    let files = sources("src").into_iter().chain(sources("runtime/src"));
    let mut with: BTreeSet<PathBuf> = BTreeSet::new();
    for (path, code) in files {
        if word(&code) {
            with.insert(path);
        }
    }
    let outside: Vec<_> = with
        .iter()
        .filter(|path| !path.starts_with("runtime/src/sys"))
        .collect();
    assert!(
        outside.is_empty(),
        "unsafe outside of runtime/src/sys: {outside:?}"
    );
    assert!(!with.is_empty());
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(library.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn nothing_prints_but_ui_and_the_output_of_commands() {
    for (path, code) in sources("src").into_iter().chain(sources("runtime/src")) {
        for print in ["print!(", "println!(", "eprint!(", "eprintln!(", "dbg!("] {
            assert!(!code.contains(print), "{} has {print}", path.display());
        }
        let writes = code.contains("stderr().lock()") || code.contains("stdout().lock()");
        let may = ["src/ui/mod.rs", "src/cli/"];
        assert!(
            !writes
                || may
                    .iter()
                    .any(|may| path.to_str().unwrap().starts_with(may)),
            "{} writes to standard output or error itself",
            path.display()
        );
    }
}

#[test]
fn no_module_is_a_drawer_for_what_has_no_name() {
    for directory in ["src", "runtime/src", "tests"] {
        for path in sources(directory).keys() {
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(
                !["utils", "util", "helpers", "common", "misc"].contains(&name),
                "{} has no name of its own",
                path.display()
            );
        }
    }
}

#[test]
fn main_is_short() {
    let main = fs::read_to_string(root().join("src/main.rs")).unwrap();
    assert!(main.lines().count() < 40);
}

#[test]
fn code_is_read_without_comments_and_strings() {
    let text = "use crate::{a::b, c::{d, e}}; // crate::x\nlet s = \"crate::y \\\" \"; \
                r#\"crate::z\"#; '\"'; crate::f::g(); /* crate::w */ mycrate::h";
    assert_eq!(
        used(&code_of(text), "crate::"),
        BTreeSet::from(["a", "c", "f"])
    );
}
