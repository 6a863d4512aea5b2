//! Every kind of file in a store is known: to `fsck`, which reports what is not, and to `du`,
//! whose sum is what the disk says.

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{FaultyRegistry, Kiln, Page, Registry, WebServer, names_in, tar_of};

/// Layers enough for some of them to be merged.
const DEEP: usize = 110;

/// Returns a store with everything that kiln makes.
fn filled() -> Kiln {
    let kiln = Kiln::new().env("KILN_STORE_LIMIT", "100GB");
    let ok = |arguments: &[&str]| kiln.run(arguments).ok();
    let base = Registry::shared().busybox();
    let registry = FaultyRegistry::start();
    registry.image_of("one", &tar_of(&[("a", "a")]), json!({}));
    let image = registry.reference("one");
    ok(&["pull", &image]);
    ok(&["manifest", "create", "list", &image]);
    let server = WebServer::start();
    server.put("/page", Page::new("p".repeat(300_000)));
    let url = server.url("/page");
    let dockerfile = format!(
        "FROM {base}\nADD {url} /page\nCOPY large /large\n\
         RUN --mount=type=cache,target=/c head -c 500000 /dev/zero > /c/f\n\
         RUN --mount=type=bind,target=/b cat /b/large > /other\nCMD [\"true\"]\n"
    );
    let large = "large\n".repeat(300_000);
    kiln.build(&dockerfile, &[("large", &large)]).ok();
    // What was changed just now is not remembered of a context.
    std::thread::sleep(std::time::Duration::from_secs(3));
    kiln.build(&dockerfile, &[]).ok();
    // Links of all kinds, in a tree whose stream depends on what lies below.
    let linked = "FROM test\nRUN ln /large /hard; ln -s large /soft; rm -r /bin/wc; mkfifo /p\n";
    kiln.build_with(&["-t", "linked"], linked, &[]).ok();
    let mut deep = "FROM test\n".to_owned();
    for _ in 0..DEEP {
        deep.push_str("COPY Dockerfile /d\n");
    }
    deep.push_str("RUN true\n");
    kiln.build_with(&["-t", "deep"], &deep, &[(".dockerignore", "large")])
        .ok();
    kiln.build(&format!("FROM {base}\nRUN echo failed; exit 1\n"), &[])
        .fails();
    // Its layers are compressed.
    kiln.run(["save", "-o", "saved.tar", "--compression", "gzip", "linked"])
        .ok();
    ok(&[
        "run",
        "--name",
        "ended",
        "linked",
        "sh",
        "-c",
        "cat /large > /mine",
    ]);
    ok(&[
        "run",
        "-d",
        "--name",
        "running",
        "linked",
        "sh",
        "-c",
        "echo out; cat /p",
    ]);
    kiln
}

fn sum_of_du(kiln: &Kiln) -> u64 {
    let rows = kiln.run(["du", "--format", "json"]).ok().stdout();
    let bytes = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let size = row["Size"].as_str().unwrap().to_owned();
        let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &size[digits.len()..] {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            other => panic!("a unit {other}"),
        };
        (digits.parse::<f64>().unwrap() * unit) as u64
    };
    rows.lines().map(bytes).sum()
}

#[test]
fn everything_in_a_store_is_known_to_fsck_and_du() {
    let kiln = filled();
    for directory in [
        "blobs/sha256",
        "cache",
        "chain",
        "compressed",
        "containers",
        "contexts",
        "diff",
        "images",
        "layers",
        "lists",
        "locks",
        "logs",
        "merged",
        "mounts",
        "refs",
        "stat",
        "traces",
        "urls",
    ] {
        let names = names_in(&kiln, directory);
        assert!(
            !names.is_empty(),
            "{directory} is empty: the test fills it no more"
        );
    }
    for file in ["measured.json", "overlay.json"] {
        assert!(
            kiln.store().join(file).is_file(),
            "no {file}: the test makes it no more"
        );
    }

    // Every file once, however many names it has.
    let store = kiln.store();
    let list = [
        "unshare",
        "find",
        store.to_str().unwrap(),
        "-type",
        "f",
        "-printf",
        "%i %s\\n",
    ];
    let list = kiln.run(list).ok().stdout();
    let files: std::collections::BTreeMap<&str, u64> = list
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(inode, size)| (inode, size.parse().unwrap()))
        .collect();
    let (found, said) = (files.values().sum::<u64>(), sum_of_du(&kiln));
    // What is shown has three digits.
    assert!(
        found.abs_diff(said) < found / 100,
        "du says {said}, and there are {found}"
    );
    let du = kiln.run(["unshare", "du", "-s", "-B1", store.to_str().unwrap()]);
    let blocks = du.ok().stdout();
    let blocks: u64 = blocks.split('\t').next().unwrap().parse().unwrap();
    assert!(
        said < blocks && blocks < said * 2,
        "du -s says {blocks}, and kiln {said}"
    );

    let output = kiln.run(["stop", "running"]);
    output.ok();
    let output = kiln.run(["fsck"]).ok().stdout();
    assert!(output.ends_with(": no damage\n"), "{output}");
}

#[test]
fn what_does_not_belong_into_a_store_is_reported_and_stays() {
    let kiln = Kiln::new();
    let registry = FaultyRegistry::start();
    registry.image_of("one", &tar_of(&[("a", "a")]), json!({}));
    kiln.run(["pull", &registry.reference("one")]).ok();
    let layer = format!("layers/{}", names_in(&kiln, "layers")[0]);
    let strange = [
        "logs/1.txt",
        "notes.txt",
        "stat/x",
        &format!("{layer}/copy"),
    ];
    for place in strange {
        let path = kiln.store().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match Path::new(place).extension() {
            Some(_) => fs::write(path, "mine").unwrap(),
            None => fs::create_dir(path).unwrap(),
        }
    }
    let mut expected =
        strange.map(|place| format!("{place}: it does not belong into a store; it is left alone"));
    expected.sort_unstable();
    for arguments in [&["fsck", "-q"][..], &["fsck", "-q", "--repair"]] {
        let output = kiln.run(arguments).fails().stdout();
        let mut lines: Vec<&str> = output.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, expected);
    }
    for place in strange {
        assert!(kiln.store().join(place).exists(), "{place} is gone");
    }
}
