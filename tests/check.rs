//! `kiln build --check`, `--call` and `kiln check`, and what a build says of findings.

mod support;

use std::path::PathBuf;

use serde_json::Value;
use support::{Kiln, Registry, settled};

const SLOPPY: &str = "\
# syntax=docker/dockerfile:1
# VERSION the version to build
ARG VERSION=1
FROM scratch as build
COPY . /app
# app the application
FROM build AS app
ARG DB_PASSWORD
CMD run
";

fn context(kiln: &Kiln, dockerfile: &str, files: &[(&str, &str)]) -> PathBuf {
    let context = kiln.sandbox().directory("context", files);
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    context
}

fn run(kiln: &Kiln, arguments: &[&str], dockerfile: &str) -> support::Output {
    let context = context(kiln, dockerfile, &[]);
    let mut all: Vec<&str> = arguments.to_vec();
    let context = context.to_str().unwrap().to_owned();
    all.push(&context);
    kiln.run(all)
}

#[test]
fn check_shows_findings_as_docker_does_and_ends_with_1() {
    let kiln = Kiln::new().env("KILN_DISABLE", "userns");
    let expected = "\
Check complete, 3 warnings have been found!

WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
as is not in the casing of FROM
Dockerfile:4
--------------------
   2 |     # VERSION the version to build
   3 |     ARG VERSION=1
   4 | >>> FROM scratch as build
   5 |     COPY . /app
   6 |     # app the application
--------------------

WARNING: SecretsUsedInArgOrEnv - https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/
ARG DB_PASSWORD looks like a secret, and stays in the image
Dockerfile:8
--------------------
   6 |     # app the application
   7 |     FROM build AS app
   8 | >>> ARG DB_PASSWORD
   9 |     CMD run
--------------------
hint: use RUN --mount=type=secret

WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
CMD in shell form: signals end at the shell
Dockerfile:9
--------------------
   7 |     FROM build AS app
   8 |     ARG DB_PASSWORD
   9 | >>> CMD run
--------------------
";
    for arguments in [
        &["build", "--check"][..],
        &["build", "--call=check"],
        &["build", "--call", "lint"],
        &["check"],
    ] {
        let output = run(&kiln, arguments, SLOPPY).fails();
        assert_eq!(output.code(), Some(1), "{arguments:?}");
        assert_eq!(output.stdout(), expected, "{arguments:?}");
        assert_eq!(output.stderr(), "");
    }
    // Nothing is made for a look.
    assert!(!kiln.store().exists());
    let output = run(&kiln, &["build", "--call=check,ignorestatus=true"], SLOPPY);
    assert_eq!(output.code(), Some(0));
    let output = run(&kiln, &["build", "--check"], "FROM scratch\nCOPY . /\n").ok();
    assert_eq!(output.stdout(), "Check complete, no warnings found.\n");
}

#[test]
fn check_of_a_target_leaves_other_stages_alone() {
    let kiln = Kiln::new();
    let text = "FROM scratch AS a\nCMD run\nFROM scratch AS b\nCMD [\"run\"]\n";
    run(&kiln, &["build", "--check"], text).fails();
    run(&kiln, &["build", "--check", "--target", "b"], text).ok();
}

#[test]
fn errors_come_behind_the_findings() {
    let kiln = Kiln::new();
    let output = run(&kiln, &["build", "--check"], "FROM scratch as a\nFROM $X\n").fails();
    assert_eq!(output.code(), Some(1));
    let stdout = output.stdout();
    assert!(stdout.contains("WARNING: FromAsCasing"), "{stdout}");
    assert!(stdout.contains("WARNING: UndefinedArgInFrom"), "{stdout}");
    assert_eq!(
        output.stderr(),
        "error: the base image \"$X\" is blank\n --> Dockerfile:2:6\n  |\n2 | FROM $X\n  |      ^^\n\
         hint: X is not declared: put ARG X=… before the first FROM\n"
    );
    // What can't be parsed can't be checked.
    let output = run(&kiln, &["build", "--check"], "FRM x\n").fails();
    assert_eq!(output.stdout(), "");
    assert!(output.stderr().contains("did you mean FROM?"), "{output}");
}

#[test]
fn json_has_the_shape_of_buildx() {
    let kiln = Kiln::new();
    let json = |arguments: &[&str]| -> Value {
        let output = run(&kiln, arguments, SLOPPY);
        assert_eq!(output.stderr(), "");
        serde_json::from_str(&output.stdout()).unwrap()
    };
    let checked = json(&["build", "--call=check,format=json"]);
    let first = &checked["warnings"][0];
    assert_eq!(first["ruleName"], "FromAsCasing");
    assert_eq!(first["detail"], "as is not in the casing of FROM");
    assert_eq!(first["location"]["ranges"][0]["start"]["line"], 4);
    assert_eq!(checked["sources"][0]["filename"], "Dockerfile");
    assert!(checked.get("buildError").is_none());

    let outline = json(&["build", "--call=outline,format=json"]);
    assert_eq!(outline["name"], "app");
    assert_eq!(outline["description"], "the application");
    assert_eq!(outline["args"][0]["name"], "DB_PASSWORD");

    let targets = json(&["build", "--call=targets,format=json"]);
    assert_eq!(targets["targets"][0]["base"], "scratch");
    assert_eq!(targets["targets"][1]["default"], true);

    let requests = json(&["build", "--call=subrequests.describe,format=json"]);
    assert_eq!(requests[0]["name"], "frontend.lint");

    let output = run(&kiln, &["build", "--call=check,format=json"], "FRM x\n").fails();
    let wrong: Value = serde_json::from_str(&output.stdout()).unwrap();
    assert_eq!(wrong["buildError"]["message"], "unknown instruction: FRM");
}

#[test]
fn outline_and_targets_are_tables() {
    let kiln = Kiln::new();
    let text = "# TAG which alpine\nARG TAG=3\nFROM alpine:$TAG AS base\n\
        RUN --mount=type=secret,id=token,required --mount=type=ssh true\n\
        # app the application\nFROM base AS app\nARG MODE\n";
    let output = run(
        &kiln,
        &["build", "--call=outline", "--build-arg", "MODE=x"],
        text,
    )
    .ok();
    assert_eq!(
        output.stdout(),
        "TARGET:      app\nDESCRIPTION: the application\n\n\
         BUILD ARG   VALUE     DESCRIPTION\nTAG         3         which alpine\nMODE        x\n\n\
         SECRET    REQUIRED\ntoken     true\n\nSSH       REQUIRED\ndefault\n"
    );
    let output = run(&kiln, &["build", "--call=targets"], text).ok();
    assert_eq!(
        output.stdout(),
        "TARGET          DESCRIPTION\nbase\napp (default)   the application\n"
    );
    let output = run(&kiln, &["build", "--call=outline", "--target=ap"], text).fails();
    assert!(output.stderr().contains("did you mean app?"), "{output}");
}

#[test]
fn what_the_ignore_file_excludes_is_found() {
    let kiln = Kiln::new();
    let context = context(
        &kiln,
        "FROM scratch\nCOPY ./docs/a.md src /\n",
        &[
            (".dockerignore", "# no docs\ndocs\n"),
            ("docs/a.md", ""),
            ("src/x", ""),
        ],
    );
    let output = kiln.run(["check", context.to_str().unwrap()]).fails();
    assert!(
        output
            .stdout()
            .contains("COPY of ./docs/a.md, which is excluded by .dockerignore:2: docs\n"),
        "{output}"
    );
}

#[test]
fn a_build_warns_in_one_line_each_and_quiet_ones_do_not() {
    let kiln = Kiln::new();
    let text = "FROM scratch AS App\nCOPY f /\nCMD run\n";
    let output = kiln.build(text, &[("f", "")]).ok();
    let expected = "\
warning: Dockerfile:1: the name of stage App should be in lower case (StageNameCasing)
warning: Dockerfile:3: CMD in shell form: signals end at the shell (JSONArgsRecommended)
hint: kiln build --check shows the lines, kiln check --explain JSONArgsRecommended says why and how to skip it
";
    assert!(output.stderr().starts_with(expected), "{output}");
    let output = kiln.build_with(&["-q"], text, &[]).ok();
    assert_eq!(output.stderr(), "");
    let skipped = format!("# check=skip=all\n{text}");
    let output = kiln.build(&skipped, &[]).ok();
    assert!(!output.stderr().contains("warning"), "{output}");
}

#[test]
fn many_findings_do_not_drown_the_build() {
    let kiln = Kiln::new();
    let text = format!("FROM scratch\n{}", "LABEL a b\n".repeat(14));
    let output = kiln.build(&text, &[]).ok();
    assert_eq!(output.stderr().matches("warning: ").count(), 10);
    assert!(
        output.stderr().contains("hint: 4 more: kiln build --check"),
        "{output}"
    );
}

#[test]
fn error_true_makes_findings_fail_the_build_before_it_starts() {
    let kiln = Kiln::new();
    let text = "# check=error=true\nFROM scratch\nCOPY f /\nCMD run\n";
    let output = kiln.build(text, &[("f", "")]).fails();
    assert_eq!(output.code(), Some(1));
    assert_eq!(
        settled(&output.stderr(), &[]),
        "warning: Dockerfile:4: CMD in shell form: signals end at the shell (JSONArgsRecommended)\n\
         hint: kiln build --check shows the lines, kiln check --explain JSONArgsRecommended says why and how to skip it\n\
         error: checks found something, and error=true makes that an error: JSONArgsRecommended\n\
         hint: kiln build --check shows where\n"
    );
    let skip = [
        "--build-arg",
        "BUILDKIT_DOCKERFILE_CHECK=skip=JSONArgsRecommended;error=true",
    ];
    kiln.build_with(&skip, text, &[]).ok();
    let output = kiln.build("# check=skipp=all\nFROM scratch\n", &[]).fails();
    assert_eq!(
        output.stderr(),
        "error: invalid check option \"skipp=all\"\n --> Dockerfile:1:1\n  |\n1 | # check=skipp=all\n  | ^^^^^^^^^^^^^^^^^\n\
         hint: write check=skip=NAME,NAME;error=true;experimental=NAME; skip and experimental take all too\n"
    );
}

#[test]
fn variables_of_a_base_image_that_is_in_the_store_are_known() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    let text = format!("FROM {base}\nENV A=$SURELY_NOT_SET\n");
    // Nothing is pulled for a look, and what the image sets is not known.
    run(&kiln, &["check"], &text).ok();
    kiln.run(["pull", &base]).ok();
    let output = run(&kiln, &["check"], &text).fails();
    assert!(
        output
            .stdout()
            .contains("nothing sets the variable $SURELY_NOT_SET\n"),
        "{output}"
    );
}

#[test]
fn each_check_is_explained() {
    let kiln = Kiln::new();
    let output = kiln.run(["check", "--explain", "workdirrelativepath"]).ok();
    assert_eq!(
        output.stdout(),
        "\
WorkdirRelativePath: WORKDIR is relative to what the base image says (one of BuildKit's)

The working directory of a base image may change with its next version.

Bad:
    FROM nginx AS web
    WORKDIR usr/share/nginx/html

Good:
    FROM nginx AS web
    WORKDIR /usr/share/nginx/html

To skip it, at the top of the file or above the instruction:
    # check=skip=WorkdirRelativePath
or for one build:
    --build-arg BUILDKIT_DOCKERFILE_CHECK=skip=WorkdirRelativePath

More: https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/
"
    );
    let list = kiln.run(["check", "--list"]).ok().stdout();
    assert_eq!(
        list.lines()
            .filter(|line| line.contains(" BuildKit "))
            .count(),
        22
    );
    let off: Vec<&str> = list
        .lines()
        .filter(|line| line.contains(" off "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        off,
        [
            "InvalidDefinitionDescription",
            "FloatingBaseImage",
            "HeredocIgnoresErrors",
            "PackageListsLeft"
        ]
    );
    let output = kiln.run(["check", "--explain", "UndefinedVars"]).fails();
    assert_eq!(
        output.stderr(),
        "error: no check is named \"UndefinedVars\"\nhint: did you mean UndefinedVar?\n"
    );
    // Without a context, the directory that one is in.
    let output = kiln.run(["check"]).fails();
    assert!(
        output
            .stderr()
            .contains("cannot read the Dockerfile ./Dockerfile")
    );
}
