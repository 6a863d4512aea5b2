//! The client against servers that behave, and servers that do not.

mod auth;
mod network;
mod pull;
mod push;

use std::io::Read;
use std::time::Duration;

use super::testserver::{Reply, Request, TestServer};
use super::*;
use crate::image::{Descriptor, Reference, media_type};

/// Returns options that do not wait long.
fn options() -> ClientOptions {
    ClientOptions {
        proxies: Proxies::default(),
        retry: RetryPolicy {
            attempts: 4,
            first_delay: Duration::from_millis(5),
            max_delay: Duration::from_millis(20),
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            silence: Duration::from_secs(5),
            upload_answer: Duration::from_secs(5),
        },
        ..ClientOptions::default()
    }
}

fn client() -> Client {
    Client::new(options())
}

fn client_as(registry: &str, username: &str, password: &str) -> Client {
    let credential = Credential::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    };
    Client::new(ClientOptions {
        credentials: Credentials::anonymous().with(registry, credential),
        ..options()
    })
}

fn reference(server: &TestServer, rest: &str) -> Reference {
    format!("{}/{rest}", server.host()).parse().unwrap()
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media_type::OCI_LAYER, bytes)
}

/// Returns bytes without a period, so that a wrong offset shows.
fn content(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Reads a blob to its end; an error comes with the bytes that were given out before it.
fn read(reader: &mut BlobReader) -> (Vec<u8>, Option<String>) {
    let mut bytes = Vec::new();
    let error = reader.read_to_end(&mut bytes).err();
    let text = error.map(|error| {
        let carried = RegistryError::in_io_error(&error).expect("a RegistryError");
        carried.to_string()
    });
    (bytes, text)
}

/// Puts a handler of the probe in front of another.
fn open_registry(
    handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| match request.path() {
        "/v2/" => Reply::new(200),
        _ => handler(request),
    }
}

#[test]
fn a_client_is_shared_by_threads_and_a_download_moves_to_another() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    fn moved<T: Send + 'static>() {}
    shared::<Client>();
    moved::<BlobReader>();
    moved::<RegistryError>();
}
