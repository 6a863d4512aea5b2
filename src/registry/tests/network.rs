//! Bad moments of servers, redirects, and what stands between.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::registry::testserver::{Fault, Memory, image_manifest};

/// Answers the first requests with `bad`, and then as a registry with image `app` does.
fn recovering(bad: Vec<Reply>) -> TestServer {
    let memory = Memory::default();
    memory.add_manifest("latest", media_type::OCI_MANIFEST, &image_manifest(b"x"));
    let asked = AtomicUsize::new(0);
    TestServer::start(open_registry(move |request| {
        match bad.get(asked.fetch_add(1, Ordering::SeqCst)) {
            Some(reply) => reply.clone(),
            None => memory.answer(request),
        }
    }))
}

#[test]
fn passing_failures_pass() {
    let server = recovering(vec![
        Reply::new(500),
        Reply::new(502),
        Reply::new(200)
            .body("{\"schemaVersion\":2")
            .fault(Fault::CutAfter(5)),
    ]);
    client().manifest(&reference(&server, "app")).unwrap();
    let server = recovering(vec![
        Reply::new(504),
        Reply::new(200).fault(Fault::Silence),
        Reply::new(200).fault(Fault::Garbage),
    ]);
    client().manifest(&reference(&server, "app")).unwrap();
}

#[test]
fn retry_after_is_respected() {
    for status in [429, 503] {
        let server = recovering(vec![Reply::new(status).header("Retry-After", 1)]);
        let started = Instant::now();
        client().manifest(&reference(&server, "app")).unwrap();
        assert!(started.elapsed() >= Duration::from_secs(1));
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn a_long_retry_after_ends_at_once_and_is_told() {
    let busy = Reply::error(429, "TOOMANYREQUESTS", "slow down").header("Retry-After", 3600);
    let server = recovering(vec![busy; 100]);
    let error = client().manifest(&reference(&server, "app")).unwrap_err();
    assert!(
        error.to_string().contains("429 TOOMANYREQUESTS: slow down"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("3600 s"));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn lasting_failures_end_with_the_servers_words() {
    let down = Reply::error(503, "UNAVAILABLE", "maintenance");
    let server = recovering(vec![down; 100]);
    let error = client().manifest(&reference(&server, "app")).unwrap_err();
    assert!(
        error.to_string().contains("503 UNAVAILABLE: maintenance"),
        "{error}"
    );
    assert_eq!(server.requests().len(), 4);
    // What will not pass is not tried again.
    let server = recovering(vec![Reply::error(403, "DENIED", "not yours"); 100]);
    let error = client().manifest(&reference(&server, "app")).unwrap_err();
    assert!(matches!(error.reason(), Reason::Denied(_)), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn silence_is_borne_for_a_limited_time() {
    let server = TestServer::start(open_registry(|_| {
        std::thread::sleep(Duration::from_secs(2));
        Reply::new(200)
    }));
    let client = Client::new(ClientOptions {
        retry: RetryPolicy {
            attempts: 1,
            ..options().retry
        },
        timeouts: Timeouts {
            silence: Duration::from_millis(100),
            ..options().timeouts
        },
        ..options()
    });
    let error = client.manifest(&reference(&server, "app")).unwrap_err();
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[test]
fn a_refused_connection_is_an_error_at_once() {
    let name = reference(&TestServer::start(|_| Reply::new(200)), "app");
    let error = client().manifest(&name).unwrap_err();
    assert!(matches!(error.reason(), Reason::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.hint().unwrap().contains(error.registry()));
    let error = client().ping(error.registry()).unwrap_err();
    assert!(matches!(error.reason(), Reason::Unreachable(_)), "{error}");
}

#[test]
fn redirects_to_another_host_do_not_take_the_authorization_along() {
    let bytes = content(1000);
    let elsewhere = {
        let bytes = bytes.clone();
        TestServer::start_at("127.0.0.2:0", move |_| Reply::new(200).body(bytes.clone()))
    };
    let location = elsewhere.url("/signed?key=1");
    let server = TestServer::start(move |request| match request.header("authorization") {
        None => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) if request.path().contains("/blobs/") => {
            Reply::new(307).header("Location", "/moved")
        }
        Some(_) => Reply::new(302).header("Location", &location),
    });
    let client = client_as(&server.host(), "me", "secret");
    let mut reader = client
        .blob(&reference(&server, "app"), &layer(&bytes))
        .unwrap();
    assert!(read(&mut reader) == (bytes, None));
    // On the same host it is sent again, elsewhere it is not.
    let moved = server.requests().into_iter().find(|r| r.path() == "/moved");
    assert!(moved.unwrap().header("authorization").is_some());
    let arrived = elsewhere.requests();
    assert_eq!(arrived[0].target, "/signed?key=1");
    assert_eq!(arrived[0].header("authorization"), None);
}

#[test]
fn another_host_is_not_answered_when_it_asks_for_credentials() {
    let elsewhere = TestServer::start_at("127.0.0.2:0", |_| {
        Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\"")
    });
    let location = elsewhere.url("/x");
    let server = TestServer::start(open_registry(move |_| {
        Reply::new(307).header("Location", &location)
    }));
    let client = client_as(&server.host(), "me", "secret");
    let error = client.blob(&reference(&server, "app"), &layer(b"x"));
    let error = error.err().unwrap();
    assert!(
        matches!(error.reason(), Reason::Unauthorized { .. }),
        "{error}"
    );
    assert_eq!(elsewhere.requests().len(), 1);
    assert_eq!(elsewhere.requests()[0].header("authorization"), None);
}

#[test]
fn redirects_that_go_round_come_to_an_end() {
    let server = TestServer::start(open_registry(|request| {
        Reply::new(307).header("Location", &request.target)
    }));
    let error = client().manifest(&reference(&server, "app")).unwrap_err();
    assert!(matches!(error.reason(), Reason::Redirect(_)), "{error}");
    assert!(server.requests().len() < 10);
}

#[test]
fn a_server_that_is_no_registry_is_called_so() {
    let server = TestServer::start(|_| Reply::new(404).body("<html>"));
    let error = client().ping(&server.host()).unwrap_err();
    assert!(error.to_string().contains("no registry"), "{error}");
    let server = TestServer::start(|_| Reply::new(200));
    client().ping(&server.host()).unwrap();
}

#[test]
fn a_bad_request_on_loopback_is_taken_for_tls_but_not_for_good() {
    // It answers 400 to plain HTTP, as TLS servers do, but does not speak TLS either.
    let server = TestServer::start(|request| match request.path() {
        "/v2/" => Reply::new(400),
        _ => Reply::error(403, "DENIED", "no"),
    });
    let error = client().manifest(&reference(&server, "app")).unwrap_err();
    assert!(matches!(error.reason(), Reason::Denied(_)), "{error}");
}

#[test]
fn other_machines_are_reached_over_https_only_and_through_the_proxy() {
    let memory = Memory::default();
    memory.add_manifest("latest", media_type::OCI_MANIFEST, &image_manifest(b"x"));
    let proxy = TestServer::start(move |request| match request.method.as_str() {
        "CONNECT" => Reply::new(200),
        _ => memory.answer(request),
    });
    let url = proxy.url("");
    let through = |insecure, no_proxy: &str| {
        let (url, no_proxy) = (url.clone(), no_proxy.to_owned());
        let variables = move |name: &str| match name {
            "HTTP_PROXY" | "HTTPS_PROXY" => Some(url.clone()),
            "NO_PROXY" => Some(no_proxy.clone()),
            _ => None,
        };
        Client::new(ClientOptions {
            insecure,
            proxies: Proxies::from_environment(variables),
            ..options()
        })
    };
    let name: Reference = "registry.invalid/app".parse().unwrap();
    // The proxy's far end does not speak TLS, and plain HTTP is not fallen back to.
    let error = through(false, "").manifest(&name).unwrap_err();
    assert!(!matches!(error.reason(), Reason::NotFound), "{error}");
    let tunnels: Vec<String> = proxy.requests().into_iter().map(|r| r.target).collect();
    assert!(
        tunnels.iter().all(|t| t == "registry.invalid:443"),
        "{tunnels:?}"
    );
    through(true, "").manifest(&name).unwrap();
    assert_eq!(proxy.count("GET", "/v2/app/manifests/latest"), 1);
    // Without the proxy the name does not resolve.
    let before = proxy.requests().len();
    let error = through(false, "registry.invalid")
        .manifest(&name)
        .unwrap_err();
    assert!(matches!(error.reason(), Reason::Unreachable(_)), "{error}");
    assert_eq!(proxy.requests().len(), before);
}
