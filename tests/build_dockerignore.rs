//! Ignore files: what of the context takes part.

mod support;

use std::os::unix::fs::PermissionsExt;

use support::{Image, Kiln};

/// Builds `COPY . /c` with an ignore file, and returns what is in the image.
#[track_caller]
fn kept(rules: &str, files: &[&str]) -> Vec<String> {
    let kiln = Kiln::new();
    let files: Vec<(&str, &str)> = files.iter().map(|name| (*name, "")).collect();
    kiln.sandbox()
        .directory("context", &[(".dockerignore", rules)]);
    kiln.build("FROM scratch\nCOPY . /c\n", &files).ok();
    paths(&kiln.image("test"))
}

fn paths(image: &Image) -> Vec<String> {
    let paths = image.tree.paths();
    paths
        .filter_map(|path| path.strip_prefix("/c/").map(str::to_owned))
        .collect()
}

/// SEMANTICS 53
#[test]
fn last_rule_that_matches_wins() {
    assert_eq!(
        kept(
            "Dockerfile\n.dockerignore\n*.log\n!keep.log\nkeep.l*\n!keep.log\n",
            &["a.log", "keep.log", "keep.lag", "x"]
        ),
        ["keep.log", "x"]
    );
}

/// SEMANTICS 53
#[test]
fn matched_directory_covers_what_is_in_it() {
    assert_eq!(
        kept(
            "*\n!d\nd/sub\n!d/sub/deep/x\n",
            &["a", "d/f", "d/sub/g", "d/sub/deep/x", "d/sub/deep/y"]
        ),
        ["d", "d/f", "d/sub", "d/sub/deep", "d/sub/deep/x"]
    );
}

#[test]
fn double_star_crosses_directories_and_star_does_not() {
    assert_eq!(
        kept(
            "Dockerfile\n.dockerignore\n**/*.o\nonly/*.c\n",
            &["a.o", "d/a.o", "d/e/a.o", "only/a.c", "only/d/a.c", "a.c"]
        ),
        ["a.c", "d", "d/e", "only", "only/d", "only/d/a.c"]
    );
}

/// SEMANTICS 53
#[test]
fn rules_are_trimmed_and_cleaned() {
    assert_eq!(
        kept(
            "\u{feff}# a comment\n  Dockerfile  \n\n/.dockerignore\n./a/../b\n!  /kept\n #notacomment\nsub/\n",
            &["b", "kept", "#notacomment", "sub/x"]
        ),
        ["kept"]
    );
}

/// SEMANTICS 54
#[test]
fn characters_of_regular_expressions_are_plain() {
    assert_eq!(
        kept(
            "Dockerfile\n.dockerignore\na+b\n(c)\n${d}\ne|f\nfile?.[tx]\n",
            &[
                "a+b", "aab", "(c)", "c", "${d}", "e|f", "e", "file1.t", "file1.y"
            ]
        ),
        ["aab", "c", "e", "file1.y"]
    );
}

/// SEMANTICS 54
#[test]
fn dockerfile_that_is_ignored_is_still_read() {
    assert_eq!(kept("Dockerfile\n.dockerignore\n", &["x"]), ["x"]);
    // And nothing is left of a context in which all is ignored.
    assert!(kept("*\n", &["x", "d/y"]).is_empty());
}

/// SEMANTICS 54
#[test]
fn directory_of_a_file_that_came_back_keeps_its_mode() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory(
        "context",
        &[(".dockerignore", "*\n!d/x\n"), ("d/x", ""), ("d/y", "")],
    );
    std::fs::set_permissions(context.join("d"), std::fs::Permissions::from_mode(0o2750)).unwrap();
    kiln.build("FROM scratch\nCOPY . /c\n", &[]).ok();
    let image = kiln.image("test");
    assert_eq!(paths(&image), ["d", "d/x"]);
    assert_eq!(image.tree.file("/c/d").mode, 0o2750);
}

/// SEMANTICS 54
#[test]
fn file_of_the_dockerfile_goes_before_those_of_the_context() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory(
        "context",
        &[
            ("a", ""),
            ("b", ""),
            ("c", ""),
            ("special.Dockerfile", "FROM scratch\nCOPY ? /c/\n"),
            ("Dockerfile", "FROM scratch\nCOPY ? /c/\n"),
            (".containerignore", "c\n"),
        ],
    );
    let context = context.to_str().unwrap();
    let dockerfile = format!("{context}/special.Dockerfile");
    let build = |options: &[&str]| {
        kiln.run(
            ["build", "-t", "test"]
                .iter()
                .chain(options)
                .chain([&context]),
        )
        .ok();
        paths(&kiln.image("test"))
    };
    assert_eq!(build(&[]), ["a", "b"]);
    kiln.sandbox()
        .directory("context", &[(".dockerignore", "b\n")]);
    assert_eq!(build(&[]), ["a", "c"]);
    kiln.sandbox()
        .directory("context", &[("special.Dockerfile.dockerignore", "a\n")]);
    assert_eq!(build(&["-f", &dockerfile]), ["b", "c"]);
    assert_eq!(build(&[]), ["a", "c"]);
}

/// SEMANTICS 54
#[test]
fn other_stages_are_not_subject_to_it() {
    let kiln = Kiln::new();
    kiln.build(
        "FROM scratch AS a\nCOPY x /d/secret\nFROM scratch\nCOPY --from=a /d /c\n",
        &[("x", ""), (".dockerignore", "secret\nd\n")],
    )
    .ok();
    assert_eq!(paths(&kiln.image("test")), ["secret"]);
}

#[test]
fn wildcards_do_not_match_what_is_ignored() {
    let kiln = Kiln::new();
    kiln.build(
        "FROM scratch\nCOPY *.txt /c/\nCOPY e* /c/\n",
        &[
            ("a.txt", ""),
            ("b.txt", ""),
            ("empty/x", ""),
            (".dockerignore", "b.*\nempty\n"),
        ],
    )
    .ok();
    assert_eq!(paths(&kiln.image("test")), ["a.txt"]);
}

/// SEMANTICS 41
#[test]
fn ignored_source_is_an_error_that_names_the_rule() {
    let kiln = Kiln::new();
    let files = &[
        (".dockerignore", "# comment\nsecret*\nd\n"),
        ("secret.txt", ""),
        ("d/x", ""),
    ];
    for (source, line, rule) in [("secret.txt", 2, "secret*"), ("d", 3, "d"), ("d/x", 3, "d")] {
        let output = kiln
            .build(&format!("FROM scratch\nCOPY {source} /c\n"), files)
            .fails();
        let expected = format!(
            "error: \"{source}\" is excluded by .dockerignore\n \
             --> Dockerfile:2:6\n  |\n2 | COPY {source} /c\n  |      {}\n\
             hint: .dockerignore:{line} says \"{rule}\"; add a line \"!{source}\" behind it to have the file\n",
            "^".repeat(source.len())
        );
        assert!(output.stderr().ends_with(&expected), "{expected}\n{output}");
    }
}

#[test]
fn link_to_what_is_ignored_is_an_error() {
    let kiln = Kiln::new();
    let context = kiln
        .sandbox()
        .directory("context", &[(".dockerignore", "real\n"), ("real/x", "")]);
    std::os::unix::fs::symlink("real", context.join("link")).unwrap();
    for source in ["link", "link/x"] {
        let output = kiln
            .build(&format!("FROM scratch\nCOPY {source} /c\n"), &[])
            .fails();
        let stderr = output.stderr();
        assert!(
            stderr.contains(&format!("error: \"{source}\" ")),
            "{output}"
        );
        assert!(
            stderr.contains("hint: .dockerignore:1 says \"real\""),
            "{output}"
        );
    }
}

#[test]
fn wrong_rule_is_an_error_with_its_place() {
    let kiln = Kiln::new();
    for (rules, place) in [("x\n!\n", ".dockerignore:2"), ("[\n", ".dockerignore:1")] {
        let output = kiln
            .build("FROM scratch\nCOPY . /c\n", &[(".dockerignore", rules)])
            .fails();
        assert!(output.stderr().contains(place), "{output}");
    }
}

/// SEMANTICS 53
#[test]
fn directory_that_can_not_be_read_does_no_harm_where_it_is_ignored() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory(
        "context",
        &[
            (".dockerignore", "locked\nDockerfile\n.dockerignore\n"),
            ("x", ""),
        ],
    );
    let locked = kiln.sandbox().directory("context/locked", &[]);
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
    kiln.build("FROM scratch\nCOPY . /c\n", &[]).ok();
    assert_eq!(paths(&kiln.image("test")), ["x"]);
    std::fs::set_permissions(
        context.join("locked"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
}
