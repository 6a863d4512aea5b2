//! `kiln copy` and `kiln manifest` beside skopeo and buildah: what one writes, the other reads.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::{Buildah, Image, Kiln, Output, Registry, compare, has_program, require, run};

fn tool(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    run(command.args(arguments), Duration::from_secs(60)).ok()
}

fn skopeo(arguments: &[&str]) -> Output {
    tool("skopeo", &[&["--insecure-policy"], arguments].concat())
}

/// Returns the document of a place, byte for byte, as skopeo sees it.
fn raw(place: &str) -> String {
    let transport = match place.starts_with("docker:") {
        true => &["inspect", "--raw", "--tls-verify=false"][..],
        false => &["inspect", "--raw"],
    };
    skopeo(&[transport, &[place]].concat()).stdout()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn copy(kiln: &Kiln, arguments: &[&str]) -> String {
    kiln.run([&["copy", "-q"], arguments].concat()).ok().line()
}

#[test]
fn skopeo_reads_what_kiln_copies_to_every_place() {
    require!(has_program("skopeo"), "no skopeo");
    let (kiln, registry) = (Kiln::new(), Registry::start());
    let (busybox, multi) = (registry.busybox(), registry.multi());
    let image = raw(&format!("docker://{busybox}"));
    let index = raw(&format!("docker://{multi}"));
    let file = |name: &str| text(&kiln.sandbox().join(name)).to_owned();
    for place in [
        format!("oci:{}:x/y:1", file("layout")),
        format!("oci-archive:{}:1", file("archive.tar")),
        format!("docker://{}", registry.reference("copied/one:1")),
    ] {
        copy(&kiln, &[&busybox, &place]);
        assert_eq!(raw(&place), image, "{place}");
        let scrap = format!("dir:{}", file("scrap"));
        let verified = ["copy", "--quiet", "--src-tls-verify=false", &place, &scrap];
        skopeo(&verified);
        let _ = fs::remove_dir_all(file("scrap"));
    }
    for place in [
        format!("oci:{}:all", file("layout")),
        format!("oci-archive:{}:all", file("all.tar")),
        format!("docker://{}", registry.reference("copied/all:1")),
    ] {
        copy(&kiln, &["--all", &multi, &place]);
        assert_eq!(raw(&place), index, "{place}");
        let scrap = format!("dir:{}", file("scrap"));
        let all = ["copy", "--all", "--quiet", "--src-tls-verify=false"];
        skopeo(&[&all[..], &[&place, &scrap]].concat());
        let _ = fs::remove_dir_all(file("scrap"));
    }
    let place = format!("docker-archive:{}:busybox:1", file("docker.tar"));
    copy(&kiln, &[&busybox, &place]);
    let inspected: Value = serde_json::from_str(&skopeo(&["inspect", &place]).stdout()).unwrap();
    let kept = Kiln::new();
    kept.run(["pull", &busybox]).ok();
    assert_eq!(
        inspected["Layers"].as_array().unwrap().len(),
        kept.image(&busybox).layers.len()
    );
}

#[test]
fn kiln_copies_what_skopeo_writes_to_every_place() {
    require!(has_program("skopeo"), "no skopeo");
    let (kiln, registry) = (Kiln::new(), Registry::start());
    let (busybox, multi) = (registry.busybox(), registry.multi());
    let file = |name: &str| text(&kiln.sandbox().join(name)).to_owned();
    let (layout, archive) = (file("layout"), file("archive.tar"));
    let quiet = ["copy", "--quiet", "--src-tls-verify=false"];
    let remote = format!("docker://{multi}");
    for place in [
        format!("oci:{layout}:1"),
        format!("oci-archive:{archive}:1"),
    ] {
        skopeo(&[&quiet[..], &["--all", &remote, &place]].concat());
        let name = registry.reference("from/skopeo:1");
        copy(&kiln, &["--all", &place, &name]);
        assert_eq!(raw(&format!("docker://{name}")), raw(&place));
    }
    // docker's archive has neither manifest nor compression: the layers keep their diff ids.
    let place = format!("docker-archive:{}:some/name:1", file("docker.tar"));
    skopeo(&[&quiet[..], &[&format!("docker://{busybox}"), &place]].concat());
    let name = registry.reference("from/docker:1");
    copy(&kiln, &[&place, &name]);
    kiln.run(["pull", &name]).ok();
    kiln.run(["pull", &busybox]).ok();
    let (left, right) = (kiln.image(&name), kiln.image(&busybox));
    assert_eq!(left.config["rootfs"], right.config["rootfs"]);
    assert_eq!(compare(&left, &right, &[]), []);
    kiln.run(["copy", &place.replace(":1", ":2"), "store:x"])
        .fails_with(
            "error: the layout has no image some/name:2\nhint: its images are some/name:1\n",
        );
}

#[test]
fn lists_go_both_ways_between_kiln_and_buildah() {
    require!(has_program("buildah"), "no buildah");
    require!(has_program("skopeo"), "no skopeo");
    let (kiln, registry) = (Kiln::new(), Registry::start());
    let multi = registry.multi();
    let ours = registry.reference("lists/ours:1");
    kiln.run(["manifest", "create", "--all", &ours, &multi])
        .ok();
    let annotate = ["manifest", "annotate", "--index", "--annotation", "by=kiln"];
    kiln.run([&annotate[..], &[&ours]].concat()).ok();
    kiln.run(["manifest", "push", &ours]).ok();

    // buildah takes all of it into a list of its own, and pushes that.
    let buildah = Buildah::new(kiln.sandbox());
    let policy = kiln.sandbox().join("buildah/policy.json");
    let theirs = registry.reference("lists/theirs:1");
    let remote = format!("docker://{ours}");
    buildah.run(["manifest", "create", "mixed"]).ok();
    let add = ["manifest", "add", "--all", "--tls-verify=false", "mixed"];
    buildah.run([&add[..], &[&remote]].concat()).ok();
    let push = ["manifest", "push", "--all", "--tls-verify=false"];
    let signed = ["--signature-policy", text(&policy)];
    let target = format!("docker://{theirs}");
    let format = ["--format", "oci", "mixed", &target];
    buildah.run([&push[..], &signed, &format].concat()).ok();

    let inspect = |name: &str| -> Value {
        let shown = kiln.run(["manifest", "inspect", name]).ok().stdout();
        serde_json::from_str(&shown).unwrap()
    };
    let digests = |index: &Value| -> Vec<Value> {
        let entries = index["manifests"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| entry["digest"].clone())
            .collect()
    };
    assert_eq!(inspect(&ours)["annotations"]["by"], "kiln");
    assert_eq!(digests(&inspect(&theirs)), digests(&inspect(&ours)));
    for platform in ["linux/amd64", "linux/arm64"] {
        let pull = |name: &str| {
            let pulled = kiln.run(["pull", "-q", "--platform", platform, name]).ok();
            pulled.line()
        };
        assert_eq!(pull(&theirs), pull(&ours));
    }
}

#[test]
fn umoci_unpacks_a_layout_that_kiln_copied() {
    require!(has_program("umoci"), "no umoci");
    let (kiln, registry) = (Kiln::new(), Registry::shared());
    let layout = kiln.sandbox().join("layout");
    copy(
        &kiln,
        &[&registry.busybox(), &format!("oci:{}:1", text(&layout))],
    );
    let bundle = kiln.sandbox().join("bundle");
    let image = format!("{}:1", text(&layout));
    tool(
        "umoci",
        &["unpack", "--rootless", "--image", &image, text(&bundle)],
    );
    assert!(bundle.join("rootfs/bin/busybox").exists());
    assert!(Image::open(&layout).tree.get("/bin/busybox").is_some());
}
