//! What belongs where in a store: the drawing in [`super`], as a function.

use std::fs::FileType;

use super::{DIRECTORIES, LATER};

/// Files beside the directories: what `kiln-runtime` found out of overlays, and what
/// [`super::limit`] has measured.
const FILES: [&str; 2] = ["overlay.json", "measured.json"];

/// What something in a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory in which everything has its place too.
    Shelf,
    /// Kiln's, with all that is in it.
    Item,
    /// Nothing that any kiln has put there.
    Strange,
}

/// Returns what lies at a path below the root of a store.
pub(super) fn place(path: &[&str], kind: FileType) -> Place {
    // Being written, or left by a process that was killed then: a collection takes it away.
    if kind.is_file() && path.last().is_some_and(|name| name.starts_with('.')) {
        return Place::Item;
    }
    let (shelf, item) = (Place::Shelf, Place::Item);
    let found = match path {
        [name] if DIRECTORIES.contains(name) || LATER.contains(name) => (kind.is_dir(), shelf),
        [name] => (kind.is_file() && FILES.contains(name), item),
        ["blobs", "sha256" | "sha512"] => (kind.is_dir(), shelf),
        ["blobs", _, _] => (kind.is_file(), item),
        [
            "refs" | "lists" | "images" | "compressed" | "urls" | "traces" | "locks",
            _,
        ] => (kind.is_file(), item),
        ["stat", name] => (kind.is_file() && name.contains('-'), item),
        ["logs", name] => (kind.is_file() && name.ends_with(".log"), item),
        ["layers" | "containers", _] => (kind.is_dir(), shelf),
        ["layers" | "containers", _, "fs"] | ["containers", _, "work"] => (kind.is_dir(), item),
        ["layers", _, "layer.json" | "synced"]
        | [
            "containers",
            _,
            "container.json" | "status.json" | "log" | "lock",
        ] => (kind.is_file(), item),
        [
            "diff" | "chain" | "merged" | "mounts" | "contexts" | "cache",
            _,
        ] => (kind.is_dir(), shelf),
        ["diff" | "chain", _, _] => (kind.is_symlink(), item),
        ["cache", _, _] => (kind.is_file(), item),
        ["merged" | "mounts" | "contexts", _, _] => (kind.is_dir(), shelf),
        ["merged" | "mounts" | "contexts", _, _, "fs"] => (kind.is_dir(), item),
        ["tmp" | "trash", _] => (true, item),
        _ => (false, Place::Strange),
    };
    match found {
        (true, place) => place,
        (false, _) => Place::Strange,
    }
}
