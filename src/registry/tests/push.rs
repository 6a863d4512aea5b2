//! Uploads.

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;
use crate::image::Digest;
use crate::registry::testserver::{Fault, Memory, image_manifest};

/// Pushes `bytes` as they are described by `descriptor`.
fn push_as(
    client: &Client,
    name: &Reference,
    descriptor: &Descriptor,
    bytes: &[u8],
    mount_from: Option<&Reference>,
) -> Result<Pushed, RegistryError> {
    let mut open =
        || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(bytes.to_vec()))) };
    client.push_blob(name, descriptor, &mut open, mount_from, None)
}

fn push(client: &Client, name: &Reference, bytes: &[u8]) -> Result<Pushed, RegistryError> {
    push_as(client, name, &layer(bytes), bytes, None)
}

#[test]
fn what_is_pushed_can_be_pulled() {
    let memory = Memory::default();
    let server = TestServer::start(move |request| memory.answer(request));
    let (client, name) = (client(), reference(&server, "app:1"));
    let bytes = content(1_000_000);
    assert_eq!(push(&client, &name, &bytes).unwrap(), Pushed::Uploaded);
    assert_eq!(push(&client, &name, &bytes).unwrap(), Pushed::Existed);
    assert_eq!(push(&client, &name, b"").unwrap(), Pushed::Uploaded);
    let manifest = image_manifest(&bytes);
    let digest = client
        .push_manifest(&name, media_type::OCI_MANIFEST, &manifest)
        .unwrap();
    assert_eq!(digest, Digest::of(&manifest));
    assert_eq!(client.manifest(&name).unwrap().bytes, manifest);
    let mut reader = client.blob(&name, &layer(&bytes)).unwrap();
    assert!(read(&mut reader) == (bytes, None));
    // The query that the registry gave is kept.
    let put = server.requests().into_iter().find(|r| r.method == "PUT");
    let put = put.unwrap();
    assert_eq!(put.query("_state").unwrap(), "x");
    assert_eq!(put.header("content-length"), Some("1000000"));
}

#[test]
fn a_blob_can_be_pushed_while_it_is_made() {
    let memory = Arc::new(Memory::default());
    let answering = memory.clone();
    let server = TestServer::start(move |request| answering.answer(request));
    let bytes = content(1_000_000);
    let digest = Digest::of(&bytes);
    let mut open =
        || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(content(1_000_000)))) };
    let known = || Some(digest.clone());
    client()
        .push_stream(&reference(&server, "app"), "layer", &mut open, &known, None)
        .unwrap();
    assert!(memory.blobs.lock().unwrap()[&digest.to_string()] == bytes);
    let requests = server.requests();
    let last = requests.last().unwrap();
    assert_eq!(last.method, "PUT");
    // Each request goes where the one before it said.
    assert_eq!(last.query("_state").unwrap(), "y");
    assert_eq!(last.header("content-length"), Some("0"));
}

#[test]
fn a_blob_that_is_not_made_to_its_end_is_not_pushed() {
    let memory = Arc::new(Memory::default());
    let answering = memory.clone();
    let server = TestServer::start(move |request| answering.answer(request));
    let mut open =
        || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(content(1_000)))) };
    let name = reference(&server, "app");
    let error = client()
        .push_stream(&name, "layer x", &mut open, &|| None, None)
        .unwrap_err();
    assert!(error.to_string().contains("layer x"), "{error}");
    assert!(memory.blobs.lock().unwrap().is_empty());
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.method != "PUT")
    );
}

#[test]
fn progress_of_an_upload_ends_at_its_size() {
    let memory = Memory::default();
    let server = TestServer::start(move |request| memory.answer(request));
    let bytes = content(500_000);
    let sent = Arc::new(AtomicU64::new(0));
    let seen = sent.clone();
    let progress: Progress = Arc::new(move |count| seen.store(count, Ordering::SeqCst));
    let mut open =
        || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(content(500_000)))) };
    let name = reference(&server, "app");
    client()
        .push_blob(&name, &layer(&bytes), &mut open, None, Some(progress))
        .unwrap();
    assert_eq!(sent.load(Ordering::SeqCst), 500_000);
}

/// A registry that can mount from `base` if `may_read_base`.
fn mounting(status: u16) -> TestServer {
    let memory = Memory::default();
    TestServer::start(move |request| {
        if request.method == "POST" && request.query("mount").is_some() {
            assert_eq!(request.query("from").unwrap(), "base");
            if status != 202 {
                return Reply::new(status);
            }
        }
        memory.answer(request)
    })
}

#[test]
fn a_blob_is_mounted_where_the_registry_lets_it() {
    for (status, expected, posts) in [
        (201, Pushed::Mounted, 1),
        // The registry begins an upload instead, which is gone on with.
        (202, Pushed::Uploaded, 1),
        (403, Pushed::Uploaded, 2),
        (405, Pushed::Uploaded, 2),
    ] {
        let server = mounting(status);
        let (name, base) = (reference(&server, "app"), reference(&server, "base"));
        let pushed = push_as(&client(), &name, &layer(b"x"), b"x", Some(&base)).unwrap();
        assert_eq!(pushed, expected, "{status}");
        let count = server.count("POST", "/v2/app/blobs/uploads/");
        assert_eq!(count, posts, "{status}");
    }
}

#[test]
fn another_registrys_repository_is_not_mounted_from() {
    let server = mounting(201);
    let name = reference(&server, "app");
    let base: Reference = "registry.invalid/base".parse().unwrap();
    let pushed = push_as(&client(), &name, &layer(b"x"), b"x", Some(&base)).unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
}

#[test]
fn a_cut_upload_starts_again_from_the_first_byte() {
    let memory = Memory::default();
    let puts = AtomicUsize::new(0);
    let server = TestServer::start(move |request| {
        if request.method == "PUT" {
            match puts.fetch_add(1, Ordering::SeqCst) {
                0 => return Reply::new(201).fault(Fault::Silence),
                1 => return Reply::error(503, "UNAVAILABLE", "busy"),
                _ => {}
            }
        }
        memory.answer(request)
    });
    let bytes = content(200_000);
    let opened = AtomicUsize::new(0);
    let mut open = || -> io::Result<Box<dyn Read + Send>> {
        opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Cursor::new(content(200_000))))
    };
    let name = reference(&server, "app");
    let pushed = client().push_blob(&name, &layer(&bytes), &mut open, None, None);
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(opened.load(Ordering::SeqCst), 3);
    assert_eq!(server.count("POST", "/v2/app/blobs/uploads/"), 3);
}

#[test]
fn an_upload_whose_answer_got_lost_is_not_sent_twice() {
    let memory = Memory::default();
    let server = TestServer::start(move |request| {
        let reply = memory.answer(request);
        match request.method.as_str() {
            "PUT" => reply.fault(Fault::Silence),
            _ => reply,
        }
    });
    let pushed = push(&client(), &reference(&server, "app"), b"x").unwrap();
    assert_eq!(pushed, Pushed::Existed);
    let puts = server
        .requests()
        .iter()
        .filter(|r| r.method == "PUT")
        .count();
    assert_eq!(puts, 1);
}

#[test]
fn an_upload_to_another_host_carries_no_authorization() {
    let storage = TestServer::start_at("127.0.0.2:0", |_| Reply::new(201));
    let location = storage.url("/store/1");
    let server = TestServer::start(move |request| match request.header("authorization") {
        None => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) if request.method == "POST" => Reply::new(202).header("Location", &location),
        Some(_) => Reply::new(404),
    });
    let client = client_as(&server.host(), "me", "secret");
    let pushed = push(&client, &reference(&server, "app"), b"x").unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    let arrived = &storage.requests()[0];
    assert_eq!(arrived.header("authorization"), None);
    assert_eq!(
        arrived.query("digest").unwrap(),
        layer(b"x").digest.to_string()
    );
    assert_eq!(arrived.body, b"x");
}

#[test]
fn content_of_another_size_than_described_is_not_pushed() {
    for (length, problem) in [(900, "900 bytes instead of 1000"), (1100, "more than 1000")] {
        let memory = Memory::default();
        let server = TestServer::start(move |request| memory.answer(request));
        let descriptor = layer(&content(1000));
        let name = reference(&server, "app");
        let error = push_as(&client(), &name, &descriptor, &content(length), None).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(problem), "{error}: {source}");
        assert_eq!(server.count("POST", "/v2/app/blobs/uploads/"), 1);
    }
}

#[test]
fn content_that_cannot_be_read_is_no_error_of_the_connection() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the disk is gone",
            ))
        }
    }
    let memory = Memory::default();
    let server = TestServer::start(move |request| memory.answer(request));
    let mut open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Broken)) };
    let name = reference(&server, "app");
    let error = client()
        .push_blob(&name, &layer(b"x"), &mut open, None, None)
        .unwrap_err();
    assert!(matches!(error.reason(), Reason::Content(_)), "{error}");
    assert_eq!(server.count("POST", "/v2/app/blobs/uploads/"), 1);
}

#[test]
fn refusals_of_a_push_are_told() {
    let memory = Memory::default();
    let server = TestServer::start(move |request| memory.answer(request));
    let name = reference(&server, "app");
    let descriptor = layer(b"right");
    let error = push_as(&client(), &name, &descriptor, b"wrong", None).unwrap_err();
    assert!(error.to_string().contains("400 DIGEST_INVALID"), "{error}");

    let server = TestServer::start(open_registry(|request| match request.method.as_str() {
        "POST" => Reply::new(202),
        "PUT" => Reply::new(201).header("Docker-Content-Digest", Digest::of(b"lie")),
        _ => Reply::new(404),
    }));
    let name = reference(&server, "app");
    let error = push(&client(), &name, b"x").unwrap_err();
    assert!(error.to_string().contains("no place to go"), "{error}");
    let error = client()
        .push_manifest(&name, media_type::OCI_MANIFEST, &image_manifest(b"x"))
        .unwrap_err();
    assert!(
        matches!(error.reason(), Reason::WrongDigest { .. }),
        "{error}"
    );
}

#[test]
fn a_manifest_is_not_pushed_under_a_digest_that_is_not_its_own() {
    let memory = Memory::default();
    let server = TestServer::start(move |request| memory.answer(request));
    let name = reference(&server, "app").with_digest(&Digest::of(b"other"));
    let manifest = image_manifest(b"x");
    let error = client().push_manifest(&name, media_type::OCI_MANIFEST, &manifest);
    assert!(matches!(
        error.unwrap_err().reason(),
        Reason::WrongDigest { .. }
    ));
    assert!(server.requests().is_empty());
}
