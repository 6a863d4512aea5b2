//! COPY and ADD.

use super::catalog::*;
use super::walk::{Copied, Environment};
use super::{Place, Reporter};
use crate::dockerfile::{Files, Instruction, InstructionKind, SourceArg, join_path};

/// What COPY and ADD have in common, and which of them it is.
pub(super) fn files_of(kind: &InstructionKind) -> Option<(&Files, bool)> {
    match kind {
        InstructionKind::Copy(copy) => Some((&copy.files, copy.from.is_none())),
        InstructionKind::Add(add) => Some((&add.files, true)),
        _ => None,
    }
}

/// Checks a COPY or ADD, and notes where its files go.
pub(super) fn check(
    reporter: &mut Reporter<'_>,
    env: &mut Environment,
    place: &Place,
    instruction: &Instruction,
) {
    let Some((files, from_context)) = files_of(&instruction.kind) else {
        return;
    };
    for word in files.chown.iter().chain(&files.chmod) {
        reporter.expand(env, place, word);
    }
    let mut sources = Vec::new();
    for source in &files.sources {
        match source {
            SourceArg::Path(word) => sources.push((reporter.expand(env, place, word), word)),
            SourceArg::Heredoc(heredoc) if heredoc.expands => {
                reporter.expand_heredoc(env, place, heredoc);
            }
            SourceArg::Heredoc(_) => {}
        }
    }
    let destination = reporter.expand(env, place, &files.destination);
    if from_context {
        for (path, word) in &sources {
            if is_remote(path) {
                continue;
            }
            if let Some(rule) = (reporter.subject.excluded)(path) {
                let name = instruction.kind.name();
                let message = format!("{name} of {path}, which is excluded by {rule}");
                reporter.report_at(&COPY_IGNORED_FILE, place, word.span, message, None);
            }
        }
    }
    if let InstructionKind::Add(add) = &instruction.kind {
        let plain = add.checksum.is_none() && add.keep_git_dir.is_none() && add.unpack.is_none();
        if plain && !sources.is_empty() && sources.iter().all(|(path, _)| is_surely_plain(path)) {
            let message = "ADD of plain files: COPY would do";
            reporter.report(&ADD_WITHOUT_NEED, place, message);
        }
    }
    let is_directory = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.contains(['*', '?']) || !name.trim_start_matches('.').contains('.')
    };
    env.copied.push(Copied {
        path: join_path(&env.cwd, &destination),
        many: !from_context || sources.iter().any(|(path, _)| is_directory(path)),
    });
}

/// Tells whether ADD downloads it.
fn is_remote(path: &str) -> bool {
    path.contains("://")
        || path.starts_with("git@")
        || path.contains(".git#")
        || path.ends_with(".git")
}

/// Endings of what may be an archive that ADD unpacks.
const ARCHIVES: [&str; 13] = [
    "tar", "gz", "tgz", "bz2", "tbz", "tbz2", "xz", "txz", "zst", "tzst", "lzma", "layer", "img",
];

/// Tells whether a source is a path, and by its name a directory or no archive.
fn is_surely_plain(path: &str) -> bool {
    if path.is_empty() || is_remote(path) || path.contains(['*', '?', '[', '\\']) {
        return false;
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    if matches!(name, "" | "." | "..") {
        return true;
    }
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => {
            let ending = ending.to_ascii_lowercase();
            !ARCHIVES.contains(&ending.as_str()) && ending.chars().all(|c| c.is_ascii_alphabetic())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_no_archive_counts_as_plain() {
        for path in [".", "src/", "a/app.jar", "x.conf", "package.json"] {
            assert!(is_surely_plain(path), "{path}");
        }
        for path in [
            "rootfs",
            "x.tar",
            "x.tar.gz",
            "X.TGZ",
            "https://example.com/x.txt",
            "git@example.com:x.git",
            "*.txt",
            "layer.1",
            ".hidden",
        ] {
            assert!(!is_surely_plain(path), "{path}");
        }
    }
}
