//! A small HTTP server that can be told to misbehave, and a registry in memory to put
//! behind it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::image::{Digest, media_type};

/// A request as it arrived; header names are in lower case.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        Some(
            value
                .replace("%3A", ":")
                .replace("%2F", "/")
                .replace("%2C", ","),
        )
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path() == path
    }
}

/// How an answer goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Closes the connection without a word.
    Silence,
    /// Announces the whole body, sends this much of it, and closes.
    CutAfter(usize),
    /// Sends the body in chunks, without its length.
    Chunked,
    /// Sends the body in chunks, over and over.
    Endless,
    /// Sends something that is not HTTP.
    Garbage,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub fault: Fault,
}

impl Reply {
    pub fn new(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            fault: Fault::None,
        }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Reply {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Reply {
        self.body = body.into();
        self
    }

    pub fn fault(mut self, fault: Fault) -> Reply {
        self.fault = fault;
        self
    }

    /// Makes an error document as registries do.
    pub fn error(status: u16, code: &str, message: &str) -> Reply {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Reply::new(status).body(body)
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on a loopback address; it ends with its value.
pub struct TestServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl TestServer {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> TestServer {
        TestServer::start_at("127.0.0.1:0", handler)
    }

    pub fn start_at(
        address: &str,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> TestServer {
        let listener = TcpListener::bind(address).unwrap();
        let mut server = TestServer {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            stop: Arc::default(),
            acceptor: None,
        };
        let handler: Arc<Handler> = Arc::new(handler);
        let (requests, stop) = (server.requests.clone(), server.stop.clone());
        let connections = server.connections.clone();
        server.acceptor = Some(thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                let (handler, requests) = (handler.clone(), requests.clone());
                let copy = stream.try_clone().unwrap();
                connections.lock().unwrap().push(copy);
                // A client that hangs up ends its thread, whatever it was in the middle of.
                thread::spawn(move || serve(stream, handler.as_ref(), &requests).ok());
            }
        }));
        server
    }

    /// Returns the address, which is also a registry's name.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns what was asked so far, but for the probes of the registry's root.
    pub fn requests(&self) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        let interesting = requests.iter().filter(|request| request.path() != "/v2/");
        interesting.cloned().collect()
    }

    /// Returns how often a method and path were asked for.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|r| r.is(method, path)).count()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
        for connection in self.connections.lock().unwrap().iter() {
            connection.shutdown(Shutdown::Both).ok();
        }
    }
}

fn serve(
    stream: TcpStream,
    handler: &Handler,
    requests: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        requests.lock().unwrap().push(request.clone());
        let reply = handler(&request);
        if !write_reply(&mut writer, &request, &reply)? {
            break;
        }
    }
    writer.shutdown(Shutdown::Both)
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    // Nothing more, or the first byte of TLS, which is not spoken here.
    if matches!(reader.fill_buf()?.first(), None | Some(0x16)) {
        return Ok(None);
    }
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: u64 = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = Vec::new();
    if headers.contains_key("transfer-encoding") {
        body = read_chunks(reader)?;
    } else if reader.take(length).read_to_end(&mut body)? as u64 != length {
        return Ok(None);
    }
    Ok(Some(Request {
        method,
        target,
        headers,
        body,
    }))
}

/// Reads a body in chunks to its end.
/// See <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>.
fn read_chunks(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        reader.by_ref().take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Returns whether the connection stays open.
fn write_reply(writer: &mut TcpStream, request: &Request, reply: &Reply) -> std::io::Result<bool> {
    match reply.fault {
        Fault::Silence => return Ok(false),
        Fault::Garbage => {
            writer.write_all(b"\x15\x03\x01\x00\x02\x02\x16 no HTTP\r\n\r\n")?;
            return Ok(false);
        }
        _ => {}
    }
    let chunked = matches!(reply.fault, Fault::Chunked | Fault::Endless);
    let mut head = format!("HTTP/1.1 {} Status\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let has_length = reply
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if chunked {
        head += "Transfer-Encoding: chunked\r\n";
    } else if !has_length && request.method != "CONNECT" {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    writer.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" || request.method == "CONNECT" {
        return Ok(true);
    }
    if !chunked {
        return match reply.fault {
            Fault::CutAfter(count) => {
                writer.write_all(&reply.body[..count.min(reply.body.len())])?;
                Ok(false)
            }
            _ => writer.write_all(&reply.body).map(|()| true),
        };
    }
    loop {
        writer.write_all(format!("{:x}\r\n", reply.body.len()).as_bytes())?;
        writer.write_all(&reply.body)?;
        writer.write_all(b"\r\n")?;
        if reply.fault != Fault::Endless {
            break;
        }
    }
    writer.write_all(b"0\r\n\r\n")?;
    Ok(true)
}

/// A registry in memory, that behaves.
#[derive(Default)]
pub struct Memory {
    pub blobs: Mutex<HashMap<String, Vec<u8>>>,
    pub manifests: Mutex<HashMap<String, (String, Vec<u8>)>>,
    /// What has come by PATCH.
    pub begun: Mutex<Vec<u8>>,
}

impl Memory {
    /// Stores a blob in every repository.
    pub fn add_blob(&self, bytes: &[u8]) {
        let digest = Digest::of(bytes).to_string();
        self.blobs.lock().unwrap().insert(digest, bytes.to_vec());
    }

    /// Stores a manifest of repository `app` under a tag and under its digest.
    pub fn add_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) {
        let mut manifests = self.manifests.lock().unwrap();
        for name in [tag, &Digest::of(bytes).to_string()] {
            let value = (media_type.to_owned(), bytes.to_vec());
            manifests.insert(format!("/v2/app/manifests/{name}"), value);
        }
    }

    pub fn answer(&self, request: &Request) -> Reply {
        let path = request.path();
        if path == "/v2/" {
            return Reply::new(200);
        }
        if path == "/v2/app/tags/list" {
            return Reply::new(200).body(r#"{"name":"app","tags":["1","2"]}"#);
        }
        if path.contains("/blobs/uploads/") {
            return self.upload(request);
        }
        if let Some((_, digest)) = path.split_once("/blobs/") {
            return match self.blobs.lock().unwrap().get(digest) {
                Some(bytes) => ranged(request, bytes),
                None => Reply::error(404, "BLOB_UNKNOWN", "blob unknown"),
            };
        }
        if path.contains("/manifests/") {
            return self.manifest(request);
        }
        Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry")
    }

    fn upload(&self, request: &Request) -> Reply {
        if request.method == "POST" {
            return Reply::new(202).header("Location", format!("{}u-1?_state=x", request.path()));
        }
        let mut begun = self.begun.lock().unwrap();
        begun.extend_from_slice(&request.body);
        if request.method == "PATCH" {
            return Reply::new(202).header("Location", format!("{}?_state=y", request.path()));
        }
        let digest = request.query("digest").unwrap();
        let body = std::mem::take(&mut *begun);
        if Digest::of(&body).to_string() != digest {
            return Reply::error(400, "DIGEST_INVALID", "provided digest did not match");
        }
        self.add_blob(&body);
        Reply::new(201).header("Docker-Content-Digest", digest)
    }

    fn manifest(&self, request: &Request) -> Reply {
        if request.method == "PUT" {
            let digest = Digest::of(&request.body);
            let kind = request.header("content-type").unwrap().to_owned();
            let name = request.path().rsplit('/').next().unwrap();
            self.add_manifest(name, &kind, &request.body);
            return Reply::new(201).header("Docker-Content-Digest", digest);
        }
        match self.manifests.lock().unwrap().get(request.path()) {
            Some((kind, bytes)) => Reply::new(200)
                .header("Content-Type", kind)
                .header("Docker-Content-Digest", Digest::of(bytes))
                .body(bytes.clone()),
            None => Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }
}

/// Answers with `bytes`, or with the part that the request asks for.
pub fn ranged(request: &Request, bytes: &[u8]) -> Reply {
    let start = request.header("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    match start {
        Some(start) if start >= bytes.len() => Reply::new(416),
        Some(start) => Reply::new(206)
            .header(
                "Content-Range",
                format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
            )
            .body(&bytes[start..]),
        None => Reply::new(200).body(bytes),
    }
}

/// Returns an image manifest of one layer.
pub fn image_manifest(layer: &[u8]) -> Vec<u8> {
    use crate::image::{Descriptor, Manifest};
    Manifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::of(media_type::OCI_CONFIG, b"{}"),
        layers: vec![Descriptor::of(media_type::OCI_LAYER_GZIP, layer)],
    }
    .to_bytes()
}
