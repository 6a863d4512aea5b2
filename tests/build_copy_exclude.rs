//! COPY --exclude: what of the sources stays behind.

mod support;

use support::{Kiln, Registry};

const FILES: &[(&str, &str)] = &[
    ("dir1/101.png", ""),
    ("dir1/102.txt", ""),
    ("dir2/201.png", ""),
    ("dir2/sub/202.txt", ""),
    ("home.txt", ""),
    ("home.md", ""),
    ("homer", ""),
];

/// SEMANTICS 49.
#[test]
fn patterns_count_from_the_source() {
    let kiln = Kiln::new();
    kiln.build(
        "FROM scratch\n\
         COPY --exclude=*/*.png --exclude=home* --exclude=Dockerfile . /whole\n\
         COPY --exclude=*.png dir1/ /one/\n\
         ADD --exclude=*.png --exclude=sub dir* /two\n\
         COPY --exclude=**/*.txt dir2 /three\n\
         COPY --exclude=* dir* /none\n\
         COPY --exclude=* --exclude=!*.txt dir1 /back\n",
        FILES,
    )
    .ok();
    let image = kiln.image("test");
    assert_eq!(
        image.below("/whole"),
        [
            "dir1",
            "dir1/102.txt",
            "dir2",
            "dir2/sub",
            "dir2/sub/202.txt"
        ]
    );
    assert_eq!(image.below("/one"), ["102.txt"]);
    assert_eq!(image.below("/two"), ["102.txt"]);
    assert_eq!(image.below("/three"), ["201.png", "sub"]);
    assert!(image.tree.get("/none").is_some());
    assert!(image.below("/none").is_empty());
    assert_eq!(image.below("/back"), ["102.txt"]);
}

#[test]
fn files_that_are_sources_themselves_are_excluded_by_their_name() {
    let kiln = Kiln::new();
    kiln.build(
        "FROM scratch\n\
         COPY --exclude=*.txt --exclude=*.md hom* /wild/\n\
         COPY --exclude=*.txt home.txt homer /literal/\n\
         COPY --exclude=*.txt home.txt /nothing/\n",
        FILES,
    )
    .ok();
    let image = kiln.image("test");
    assert_eq!(image.below("/wild"), ["homer"]);
    assert_eq!(image.below("/literal"), ["homer"]);
    assert!(image.tree.get("/nothing").is_none());
    kiln.build("FROM scratch\nCOPY --exclude=*.txt hom.txt /x/\n", FILES)
        .fails_with("hint: did you mean \"home.txt\"?\n");
    let ignored = &[("x.txt", ""), (".dockerignore", "*.txt\n")];
    kiln.build("FROM scratch\nCOPY --exclude=*.txt x.txt /x/\n", ignored)
        .fails_with("\"x.txt\" is excluded by .dockerignore\n");
}

#[test]
fn stages_and_variables_take_part() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    kiln.build(
        &format!(
            "FROM {base} AS from\nRUN mkdir -p /s/keep /s/drop && touch /s/keep/a.o /s/keep/a.c /s/drop/x\n\
             FROM scratch\nARG WHAT=drop\n\
             COPY --from=from --exclude=$WHAT --exclude=**/*.o --link --chown=1:2 /s /d\n"
        ),
        &[],
    )
    .ok();
    let image = kiln.image("test");
    assert_eq!(image.below("/d"), ["keep", "keep/a.c"]);
    assert_eq!(image.tree.file("/d/keep/a.c").uid, 1);
}

#[test]
fn a_broken_pattern_is_an_error() {
    let kiln = Kiln::new();
    kiln.build("FROM scratch\nCOPY --exclude=[ dir1 /x\n", FILES)
        .fails_with(
            "--exclude: invalid pattern \"[\": a '[' without its ']', or a '\\' at the end",
        );
}
