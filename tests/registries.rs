//! `registries.conf`: mirrors, insecure and blocked registries.

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use support::{Fault, FaultyRegistry, Kiln, Registry, settled};

/// A line of htpasswd for the password `sesame`.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";

/// Returns kiln with a `registries.conf` in the user's directory, and the file.
fn kiln_with(text: &str) -> (Kiln, PathBuf) {
    let kiln = Kiln::new();
    let directory = kiln
        .sandbox()
        .directory("home/.config/containers", &[("registries.conf", text)]);
    (kiln, directory.join("registries.conf"))
}

fn mirror_of(origin: &str, mirrors: &[&str]) -> String {
    let mirror = |m: &&str| format!("[[registry.mirror]]\nlocation = {m:?}\n");
    let mirrors: String = mirrors.iter().map(mirror).collect();
    format!("[[registry]]\nlocation = {origin:?}\n{mirrors}")
}

/// Returns an address where nothing listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn mirror_that_has_the_image_is_asked_and_the_origin_never() {
    let (origin, mirror) = (FaultyRegistry::start(), FaultyRegistry::start());
    mirror.image("1", &[("hello", "hello\n")]);
    let (kiln, _) = kiln_with(&mirror_of(&origin.address(), &[&mirror.address()]));
    kiln.run(["pull", &origin.reference("1")]).ok();
    assert_eq!(origin.take_log(), [""; 0]);
    assert!(mirror.take_log().len() > 2);
    // The image has the name that was asked for.
    let listed = kiln.run(["images"]).ok().stdout();
    assert!(listed.contains(&origin.address()), "{listed}");
    assert!(!listed.contains(&mirror.address()), "{listed}");
    kiln.build(&format!("FROM {}\n", origin.reference("1")), &[])
        .ok();
}

#[test]
fn mirror_that_is_down_is_passed_over() {
    let origin = FaultyRegistry::start();
    origin.image("1", &[("hello", "hello\n")]);
    let (kiln, _) = kiln_with(&mirror_of(&origin.address(), &[&nowhere()]));
    kiln.run(["pull", &origin.reference("1")]).ok();
}

#[test]
fn mirrors_are_asked_in_order_and_one_that_fails_is_not_asked_again() {
    let (origin, broken, mirror) = (
        FaultyRegistry::start(),
        FaultyRegistry::start(),
        FaultyRegistry::start(),
    );
    broken.fault(
        "app/manifests/1",
        Fault::Status(503, "UNAVAILABLE", "maintenance"),
    );
    mirror.image("1", &[("hello", "hello\n")]);
    let mirrors = [broken.address(), mirror.address()];
    let (kiln, _) = kiln_with(&mirror_of(&origin.address(), &[&mirrors[0], &mirrors[1]]));
    kiln.run(["pull", &origin.reference("1")]).ok();
    assert_eq!(origin.take_log(), [""; 0]);
    let asked = broken.take_log();
    assert_eq!(asked, ["GET /v2/app/manifests/1"; 2], "one retry");
}

#[test]
fn layer_that_a_mirror_lacks_or_cuts_off_comes_from_the_origin() {
    for fault in [
        Fault::Status(404, "BLOB_UNKNOWN", "gone"),
        Fault::Status(500, "UNKNOWN", "disk"),
        Fault::CutAfter(500),
    ] {
        let (origin, mirror) = (FaultyRegistry::start(), FaultyRegistry::start());
        origin.image("1", &[("hello", "hello\n")]);
        let published = mirror.image("1", &[("hello", "hello\n")]);
        mirror.fault(&format!("app/blobs/{}", published.layer), fault);
        let (kiln, _) = kiln_with(&mirror_of(&origin.address(), &[&mirror.address()]));
        kiln.run(["pull", &origin.reference("1")]).ok();
        let layer = format!("GET /v2/app/blobs/{}", published.layer);
        assert_eq!(origin.take_log(), [layer]);
    }
}

#[test]
fn when_all_fail_the_origin_and_its_mirrors_are_named() {
    let (origin, mirror) = (FaultyRegistry::start(), nowhere());
    origin.image("1", &[("hello", "hello\n")]);
    let (kiln, _) = kiln_with(&mirror_of(&origin.address(), &[&mirror]));
    let output = kiln.run(["pull", &origin.reference("2")]).fails();
    let names = [(origin.address(), "REGISTRY"), (mirror, "MIRROR")];
    let names = names.each_ref().map(|(from, to)| (from.as_str(), *to));
    assert_eq!(
        settled(&output.stderr(), &names),
        "error: REGISTRY/app: manifest 2: no such tag; its mirror MIRROR before: \
         can't connect: Connection refused (os error 111)\n\
         hint: tags that exist: 1\n"
    );
}

#[test]
fn mirror_has_credentials_of_its_own() {
    let origin = FaultyRegistry::start();
    let mirror = Registry::start_with_user(HTPASSWD);
    let name = mirror.busybox();
    let path = name
        .strip_prefix(&format!("{}/", mirror.address()))
        .unwrap();
    let (kiln, _) = kiln_with(&mirror_of(&origin.address(), &[mirror.address()]));
    let reference = format!("{}/{path}", origin.address());
    let output = kiln.run(["pull", &reference]).fails();
    assert!(
        output.stderr().contains(&format!(
            "; its mirror {} before: unauthorized: 401 UNAUTHORIZED: authentication required\n",
            mirror.address()
        )),
        "{output}"
    );
    let login = ["login", "-u", "user", "-p", "sesame", mirror.address()];
    kiln.run(login).ok();
    kiln.run(["pull", &reference]).ok();
}

#[test]
fn blocked_registry_is_neither_read_nor_written() {
    let registry = FaultyRegistry::start();
    registry.image("1", &[("hello", "hello\n")]);
    let address = registry.address();
    let text = format!("[[registry]]\nprefix = \"{address}/app\"\nblocked = true\n");
    let (kiln, file) = kiln_with(&text);
    let expected = |object: &str| {
        format!(
            "error: {address}/app: {object}: {address}/app is blocked in {file}\n\
             hint: use another registry, or remove `blocked = true` from {file}\n",
            file = file.display()
        )
    };
    let name = registry.reference("1");
    let pull = kiln.run(["pull", &name]).fails();
    assert_eq!(pull.stderr(), expected("manifest 1"));
    assert_eq!(registry.take_log(), [""; 0]);

    let none = kiln.sandbox().join("none.conf");
    fs::write(&none, "").unwrap();
    let mut command = kiln.command(["pull", &name]);
    command.env("CONTAINERS_REGISTRIES_CONF", none);
    support::run(&mut command, std::time::Duration::from_secs(60)).ok();
    registry.take_log();
    let push = kiln.run(["push", &name]).fails();
    assert!(
        push.stderr()
            .contains(&format!("{address}/app is blocked in ")),
        "{push}"
    );
    assert_eq!(registry.take_log(), [""; 0]);
}

#[test]
fn name_without_a_registry_is_looked_for_where_the_file_says() {
    let (first, second) = (FaultyRegistry::start(), FaultyRegistry::start());
    second.image("1", &[("hello", "hello\n")]);
    let (kiln, file) = kiln_with(&format!(
        "unqualified-search-registries = [{:?}, {:?}]\n[aliases]\n\"short\" = \"{}/app\"\n",
        first.address(),
        second.address(),
        second.address()
    ));
    let found = second.reference("1");
    let pulled = kiln.run(["pull", "app:1"]).ok();
    assert!(
        pulled
            .stdout()
            .ends_with(&format!("Downloaded newer image for {found}\n")),
        "{pulled}"
    );
    assert_eq!(first.take_log()[0], "GET /v2/app/manifests/1");
    // It is found by the short name too, here and as a base.
    second.take_log();
    let id = kiln.run(["inspect", "-f", "{{.Id}}", "app:1"]).ok().line();
    for name in ["app:1", "short:1"] {
        kiln.build(&format!("FROM {name}\nCOPY a /a\n"), &[("a", "a")])
            .ok();
        let shown = kiln.run(["inspect", "-f", "{{.Id}}", name]).ok().line();
        assert_eq!(shown, id);
    }
    kiln.run(["rmi", &found]).ok();
    kiln.build("FROM short:1\nCOPY a /a\n", &[("a", "a")]).ok();
    let log = second.take_log();
    assert_eq!(log[0], "GET /v2/app/manifests/1", "{log:?}");

    let output = kiln.run(["pull", "nosuch"]).fails();
    let (first, second) = (first.address(), second.address());
    let names = [(first.as_str(), "FIRST"), (second.as_str(), "SECOND")];
    assert_eq!(
        settled(&output.stderr(), &names),
        "error: nosuch is in none of the registries that registries.conf names: \
         FIRST/nosuch: manifest latest: no such repository; \
         SECOND/nosuch: manifest latest: no such repository\n\
         hint: write the registry too, as in docker.io/nosuch, or change \
         unqualified-search-registries\n"
    );
    fs::write(file, "").unwrap();
    kiln.run(["inspect", "app:1"]).fails();
}

#[test]
fn mistake_in_registries_conf_is_named() {
    let (kiln, file) = kiln_with("[[registry]]\nlocation = 5\n");
    let output = kiln.run(["pull", "r.example/x"]).fails();
    assert_eq!(
        output.stderr(),
        format!(
            "error: {0}: line 2: invalid type: integer `5`, expected a string\n\
             hint: repair {0}, or name another file in CONTAINERS_REGISTRIES_CONF\n",
            file.display()
        )
    );
}
