//! The example of the README, from a real registry to a program that runs.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::{Kiln, Registry, run};

const GREETING: &str = "Hello from an image that kiln built.\n";

#[test]
fn example_is_built_run_shown_and_saved() {
    let kiln = Kiln::new();
    let registry = Registry::shared();
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello");
    let base = format!("BASE={}", registry.debian());
    let small = format!("SMALL={}", registry.busybox());
    let build = |options: &[&str]| {
        let head = [
            "build",
            "-t",
            "hello",
            "--build-arg",
            &base,
            "--build-arg",
            &small,
        ];
        let context = context.to_str().unwrap();
        kiln.run(head.iter().chain(options).chain(&[context]))
    };
    build(&["--progress", "plain"]).ok();
    assert_eq!(kiln.run(["run", "--rm", "hello"]).ok().stdout(), GREETING);

    let id = kiln
        .run(["images", "-q", "--no-trunc", "hello"])
        .ok()
        .line();
    let images = kiln.run(["images"]).ok().stdout();
    let line = images
        .lines()
        .find(|line| line.starts_with("hello "))
        .unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[1..3], ["latest", &id["sha256:".len()..][..12]]);

    let history = kiln.run(["history", "hello"]).ok().stdout();
    assert!(
        history.lines().nth(1).unwrap().contains("CMD [\"/hello\"]"),
        "{history}"
    );
    assert!(
        history
            .lines()
            .nth(2)
            .unwrap()
            .contains("COPY --from=build /out/hello /hello"),
        "{history}"
    );
    let inspected: Value =
        serde_json::from_str(&kiln.run(["inspect", "hello"]).ok().stdout()).unwrap();
    assert_eq!(inspected[0]["Id"], id.as_str());
    assert_eq!(inspected[0]["Config"]["Cmd"], serde_json::json!(["/hello"]));
    assert_eq!(
        inspected[0]["RootFS"]["Layers"].as_array().unwrap().len(),
        2
    );

    // Again, with nothing changed: the same image, and no step is run.
    let again = build(&["--progress", "plain"]).ok();
    assert_eq!(
        kiln.run(["images", "-q", "--no-trunc", "hello"])
            .ok()
            .line(),
        id
    );
    let done: Vec<_> = again
        .stderr()
        .lines()
        .filter(|l| l.contains(" DONE "))
        .map(str::to_owned)
        .collect();
    assert_eq!(done.len(), 1, "only the export is done: {again}");
    assert_eq!(build(&["-q"]).ok().stdout(), format!("{id}\n"));

    let archive = kiln.sandbox().join("hello.tar");
    let archive = archive.to_str().unwrap();
    kiln.run(["save", "--format", "oci-archive", "-o", archive, "hello"])
        .ok();
    let minute = Duration::from_secs(60);
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--config", &format!("oci-archive:{archive}")]);
    let config: Value = serde_json::from_str(&run(&mut skopeo, minute).ok().stdout()).unwrap();
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["/hello"]));

    let layout = kiln.sandbox().directory("layout", &[]);
    run(
        Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(&layout),
        minute,
    )
    .ok();
    let bundle = kiln.sandbox().join("bundle");
    let mut umoci = Command::new("umoci");
    umoci
        .args(["unpack", "--rootless", "--image"])
        .arg(format!("{}:latest", layout.display()))
        .arg(&bundle);
    run(&mut umoci, minute).ok();
    let program = bundle.join("rootfs/hello");
    assert_eq!(
        run(&mut Command::new(program), minute).ok().stdout(),
        GREETING
    );
}
