//! `kiln push`: what goes to a registry and in which order, and who says who the user is.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use support::{Fault, FaultyRegistry, Kiln, Registry, compare, settled, sorted};

/// A line of htpasswd for the password `sesame`.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";

/// `user:sesame`.
const AUTH: &str = "dXNlcjpzZXNhbWU=";

/// Returns kiln with an image of two layers, one of them kiln's own, under the given name.
fn kiln_with_image(base: &FaultyRegistry, name: &str) -> Kiln {
    let published = base.image("base", &[("hello", "hello\n")]);
    let kiln = Kiln::new();
    let from = format!("{}/app@{}", base.address(), published.manifest);
    kiln.build(
        &format!("FROM {from}\nCOPY own /own\n"),
        &[("own", "made by kiln\n")],
    )
    .ok();
    kiln.run(["tag", "test", name]).ok();
    kiln
}

#[test]
fn first_push_sends_blobs_then_the_manifest_and_the_second_only_the_manifest() {
    let registry = FaultyRegistry::start();
    let name = format!("{}/mine:1", registry.address());
    let base = FaultyRegistry::start();
    let kiln = kiln_with_image(&base, &name);

    registry.take_log();
    let output = kiln.run(["push", &name]).ok();
    let log = registry.take_log();
    let (last, before) = log.split_last().unwrap();
    assert_eq!(last, "PUT /v2/mine/manifests/1");
    let uploads = |log: &[String]| log.iter().filter(|line| line.starts_with("PUT ")).count();
    assert_eq!(uploads(before), 3, "two layers and the config: {log:#?}");
    assert_eq!(
        sorted(&output.stderr()).matches(" done ").count(),
        3,
        "{output}"
    );
    let digest = output.stdout();
    let digest = digest.trim().rsplit(' ').next().unwrap();
    assert_eq!(output.stdout(), format!("{name}: digest: {digest}\n"));

    let output = kiln.run(["push", &name]).ok();
    let log = registry.take_log();
    assert_eq!(log.last().unwrap(), "PUT /v2/mine/manifests/1");
    assert_eq!(uploads(&log), 1, "{log:#?}");
    assert_eq!(output.stderr().matches(" exists\n").count(), 3, "{output}");
    assert_eq!(output.stdout(), format!("{name}: digest: {digest}\n"));

    let quiet = kiln.run(["push", "-q", &name]).ok();
    assert_eq!(
        (quiet.stdout(), quiet.stderr()),
        (format!("{digest}\n"), String::new())
    );
}

#[test]
fn pushed_image_comes_back_the_same() {
    let registry = Registry::start();
    let name = registry.reference("mine:1");
    let base = FaultyRegistry::start();
    let kiln = kiln_with_image(&base, &name);
    kiln.run(["push", &name]).ok();
    let other = Kiln::new();
    let id = other.run(["pull", "-q", &name]).ok().line();
    let sent = kiln.image("test");
    assert_eq!(id, sent.id);
    let came = other.image(&name);
    assert_eq!(compare(&sent, &came, &[]), []);
    assert_eq!(came.tree.file("/own").content(), b"made by kiln\n");

    // What was pulled goes to another name as it is, with the same digest.
    let copy = registry.reference("copy:1");
    other.run(["tag", &name, &copy]).ok();
    let digest = other.run(["push", "-q", &copy]).ok().line();
    assert_eq!(digest, kiln.run(["push", "-q", &name]).ok().line());
}

#[test]
fn push_that_fails_leaves_no_manifest() {
    let registry = FaultyRegistry::start();
    let name = format!("{}/app:mine", registry.address());
    let kiln = kiln_with_image(&FaultyRegistry::start(), &name);
    let fault = Fault::Status(403, "DENIED", "read only");
    registry.fault("app/blobs/uploads/", fault);
    let output = kiln.run(["push", &name]).fails();
    let shown = settled(&output.stderr(), &[(&registry.address(), "REGISTRY")]);
    let error = &shown[shown.find("error: ").unwrap()..];
    let (head, tail) = error.split_once("sha256:").unwrap();
    assert_eq!(head, "error: REGISTRY/app: layer ");
    assert_eq!(
        &tail[64..],
        ": denied: 403 DENIED: read only\n\
         hint: use an account that has the right to this repository; \
         log in: kiln login REGISTRY\n"
    );
    assert_eq!(output.stdout(), "");
    let log = registry.take_log();
    assert!(
        !log.iter().any(|line| line.contains("/manifests/")),
        "{log:#?}"
    );
}

#[test]
fn only_a_name_can_be_pushed() {
    let kiln = kiln_with_image(&FaultyRegistry::start(), "test:2");
    assert_eq!(
        kiln.run(["push", "nosuch"]).fails().stderr(),
        "error: no such image: nosuch\n\
         hint: `kiln images` lists what there is; `kiln pull nosuch` fetches it\n"
    );
    let id = kiln.run(["images", "-q", "test:2"]).ok().line();
    assert_eq!(
        kiln.run(["push", &id]).fails().stderr(),
        format!(
            "error: {id} is an id, not a name that a registry could keep the image under\n\
             hint: name it first: kiln tag {id} REGISTRY/REPOSITORY:TAG\n"
        )
    );
}

#[test]
fn user_and_password_come_from_docker_s_config() {
    let registry = Registry::start_with_user(HTPASSWD);
    let name = registry.reference("mine:1");
    let kiln = kiln_with_image(&FaultyRegistry::start(), &name);
    let output = kiln
        .run(["push", &name])
        .fails_with(": unauthorized: 401 UNAUTHORIZED: authentication required\n");
    assert!(
        output.stderr().ends_with(&format!(
            "hint: the repository is private or does not exist; \
             log in: kiln login {0}\n",
            registry.address()
        )),
        "{output}"
    );
    let config = json!({"auths": {registry.address(): {"auth": AUTH}}}).to_string();
    kiln.sandbox()
        .directory("home/.docker", &[("config.json", &config)]);
    kiln.run(["push", &name]).ok();
    kiln.run(["pull", &name]).ok();
}

#[test]
fn credential_helper_runs_as_the_user_outside_the_namespace() {
    let registry = Registry::start_with_user(HTPASSWD);
    let name = registry.reference("mine:1");
    let kiln = kiln_with_image(&FaultyRegistry::start(), &name);
    let path = std::env::var("PATH").unwrap();
    let bin = kiln.sandbox().directory("bin", &[]);
    let script = format!(
        "#!/bin/sh\nread server\n\
         echo \"$1 $server $(id -u) $(readlink /proc/self/ns/user)\" >> {seen}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"sesame\"}}'\n",
        seen = kiln.sandbox().join("seen").display()
    );
    let helper = bin.join("docker-credential-tests");
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let config = json!({"credHelpers": {registry.address(): "tests"}}).to_string();
    kiln.sandbox()
        .directory("home/.docker", &[("config.json", &config)]);

    let mut push = kiln.command(["push", &name]);
    push.env("PATH", format!("{}:{path}", bin.display()));
    support::run(&mut push, std::time::Duration::from_secs(60)).ok();
    let seen = fs::read_to_string(kiln.sandbox().join("seen")).unwrap();
    let expected = format!(
        "get {} {} {}",
        registry.address(),
        nix::unistd::geteuid(),
        fs::read_link("/proc/self/ns/user").unwrap().display()
    );
    assert_eq!(seen.lines().next(), Some(expected.as_str()));

    // Without it in PATH, the error says what is missing and where it is named.
    let output = kiln
        .run(["push", &name])
        .fails_with("docker-credential-tests (named in ");
    assert!(
        output.stderr().contains(
            "hint: install docker-credential-tests, or remove it from credsStore or credHelpers in "
        ),
        "{output}"
    );
}

#[test]
fn blobs_that_another_repository_of_the_registry_has_are_mounted() {
    let registry = Registry::start();
    let kiln = Kiln::new();
    kiln.run(["pull", &registry.busybox()]).ok();
    let name = registry.reference("copy:1");
    kiln.run(["tag", &registry.busybox(), &name]).ok();
    let output = kiln.run(["push", &name]).ok();
    assert!(
        !output.stderr().contains(" done "),
        "nothing was sent again: {output}"
    );
}

#[test]
fn image_goes_to_another_place_than_its_name_says() {
    let registry = FaultyRegistry::start();
    let kiln = kiln_with_image(&FaultyRegistry::start(), "mine:1");
    let there = format!("{}/elsewhere:2", registry.address());
    let pushed = kiln
        .run(["push", "mine:1", &format!("docker://{there}")])
        .ok();
    let log = registry.take_log();
    assert_eq!(log.last().unwrap(), "PUT /v2/elsewhere/manifests/2");
    let digest = pushed.stdout();
    let digest = digest.trim().rsplit(' ').next().unwrap();
    let id = kiln.run(["images", "-q", "mine:1"]).ok().line();
    let layout = format!("oci:{}:x", kiln.sandbox().join("layout").display());
    let file = kiln.sandbox().join("digest");
    let to_file = ["push", "-q", "--digestfile", file.to_str().unwrap()];
    let quiet = kiln.run([&to_file[..], &[&id, &layout]].concat()).ok();
    assert_eq!(quiet.line(), digest);
    assert_eq!(fs::read_to_string(file).unwrap(), digest);
    // Nothing got another name here.
    assert_eq!(kiln.run(["images", "-q", "elsewhere"]).ok().stdout(), "");
}
