//! Flags of `kiln build`, its own and those that scripts pass to other builders.

mod support;

use serde_json::Value;
use support::{Kiln, Registry, settled};

/// Flags of the table whose value must make sense, with one that does.
const VALUES: [(&str, &str); 24] = [
    ("add-host", "a:127.0.0.1"),
    ("arch", "arm64"),
    ("build-context", "name=."),
    ("cache-ttl", "1h"),
    ("call", "targets"),
    ("dns", "127.0.0.1"),
    ("jobs", "2"),
    ("manifest", "name"),
    ("net", "host"),
    ("network", "host"),
    ("os", "linux"),
    ("output", "type=image"),
    ("platform", "linux/arm64"),
    ("print", "targets"),
    ("progress", "plain"),
    ("secret", "id=a,env=HOME"),
    ("shm-size", "64m"),
    ("source-date-epoch", "0"),
    ("ssh", "default=/dev/null"),
    ("tag", "name"),
    ("target", "0"),
    ("timestamp", "0"),
    ("ulimit", "core=0"),
    ("variant", "v8"),
];

/// Flags of the table that take no value, or one behind `=` only.
const SWITCHES: [&str; 7] = [
    "check",
    "http-proxy",
    "no-cache",
    "pull",
    "push",
    "quiet",
    "tls-verify",
];

/// Flags of the table whose help is not shown: other forms of one that is.
const UNSHOWN: [&str; 4] = ["arch", "os", "tls-verify", "variant"];

struct Row {
    flag: String,
    kind: String,
    text: String,
}

fn table() -> Vec<Row> {
    let text = include_str!("../docs/build-flags.md").replace("\\|", "\u{0}");
    let rows = text.lines().filter(|line| line.starts_with("| `--"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        Row {
            flag: cells[0]
                .trim_matches('`')
                .trim_start_matches("--")
                .to_owned(),
            kind: cells[2].to_owned(),
            text: cells[3].replace('\u{0}', "|"),
        }
    })
    .collect()
}

#[test]
fn the_table_of_flags_tells_the_truth() {
    let kiln = Kiln::new();
    let context = kiln
        .sandbox()
        .directory("context", &[("Dockerfile", "FROM scratch\n"), ("args", "")]);
    let context = context.to_str().unwrap();
    let help = kiln.run(["build", "--help"]).ok().stdout();
    let rows = table();
    assert!(rows.len() > 120, "{}", rows.len());
    for Row { flag, kind, text } in &rows {
        let long = format!("--{flag}");
        let args = match flag.as_str() {
            "file" => format!("{context}/Dockerfile"),
            _ => format!("{context}/args"),
        };
        // As a switch first, then with a value.
        let value = VALUES
            .iter()
            .find(|(name, _)| name == flag)
            .map_or(args.as_str(), |(_, v)| v);
        let asked = match SWITCHES.contains(&flag.as_str()) {
            true => vec![long.clone()],
            false => vec![long.clone(), value.to_owned()],
        };
        let run = |asked: &[String]| {
            let mut all = vec!["build".to_owned()];
            // An outline ends before anything is built, and after the flags are understood.
            if !matches!(flag.as_str(), "call" | "print" | "check") {
                all.push("--call=targets".to_owned());
            }
            all.extend_from_slice(asked);
            all.push(context.to_owned());
            kiln.run(all)
        };
        match kind.as_str() {
            "implemented" => {
                run(&asked).ok();
                let shown = help.contains(&format!("{long} "))
                    || help.contains(&format!("{long}["))
                    || help.contains(&format!("alias: {long}]"));
                assert_eq!(shown, !UNSHOWN.contains(&flag.as_str()), "{long}");
            }
            "accepted" | "refused" => {
                assert!(!text.is_empty(), "{long}");
                assert!(!help.contains(&format!("{long} ")), "{long}");
                // One that takes a value does not take the next word for the context.
                let (with, without) = (run(&asked), run(std::slice::from_ref(&long)));
                let codes = [with.code(), without.code()];
                if kind == "accepted" {
                    assert!(codes.contains(&Some(0)), "{with}{without}");
                } else {
                    let message = format!("error: kiln build does not have {long}\nhint: {text}\n");
                    let refused = |output: &support::Output| {
                        output.code() == Some(2) && output.stderr() == message
                    };
                    assert!(refused(&with) || refused(&without), "{with}{without}");
                    run(&[format!("{long}=false")]).ok();
                }
            }
            other => panic!("{long} is {other:?}"),
        }
    }
}

#[test]
fn what_is_accepted_says_that_it_does_nothing() {
    let kiln = Kiln::new();
    let options = [
        "--rm",
        "--force-rm=true",
        "--memory",
        "1g",
        "-D",
        "--provenance=false",
        "--load",
    ];
    let output = kiln
        .build_with(&options, "FROM scratch\nCOPY f /\n", &[("f", "")])
        .ok();
    let stderr = settled(&output.stderr(), &[]);
    for line in [
        "--debug has no effect: use --progress=plain to see everything\n",
        "--force-rm has no effect: there are no intermediate containers\n",
        "--load has no effect: the image is in the store anyway\n",
        "--memory has no effect: steps have no limits of memory or cpu\n",
        "--rm has no effect: there are no intermediate containers\n",
    ] {
        assert!(stderr.contains(line), "{stderr}");
    }
    assert!(!stderr.contains("provenance"), "{stderr}");
    let quiet = kiln
        .build_with(&["-q", "--rm"], "FROM scratch\nCOPY f /\n", &[])
        .ok();
    assert_eq!(quiet.stderr(), "");
}

#[test]
fn steps_see_hosts_resolvers_and_limits_that_flags_give() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    let options = [
        "--add-host",
        "build.example:192.0.2.7",
        "--dns=192.0.2.53",
        "--dns-search",
        "corp.example",
        "--dns-option=ndots:3",
        "--shm-size=8m",
        "--ulimit",
        "nofile=77:99",
    ];
    let text = format!(
        "FROM {base}\nRUN cat /etc/hosts /etc/resolv.conf > /out && ulimit -Sn >> /out && ulimit -Hn >> /out \
         && df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2 >> /out\n"
    );
    kiln.build_with(&options, &text, &[]).ok();
    let out = String::from_utf8(kiln.image("test").tree.file("/out").content().to_vec()).unwrap();
    assert!(out.contains("192.0.2.7\tbuild.example\n"), "{out}");
    assert!(out.ends_with("\n77\n99\n8192\n"), "{out}");
    for line in [
        "nameserver 192.0.2.53\n",
        "search corp.example\n",
        "options ndots:3\n",
    ] {
        assert!(out.contains(line), "{out}");
    }
    // What a step sees is part of its key.
    let again = kiln.build_with(&options, &text, &[]).ok();
    assert!(again.stderr().contains("\n#2 CACHED"), "{again}");
    let other = kiln.build_with(&["--shm-size=9m"], &text, &[]).ok();
    assert!(other.stderr().contains("\n#2 DONE"), "{other}");
    let out = kiln.image("test").tree.file("/out").content().to_vec();
    assert!(out.ends_with(b"\n9216\n"));
}

#[test]
fn the_config_is_changed_as_flags_say() {
    let kiln = Kiln::new();
    let options = [
        "--env",
        "ADDED=1",
        "--env",
        "SET=cli",
        "--unsetenv",
        "GONE",
        "--unsetlabel",
        "old",
        "--label",
        "new=1",
        "--arch",
        "arm64",
        "--os=linux",
    ];
    let text = "FROM scratch\nENV SET=file GONE=1\nLABEL old=1 kept=1\nCOPY f /\n";
    kiln.build_with(&options, text, &[("f", "")]).ok();
    let image = kiln.image("test");
    let env = image.setting("Env").to_string();
    assert!(
        env.contains("ADDED=1") && env.contains("SET=file") && !env.contains("GONE"),
        "{env}"
    );
    let labels = image.setting("Labels");
    assert_eq!(labels, &serde_json::json!({"kept": "1", "new": "1"}));
    assert_eq!(image.config["architecture"], "arm64");
}

#[test]
fn build_arguments_come_from_files_too() {
    let kiln = Kiln::new();
    let file = kiln.sandbox().join("args");
    std::fs::write(&file, "# what is built\nA=file\nB=file\n").unwrap();
    let file = file.to_str().unwrap();
    let text = "FROM scratch\nARG A B\nENV A=$A B=$B\n";
    let options = ["--build-arg-file", file, "--build-arg", "B=flag"];
    kiln.build_with(&options, text, &[]).ok();
    let env = kiln.image("test").setting("Env").to_string();
    assert!(env.contains("A=file") && env.contains("B=flag"), "{env}");
    std::fs::write(file, "A=1\nB\n").unwrap();
    let output = kiln.build_with(&options, text, &[]).fails();
    assert_eq!(
        output.stderr(),
        format!("error: {file}:2: \"B\" is not NAME=value\n")
    );
}

#[test]
fn a_time_makes_the_image_the_same_each_time() {
    let kiln = Kiln::new();
    let id = |options: &[&str]| {
        let mut all = vec!["-q", "--no-cache"];
        all.extend_from_slice(options);
        kiln.build_with(&all, "FROM scratch\nCOPY f /d/\n", &[("f", "")])
            .ok()
            .stdout()
    };
    let flag = id(&["--source-date-epoch=1000"]);
    assert_eq!(id(&["--timestamp", "1000"]), flag);
    assert_eq!(id(&["--build-arg", "SOURCE_DATE_EPOCH=1000"]), flag);
    assert_ne!(id(&["--timestamp=2000"]), flag);
    let kiln = kiln.env("SOURCE_DATE_EPOCH", "1000");
    let build = |options: &[&str]| {
        kiln.build_with(options, "FROM scratch\nCOPY f /d/\n", &[])
            .ok()
            .stdout()
    };
    assert_eq!(build(&["-q", "--no-cache"]), flag);
}

#[test]
fn push_and_metadata_say_where_the_image_is() {
    let (kiln, registry) = (Kiln::new(), Registry::start());
    let (one, two) = (registry.reference("a/one:1"), registry.reference("a/two:2"));
    let metadata = kiln.sandbox().join("metadata.json");
    let raw = kiln.sandbox().join("id");
    let (path, raw_path) = (metadata.to_str().unwrap(), raw.to_str().unwrap());
    let options = [
        "-t",
        &one,
        "-t",
        &two,
        "--push",
        "--metadata-file",
        path,
        "--iidfile-raw",
        raw_path,
    ];
    // `test`, the name that all builds of the tests get, would go to a registry out there.
    let context = kiln.sandbox().directory(
        "context",
        &[("f", ""), ("Dockerfile", "FROM scratch\nCOPY f /\n")],
    );
    let mut all = vec!["build"];
    all.extend(options);
    all.push(context.to_str().unwrap());
    kiln.run(all).ok();
    let found: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    let id = found["containerimage.config.digest"].as_str().unwrap();
    let raw = std::fs::read_to_string(&raw).unwrap();
    assert_eq!(format!("sha256:{raw}"), id);
    assert_eq!(found["image.name"], format!("{one},{two}"));
    // Both names lead to the manifest whose digest is told.
    let other = Kiln::new();
    let digest = found["containerimage.digest"].as_str().unwrap();
    for name in [registry.reference("a/one"), registry.reference("a/two")] {
        other.run(["pull", &format!("{name}@{digest}")]).ok();
    }

    let third = registry.reference("a/third:3");
    let output = format!("type=image,name={third},push=true");
    kiln.run(["build", "-o", &output, context.to_str().unwrap()])
        .ok();
    other.run(["pull", &third]).ok();

    let output = kiln
        .run(["build", "--push", context.to_str().unwrap()])
        .fails();
    assert_eq!(
        output.stderr(),
        "error: what is pushed needs a name\nhint: give one with -t REGISTRY/REPOSITORY:TAG\n"
    );
}

#[test]
fn files_that_cannot_be_written_are_told_before_the_build() {
    let kiln = Kiln::new();
    for flag in ["--iidfile", "--metadata-file"] {
        let options = [flag, "/nowhere/file"];
        let output = kiln
            .build_with(&options, "FROM scratch\nCOPY f /\n", &[("f", "")])
            .fails();
        assert_eq!(
            output.stderr(),
            "error: cannot write /nowhere/file: No such file or directory (os error 2)\n"
        );
    }
}

#[test]
fn pull_says_when_base_images_are_pulled() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    let text = format!("FROM {base}\n");
    let output = kiln.build_with(&["--pull=never"], &text, &[]).fails();
    assert!(
        output
            .stderr()
            .contains("is not in the store, and --pull=never forbids to pull it"),
        "{output}"
    );
    kiln.build_with(&["--pull=missing"], &text, &[]).ok();
    kiln.build_with(&["--pull=never"], &text, &[]).ok();
    for always in ["--pull", "--pull=true", "--pull=newer"] {
        kiln.build_with(&[always], &text, &[]).ok();
    }
    let output = kiln.build_with(&["--pull=often"], &text, &[]).fails();
    assert!(
        output
            .stderr()
            .contains("it can be always, missing or never"),
        "{output}"
    );
}

#[test]
fn an_ignore_file_can_be_named() {
    let kiln = Kiln::new();
    let file = kiln.sandbox().join("ignore");
    std::fs::write(&file, "b\n").unwrap();
    let text = "FROM scratch\nCOPY . /\n";
    let files = [("a", ""), ("b", ""), (".dockerignore", "a\n")];
    kiln.build_with(&["--ignorefile", file.to_str().unwrap()], text, &files)
        .ok();
    let tree = kiln.image("test").tree;
    assert!(tree.get("/a").is_some() && tree.get("/b").is_none());
    let output = kiln
        .build_with(&["--ignorefile", "/nowhere"], text, &files)
        .fails();
    assert!(
        output.stderr().starts_with("error: cannot read /nowhere: "),
        "{output}"
    );
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let kiln = Kiln::new();
    let refused = |option: &str, text: &str| {
        let output = kiln.build_with(&[option], "FROM scratch\n", &[]).fails();
        assert!(output.stderr().contains(text), "{option}: {output}");
    };
    refused("--ulimit=nofle=1", "did you mean nofile?");
    refused(
        "--ulimit=nofile=999999999999",
        "your own hard limit of nofile is ",
    );
    refused("--add-host=x", "it is HOST:ADDRESS");
    refused(
        "--shm-size=big",
        "a size is a number with k, m or g behind it",
    );
    refused("--call=chekc", "did you mean check?");
}
