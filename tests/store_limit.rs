//! A store with a limit: builds keep it below.

mod support;

use std::fs;
use std::path::Path;
use std::thread;

use support::meeting::{Meeting, let_go};
use support::{Kiln, Output, Registry, names_in};

/// Builds an image of its own with so many bytes that nobody has seen.
fn build(kiln: &Kiln, tag: &str, bytes: usize) -> Output {
    let dockerfile = format!(
        "FROM {}\nRUN : {tag}; head -c {bytes} /dev/urandom > /f\n",
        Registry::shared().busybox()
    );
    kiln.build_with(&["-t", tag], &dockerfile, &[]).ok()
}

/// Returns the bytes of all layers.
fn layer_bytes(kiln: &Kiln) -> u64 {
    let of = |id: String| {
        let file = kiln.store().join("layers").join(id).join("layer.json");
        let record: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        record["size"].as_u64().unwrap()
    };
    names_in(kiln, "layers").into_iter().map(of).sum()
}

const MEGABYTE: usize = 1_000_000;

#[test]
fn what_was_used_longest_ago_goes_at_the_end_of_a_build_and_is_said() {
    let kiln = Kiln::new().env("KILN_STORE_LIMIT", Path::new("20MB"));
    for tag in ["a", "b", "c"] {
        let output = build(&kiln, tag, 5 * MEGABYTE);
        assert!(!output.stderr().contains("freed"), "{output}");
    }
    let before = layer_bytes(&kiln);
    assert!(before > 15 * MEGABYTE as u64, "{before}");
    // Only what has no image any more can go.
    kiln.run(["rmi", "a"]).ok();
    let output = build(&kiln, "d", 5 * MEGABYTE);
    let log = output.stderr();
    assert!(
        log.contains("freed 5MB: the store was over its limit of 20MB\n")
            || log.contains("freed 5.0MB: the store was over its limit of 20MB\n"),
        "{output}"
    );
    assert_eq!(layer_bytes(&kiln), before);
    for tag in ["b", "c", "d"] {
        kiln.run(["run", tag, "test", "-s", "/f"]).ok();
    }
    kiln.run(["fsck"]).ok();
    // What still has a name stays, and that is said too.
    let output = build(&kiln, "e", 5 * MEGABYTE);
    let warning = "warning: the store still has ";
    assert!(output.stderr().contains(warning), "{output}");
    // A build in which nothing changed does not look.
    let dockerfile = fs::read_to_string(kiln.sandbox().join("context/Dockerfile")).unwrap();
    let output = kiln.build_with(&["-t", "e"], &dockerfile, &[]).ok();
    assert!(!output.stderr().contains("limit"), "{output}");
}

#[test]
fn limit_is_read_from_the_settings_and_what_is_wrong_with_them_is_said() {
    let kiln = Kiln::new();
    let file = kiln.sandbox().directory("home/.config/kiln", &[]);
    let file = file.join("config.toml");
    fs::write(&file, "store-limit = \"3MB\"\n").unwrap();
    build(&kiln, "a", MEGABYTE);
    kiln.run(["rmi", "a"]).ok();
    let output = build(&kiln, "b", 2 * MEGABYTE);
    assert!(output.stderr().contains("freed "), "{output}");
    for (text, expected) in [
        (
            "store-limit = \"much\"\n",
            "error: store-limit in FILE: \"much\" is no size: expected a size such as 500MB or 10GB\n",
        ),
        (
            "store-limt = \"1GB\"\n",
            "error: cannot read FILE: unknown field `store-limt`, expected `store-limit`\n",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let output = kiln.build("FROM scratch\n", &[]).fails();
        let expected = expected.replace("FILE", file.to_str().unwrap());
        assert_eq!(output.stderr(), expected);
    }
}

#[test]
fn running_builds_lose_nothing() {
    let kiln = Kiln::new().env("KILN_STORE_LIMIT", Path::new("1MB"));
    let meeting = Meeting::new();
    let dockerfile = format!(
        "FROM {}\nRUN head -c 3000000 /dev/zero > /f\nRUN {}\nRUN wc -c < /f > /size\n",
        Registry::shared().busybox(),
        meeting.command()
    );
    thread::scope(|scope| {
        let (kiln, dockerfile) = (&kiln, &dockerfile);
        scope.spawn(move || {
            let context = kiln
                .sandbox()
                .directory("other", &[("Dockerfile", dockerfile)]);
            let context = context.to_str().unwrap();
            kiln.run(["build", "-t", "late", context]).ok();
        });
        let steps = meeting.wait_for(1);
        for tag in ["a", "b"] {
            build(kiln, tag, MEGABYTE);
        }
        let_go(steps);
    });
    let size = kiln.run(["run", "late", "cat", "/size"]).ok().stdout();
    assert_eq!(size, "3000000\n");
    kiln.run(["fsck"]).ok();
}

#[test]
fn image_without_a_name_stays_for_those_who_know_its_id() {
    let kiln = Kiln::new().env("KILN_STORE_LIMIT", Path::new("1MB"));
    let base = Registry::shared().busybox();
    let dockerfile = format!("FROM {base}\nRUN head -c 2000000 /dev/urandom > /f\n");
    let context = kiln
        .sandbox()
        .directory("nameless", &[("Dockerfile", &dockerfile)]);
    let id = kiln
        .run(["build", "-q", context.to_str().unwrap()])
        .ok()
        .line();
    build(&kiln, "other", MEGABYTE);
    kiln.run(["run", &id, "test", "-s", "/f"]).ok();
}
