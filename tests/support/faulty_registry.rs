//! A registry in memory that keeps a log of what it is asked, and goes wrong where it is told to.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::layer_tar::sha256;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How the answer to a path goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The last byte is another one.
    Altered,
    /// The whole length is announced, and the connection ends after this many bytes.
    CutAfter(usize),
    /// The connection ends without a word.
    Silence,
    /// A status, with an error document of the given code and message.
    Status(u16, &'static str, &'static str),
}

/// An image that was put into the registry.
#[derive(Clone, Debug)]
pub struct Published {
    /// The digest of its config.
    pub id: String,
    /// The digest of its manifest.
    pub manifest: String,
    /// The digest of its only layer, which is also its diff id.
    pub layer: String,
}

#[derive(Default)]
struct Content {
    /// By digest.
    blobs: BTreeMap<String, Vec<u8>>,
    /// By path: the media type and the bytes.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// What has come by PATCH, by path.
    uploads: BTreeMap<String, Vec<u8>>,
    /// How many uploads were begun.
    begun: u32,
    /// By path.
    faults: BTreeMap<String, Fault>,
    /// `Basic …`, where it is asked for.
    authorization: Option<String>,
    log: Vec<String>,
}

/// A server on loopback with the repository `app`, and any that is pushed to.
pub struct FaultyRegistry {
    address: SocketAddr,
    content: Arc<Mutex<Content>>,
}

impl FaultyRegistry {
    /// Starts an empty registry. Its thread ends with the process.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let content = Arc::new(Mutex::new(Content::default()));
        let shared = content.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = shared.clone();
                // A client that hangs up ends its thread, whatever it was in the middle of.
                thread::spawn(move || serve(stream, &content).ok());
            }
        });
        Self { address, content }
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns the reference of a tag of `app`.
    pub fn reference(&self, tag: &str) -> String {
        format!("{}/app:{tag}", self.address)
    }

    /// Puts a blob into all repositories, and returns its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = format!("sha256:{}", sha256(bytes));
        let mut content = self.content.lock().unwrap();
        content.blobs.insert(digest.clone(), bytes.to_vec());
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Puts a manifest of `app` under a tag and its digest, and returns the latter.
    pub fn manifest(&self, tag: &str, media_type: &str, manifest: &Value) -> String {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let digest = format!("sha256:{}", sha256(&bytes));
        let mut content = self.content.lock().unwrap();
        for name in [tag, &digest] {
            let entry = (media_type.to_owned(), bytes.clone());
            let path = format!("/v2/app/manifests/{name}");
            content.manifests.insert(path, entry);
        }
        digest
    }

    /// Puts an image of one layer under a tag of `app`. The same files give the same digests.
    pub fn image(&self, tag: &str, files: &[(&str, &str)]) -> Published {
        self.image_of(tag, &tar_of(files), json!({}))
    }

    /// As [`FaultyRegistry::image`], with the tar of the layer, and keys of the image config
    /// that replace those of the usual one.
    pub fn image_of(&self, tag: &str, tar: &[u8], overrides: Value) -> Published {
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", tar);
        let mut config = json!({
            "created": "2000-01-01T00:00:00Z",
            "architecture": host_architecture(),
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
            "history": [{"created": "2000-01-01T00:00:00Z", "created_by": "COPY . /"}],
        });
        for (key, value) in overrides.as_object().unwrap() {
            config[key] = value.clone();
        }
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            &serde_json::to_vec(&config).unwrap(),
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
        });
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Published {
            id: text(&config["digest"]),
            manifest: self.manifest(tag, MANIFEST, &manifest),
            layer: text(&layer["digest"]),
        }
    }

    /// Makes the answer to a path below `/v2/` go wrong from now on.
    pub fn fault(&self, path: &str, fault: Fault) {
        let mut content = self.content.lock().unwrap();
        content.faults.insert(format!("/v2/{path}"), fault);
    }

    /// Makes all go right again.
    pub fn repair(&self) {
        self.content.lock().unwrap().faults.clear();
    }

    /// Asks for a user and password from now on, given in the form of a docker `auth` entry.
    pub fn require(&self, auth: &str) {
        self.content.lock().unwrap().authorization = Some(format!("Basic {auth}"));
    }

    /// Returns what was asked since the last call, as `GET /v2/app/manifests/1`, without the
    /// probes of the root.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.content.lock().unwrap().log)
    }
}

/// Returns the name of this machine's architecture in image configs.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Returns a tar of plain files, the same for the same files.
pub fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        // Not by set_path, which refuses what a hostile image has.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(946_684_800);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

struct Request {
    method: String,
    path: String,
    query: String,
    media_type: String,
    authorization: Option<String>,
    body: Vec<u8>,
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let document = json!({"errors": [{"code": code, "message": message}]});
        Self {
            body: document.to_string().into_bytes(),
            ..Self::new(status)
        }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

fn serve(stream: TcpStream, content: &Mutex<Content>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        let (mut reply, fault) = {
            let mut content = content.lock().unwrap();
            if request.path != "/v2/" {
                let line = format!("{} {}", request.method, request.path);
                content.log.push(line);
            }
            let fault = content.faults.get(&request.path).cloned();
            (content.answer(&request), fault)
        };
        let mut sent = usize::MAX;
        match fault {
            None => {}
            Some(Fault::Silence) => return Ok(()),
            Some(Fault::Status(status, code, message)) => {
                reply = Reply::error(status, code, message);
            }
            Some(Fault::Altered) => {
                if let Some(last) = reply.body.last_mut() {
                    *last ^= 1;
                }
            }
            Some(Fault::CutAfter(count)) => sent = count,
        }
        let mut head = format!("HTTP/1.1 {} Status\r\n", reply.status);
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", reply.body.len());
        writer.write_all(head.as_bytes())?;
        if request.method != "HEAD" {
            writer.write_all(&reply.body[..sent.min(reply.body.len())])?;
            if sent < reply.body.len() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads a request; nothing at the end, or where TLS begins, which is not spoken here.
fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    if matches!(reader.fill_buf()?.first(), None | Some(0x16)) {
        return Ok(None);
    }
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.replace("%3A", ":"),
        media_type: String::new(),
        authorization: None,
        body: Vec::new(),
    };
    let mut length = 0;
    let mut is_chunked = false;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "transfer-encoding" => is_chunked = true,
            "content-type" => request.media_type = value.to_owned(),
            "authorization" => request.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    match is_chunked {
        true => request.body = read_chunks(reader)?,
        false => drop(reader.take(length).read_to_end(&mut request.body)?),
    }
    Ok(Some(request))
}

/// Reads a body in chunks to its end.
/// See <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>.
fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        reader.by_ref().take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}

impl Content {
    fn answer(&mut self, request: &Request) -> Reply {
        if self.authorization.is_some() && self.authorization != request.authorization {
            return Reply::error(401, "UNAUTHORIZED", "authentication required")
                .with("WWW-Authenticate", "Basic realm=\"tests\"");
        }
        let path = request.path.as_str();
        let digest_asked = request
            .query
            .split('&')
            .find_map(|pair| pair.strip_prefix("digest="));
        match request.method.as_str() {
            _ if path == "/v2/" => Reply::new(200),
            _ if path == "/v2/app/tags/list" => {
                let tags: Vec<_> = self
                    .manifests
                    .keys()
                    .filter_map(|path| {
                        let name = path.strip_prefix("/v2/app/manifests/")?;
                        (!name.contains(':')).then_some(name)
                    })
                    .collect();
                Reply {
                    body: json!({"name": "app", "tags": tags})
                        .to_string()
                        .into_bytes(),
                    ..Reply::new(200)
                }
            }
            "POST" => {
                self.begun += 1;
                Reply::new(202).with("Location", format!("{path}{}", self.begun))
            }
            "PATCH" => {
                let upload = self.uploads.entry(path.to_owned()).or_default();
                upload.extend_from_slice(&request.body);
                Reply::new(202).with("Location", path.to_owned())
            }
            "PUT" if path.contains("/blobs/uploads/") => {
                let mut body = self.uploads.remove(path).unwrap_or_default();
                body.extend_from_slice(&request.body);
                let digest = format!("sha256:{}", sha256(&body));
                if digest_asked != Some(&digest) {
                    return Reply::error(400, "DIGEST_INVALID", "the digest did not match");
                }
                self.blobs.insert(digest, body);
                Reply::new(201)
            }
            "PUT" => {
                let digest = format!("sha256:{}", sha256(&request.body));
                let entry = (request.media_type.clone(), request.body.clone());
                self.manifests.insert(path.to_owned(), entry);
                Reply::new(201).with("Docker-Content-Digest", digest)
            }
            _ => self.read(path),
        }
    }

    fn read(&self, path: &str) -> Reply {
        if let Some((media_type, bytes)) = self.manifests.get(path) {
            return Reply {
                body: bytes.clone(),
                ..Reply::new(200).with("Content-Type", media_type)
            };
        }
        let blob = path
            .rsplit_once("/blobs/")
            .and_then(|(_, digest)| self.blobs.get(digest));
        match blob {
            Some(bytes) => Reply {
                body: bytes.clone(),
                ..Reply::new(200)
            },
            None if path.contains("/blobs/") => {
                Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            }
            None if path.starts_with("/v2/app/") => {
                Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            }
            None => Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry"),
        }
    }
}
