//! Stages: which are built, what they inherit, what may be copied from where; ARG's scopes;
//! triggers of bases.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Image, Kiln, Registry};

fn base() -> String {
    Registry::shared().busybox()
}

#[track_caller]
fn built(kiln: &Kiln, dockerfile: &str) -> Image {
    kiln.build(dockerfile, &[("x", "x")]).ok();
    kiln.image("test")
}

#[test]
fn files_come_from_stages_by_name_and_number_and_from_images() {
    let kiln = Kiln::new();
    let base = base();
    kiln.build_with(
        &["-t", "other"],
        "FROM scratch\nCOPY x /of-other\n",
        &[("x", "x")],
    )
    .ok();
    let image = built(
        &kiln,
        &format!(
            "FROM {base} AS One\nRUN echo one > /f\n\
             FROM {base}\nRUN echo two > /f\n\
             FROM scratch\n\
             COPY --from=one /f /by-name\nCOPY --from=ONE /f /by-name-in-capitals\nCOPY --from=1 /f /by-number\n\
             COPY --from={base} /etc/passwd /of-image\nCOPY --from=other /of-other /\n"
        ),
    );
    assert_eq!(image.text("/by-name"), "one\n");
    assert_eq!(image.text("/by-name-in-capitals"), "one\n");
    assert_eq!(image.text("/by-number"), "two\n");
    assert!(image.text("/of-image").starts_with("root:"));
    assert_eq!(image.text("/of-other"), "x");
}

/// SEMANTICS 28
#[test]
fn stages_that_are_not_needed_are_not_built() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {} AS needed\nRUN echo n > /n\n\
         FROM 127.0.0.1:1/nowhere AS unused\nRUN false\n\
         FROM scratch\nCOPY --from=needed /n /n\n\
         FROM unused AS last-but-unused\n\
         FROM scratch AS last\nCOPY --from=needed /n /last\n",
        base()
    );
    let output = kiln.build(&dockerfile, &[]).ok();
    assert!(!output.stderr().contains("nowhere"), "{output}");
    assert_eq!(kiln.image("test").text("/last"), "n\n");
    for target in ["2", "NEEDED"] {
        kiln.build_with(&["--target", target], &dockerfile, &[])
            .ok();
        assert_eq!(kiln.image("test").text("/n"), "n\n");
    }
    kiln.build_with(&["--target", "unused"], &dockerfile, &[])
        .fails();
}

#[test]
fn target_is_the_image_and_what_follows_is_not_built() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {} AS first\nENV STAGE=first\nRUN echo 1 > /1\nFROM first AS second\nRUN exit 1\n",
        base()
    );
    kiln.build_with(&["--target", "first"], &dockerfile, &[])
        .ok();
    let image = kiln.image("test");
    assert_eq!(image.text("/1"), "1\n");
}

/// SEMANTICS 25
#[test]
fn stage_on_a_stage_inherits_files_config_and_arguments() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        &format!(
            "ARG GLOBAL=g\n\
             FROM {0} AS one\nARG A=1\nARG GLOBAL\nENV E=2\nRUN echo $A > /f\nUSER app\nWORKDIR /tmp\n\
             FROM one AS two\nARG A\nLABEL seen=$A$E$GLOBAL\nRUN echo $A$E > inherited\n\
             FROM {0} AS three\nARG A\nLABEL a=\"[$A]\" e=\"[$E]\" g=\"[$GLOBAL]\"\nCOPY --from=two /tmp/inherited /f /\n",
            base()
        ),
    );
    assert_eq!(image.text("/inherited"), "12\n");
    assert_eq!(image.text("/f"), "1\n");
    assert_eq!(
        image.setting("Labels"),
        &json!({"a": "[]", "e": "[]", "g": "[]"})
    );
    let node = image.tree.file("/inherited");
    assert_eq!((node.uid, node.gid), (1000, 1000));
}

/// SEMANTICS 22
#[test]
fn arguments_before_from_choose_bases() {
    let kiln = Kiln::new();
    let base = base();
    let (name, tag) = base.rsplit_once(':').unwrap();
    let dockerfile = format!(
        "ARG NAME={name}\nARG TAG\nARG FULL=$NAME:${{TAG:-{tag}}}\nFROM $FULL AS a\nARG TAG=stage\nARG NAME\nLABEL tag=$TAG name=$NAME\n"
    );
    kiln.build(&dockerfile, &[]).ok();
    let image = kiln.image("test");
    assert_eq!(
        image.setting("Labels"),
        &json!({"tag": "stage", "name": name})
    );
    let options = ["--build-arg", &format!("TAG={tag}")];
    kiln.build_with(&options, &dockerfile, &[]).ok();
    let image = kiln.image("test");
    assert_eq!(image.setting("Labels"), &json!({"tag": tag, "name": name}));
}

/// SEMANTICS 25, SEMANTICS 37
#[test]
fn platform_arguments_need_to_be_declared_in_a_stage() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "FROM --platform=$BUILDPLATFORM scratch\nLABEL before=\"[$TARGETARCH]\"\nARG TARGETARCH TARGETOS\nARG TARGETSTAGE\nLABEL after=$TARGETOS/$TARGETARCH stage=$TARGETSTAGE\n",
    );
    let architecture = image.config["architecture"].as_str().unwrap();
    assert_eq!(
        image.setting("Labels"),
        &json!({"after": format!("linux/{architecture}"), "before": "[]", "stage": "default"})
    );
}

/// SEMANTICS 23, SEMANTICS 24
#[test]
fn later_one_of_arg_and_env_wins() {
    let kiln = Kiln::new();
    let dockerfile = "FROM scratch\nARG V=arg\nENV V=env\nLABEL one=$V\nARG V=again\nLABEL two=$V\nARG UNSET\nARG EMPTY=\nLABEL three=${UNSET-unset}${EMPTY-no}\n";
    let image = built(&kiln, dockerfile);
    assert_eq!(
        image.setting("Labels"),
        &json!({"one": "env", "two": "again", "three": "unset"})
    );
    kiln.build_with(&["--build-arg", "V=given"], dockerfile, &[])
        .ok();
    let image = kiln.image("test");
    assert_eq!(image.setting("Labels")["two"], "given");
}

#[test]
fn build_argument_without_a_value_is_the_callers() {
    let kiln = Kiln::new().env("CALLERS", "from-caller");
    let dockerfile =
        "FROM scratch\nARG CALLERS=default\nARG ABSENT=default\nLABEL a=$CALLERS b=$ABSENT\n";
    let options = ["--build-arg", "CALLERS", "--build-arg", "ABSENT"];
    kiln.build_with(&options, dockerfile, &[]).ok();
    assert_eq!(
        kiln.image("test").setting("Labels"),
        &json!({"a": "from-caller", "b": "default"})
    );
}

#[test]
fn unused_build_argument_warns() {
    let kiln = Kiln::new();
    let output = kiln
        .build_with(&["--build-arg", "TYPO=1"], "FROM scratch\n", &[])
        .ok();
    assert!(
        output.stderr().contains(
            "warning: build argument not used: TYPO\nhint: a stage takes one with ARG NAME\n"
        ),
        "{output}"
    );
}

#[test]
fn build_argument_that_only_a_trigger_of_the_base_takes_is_used() {
    let kiln = Kiln::new();
    let parent = "FROM scratch\nONBUILD ARG MODE=production\nONBUILD LABEL mode=$MODE\n";
    kiln.build_with(&["-t", "parent"], parent, &[]).ok();
    let options = ["--build-arg", "MODE=test"];
    let output = kiln.build_with(&options, "FROM parent\n", &[]).ok();
    assert!(!output.stderr().contains("warning"), "{output}");
    let image = kiln.image("test");
    assert_eq!(image.setting("Labels"), &json!({"mode": "test"}));
}

/// SEMANTICS 30
#[test]
fn triggers_run_first_and_once() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\nWORKDIR /w\nONBUILD ARG WHO=nobody\nONBUILD ENV SEEN=$WHO\nONBUILD COPY x .\nONBUILD RUN cat x > y; echo $SEEN >> y\nONBUILD CMD [\"t\"]\n",
        base()
    );
    kiln.build_with(&["-t", "parent"], &dockerfile, &[("x", "x")])
        .ok();
    let parent = kiln.image("parent");
    assert!(parent.tree.get("/w/x").is_none());
    assert_eq!(parent.setting("OnBuild").as_array().unwrap().len(), 5);

    let options = ["--build-arg", "WHO=me"];
    kiln.build_with(&options, "FROM parent\nRUN cp y z\n", &[("x", "child\n")])
        .ok();
    let child = kiln.image("test");
    assert_eq!(child.text("/w/z"), "child\nme\n");
    assert_eq!(child.setting("OnBuild"), &Value::Null);
    assert_eq!(child.setting("Cmd"), &json!(["t"]));
    let history = child.config["history"].as_array().unwrap();
    let full = history.iter().filter(|e| e["empty_layer"] != true).count();
    assert_eq!(full, child.layers.len());

    // There is no chaining.
    kiln.run(["tag", "test", "child"]).ok();
    kiln.build("FROM child\nRUN ls > /ls\n", &[("x", "grandchild\n")])
        .ok();
    assert_eq!(kiln.image("test").text("/w/x"), "child\n");
}

/// SEMANTICS 30
#[test]
fn triggers_of_a_stage_of_the_same_file_run_too() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        &format!(
            "FROM {} AS one\nONBUILD RUN echo t > /t\nFROM one\nRUN cat /t > /u\n",
            base()
        ),
    );
    assert_eq!(image.text("/u"), "t\n");
}

/// SEMANTICS 37
#[test]
fn trigger_sees_the_stages_of_the_child() {
    let kiln = Kiln::new();
    let base = base();
    let dockerfile = format!("FROM {base}\nONBUILD COPY --from=assets /a /a\n");
    kiln.build_with(&["-t", "parent"], &dockerfile, &[]).ok();
    let image = built(
        &kiln,
        &format!("FROM {base} AS assets\nRUN echo assets > /a\nFROM parent\nRUN cat /a > /b\n"),
    );
    assert_eq!(image.text("/b"), "assets\n");
}

#[test]
fn failing_trigger_is_shown_in_its_own_text() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nONBUILD RUN exit 9\n", base());
    kiln.build_with(&["-t", "parent"], &dockerfile, &[]).ok();
    let output = kiln.build("FROM parent\n", &[]).fails();
    let stderr = output.stderr();
    assert!(
        stderr.contains("  ONBUILD trigger of parent:1\n>   1 | RUN exit 9\n"),
        "{output}"
    );
    assert!(stderr.contains("  exit code: 9\n"), "{output}");
}

/// SEMANTICS 28
#[test]
fn stage_name_hides_an_image_and_a_number_is_an_image_in_from() {
    let kiln = Kiln::new();
    kiln.build_with(&["-t", "name"], "FROM scratch\nLABEL of=image\n", &[])
        .ok();
    let image = built(&kiln, "FROM scratch AS name\nLABEL of=stage\nFROM name\n");
    assert_eq!(image.setting("Labels"), &json!({"of": "stage"}));
    kiln.build_with(&["-t", "0"], "FROM scratch\nLABEL of=zero\n", &[])
        .ok();
    let image = built(&kiln, "FROM scratch\nFROM 0\n");
    assert_eq!(image.setting("Labels"), &json!({"of": "zero"}));
}

#[test]
fn stages_see_links_and_whiteouts_of_all_their_layers() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        &format!(
            "FROM {0} AS a\nRUN mkdir -p /d/old /d/keep && echo 1 > /d/old/f && echo 2 > /d/keep/f\n\
             RUN rm -r /d/old && mkdir /d/old && echo new > /d/old/g && rm /d/keep/f && ln -s d /link\n\
             FROM scratch\nCOPY --from=a /link /d\n",
            base()
        ),
    );
    let paths: Vec<_> = image.tree.paths().filter(|p| p != "/").collect();
    assert_eq!(paths, ["/d", "/d/keep", "/d/old", "/d/old/g"]);
}

#[test]
fn step_names_tell_the_stage() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {} AS one\nRUN true\nFROM scratch\nCOPY --from=one /bin/sh /s\n",
        base()
    );
    let output = kiln.build(&dockerfile, &[]).ok();
    let log = output.stderr();
    let mut names: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once(" [").map(|(_, name)| name))
        .collect();
    // Stages are built at once.
    names.sort_unstable();
    assert_eq!(
        names,
        [
            format!("one 1/2] FROM {}", base()),
            "one 2/2] RUN true".to_owned(),
            "stage-1 1/2] FROM scratch".to_owned(),
            "stage-1 2/2] COPY --from=one /bin/sh /s".to_owned(),
        ]
    );
}

/// SEMANTICS 61
#[test]
fn platform_chooses_the_image_of_an_index() {
    let kiln = Kiln::new();
    let multi = Registry::shared().multi();
    for (platform, architecture) in [("linux/amd64", "amd64"), ("linux/arm64", "arm64")] {
        let dockerfile = format!("FROM {multi}\nLABEL a=b\n");
        kiln.build_with(&["--platform", platform], &dockerfile, &[])
            .ok();
        let image = kiln.image("test");
        assert_eq!(image.config["architecture"], architecture);
        assert_eq!(image.text("/architecture").trim(), architecture);
    }
    let dockerfile = format!("FROM --platform=linux/arm64 {multi}\n");
    kiln.build(&dockerfile, &[]).ok();
    assert_eq!(kiln.image("test").config["architecture"], "arm64");
}

#[test]
fn several_names_and_the_id_file_get_the_same_image() {
    let kiln = Kiln::new();
    let iidfile = kiln.sandbox().join("iid");
    let path = iidfile.to_str().unwrap();
    let options = [
        "-t",
        "other:1",
        "-t",
        "third/name",
        "--iidfile",
        path,
        "--progress",
        "quiet",
    ];
    kiln.build_with(&options, "FROM scratch\nLABEL a=b\n", &[])
        .fails();
    let options = ["-t", "other:1", "-t", "third/name", "--iidfile", path];
    kiln.build_with(&options, "FROM scratch\nLABEL a=b\n", &[])
        .ok();
    let id = fs::read_to_string(iidfile).unwrap();
    for name in ["test", "other:1", "third/name"] {
        assert_eq!(kiln.image(name).id, id, "{name}");
    }
}
