//! Basic and bearer authorization.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::registry::testserver::{Fault, Memory, image_manifest, ranged};

/// `me:secret`.
const ME: &str = "Basic bWU6c2VjcmV0";

fn image() -> Memory {
    let memory = Memory::default();
    memory.add_manifest("latest", media_type::OCI_MANIFEST, &image_manifest(b"x"));
    memory
}

fn guarded_by_password() -> TestServer {
    let memory = image();
    TestServer::start(move |request| {
        if request.header("authorization") == Some(ME) {
            return memory.answer(request);
        }
        Reply::error(401, "UNAUTHORIZED", "authentication required")
            .header("WWW-Authenticate", "Basic realm=\"Registry\"")
    })
}

#[test]
fn a_password_is_sent_where_it_is_asked_for() {
    let server = guarded_by_password();
    let client = client_as(&server.host(), "me", "secret");
    client.manifest(&reference(&server, "app")).unwrap();
    client.ping(&server.host()).unwrap();

    let open = TestServer::start({
        let memory = image();
        move |request| memory.answer(request)
    });
    let client = client_as(&open.host(), "me", "secret");
    client.manifest(&reference(&open, "app")).unwrap();
    assert_eq!(open.requests()[0].header("authorization"), None);
}

#[test]
fn without_the_right_password_the_hint_is_to_log_in() {
    let server = guarded_by_password();
    let name = reference(&server, "app");
    for (client, with) in [
        (client(), false),
        (client_as(&server.host(), "me", "wrong"), true),
    ] {
        let error = client.manifest(&name).unwrap_err();
        assert!(
            matches!(error.reason(), Reason::Unauthorized { with_credentials, .. } if *with_credentials == with),
            "{error}"
        );
        assert!(
            error.to_string().contains("authentication required"),
            "{error}"
        );
        let hint = error.hint().unwrap();
        assert!(
            hint.contains(&format!("kiln login {}", server.host())),
            "{hint}"
        );
    }
    assert!(client().ping(&server.host()).is_err());
}

/// A registry whose tokens are `t1`, `t2`, …; only the newest one is accepted.
struct Tokens {
    server: TestServer,
    /// How often a token was issued.
    issued: Arc<AtomicUsize>,
    token_server: TestServer,
}

fn guarded_by_tokens(
    token_answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    registry: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Tokens {
    let issued = Arc::new(AtomicUsize::new(0));
    let count = issued.clone();
    let token_server = TestServer::start(move |request| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        token_answer(request, number)
    });
    let realm = token_server.url("/token");
    let newest = issued.clone();
    let server = TestServer::start(move |request| {
        let wanted = format!("Bearer t{}", newest.load(Ordering::SeqCst));
        if request.header("authorization") == Some(&wanted) {
            return registry(request);
        }
        Reply::error(401, "UNAUTHORIZED", "authentication required").header(
            "WWW-Authenticate",
            format!(r#"Bearer realm="{realm}",service="registry",scope="repository:app:pull""#),
        )
    });
    Tokens {
        server,
        issued,
        token_server,
    }
}

fn token(_: &Request, number: usize) -> Reply {
    Reply::new(200).body(format!(r#"{{"token":"t{number}","expires_in":300}}"#))
}

#[test]
fn tokens_are_fetched_and_kept() {
    let memory = image();
    let tokens = guarded_by_tokens(token, move |request| memory.answer(request));
    let client = client_as(&tokens.server.host(), "me", "secret");
    for _ in 0..3 {
        client.manifest(&reference(&tokens.server, "app")).unwrap();
    }
    assert_eq!(tokens.issued.load(Ordering::SeqCst), 1);
    let asked = &tokens.token_server.requests()[0];
    assert_eq!(asked.query("scope").unwrap(), "repository:app:pull");
    assert_eq!(asked.query("service").unwrap(), "registry");
    assert_eq!(asked.header("authorization"), Some(ME));
}

#[test]
fn anonymous_tokens_need_no_credentials() {
    let memory = image();
    let tokens = guarded_by_tokens(token, move |request| memory.answer(request));
    client()
        .manifest(&reference(&tokens.server, "app"))
        .unwrap();
    assert_eq!(
        tokens.token_server.requests()[0].header("authorization"),
        None
    );
}

#[test]
fn parallel_requests_share_one_token() {
    let memory = image();
    let tokens = guarded_by_tokens(token, move |request| memory.answer(request));
    let client = client();
    let name = reference(&tokens.server, "app");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| client.manifest(&name).unwrap());
        }
    });
    assert_eq!(tokens.issued.load(Ordering::SeqCst), 1);
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_download_is_renewed() {
    let bytes = content(400_000);
    let blob = bytes.clone();
    let issued = Arc::new(Mutex::new(None::<Arc<AtomicUsize>>));
    let expire = issued.clone();
    let first = AtomicUsize::new(0);
    let tokens = guarded_by_tokens(token, move |request| {
        let reply = ranged(request, &blob);
        if request.path().contains("/blobs/") && first.fetch_add(1, Ordering::SeqCst) == 0 {
            // From now on another token is the newest one.
            let issued = expire.lock().unwrap().clone().unwrap();
            issued.fetch_add(1, Ordering::SeqCst);
            return reply.fault(Fault::CutAfter(150_000));
        }
        reply
    });
    *issued.lock().unwrap() = Some(tokens.issued.clone());
    let name = reference(&tokens.server, "app");
    let mut reader = client().blob(&name, &layer(&bytes)).unwrap();
    assert!(read(&mut reader) == (bytes, None));
    assert_eq!(tokens.token_server.requests().len(), 2);
}

#[test]
fn a_token_that_is_never_accepted_is_an_error() {
    let tokens = guarded_by_tokens(
        |_, _| Reply::new(200).body(r#"{"access_token":"other"}"#),
        |_| Reply::new(200),
    );
    let error = client()
        .manifest(&reference(&tokens.server, "app"))
        .unwrap_err();
    assert!(
        matches!(error.reason(), Reason::Unauthorized { .. }),
        "{error}"
    );
    assert!(tokens.token_server.requests().len() <= 2);
}

#[test]
fn refusals_and_nonsense_of_a_token_server_are_told() {
    let memory = Arc::new(image());
    for (reply, problem) in [
        (
            Reply::new(401).body(r#"{"details":"incorrect username or password"}"#),
            "unauthorized: 401: incorrect username or password",
        ),
        (
            Reply::new(200).body("<html>"),
            "token: the answer is no JSON",
        ),
        (
            Reply::new(200).body(r#"{"token":"a\nb"}"#),
            "token: it is empty or has characters",
        ),
        (
            Reply::new(200)
                .body(vec![b' '; 1 << 20])
                .fault(Fault::Endless),
            "it has more than 1048576 bytes",
        ),
    ] {
        let memory = memory.clone();
        let tokens = guarded_by_tokens(move |_, _| reply.clone(), move |r| memory.answer(r));
        let client = client_as(&tokens.server.host(), "me", "wrong");
        let error = client
            .manifest(&reference(&tokens.server, "app"))
            .unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn an_identity_token_is_posted_and_never_part_of_a_url() {
    let memory = image();
    let tokens = guarded_by_tokens(token, move |request| memory.answer(request));
    let host = tokens.server.host();
    let refresh = Credential::IdentityToken("refresh-me".to_owned());
    let client = Client::new(ClientOptions {
        credentials: Credentials::anonymous().with(&host, refresh),
        ..options()
    });
    client.manifest(&reference(&tokens.server, "app")).unwrap();
    let asked = &tokens.token_server.requests()[0];
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("POST", "/token")
    );
    let form = String::from_utf8(asked.body.clone()).unwrap();
    assert!(form.contains("grant_type=refresh_token"), "{form}");
    assert!(form.contains("refresh_token=refresh-me"), "{form}");
    assert!(form.contains("scope=repository%3Aapp%3Apull"), "{form}");
}

#[test]
fn a_token_server_elsewhere_has_to_use_https() {
    let server = TestServer::start(|_| {
        Reply::new(401).header(
            "WWW-Authenticate",
            "Bearer realm=\"http://tokens.invalid/token\"",
        )
    });
    let client = client_as(&server.host(), "me", "secret");
    let error = client.manifest(&reference(&server, "app")).unwrap_err();
    assert!(
        error.to_string().contains("unencrypted token server"),
        "{error}"
    );
}

#[test]
fn broken_credentials_are_an_error_only_where_they_are_needed() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    std::fs::write(&file, r#"{"auths":{"127.0.0.1":{},"localhost":{}}}"#).unwrap();
    let server = guarded_by_password();
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"???"}}}}}}"#, server.host());
    std::fs::write(&file, text).unwrap();
    let paths = CredentialPaths {
        docker_config: Some(home.path().to_owned()),
        ..CredentialPaths::default()
    };
    let client = Client::new(ClientOptions {
        credentials: Credentials::load(&paths).unwrap(),
        ..options()
    });
    let error = client.manifest(&reference(&server, "app")).unwrap_err();
    assert!(matches!(error.reason(), Reason::Credentials(_)), "{error}");
    assert!(error.hint().unwrap().contains("config.json"));
    let open = TestServer::start({
        let memory = image();
        move |request| memory.answer(request)
    });
    client.manifest(&reference(&open, "app")).unwrap();
}
