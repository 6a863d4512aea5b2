//! A digest that is made beside what writes the data.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::Chunks;
use super::chunks::CHUNK;
use crate::image::{Algorithm, Digest, Hasher};

/// How many chunks may wait.
const QUEUE: usize = 4;

/// Digests a stream, in a thread of its own where that is more than a chunk.
pub struct Digester {
    place: Place,
    taken: usize,
}

/// Where the digest is made.
enum Place {
    Here(Hasher),
    Beside {
        full: SyncSender<Vec<u8>>,
        /// Chunks to be filled again.
        empty: Receiver<Vec<u8>>,
        thread: JoinHandle<Hasher>,
    },
}

impl Digester {
    /// Starts a digest.
    pub fn new(algorithm: Algorithm) -> Digester {
        Digester {
            place: Place::Here(Hasher::new(algorithm)),
            taken: 0,
        }
    }

    /// Returns the digest of all that was taken.
    ///
    /// # Errors
    /// The thread has died.
    pub fn finish(self) -> io::Result<Digest> {
        let hasher = match self.place {
            Place::Here(hasher) => hasher,
            Place::Beside { full, thread, .. } => {
                drop(full);
                thread.join().map_err(|_| stopped())?
            }
        };
        Ok(hasher.finish())
    }
}

impl Chunks for Digester {
    fn take(&mut self, chunk: Vec<u8>) -> io::Result<Vec<u8>> {
        self.taken = self.taken.saturating_add(chunk.len());
        if let Place::Here(hasher) = &mut self.place {
            let beside = match self.taken > CHUNK {
                true => beside(hasher.clone()).ok(),
                false => None,
            };
            match beside {
                Some(beside) => self.place = beside,
                // Less is not worth a thread, and without threads it works as well.
                None => hasher.update(&chunk),
            }
        }
        let Place::Beside { full, empty, .. } = &self.place else {
            return Ok(chunk);
        };
        full.send(chunk).map_err(|_| stopped())?;
        Ok(empty.try_recv().unwrap_or_default())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Digests a stream on its way to a writer.
pub struct DigestingWriter<W> {
    out: W,
    digester: Digester,
}

impl<W: Write> DigestingWriter<W> {
    /// Starts a digest of what `out` gets.
    pub fn new(out: W, algorithm: Algorithm) -> Self {
        let digester = Digester::new(algorithm);
        Self { out, digester }
    }

    /// Returns the digest of all that was written.
    ///
    /// # Errors
    /// As [`Digester::finish`].
    pub fn finish(self) -> io::Result<Digest> {
        self.digester.finish()
    }
}

impl<W: Write> Chunks for DigestingWriter<W> {
    fn take(&mut self, chunk: Vec<u8>) -> io::Result<Vec<u8>> {
        self.out.write_all(&chunk)?;
        self.digester.take(chunk)
    }

    fn end(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Goes on with a digest in a new thread.
fn beside(mut hasher: Hasher) -> io::Result<Place> {
    let (full, filled) = sync_channel::<Vec<u8>>(QUEUE);
    // Room for all there are, so that giving one back never waits.
    let (emptied, empty) = sync_channel(QUEUE + 2);
    let work = move || {
        for chunk in filled {
            hasher.update(&chunk);
            // Who writes may have ended.
            let _ = emptied.try_send(chunk);
        }
        hasher
    };
    let thread = std::thread::Builder::new()
        .name("digest".to_owned())
        .spawn(work)?;
    Ok(Place::Beside {
        full,
        empty,
        thread,
    })
}

fn stopped() -> io::Error {
    io::Error::other("the thread of a digest has stopped")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::chunks::Chunked;
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_data_however_long_it_is() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK + 7] {
            let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut chunked = Chunked::new(Digester::new(Algorithm::Sha256));
            for (index, mut part) in data.chunks(100_003).enumerate() {
                match index % 7 {
                    3 => chunked.append(&mut part.to_vec()).unwrap(),
                    5 => chunked.copy_from(&mut part).unwrap(),
                    _ => chunked.write_all(part).unwrap(),
                }
            }
            assert_eq!(chunked.length(), length as u64);
            let digester = chunked.finish().unwrap();
            assert_eq!(digester.finish().unwrap(), Digest::of(&data), "{length}");
        }
    }
}
