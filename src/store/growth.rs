//! Blobs that are read while they are written: the file is the queue between the two, so that
//! neither a slow reader nor one that starts again costs memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::image::Digest;

/// How much is written between two announcements.
const STEP: u64 = 64 << 10;

/// What writer and readers know of each other.
#[derive(Default)]
struct Growth {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The bytes that can be read.
    written: u64,
    end: Option<End>,
    /// Whether the readers have given up.
    is_abandoned: bool,
}

#[derive(Clone)]
enum End {
    Committed(Digest, u64),
    Failed,
}

impl Growth {
    /// Locks the state, which is whole at any moment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer's end. Dropped early, it tells the readers that the blob will never be whole.
pub(super) struct Announcer {
    growth: Arc<Growth>,
    announced: u64,
}

impl Announcer {
    /// Returns whether so much has been written that it is worth a word.
    pub(super) fn is_due(&self, size: u64) -> bool {
        size - self.announced >= STEP
    }

    /// Says that so many bytes can be read.
    pub(super) fn announce(&mut self, size: u64) -> io::Result<()> {
        self.announced = size;
        let mut state = self.growth.lock();
        state.written = size;
        self.growth.changed.notify_all();
        match state.is_abandoned {
            true => Err(io::Error::other("nobody wants this blob any more")),
            false => Ok(()),
        }
    }

    /// Says that the blob is whole.
    pub(super) fn end(self, digest: Digest, size: u64) {
        let mut state = self.growth.lock();
        state.written = size;
        state.end = Some(End::Committed(digest, size));
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.growth.lock().end.get_or_insert(End::Failed);
        self.growth.changed.notify_all();
    }
}

/// A blob that is being written.
#[derive(Clone)]
pub struct GrowingBlob {
    file: Arc<File>,
    growth: Arc<Growth>,
}

/// Starts to share a file that is being written.
pub(super) fn begin(file: File) -> (Announcer, GrowingBlob) {
    let growth = Arc::new(Growth::default());
    let announcer = Announcer {
        growth: growth.clone(),
        announced: 0,
    };
    let file = Arc::new(file);
    (announcer, GrowingBlob { file, growth })
}

impl GrowingBlob {
    /// Returns a reader of all of it, which waits for what is not written yet. It fails where
    /// the blob does not become whole.
    pub fn reader(&self) -> impl Read + Send + 'static {
        Reader {
            blob: self.clone(),
            at: 0,
        }
    }

    /// Waits until the blob is whole, and returns its digest and size; nothing where it never
    /// will be.
    pub fn whole(&self) -> Option<(Digest, u64)> {
        let mut state = self.growth.lock();
        loop {
            match &state.end {
                Some(End::Committed(digest, size)) => return Some((digest.clone(), *size)),
                Some(End::Failed) => return None,
                None => state = self.growth.wait(state),
            }
        }
    }

    /// Has the writer stop: its next write fails.
    pub fn abandon(&self) {
        self.growth.lock().is_abandoned = true;
    }

    /// Returns whether [`GrowingBlob::abandon`] was called.
    pub fn is_abandoned(&self) -> bool {
        self.growth.lock().is_abandoned
    }
}

struct Reader {
    blob: GrowingBlob,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.blob.growth.lock();
        let left = loop {
            match (state.written - self.at, &state.end) {
                (0, Some(End::Committed(..))) => return Ok(0),
                (_, Some(End::Failed)) => {
                    return Err(io::Error::other("the blob was not written to its end"));
                }
                (0, None) => state = self.blob.growth.wait(state),
                (left, _) => break left,
            }
        };
        drop(state);
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.blob.file.read_at(&mut buffer[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn growing() -> (File, Announcer, GrowingBlob) {
        let file = tempfile::tempfile().unwrap();
        let (announcer, blob) = begin(file.try_clone().unwrap());
        (file, announcer, blob)
    }

    #[test]
    fn readers_get_all_of_it_however_early_they_start() {
        let (mut file, mut announcer, blob) = growing();
        let data: Vec<u8> = (0..1_000_000).map(|at| (at % 251) as u8).collect();
        let digest = Digest::of(&data);
        std::thread::scope(|scope| {
            let read = || {
                let mut bytes = Vec::new();
                blob.reader().read_to_end(&mut bytes).map(|_| bytes)
            };
            let early = scope.spawn(read);
            let mut size = 0;
            for part in data.chunks(70_001) {
                file.write_all(part).unwrap();
                size += part.len() as u64;
                announcer.announce(size).unwrap();
            }
            announcer.end(digest.clone(), size);
            assert!(early.join().unwrap().unwrap() == data);
            assert!(read().unwrap() == data);
            assert_eq!(blob.whole(), Some((digest, size)));
        });
    }

    #[test]
    fn a_writer_that_gives_up_is_no_end_of_the_blob() {
        let (mut file, mut announcer, blob) = growing();
        file.write_all(b"half").unwrap();
        announcer.announce(4).unwrap();
        drop(announcer);
        assert_eq!(blob.whole(), None);
        assert!(blob.reader().read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_writer_stops_where_nobody_reads_any_more() {
        let (_file, mut announcer, blob) = growing();
        announcer.announce(1).unwrap();
        blob.abandon();
        assert!(announcer.announce(2).is_err());
    }
}
