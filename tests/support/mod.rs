//! What integration tests share. A test file says `mod support;` and drives the built binary:
//!
//! ```ignore
//! #[test]
//! fn run_writes_a_layer() {
//!     let kiln = Kiln::new(); // a store of its own, gone when the test ends
//!     let base = Registry::shared().busybox(); // 127.0.0.1:PORT/busybox:latest
//!     kiln.build(&format!("FROM {base}\nRUN echo hi > /hi\n"), &[]).ok();
//!     let image = kiln.image("test"); // read by code that is not kiln's
//!     assert_eq!(image.tree.file("/hi").content(), b"hi\n");
//! }
//! ```
//!
//! - [`Kiln`] runs the binary with `--root` on a store below its [`Sandbox`], with a clean
//!   environment and a time limit. `.ok()`, `.fails()` and `.fails_with("text")` show the whole
//!   output when they are wrong.
//! - [`Registry::shared`] is one `docker-registry` per test process, with the base images that
//!   `ci/bases` made (it runs that on first use). [`Registry::start`] gives a test its own.
//! - [`FaultyRegistry`] is a registry in memory that logs what it is asked and can be told to lie.
//!   Its images have the same digests in every run: [`settled`] output is compared with literals.
//! - [`WebServer`] serves pages and git repositories, and counts what it is asked;
//!   [`Repository`] makes a repository.
//! - [`Buildah`] builds the same Dockerfile as an oracle, and [`compare`] compares two images; each
//!   difference that is ignored has a name and a reason.
//! - [`Realistic`] builds an example of `tests/realistic` twice and runs it; [`toolchain`] makes
//!   the base images with languages that those need.
//! - What the machine lacks is said aloud: [`require!`] prints `SKIPPED: <why>`, and fails where
//!   `KILN_TEST_NO_SKIP=1`, as `ci/test` sets it. [`soak_only!`] keeps a long test for `ci/soak`.
//! - Tests refuse to run as root, which would prove nothing about a rootless builder: `./ci/test`
//!   makes a user. What only root can test lies in `tests/root_*.rs`, whose tests begin with
//!   [`root_only!`]. `KILN_TEST_KEEP=1` keeps the directories of tests for a look.

// Each test file compiles this module and uses its own part of it.
#![allow(dead_code, unused_imports, unused_macros)]

mod authority;
mod buildah;
mod compare;
mod console;
mod faulty_registry;
mod http;
mod image;
mod kills;
mod kiln;
mod layer_tar;
pub mod meeting;
mod memory;
mod realistic;
mod registry;
mod repository;
mod sandbox;
mod snapshot;
mod subprocess;
mod transcript;
mod tree;
mod web;

pub use authority::TestAuthority;
pub use buildah::Buildah;
pub use compare::{Difference, Ignore, compare, compare_configs, compare_trees};
pub use console::Console;
pub use faulty_registry::{Fault, FaultyRegistry, Published, TagPages, host_architecture, tar_of};
pub use image::Image;
pub use kills::{
    Victim, assert_no_process_with, assert_swept, names_in, processes_with, unique_marker,
};
pub use kiln::{Kiln, assert_refused};
pub use memory::assert_large_layers_pass;
pub use realistic::{Realistic, toolchain};
pub use registry::{Bases, Registry};
pub use repository::Repository;
pub use sandbox::Sandbox;
pub use snapshot::{settled, sorted};
pub use subprocess::{Output, run, run_from, wait_until};
pub use transcript::Session;
pub use tree::{Kind, Node, Tree};
pub use web::{Page, WebServer};

use std::io::Write;

/// Writes a line to stderr past the capture of the test harness.
pub fn say(line: &str) {
    // Unlike eprintln!, which the harness captures, this reaches the log of a passing test.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says that a test does not run; fails where the whole suite is asked for.
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("KILN_TEST_NO_SKIP").is_none_or(|value| value != "1"),
        "can't run here: {why} (KILN_TEST_NO_SKIP=1 forbids to skip)"
    );
    say(&format!("SKIPPED: {why}"));
}

/// Leaves the test, loudly, unless a condition on the machine holds.
macro_rules! require {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            $crate::support::skip(&format!($($why)+));
            return;
        }
    };
}
pub(crate) use require;

/// Leaves a long test, loudly, unless `ci/soak` runs it.
macro_rules! soak_only {
    () => {
        if std::env::var_os("KILN_SOAK").is_none() {
            $crate::support::say("left for ci/soak (KILN_SOAK is not set)");
            return;
        }
    };
}
pub(crate) use soak_only;

/// Whether a program is in `PATH`.
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
    })
}

/// Leaves a test of `tests/root_*.rs` unless root runs it: `ci/test` does, after all others.
macro_rules! root_only {
    () => {
        if !nix::unistd::geteuid().is_root() {
            $crate::support::say("left for the root part of ci/test");
            return;
        }
    };
}
pub(crate) use root_only;

/// Panics when root runs the tests, but for those of `tests/root_*.rs`.
pub fn refuse_root() {
    let binary = std::env::current_exe().unwrap();
    let for_root = binary
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"root_"));
    assert!(
        for_root || !nix::unistd::geteuid().is_root(),
        "root runs this test, which proves nothing about a rootless builder: run ./ci/test"
    );
}
