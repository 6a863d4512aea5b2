//! HTTP as far as the servers of tests speak it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// A request as it came; the names of headers are in lower case.
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Serves connections to a port of loopback, each in a thread. They end with the process, or
/// when a client hangs up, whatever they are in the middle of.
pub fn listen(serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream).ok());
        }
    });
    address
}

/// Reads a request; nothing at the end, or where TLS begins, which is not spoken here.
pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
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
        query: query.to_owned(),
        headers: BTreeMap::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim().to_owned();
        request.headers.insert(name.to_ascii_lowercase(), value);
    }
    let length = request.header("content-length");
    let length = length.map_or(0, |text| text.parse().unwrap());
    match request.header("transfer-encoding") {
        Some(_) => request.body = read_chunks(reader)?,
        None => drop(reader.take(length).read_to_end(&mut request.body)?),
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
