//! Parallel gzip with bytes that do not depend on the number of threads.
//!
//! The data is divided into blocks of a fixed size. Each becomes a deflate stream that ends at
//! a byte boundary without being final, and may refer to the last 32 KiB of the block before
//! it: so all of them, and an empty final block, make one member of RFC 1952, which is hardly
//! larger than what a single thread would make. One member, because there are readers that
//! take the end of the first for the end of the stream.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress};

/// Part of the format: another size gives other bytes.
const BLOCK: usize = 256 << 10;
/// How far back deflate can refer.
const WINDOW: usize = 32 << 10;
/// The library, and the version of what this module makes of it: part of the names under which
/// compressed layers are recorded. To be changed with everything that changes the bytes.
pub(super) const VERSION: &str = "zlib-rs-2";
/// No name, no time, unknown operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty final block of fixed codes.
const FINAL_BLOCK: [u8; 2] = [3, 0];

struct Compressed {
    bytes: Vec<u8>,
    crc: Crc,
}

/// A block to compress.
struct Job {
    block: Arc<Vec<u8>>,
    before: Option<Arc<Vec<u8>>>,
    result: std::sync::mpsc::Sender<io::Result<Compressed>>,
}

/// A gzip writer that compresses with several threads.
/// Without [`ParallelGzip::finish`] the stream lacks its end.
pub struct ParallelGzip<W: Write> {
    out: W,
    block: Vec<u8>,
    before: Option<Arc<Vec<u8>>>,
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
    /// Results in the order of their blocks.
    results: VecDeque<Receiver<io::Result<Compressed>>>,
    crc: Crc,
}

impl<W: Write> ParallelGzip<W> {
    /// Starts a stream with the given level, 0 to 9, and number of threads.
    pub fn new(mut out: W, level: u32, threads: usize) -> io::Result<ParallelGzip<W>> {
        let level = Compression::new(level.min(9));
        let threads = threads.max(1);
        let (jobs, queue) = sync_channel::<Job>(threads);
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Vec::new();
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            let worker = std::thread::Builder::new()
                .name("gzip".to_owned())
                .spawn(move || work(&queue, level))?;
            workers.push(worker);
        }
        out.write_all(&HEADER)?;
        Ok(ParallelGzip {
            out,
            block: Vec::with_capacity(BLOCK),
            before: None,
            jobs: Some(jobs),
            workers,
            results: VecDeque::new(),
            crc: Crc::new(),
        })
    }

    fn submit(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let block = Arc::new(block);
        let before = self.before.replace(Arc::clone(&block));
        let (result, receiver) = channel();
        let job = Job {
            block,
            before,
            result,
        };
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        if !matches!(sent, Some(Ok(()))) {
            return Err(stopped());
        }
        self.results.push_back(receiver);
        if self.results.len() > 2 * self.workers.len() {
            self.write_next()?;
        }
        Ok(())
    }

    fn write_next(&mut self) -> io::Result<()> {
        let Some(result) = self.results.pop_front() else {
            return Ok(());
        };
        let compressed = result.recv().map_err(|_| stopped())??;
        self.crc.combine(&compressed.crc);
        self.out.write_all(&compressed.bytes)
    }

    /// Writes what is left and the end of the stream, and returns the writer below.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.submit()?;
        }
        while !self.results.is_empty() {
            self.write_next()?;
        }
        self.jobs = None;
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| stopped())?;
        }
        self.out.write_all(&FINAL_BLOCK)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn stopped() -> io::Error {
    io::Error::other("a compression thread has stopped")
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = data.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&data[..count]);
        if self.block.len() == BLOCK {
            self.submit()?;
        }
        Ok(count)
    }

    /// Does nothing: blocks have a fixed size.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(queue: &Mutex<Receiver<Job>>, level: Compression) {
    let mut state = Compress::new(level, false);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        let before = job.before.as_ref().map_or(&[][..], |before| &before[..]);
        let window = &before[before.len().saturating_sub(WINDOW)..];
        // Nobody waits any more where the writer was dropped.
        let _ = job.result.send(compress(&mut state, window, &job.block));
    }
}

fn compress(state: &mut Compress, window: &[u8], block: &[u8]) -> io::Result<Compressed> {
    state.reset();
    if !window.is_empty() {
        state.set_dictionary(window).map_err(io::Error::other)?;
    }
    let mut crc = Crc::new();
    crc.update(block);
    let mut bytes = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let consumed = usize::try_from(state.total_in()).unwrap_or(block.len());
        bytes.reserve(32 * 1024);
        state
            .compress_vec(&block[consumed..], &mut bytes, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        // Room that is left over means that the flush is complete.
        let done = state.total_in() == block.len() as u64;
        if done && bytes.len() < bytes.capacity() {
            return Ok(Compressed { bytes, crc });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length)
            .map(|at| if at % 3 == 0 { next() } else { b'x' })
            .collect()
    }

    fn gzip(data: &[u8], level: u32, threads: usize) -> Vec<u8> {
        let mut writer = ParallelGzip::new(Vec::new(), level, threads).unwrap();
        for part in data.chunks(100_003) {
            writer.write_all(part).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        let data = sample(5 * BLOCK + 17);
        let one = gzip(&data, 6, 1);
        assert_eq!(one, gzip(&data, 6, 2));
        assert_eq!(one, gzip(&data, 6, 7));
        assert!(one.len() < data.len());
    }

    #[test]
    fn output_is_a_single_member_that_any_reader_takes() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            for level in [0, 1, 6, 9] {
                let data = sample(length);
                let compressed = gzip(&data, level, 2);
                let mut decoder = flate2::bufread::GzDecoder::new(&compressed[..]);
                let mut back = Vec::new();
                decoder.read_to_end(&mut back).unwrap();
                assert!(back == data, "{length} bytes at level {level}");
                assert!(decoder.into_inner().is_empty(), "bytes behind the member");
            }
        }
    }

    #[test]
    fn a_writer_that_fails_is_an_error_and_no_hang() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                if data.len() == HEADER.len() {
                    return Ok(data.len());
                }
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = ParallelGzip::new(Full, 1, 2).unwrap();
        let written = writer.write_all(&sample(20 * BLOCK));
        let error = written
            .and_then(|()| writer.finish().map(drop))
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }
}
