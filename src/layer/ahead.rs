//! Reading ahead: what downloads, what decompresses and what extracts run beside each other.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::chunks::CHUNK;
use super::{Chunks, Compression};

/// How many chunks may wait.
const QUEUE: usize = 3;

/// Decompresses a stream, of whatever compression, and gives what it holds to `consume`.
/// Reading, decompressing and `consume` have a thread each. The stream is read as far as its
/// compression says that it goes, and a little further.
///
/// # Errors
/// It can't be read, or there are no threads. What fails later, `consume` gets to see.
pub fn decode_beside<T>(
    reader: impl Read + Send,
    consume: impl FnOnce(&mut dyn Read) -> T,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let (compression, mut content) = Compression::decode(read_ahead(scope, reader, None)?)?;
        if compression == Compression::None {
            return Ok(consume(&mut content));
        }
        Ok(consume(&mut read_ahead(scope, content, None)?))
    })
}

/// As [`decode_beside`]; `out` gets what `consume` has read, all of it where it reads to the end.
///
/// # Errors
/// As [`decode_beside`]. What `out` refuses, `consume` gets to see.
pub fn decode_through<T>(
    reader: impl Read + Send,
    out: &mut (dyn Chunks + Send),
    consume: impl FnOnce(&mut dyn Read) -> T,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let (_, content) = Compression::decode(read_ahead(scope, reader, None)?)?;
        Ok(consume(&mut read_ahead(scope, content, Some(out))?))
    })
}

/// Reads in a thread of its own, which ends with the reader that is returned.
fn read_ahead<'scope, 'o>(
    scope: &'scope Scope<'scope, '_>,
    reader: impl Read + Send + 'scope,
    out: Option<&'o mut (dyn Chunks + Send)>,
) -> io::Result<Ahead<'o>> {
    let (full, filled) = sync_channel(QUEUE);
    // Room for all there are, so that giving one back never waits.
    let (emptied, empty) = sync_channel(QUEUE + 2);
    std::thread::Builder::new()
        .name("read".to_owned())
        .spawn_scoped(scope, move || fill(reader, &full, &empty))?;
    Ok(Ahead {
        filled,
        emptied,
        out,
        chunk: Vec::new(),
        at: 0,
    })
}

/// Fills chunks until the stream ends or nobody wants it any more.
fn fill(mut reader: impl Read, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        let result = fill_chunk(&mut reader, &mut chunk);
        // What came before an error comes before it again.
        let is_end = chunk.is_empty();
        if (!is_end && full.send(Ok(chunk)).is_err()) || (is_end && result.is_ok()) {
            return;
        }
        if let Err(error) = result {
            let _ = full.send(Err(error));
            return;
        }
    }
}

/// Reads until a chunk is full, whatever is in it, or the stream ends.
fn fill_chunk(reader: &mut impl Read, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.resize(CHUNK, 0);
    let mut filled = 0;
    let mut result = Ok(());
    while filled < CHUNK {
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    chunk.truncate(filled);
    result
}

/// What another thread reads.
struct Ahead<'o> {
    filled: Receiver<io::Result<Vec<u8>>>,
    emptied: SyncSender<Vec<u8>>,
    /// What gets each chunk that was read.
    out: Option<&'o mut (dyn Chunks + Send)>,
    chunk: Vec<u8>,
    at: usize,
}

impl Ahead<'_> {
    /// Hands on the chunk that was read, and gets the next one. Returns nothing at the end.
    fn next_chunk(&mut self) -> io::Result<Option<()>> {
        let mut done = std::mem::take(&mut self.chunk);
        self.at = 0;
        if let Some(out) = &mut self.out
            && !done.is_empty()
        {
            done = out.take(done)?;
        }
        let Ok(next) = self.filled.recv() else {
            return Ok(None);
        };
        self.chunk = next?;
        // The other thread may have ended.
        let _ = self.emptied.try_send(done);
        Ok(Some(()))
    }
}

impl Read for Ahead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && self.next_chunk()?.is_none() {
            return Ok(0);
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzipped(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn read(reader: impl Read + Send) -> (Vec<u8>, io::Result<usize>) {
        let mut bytes = Vec::new();
        let mut through = Vec::new();
        let consume = |content: &mut dyn Read| content.read_to_end(&mut bytes);
        let result = decode_through(reader, &mut through, consume).unwrap();
        assert!(through == bytes);
        (bytes, result)
    }

    #[test]
    fn what_is_read_ahead_is_what_the_stream_holds() {
        for length in [0, 1, CHUNK, 10 * CHUNK + 1] {
            let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            assert!(read(&data[..]).0 == data, "{length}");
            assert!(read(&gzipped(&data)[..]).0 == data, "{length}");
            let zstd = zstd::stream::encode_all(&data[..], 1).unwrap();
            assert!(read(&zstd[..]).0 == data, "{length}");
            let mut bytes = Vec::new();
            decode_beside(&gzipped(&data)[..], |content| {
                content.read_to_end(&mut bytes)
            })
            .unwrap()
            .unwrap();
            assert!(bytes == data, "{length}");
        }
    }

    #[test]
    fn an_error_comes_where_it_occurred() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
        let data = vec![7; CHUNK + 1];
        let (bytes, result) = read(data.chain(Broken));
        assert!(bytes == data);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn who_stops_early_waits_for_nobody() {
        let endless = io::repeat(1);
        let mut one = [0; 1];
        decode_beside(endless, |content| content.read_exact(&mut one))
            .unwrap()
            .unwrap();
        assert_eq!(one, [1]);
    }
}
