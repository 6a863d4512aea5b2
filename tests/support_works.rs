//! The frame of the tests, tested: registry, base images, oracle, and the reader of images.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::{
    Buildah, Ignore, Image, Kiln, Kind, Registry, Sandbox, Tree, compare, compare_trees, run,
};

const SHORT: Duration = Duration::from_secs(60);

fn curl(url: &str) -> serde_json::Value {
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
        "-H",
        accept,
        url,
    ]);
    serde_json::from_str(&run(&mut command, SHORT).ok().stdout()).unwrap()
}

fn pull_with_skopeo(reference: &str, sandbox: &Sandbox) -> Image {
    let layout = sandbox.join("pulled");
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--src-tls-verify=false"]);
    command
        .arg(format!("docker://{reference}"))
        .arg(format!("oci:{}:image", layout.display()));
    run(&mut command, SHORT).ok();
    Image::open(&layout)
}

#[test]
fn registry_serves_the_base_images() {
    let registry = Registry::shared();
    for reference in [registry.debian(), registry.busybox()] {
        let (host, name) = reference.split_once('/').unwrap();
        let (name, tag) = name.split_once(':').unwrap();
        let manifest = curl(&format!("http://{host}/v2/{name}/manifests/{tag}"));
        assert_eq!(
            manifest["layers"].as_array().unwrap().len(),
            1,
            "{manifest:#}"
        );
    }
}

#[test]
fn multi_platform_index_has_two_images() {
    let index = curl(&format!(
        "http://{}/v2/multi/manifests/latest",
        Registry::shared().address()
    ));
    let architectures: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
}

#[test]
fn registry_of_a_test_does_not_change_the_shared_one() {
    let own = Registry::start();
    assert_ne!(own.address(), Registry::shared().address());
    fs::remove_dir_all(
        own.storage()
            .join("docker/registry/v2/repositories/busybox"),
    )
    .unwrap();
    curl(&format!(
        "http://{}/v2/busybox/manifests/latest",
        Registry::shared().address()
    ));
}

#[test]
fn reader_sees_owners_modes_and_links_of_the_small_base() {
    let sandbox = Sandbox::new();
    let image = pull_with_skopeo(&Registry::shared().busybox(), &sandbox);
    assert_eq!(image.tree.file("/bin/sh").kind, Kind::Symlink);
    assert_eq!(image.tree.file("/bin/sh").target, b"busybox");
    assert_eq!(image.tree.file("/tmp").mode, 0o1777);
    assert_eq!(
        (
            image.tree.file("/home/app").uid,
            image.tree.file("/home/app").gid
        ),
        (1000, 1000)
    );
    assert!(
        image
            .tree
            .file("/etc/passwd")
            .content()
            .starts_with(b"root:x:0:0:")
    );
    assert_eq!(image.setting("Cmd"), &serde_json::json!(["sh"]));
}

#[test]
fn reader_sees_devices_of_the_debian_base() {
    let image = pull_with_skopeo(&Registry::shared().debian(), &Sandbox::new());
    let null = image.tree.file("/dev/null");
    assert_eq!((null.kind, null.device), (Kind::CharDevice, (1, 3)));
    assert_eq!(image.tree.file("/usr/bin/passwd").mode, 0o4755);
}

#[test]
fn oracle_builds_the_same_image_twice_and_a_change_shows() {
    let sandbox = Sandbox::new();
    let buildah = Buildah::new(&sandbox);
    let base = Registry::shared().busybox();
    let dockerfile = |mode: &str| {
        format!(
            "FROM {base}\nENV A=1\nRUN mkfifo /fifo && echo hi > /file && chmod {mode} /file \\\n\
             \x20&& ln /file /twin && chown 65534:1000 /fifo && rm /bin/vi\nUSER app\n"
        )
    };
    let first = sandbox.directory("first", &[("Dockerfile", &dockerfile("0640"))]);
    let second = sandbox.directory("second", &[("Dockerfile", &dockerfile("4755"))]);
    let (first, again) = (
        buildah.build(&first, &[]),
        buildah.build(&first, &["--no-cache"]),
    );
    let host_name = || Ignore {
        name: "host name",
        reason: "buildah writes the one of its container into the config",
        matcher: |difference| difference.subject == "config/Hostname",
    };
    assert_eq!(compare(&first, &again, &[host_name()]), []);

    assert_eq!(first.tree.file("/fifo").kind, Kind::Fifo);
    assert_eq!(
        (first.tree.file("/fifo").uid, first.tree.file("/fifo").gid),
        (65534, 1000)
    );
    assert!(first.tree.get("/bin/vi").is_none());

    let changed = buildah.build(&second, &["--label", "x=y"]);
    let shown = |ignore: &[Ignore]| -> Vec<String> {
        compare(&first, &changed, ignore)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let label = "config/Labels/x: value: nothing | \"y\"";
    assert_eq!(
        shown(&[host_name()]),
        [
            label,
            "/file: mode: 0640 | 4755",
            "/twin: mode: 0640 | 4755"
        ]
    );
    let modes = Ignore {
        name: "modes",
        reason: "this test changed them",
        matcher: |difference| difference.aspect == "mode",
    };
    assert_eq!(shown(&[modes, host_name()]), [label]);
}

#[test]
fn apt_works_in_the_debian_base_and_the_oracle_keeps_capabilities_but_no_acls() {
    let sandbox = Sandbox::new();
    let base = Registry::shared().debian();
    let dockerfile = format!(
        "FROM {base}\nRUN apt-get update && apt-get install -y libcap2-bin acl\n\
         RUN cp /bin/true /ping && setcap cap_net_raw+ep /ping \\\n\
         \x20&& touch /shared && setfacl -m u:1000:r /shared\n"
    );
    let context = sandbox.directory("context", &[("Dockerfile", &dockerfile)]);
    let image = Buildah::new(&sandbox).build(&context, &[]);
    assert_eq!(image.tree.file("/usr/sbin/setcap").mode, 0o755);
    let names = |path: &str| -> Vec<String> {
        let xattrs = image.tree.file(path).xattrs.iter();
        xattrs
            .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
            .collect()
    };
    // Version 2, little-endian: no rootid of a user namespace.
    let capability = format!(
        "security.capability=\\x01\\x00\\x00\\x02\\x00 {}",
        "\\x00".repeat(14)
    );
    assert_eq!(names("/ping"), [capability]);
    // An image of kiln's has the ACL: comparisons ignore it, for this reason.
    assert_eq!(names("/shared"), [""; 0]);
}

#[test]
fn built_binary_starts() {
    Kiln::new().run(["--help"]).ok();
}

#[test]
fn sandbox_removes_what_subordinate_ids_own() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().to_owned();
    let script = "mkdir -p a/b && touch a/b/c && chown -R 5:6 a && chmod 000 a/b a";
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--map-auto", "sh", "-ec", script])
        .current_dir(&path);
    run(&mut command, SHORT).ok();
    assert!(
        fs::read_dir(path.join("a")).is_err(),
        "it should be closed to the user"
    );
    drop(sandbox);
    assert!(!path.exists());
}

#[test]
#[should_panic(expected = "still running after")]
fn command_that_hangs_is_killed() {
    run(Command::new("sleep").arg("60"), Duration::from_millis(50));
}

#[test]
#[should_panic(expected = "a process outlived the command")]
fn process_that_outlives_its_command_is_noticed() {
    run(Command::new("sh").args(["-c", "sleep 8 & exit 0"]), SHORT);
}

// ---- the reader and comparer, on tars made here ---------------------------------------------

fn tree_of(tar: Vec<u8>) -> Tree {
    let mut tree = Tree::default();
    tree.apply(tar.as_slice());
    tree
}

/// Makes a tar by hand: `d path`, `f path content`, `l path target`, `h path target`.
fn tar(entries: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut words = entry.splitn(3, ' ');
        let (kind, path) = (words.next().unwrap(), words.next().unwrap());
        let rest = words.next().unwrap_or("");
        let mut header = tar::Header::new_ustar();
        header.set_mode(if kind == "d" { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let content = if kind == "f" { rest.as_bytes() } else { b"" };
        header.set_size(content.len() as u64);
        header.set_entry_type(match kind {
            "d" => tar::EntryType::Directory,
            "l" => tar::EntryType::Symlink,
            "h" => tar::EntryType::Link,
            _ => tar::EntryType::Regular,
        });
        if matches!(kind, "l" | "h") {
            header.set_link_name(rest).unwrap();
        }
        builder
            .append_data(&mut header, Path::new(path), content)
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn paths(layers: &[Vec<u8>]) -> Vec<String> {
    let mut tree = Tree::default();
    for layer in layers {
        tree.apply(layer.as_slice());
    }
    tree.paths().collect()
}

#[test]
fn reader_whiteout_does_not_hide_sibling_in_same_layer() {
    let lower = tar(&["d a", "f a/old x", "f b x"]);
    let upper = tar(&["d a", "f a/new x", "f a/.wh..wh..opq", "f .wh.b"]);
    assert_eq!(paths(&[lower, upper]), ["/a", "/a/new"]);
}

#[test]
fn reader_replaces_directory_by_file_and_back() {
    let lower = tar(&["d a", "f a/x 1", "f b 2"]);
    let upper = tar(&["f a 3", "d b", "f b/y 4"]);
    assert_eq!(paths(&[lower, upper]), ["/a", "/b", "/b/y"]);
}

#[test]
fn reader_follows_symlinked_parents_within_the_root() {
    let lower = tar(&["d usr", "d usr/lib", "l lib /usr/../../usr/lib"]);
    let upper = tar(&["f lib/x 1"]);
    assert_eq!(
        paths(&[lower, upper]),
        ["/lib", "/usr", "/usr/lib", "/usr/lib/x"]
    );
}

#[test]
fn comparer_sees_a_broken_hard_link() {
    let linked = tree_of(tar(&["f a 1", "h b a"]));
    let copied = tree_of(tar(&["f a 1", "f b 1"]));
    assert_eq!(compare_trees(&linked, &linked), []);
    let differences = compare_trees(&linked, &copied);
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0].to_string(), "/b: hard link: /a | /b");
}

#[test]
fn comparer_sees_content_target_type_and_presence() {
    let left = tree_of(tar(&["f a 1", "l b x", "f c 1", "f d 1"]));
    let right = tree_of(tar(&["f a 2", "l b y", "d c"]));
    let aspects: Vec<_> = compare_trees(&left, &right)
        .into_iter()
        .map(|difference| format!("{} {}", difference.subject, difference.aspect))
        .collect();
    assert_eq!(
        aspects,
        [
            "/a content",
            "/b target",
            "/c type",
            "/c mode",
            "/c content",
            "/d presence"
        ]
    );
}

#[test]
fn xattr_with_a_newline_is_one_value() {
    let value = b"1\n20 linkpath=/etc/x\n\0\xff";
    let tar = |value: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append_pax_extensions([("SCHILY.xattr.user.x", value)])
            .unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, "f", &b""[..]).unwrap();
        builder.into_inner().unwrap()
    };
    let (left, right) = (tree_of(tar(value)), tree_of(tar(b"1")));
    assert_eq!(left.file("/f").xattrs[&b"user.x"[..]], value);
    let differences = compare_trees(&left, &right);
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0].aspect, "xattr user.x");
}
