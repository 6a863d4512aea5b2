//! What each check finds, and what it leaves alone.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::ALL;
use super::*;
use crate::dockerfile::parse;

/// Runs the checks on a file whose base images are at hand, and set `BASE` and `PATH`.
fn found_with(text: &str, build_args: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let base = |_: &str| {
        let mut config = ImageConfig::scratch(&"linux/amd64".parse().unwrap());
        config.config.env = vec!["PATH=/bin".to_owned(), "BASE=1".to_owned()];
        Some(config)
    };
    examine(text, build_args, &base)
}

fn examine(
    text: &str,
    build_args: &[(&str, &str)],
    base: &dyn Fn(&str) -> Option<ImageConfig>,
) -> Vec<(&'static str, String)> {
    let source = Source::new("Dockerfile", text);
    let file = parse(&source).unwrap_or_else(|e| panic!("{}", e.render(&source)));
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        owned.collect()
    };
    let build_args = owned(build_args);
    let predefined = owned(&[
        ("TARGETPLATFORM", "linux/amd64"),
        ("TARGETARCH", "amd64"),
        ("BUILDPLATFORM", "linux/amd64"),
    ]);
    // `# .dockerignore: *.md` in an example stands for that file.
    let pattern = text
        .lines()
        .find_map(|line| line.strip_prefix("# .dockerignore: *"));
    let excluded = |path: &str| {
        let pattern = pattern?;
        path.ends_with(pattern)
            .then(|| format!(".dockerignore:1: *{pattern}"))
    };
    let subject = Subject {
        source: &source,
        file: &file,
        build_args: &build_args,
        predefined: &predefined,
        platform: &"linux/amd64".parse().unwrap(),
        stages: None,
        contexts: &BTreeSet::new(),
        excluded: &excluded,
        base,
    };
    let findings = run(&subject).unwrap_or_else(|e| panic!("{}", e.render(&source)));
    let named = findings.all.into_iter().map(|f| {
        let line = source.line_of(f.span.start);
        (f.check.name, format!("{line}: {}", f.message))
    });
    named.collect()
}

fn found(text: &str) -> Vec<(&'static str, String)> {
    found_with(text, &[])
}

fn names(text: &str) -> Vec<&'static str> {
    found(text).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn every_check_finds_its_bad_example_and_leaves_the_good_one_alone() {
    for check in ALL {
        let on = |text: &str| match check.experimental {
            true => format!("# check=experimental={}\n{text}", check.name),
            false => text.to_owned(),
        };
        let bad = names(&on(check.bad));
        assert!(bad.contains(&check.name), "{}: {bad:?}", check.name);
        let good = found(&on(check.good));
        assert_eq!(good, [], "{}", check.name);
        // What is skipped is not found.
        let skipped = match check.bad.starts_with("# check") {
            true => continue,
            false => format!("# check=skip={}\n{}", check.name, check.bad),
        };
        assert!(!names(&skipped).contains(&check.name), "{}", check.name);
    }
}

#[test]
fn a_clean_file_has_no_findings() {
    let text = "# syntax=docker/dockerfile:1\n\
        ARG TAG=1\n\
        FROM node:$TAG AS build\n\
        ARG TARGETARCH\n\
        WORKDIR /src\n\
        COPY --chown=node:node . .\n\
        RUN --mount=type=cache,target=/root/.npm npm ci && npm run build -- $TARGETARCH\n\
        FROM scratch\n\
        COPY --from=build /src/out /\n\
        ENV A=1 B=\"$PATH\"\n\
        EXPOSE 80 443/tcp 53/udp\n\
        HEALTHCHECK CMD wget localhost\n\
        ENTRYPOINT [\"/app\"]\n\
        CMD [\"serve\"]\n";
    assert_eq!(found(text), []);
}

#[test]
fn a_comment_above_an_instruction_skips_checks_there_only() {
    let text = "FROM scratch\n# check=skip=SecretsUsedInArgOrEnv\nARG A_TOKEN\nARG B_TOKEN\n";
    assert_eq!(
        found(text),
        [(
            "SecretsUsedInArgOrEnv",
            "4: ARG B_TOKEN looks like a secret, and stays in the image".to_owned()
        )]
    );
}

#[test]
fn the_build_argument_replaces_the_directive() {
    let text = "# check=skip=all\nFROM scratch AS Big\n";
    assert_eq!(names(text), [""; 0]);
    let given = &[(CONFIG_ARG, "skip=JSONArgsRecommended")];
    assert_eq!(found_with(text, given)[0].0, "StageNameCasing");
}

#[test]
fn casing_follows_the_majority() {
    assert_eq!(
        found("from scratch\nenv a=1\nWORKDIR /\n"),
        [(
            "ConsistentInstructionCasing",
            "3: WORKDIR should be in lower case, as most instructions here are".to_owned()
        )]
    );
    assert_eq!(
        names("From scratch AS a\n"),
        ["ConsistentInstructionCasing"]
    );
    assert_eq!(
        names("from scratch as a\nfrom scratch AS b\n"),
        ["FromAsCasing"]
    );
}

#[test]
fn stages_are_told_apart_by_their_names() {
    let text = "FROM scratch AS a\nFROM scratch AS A\nFROM a AS Context\n";
    assert_eq!(
        names(text),
        [
            "StageNameCasing",
            "DuplicateStageName",
            "StageNameCasing",
            "ReservedStageName"
        ]
    );
}

#[test]
fn undefined_variables_are_found_wherever_words_are_expanded() {
    for instruction in [
        "COPY $x .",
        "COPY a $x",
        "COPY --chown=$x a b",
        "ADD a.txt $x/",
        "ENV a=$x",
        "LABEL a=${x}",
        "USER $x",
        "VOLUME /$x",
        "WORKDIR /$x",
        "STOPSIGNAL $x",
        "ARG a=$x",
        "RUN --mount=type=cache,target=/$x true",
        "COPY <<EOF /a\n$x\nEOF",
    ] {
        let found = found(&format!("FROM base\n{instruction}\n"));
        assert!(
            found.contains(&("UndefinedVar", "2: nothing sets the variable $x".to_owned())),
            "{instruction}: {found:?}"
        );
    }
    for instruction in [
        "RUN echo $x",
        "ENV a='$x'",
        "ENV a=\\$x",
        "ENV a=$BASE$PATH",
        "COPY <<'EOF' /a\n$x\nEOF",
    ] {
        assert_eq!(
            found(&format!("FROM base\n{instruction}\n")),
            [],
            "{instruction}"
        );
    }
}

#[test]
fn an_arg_without_value_is_defined_and_passes_on_to_stages_above_it() {
    assert_eq!(found("FROM base AS a\nARG x\nFROM a\nENV y=$x\n"), []);
    assert_eq!(
        names("FROM base AS a\nARG x\nFROM base\nENV y=$x\n"),
        ["UndefinedVar"]
    );
    assert_eq!(
        found("FROM base\nENV value=1\nENV y=$valeu\n"),
        [(
            "UndefinedVar",
            "3: nothing sets the variable $valeu (did you mean $value?)".to_owned()
        )]
    );
}

#[test]
fn of_an_unknown_base_image_only_near_names_are_reported() {
    let unknown = |text: &str| examine(text, &[], &|_| None);
    assert_eq!(
        unknown("ARG NODE_VERSION=1\nFROM node:$NODE_VERSION\nENV A=$NODE_VERSION B=$YARN\n"),
        []
    );
    assert_eq!(
        unknown("FROM node\nENV VALUE=1\nENV A=$VALEU\n")[0].0,
        "UndefinedVar"
    );
    assert_eq!(
        unknown("FROM node\nENV A=$TARGETARCH\n")[0].0,
        "UndefinedVar"
    );
    assert_eq!(
        unknown("FROM node\nRUN a $TARGETARCH\n")[0].0,
        "ArgNotInStage"
    );
    assert_eq!(unknown("ARG V=1\nFROM node\nRUN a $V\n"), []);
    assert_eq!(unknown("FROM node\nRUN sudo a\n"), []);
}

#[test]
fn arguments_of_from_are_declared_before_it() {
    assert_eq!(
        found("ARG TAG=1\nFROM base:${TGA}x\n"),
        [(
            "UndefinedArgInFrom",
            "2: no ARG before the first FROM declares $TGA (did you mean $TAG?)".to_owned()
        )]
    );
    assert_eq!(found("ARG TAG\nFROM base:1${TAG}\n"), []);
    let given = found_with("ARG TAG\nFROM base:$TAG\n", &[("TAG", "1")]);
    assert_eq!(given[0].0, "InvalidDefaultArgInFrom");
    assert_eq!(found("ARG TAG\nFROM base:${TAG:-1}\n"), []);
}

#[test]
fn platforms_of_from() {
    assert_eq!(
        names("FROM --platform=linux/amd64 base\n"),
        ["FromPlatformFlagConstDisallowed"]
    );
    assert_eq!(found("FROM --platform=linux/amd64 base AS app-amd64\n"), []);
    assert_eq!(
        found("FROM --platform=${TARGETPLATFORM:-x} base\n")[0].0,
        "RedundantTargetPlatform"
    );
    assert_eq!(
        found("FROM --platform=linux/arm64 base AS arm64\n"),
        [(
            "InvalidBaseImagePlatform",
            "1: the image base is for linux/amd64, and linux/arm64 is built".to_owned()
        )]
    );
}

#[test]
fn an_image_that_a_file_stands_on_is_no_mistyped_stage() {
    let text = |from: &str| format!("FROM node AS node1\nFROM scratch\nCOPY --from={from} / /\n");
    assert_eq!(names(&text("node2")), ["MistypedStageName"]);
    for from in ["node", "node1", "NODE1", "nodes:1", "0", "debian"] {
        assert_eq!(found(&text(from)), [], "{from}");
    }
}

#[test]
fn the_earlier_of_two_commands_is_reported() {
    let text = "FROM scratch\nCMD [\"a\"]\nENTRYPOINT [\"b\"]\nCMD [\"c\"]\n";
    assert_eq!(
        found(text),
        [(
            "MultipleInstructionsDisallowed",
            "2: only the last CMD of a stage counts".to_owned()
        )]
    );
    assert_eq!(
        found("FROM scratch AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n"),
        []
    );
}

#[test]
fn a_shell_that_the_file_sets_makes_shell_form_meant() {
    assert_eq!(
        names("FROM base\nCMD a\nENTRYPOINT b\n"),
        ["JSONArgsRecommended"; 2]
    );
    assert_eq!(found("FROM base\nSHELL [\"/bin/sh\", \"-c\"]\nCMD a\n"), []);
    assert_eq!(found("FROM base\nHEALTHCHECK CMD a b\n"), []);
}

#[test]
fn only_the_first_workdir_of_a_chain_of_stages_must_be_absolute() {
    let text = "FROM base AS a\nWORKDIR /a\nWORKDIR b\nFROM a\nWORKDIR c\n";
    assert_eq!(found(text), []);
    assert_eq!(
        names("FROM base\nENV d=x\nWORKDIR $d\nWORKDIR y\n"),
        ["WorkdirRelativePath"]
    );
}

#[test]
fn ports_are_checked_after_expansion() {
    let text = "FROM base\nENV p=80/TCP q=8080:80\nEXPOSE $p $q\n";
    assert_eq!(names(text), ["ExposeProtoCasing", "ExposeInvalidFormat"]);
}

#[test]
fn ownership_counts_where_copy_brought_many_files_there() {
    let doubled = |text: &str| names(text).contains(&"OwnershipDoublesLayer");
    for run in [
        "chown -R a:a /app",
        "true && chmod --recursive 755 /app/",
        "chown -R a /",
        "chgrp -vR a .",
        "cd /x && chown -R a /app",
    ] {
        let text = format!("FROM base\nWORKDIR /app\nCOPY . .\nRUN {run}\n");
        assert!(doubled(&text), "{run}");
    }
    for run in [
        "chown a /app",
        "chown -R a /app/data",
        "chown -R a /application",
        "chown -R a $DIR",
        "cd /x && chown -R a y",
        "echo chown -R a /app",
    ] {
        let text = format!("FROM base\nWORKDIR /app\nCOPY . .\nRUN {run}\n");
        assert!(!doubled(&text), "{run}");
    }
    assert!(!doubled(
        "FROM base\nCOPY package.json /app/\nRUN chown -R a /app\n"
    ));
    assert!(!doubled(
        "FROM base AS a\nCOPY . /app\nFROM base\nRUN chown -R a /app\n"
    ));
    assert!(doubled(
        "FROM base AS a\nCOPY . /app\nFROM a\nRUN chown -R a /app\n"
    ));
    // The line of the command, not that of the instruction.
    let text = "FROM base\nCOPY . /app\nRUN true \\\n && chown -R a /app\n";
    assert_eq!(
        found(text)[0].1,
        "4: chown -R /app stores files again that COPY brought"
    );
}

#[test]
fn lists_of_apt_are_stale_where_the_install_is_another_step() {
    let stale = |text: &str| names(&format!("FROM base\n{text}\n")).contains(&"PackageListsStale");
    assert!(stale(
        "RUN apt-get -q update\nENV A=1\nRUN apt-get -y install a"
    ));
    assert!(!stale(
        "RUN apt-get update && apt-get install a\nRUN apt-get install b"
    ));
    assert!(!stale(
        "RUN apt-get update\nRUN apt-get update && apt-get install a"
    ));
    assert!(!stale("RUN apt-get update"));
    assert!(!stale(
        "RUN --mount=type=cache,target=/var/lib/apt apt-get update\nRUN apt-get install a"
    ));
}

#[test]
fn what_a_shell_forgets() {
    let lost = |run: &str| names(&format!("FROM base\nRUN {run}\n")).contains(&"ShellStateLost");
    for run in [
        "cd /app",
        "a && export B=c",
        "B=c",
        ". ./env",
        "ulimit -n 9",
        "<<EOF\na\ncd b\nEOF",
    ] {
        assert!(lost(run), "{run}");
    }
    for run in [
        "cd /app && make",
        "(cd /app)",
        "test -d a || cd b",
        "B=c d",
        "[\"cd\", \"a\"]",
    ] {
        assert!(!lost(run), "{run}");
    }
}

#[test]
fn users_and_sudo() {
    let text = |user: &str, run: &str| format!("FROM base\nUSER {user}\nRUN {run}\n");
    assert_eq!(names(&text("root", "a && sudo b")), ["SudoAsRoot"]);
    assert_eq!(found(&text("app", "sudo b")), []);
    assert_eq!(found(&text("0:0", "sudo -u app b")), []);
    for run in [
        "useradd -u 1000001 a",
        "useradd -mu 2000000 a",
        "useradd --uid=2000000 a",
    ] {
        assert_eq!(names(&text("root", run)), ["UseraddFillsLastlog"], "{run}");
    }
    for run in ["useradd -u 1000 a", "useradd -lu 2000000 a", "useradd a"] {
        assert_eq!(found(&text("root", run)), [], "{run}");
    }
}

#[test]
fn what_looks_like_json_and_is_none() {
    for line in [
        "CMD ['a', 'b']",
        "ENTRYPOINT [\"a\",]",
        "RUN [\"a\" \"b\"]",
        "VOLUME ['/a']",
    ] {
        let found = names(&format!("FROM base\nSHELL [\"/bin/sh\", \"-c\"]\n{line}\n"));
        assert_eq!(found, ["BrokenJsonForm"], "{line}");
    }
    for line in [
        "RUN [ -f a ] && b",
        "RUN [ \"$PATH\" = x ]",
        "RUN [[ a ]]",
        "CMD [\"a\"]",
    ] {
        assert_eq!(found(&format!("FROM base\n{line}\n")), [], "{line}");
    }
}

#[test]
fn variables_in_exec_form_count_where_the_file_sets_them() {
    let found = |line: &str| names(&format!("FROM base\nENV A=1\n{line}\n"));
    assert_eq!(found("CMD [\"echo\", \"$A\"]"), ["VariableInExecForm"]);
    assert_eq!(found("RUN [\"echo\", \"${A}\"]"), ["VariableInExecForm"]);
    for line in [
        "CMD [\"echo\", \"$B\"]",
        "CMD [\"echo\", \"x$A\"]",
        "CMD [\"sh\", \"-c\", \"$A\"]",
    ] {
        assert_eq!(found(line), [""; 0], "{line}");
    }
}

#[test]
fn arguments_that_a_run_uses_without_declaring_them() {
    let text = |run: &str| format!("ARG V=1\nFROM base\nRUN {run}\n");
    for run in ["echo $V", "echo \"${V%.*}\"", "echo $(uname $V)"] {
        assert_eq!(names(&text(run)), ["ArgNotInStage"], "{run}");
    }
    for run in [
        "echo '$V'",
        "V=2 && echo $V",
        "echo ${V:-2}",
        "echo \\$V",
        ". ./x && echo $V",
    ] {
        assert_eq!(found(&text(run)), [], "{run}");
    }
    assert_eq!(found("ARG V=1\nFROM base\nARG V\nRUN echo $V\n"), []);
}

#[test]
fn descriptions_name_what_they_describe() {
    let on = "# check=experimental=InvalidDefinitionDescription\n\n";
    assert_eq!(
        found(&format!(
            "{on}FROM base\n# A is a\nARG A\n# b\n\nARG B\n#\nARG C\n"
        )),
        []
    );
    assert_eq!(
        found(&format!(
            "{on}# the app\nFROM base AS app\n# a and b\nARG A B\n"
        )),
        [
            (
                "InvalidDefinitionDescription",
                "4: the comment on stage should be: # app <description>".to_owned()
            ),
            (
                "InvalidDefinitionDescription",
                "6: the comment on ARG should be: # <name> <description>".to_owned()
            ),
        ]
    );
}

#[test]
fn a_directive_that_cannot_be_read_points_at_itself() {
    let source = Source::new(
        "Dockerfile",
        "# syntax=docker/dockerfile:1\n# check=skp=x\nFROM scratch\n",
    );
    let file = parse(&source).unwrap();
    let nothing = BTreeMap::new();
    let subject = Subject {
        source: &source,
        file: &file,
        build_args: &nothing,
        predefined: &nothing,
        platform: &Platform::host(),
        stages: None,
        contexts: &BTreeSet::new(),
        excluded: &|_| None,
        base: &|_| None,
    };
    let error = run(&subject).unwrap_err();
    assert_eq!(error.message, "invalid check option \"skp=x\"");
    assert_eq!(source.line_of(error.span.start), 2);
}

#[test]
fn an_outline_has_what_the_target_uses() {
    let text = "# GLOBAL for all\nARG GLOBAL=g\nARG UNUSED=u\nARG TAG=$GLOBAL-1\n\
        FROM base:$TAG AS a\nARG GLOBAL\nARG TARGETARCH\n\
        RUN --mount=type=secret,id=one,required --mount=type=ssh true\n\
        # app the application\nFROM scratch AS app\n# X says x\nARG X=${GLOBAL:-d}\nARG Y\nCOPY --from=a / /\n\
        FROM scratch AS other\nARG Z\n";
    let source = Source::new("Dockerfile", text);
    let file = parse(&source).unwrap();
    let predefined = BTreeMap::from([("TARGETARCH".to_owned(), "amd64".to_owned())]);
    let outline = file
        .outline(&source, Some("app"), &BTreeMap::new(), &predefined)
        .unwrap();
    assert_eq!(outline.description.as_deref(), Some("the application"));
    let args: Vec<_> = outline
        .args
        .iter()
        .map(|a| {
            (
                a.name.as_str(),
                a.value.as_deref(),
                a.description.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        args,
        [
            ("GLOBAL", Some("g"), Some("for all")),
            ("TAG", Some("g-1"), None),
            ("X", Some("d"), Some("says x")),
            ("Y", None, None),
        ]
    );
    assert_eq!(
        (
            outline.secrets[0].name.as_str(),
            outline.secrets[0].required
        ),
        ("one", true)
    );
    assert_eq!(outline.ssh[0].name, "default");
    let targets = file.targets(&source);
    assert_eq!(targets.len(), 3);
    assert_eq!(targets[1].description.as_deref(), Some("the application"));
    assert!(targets[2].default && !targets[1].default);
}
