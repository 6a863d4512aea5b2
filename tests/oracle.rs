//! Debian's buildah as an oracle: from each Dockerfile in tests/oracle, kiln builds the image that
//! buildah builds, file by file and in its config; and the same on both kinds of overlay.
//!
//! `KILN_ORACLE=<case>` runs one case. What git can't hold of a context is made by [`complete`].

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use support::{
    Buildah, Difference, Ignore, Image, Kiln, Registry, Sandbox, compare, has_program, require, run,
};

/// In what kiln (left) and buildah (right) differ and kiln is right.
const KNOWN: &[Known] = &[];

/// A difference of one case, or of all where it names none.
struct Known {
    case: Option<&'static str>,
    ignore: Ignore,
}

fn cases() -> Vec<String> {
    let only = std::env::var("KILN_ORACLE").ok();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| only.as_ref().is_none_or(|only| only == name))
        .collect();
    // The longest first.
    names.sort_by_key(|name| (name != "capabilities-and-acls", name.clone()));
    names
}

/// Copies a case, so that what git can't hold can be added.
fn context(case: &str, sandbox: &Sandbox) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/oracle")
        .join(case);
    let to = sandbox.join(format!("contexts/{case}"));
    copy_directory(&from, &to);
    complete(case, &to);
    to
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            // Whatever the umask of the one who cloned.
            fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes the part of a context that git can't hold: links, modes, fifos, archives with owners.
fn complete(case: &str, context: &Path) {
    let script = match case {
        "add-archives" => {
            "mkdir -p t/dir/sub && echo app >t/dir/app && echo nobody >t/dir/sub/nobody && echo file >t/dir/file
             chmod 0640 t/dir/app && chmod 2750 t/dir/sub && ln -s app t/dir/link && ln t/dir/app t/dir/hard && mkfifo t/dir/fifo
             tar --owner=root:0 --group=root:0 --format=pax -cf owners.tar -C t --no-recursion dir dir/file
             tar --owner=app:1000 --group=extra:2000 --format=pax -rf owners.tar -C t --no-recursion dir/app dir/link dir/hard dir/fifo
             tar --owner=nobody:65534 --group=nogroup:65534 --format=pax -rf owners.tar -C t dir/sub
             gzip -k owners.tar && xz -k owners.tar && rm -r t"
        }
        "copy-with-owner" => {
            "chmod 0755 script && chmod 2711 tree/inner && chmod 4751 tree/inner/file && chmod 0700 tree
             ln -s inner/file tree/link && ln -s /etc/passwd tree/absolute && ln -s missing tree/dangling"
        }
        "copy-onto-existing" => "ln -s a tree/link && mkdir tree/empty && chmod 0711 tree/sub",
        "copy-through-links" => "ln -s one tree/link && ln -s .. tree/sub/up",
        "hard-links-of-context" => {
            "mkdir -p linked/sub special && echo x >linked/one && ln linked/one linked/two && ln linked/one linked/sub/three
             mkfifo special/fifo && chmod 0600 special/fifo && : >special/empty && ln special/empty special/empty2
             ln -s one linked/soft && ln linked/soft linked/soft2"
        }
        "dockerignore" => "mkdir empty src/empty && ln -s a.log link.log && ln -s a.log link",
        _ => return,
    };
    let mut command = Command::new("sh");
    run(
        command.args(["-ec", script]).current_dir(context),
        Duration::from_secs(30),
    )
    .ok();
}

/// Runs a function on all cases, two at a time, and returns what went wrong in which.
fn on_all(
    cases: &[String],
    check: impl Fn(&str) -> Vec<String> + Sync,
) -> BTreeMap<String, Vec<String>> {
    let queue = Mutex::new(cases.iter());
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else {
                        return;
                    };
                    let found =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(case)));
                    let found = found.unwrap_or_else(|panic| {
                        let text = panic.downcast_ref::<String>();
                        vec![text.cloned().unwrap_or_else(|| "panicked".to_owned())]
                    });
                    if !found.is_empty() {
                        wrong.lock().unwrap().insert(case.clone(), found);
                    }
                }
            });
        }
    });
    wrong.into_inner().unwrap()
}

fn assert_nothing(wrong: &BTreeMap<String, Vec<String>>, of: &str) {
    let mut text = String::new();
    for (case, lines) in wrong {
        let _ = writeln!(text, "\n{case} ({of}):\n  {}", lines.join("\n  "));
    }
    assert!(wrong.is_empty(), "{text}");
}

fn shown(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(ToString::to_string).collect()
}

fn build_arguments() -> [String; 2] {
    let registry = Registry::shared();
    [
        format!("BUSYBOX={}", registry.busybox()),
        format!("DEBIAN={}", registry.debian()),
    ]
}

fn build(kiln: &Kiln, case: &str, context: &Path) -> Image {
    let [busybox, debian] = build_arguments();
    let context = context.to_str().unwrap();
    let arguments = [
        "build",
        "--progress",
        "plain",
        "-t",
        case,
        "--build-arg",
        &busybox,
        "--build-arg",
        &debian,
    ];
    kiln.run(arguments.iter().chain(&[context])).ok();
    kiln.image(case)
}

#[test]
fn images_equal_those_that_buildah_builds() {
    require!(has_program("buildah"), "no buildah");
    let kiln = Kiln::new();
    let sandbox = Sandbox::on_disk();
    let buildah = Buildah::new(&sandbox);
    let [busybox, debian] = build_arguments();
    let wrong = on_all(&cases(), |case| {
        let context = context(case, &sandbox);
        let ours = build(&kiln, case, &context);
        let options = ["--build-arg", &busybox, "--build-arg", &debian];
        let theirs = buildah.build_as(case, &context, &options);
        let mut differences = compare(&ours, &theirs, &[]);
        differences.retain(|difference| {
            !KNOWN.iter().any(|known| {
                known.case.is_none_or(|name| name == case) && (known.ignore.matcher)(difference)
            })
        });
        shown(&differences)
    });
    assert_nothing(&wrong, "kiln | buildah");
}
