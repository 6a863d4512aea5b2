//! A digest that is made beside what writes the data.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::image::{Algorithm, Digest, Hasher};

/// What is handed over at once. Less data than this is not worth a thread.
const CHUNK: usize = 256 << 10;
/// How many chunks may wait.
const QUEUE: usize = 4;

/// Digests what is written to it, in a thread of its own where that is much.
pub struct Digester {
    chunk: Vec<u8>,
    place: Place,
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
            chunk: Vec::new(),
            place: Place::Here(Hasher::new(algorithm)),
        }
    }

    /// Returns the digest of all that was written.
    ///
    /// # Errors
    /// The thread has died.
    pub fn finish(self) -> io::Result<Digest> {
        let mut hasher = match self.place {
            Place::Here(hasher) => hasher,
            Place::Beside { full, thread, .. } => {
                drop(full);
                thread.join().map_err(|_| stopped())?
            }
        };
        hasher.update(&self.chunk);
        Ok(hasher.finish())
    }

    /// Hands over a full chunk.
    fn hand_over(&mut self) -> io::Result<()> {
        if let Place::Here(hasher) = &self.place {
            match beside(hasher.clone()) {
                Ok(beside) => self.place = beside,
                // Without threads it works as well.
                Err(_) => return self.digest_here(),
            }
        }
        if let Place::Beside { full, empty, .. } = &self.place {
            let next = empty
                .try_recv()
                .unwrap_or_else(|_| Vec::with_capacity(CHUNK));
            full.send(std::mem::replace(&mut self.chunk, next))
                .map_err(|_| stopped())?;
        }
        Ok(())
    }

    fn digest_here(&mut self) -> io::Result<()> {
        if let Place::Here(hasher) = &mut self.place {
            hasher.update(&self.chunk);
            self.chunk.clear();
        }
        Ok(())
    }
}

/// Goes on with a digest in a new thread.
fn beside(mut hasher: Hasher) -> io::Result<Place> {
    let (full, filled) = sync_channel::<Vec<u8>>(QUEUE);
    // Room for all there are, so that giving one back never waits.
    let (emptied, empty) = sync_channel(QUEUE + 2);
    let work = move || {
        for mut chunk in filled {
            hasher.update(&chunk);
            chunk.clear();
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

impl Write for Digester {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK {
            self.hand_over()?;
        }
        let count = data.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_data_however_long_it_is() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK + 7] {
            let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut digester = Digester::new(Algorithm::Sha256);
            for part in data.chunks(100_003) {
                digester.write_all(part).unwrap();
            }
            assert_eq!(digester.finish().unwrap(), Digest::of(&data), "{length}");
        }
    }
}
