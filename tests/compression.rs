//! `--compression`: what layers leave the store as, and that nothing is compressed twice.

mod support;

use std::fs;
use std::process::Command;

use serde_json::Value;
use support::{Bases, FaultyRegistry, Kiln, Registry, compare};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// Returns kiln with an image `test` of a layer that was pulled and one of its own.
fn kiln_with_image() -> Kiln {
    let registry = Registry::start();
    let base = registry.reference("base:1");
    let other = Kiln::new();
    let file = [("base", "made elsewhere\n")];
    other.build("FROM scratch\nCOPY base /base\n", &file).ok();
    other.run(["tag", "test", &base]).ok();
    // With a level that is not the usual one: it is not to be made again.
    other
        .run(["push", "-q", "--compression-level=1", &base])
        .ok();
    let kiln = Kiln::new();
    let own = "made by kiln\n".repeat(100_000);
    let dockerfile = format!("FROM {base}\nCOPY own /own\n");
    kiln.build(&dockerfile, &[("own", &own)]).ok();
    kiln
}

/// Returns the layers of a saved image: media type, digest and size of each.
fn saved_layers(kiln: &Kiln, flags: &[&str]) -> Vec<(String, String, u64)> {
    let directory = kiln.sandbox().join("saved");
    let _ = fs::remove_dir_all(&directory);
    let path = directory.to_str().unwrap();
    let mut call = vec!["save", "--format", "oci-dir", "-o", path];
    call.extend(flags);
    call.push("test");
    kiln.run(call).ok();
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(directory.join(name)).unwrap()).unwrap()
    };
    let digest = read("index.json")["manifests"][0]["digest"].clone();
    let manifest = read(&format!(
        "blobs/{}",
        digest.as_str().unwrap().replace(':', "/")
    ));
    let layer = |layer: &Value| {
        (
            layer["mediaType"].as_str().unwrap().to_owned(),
            layer["digest"].as_str().unwrap().to_owned(),
            layer["size"].as_u64().unwrap(),
        )
    };
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(layer).collect()
}

fn types(layers: &[(String, String, u64)]) -> Vec<&str> {
    layers.iter().map(|(kind, _, _)| kind.as_str()).collect()
}

#[test]
fn layers_are_what_is_asked_for_and_those_that_came_stay_unless_forced() {
    let kiln = kiln_with_image();
    let usual = saved_layers(&kiln, &[]);
    assert_eq!(types(&usual), [GZIP, GZIP]);
    let zstd = saved_layers(&kiln, &["--compression", "zstd"]);
    assert_eq!(types(&zstd), [GZIP, ZSTD]);
    assert_eq!(zstd[0], usual[0]);
    let plain = saved_layers(&kiln, &["--compression=none"]);
    assert_eq!(types(&plain), [GZIP, PLAIN]);
    let forced = saved_layers(&kiln, &["--compression=zstd", "--force-compression"]);
    assert_eq!(types(&forced), [ZSTD, ZSTD]);
    assert_eq!(forced[1], zstd[1]);
    let plain = saved_layers(
        &kiln,
        &["--compression=uncompressed", "--force-compression"],
    );
    assert_eq!(types(&plain), [PLAIN, PLAIN]);
    // What was made on request changes nothing for who asks for nothing.
    assert_eq!(saved_layers(&kiln, &["--compression-level=6"]), usual);
    let best = saved_layers(&kiln, &["--compression-level=9"]);
    assert_eq!(best[0], usual[0]);
    assert!(best[1].2 < usual[1].2, "{best:?} {usual:?}");
}

#[test]
fn a_pushed_image_is_the_same_in_every_compression() {
    let registry = Registry::start();
    let kiln = kiln_with_image();
    for format in ["gzip", "zstd", "none"] {
        let name = registry.reference(&format!("{format}:1"));
        kiln.run(["tag", "test", &name]).ok();
        kiln.run([
            "push",
            "--force-compression",
            "--compression",
            format,
            &name,
        ])
        .ok();
        let other = Kiln::new();
        other.run(["pull", "-q", &name]).ok();
        assert_eq!(compare(&kiln.image("test"), &other.image(&name), &[]), []);
    }
}

#[test]
fn an_output_of_a_build_is_compressed_as_it_says() {
    let kiln = Kiln::new();
    kiln.build_with(
        &[
            "-o",
            "type=oci,dest=out,tar=false,compression=zstd,compression-level=9",
        ],
        "FROM scratch\nCOPY own /own\n",
        &[("own", "made by kiln\n")],
    )
    .ok();
    let index = fs::read_to_string(kiln.sandbox().join("out/index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let manifest = kiln
        .sandbox()
        .join("out/blobs")
        .join(digest.replace(':', "/"));
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], ZSTD);
}

#[test]
fn a_layer_that_the_registry_has_is_not_compressed_again() {
    let registry = FaultyRegistry::start();
    let name = format!("{}/mine:1", registry.address());
    let kiln = kiln_with_image();
    kiln.run(["tag", "test", &name]).ok();
    let digest = kiln.run(["push", "-q", &name]).ok().line();
    let made = &saved_layers(&kiln, &[])[1].1;
    let blob = kiln
        .store()
        .join("blobs/sha256")
        .join(made.trim_start_matches("sha256:"));
    fs::remove_file(&blob).unwrap();
    registry.take_log();
    assert_eq!(kiln.run(["push", "-q", &name]).ok().line(), digest);
    assert!(!blob.exists());
    let log = registry.take_log();
    assert!(
        log.contains(&format!("HEAD /v2/mine/blobs/{made}")),
        "{log:#?}"
    );
    assert!(
        !log.iter()
            .any(|line| line.starts_with("P") && !line.contains("manifests"))
    );

    // Another registry has it not.
    let other = FaultyRegistry::start();
    let name = format!("{}/mine:1", other.address());
    kiln.run(["tag", "test", &name]).ok();
    assert_eq!(kiln.run(["push", "-q", &name]).ok().line(), digest);
    assert!(blob.exists());
}

#[test]
fn gzip_makes_layers_as_small_as_pigz_does_within_five_percent() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[]);
    let debian = Bases::shared().debian_tar();
    fs::copy(&debian, context.join("debian")).unwrap();
    kiln.build("FROM scratch\nCOPY debian /debian\n", &[]).ok();
    let ours = saved_layers(&kiln, &[])[0].2;
    let theirs = kiln.sandbox().join("debian.gz");
    let pigz = Command::new("pigz")
        .args(["-6", "-c"])
        .arg(&debian)
        .stdout(fs::File::create(&theirs).unwrap())
        .status();
    assert!(pigz.unwrap().success());
    let theirs = fs::metadata(&theirs).unwrap().len();
    assert!(ours * 100 <= theirs * 105, "{ours} bytes, pigz {theirs}");
}

#[test]
fn compressions_that_do_not_exist_are_refused() {
    let kiln = Kiln::new();
    let refused = |flags: &[&str]| {
        let mut call = vec!["push"];
        call.extend(flags);
        call.push("x");
        kiln.run(call).fails().stderr()
    };
    assert_eq!(
        refused(&["--compression=lz4"]),
        "error: unknown compression \"lz4\"\n\
         hint: there are gzip, zstd and none\n"
    );
    assert_eq!(
        refused(&["--compression-level=10"]),
        "error: gzip has no compression level 10\n\
         hint: gzip has the levels 0 to 9\n"
    );
}
