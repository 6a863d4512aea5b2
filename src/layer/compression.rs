//! Compression of layers and archives: told by content, never by name or media type.

use std::io::{self, BufRead, BufReader, Read};

/// A compression of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// None.
    None,
    /// RFC 1952, of any number of members.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

/// The largest window that a zstd stream may ask for, as a power of two: 128 MiB, which is
/// the limit of the zstd tool too.
const ZSTD_WINDOW_LOG: u32 = 27;
/// What an xz stream may ask for: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// Enough to tell each of them.
const MAGIC: usize = 6;

impl Compression {
    /// Returns the compression of a stream that starts with `magic`.
    pub fn detect(magic: &[u8]) -> Compression {
        match magic {
            [0x1f, 0x8b, 8, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame, with which some writers start.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            _ => Compression::None,
        }
    }

    /// Returns a reader of what `reader` holds compressed in this way.
    pub fn decoder<'r>(
        self,
        reader: impl Read + Send + 'r,
    ) -> io::Result<Box<dyn Read + Send + 'r>> {
        let reader = BufReader::with_capacity(64 * 1024, reader);
        self.decoder_of_buffered(reader)
    }

    fn decoder_of_buffered<'r>(
        self,
        reader: impl BufRead + Send + 'r,
    ) -> io::Result<Box<dyn Read + Send + 'r>> {
        Ok(match self {
            Compression::None => Box::new(reader),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
            Compression::Xz => {
                let concatenated = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, concatenated)
                    .map_err(io::Error::other)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
            }
        })
    }

    /// Looks at the first bytes of `reader`, and returns the compression that they tell and a
    /// reader of the content.
    pub fn decode<'r>(
        mut reader: impl Read + Send + 'r,
    ) -> io::Result<(Compression, Box<dyn Read + Send + 'r>)> {
        let mut magic = Vec::with_capacity(MAGIC);
        (&mut reader).take(MAGIC as u64).read_to_end(&mut magic)?;
        let compression = Compression::detect(&magic);
        let whole = io::Cursor::new(magic).chain(reader);
        Ok((compression, compression.decoder(whole)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn encoded(compression: Compression, data: &[u8]) -> Vec<u8> {
        match compression {
            Compression::None => data.to_vec(),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(data, 1).unwrap(),
            Compression::Bzip2 => {
                let mut encoder =
                    bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Zstd,
        Compression::Bzip2,
        Compression::Xz,
    ];

    #[test]
    fn every_compression_is_told_by_its_content_and_read_in_parts() {
        for compression in ALL {
            let (one, two) = (b"first ".repeat(1000), b"second".repeat(1000));
            // Concatenated streams are one stream in all of these formats.
            let stream = [encoded(compression, &one), encoded(compression, &two)].concat();
            let (told, mut reader) = Compression::decode(&stream[..]).unwrap();
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            assert_eq!(told, compression);
            assert_eq!(content, [one, two].concat(), "{compression:?}");
        }
    }

    #[test]
    fn a_truncated_stream_is_an_error_in_every_compression() {
        for compression in &ALL[1..] {
            let mut stream = encoded(*compression, &b"data".repeat(10_000));
            stream.truncate(stream.len() - 3);
            let (_, mut reader) = Compression::decode(&stream[..]).unwrap();
            assert!(
                reader.read_to_end(&mut Vec::new()).is_err(),
                "{compression:?}"
            );
        }
    }

    #[test]
    fn an_empty_stream_is_empty() {
        let (told, mut reader) = Compression::decode(&b""[..]).unwrap();
        assert_eq!(told, Compression::None);
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
}
