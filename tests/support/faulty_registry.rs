//! A registry in memory that keeps a log of what it is asked, and goes wrong where it is told to.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{self, Request};
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
    /// A status that may pass, and after how many seconds it does.
    Busy(u16, u64),
    /// This is where it is now.
    Redirect(String),
    /// This many bytes are announced; what there is comes.
    Length(usize),
    /// The body begins again and again.
    Endless,
    /// Nothing comes for this long.
    Pause(Duration),
    /// Nothing comes any more after this many bytes.
    Stall(usize),
    /// `Docker-Content-Digest` says this.
    Digest(String),
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
    /// By path: what goes wrong, and how often it still does.
    faults: BTreeMap<String, (Fault, usize)>,
    /// `Basic …`, where it is asked for.
    authorization: Option<String>,
    tokens: Option<Tokens>,
    tag_pages: TagPages,
    address: String,
    log: Vec<String>,
    /// By path: how many bytes of bodies were sent.
    sent: BTreeMap<String, u64>,
    /// The paths that were asked for by someone who said who they are.
    authorized: Vec<String>,
}

/// How the list of tags comes.
#[derive(Default)]
pub enum TagPages {
    /// At once.
    #[default]
    One,
    /// So many at a time.
    Of(usize),
    /// The same page again and again.
    Endless,
    /// The next page is there.
    At(String),
}

/// Tokens that the registry asks for.
#[derive(Default)]
struct Tokens {
    /// How many requests each is good for.
    uses: usize,
    /// How many were given.
    given: usize,
    /// How many requests the last one is still good for.
    left: usize,
}

/// A server on loopback with the repository `app`, and any that is pushed to.
pub struct FaultyRegistry {
    address: SocketAddr,
    content: Arc<Mutex<Content>>,
}

impl FaultyRegistry {
    /// Starts an empty registry. Its thread ends with the process.
    pub fn start() -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        let shared = content.clone();
        let address = http::listen(move |stream| serve(stream, &shared));
        content.lock().unwrap().address = address.to_string();
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

    /// Makes the answer to a path, as below `/v2/`, go wrong from now on.
    pub fn fault(&self, path: &str, fault: Fault) {
        self.fault_times(path, fault, usize::MAX);
    }

    /// As [`FaultyRegistry::fault`], so many times.
    pub fn fault_times(&self, path: &str, fault: Fault, times: usize) {
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/v2/{path}"),
        };
        let mut content = self.content.lock().unwrap();
        content.faults.insert(path, (fault, times));
    }

    /// Makes all go right again.
    pub fn repair(&self) {
        self.content.lock().unwrap().faults.clear();
    }

    /// Asks for a user and password from now on, given in the form of a docker `auth` entry.
    pub fn require(&self, auth: &str) {
        self.content.lock().unwrap().authorization = Some(format!("Basic {auth}"));
    }

    /// Asks for tokens from now on, each good for so many requests. `/token` gives them.
    pub fn require_tokens(&self, uses: usize) {
        let tokens = Tokens {
            uses,
            ..Tokens::default()
        };
        self.content.lock().unwrap().tokens = Some(tokens);
    }

    /// Sends the list of tags in other pages from now on.
    pub fn page_tags(&self, pages: TagPages) {
        self.content.lock().unwrap().tag_pages = pages;
    }

    /// Returns how many bytes of bodies were sent for a path below `/v2/`.
    pub fn sent(&self, path: &str) -> u64 {
        let content = self.content.lock().unwrap();
        let sent = content.sent.get(&format!("/v2/{path}"));
        sent.copied().unwrap_or_default()
    }

    /// Returns the paths that were asked for with credentials or a token.
    pub fn authorized(&self) -> Vec<String> {
        self.content.lock().unwrap().authorized.clone()
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

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Status\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head
    }

    fn json(document: &Value) -> Self {
        Self {
            body: document.to_string().into_bytes(),
            ..Self::new(200)
        }
    }

    /// Leaves out what comes before the offset that was asked for.
    fn after_offset(mut self, request: &Request) -> Self {
        let range = request.header("range");
        let offset = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        if let Some(offset) = offset {
            let (offset, size): (usize, _) = (offset.parse().unwrap(), self.body.len());
            self.status = 206;
            self.body.drain(..offset);
            let range = format!("bytes {offset}-{}/{size}", size - 1);
            return self.with("Content-Range", range);
        }
        self
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
    while let Some(request) = http::read(&mut reader)? {
        let (mut reply, fault) = {
            let mut content = content.lock().unwrap();
            content.note(&request);
            (content.answer(&request), content.fault_of(&request.path))
        };
        let mut announced = None;
        let mut end = usize::MAX;
        let mut stalls = false;
        match fault {
            None => {}
            Some(Fault::Silence) => return Ok(()),
            Some(Fault::Status(status, code, message)) => {
                reply = Reply::error(status, code, message);
            }
            Some(Fault::Busy(status, seconds)) => {
                reply = Reply::error(status, "TOOMANYREQUESTS", "slow down")
                    .with("Retry-After", seconds);
            }
            Some(Fault::Redirect(url)) => reply = Reply::new(307).with("Location", url),
            Some(Fault::Altered) => {
                if let Some(last) = reply.body.last_mut() {
                    *last ^= 1;
                }
            }
            Some(Fault::CutAfter(count)) => end = count,
            Some(Fault::Length(length)) => announced = Some(length),
            Some(Fault::Endless) => return send_endless(&mut writer, &reply),
            Some(Fault::Pause(time)) => thread::sleep(time),
            Some(Fault::Stall(count)) => (end, stalls) = (count, true),
            Some(Fault::Digest(digest)) => reply = reply.with("Docker-Content-Digest", digest),
        }
        let announced = announced.unwrap_or(reply.body.len());
        let head = reply.head() + &format!("Content-Length: {announced}\r\n\r\n");
        writer.write_all(head.as_bytes())?;
        if request.method != "HEAD" {
            let body = &reply.body[..end.min(reply.body.len())];
            writer.write_all(body)?;
            let mut content = content.lock().unwrap();
            *content.sent.entry(request.path).or_default() += body.len() as u64;
            drop(content);
            if stalls {
                thread::sleep(Duration::from_secs(600));
            }
            if body.len() < announced {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn send_endless(writer: &mut TcpStream, reply: &Reply) -> io::Result<()> {
    let head = reply.head() + "Transfer-Encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes())?;
    let mut body = reply.body.clone();
    // In pieces of some size, so that it takes no time to send what is too much.
    while body.len() < 1 << 16 {
        body.extend_from_slice(&reply.body);
        body.push(b' ');
    }
    loop {
        write!(writer, "{:x}\r\n", body.len())?;
        writer.write_all(&body)?;
        writer.write_all(b"\r\n")?;
    }
}

impl Content {
    fn note(&mut self, request: &Request) {
        let path = &request.path;
        if request.header("authorization").is_some() {
            self.authorized.push(path.clone());
        }
        match path.as_str() {
            "/v2/" => {}
            "/token" => {
                let query = request.query.replace("%3A", ":").replace("%2C", ",");
                self.log.push(format!("GET /token?{query}"));
            }
            path => self.log.push(format!("{} {path}", request.method)),
        }
    }

    /// Returns what goes wrong with an answer now.
    fn fault_of(&mut self, path: &str) -> Option<Fault> {
        let (fault, times) = self.faults.get_mut(path)?;
        *times = times.checked_sub(1)?;
        Some(fault.clone())
    }

    /// Returns what is answered to those who may not ask.
    fn refusal(&mut self, request: &Request) -> Option<Reply> {
        let told = request.header("authorization");
        let refused = Reply::error(401, "UNAUTHORIZED", "authentication required");
        if let Some(tokens) = &mut self.tokens {
            if told == Some(&format!("Bearer t{}", tokens.given)) && tokens.left > 0 {
                tokens.left -= 1;
                return None;
            }
            let realm = format!(
                "Bearer realm=\"http://{}/token\",service=\"tests\"",
                self.address
            );
            return Some(refused.with("WWW-Authenticate", realm));
        }
        let known = self.authorization.as_deref();
        (known.is_some() && known != told)
            .then(|| refused.with("WWW-Authenticate", "Basic realm=\"tests\""))
    }

    /// Returns a page of tags, which come in order.
    fn page_of(&self, mut tags: Vec<&str>, query: &str) -> Reply {
        let last = query.split('&').find_map(|pair| pair.strip_prefix("last="));
        let last = last.unwrap_or_default();
        let mut next = None;
        match &self.tag_pages {
            TagPages::One => {}
            TagPages::Of(count) => {
                tags.retain(|tag| *tag > last);
                if tags.len() > *count {
                    tags.truncate(*count);
                    next = Some(format!("/v2/app/tags/list?last={}", tags[count - 1]));
                }
            }
            TagPages::Endless => next = Some("/v2/app/tags/list?last=x".to_owned()),
            TagPages::At(url) => next = Some(url.clone()),
        }
        let reply = Reply::json(&json!({"name": "app", "tags": tags}));
        match next {
            Some(next) => reply.with("Link", format!("<{next}>; rel=\"next\"")),
            None => reply,
        }
    }

    fn answer(&mut self, request: &Request) -> Reply {
        let path = request.path.as_str();
        if let (Some(tokens), "/token") = (&mut self.tokens, path) {
            tokens.given += 1;
            tokens.left = tokens.uses;
            let token = format!("t{}", tokens.given);
            return Reply::json(&json!({"token": token, "expires_in": 300}));
        }
        if let Some(refusal) = self.refusal(request) {
            return refusal;
        }
        let query = request.query.replace("%3A", ":");
        let mut pairs = query.split('&');
        let digest_asked = pairs.find_map(|pair| pair.strip_prefix("digest="));
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
                self.page_of(tags, &request.query)
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
                if digest_asked != Some(digest.as_str()) {
                    return Reply::error(400, "DIGEST_INVALID", "the digest did not match");
                }
                self.blobs.insert(digest, body);
                Reply::new(201)
            }
            "PUT" => {
                let digest = format!("sha256:{}", sha256(&request.body));
                let media_type = request.header("content-type").unwrap_or_default();
                let entry = (media_type.to_owned(), request.body.clone());
                self.manifests.insert(path.to_owned(), entry);
                Reply::new(201).with("Docker-Content-Digest", digest)
            }
            _ => self.read(path).after_offset(request),
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
