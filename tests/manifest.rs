//! `kiln manifest`: indexes of images of the store and of registries.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Kiln, Registry, host_architecture, settled};

/// The architectures of the images of these tests.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Builds an image for each platform, as `one:ARCHITECTURE`.
fn kiln_with_images() -> Kiln {
    let kiln = Kiln::new();
    for architecture in ARCHITECTURES {
        let platform = format!("linux/{architecture}");
        let tag = format!("one:{architecture}");
        let options = ["--platform", &platform, "-t", &tag];
        let file = format!("FROM scratch\nCOPY {architecture} /architecture\n");
        kiln.build_with(&options, &file, &[(architecture, architecture)])
            .ok();
    }
    kiln
}

fn document(kiln: &Kiln, name: &str) -> Value {
    let text = kiln.run(["manifest", "inspect", name]).ok().stdout();
    serde_json::from_str(&text).unwrap()
}

fn platforms(index: &Value) -> Vec<String> {
    let entries = index["manifests"].as_array().unwrap().iter();
    let platform = |entry: &Value| {
        let word = |key: &str| entry["platform"][key].as_str().unwrap().to_owned();
        format!("{}/{}", word("os"), word("architecture"))
    };
    entries.map(platform).collect()
}

#[test]
fn images_of_the_store_are_joined_and_pushed_under_one_name() {
    let (kiln, registry) = (kiln_with_images(), Registry::start());
    let list = registry.reference("team/joined:1");
    let created = kiln.run(["manifest", "create", &list, "one:amd64"]).ok();
    assert_eq!(created.stdout(), format!("Created manifest list {list}\n"));
    let added = kiln.run(["manifest", "add", &list, "one:arm64"]).ok();
    let index = document(&kiln, &list);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    assert_eq!(added.line(), index["manifests"][1]["digest"]);

    let file = kiln.sandbox().join("digest");
    let push = kiln
        .run([
            "manifest",
            "push",
            "--digestfile",
            file.to_str().unwrap(),
            &list,
        ])
        .ok();
    let digest = fs::read_to_string(&file).unwrap();
    assert_eq!(push.stdout(), format!("{digest}\n"));
    // One who knows nothing of the list gets the image of his machine, or the one asked for.
    let other = Kiln::new();
    let pulled = other.run(["pull", &list]).ok();
    assert!(pulled.stdout().starts_with(&format!("Digest: {digest}\n")));
    let image = other.image(&list);
    assert_eq!(
        image.tree.file("/architecture").content(),
        host_architecture().as_bytes()
    );
    for architecture in ARCHITECTURES {
        let platform = format!("linux/{architecture}");
        other
            .run(["pull", "-q", "--platform", &platform, &list])
            .ok();
        let image = other.image(&list);
        let content = image.tree.file("/architecture").content().to_vec();
        assert_eq!(content, architecture.as_bytes());
    }
    // RepoDigests name the index, as docker's do.
    let inspected = other.run(["inspect", &list]).ok().stdout();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let repository = list.trim_end_matches(":1");
    assert_eq!(
        inspected[0]["RepoDigests"],
        json!([format!("{repository}@{digest}")])
    );
    // Its images stay when their names go.
    kiln.run(["rmi", "one:amd64", "one:arm64", "test"]).ok();
    kiln.run(["prune", "-a", "-f"]).ok();
    kiln.run(["manifest", "push", &list, &registry.reference("again:1")])
        .ok();
    kiln.run(["manifest", "push", "--purge", &list]).ok();
    let gone = kiln.run(["manifest", "push", &list]).fails();
    assert_eq!(
        gone.stderr(),
        format!(
            "error: no such manifest list: {list}\n\
             hint: make one: kiln manifest create {list} IMAGE...\n"
        )
    );
}

#[test]
fn images_of_registries_are_joined_where_they_are() {
    let (kiln, registry, other) = (Kiln::new(), Registry::shared(), Registry::start());
    let list = registry.reference("joined/there:1");
    let (multi, busybox) = (registry.multi(), registry.busybox());
    kiln.run(["manifest", "create", "--all", &list, &multi])
        .ok();
    let index = document(&kiln, &list);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    let push = kiln.run(["manifest", "push", &list]).ok();
    // The registry has all of it, and moves nothing.
    assert!(!push.stderr().contains(" done "), "{push}");
    assert_eq!(document(&Kiln::new(), &list), index);
    // The images are in no store, and go to another registry all the same.
    let there = other.reference("far/away:1");
    kiln.run(["manifest", "push", &list, &format!("docker://{there}")])
        .ok();
    assert_eq!(document(&Kiln::new(), &there), index);
    let fresh = Kiln::new();
    fresh.run(["pull", &there]).ok();

    // Without --all, only the image of this machine.
    let amend = ["manifest", "create", "--amend", &list, &busybox];
    kiln.run(amend).ok();
    assert_eq!(
        document(&kiln, &list)["manifests"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let single = registry.reference("joined/single:1");
    kiln.run(["manifest", "create", &single, &multi]).ok();
    let host = format!("linux/{}", host_architecture());
    assert_eq!(platforms(&document(&kiln, &single)), [host]);
}

#[test]
fn entries_are_annotated_and_removed_by_name_or_digest() {
    let (kiln, registry) = (kiln_with_images(), Registry::shared());
    kiln.run(["manifest", "create", "list", "one:amd64", "one:arm64"])
        .ok();
    let annotate = ["manifest", "annotate", "list", "one:arm64"];
    let changes = [
        "--variant",
        "v8",
        "--os-features",
        "a,b",
        "--annotation",
        "org.example=1=2",
    ];
    kiln.run([&annotate[..], &changes].concat()).ok();
    let entry = document(&kiln, "list")["manifests"][1].clone();
    assert_eq!(
        entry["platform"],
        json!({"architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["a", "b"]})
    );
    assert_eq!(entry["annotations"], json!({"org.example": "1=2"}));
    let whole = [
        "manifest",
        "annotate",
        "--index",
        "--annotation",
        "k=v",
        "list",
    ];
    kiln.run(whole).ok();
    assert_eq!(document(&kiln, "list")["annotations"], json!({"k": "v"}));

    // What came from a registry has the name that it came by.
    let busybox = registry.busybox();
    kiln.run(["manifest", "add", "--arch", "riscv64", "list", &busybox])
        .ok();
    let platform = document(&kiln, "list")["manifests"][2]["platform"].clone();
    assert_eq!(platform["architecture"], "riscv64");
    kiln.run(["manifest", "remove", "list", &busybox]).ok();
    let digest = entry["digest"].as_str().unwrap();
    let removed = kiln.run(["manifest", "remove", "list", digest]).ok();
    assert_eq!(removed.line(), digest);
    assert_eq!(platforms(&document(&kiln, "list")), ["linux/amd64"]);
    let left = document(&kiln, "list")["manifests"][0]["digest"].clone();
    let output = kiln.run(["manifest", "remove", "list", digest]).fails();
    assert_eq!(
        output.stderr(),
        format!(
            "error: {digest} is not in the list\nhint: its images are {}\n",
            left.as_str().unwrap()
        )
    );
}

#[test]
fn mistakes_are_told_with_the_command_that_helps() {
    let kiln = kiln_with_images();
    kiln.run(["manifest", "create", "list"]).ok();
    for (arguments, text) in [
        (
            &["create", "list"][..],
            "error: there is a manifest list list:latest already\n\
             hint: add to it with --amend, or remove it: kiln manifest rm list:latest\n",
        ),
        (
            &["push", "list"],
            "error: the manifest list list:latest is empty\n\
             hint: add images: kiln manifest add list:latest IMAGE\n",
        ),
        (
            &["add", "none", "one:amd64"],
            "error: no such manifest list: none:latest\n\
             hint: make one: kiln manifest create none:latest IMAGE...\n",
        ),
        (
            &["add", "list", "oci:/nowhere"],
            "error: oci:/nowhere: a list has images of the store and of registries\n\
             hint: bring it there: kiln copy oci:/nowhere store:NAME\n",
        ),
    ] {
        let output = kiln.run([&["manifest"], arguments].concat()).fails();
        assert_eq!(output.stderr(), text);
    }
    assert_eq!(kiln.run(["manifest", "exists", "list"]).code(), Some(0));
    assert_eq!(kiln.run(["manifest", "exists", "none"]).code(), Some(1));
    let rm = kiln.run(["manifest", "rm", "list"]).ok();
    assert_eq!(rm.stdout(), "Untagged: list:latest\n");
    assert_eq!(kiln.run(["manifest", "exists", "list"]).code(), Some(1));
    assert_eq!(kiln.run(["manifest", "rm", "list"]).fails().code(), Some(1));
}

#[test]
fn index_that_was_pulled_whole_is_pushed_whole() {
    let (kiln, registry, other) = (Kiln::new(), Registry::shared(), Registry::start());
    let (multi, copy) = (registry.multi(), other.reference("multi:1"));
    kiln.run(["pull", &multi]).ok();
    kiln.run(["tag", &multi, &copy]).ok();
    let output = kiln.run(["push", "--all-platforms", &copy]).fails();
    let text = output.stderr();
    let (head, tail) = text.split_once("sha256:").unwrap();
    assert_eq!(
        (head, &tail[64..]),
        (
            format!("error: {copy}: not all of its index is in the store: ").as_str(),
            format!(" is missing\nhint: fetch all of it: kiln pull --all-platforms {copy}\n")
                .as_str()
        )
    );
    kiln.run(["pull", "--all-platforms", &multi]).ok();
    let push = kiln.run(["push", "--all-platforms", &copy]).ok();
    let digest = push.stdout().trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(document(&Kiln::new(), &copy), document(&kiln, &multi));
    assert_eq!(push.stdout(), format!("{copy}: digest: {digest}\n"));
    // Nothing of it is fetched again for another platform.
    let names = [(registry.address(), "REGISTRY")];
    let pulled = kiln.run(["pull", "--platform", "linux/arm64", &multi]).ok();
    assert!(
        !settled(&pulled.stderr(), &names).contains("pull "),
        "{pulled}"
    );
}

#[test]
fn list_that_lost_its_index_is_found_and_taken_away() {
    let kiln = kiln_with_images();
    kiln.run(["manifest", "create", "list", "one:amd64"]).ok();
    kiln.run(["fsck"]).ok();
    let lists = kiln.store().join("lists");
    let record = fs::read_dir(&lists)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let record: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let hex = &record["index"].as_str().unwrap()["sha256:".len()..];
    fs::remove_file(kiln.store().join("blobs/sha256").join(hex)).unwrap();
    let found = kiln.run(["fsck"]).fails().stdout();
    let expected = "docker.io/library/list:latest: its index is missing\n";
    assert!(found.contains(expected), "{found}");
    kiln.run(["fsck", "--repair"]);
    kiln.run(["fsck"]).ok();
    assert_eq!(fs::read_dir(lists).unwrap().count(), 0);
}

/// The output of `docker manifest inspect --verbose`, which scripts read.
#[test]
fn verbose_shows_each_image_with_its_platform_and_manifest() {
    let (kiln, registry) = (kiln_with_images(), Registry::start());
    let list = registry.reference("team/joined:1");
    kiln.run(["manifest", "create", &list, "one:amd64", "one:arm64"])
        .ok();
    kiln.run(["manifest", "push", &list]).ok();
    let verbose = |kiln: &Kiln, name: &str| -> Value {
        let shown = kiln.run(["manifest", "inspect", "-v", name]).ok().stdout();
        serde_json::from_str(&shown).unwrap()
    };
    let index = document(&kiln, &list);
    let mut expected = Vec::new();
    for entry in index["manifests"].as_array().unwrap() {
        let digest = entry["digest"].as_str().unwrap();
        let repository = list.trim_end_matches(":1");
        expected.push(json!({
            "Ref": format!("{list}@{digest}"),
            "Descriptor": entry,
            "OCIManifest": document(&kiln, &format!("{repository}@{digest}")),
        }));
    }
    // The list of the store, and the index of the registry.
    assert_eq!(verbose(&kiln, &list), json!(expected));
    assert_eq!(verbose(&Kiln::new(), &list), json!(expected));
    let one = registry.reference("team/one:1");
    kiln.run(["tag", "one:arm64", &one]).ok();
    kiln.run(["push", &one]).ok();
    let arm = &expected[1];
    assert_eq!(
        verbose(&Kiln::new(), &format!("docker://{one}")),
        json!({"Ref": one, "Descriptor": arm["Descriptor"], "OCIManifest": arm["OCIManifest"]})
    );
}

#[test]
fn list_goes_to_the_registry_in_the_format_that_is_asked_for() {
    let (kiln, registry) = (kiln_with_images(), Registry::start());
    let list = registry.reference("team/joined:1");
    kiln.run(["manifest", "create", &list, "one:amd64", "one:arm64"])
        .ok();
    let annotate = ["manifest", "annotate", "--annotation", "k=v"];
    kiln.run([&annotate[..], &[&list, "one:amd64"]].concat())
        .ok();
    let kinds = |options: &[&str]| {
        let push = [&["manifest", "push", "--all"], options, &[&list]].concat();
        let digest = kiln.run(push).ok().line();
        let fresh = Kiln::new();
        let pulled = fresh.run(["pull", &list]).ok().stdout();
        assert!(
            pulled.starts_with(&format!("Digest: {digest}\n")),
            "{pulled}"
        );
        let shown = fresh.run(["manifest", "inspect", "-v", &list]).ok();
        let images: Value = serde_json::from_str(&shown.stdout()).unwrap();
        let image = images[0].clone();
        let manifest = ["SchemaV2Manifest", "OCIManifest"].map(|key| image[key].clone());
        let manifest = manifest.into_iter().find(|m| !m.is_null()).unwrap();
        let layer = manifest["layers"][0]["mediaType"].clone();
        let kind = document(&fresh, &list)["mediaType"].clone();
        let annotations = image["Descriptor"]["annotations"].clone();
        [kind, manifest["mediaType"].clone(), layer, annotations]
    };
    let docker = "application/vnd.docker";
    assert_eq!(
        kinds(&["--format", "v2s2"]),
        [
            json!(format!("{docker}.distribution.manifest.list.v2+json")),
            json!(format!("{docker}.distribution.manifest.v2+json")),
            json!(format!("{docker}.image.rootfs.diff.tar.gzip")),
            Value::Null,
        ]
    );
    let oci = "application/vnd.oci.image";
    let whole = |layer: &str| {
        [
            json!(format!("{oci}.index.v1+json")),
            json!(format!("{oci}.manifest.v1+json")),
            json!(format!("{oci}.layer.v1.{layer}")),
            json!({"k": "v"}),
        ]
    };
    assert_eq!(kinds(&["--format=oci"]), whole("tar+gzip"));
    assert_eq!(kinds(&["--compression", "zstd"]), whole("tar+zstd"));
    let arguments = ["--format=v2s2", "--compression=zstd", &list];
    let output = kiln
        .run([&["manifest", "push"], &arguments[..]].concat())
        .fails();
    let shown = output.stderr();
    let shown = shown[shown.find("error: ").unwrap()..].split_once("sha256:");
    let (head, tail) = shown.unwrap();
    assert_eq!(
        (head, &tail[64..]),
        (
            "error: manifest ",
            ": docker's schema 2 has no \"application/vnd.oci.image.layer.v1.tar+zstd\"\n\
             hint: leave out --format, or say --format oci\n"
        )
    );
    // What failed is not taken away; what went is.
    assert_eq!(kiln.run(["manifest", "exists", &list]).code(), Some(0));
    kiln.run(["manifest", "push", "--rm", &list]).ok();
    assert_eq!(kiln.run(["manifest", "exists", &list]).code(), Some(1));
}
