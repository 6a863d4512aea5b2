//! `kiln copy --compression`: layers are compressed anew on their way.

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{FaultyRegistry, Kiln, Registry, settled, tar_of};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn manifest(kiln: &Kiln, place: &str) -> Value {
    let shown = kiln.run(["manifest", "inspect", place]).ok().stdout();
    serde_json::from_str(&shown).unwrap()
}

fn types(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap().iter();
    let all = layers.chain([&manifest["config"], manifest]);
    // A manifest of OCI's need not say what it is.
    let named = all.filter_map(|entry| entry["mediaType"].as_str());
    named.map(str::to_owned).collect()
}

/// Returns the magic number of a blob of a layout.
fn magic(layout: &Path, layer: &Value) -> Vec<u8> {
    let hex = &layer["digest"].as_str().unwrap()["sha256:".len()..];
    let bytes = fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
    assert_eq!(bytes.len() as u64, layer["size"].as_u64().unwrap());
    bytes[..4].to_vec()
}

const OCI: &str = "application/vnd.oci.image";
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Asserts that a copy left nothing in the store.
#[track_caller]
fn assert_clean(kiln: &Kiln) {
    for place in ["tmp", "blobs/sha256"] {
        let rests = fs::read_dir(kiln.store().join(place)).unwrap().count();
        assert_eq!(rests, 0, "something is left in {place}");
    }
}

#[test]
fn image_goes_from_registry_to_registry_in_another_format_and_is_the_same_image() {
    let (kiln, registry, other) = (Kiln::new(), Registry::shared(), Registry::start());
    let (from, to) = (registry.busybox(), other.reference("packed:1"));
    let file = kiln.sandbox().join("digest");
    let arguments = ["copy", "--compression", "zstd", "--digestfile", text(&file)];
    let arguments = [&arguments[..], &[&from, &to]].concat();
    let output = kiln.run(&arguments).ok();
    let digest = fs::read_to_string(&file).unwrap();
    assert_eq!(output.stdout(), format!("Digest: {digest}\n"));
    let (before, after) = (manifest(&kiln, &from), manifest(&kiln, &to));
    assert_eq!(types(&after)[0], format!("{OCI}.layer.v1.tar+zstd"));
    assert_eq!(after["config"]["digest"], before["config"]["digest"]);
    assert_ne!(after["layers"], before["layers"]);
    assert_clean(&kiln);
    // Who has done it once need not compress to know what is there.
    let again = kiln.run(&arguments).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), digest);
    let shown = again.stderr();
    assert!(
        shown.contains(" exists\n") && !shown.contains(" done "),
        "{again}"
    );
    // It is the same image, with the same content.
    let ids = [&from, &to].map(|name| Kiln::new().run(["pull", "-q", name]).ok().line());
    assert_eq!(ids[0], ids[1]);
    // And back.
    let layout = kiln.sandbox().join("layout");
    let place = format!("oci:{}:1", text(&layout));
    kiln.run(["copy", "--compression=none", &to, &place]).ok();
    let plain = manifest(&kiln, &place);
    assert_eq!(types(&plain)[0], format!("{OCI}.layer.v1.tar"));
    assert_clean(&kiln);
}

#[test]
fn what_is_in_the_format_already_stays_and_so_does_the_digest() {
    let (kiln, registry) = (Kiln::new(), FaultyRegistry::start());
    let image = registry.image_of("1", &tar_of(&[("hello", "hello\n")]), json!({}));
    let layout = kiln.sandbox().join("layout");
    let place = format!("oci:{}:1", text(&layout));
    let from = registry.reference("1");
    let plain = kiln.run(["copy", "-q", &from, &place]).ok().line();
    assert_eq!(plain, image.manifest);
    let copied = kiln.run(["copy", "-q", "--compression", "none", &from, &place]);
    assert_eq!(copied.ok().line(), image.manifest);
}

#[test]
fn images_of_docker_become_ocis_where_docker_has_no_word_for_their_layers() {
    let (kiln, registry, to) = (Kiln::new(), FaultyRegistry::start(), Registry::start());
    let docker = "application/vnd.docker";
    let image = registry.image("1", &[("hello", "hello\n")]);
    let fetched = manifest(&kiln, &registry.reference("1"));
    let mut changed = fetched.clone();
    let kind = format!("{docker}.distribution.manifest.v2+json");
    changed["mediaType"] = json!(kind);
    changed["config"]["mediaType"] = json!(format!("{docker}.container.image.v1+json"));
    changed["layers"][0]["mediaType"] = json!(format!("{docker}.image.rootfs.diff.tar"));
    registry.manifest("2", &kind, &changed);
    let from = registry.reference("2");
    let there = to.reference("a:1");
    kiln.run(["copy", "--compression", "zstd", &from, &there])
        .ok();
    let zstd = manifest(&kiln, &there);
    assert_eq!(
        types(&zstd),
        [
            format!("{OCI}.layer.v1.tar+zstd"),
            format!("{OCI}.config.v1+json"),
            format!("{OCI}.manifest.v1+json"),
        ]
    );
    kiln.run(["copy", "--compression", "gzip", &from, &there])
        .ok();
    assert_eq!(
        types(&manifest(&kiln, &there)),
        [
            format!("{docker}.image.rootfs.diff.tar.gzip"),
            format!("{docker}.container.image.v1+json"),
            kind,
        ]
    );
    let pulled = Kiln::new();
    pulled.run(["pull", &there]).ok();
    let tree = pulled.image(&there).tree;
    assert_eq!(tree.file("/hello").content(), b"hello\n");
    assert_eq!(zstd["config"]["digest"], image.id);
}

#[test]
fn every_image_of_an_index_is_compressed_anew_and_the_index_names_them() {
    let (kiln, registry) = (Kiln::new(), Registry::shared());
    let layout = kiln.sandbox().join("layout");
    let place = format!("oci:{}:1", text(&layout));
    let multi = registry.multi();
    let arguments = ["copy", "-q", "--all", "--compression", "zstd"];
    let arguments = [
        &arguments[..],
        &["--compression-level", "19", &multi, &place],
    ]
    .concat();
    let digest = kiln.run(&arguments).ok().line();
    let index = manifest(&kiln, &place);
    let before = manifest(&kiln, &multi);
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    for (entry, old) in entries.iter().zip(before["manifests"].as_array().unwrap()) {
        assert_eq!(entry["platform"], old["platform"]);
        assert_ne!(entry["digest"], old["digest"]);
        let hex = &entry["digest"].as_str().unwrap()["sha256:".len()..];
        let bytes = fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
        let image: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(magic(&layout, &image["layers"][0]), ZSTD);
    }
    let fresh = Kiln::new();
    let arguments = ["copy", "-q", "--all", &place, "store:multi:1"];
    assert_eq!(fresh.run(arguments).ok().line(), digest);
    for platform in ["linux/arm64", "linux/amd64"] {
        let target = format!("oci:{}:{platform}", text(&fresh.sandbox().join("one")));
        fresh
            .run(["copy", "--platform", platform, "store:multi:1", &target])
            .ok();
    }
}

#[test]
fn built_image_leaves_the_store_in_the_format_at_once() {
    let kiln = Kiln::new();
    kiln.build_with(
        &["-t", "built"],
        "FROM scratch\nCOPY a /a\n",
        &[("a", "aaaa")],
    )
    .ok();
    let layout = kiln.sandbox().join("layout");
    let place = format!("oci:{}:1", text(&layout));
    kiln.run(["copy", "--compression", "zstd", "store:built", &place])
        .ok();
    let image = manifest(&kiln, &place);
    assert_eq!(magic(&layout, &image["layers"][0]), ZSTD);
    let blobs = fs::read_dir(kiln.store().join("blobs/sha256")).unwrap();
    let gzip = blobs
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .filter(|bytes| bytes.starts_with(&[0x1f, 0x8b]));
    assert_eq!(gzip.count(), 0);
    let archive = kiln.sandbox().join("docker.tar");
    let place = format!("docker-archive:{}:x:1", text(&archive));
    kiln.run(["copy", "--compression", "none", "store:built", &place])
        .ok();
    let other = Kiln::new();
    other.run(["load", "-i", text(&archive)]).ok();
    assert_eq!(other.image("x:1").tree.file("/a").content(), b"aaaa");
}

#[test]
fn layer_that_is_not_what_its_config_says_is_not_compressed_anew() {
    let (kiln, registry) = (Kiln::new(), FaultyRegistry::start());
    let tar = tar_of(&[("hello", "hello\n")]);
    let wrong = format!("sha256:{}", "0".repeat(64));
    let image = registry.image_of(
        "1",
        &tar,
        json!({"rootfs": {"type": "layers", "diff_ids": [wrong]}}),
    );
    let layout = kiln.sandbox().join("layout");
    let place = format!("oci:{}:1", text(&layout));
    let from = registry.reference("1");
    let output = kiln
        .run(["copy", "--compression", "gzip", &from, &place])
        .fails();
    let shown = settled(&output.stderr(), &[]);
    let expected = format!("error: layer {}: its content has the diff id ", image.layer);
    assert!(shown.contains(&expected), "{shown}");
    assert!(!layout.join("index.json").exists());
    assert_clean(&kiln);
}

#[test]
fn formats_and_levels_that_do_not_exist_and_contradictions_are_refused() {
    let kiln = Kiln::new();
    let digest = format!("sha256:{}", "1".repeat(64));
    let pinned = format!("r.example/a@{digest}");
    for (arguments, text) in [
        (
            &["--compression", "lz4", "a", "b"][..],
            "error: unknown compression \"lz4\"\nhint: there are gzip, zstd and none\n",
        ),
        (
            &["--compression=gzip", "--compression-level=10", "a", "b"],
            "error: gzip has no compression level 10\nhint: gzip has the levels 0 to 9\n",
        ),
        (
            &["--compression", "zstd", "a", &pinned],
            "error: an image that is compressed anew has another digest than its name says\n\
             hint: leave the digest out of the destination, or --compression\n",
        ),
    ] {
        let output = kiln.run([&["copy"], arguments].concat()).fails();
        assert_eq!(output.stderr(), text);
    }
    let arguments = ["copy", "--compression-level", "3", "a", "b"];
    let output = kiln.run(arguments).fails();
    assert_eq!(output.code(), Some(2));
    assert!(
        output.stderr().contains("--compression <FORMAT>"),
        "{output}"
    );
}
