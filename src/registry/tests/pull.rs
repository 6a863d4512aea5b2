//! Manifests and blobs, verified.

use std::io::Read;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::image::{Digest, Index, IndexEntry, ManifestKind, Platform};
use crate::registry::testserver::{Fault, Memory, image_manifest, ranged};

fn index_of(entries: &[(&[u8], Option<&str>)], kind: &str) -> Vec<u8> {
    let entry = |(bytes, platform): &(&[u8], Option<&str>)| IndexEntry {
        descriptor: Descriptor::of(kind, bytes),
        platform: platform.map(|p| p.parse().unwrap()),
        ref_name: None,
        image_name: None,
    };
    Index {
        entries: entries.iter().map(entry).collect(),
    }
    .to_bytes()
}

fn serve(memory: Memory) -> TestServer {
    TestServer::start(move |request| memory.answer(request))
}

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

#[test]
fn a_name_resolves_through_an_index_to_the_image_of_the_platform() {
    let memory = Memory::default();
    let (amd64, arm64) = (image_manifest(b"amd64"), image_manifest(b"arm64"));
    memory.add_manifest("amd64", media_type::OCI_MANIFEST, &amd64);
    memory.add_manifest("arm64", media_type::OCI_MANIFEST, &arm64);
    let index = index_of(
        &[(&amd64, Some("linux/amd64")), (&arm64, Some("linux/arm64"))],
        media_type::OCI_MANIFEST,
    );
    memory.add_manifest("latest", media_type::OCI_INDEX, &index);
    let server = serve(memory);
    let client = client();
    let name = reference(&server, "app");

    let fetched = client.manifest(&name).unwrap();
    assert_eq!(fetched.bytes, index);
    assert_eq!(fetched.media_type, media_type::OCI_INDEX);
    let resolved = client.resolve(&name, &platform("linux/arm64")).unwrap();
    assert_eq!(
        resolved.index.map(|index| index.digest),
        Some(Digest::of(&index))
    );
    assert_eq!(resolved.manifest.digest, Digest::of(&arm64));
    assert!(matches!(resolved.manifest.kind, ManifestKind::Image(_)));
    let pinned = name.with_digest(&Digest::of(&amd64));
    let resolved = client.resolve(&pinned, &platform("linux/arm64")).unwrap();
    assert!(resolved.index.is_none());
    assert_eq!(resolved.manifest.digest, Digest::of(&amd64));

    let error = client.resolve(&name, &platform("linux/s390x")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no image for platform linux/s390x")
    );
    assert!(error.hint().unwrap().contains("linux/amd64, linux/arm64"));

    let accept = server.requests()[0].header("accept").unwrap().to_owned();
    assert!(accept.contains(media_type::OCI_INDEX) && accept.contains(media_type::DOCKER_MANIFEST));
    let agent = server.requests()[0]
        .header("user-agent")
        .unwrap()
        .to_owned();
    assert_eq!(agent, format!("kiln/{}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn indexes_are_followed_two_deep_and_no_deeper() {
    let memory = Memory::default();
    let image = image_manifest(b"x");
    let inner = index_of(&[(&image, Some("linux/amd64"))], media_type::OCI_MANIFEST);
    let outer = index_of(&[(&inner, None)], media_type::OCI_INDEX);
    let deepest = index_of(&[(&outer, None)], media_type::OCI_INDEX);
    memory.add_manifest("image", media_type::OCI_MANIFEST, &image);
    for (tag, index) in [("1", &inner), ("2", &outer), ("3", &deepest)] {
        memory.add_manifest(tag, media_type::OCI_INDEX, index);
    }
    let server = serve(memory);
    let resolve = |tag| client().resolve(&reference(&server, tag), &platform("linux/amd64"));
    let resolved = resolve("app:2").unwrap();
    assert_eq!(
        resolved.index.map(|index| index.digest),
        Some(Digest::of(&outer))
    );
    assert_eq!(resolved.manifest.bytes, image);
    let error = resolve("app:3").unwrap_err();
    assert!(error.to_string().contains("deeper"), "{error}");
}

#[test]
fn a_registry_that_lies_about_a_manifests_digest_is_found_out() {
    let manifest = image_manifest(b"x");
    let body = manifest.clone();
    let server = TestServer::start(open_registry(move |_| {
        Reply::new(200)
            .header("Content-Type", media_type::OCI_MANIFEST)
            .header("Docker-Content-Digest", Digest::of(b"something else"))
            .body(body.clone())
    }));
    let error = client().manifest(&reference(&server, "app")).unwrap_err();
    assert!(
        matches!(error.reason(), Reason::WrongDigest { .. }),
        "{error}"
    );

    let server = TestServer::start(open_registry(move |_| {
        Reply::new(200)
            .header("Content-Type", media_type::OCI_MANIFEST)
            .body(manifest.clone())
    }));
    let other = reference(&server, "app").with_digest(&Digest::of(b"something else"));
    let error = client().manifest(&other).unwrap_err();
    assert!(
        matches!(error.reason(), Reason::WrongDigest { .. }),
        "{error}"
    );
    assert!(client().manifest(&reference(&server, "app")).is_ok());
}

#[test]
fn an_endless_manifest_is_refused_at_the_limit() {
    let server = TestServer::start(open_registry(|_| {
        Reply::new(200)
            .body(vec![b' '; 1 << 20])
            .fault(Fault::Endless)
    }));
    let error = client().manifest(&reference(&server, "app")).unwrap_err();
    assert!(matches!(error.reason(), Reason::TooLarge { .. }), "{error}");
}

#[test]
fn a_missing_tag_is_told_from_a_missing_repository() {
    let server = serve(Memory::default());
    let error = client().manifest(&reference(&server, "app:9")).unwrap_err();
    assert!(
        error.to_string().ends_with("manifest 9: no such tag"),
        "{error}"
    );
    assert_eq!(error.hint().unwrap(), "tags that exist: 1, 2");
    let error = client().manifest(&reference(&server, "other")).unwrap_err();
    assert!(
        matches!(error.reason(), Reason::RepositoryNotFound),
        "{error}"
    );
    assert_eq!(error.repository(), "other");
}

#[test]
fn a_blob_streams_with_progress() {
    let bytes = content(300_000);
    let memory = Memory::default();
    memory.add_blob(&bytes);
    let server = serve(memory);
    let (last, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, counted) = (last.clone(), calls.clone());
    let client = client();
    let name = reference(&server, "app");
    let mut reader = client
        .blob(&name, &layer(&bytes))
        .unwrap()
        .with_progress(Arc::new(move |count| {
            assert!(seen.swap(count, Ordering::SeqCst) < count);
            counted.fetch_add(1, Ordering::SeqCst);
        }));
    assert!(read(&mut reader) == (bytes.clone(), None));
    assert_eq!(last.load(Ordering::SeqCst), 300_000);
    assert!(calls.load(Ordering::SeqCst) > 1);
    assert!(client.blob_exists(&name, &layer(&bytes).digest).unwrap());
    assert!(!client.blob_exists(&name, &Digest::of(b"other")).unwrap());
    let error = client.blob(&name, &layer(b"other")).err().unwrap();
    assert!(matches!(error.reason(), Reason::NotFound), "{error}");
}

#[test]
fn an_empty_blob_is_a_blob() {
    let memory = Memory::default();
    memory.add_blob(b"");
    let server = serve(memory);
    let mut reader = client()
        .blob(&reference(&server, "app"), &layer(b""))
        .unwrap();
    assert_eq!(read(&mut reader), (Vec::new(), None));
}

/// Serves `bytes`, cut after each number of bytes of `cuts` in turn.
fn cutting(bytes: Vec<u8>, cuts: Vec<usize>, with_ranges: bool) -> TestServer {
    let cuts = Mutex::new(cuts.into_iter());
    TestServer::start(open_registry(move |request| {
        let reply = if with_ranges {
            ranged(request, &bytes)
        } else {
            Reply::new(200).body(bytes.clone())
        };
        match cuts.lock().unwrap().next() {
            Some(count) => reply.fault(Fault::CutAfter(count)),
            None => reply,
        }
    }))
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let bytes = content(500_000);
    let server = cutting(bytes.clone(), vec![200_000, 100_000, 0], true);
    let mut reader = client()
        .blob(&reference(&server, "app"), &layer(&bytes))
        .unwrap();
    assert!(read(&mut reader) == (bytes, None));
    let ranges: Vec<Option<String>> = server
        .requests()
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    let from = |start: usize| Some(format!("bytes={start}-"));
    assert_eq!(ranges, [None, from(200_000), from(300_000), from(300_000)]);
}

#[test]
fn a_registry_without_ranges_is_read_again_from_the_start() {
    let bytes = content(500_000);
    let server = cutting(bytes.clone(), vec![200_000, 300_000], false);
    let mut reader = client()
        .blob(&reference(&server, "app"), &layer(&bytes))
        .unwrap();
    assert!(read(&mut reader) == (bytes, None));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn many_cuts_are_borne_as_long_as_there_is_progress() {
    let bytes = content(2_000_000);
    let server = cutting(bytes.clone(), vec![100_000; 18], true);
    let mut reader = client()
        .blob(&reference(&server, "app"), &layer(&bytes))
        .unwrap();
    assert!(read(&mut reader) == (bytes, None));
    assert_eq!(server.requests().len(), 19);
}

#[test]
fn cuts_without_progress_come_to_an_end() {
    let bytes = content(100_000);
    let server = cutting(bytes.clone(), vec![10; 1000], true);
    let mut reader = client()
        .blob(&reference(&server, "app"), &layer(&bytes))
        .unwrap();
    let (got, error) = read(&mut reader);
    assert_eq!(got, bytes[..got.len()]);
    assert!(error.unwrap().contains("the connection failed"));
    assert_eq!(server.requests().len(), 4);
    // The error is not followed by what looks like an end.
    assert!(reader.read(&mut [0; 10]).is_err());
}

#[test]
fn a_wrong_blob_is_never_given_out_whole() {
    let (right, mut wrong) = (content(100_000), content(100_000));
    wrong[50] ^= 1;
    let server = cutting(wrong.clone(), vec![], true);
    let mut reader = client()
        .blob(&reference(&server, "app"), &layer(&right))
        .unwrap();
    let (got, error) = read(&mut reader);
    assert!(got.len() < wrong.len());
    let error = error.unwrap();
    assert!(error.contains("wrong digest"), "{error}");
    assert!(
        error.contains(&server.host()) && error.contains("app"),
        "{error}"
    );
    assert!(reader.read(&mut [0; 10]).is_err());
}

#[test]
fn a_blob_of_another_size_is_refused_before_its_first_byte() {
    for (served, described) in [(1000, 2000), (2000, 1000)] {
        let server = cutting(content(served), vec![], true);
        let descriptor = layer(&content(described));
        let error = client().blob(&reference(&server, "app"), &descriptor);
        let error = error.err().unwrap();
        assert!(
            matches!(error.reason(), Reason::WrongSize { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_blob_without_a_length_is_held_to_the_descriptor() {
    for (served, fault, problem) in [
        (70_000, Fault::Chunked, None),
        (
            60_000,
            Fault::Chunked,
            Some("truncated: expected 70000 bytes, got 60000"),
        ),
        (
            80_000,
            Fault::Chunked,
            Some("more than the expected 70000 bytes"),
        ),
        (
            70_000,
            Fault::Endless,
            Some("more than the expected 70000 bytes"),
        ),
    ] {
        let server = TestServer::start(open_registry(move |_| {
            Reply::new(200).body(content(served)).fault(fault)
        }));
        let bytes = content(70_000);
        let mut reader = client()
            .blob(&reference(&server, "app"), &layer(&bytes))
            .unwrap();
        let (got, error) = read(&mut reader);
        match problem {
            None => assert!(got == bytes && error.is_none(), "{error:?}"),
            Some(problem) => {
                assert!(got.len() < 70_000, "{problem}");
                assert!(error.unwrap().contains(problem), "{problem}");
            }
        }
    }
}

#[test]
fn a_reader_that_stops_early_can_still_have_the_digest_checked() {
    let (right, mut wrong) = (content(100_000), content(100_000));
    wrong[99_999] ^= 1;
    let server = cutting(wrong, vec![], true);
    let mut reader = client()
        .blob(&reference(&server, "app"), &layer(&right))
        .unwrap();
    reader.read_exact(&mut [0; 1000]).unwrap();
    let error = reader.finish().unwrap_err();
    let carried = RegistryError::in_io_error(&error).unwrap();
    assert!(matches!(carried.reason(), Reason::WrongDigest { .. }));
}
