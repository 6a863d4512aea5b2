//! What registries do wrong, on purpose or not: what passes is borne, what does not is told, and
//! the store is clean afterwards.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Fault, FaultyRegistry, Kiln, Published, assert_refused, run, settled, tar_of};

/// `user:sesame`.
const AUTH: &str = "dXNlcjpzZXNhbWU=";

/// Returns a registry with an image of one layer, and kiln.
fn start() -> (FaultyRegistry, Kiln, Published) {
    let registry = FaultyRegistry::start();
    let image = registry.image("1", &[("hello", "hello\n")]);
    (registry, Kiln::new(), image)
}

/// Returns text of a length that is no power of two, and that does not repeat itself.
fn long_text() -> String {
    let mut state = 1_u64;
    let mut text = String::new();
    while text.len() < 900_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text.push_str(&format!("{state:016x}"));
    }
    text
}

fn log_in(kiln: &Kiln, registry: &FaultyRegistry) {
    let config = json!({"auths": {registry.address(): {"auth": AUTH}}}).to_string();
    kiln.sandbox()
        .directory("home/.docker", &[("config.json", &config)]);
}

#[test]
fn what_goes_wrong_once_is_no_failure_wherever_it_does() {
    for fault in [
        Fault::Silence,
        Fault::CutAfter(100),
        Fault::Busy(429, 0),
        Fault::Busy(503, 0),
        Fault::Status(500, "UNKNOWN", "disk"),
        Fault::Status(502, "", ""),
    ] {
        let (registry, kiln, image) = start();
        for path in [
            "app/manifests/1".to_owned(),
            format!("app/blobs/{}", image.id),
            format!("app/blobs/{}", image.layer),
        ] {
            registry.fault_times(&path, fault.clone(), 1);
        }
        let id = kiln.run(["pull", "-q", &registry.reference("1")]).ok();
        assert_eq!(id.line(), image.id, "{fault:?}");
    }
}

#[test]
fn layer_that_is_cut_off_is_gone_on_with_and_no_byte_comes_twice() {
    let registry = FaultyRegistry::start();
    let text = long_text();
    let image = registry.image("1", &[("long", &text)]);
    let path = format!("app/blobs/{}", image.layer);
    registry.fault_times(&path, Fault::CutAfter(400_001), 1);
    let kiln = Kiln::new();
    kiln.run(["pull", &registry.reference("1")]).ok();
    let size = tar_of(&[("long", &text)]).len() as u64;
    assert_eq!(registry.sent(&path), size);
    let asked = registry.take_log();
    let asked = asked.iter().filter(|line| line.contains(&image.layer));
    assert_eq!(asked.count(), 2);
    let tree = kiln.image(&registry.reference("1")).tree;
    assert_eq!(tree.file("/long").content(), text.as_bytes());

    // A copy goes on just so.
    let target = format!("oci:{}", kiln.sandbox().join("layout").display());
    registry.fault_times(&path, Fault::CutAfter(400_001), 1);
    kiln.run(["copy", &registry.reference("1"), &target]).ok();
    assert_eq!(registry.sent(&path), 2 * size);
}

#[test]
fn registry_that_asks_for_time_gets_it_but_not_any_time() {
    let (registry, kiln, _) = start();
    let reference = registry.reference("1");
    registry.fault_times("app/manifests/1", Fault::Busy(429, 2), 1);
    let begun = Instant::now();
    kiln.run(["pull", &reference]).ok();
    assert!(begun.elapsed() >= Duration::from_secs(2));

    let kiln = Kiln::new();
    registry.fault("app/manifests/1", Fault::Busy(429, 3600));
    assert_refused(
        &kiln,
        kiln.run(["pull", &reference]),
        &registry.address(),
        "error: REGISTRY/app: manifest 1: too many requests: 429 TOOMANYREQUESTS: slow down\n\
         hint: try again in 3600 s\n",
    );
}

#[test]
fn registry_that_stays_broken_is_quoted() {
    let (registry, kiln, image) = start();
    let path = format!("app/blobs/{}", image.layer);
    registry.fault(&path, Fault::Status(500, "UNKNOWN", "disk on fire"));
    let layer = image.layer;
    assert_refused(
        &kiln,
        kiln.run(["pull", &registry.reference("1")]),
        &registry.address(),
        &format!(
            "error: REGISTRY/app: blob {layer}: the registry answered 500 UNKNOWN: disk on fire\n"
        ),
    );
}

#[test]
fn lies_about_digests_and_sizes_are_found_out() {
    let (registry, kiln, image) = start();
    let reference = registry.reference("1");
    let lie = format!("sha256:{}", "ab".repeat(32));
    registry.fault("app/manifests/1", Fault::Digest(lie.clone()));
    assert_refused(
        &kiln,
        kiln.run(["pull", &reference]),
        &registry.address(),
        &format!(
            "error: REGISTRY/app: manifest 1: wrong digest: expected {lie}, got {}\n\
             hint: the registry or something on the way altered the content; nothing was stored\n",
            image.manifest
        ),
    );
    registry.repair();
    let layer = image.layer;
    for (length, fault) in [(4096, Fault::Length(4096)), (100, Fault::Length(100))] {
        registry.fault(&format!("app/blobs/{layer}"), fault);
        assert_refused(
            &kiln,
            kiln.run(["pull", &reference]),
            &registry.address(),
            &format!(
                "error: REGISTRY/app: blob {layer}: wrong size: expected 2048 bytes, \
                 the registry offers {length}\n\
                 hint: the registry or something on the way altered the content; \
                 nothing was stored\n"
            ),
        );
    }
}

#[test]
fn endless_answers_come_to_an_end() {
    let (registry, kiln, image) = start();
    let reference = registry.reference("1");
    let layer = image.layer;
    for (path, text) in [
        (
            "app/manifests/1".to_owned(),
            "manifest 1: larger than the limit of 8388608 bytes\n".to_owned(),
        ),
        (
            format!("app/blobs/{layer}"),
            format!(
                "blob {layer}: more than the expected 2048 bytes came\n\
                 hint: the registry or something on the way altered the content; \
                 nothing was stored\n"
            ),
        ),
    ] {
        registry.fault(&path, Fault::Endless);
        let output = kiln.run(["pull", &reference]);
        let expected = format!("error: REGISTRY/app: {text}");
        assert_refused(&kiln, output, &registry.address(), &expected);
        registry.repair();
    }
    registry.require_tokens(9);
    registry.fault("/token", Fault::Endless);
    assert_refused(
        &kiln,
        kiln.run(["pull", &reference]),
        &registry.address(),
        "error: REGISTRY/app: manifest 1: the token server REGISTRY: malformed answer: \
         it has more than 1048576 bytes\n",
    );
}

#[test]
fn redirect_to_another_host_takes_no_credentials_along() {
    let (registry, kiln, image) = start();
    let elsewhere = FaultyRegistry::start();
    elsewhere.image("1", &[("hello", "hello\n")]);
    let path = format!("app/blobs/{}", image.layer);
    registry.require(AUTH);
    log_in(&kiln, &registry);
    let url = format!("http://{}/v2/{path}", elsewhere.address());
    registry.fault(&path, Fault::Redirect(url));
    kiln.run(["pull", &registry.reference("1")]).ok();
    assert_eq!(elsewhere.take_log(), [format!("GET /v2/{path}")]);
    assert_eq!(elsewhere.authorized(), [""; 0]);
    assert!(registry.authorized().contains(&format!("/v2/{path}")));

    let kiln = Kiln::new();
    log_in(&kiln, &registry);
    registry.fault(&path, Fault::Redirect(format!("/v2/{path}")));
    let layer = image.layer;
    assert_refused(
        &kiln,
        kiln.run(["pull", &registry.reference("1")]),
        &registry.address(),
        &format!(
            "error: REGISTRY/app: blob {layer}: refused to follow a redirect to /v2/app/blobs/{layer} \
             (the chain is too long)\n"
        ),
    );
}

#[test]
fn tokens_are_asked_for_what_is_done_and_again_when_they_have_expired() {
    let (registry, kiln, image) = start();
    registry.require_tokens(2);
    let reference = registry.reference("1");
    kiln.run(["pull", &reference]).ok();
    let tokens = |log: Vec<String>| -> Vec<String> {
        let asked = log
            .into_iter()
            .filter(|line| line.starts_with("GET /token"));
        asked.collect()
    };
    let asked = tokens(registry.take_log());
    let scope = "GET /token?service=tests&scope=repository:app:pull";
    assert!(asked.len() > 1, "{asked:?}");
    assert!(asked.iter().all(|line| *line == scope), "{asked:?}");

    // A push asks more often than one token is good for.
    let to = FaultyRegistry::start();
    to.require_tokens(4);
    let mine = format!("{}/mine:1", to.address());
    kiln.run(["tag", &reference, &mine]).ok();
    log_in(&kiln, &to);
    let digest = kiln.run(["push", "-q", &mine]).ok().line();
    assert_eq!(digest, image.manifest);
    let asked = tokens(to.take_log());
    assert!(asked.len() > 1, "{asked:?}");
    let scope = "GET /token?service=tests&scope=repository:mine:pull,push&account=user";
    assert!(asked.iter().all(|line| line == scope), "{asked:?}");
    assert!(to.authorized().contains(&"/token".to_owned()));
    let other = Kiln::new();
    to.require_tokens(9);
    assert_eq!(other.run(["pull", "-q", &mine]).ok().line(), image.id);
}

#[test]
fn token_server_that_refuses_or_fails_is_quoted() {
    let (registry, kiln, _) = start();
    registry.require_tokens(9);
    let reference = registry.reference("1");
    registry.fault("/token", Fault::Status(401, "UNAUTHORIZED", "who are you?"));
    assert_refused(
        &kiln,
        kiln.run(["pull", &reference]),
        &registry.address(),
        "error: REGISTRY/app: manifest 1: unauthorized: 401 UNAUTHORIZED: who are you?\n\
         hint: the repository is private or does not exist; log in: kiln login REGISTRY\n",
    );
    // A token that is never any good.
    registry.repair();
    registry.require_tokens(0);
    assert_refused(
        &kiln,
        kiln.run(["pull", &reference]),
        &registry.address(),
        "error: REGISTRY/app: manifest 1: unauthorized: 401 UNAUTHORIZED: authentication required\n\
         hint: the repository is private or does not exist; log in: kiln login REGISTRY\n",
    );
}

#[test]
fn two_pulls_at_once_fetch_a_layer_once() {
    let (registry, kiln, image) = start();
    let path = format!("app/blobs/{}", image.layer);
    registry.fault(&path, Fault::Pause(Duration::from_millis(1500)));
    let reference = registry.reference("1");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| kiln.run(["pull", &reference]).ok());
        }
    });
    let asked = registry.take_log();
    let layer = format!("GET /v2/{path}");
    let times = asked.iter().filter(|line| **line == layer).count();
    assert_eq!(times, 1, "{asked:#?}");
    let tree = kiln.image(&reference).tree;
    assert_eq!(tree.file("/hello").content(), b"hello\n");
}

#[test]
fn layers_that_lie_elsewhere_are_refused() {
    let (registry, kiln) = (FaultyRegistry::start(), Kiln::new());
    let config = registry.blob("application/vnd.oci.image.config.v1+json", b"{}");
    for kind in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ] {
        let mut layer = registry.blob(kind, b"x");
        layer["urls"] = json!(["http://127.0.0.1:1/layer"]);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": [layer],
        });
        registry.manifest("1", media_type, &manifest);
        let digest = layer["digest"].as_str().unwrap();
        let expected = format!(
            "error: REGISTRY/app: manifest 1: foreign layers ({digest}) are not supported\n"
        );
        let (address, reference) = (registry.address(), registry.reference("1"));
        assert_refused(&kiln, kiln.run(["pull", &reference]), &address, &expected);
        let copy = kiln.run(["copy", &reference, "store:x"]);
        assert_refused(&kiln, copy, &address, &expected);
    }
}

#[test]
fn push_bears_what_passes_and_names_what_does_not() {
    let (from, kiln, image) = start();
    kiln.run(["pull", &from.reference("1")]).ok();
    let to = FaultyRegistry::start();
    let mine = format!("{}/app:mine", to.address());
    kiln.run(["tag", &from.reference("1"), &mine]).ok();
    for (path, fault) in [
        ("app/blobs/uploads/", Fault::Busy(503, 0)),
        ("app/blobs/uploads/1", Fault::Silence),
        ("app/manifests/mine", Fault::Status(500, "UNKNOWN", "disk")),
    ] {
        to.fault_times(path, fault, 1);
    }
    assert_eq!(kiln.run(["push", "-q", &mine]).ok().line(), image.manifest);

    let again = format!("{}/again:1", to.address());
    kiln.run(["tag", &from.reference("1"), &again]).ok();
    let invalid = Fault::Status(400, "MANIFEST_INVALID", "no such config");
    to.fault("again/manifests/1", invalid);
    let output = kiln.run(["push", &again]).fails();
    let shown = settled(&output.stderr(), &[(&to.address(), "REGISTRY")]);
    let error = &shown[shown.find("error: ").unwrap()..];
    assert_eq!(
        error,
        "error: REGISTRY/again: manifest 1: the registry answered 400 MANIFEST_INVALID: \
         no such config\n"
    );
    assert_eq!(output.stdout(), "");
    let rests = fs::read_dir(kiln.store().join("tmp")).unwrap().count();
    assert_eq!(rests, 0);
}

/// Answers one request as a proxy that lets nobody through, and tells what was asked.
fn proxy() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // All of the request: what is not read would reset the connection.
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let _ = sender.send(request.first().cloned().unwrap_or_default());
            let _ = stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (format!("http://{address}"), receiver)
}

#[test]
fn proxy_of_the_environment_is_gone_through_but_for_the_hosts_without() {
    let (url, asked) = proxy();
    let kiln = Kiln::new();
    let pull = |variables: &[(&str, &str)], name: &str| {
        let mut command = kiln.command(["pull", name]);
        command.envs(variables.iter().copied());
        run(&mut command, Duration::from_secs(60))
    };
    let output = pull(&[("HTTPS_PROXY", &url)], "registry.invalid/app").fails();
    assert_eq!(
        asked.recv().unwrap(),
        "CONNECT registry.invalid:443 HTTP/1.1"
    );
    assert!(
        output
            .stderr()
            .starts_with("error: registry.invalid/app: manifest latest: proxy: "),
        "{output}"
    );
    assert!(
        output
            .stderr()
            .ends_with("hint: check HTTP_PROXY, HTTPS_PROXY and NO_PROXY\n"),
        "{output}"
    );
    // The host has no address, and the proxy is not asked.
    let without = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", ".invalid")];
    let output = pull(&without, "registry.invalid/app").fails();
    assert!(
        output
            .stderr()
            .starts_with("error: registry.invalid/app: manifest latest: can't connect: "),
        "{output}"
    );
    // Loopback never goes through one.
    let registry = FaultyRegistry::start();
    registry.image("1", &[]);
    let both = [("HTTP_PROXY", url.as_str()), ("ALL_PROXY", url.as_str())];
    pull(&both, &registry.reference("1")).ok();
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [""; 0]);
}
