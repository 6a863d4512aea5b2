//! `kiln pull`: what a person sees, and what registries may do wrong.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

use serde_json::json;
use support::{
    Fault, FaultyRegistry, Kiln, Registry, assert_refused, host_architecture, settled, sorted,
    tar_of,
};

/// `user:sesame`.
const AUTH: &str = "dXNlcjpzZXNhbWU=";

fn faulty() -> (FaultyRegistry, Kiln) {
    (FaultyRegistry::start(), Kiln::new())
}

#[test]
fn pull_by_tag_says_what_it_got_and_the_second_time_that_nothing_is_new() {
    let (registry, kiln) = faulty();
    let image = registry.image("1", &[("hello", "hello\n")]);
    let reference = registry.reference("1");
    let names = [
        (registry.address(), "REGISTRY"),
        (image.manifest.clone(), "MANIFEST"),
    ];
    let names = names
        .each_ref()
        .map(|(value, name)| (value.as_str(), *name));

    let first = kiln.run(["pull", &reference]).ok();
    assert_eq!(
        settled(&first.stdout(), &names),
        "Digest: MANIFEST\nStatus: Downloaded newer image for REGISTRY/app:1\n"
    );
    let layer = &image.layer["sha256:".len()..][..12];
    assert_eq!(
        settled(&first.stderr(), &names),
        format!("pull {layer} 2.048kB done 0.0s\n")
    );

    registry.take_log();
    let second = kiln.run(["pull", &reference]).ok();
    assert_eq!(
        settled(&second.stdout(), &names),
        "Digest: MANIFEST\nStatus: Image is up to date for REGISTRY/app:1\n"
    );
    let asked = registry.take_log();
    assert!(
        asked.iter().all(|line| !line.contains("/blobs/")),
        "nothing is fetched twice: {asked:?}"
    );

    let other = registry.image("1", &[("hello", "another\n")]);
    let third = kiln.run(["pull", &reference]).ok();
    assert!(third.stdout().contains("Downloaded newer image"), "{third}");
    assert_eq!(
        kiln.run(["images", "-q", "--no-trunc", &reference])
            .ok()
            .line(),
        other.id
    );
}

#[test]
fn pull_by_digest_takes_that_image_whatever_the_tag_stands_for_now() {
    let (registry, kiln) = faulty();
    let old = registry.image("1", &[("version", "old")]);
    registry.image("1", &[("version", "new")]);
    let reference = format!("{}/app@{}", registry.address(), old.manifest);
    let output = kiln.run(["pull", &reference]).ok();
    assert_eq!(
        output.stdout(),
        format!(
            "Digest: {}\nStatus: Downloaded newer image for {reference}\n",
            old.manifest
        )
    );
    assert_eq!(kiln.run(["images", "-q", "--no-trunc"]).ok().line(), old.id);
    assert_eq!(
        kiln.run(["inspect", &reference])
            .ok()
            .stdout()
            .matches(&old.id)
            .count(),
        1
    );
}

#[test]
fn quiet_pull_prints_the_id_and_nothing_else() {
    let (registry, kiln) = faulty();
    let image = registry.image("1", &[]);
    let output = kiln.run(["pull", "-q", &registry.reference("1")]).ok();
    assert_eq!(
        (output.stdout(), output.stderr()),
        (format!("{}\n", image.id), String::new())
    );
}

#[test]
fn index_gives_the_image_of_this_machine_or_of_the_platform_asked_for() {
    let kiln = Kiln::new();
    let multi = Registry::shared().multi();
    let architecture = |name: &str| {
        let text = kiln.run(["inspect", name]).ok().stdout();
        let image: serde_json::Value = serde_json::from_str(&text).unwrap();
        image[0]["Architecture"].as_str().unwrap().to_owned()
    };
    kiln.run(["pull", &multi]).ok();
    assert_eq!(architecture(&multi), host_architecture());
    for platform in ["linux/arm64", "linux/arm64/v8"] {
        kiln.run(["pull", "--platform", platform, &multi]).ok();
        assert_eq!(architecture(&multi), "arm64");
    }
    let output = kiln
        .run(["pull", "--platform", "linux/s390x", &multi])
        .fails();
    let stderr = output.stderr();
    let (head, tail) = stderr.split_once("sha256:").unwrap();
    assert_eq!(
        head,
        format!("error: {}: index ", multi.trim_end_matches(":latest"))
    );
    assert_eq!(
        &tail[64..],
        ": no image for platform linux/s390x\n\
         hint: platforms that exist: linux/amd64, linux/arm64\n"
    );
    kiln.run(["pull", "--platform", "a/b/c/d", &multi])
        .fails_with("error: invalid platform");
}

#[test]
fn image_of_another_platform_comes_with_a_warning() {
    let (registry, kiln) = faulty();
    registry.image_of("1", &tar_of(&[]), json!({"architecture": "s390x"}));
    let name = registry.reference("1");
    let platform = format!("linux/{}", host_architecture());
    let warning = format!("warning: {name} is an image for linux/s390x, not for {platform}\n");
    let output = kiln.run(["pull", &name]).ok();
    assert!(output.stderr().starts_with(&warning), "{output}");
    let output = kiln.run(["pull", "--platform=linux/s390x", &name]).ok();
    assert!(!output.stderr().contains("warning"), "{output}");
    let output = kiln.run(["run", "--rm", &name]).fails();
    assert!(output.stderr().starts_with(&warning), "{output}");
}

#[test]
fn altered_layer_is_refused_and_a_later_pull_works() {
    let (registry, kiln) = faulty();
    let image = registry.image("1", &[("hello", "hello\n")]);
    let path = format!("app/blobs/{}", image.layer);
    registry.fault(&path, Fault::Altered);
    let output = kiln.run(["pull", &registry.reference("1")]).fails();
    let stderr = output.stderr();
    let actual = &stderr[stderr.find(", got ").unwrap() + ", got ".len()..][..71].to_owned();
    assert_refused(
        &kiln,
        output,
        &registry.address(),
        &format!(
            "error: REGISTRY/app: blob {0}: wrong digest: expected {0}, got {actual}\n\
             hint: the registry or something on the way altered the content; nothing was stored\n",
            image.layer
        ),
    );
    registry.repair();
    kiln.run(["pull", &registry.reference("1")]).ok();
    assert_eq!(
        kiln.image(&registry.reference("1"))
            .tree
            .file("/hello")
            .content(),
        b"hello\n"
    );
}

#[test]
fn altered_config_is_refused() {
    let (registry, kiln) = faulty();
    let image = registry.image("1", &[]);
    registry.fault(&format!("app/blobs/{}", image.id), Fault::Altered);
    kiln.run(["pull", &registry.reference("1")])
        .fails_with(&format!("wrong digest: expected {}", image.id));
    assert_eq!(kiln.run(["images", "-q"]).ok().stdout(), "");
}

#[test]
fn manifest_that_is_not_the_one_asked_for_is_refused() {
    let (registry, kiln) = faulty();
    let image = registry.image("1", &[]);
    registry.fault(&format!("app/manifests/{}", image.manifest), Fault::Altered);
    let reference = format!("{}/app@{}", registry.address(), image.manifest);
    let output = kiln.run(["pull", &reference]);
    let expected = format!("wrong digest: expected {}", image.manifest);
    let output = output.fails_with(&expected);
    assert_eq!(output.code(), Some(1));
}

#[test]
fn layer_that_always_ends_early_is_given_up_after_some_tries() {
    let (registry, kiln) = faulty();
    let image = registry.image("1", &[("hello", "hello\n")]);
    registry.fault(&format!("app/blobs/{}", image.layer), Fault::CutAfter(100));
    let output = kiln.run(["pull", &registry.reference("1")]);
    assert_refused(
        &kiln,
        output,
        &registry.address(),
        &format!(
            "error: REGISTRY/app: blob {}: the connection failed: Peer disconnected\n\
             hint: the connection is unstable; try again\n",
            image.layer
        ),
    );
}

#[test]
fn layer_that_is_not_what_the_config_promises_is_refused() {
    let (registry, kiln) = faulty();
    let promised = format!("sha256:{}", "ab".repeat(32));
    let rootfs = json!({"type": "layers", "diff_ids": [promised]});
    let image = registry.image_of("1", &tar_of(&[("a", "a")]), json!({"rootfs": rootfs}));
    let output = kiln.run(["pull", &registry.reference("1")]);
    assert_refused(
        &kiln,
        output,
        &registry.address(),
        &format!(
            "error: layer {0}: its content has the diff id {0}, \
             and the image's config says {promised}\n\
             hint: the image is damaged or was tampered with where it comes from; nothing of it was kept\n",
            image.layer
        ),
    );
}

#[test]
fn layer_that_tries_to_leave_its_root_is_refused() {
    let (registry, kiln) = faulty();
    registry.image_of("1", &tar_of(&[("../../escaped", "x")]), json!({}));
    let output = kiln
        .run(["pull", &registry.reference("1")])
        .fails_with("../../escaped");
    assert!(!kiln.store().join("escaped").exists(), "{output}");
    assert_eq!(kiln.run(["images", "-q"]).ok().stdout(), "");
}

#[test]
fn unknown_tag_lists_those_that_exist_and_unknown_repository_says_so() {
    let (registry, kiln) = faulty();
    registry.image("1.0", &[]);
    registry.image("1.1", &[]);
    assert_refused(
        &kiln,
        kiln.run(["pull", &registry.reference("2")]),
        &registry.address(),
        "error: REGISTRY/app: manifest 2: no such tag\n\
         hint: tags that exist: 1.0, 1.1\n",
    );
    assert_refused(
        &kiln,
        kiln.run(["pull", &format!("{}/ap", registry.address())]),
        &registry.address(),
        "error: REGISTRY/ap: manifest latest: no such repository\n\
         hint: check the spelling, and that the repository exists\n",
    );
}

#[test]
fn unreachable_registry_is_named_with_the_reason() {
    let kiln = Kiln::new();
    // Free until a moment ago: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    assert_refused(
        &kiln,
        kiln.run(["pull", &format!("{address}/app")]),
        &address,
        "error: REGISTRY/app: manifest latest: can't connect: Connection refused (os error 111)\n\
         hint: check the name and port, and that REGISTRY can be reached from here \
         (HTTP_PROXY, HTTPS_PROXY and NO_PROXY are respected)\n",
    );
}

#[test]
fn registry_that_fails_is_quoted() {
    let (registry, kiln) = faulty();
    let fault = Fault::Status(403, "DENIED", "requested access is denied\u{1b}[31m");
    registry.fault("app/manifests/1", fault);
    let output = kiln.run(["pull", &registry.reference("1")]);
    assert_refused(
        &kiln,
        output,
        &registry.address(),
        "error: REGISTRY/app: manifest 1: denied: 403 DENIED: requested access is denied [31m\n\
         hint: use an account that has the right to this repository; \
         log in: kiln login REGISTRY\n",
    );
}

#[test]
fn image_of_schema_1_is_refused_by_name() {
    let (registry, kiln) = faulty();
    let media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    registry.manifest(
        "old",
        media_type,
        &json!({"schemaVersion": 1, "name": "app"}),
    );
    let output = kiln.run(["pull", &registry.reference("old")]);
    assert_refused(
        &kiln,
        output,
        &registry.address(),
        "error: REGISTRY/app: manifest old: this is a docker schema 1 manifest, \
         a format whose layers can't be verified\n\
         hint: have it converted: push it again with a current docker, or copy it with skopeo\n",
    );
}

#[test]
fn private_repository_asks_for_a_login_and_takes_docker_s_config() {
    let (registry, kiln) = faulty();
    registry.image("1", &[]);
    registry.require(AUTH);
    let reference = registry.reference("1");
    assert_refused(
        &kiln,
        kiln.run(["pull", &reference]),
        &registry.address(),
        "error: REGISTRY/app: manifest 1: unauthorized: 401 UNAUTHORIZED: authentication required\n\
         hint: the repository is private or does not exist; \
         log in: kiln login REGISTRY\n",
    );
    let config = |auth: &str| {
        let config = json!({"auths": {registry.address(): {"auth": auth}}}).to_string();
        kiln.sandbox()
            .directory("home/.docker", &[("config.json", &config)]);
    };
    config("dXNlcjp3cm9uZw==");
    assert_refused(
        &kiln,
        kiln.run(["pull", &reference]),
        &registry.address(),
        "error: REGISTRY/app: manifest 1: unauthorized: 401 UNAUTHORIZED: authentication required\n\
         hint: the credentials may be old or wrong, or lack the right; \
         log in: kiln login REGISTRY\n",
    );
    config(AUTH);
    kiln.run(["pull", &reference]).ok();
    kiln.sandbox()
        .directory("home/.docker", &[("config.json", "{\"auths\": [")]);
    kiln.run(["pull", &reference])
        .fails_with("home/.docker/config.json");
}

#[test]
fn invalid_names_are_refused_with_the_form_that_names_have() {
    let kiln = Kiln::new();
    assert_eq!(
        kiln.run(["pull", "Debian"]).fails().stderr(),
        "error: invalid image reference \"Debian\": invalid reference format\n\
         hint: repositories have no capitals in their names; tags may\n"
    );
    assert_eq!(
        kiln.run(["pull", "a b"]).fails().stderr(),
        "error: invalid image reference \"a b\": invalid reference format\n\
         hint: a name is [registry/]repository[:tag][@sha256:digest]\n"
    );
}

#[test]
fn layers_of_an_image_share_one_tree_and_owners_of_files_are_not_the_user() {
    let (registry, kiln) = faulty();
    registry.image("1", &[("hello", "hello\n")]);
    registry.image_of(
        "2",
        &tar_of(&[("hello", "hello\n")]),
        json!({"author": "me"}),
    );
    let first = kiln.run(["pull", &registry.reference("1")]).ok();
    let second = kiln.run(["pull", &registry.reference("2")]).ok();
    assert!(sorted(&first.stderr()).contains(" done "), "{first}");
    assert!(sorted(&second.stderr()).ends_with(" exists"), "{second}");
    let layers: Vec<_> = fs::read_dir(kiln.store().join("layers"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(layers.len(), 1);
    let file = layers[0].path().join("fs/hello");
    assert_ne!(
        fs::symlink_metadata(file).unwrap().uid(),
        nix::unistd::geteuid().as_raw()
    );
}
