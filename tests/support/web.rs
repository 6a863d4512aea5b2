//! A web server on loopback that keeps a log, and serves git repositories too.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::http::{self, Request};

/// What a path gives.
#[derive(Clone, Debug, Default)]
pub struct Page {
    body: Vec<u8>,
    status: u16,
    headers: Vec<(&'static str, String)>,
    /// How often the connection ends after how many bytes of the body.
    cuts: Option<(usize, usize)>,
}

impl Page {
    /// Returns a page of the given bytes.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            status: 200,
            ..Self::default()
        }
    }

    /// Returns an answer without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Ends the connection after so many bytes of the body, so many times.
    pub fn cut(mut self, after: usize, times: usize) -> Self {
        self.cuts = Some((after, times));
        self
    }

    fn value(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Content {
    pages: BTreeMap<String, Page>,
    repositories: Option<PathBuf>,
    /// What who asks has to say, where not all may.
    authorization: Option<String>,
    log: Vec<String>,
}

/// A server on loopback. Its thread ends with the process.
pub struct WebServer {
    address: SocketAddr,
    content: Arc<Mutex<Content>>,
}

impl WebServer {
    /// Starts a server without pages.
    pub fn start() -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        let shared = content.clone();
        let address = http::listen(move |stream| serve(stream, &shared));
        Self { address, content }
    }

    /// Returns the URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts a page at a path.
    pub fn put(&self, path: &str, page: Page) {
        let mut content = self.content.lock().unwrap();
        content.pages.insert(path.to_owned(), page);
    }

    /// Serves the repositories in a directory below `/git/`.
    pub fn serve_git(&self, directory: &Path) {
        self.content.lock().unwrap().repositories = Some(directory.to_owned());
    }

    /// Answers none but those who send this as `Authorization`.
    pub fn require(&self, authorization: &str) {
        self.content.lock().unwrap().authorization = Some(authorization.to_owned());
    }

    /// Returns what was asked since the last call, as `GET /x 200`.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.content.lock().unwrap().log)
    }
}

fn serve(stream: TcpStream, content: &Mutex<Content>) -> io::Result<()> {
    let Some(request) = http::read(&mut BufReader::new(&stream))? else {
        return Ok(());
    };
    let mut stream = stream;
    let required = content.lock().unwrap().authorization.clone();
    if required.is_some() && required.as_ref() != request.headers.get("authorization") {
        let told = request.headers.get("authorization");
        let told = told.map_or("without a word", |_| "with other words");
        let note = format!("{} {} refused {told}", request.method, request.path);
        content.lock().unwrap().log.push(note);
        return stream.write_all(
            b"HTTP/1.1 401 X\r\nConnection: close\r\nContent-Length: 0\r\n\
              WWW-Authenticate: Basic realm=\"x\"\r\n\r\n",
        );
    }
    let repositories = content.lock().unwrap().repositories.clone();
    if let Some(path) = request.path.strip_prefix("/git")
        && let Some(repositories) = repositories
    {
        let answer = git_backend(&repositories, path, &request)?;
        let note = format!("{} {}", request.method, request.path);
        content.lock().unwrap().log.push(note);
        return stream.write_all(&answer);
    }
    let mut content = content.lock().unwrap();
    let mut page = match content.pages.get_mut(&request.path) {
        Some(page) => {
            let now = page.clone();
            if let Some((_, times)) = &mut page.cuts {
                *times = times.saturating_sub(1);
            }
            now
        }
        None => Page::status(404),
    };
    let same = |asked: &str, has: &str| {
        let asked = request.headers.get(asked).map(String::as_str);
        asked.is_some() && asked == page.value(has)
    };
    if same("if-none-match", "ETag") || same("if-modified-since", "Last-Modified") {
        page.status = 304;
        page.body.clear();
    }
    let log = format!("{} {} {}", request.method, request.path, page.status);
    content.log.push(log);
    drop(content);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", page.status);
    if page.status != 304 {
        head.push_str(&format!("Content-Length: {}\r\n", page.body.len()));
    }
    for (name, value) in &page.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    let end = match page.cuts {
        Some((after, times)) if times > 0 => after,
        _ => page.body.len(),
    };
    stream.write_all(&page.body[..end])
}

/// Has git answer, as a CGI program; see git-http-backend(1).
fn git_backend(root: &Path, path: &str, request: &Request) -> io::Result<Vec<u8>> {
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", &request.query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.take().unwrap().write_all(&request.body)?;
    let output = child.wait_with_output()?.stdout;
    let end = output.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other("no header"))?;
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let body = &output[end + 4..];
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n\r\n"
    );
    Ok([answer.as_bytes(), body].concat())
}
