//! What instructions make of the image config and of the history.

mod support;

use serde_json::{Value, json};
use support::{Image, Kiln, Registry};

fn base() -> String {
    Registry::shared().busybox()
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[track_caller]
fn built(kiln: &Kiln, dockerfile: &str) -> Image {
    kiln.build(dockerfile, &[]).ok();
    kiln.image("test")
}

/// Builds instructions on scratch and returns the part of the config that containers see.
#[track_caller]
fn config(instructions: &str) -> Value {
    let kiln = Kiln::new();
    built(&kiln, &format!("FROM scratch\n{instructions}")).config["config"].clone()
}

fn history(image: &Image) -> Vec<(String, bool)> {
    let entries = image.config["history"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let line = entry["created_by"].as_str().unwrap_or_default().to_owned();
            (line, entry["empty_layer"].as_bool().unwrap_or(false))
        })
        .collect()
}

/// SEMANTICS 59
#[test]
fn every_instruction_reaches_config_and_history() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "FROM scratch\n\
         LABEL a=1 b=\"two words\"\n\
         ENV A=1 B=\"x y\"\n\
         EXPOSE 80 53/UDP 8000-8001/tcp\n\
         VOLUME /v [/not-json]\n\
         VOLUME [\"/with space\", \"/w\"]\n\
         USER app:7\n\
         STOPSIGNAL SIGQUIT\n\
         MAINTAINER Me <me@example.org>\n\
         SHELL [\"/bin/bash\", \"-c\"]\n\
         HEALTHCHECK --interval=5s --timeout=1m --start-period=2s --start-interval=1ms --retries=4 CMD test -f /ok\n\
         ENTRYPOINT start \"$A\"\n\
         CMD [\"x\", \"y z\"]\n\
         ONBUILD RUN echo $A\n\
         ARG Q=1 R\n\
         WORKDIR /\n",
    );
    assert_eq!(
        image.config["config"],
        json!({
            "Labels": {"a": "1", "b": "two words"},
            "Env": [PATH, "A=1", "B=x y"],
            "ExposedPorts": {"53/udp": {}, "80/tcp": {}, "8000/tcp": {}, "8001/tcp": {}},
            "Volumes": {"/v": {}, "[/not-json]": {}, "/with space": {}, "/w": {}},
            "User": "app:7",
            "StopSignal": "SIGQUIT",
            "Shell": ["/bin/bash", "-c"],
            "Healthcheck": {
                "Test": ["CMD-SHELL", "test -f /ok"],
                "Interval": 5_000_000_000u64,
                "Timeout": 60_000_000_000u64,
                "StartPeriod": 2_000_000_000u64,
                "StartInterval": 1_000_000,
                "Retries": 4
            },
            "Entrypoint": ["/bin/bash", "-c", "start \"$A\""],
            "Cmd": ["x", "y z"],
            "OnBuild": ["RUN echo $A"],
            "WorkingDir": "/"
        })
    );
    assert_eq!(image.config["author"], "Me <me@example.org>");
    assert_eq!(image.config["os"], "linux");
    assert_eq!(
        image.config["rootfs"],
        json!({"type": "layers", "diff_ids": []})
    );
    let lines: Vec<String> = history(&image)
        .into_iter()
        .map(|(line, empty)| {
            assert!(empty, "{line}");
            line
        })
        .collect();
    assert_eq!(
        lines,
        [
            "LABEL a=1 b=two words",
            "ENV A=1 B=x y",
            "EXPOSE [53/udp 80/tcp 8000/tcp 8001/tcp]",
            "VOLUME [/v [/not-json]]",
            "VOLUME [/with space /w]",
            "USER app:7",
            "STOPSIGNAL SIGQUIT",
            "MAINTAINER Me <me@example.org>",
            "SHELL [/bin/bash -c]",
            "HEALTHCHECK {Test:[CMD-SHELL test -f /ok] Interval:5s Timeout:1m0s StartPeriod:2s StartInterval:1ms Retries:4}",
            "ENTRYPOINT [\"/bin/bash\" \"-c\" \"start \\\"$A\\\"\"]",
            "CMD [\"x\" \"y z\"]",
            "ARG Q=1 R",
            "WORKDIR /",
        ]
    );
}

/// SEMANTICS 29
#[test]
fn scratch_has_a_directory_and_a_path() {
    assert_eq!(config(""), json!({"Env": [PATH], "WorkingDir": "/"}));
}

/// SEMANTICS 59
#[test]
fn history_has_as_many_full_entries_as_there_are_layers() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        &format!(
            "FROM {}\nARG A=1\nENV E=2\nRUN true\nCOPY Dockerfile /d\nWORKDIR /new\nWORKDIR /tmp\nUSER app\n",
            base()
        ),
    );
    let history = history(&image);
    let full = history.iter().filter(|(_, empty)| !empty).count();
    let diff_ids = image.config["rootfs"]["diff_ids"].as_array().unwrap().len();
    assert_eq!(full, diff_ids);
    let own = &history[history.len() - 7..];
    assert_eq!(
        own,
        [
            ("ARG A=1".to_owned(), true),
            ("ENV E=2".to_owned(), true),
            ("RUN |1 A=1 /bin/sh -c true # buildkit".to_owned(), false),
            ("COPY Dockerfile /d # buildkit".to_owned(), false),
            ("WORKDIR /new".to_owned(), false),
            ("WORKDIR /tmp".to_owned(), true),
            ("USER app".to_owned(), true),
        ]
    );
    let created = |entry: &Value| entry["created"].as_str().unwrap().to_owned();
    let last = image.config["history"].as_array().unwrap().last().unwrap();
    assert_eq!(image.config["created"], created(last));
}

/// SEMANTICS 55
#[test]
fn entrypoint_clears_an_inherited_cmd_only() {
    let kiln = Kiln::new();
    let case = |instructions: &str| {
        let image = built(
            &kiln,
            &format!("FROM scratch AS base\nCMD [\"inherited\"]\n{instructions}"),
        );
        (
            image.setting("Entrypoint").clone(),
            image.setting("Cmd").clone(),
        )
    };
    assert_eq!(
        case("FROM base\nENTRYPOINT [\"e\"]\n"),
        (json!(["e"]), Value::Null)
    );
    assert_eq!(
        case("FROM base\nCMD [\"own\"]\nENTRYPOINT [\"e\"]\n"),
        (json!(["e"]), json!(["own"]))
    );
    assert_eq!(
        case("ENTRYPOINT [\"e\"]\nFROM base\nENTRYPOINT []\n"),
        (Value::Null, Value::Null)
    );
    assert_eq!(case("CMD []\n"), (Value::Null, json!([])));
    assert_eq!(
        case("SHELL [\"/s\", \"-x\"]\nCMD a b\nENTRYPOINT c  d\n"),
        (json!(["/s", "-x", "c  d"]), json!(["/s", "-x", "a b"]))
    );
    // An array with text behind it is a shell line.
    assert_eq!(
        case("CMD [\"a\"] b\n").1,
        json!(["/bin/sh", "-c", "[\"a\"] b"])
    );
}

/// SEMANTICS 56
#[test]
fn healthcheck_replaces_as_a_whole_and_is_inherited() {
    let kiln = Kiln::new();
    let case = |instructions: &str| {
        let head = "FROM scratch AS base\nHEALTHCHECK --retries=3 CMD [\"a\"]\n";
        built(&kiln, &format!("{head}{instructions}"))
            .setting("Healthcheck")
            .clone()
    };
    assert_eq!(
        case("FROM base\n"),
        json!({"Test": ["CMD", "a"], "Retries": 3})
    );
    assert_eq!(
        case("FROM base\nHEALTHCHECK CMD [\"b\"]\n"),
        json!({"Test": ["CMD", "b"]})
    );
    assert_eq!(
        case("FROM base\nHEALTHCHECK NONE\n"),
        json!({"Test": ["NONE"]})
    );
}

/// SEMANTICS 31
#[test]
fn environment_keeps_its_order_and_replaces_in_place() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "FROM scratch AS base\nENV A=1 B=2 C=3\nFROM base\nENV B=two D=$A\nENV abc=hello\nENV abc=bye def=$abc\nENV legacy one = two\n",
    );
    assert_eq!(
        image.setting("Env"),
        &json!([
            PATH,
            "A=1",
            "B=two",
            "C=3",
            "D=1",
            "abc=bye",
            "def=hello",
            "legacy=one = two"
        ])
    );
}

/// SEMANTICS 24
#[test]
fn only_env_reaches_the_config() {
    let kiln = Kiln::new();
    let dockerfile = "FROM scratch\nARG SECRET=1\nARG LATE\nENV E=$SECRET-$LATE\n";
    kiln.build_with(&["--build-arg", "LATE=given"], dockerfile, &[])
        .ok();
    let image = kiln.image("test");
    assert_eq!(image.setting("Env"), &json!([PATH, "E=1-given"]));
}

/// SEMANTICS 58
#[test]
fn labels_of_the_command_line_come_last_and_are_literal() {
    let kiln = Kiln::new();
    let dockerfile = "FROM scratch\nENV V=x\nLABEL a=file b=$V \"key with space\"=c\n";
    let options = [
        "--label", "a=line", "--label", "d=$V", "--label", "e", "--label", "f=g=h",
    ];
    kiln.build_with(&options, dockerfile, &[]).ok();
    assert_eq!(
        kiln.image("test").setting("Labels"),
        &json!({"a": "line", "b": "x", "d": "$V", "e": "", "f": "g=h", "key with space": "c"})
    );
}

/// SEMANTICS 20
#[test]
fn variables_are_expanded_where_the_reference_says() {
    let config = config(
        "ENV V=1000 W=/w S=QUIT\nARG P=80\nUSER $V\nWORKDIR $W/${V}\nEXPOSE ${P}/udp\nVOLUME $W\n\
         STOPSIGNAL SIG$S\nLABEL l=${V:+set}\nCMD echo $V\nENTRYPOINT [\"$V\"]\nHEALTHCHECK CMD $V\n",
    );
    assert_eq!(config["User"], "1000");
    assert_eq!(config["WorkingDir"], "/w/1000");
    assert_eq!(config["ExposedPorts"], json!({"80/udp": {}}));
    assert_eq!(config["Volumes"], json!({"/w": {}}));
    assert_eq!(config["StopSignal"], "SIGQUIT");
    assert_eq!(config["Labels"], json!({"l": "set"}));
    assert_eq!(config["Cmd"][2], "echo $V");
    assert_eq!(config["Entrypoint"], json!(["$V"]));
    assert_eq!(config["Healthcheck"]["Test"][1], "$V");
}

/// SEMANTICS 57
#[test]
fn workdir_makes_directories_that_its_user_owns() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        &format!(
            "FROM {}\nUSER app\nWORKDIR /a/b\nWORKDIR c\nUSER 5:6\nWORKDIR /a/d\nWORKDIR /tmp\nWORKDIR ../x/../y\n",
            base()
        ),
    );
    let of = |path| {
        let node = image.tree.file(path);
        (node.uid, node.gid, node.mode)
    };
    for path in ["/a", "/a/b", "/a/b/c"] {
        assert_eq!(of(path), (1000, 1000, 0o755), "{path}");
    }
    assert_eq!(of("/a/d"), (5, 6, 0o755));
    assert_eq!(of("/tmp"), (0, 0, 0o1777));
    assert_eq!(of("/y"), (5, 6, 0o755));
    assert_eq!(image.setting("WorkingDir"), "/y");
    assert!(image.tree.get("/x").is_none());
}

/// SEMANTICS 57
#[test]
fn workdir_on_scratch_is_a_layer() {
    let kiln = Kiln::new();
    let image = built(&kiln, "FROM scratch\nWORKDIR /a/b\n");
    assert_eq!(image.layers.len(), 1);
    assert_eq!(
        image.tree.paths().filter(|p| p != "/").collect::<Vec<_>>(),
        ["/a", "/a/b"]
    );
}

#[test]
fn workdir_follows_links_within_the_image() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        &format!(
            "FROM {}\nRUN mkdir /real && ln -s /real /link && ln -s ../../../real /up\nWORKDIR /link/sub\nWORKDIR /up/other\n",
            base()
        ),
    );
    assert!(image.tree.get("/real/sub").is_some());
    assert!(image.tree.get("/real/other").is_some());
    assert_eq!(image.setting("WorkingDir"), "/up/other");
}

/// SEMANTICS 58
#[test]
fn volume_makes_no_directory_and_later_writes_are_kept() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        &format!(
            "FROM {}\nVOLUME /v /w\nRUN mkdir /v && echo kept > /v/x\n",
            base()
        ),
    );
    assert_eq!(image.tree.file("/v/x").content(), b"kept\n");
    assert!(image.tree.get("/w").is_none());
}

#[test]
fn config_of_the_base_is_kept_with_what_kiln_does_not_know() {
    let kiln = Kiln::new();
    let plain = built(&kiln, &format!("FROM {}\n", base()));
    let more = built(&kiln, &format!("FROM {}\nLABEL x=y\n", base()));
    let mut expected = plain.config["config"].clone();
    expected["Labels"]["x"] = json!("y");
    assert_eq!(more.config["config"], expected);
    assert_eq!(more.config["rootfs"], plain.config["rootfs"]);
    assert_eq!(more.config["architecture"], plain.config["architecture"]);
}

#[test]
fn a_user_or_directory_that_expands_to_nothing_is_accepted_as_by_docker() {
    let config = config("WORKDIR /a\nUSER 5\nWORKDIR $UNSET\nUSER $UNSET\n");
    assert_eq!(config["WorkingDir"], "/a");
    assert_eq!(config["User"], Value::Null);
}

/// SEMANTICS 58
#[test]
fn wrong_values_are_refused_with_their_place() {
    let kiln = Kiln::new();
    let cases = [
        ("STOPSIGNAL SIGFOO", "invalid signal \"SIGFOO\""),
        (
            "HEALTHCHECK --interval=1us CMD x",
            "--interval can't be less than 1ms",
        ),
        (
            "EXPOSE 99999",
            "invalid port \"99999\": expected a number from 0 to 65535",
        ),
        ("ENV =x", "a name in ENV can't be blank"),
        ("LABEL \"\"=x", "a name can't be blank"),
        (
            "SHELL /bin/sh",
            "SHELL needs a JSON array of at least one string",
        ),
        ("CMD [1]", ""),
        ("VOLUME [\"\"]", "VOLUME needs paths that aren't empty"),
    ];
    for (instruction, message) in cases {
        let output = kiln
            .build(&format!("FROM scratch\n{instruction}\n"), &[])
            .fails();
        let stderr = output.stderr();
        assert!(
            stderr.contains(&format!("error: {message}")),
            "{message:?} was expected\n{stderr}"
        );
        assert!(stderr.contains("--> Dockerfile:2:"), "{stderr}");
    }
}

/// SEMANTICS 60
#[test]
fn source_date_epoch_comes_from_the_environment_an_argument_or_the_file() {
    let kiln = Kiln::new();
    let created = |image: &Image| image.config["created"].as_str().unwrap().to_owned();
    let image = built(&kiln, "ARG SOURCE_DATE_EPOCH=0\nFROM scratch\nLABEL a=b\n");
    assert_eq!(created(&image), "1970-01-01T00:00:00Z");
    let plain = "FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL a=$SOURCE_DATE_EPOCH\n";
    let kiln = Kiln::new().env("SOURCE_DATE_EPOCH", "86400");
    let image = built(&kiln, plain);
    assert_eq!(created(&image), "1970-01-02T00:00:00Z");
    assert_eq!(image.setting("Labels"), &json!({"a": "86400"}));
    let options = ["--build-arg", "SOURCE_DATE_EPOCH=1"];
    kiln.build_with(&options, plain, &[]).ok();
    assert_eq!(created(&kiln.image("test")), "1970-01-01T00:00:01Z");
    let options = ["--build-arg", "SOURCE_DATE_EPOCH=today"];
    let stderr = kiln.build_with(&options, plain, &[]).fails().stderr();
    let expected = "error: invalid SOURCE_DATE_EPOCH: \"today\"\n --> Dockerfile\n\
                    hint: it is a number of seconds since 1970, as date +%s prints it\n";
    assert!(stderr.ends_with(expected), "{stderr}");
}

/// SEMANTICS 2
#[test]
fn frontends_are_named_by_the_file_or_by_an_argument() {
    let kiln = Kiln::new();
    let foreign = "# syntax=example.com/front:1\nFROM scratch\n";
    let message = "error: this file is written for another frontend, example.com/front:1\n";
    kiln.build(foreign, &[]).fails_with(message);
    let official = ["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1.20"];
    kiln.build_with(&official, foreign, &[]).ok();
    let other = ["--build-arg", "BUILDKIT_SYNTAX=example.com/front:1"];
    kiln.build_with(&other, "FROM scratch\n", &[])
        .fails_with(message);
}
