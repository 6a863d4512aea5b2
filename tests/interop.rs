//! Images go back and forth between kiln and programs that know nothing of it: skopeo, umoci,
//! and the crate ocipkg as an independent reader and pusher.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ocipkg::ImageName;
use ocipkg::image::{
    Image as _, ImageBuilder as _, OciArchive, OciArchiveBuilder, Remote, RemoteBuilder,
    RunnableBuilder, copy,
};
use support::{Bases, Image, Kiln, Kind, Output, Registry, compare, has_program, require, run};

const DOCKERFILE: &str = "\
ENV GREETING=hello
LABEL org.example.note=\"two words\"
RUN mkdir -p /srv/data && echo data >/srv/data/file && chown -R app:extra /srv && chmod 2750 /srv/data \\
 && ln /srv/data/file /srv/hard && ln -s data/file /srv/soft && rm -rf /home/app && mkfifo /srv/fifo
RUN rm -rf /srv/data && mkdir /srv/data && echo new >/srv/data/new
COPY <<note /srv/
text
note
WORKDIR /srv
CMD [\"cat\", \"/srv/note\"]
";

/// Builds the image `name` of these tests.
fn build(kiln: &Kiln, name: &str) {
    let base = Registry::shared().busybox();
    kiln.build_with(&["-t", name], &format!("FROM {base}\n{DOCKERFILE}"), &[])
        .ok();
}

fn tool(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    run(command.args(arguments), Duration::from_secs(60)).ok()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.stdout()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Saves an image and returns the reference as skopeo writes it.
fn save(kiln: &Kiln, format: &str, transport: &str, name: &str) -> String {
    let file = kiln.sandbox().join(format);
    kiln.run(["save", "--format", format, "-o", path(&file), name])
        .ok();
    format!("{transport}:{}", path(&file))
}

/// ocipkg speaks plain HTTP with `localhost` only.
fn name_for_ocipkg(registry: &Registry, name: &str) -> ImageName {
    let reference = registry.reference(name).replace("127.0.0.1", "localhost");
    ImageName::parse(&reference).unwrap()
}

#[test]
fn skopeo_reads_what_kiln_saves_in_every_format() {
    require!(has_program("skopeo"), "no skopeo");
    let kiln = Kiln::new();
    build(&kiln, "test");
    let expected = kiln.image("test");
    for (format, transport) in [
        ("oci-archive", "oci-archive"),
        ("oci-dir", "oci"),
        ("docker-archive", "docker-archive"),
        // It is an OCI layout at the same time.
        ("docker-archive", "oci-archive"),
    ] {
        let reference = save(&kiln, format, transport, "test");
        let inspected = json(&tool("skopeo", &["inspect", &reference]));
        assert_eq!(
            inspected["Architecture"], expected.config["architecture"],
            "{reference}"
        );
        assert_eq!(
            inspected["Labels"]["org.example.note"], "two words",
            "{reference}"
        );
        assert_eq!(
            inspected["Layers"].as_array().unwrap().len(),
            expected.layers.len()
        );
        let config = json(&tool("skopeo", &["inspect", "--config", &reference]));
        assert_eq!(config["rootfs"], expected.config["rootfs"], "{reference}");
        // A copy reads, and so verifies, all of it.
        let copied = kiln.sandbox().join(format!("copied-{format}-{transport}"));
        let target = format!("oci:{}", path(&copied));
        tool(
            "skopeo",
            &["--insecure-policy", "copy", "--quiet", &reference, &target],
        );
        assert_eq!(
            compare(&Image::open(&copied), &expected, &[]),
            [],
            "{reference}"
        );
        let _ = fs::remove_file(kiln.sandbox().join(format));
    }
}

#[test]
fn skopeo_reads_what_kiln_pushes_and_it_is_what_kiln_saves() {
    require!(has_program("skopeo"), "no skopeo");
    let (kiln, registry) = (Kiln::new(), Registry::shared());
    let name = registry.reference("interop/pushed:1");
    build(&kiln, &name);
    kiln.run(["push", &name]).ok();
    let remote = format!("docker://{name}");
    let inspected = json(&tool("skopeo", &["inspect", "--tls-verify=false", &remote]));
    assert_eq!(inspected["RepoTags"], serde_json::json!(["1"]));
    let copied = kiln.sandbox().join("copied");
    let target = format!("oci:{}:1", path(&copied));
    let arguments = [
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
    ];
    tool("skopeo", &[&arguments[..], &[&remote, &target]].concat());
    let (pushed, saved) = (Image::open(&copied), kiln.image(&name));
    assert_eq!(pushed.id, saved.id);
    assert_eq!(pushed.manifest["config"], saved.manifest["config"]);
    assert_eq!(pushed.layers, saved.layers);
    assert_eq!(compare(&pushed, &saved, &[]), []);
}

#[test]
fn umoci_unpacks_what_kiln_saves() {
    require!(has_program("umoci"), "no umoci");
    let kiln = Kiln::new();
    build(&kiln, "test:1");
    save(&kiln, "oci-dir", "oci", "test:1");
    let layout = kiln.sandbox().join("oci-dir");
    let tags = tool("umoci", &["list", "--layout", path(&layout)]).line();
    let bundle = kiln.sandbox().join("bundle");
    let image = format!("{}:{tags}", path(&layout));
    tool(
        "umoci",
        &["unpack", "--rootless", "--image", &image, path(&bundle)],
    );
    let root = bundle.join("rootfs");
    let tree = kiln.image("test:1").tree;
    let mut seen = 0;
    for name in tree.paths() {
        let node = tree.file(&name);
        let unpacked = root.join(name.trim_start_matches('/'));
        let metadata = fs::symlink_metadata(&unpacked)
            .unwrap_or_else(|error| panic!("umoci did not unpack {name}: {error}"));
        match node.kind {
            Kind::Symlink => assert_eq!(
                fs::read_link(&unpacked)
                    .unwrap()
                    .as_os_str()
                    .as_encoded_bytes(),
                node.target,
                "{name}"
            ),
            kind => {
                assert_eq!(metadata.is_dir(), kind == Kind::Directory, "{name}");
                // Rootless umoci can give no set-id bits to files of other groups.
                assert_eq!(
                    metadata.permissions().mode() & 0o777,
                    node.mode & 0o777,
                    "{name}"
                );
            }
        }
        if node.kind == Kind::File && node.size < 1 << 20 {
            assert_eq!(fs::read(&unpacked).unwrap(), node.content(), "{name}");
        }
        seen += 1;
    }
    assert!(seen > 100, "{seen} paths");
    assert!(!root.join("home/app").exists() && !root.join("srv/data/file").exists());
    let spec: serde_json::Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(
        spec["process"]["args"],
        serde_json::json!(["cat", "/srv/note"])
    );
    assert_eq!(spec["process"]["cwd"], "/srv");
}

#[test]
fn ocipkg_reads_an_archive_that_kiln_saved() {
    let kiln = Kiln::new();
    build(&kiln, "test:1");
    save(&kiln, "oci-archive", "oci-archive", "test:1");
    let mut archive = OciArchive::new(&kiln.sandbox().join("oci-archive")).unwrap();
    let expected = kiln.image("test:1");
    let manifest = archive.get_manifest().unwrap();
    assert_eq!(manifest.config().digest().to_string(), expected.id);
    let config = archive.get_blob(manifest.config().digest()).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config, expected.config);
    assert_eq!(manifest.layers().len(), expected.layers.len());
    for layer in manifest.layers() {
        assert_eq!(
            archive.get_blob(layer.digest()).unwrap().len() as u64,
            layer.size()
        );
    }
}

#[test]
fn ocipkg_pulls_what_kiln_pushed_and_kiln_what_ocipkg_pushes() {
    let (kiln, registry) = (Kiln::new(), Registry::shared());
    let pushed = registry.reference("interop/by-kiln:1");
    build(&kiln, &pushed);
    kiln.run(["push", &pushed]).ok();

    // Blob by blob, each with its digest checked, into another repository.
    let mut remote = Remote::new(name_for_ocipkg(registry, "interop/by-kiln:1")).unwrap();
    let copy_name = name_for_ocipkg(registry, "interop/by-ocipkg:1");
    copy(&mut remote, RemoteBuilder::new(copy_name).unwrap()).unwrap();

    let other = Kiln::new();
    let copied = registry.reference("interop/by-ocipkg:1");
    other.run(["pull", &copied]).ok();
    assert_eq!(
        compare(&other.image(&copied), &kiln.image(&pushed), &[]),
        []
    );
    let output = other.run(["run", "--rm", &copied]).ok();
    assert_eq!(output.stdout(), "text\n");
}

/// ocipkg packs a program with a config that names no layer: no image that could be verified.
#[test]
fn image_that_ocipkg_made_of_a_program_is_refused_for_its_missing_diff_ids() {
    let (kiln, registry) = (Kiln::new(), Registry::shared());
    let program = kiln.sandbox().join("busybox");
    let tar = Bases::shared().busybox_tar();
    let extract = ["-xOf", path(&tar), "./bin/busybox"];
    let bytes = run(Command::new("tar").args(extract), Duration::from_secs(60)).ok();
    fs::write(&program, bytes.stdout_bytes()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();

    let name = name_for_ocipkg(registry, "interop/program:1");
    let builder = RemoteBuilder::new(name).unwrap();
    RunnableBuilder::new(builder)
        .unwrap()
        .build(&program)
        .unwrap();
    kiln.run(["pull", &registry.reference("interop/program:1")])
        .fails_with(
            "error: the image's config is unusable: it names 0 layers, and the manifest 1\n",
        );
}

/// A layer that is not compressed, a config with only what it must have.
#[test]
fn image_that_ocipkg_pushed_is_built_upon() {
    let (kiln, registry) = (Kiln::new(), Registry::shared());
    let tar = fs::read(Bases::shared().busybox_tar()).unwrap();
    let mut builder = RemoteBuilder::new(name_for_ocipkg(registry, "interop/made:1")).unwrap();
    let mut add = |bytes: &[u8], kind: &str| {
        let (digest, size) = builder.add_blob(bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })
    };
    let layer = add(&tar, "layer.v1.tar");
    // The digest of what is not compressed is the DiffId.
    let diff_id = layer["digest"].clone();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    let config = add(config.to_string().as_bytes(), "config.v1+json");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    builder
        .build(serde_json::from_value(manifest).unwrap())
        .unwrap();

    let base = registry.reference("interop/made:1");
    kiln.build(&format!("FROM {base}\nRUN echo built >/built\n"), &[])
        .ok();
    let image = kiln.image("test");
    assert_eq!(image.config["rootfs"]["diff_ids"][0], diff_id);
    assert_eq!(image.tree.file("/built").content(), b"built\n");
    let output = kiln.run(["run", "--rm", "test", "cat", "/built"]).ok();
    assert_eq!(output.stdout(), "built\n");
}

#[test]
fn archive_that_ocipkg_wrote_is_loaded() {
    let kiln = Kiln::new();
    build(&kiln, "test:1");
    save(&kiln, "oci-archive", "oci-archive", "test:1");
    let mut archive = OciArchive::new(&kiln.sandbox().join("oci-archive")).unwrap();
    let written = kiln.sandbox().join("written.tar");
    let name = ImageName::parse("localhost/written:2").unwrap();
    copy(
        &mut archive,
        OciArchiveBuilder::new(written.clone(), name).unwrap(),
    )
    .unwrap();

    let other = Kiln::new();
    other.run(["load", "-i", path(&written)]).ok();
    let loaded = other.image("localhost/written:2");
    assert_eq!(compare(&loaded, &kiln.image("test:1"), &[]), []);
}
