//! Debian's buildah as an oracle: from each Dockerfile in tests/oracle, kiln builds the image that
//! buildah builds, file by file and in its config; and the same on both kinds of overlay.
//!
//! `KILN_ORACLE=<case>` runs one case. What git can't hold of a context is made by [`complete`].

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use support::{
    Buildah, Difference, Ignore, Image, Kiln, Kind, Registry, Sandbox, compare, has_program,
    require, run, skip,
};

/// In what kiln (left) and buildah (right) differ: in all cases, or in one; each with its reason.
/// One that no longer occurs fails the test.
const KNOWN: &[(Option<&str>, Ignore)] = &[
    (
        None,
        Ignore {
            name: "host name",
            reason: "buildah writes the one of its container into the config; BuildKit does not",
            matcher: |d| d.subject == "config/Hostname",
        },
    ),
    (
        None,
        Ignore {
            name: "label of buildah",
            reason: "buildah signs with a label; nobody has asked for it",
            matcher: |d| d.subject == "config/Labels/io.buildah.version",
        },
    ),
    (
        None,
        Ignore {
            name: "mount points of buildah",
            reason: "what the builder makes for RUN must not reach a layer",
            matcher: |d| {
                let stubs = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run"];
                stubs.contains(&d.subject.as_str())
                    && (d.aspect.as_str(), d.left.as_str()) == ("presence", "absent")
            },
        },
    ),
    (
        Some("config"),
        Ignore {
            name: "SHELL and the shell form of CMD",
            reason: "SHELL rules the shell form of CMD too, with all its flags; buildah drops -e",
            matcher: |d| d.subject.starts_with("config/Cmd/"),
        },
    ),
    (
        Some("config"),
        Ignore {
            name: "ranges of ports",
            reason: "EXPOSE 8000-8002 means three ports; buildah keeps the text",
            matcher: |d| d.subject.starts_with("config/ExposedPorts/800"),
        },
    ),
    (
        Some("add-archives"),
        Ignore {
            name: "--chown of an archive",
            reason: "ADD --chown holds for what comes out of an archive, as in BuildKit",
            matcher: |d| {
                d.subject.starts_with("/srv/chowned/dir")
                    && ["uid", "gid"].contains(&d.aspect.as_str())
            },
        },
    ),
    (
        Some("copy-onto-existing"),
        Ignore {
            name: "a destination that is a symbolic link",
            reason: "the file it leads to is written, as in BuildKit; buildah replaces the link",
            matcher: |d| ["/into/a", "/into/link"].contains(&d.subject.as_str()),
        },
    ),
    (
        Some("copy-with-owner"),
        Ignore {
            name: "set-id bits of the context",
            reason: "they are kept, as in BuildKit; buildah drops them",
            matcher: |d| {
                let mode = |text| u32::from_str_radix(text, 8).unwrap_or(0);
                d.aspect == "mode" && mode(&d.left) & 0o1777 == mode(&d.right)
            },
        },
    ),
    (
        Some("copy-with-owner"),
        Ignore {
            name: "--chmod of a directory that COPY makes",
            reason: "an octal --chmod is the mode of created parents too, as in BuildKit",
            matcher: |d| (d.subject.as_str(), d.aspect.as_str()) == ("/moded", "mode"),
        },
    ),
    (
        Some("hard-links"),
        Ignore {
            name: "a lower file written through one of its names",
            reason: "overlayfs parts the names, under BuildKit too; buildah works on a plain copy",
            matcher: |d| d.subject == "/split2",
        },
    ),
    (
        Some("hard-links-of-context"),
        Ignore {
            name: "hard links of symbolic links",
            reason: "they are preserved as those of files are",
            matcher: |d| d.aspect == "hard link" && d.subject.ends_with("/soft2"),
        },
    ),
    (
        Some("shell-and-environment"),
        Ignore {
            name: "standard input",
            reason: "a step reads nothing of the caller's: it is /dev/null; buildah gives a pipe",
            matcher: |d| d.subject == "/stdin" && d.left == "\"/dev/null\\n\"",
        },
    ),
    (
        Some("capabilities-and-acls"),
        Ignore {
            name: "ACLs",
            reason: "a layer carries them; buildah loses them",
            matcher: |d| d.aspect.starts_with("xattr system.posix_acl_") && d.right == "nothing",
        },
    ),
];

/// In what the kernel's overlay (left) and fuse-overlayfs (right) differ: faults of the latter that
/// nobody can see in its upper directory. A newer one may be without them.
const FAULTS_OF_FUSE: &[(Option<&str>, Ignore)] = &[
    (
        Some("owners-and-modes"),
        Ignore {
            name: "set-gid of a directory of a lower layer",
            reason: "it is lost when something is made in it, and new files don't get its group",
            matcher: |d| {
                d.subject.starts_with("/setgid") && ["mode", "gid"].contains(&d.aspect.as_str())
            },
        },
    ),
    (
        Some("capabilities-and-acls"),
        Ignore {
            name: "default ACLs",
            reason: "new files don't inherit them",
            matcher: |d| d.subject.starts_with("/x/acl-dir/inherits"),
        },
    ),
];

/// The case that fuse-overlayfs can't build: it takes names of 251 bytes, no more.
const BEYOND_FUSE: &str = "longest-names";

/// Sorts the environment: buildah moves a variable to the end when it is set again, kiln and
/// BuildKit leave it in its place.
fn sort_environment(image: &mut Image) {
    if let Some(list) = image.config["config"]["Env"].as_array_mut() {
        list.sort_by_key(ToString::to_string);
    }
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

fn build_arguments() -> [String; 2] {
    let registry = Registry::shared();
    [
        format!("BUSYBOX={}", registry.busybox()),
        format!("DEBIAN={}", registry.debian()),
    ]
}

fn build(kiln: &Kiln, case: &str, context: &Path) -> Image {
    let [busybox, debian] = build_arguments();
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
        context.to_str().unwrap(),
    ];
    kiln.run(arguments).ok();
    kiln.image(case)
}

/// What a case must show for the comparison to mean anything.
fn check_itself(case: &str, image: &Image) {
    let tree = &image.tree;
    let xattr = |path: &str, name: &str| tree.file(path).xattrs.get(name.as_bytes()).cloned();
    match case {
        "capabilities-and-acls" => {
            // Version 2, effective, CAP_NET_RAW: no rootid of a user namespace.
            let mut net_raw = vec![1, 0, 0, 2, 0, 0x20];
            net_raw.resize(20, 0);
            assert_eq!(xattr("/x/moved", "security.capability"), Some(net_raw));
            assert_eq!(xattr("/x/cleared", "security.capability"), None);
            assert!(xattr("/x/acl-dir/inherits-too", "system.posix_acl_default").is_some());
            assert_eq!(xattr("/x/attr", "user.binary"), Some(b"\0\n\xff".to_vec()));
            assert_eq!(tree.file("/x/moved").uid, 65534);
        }
        "special-files" => assert_eq!(tree.file("/copied/again").kind, Kind::Fifo),
        "names" => assert!(tree.paths().any(|path| path.len() > 800)),
        "config" => {
            let environment = image.setting("Env").as_array().unwrap();
            assert!(
                environment[0]
                    .as_str()
                    .unwrap()
                    .starts_with("PATH=/opt/bin:")
            );
            assert_eq!(environment[1], "A=2");
        }
        _ => {}
    }
}

#[test]
fn images_equal_those_that_buildah_builds() {
    require!(has_program("buildah"), "no buildah");
    let sandbox = Sandbox::on_disk();
    let (kiln, fuse) = (Kiln::new(), Kiln::new().env("KILN_OVERLAY", "fuse"));
    let buildah = Buildah::new(&sandbox);
    let has_fuse = has_program("fuse-overlayfs") && Path::new("/dev/fuse").exists();
    if !has_fuse {
        skip("no fuse-overlayfs: only the kernel's overlay is tested");
    }
    let [busybox, debian] = build_arguments();
    let met = Mutex::new(BTreeSet::new());
    let wrong = on_all(&cases(), |case| {
        let context = context(case, &sandbox);
        let mut ours = build(&kiln, case, &context);
        check_itself(case, &ours);
        let mut lines = Vec::new();
        if has_fuse && case != BEYOND_FUSE {
            let mut differences = compare(&ours, &build(&fuse, case, &context), &[]);
            differences.retain(|d| find(FAULTS_OF_FUSE, case, d).is_none());
            lines.extend(differences.iter().map(|d| format!("kernel | fuse: {d}")));
        }
        let options = ["--build-arg", &busybox, "--build-arg", &debian];
        let mut theirs = buildah.build_as(case, &context, &options);
        sort_environment(&mut ours);
        sort_environment(&mut theirs);
        for difference in compare(&ours, &theirs, &[]) {
            match find(KNOWN, case, &difference) {
                Some(ignore) => drop(met.lock().unwrap().insert(ignore.name)),
                None => lines.push(format!("kiln | buildah: {difference}")),
            }
        }
        lines
    });
    let mut text = String::new();
    for (case, lines) in &wrong {
        let _ = writeln!(text, "{case}:\n  {}", lines.join("\n  "));
    }
    assert!(wrong.is_empty(), "\n{text}");
    if std::env::var_os("KILN_ORACLE").is_none() {
        let all: BTreeSet<_> = KNOWN.iter().map(|(_, ignore)| ignore.name).collect();
        assert_eq!(
            all,
            met.into_inner().unwrap(),
            "known differences, and those that occurred"
        );
    }
}

fn find<'i>(
    known: &'i [(Option<&str>, Ignore)],
    case: &str,
    difference: &Difference,
) -> Option<&'i Ignore> {
    let mut of_case = known
        .iter()
        .filter(|(of, _)| of.is_none_or(|of| of == case));
    let (_, ignore) = of_case.find(|(_, ignore)| (ignore.matcher)(difference))?;
    Some(ignore)
}
