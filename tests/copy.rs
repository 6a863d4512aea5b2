//! `kiln copy`: images from place to place as they are.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Fault, FaultyRegistry, Kiln, Registry, settled};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns the digest that a command printed.
fn copy(kiln: &Kiln, arguments: &[&str]) -> String {
    kiln.run([&["copy", "-q"], arguments].concat()).ok().line()
}

fn manifest(kiln: &Kiln, place: &str) -> Value {
    let shown = kiln.run(["manifest", "inspect", place]).ok().stdout();
    serde_json::from_str(&shown).unwrap()
}

/// Returns the files of a layout's blobs by name.
fn blobs(layout: &Path) -> Vec<String> {
    let directory = layout.join("blobs/sha256");
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Asserts that nothing half-done is left in the store.
#[track_caller]
fn assert_clean(kiln: &Kiln) {
    for place in ["tmp", "blobs/sha256"] {
        let rests = fs::read_dir(kiln.store().join(place)).unwrap().count();
        assert_eq!(rests, 0, "something is left in {place}");
    }
}

#[test]
fn index_goes_round_through_all_places_with_one_digest() {
    let (kiln, registry, other) = (Kiln::new(), Registry::shared(), Registry::start());
    let multi = registry.multi();
    let directory = kiln.sandbox().join("layout");
    let archive = kiln.sandbox().join("archive.tar");
    let places = [
        format!("docker://{}", other.reference("a/b:1")),
        format!("oci:{}:some/name:1", text(&directory)),
        format!("oci-archive:{}:x", text(&archive)),
        "store:multi:1".to_owned(),
        other.reference("a/c:2"),
    ];
    let mut from = multi.clone();
    let index = manifest(&kiln, &multi);
    let mut digests = Vec::new();
    for place in &places {
        digests.push(copy(&kiln, &["--all", &from, place]));
        assert_eq!(manifest(&kiln, place), index, "{place}");
        from.clone_from(place);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    // What went round is an image like any other.
    let fresh = Kiln::new();
    let last = other.reference("a/c:2");
    assert_eq!(
        fresh.run(["pull", "-q", &last]).ok().line(),
        fresh.run(["pull", "-q", &multi]).ok().line()
    );
    assert_eq!(
        kiln.run(["images", "-q", "multi:1"])
            .ok()
            .stdout()
            .lines()
            .count(),
        1
    );
}

#[test]
fn one_image_of_an_index_is_that_of_the_platform() {
    let (kiln, registry) = (Kiln::new(), Registry::shared());
    let target = kiln.sandbox().join("docker.tar");
    let place = format!("docker-archive:{}:arm:1", text(&target));
    copy(
        &kiln,
        &["--platform", "linux/arm64", &registry.multi(), &place],
    );
    let other = Kiln::new();
    let loaded = other.run(["load", "-i", text(&target)]).ok();
    assert_eq!(loaded.stdout(), "Loaded image: arm:1\n");
    let image = other.image("arm:1");
    assert_eq!(image.config["architecture"], "arm64");
    assert_eq!(image.tree.file("/architecture").content(), b"arm64\n");
    let output = kiln
        .run([
            "copy",
            "--platform",
            "linux/s390x",
            &registry.multi(),
            &place,
        ])
        .fails();
    assert!(
        output.stderr().ends_with(
            ": no image for platform linux/s390x\n\
             hint: platforms that exist: linux/amd64, linux/arm64; --all copies all of them\n"
        ),
        "{output}"
    );
    kiln.run(["copy", "--all", &registry.multi(), &place])
        .fails_with(
            "error: docker's archives hold images for one platform, and this is something else\n\
             hint: copy one of its images with --platform, or write an oci-archive\n",
        );
}

#[test]
fn repository_of_the_same_registry_takes_blobs_over_by_itself() {
    let (kiln, registry) = (Kiln::new(), Registry::start());
    let output = kiln
        .run(["copy", &registry.busybox(), &registry.reference("mine:1")])
        .ok();
    let shown = output.stderr();
    assert!(
        shown.contains(" exists\n") && !shown.contains(" done "),
        "{output}"
    );
    assert_clean(&kiln);
}

#[test]
fn what_is_there_is_not_sent_again_and_the_digest_goes_to_a_file() {
    let (kiln, from, to) = (
        Kiln::new(),
        FaultyRegistry::start(),
        FaultyRegistry::start(),
    );
    let image = from.image("1", &[("hello", "hello\n")]);
    let target = format!("{}/copy:1", to.address());
    let file = kiln.sandbox().join("digest");
    let arguments = [
        "copy",
        "--digestfile",
        text(&file),
        &from.reference("1"),
        &target,
    ];
    let output = kiln.run(arguments).ok();
    assert_eq!(output.stdout(), format!("Digest: {}\n", image.manifest));
    assert_eq!(fs::read_to_string(&file).unwrap(), image.manifest);
    let log = to.take_log();
    assert_eq!(log.last().unwrap(), "PUT /v2/copy/manifests/1");
    from.take_log();
    kiln.run(arguments).ok();
    assert_eq!(from.take_log(), ["GET /v2/app/manifests/1"]);
    let sent = to.take_log();
    let puts: Vec<_> = sent.iter().filter(|line| line.starts_with("PUT")).collect();
    assert_eq!(puts, ["PUT /v2/copy/manifests/1"]);
    assert_clean(&kiln);
}

/// Artifacts have configs and layers of types that kiln does not know.
#[test]
fn artifacts_are_copied_as_they_are() {
    let (kiln, registry) = (Kiln::new(), FaultyRegistry::start());
    let config = registry.blob("application/vnd.oci.empty.v1+json", b"{}");
    let layer = registry.blob("application/x-what", b"not a tar");
    let artifact = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/x-thing",
        "config": config,
        "layers": [layer],
        "annotations": {"org.example": "kept"},
        "unknown": {"kept": [1, 2]},
    });
    let digest = registry.manifest(
        "thing",
        "application/vnd.oci.image.manifest.v1+json",
        &artifact,
    );
    let layout = kiln.sandbox().join("layout");
    let place = format!("oci:{}:thing", text(&layout));
    assert_eq!(copy(&kiln, &[&registry.reference("thing"), &place]), digest);
    assert_eq!(manifest(&kiln, &place), artifact);
    let other = Registry::start();
    let there = other.reference("things:1");
    assert_eq!(copy(&kiln, &[&place, &there]), digest);
    assert_eq!(manifest(&kiln, &there), artifact);
    // The store holds images.
    let output = kiln.run(["copy", &place, "store:thing"]).fails();
    assert_eq!(
        output
            .stderr()
            .lines()
            .rfind(|line| line.starts_with("error")),
        Some("error: the image's config is unusable: it names 0 layers, and the manifest 1")
    );
}

#[test]
fn failed_copy_leaves_nothing_but_what_the_next_one_goes_on_with() {
    let (kiln, registry) = (Kiln::new(), FaultyRegistry::start());
    let image = registry.image("1", &[("hello", "hello\n")]);
    let layout = kiln.sandbox().join("layout");
    let place = format!("oci:{}:1", text(&layout));
    let archive = kiln.sandbox().join("archive.tar");
    registry.fault(&format!("app/blobs/{}", image.layer), Fault::Altered);
    for place in [&place, &format!("oci-archive:{}:1", text(&archive))] {
        let output = kiln.run(["copy", &registry.reference("1"), place]).fails();
        let shown = settled(&output.stderr(), &[(&registry.address(), "REGISTRY")]);
        let error = &shown[shown.find("error: ").unwrap()..];
        let expected = format!(
            "error: REGISTRY/app: blob {0}: wrong digest: expected {0}, got ",
            image.layer
        );
        assert!(error.starts_with(&expected), "{error}");
        assert_clean(&kiln);
    }
    assert!(!archive.exists());
    let left: Vec<PathBuf> = fs::read_dir(kiln.sandbox().path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".kiln-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!layout.join("index.json").exists());
    let kept = blobs(&layout);
    assert!(!kept.contains(&image.layer["sha256:".len()..].to_owned()));

    registry.repair();
    registry.take_log();
    assert_eq!(
        copy(&kiln, &[&registry.reference("1"), &place]),
        image.manifest
    );
    let asked = registry.take_log();
    let layer = format!("GET /v2/app/blobs/{}", image.layer);
    assert!(asked.contains(&layer), "{asked:?}");
    assert_eq!(blobs(&layout).len(), 3);
    // A second image joins the first, and a blob that was damaged is brought again.
    registry.image("2", &[("hello", "hello\n"), ("more", "more\n")]);
    fs::write(
        layout
            .join("blobs/sha256")
            .join(&image.layer["sha256:".len()..]),
        "damaged",
    )
    .unwrap();
    let second = place.replace(":1", ":2");
    copy(&kiln, &[&registry.reference("2"), &second]);
    copy(&kiln, &[&registry.reference("1"), &place]);
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let other = Kiln::new();
    copy(&other, &[&place, "store:one"]);
    assert_eq!(other.image("one").tree.file("/hello").content(), b"hello\n");
}

#[test]
fn places_that_kiln_does_not_know_are_refused() {
    let kiln = Kiln::new();
    assert_eq!(
        kiln.run(["copy", "dir:x", "store:y"]).fails().stderr(),
        "error: kiln copies to and from no dir:\n\
         hint: it knows docker://, containers-storage:, docker-archive:, oci:, oci-archive:, store:\n"
    );
    assert_eq!(
        kiln.run(["copy", "store:nothing", "oci:x"])
            .fails()
            .stderr(),
        "error: no such image: nothing\n\
         hint: `kiln images` lists what there is; `kiln pull nothing` fetches it\n"
    );
    assert!(!kiln.sandbox().join("x").exists());
}
