//! Compression of layers that leave the store: on all cores, with bytes that depend on the data
//! and on the name of the compressor only.

use std::io::{self, Write};

use zstd::zstd_safe::{self, CParameter};

use super::compression::Compression;
use super::gzip::{self, ParallelGzip};

/// zlib's default.
const GZIP_LEVEL: u32 = 6;
/// zstd's default.
const ZSTD_LEVEL: i32 = 3;
const MOST_ZSTD: i32 = 22;
/// What one thread of zstd compresses at once. Part of the format; zstd's own choice, which is
/// several times its window, would take more memory.
const ZSTD_JOB: u32 = 2 << 20;
/// Each takes memory, more so at the higher levels.
const MOST_THREADS: usize = 8;

/// What compresses a layer, and how thoroughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressor {
    /// Nothing does.
    None,
    /// gzip, from 0 to 9.
    Gzip(u32),
    /// zstd, from 1 to 22.
    Zstd(i32),
}

/// A compressor that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressorError {
    /// The format.
    #[error("unknown compression {0:?}")]
    Unknown(String),
    /// The level.
    #[error("{format} has no compression level {level}")]
    Level {
        /// The format.
        format: &'static str,
        /// The level.
        level: i64,
    },
}

impl CompressorError {
    /// Returns what there is.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            CompressorError::Unknown(_) => "there are gzip, zstd and none",
            CompressorError::Level { format: "gzip", .. } => "gzip has the levels 0 to 9",
            CompressorError::Level { format: "zstd", .. } => "zstd has the levels 1 to 22",
            CompressorError::Level { .. } => "leave the level out, or say gzip or zstd",
        };
        Some(hint.to_owned())
    }
}

impl Default for Compressor {
    /// Returns what every registry and every program reads.
    fn default() -> Compressor {
        Compressor::Gzip(GZIP_LEVEL)
    }
}

impl Compressor {
    /// Returns the compressor of a format: `gzip`, `zstd`, or `none`, which is called
    /// `uncompressed` too. Without a level it is the format's usual one.
    ///
    /// # Errors
    /// [`CompressorError`].
    pub fn new(format: &str, level: Option<i64>) -> Result<Compressor, CompressorError> {
        let error = |format, level| CompressorError::Level { format, level };
        match format {
            "gzip" => match level {
                None => Ok(Compressor::Gzip(GZIP_LEVEL)),
                Some(level @ 0..=9) => Ok(Compressor::Gzip(level.unsigned_abs() as u32)),
                Some(level) => Err(error("gzip", level)),
            },
            "zstd" => match level.map(i32::try_from) {
                None => Ok(Compressor::Zstd(ZSTD_LEVEL)),
                Some(Ok(level @ 1..=MOST_ZSTD)) => Ok(Compressor::Zstd(level)),
                Some(_) => Err(error("zstd", level.unwrap_or_default())),
            },
            "none" | "uncompressed" => match level {
                None => Ok(Compressor::None),
                Some(level) => Err(error("none", level)),
            },
            other => Err(CompressorError::Unknown(other.to_owned())),
        }
    }

    /// Returns the name under which what it made is recorded: two compressors of one name make
    /// the same bytes of the same data.
    pub fn name(self) -> String {
        match self {
            Compressor::None => "none".to_owned(),
            Compressor::Gzip(level) => format!("gzip-{level}-{}", gzip::VERSION),
            Compressor::Zstd(level) => format!("zstd-{level}-{}", zstd_safe::version_string()),
        }
    }

    /// Returns the format of what it makes.
    pub fn format(self) -> Compression {
        match self {
            Compressor::None => Compression::None,
            Compressor::Gzip(_) => Compression::Gzip,
            Compressor::Zstd(_) => Compression::Zstd,
        }
    }

    /// Returns a writer that compresses on all cores.
    ///
    /// # Errors
    /// There are no threads or no memory.
    pub fn encoder<W: Write>(self, out: W) -> io::Result<Encoder<W>> {
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        self.encoder_of(out, cores.min(MOST_THREADS))
    }

    fn encoder_of<W: Write>(self, out: W, threads: usize) -> io::Result<Encoder<W>> {
        Ok(match self {
            Compressor::None => Encoder::None(out),
            Compressor::Gzip(level) => Encoder::Gzip(ParallelGzip::new(out, level, threads)?),
            Compressor::Zstd(level) => {
                let mut encoder = zstd::Encoder::new(out, level)?;
                encoder.multithread(u32::try_from(threads.max(1)).unwrap_or(1))?;
                encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
        })
    }
}

/// A writer that compresses. Without [`Encoder::finish`] the stream lacks its end.
pub enum Encoder<W: Write> {
    /// Passes on what it gets.
    None(W),
    /// See [`Compressor::Gzip`].
    Gzip(ParallelGzip<W>),
    /// See [`Compressor::Zstd`].
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Writes what is left and the end of the stream, and returns the writer below.
    ///
    /// # Errors
    /// Those of that writer.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Encoder::None(mut out) => {
                out.flush()?;
                Ok(out)
            }
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => {
                let mut out = encoder.finish()?;
                out.flush()?;
                Ok(out)
            }
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::None(out) => out.write(data),
            Encoder::Gzip(encoder) => encoder.write(data),
            Encoder::Zstd(encoder) => encoder.write(data),
        }
    }

    /// Does nothing: flushing would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;
    use std::io::Read as _;

    /// Returns bytes that compress to about a half.
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

    fn compressed(compressor: Compressor, data: &[u8], threads: usize, part: usize) -> Vec<u8> {
        let mut encoder = compressor.encoder_of(Vec::new(), threads).unwrap();
        for part in data.chunks(part) {
            encoder.write_all(part).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    const ALL: [Compressor; 3] = [
        Compressor::None,
        Compressor::Gzip(GZIP_LEVEL),
        Compressor::Zstd(ZSTD_LEVEL),
    ];

    #[test]
    fn bytes_depend_neither_on_threads_nor_on_how_the_data_comes() {
        let data = sample(5_000_017);
        for compressor in ALL {
            let one = Digest::of(&compressed(compressor, &data, 1, 100_003));
            for (threads, part) in [(2, 100_003), (7, 100_003), (2, 4096), (3, data.len())] {
                let other = Digest::of(&compressed(compressor, &data, threads, part));
                assert_eq!(
                    one, other,
                    "{compressor:?}, {threads} threads, {part} bytes"
                );
            }
        }
    }

    #[test]
    fn what_is_compressed_is_told_by_its_format_and_comes_back() {
        for compressor in ALL {
            for length in [0, 1, 70_000, 3_000_000] {
                let data = sample(length);
                let bytes = compressed(compressor, &data, 2, 100_003);
                let (told, mut reader) = Compression::decode(&bytes[..]).unwrap();
                let mut back = Vec::new();
                reader.read_to_end(&mut back).unwrap();
                assert!(back == data, "{compressor:?}, {length} bytes");
                assert_eq!(told, compressor.format());
            }
        }
    }

    #[test]
    fn a_higher_level_makes_less_of_it_and_has_another_name() {
        let data = sample(1_000_000);
        for (low, high) in [
            (Compressor::Gzip(1), Compressor::Gzip(9)),
            (Compressor::Zstd(1), Compressor::Zstd(19)),
        ] {
            let size = |compressor| compressed(compressor, &data, 2, 65_536).len();
            assert!(size(low) > size(high), "{} {}", size(low), size(high));
            assert_ne!(low.name(), high.name());
        }
    }

    /// The name stands for these bytes: where they change, the version in the name has to.
    #[test]
    fn the_bytes_that_a_name_of_gzip_stands_for() {
        let bytes = compressed(Compressor::default(), &sample(600_000), 2, 65_536);
        assert_eq!(Compressor::default().name(), "gzip-6-zlib-rs-2");
        assert_eq!(
            Digest::of(&bytes).to_string(),
            "sha256:e2367f0da35704f5c22e052cc8f6c8a7481506d2af415f3e6f9c8d4544e8f81b"
        );
    }

    #[test]
    fn what_does_not_exist_is_refused_with_what_does() {
        for (format, level, message, hint) in [
            (
                "lz4",
                None,
                "unknown compression \"lz4\"",
                "there are gzip, zstd and none",
            ),
            (
                "gzip",
                Some(10),
                "gzip has no compression level 10",
                "gzip has the levels 0 to 9",
            ),
            (
                "zstd",
                Some(0),
                "zstd has no compression level 0",
                "zstd has the levels 1 to 22",
            ),
            (
                "none",
                Some(1),
                "none has no compression level 1",
                "leave the level out, or say gzip or zstd",
            ),
        ] {
            let error = Compressor::new(format, level).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint().as_deref(), Some(hint));
        }
    }
}
