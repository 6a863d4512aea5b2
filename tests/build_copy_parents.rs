//! COPY --parents: the directories on the way to a source are copied too.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use support::{Image, Kiln, Kind, Registry};

/// Builds instructions on nothing, and reads the image.
#[track_caller]
fn built(kiln: &Kiln, instructions: &str, files: &[(&str, &str)]) -> Image {
    kiln.build(&format!("FROM scratch\n{instructions}"), files)
        .ok();
    kiln.image("test")
}

const FILES: &[(&str, &str)] = &[
    ("a/b/c/d/foo", "foo"),
    ("a/b/c/d/e/bay", "bay"),
    ("a/b2/c/d/e/bar", "bar"),
    ("a/b/c2/d/e/baz", "baz"),
    ("top.txt", "top"),
];

/// SEMANTICS 49.
#[test]
fn directories_on_the_way_are_made() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "COPY --parents a/b/c/d/foo top.txt /one\nCOPY --parents a/b/c/d /two/\n\
         COPY --parents ./a/b/c/d/. /three/\nWORKDIR /w\nCOPY --parents /a/b*/c/d/e .\n",
        FILES,
    );
    let one = ["a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/foo", "top.txt"];
    assert_eq!(image.below("/one"), one);
    let tree = [
        "a",
        "a/b",
        "a/b/c",
        "a/b/c/d",
        "a/b/c/d/e",
        "a/b/c/d/e/bay",
        "a/b/c/d/foo",
    ];
    assert_eq!(image.below("/two"), tree);
    assert_eq!(image.below("/three"), tree);
    assert_eq!(image.tree.file("/w/a/b/c/d/e/bay").content(), b"bay");
    assert_eq!(image.tree.file("/w/a/b2/c/d/e/bar").content(), b"bar");
    assert!(image.tree.get("/w/a/b/c/d/foo").is_none());
    assert!(image.tree.get("/w/a/b/c2").is_none());
}

/// SEMANTICS 49.
#[test]
fn pivot_cuts_the_way_off() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "COPY --parents /a/b/./c/d /one\nCOPY --parents a/./b/./c /two\n\
         COPY --parents a/./*/c /three\nCOPY --parents a/b*/./c/**/e /four\n\
         COPY --parents a/b/c*/./d/**/baz a/b*/./c/**/bar /five/\nCOPY --parents a/b2/./. /six\n",
        FILES,
    );
    assert_eq!(
        image.below("/one"),
        ["c", "c/d", "c/d/e", "c/d/e/bay", "c/d/foo"]
    );
    assert_eq!(image.tree.file("/two/b/c/d/foo").content(), b"foo");
    assert!(image.tree.get("/two/b/c2").is_none());
    assert_eq!(image.tree.file("/three/b/c/d/e/bay").content(), b"bay");
    assert_eq!(image.tree.file("/three/b2/c/d/e/bar").content(), b"bar");
    assert_eq!(
        image.below("/four"),
        ["c", "c/d", "c/d/e", "c/d/e/bar", "c/d/e/bay"]
    );
    assert_eq!(
        image.below("/five"),
        ["c", "c/d", "c/d/e", "c/d/e/bar", "d", "d/e", "d/e/baz"]
    );
    assert_eq!(image.below("/six"), ["c", "c/d", "c/d/e", "c/d/e/bar"]);
}

/// SEMANTICS 41, 49.
#[test]
fn two_stars_cross_directories() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "COPY --parents **/*.txt /all/\nCOPY --parents src/**/x.txt /some/\n\
         COPY --parents --exclude=src/deep/** src/**/*.txt /less/\n",
        &[
            ("top.txt", ""),
            ("src/x.txt", ""),
            ("src/deep/x.txt", ""),
            ("src/deep/er/x.txt", ""),
            ("src/deep/er/no.md", ""),
            ("other/no.md", ""),
        ],
    );
    assert_eq!(
        image.below("/all"),
        [
            "src",
            "src/deep",
            "src/deep/er",
            "src/deep/er/x.txt",
            "src/deep/x.txt",
            "src/x.txt",
            "top.txt"
        ]
    );
    assert_eq!(
        image.below("/some"),
        [
            "src",
            "src/deep",
            "src/deep/er",
            "src/deep/er/x.txt",
            "src/deep/x.txt",
            "src/x.txt"
        ]
    );
    assert_eq!(image.below("/less"), ["src", "src/x.txt"]);
}

/// SEMANTICS 49.
#[test]
fn a_wildcard_may_match_nothing() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "COPY --parents a/none*/c /one\nCOPY --parents a/b/./none* /two\n\
         COPY --parents none*/./c /three\n",
        FILES,
    );
    assert_eq!(image.tree.file("/one").kind, Kind::Directory);
    assert!(image.below("/one").is_empty());
    assert!(image.below("/two").is_empty());
    assert!(image.tree.get("/three").is_none());
}

/// SEMANTICS 49.
#[test]
fn a_missing_literal_is_an_error() {
    let kiln = Kiln::new();
    let cases = [
        ("a/b/none", "\"a/b/none\" is not in the build context"),
        ("a/./b/none", "\"a/./b/none\" is not in the build context"),
        ("none/./b*", "\"none/./b*\" is not in the build context"),
        ("top.txt/x", "\"top.txt/x\" is not in the build context"),
    ];
    for (source, message) in cases {
        let dockerfile = format!("FROM scratch\nCOPY --parents {source} /x\n");
        kiln.build(&dockerfile, FILES)
            .fails_with(&format!("{message}: no such file or directory\n"));
    }
    kiln.build("FROM scratch\nCOPY --parents top.tx /x\n", FILES)
        .fails_with("hint: did you mean \"top.txt\"?\n");
    let ignored = &[("a/b/x", ""), (".dockerignore", "a/b\n")];
    let output = kiln
        .build("FROM scratch\nCOPY --parents a/b/x /x\n", ignored)
        .fails_with("\"a/b/x\" is excluded by .dockerignore\n");
    assert!(
        output.stderr().contains(".dockerignore:1 says \"a/b\""),
        "{output}"
    );
}

#[test]
fn a_link_on_the_way_is_named_and_one_at_the_end_is_copied() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[("real/x", "x")]);
    symlink("real", context.join("link")).unwrap();
    let image = built(&kiln, "COPY --parents link /to/\n", &[]);
    assert_eq!(image.tree.file("/to/link").target, b"real");
    let output = kiln
        .build("FROM scratch\nCOPY --parents link/x /to/\n", &[])
        .fails_with(
            "\"link/x\" is reached through a symbolic link, which --parents does not follow\n",
        );
    assert!(
        output
            .stderr()
            .contains("hint: name where it leads: \"real/x\"\n"),
        "{output}"
    );
}

#[test]
fn directories_on_the_way_bring_their_modes_and_leave_owners_that_are_there() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[("a/b/x", "x")]);
    for (name, mode) in [("a", 0o711), ("a/b", 0o2750)] {
        fs::set_permissions(context.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let base = Registry::shared().busybox();
    kiln.build(
        &format!(
            "FROM {base}\nRUN mkdir -p /there/a && chown 5:6 /there/a && chmod 700 /there/a\n\
             COPY --parents a/b/x /new/\nCOPY --parents --chown=7:8 a/b/x /there/\n"
        ),
        &[],
    )
    .ok();
    let image = kiln.image("test");
    let of = |path| {
        let node = image.tree.file(path);
        (node.uid, node.gid, node.mode)
    };
    assert_eq!(of("/new"), (0, 0, 0o755));
    assert_eq!(of("/new/a"), (0, 0, 0o711));
    assert_eq!(of("/new/a/b"), (0, 0, 0o2750));
    assert_eq!(of("/there/a"), (5, 6, 0o711));
    assert_eq!(of("/there/a/b"), (7, 8, 0o2750));
    assert_eq!(of("/there/a/b/x").0, 7);
}

#[test]
fn a_stage_is_a_source_too() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    kiln.build(
        &format!(
            "FROM {base} AS from\nRUN mkdir -p /opt/v1/bin && echo x > /opt/v1/bin/x && chown -R 3:4 /opt\n\
             FROM scratch\nCOPY --from=from --parents --link /opt/./*/bin/x /usr/\n"
        ),
        &[],
    )
    .ok();
    let image = kiln.image("test");
    assert_eq!(image.below("/usr"), ["v1", "v1/bin", "v1/bin/x"]);
    for path in ["/usr/v1", "/usr/v1/bin", "/usr/v1/bin/x"] {
        let node = image.tree.file(path);
        assert_eq!((node.uid, node.gid), (3, 4), "{path}");
    }
}
