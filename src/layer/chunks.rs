//! A stream that is handed on chunk by chunk, each by value: so another thread gets what was
//! read from a file without a copy.

use std::io::{self, Read, Write};

/// How much is handed on at once. A stream that is shorter is one chunk.
pub(super) const CHUNK: usize = 256 << 10;

/// What takes a stream: every writer, and a [`super::Digester`].
pub trait Chunks {
    /// Takes what comes next. Returns a buffer for what follows; what is in it means nothing.
    ///
    /// # Errors
    /// It can't be written.
    fn take(&mut self, chunk: Vec<u8>) -> io::Result<Vec<u8>>;

    /// Learns that nothing follows: what was taken and still waits is to be written.
    ///
    /// # Errors
    /// It can't be written.
    fn end(&mut self) -> io::Result<()>;
}

impl<W: Write + ?Sized> Chunks for W {
    fn take(&mut self, chunk: Vec<u8>) -> io::Result<Vec<u8>> {
        self.write_all(&chunk)?;
        Ok(chunk)
    }

    fn end(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Chunks for &mut (dyn Chunks + '_) {
    fn take(&mut self, chunk: Vec<u8>) -> io::Result<Vec<u8>> {
        (**self).take(chunk)
    }

    fn end(&mut self) -> io::Result<()> {
        (**self).end()
    }
}

/// Gathers a stream into chunks.
pub struct Chunked<C> {
    out: C,
    /// Its length says how much of it has ever been written to, here or where it comes from.
    chunk: Vec<u8>,
    filled: usize,
    handed_on: u64,
}

impl<C: Chunks> Chunked<C> {
    /// Starts a stream.
    pub fn new(out: C) -> Self {
        Self {
            out,
            chunk: Vec::new(),
            filled: 0,
            handed_on: 0,
        }
    }

    /// Ends the stream: hands on what is left of it, and returns what took it.
    ///
    /// # Errors
    /// It can't be written.
    pub fn finish(mut self) -> io::Result<C> {
        self.flush()?;
        Ok(self.out)
    }

    /// Writes all that a reader has.
    ///
    /// # Errors
    /// It can't be read, or not be written.
    pub fn copy_from(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        loop {
            match reader.read(self.room(CHUNK)?) {
                Ok(0) => return Ok(()),
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the length of the stream so far.
    pub(super) fn length(&self) -> u64 {
        self.handed_on + self.filled as u64
    }

    /// Returns room for up to `want` bytes, at least one. They are part of the stream once
    /// [`Self::advance`] says so.
    pub(super) fn room(&mut self, want: usize) -> io::Result<&mut [u8]> {
        if self.filled >= CHUNK {
            self.hand_on()?;
        }
        let end = self.filled.saturating_add(want).min(CHUNK);
        if self.chunk.len() < end {
            self.chunk.reserve_exact(CHUNK - self.chunk.len());
            self.chunk.resize(end, 0);
        }
        Ok(&mut self.chunk[self.filled..end])
    }

    /// Makes so much of the room a part of the stream.
    pub(super) fn advance(&mut self, count: usize) {
        self.filled += count;
    }

    /// Hands on a part of the stream that was made elsewhere, and leaves an empty buffer in its
    /// place.
    pub(super) fn append(&mut self, part: &mut Vec<u8>) -> io::Result<()> {
        self.hand_on()?;
        self.handed_on += part.len() as u64;
        *part = self.out.take(std::mem::take(part))?;
        part.clear();
        Ok(())
    }

    fn hand_on(&mut self) -> io::Result<()> {
        if self.filled > 0 {
            let mut chunk = std::mem::take(&mut self.chunk);
            chunk.truncate(self.filled);
            self.handed_on += self.filled as u64;
            self.filled = 0;
            self.chunk = self.out.take(chunk)?;
        }
        Ok(())
    }
}

impl<C: Chunks> Write for Chunked<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let room = self.room(bytes.len())?;
        let count = room.len();
        room.copy_from_slice(&bytes[..count]);
        self.advance(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()?;
        self.out.end()
    }
}
