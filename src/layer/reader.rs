//! Reads a tar stream of whatever dialect, entry by entry: ustar, GNU, PAX.
//!
//! The `tar` crate knows the layout of header blocks; what they mean together is decided here,
//! since its own reader splits PAX records at newlines and hides truncation.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};

use super::sparse::{self, Segment};
use super::stat::{Device, Timestamp};
use super::xattr::Xattrs;
use super::{LayerError, escape, pax};

const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// An entry with all that its headers say.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name as it stands in the archive.
    pub name: Vec<u8>,
    pub kind: EntryKind,
    /// The target of a link, as it stands in the archive.
    pub link: Vec<u8>,
    /// The size of the file that it makes.
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
    pub device: Device,
    pub xattrs: Xattrs,
    /// Where the data lies, for a sparse file.
    pub sparse: Option<Vec<Segment>>,
}

/// Reads entries off a stream.
pub(super) struct TarReader<'r> {
    input: &'r mut dyn Read,
    /// Bytes read so far.
    offset: u64,
    /// Data bytes of the present entry that are not read yet.
    remaining: u64,
    /// The zeros behind them.
    padding: u64,
}

type Block = [u8; BLOCK];

impl<'r> TarReader<'r> {
    pub(super) fn new(input: &'r mut dyn Read) -> TarReader<'r> {
        TarReader {
            input,
            offset: 0,
            remaining: 0,
            padding: 0,
        }
    }

    /// Returns how many bytes were read so far: behind a header, where the data begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads until `buffer` is full or the stream ends, and returns how much that was.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // So a decoder says that its own input ended too early.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(truncated("the compressed data"));
                }
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    /// Reads data of the present entry; 0 at its end.
    pub(super) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let want = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.fill(&mut buffer[..want])?;
        if count < want {
            return Err(truncated("the data of an entry"));
        }
        self.remaining -= count as u64;
        Ok(count)
    }

    fn skip_data(&mut self) -> Result<(), LayerError> {
        let mut buffer = [0; 16 * 1024];
        while self.read_data(&mut buffer)? > 0 {}
        self.remaining = std::mem::take(&mut self.padding);
        while self.read_data(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Sets the length of the data behind the header that was read last.
    fn begin_data(&mut self, length: u64) {
        self.remaining = length;
        self.padding = length.next_multiple_of(BLOCK as u64).saturating_sub(length);
    }

    /// Reads the data as a whole, for headers that go on in data.
    fn take_data(&mut self, length: u64) -> Result<Vec<u8>, LayerError> {
        if length > pax::MAX_HEADER {
            return Err(self.malformed("an extended header is larger than 1 MiB"));
        }
        self.begin_data(length);
        let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
        self.read_data(&mut data)?;
        self.skip_data()?;
        Ok(data)
    }

    fn malformed(&self, problem: impl Into<String>) -> LayerError {
        LayerError::Malformed {
            problem: problem.into(),
            offset: self.offset.saturating_sub(BLOCK as u64),
        }
    }

    /// Reads a block; nothing at the end of the stream.
    fn block(&mut self, within: &str) -> Result<Option<Block>, LayerError> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(truncated(within)),
        }
    }

    /// Reads what stands behind the end of the archive: hashes cover it.
    fn drain(&mut self) -> Result<(), LayerError> {
        let mut buffer = [0; 16 * 1024];
        while self.fill(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Returns the next entry, or nothing at the end of the archive. The stream is then read
    /// to its own end. An archive may end without the two zero blocks: its digest, and its
    /// compression, say better whether it is whole.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        self.skip_data()?;
        let mut extended: Option<Vec<pax::Record>> = None;
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let pending = extended.is_some() || long_name.is_some() || long_link.is_some();
            let Some(block) = self.block("a header")? else {
                if pending {
                    return Err(truncated("an extended header without its entry"));
                }
                return Ok(None);
            };
            if block == [0; BLOCK] {
                if pending {
                    return Err(self.malformed("an extended header has no entry"));
                }
                self.drain()?;
                return Ok(None);
            }
            let header = tar::Header::from_byte_slice(&block);
            self.verify(&block)?;
            let size = self.number(&header.as_old().size, "size")?;
            match block[156] {
                b'x' | b'X' => {
                    let data = self.take_data(size)?;
                    let records = pax::parse(&data).map_err(|problem| self.malformed(problem))?;
                    extended = Some(records);
                }
                // A global header (git archive writes one) gives no attribute that kiln takes.
                b'g' => drop(self.take_data(size)?),
                b'L' => long_name = Some(until_nul(self.take_data(size)?)),
                b'K' => long_link = Some(until_nul(self.take_data(size)?)),
                // A volume label and GNU's old long names carry no file.
                b'V' | b'N' => {
                    self.begin_data(size);
                    self.skip_data()?;
                }
                _ => {
                    let records = extended.unwrap_or_default();
                    return self
                        .entry(header, size, records, long_name, long_link)
                        .map(Some);
                }
            }
        }
    }

    fn verify(&self, block: &Block) -> Result<(), LayerError> {
        let stated = self.number(&block[148..156], "checksum")?;
        let summed = |byte: fn(u8) -> i64| -> i64 {
            let sum: i64 = block.iter().map(|&b| byte(b)).sum();
            let own: i64 = block[148..156].iter().map(|&b| byte(b)).sum();
            sum - own + 8 * i64::from(b' ')
        };
        // Some old writers summed signed bytes.
        let signed = |b: u8| i64::from(b.cast_signed());
        let stated = i64::try_from(stated).unwrap_or(-1);
        if summed(i64::from) == stated || summed(signed) == stated {
            Ok(())
        } else {
            Err(self.malformed("the checksum of a header is wrong"))
        }
    }

    fn signed(&self, field: &[u8], what: &str) -> Result<i64, LayerError> {
        number(field).ok_or_else(|| self.malformed(format!("the {what} of an entry is no number")))
    }

    fn number(&self, field: &[u8], what: &str) -> Result<u64, LayerError> {
        u64::try_from(self.signed(field, what)?)
            .map_err(|_| self.malformed(format!("the {what} of an entry is negative")))
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        size: u64,
        records: Vec<pax::Record>,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, LayerError> {
        let extended = Extended::new(records);
        let name = extended
            .text(&[b"GNU.sparse.name", b"path"])
            .or(long_name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let problem = |text: &str| LayerError::entry(&name, text);
        let link = extended
            .text(&[b"linkpath"])
            .or(long_link)
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
            .unwrap_or_default();
        let old = header.as_old();
        let flag = header.as_bytes()[156];
        let kind = match flag {
            b'\0' if name.ends_with(b"/") => EntryKind::Directory,
            b'0' | b'\0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' | b'D' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'M' => return Err(problem("it goes on from another volume of its archive")),
            other => {
                let flag = escape(&[other]);
                return Err(problem(&format!("its type {flag:?} is unknown")));
            }
        };
        let id = |key: &[u8], field: &[u8]| -> Result<u32, LayerError> {
            let id = match extended.get(key) {
                Some(text) => {
                    pax::decimal(text).ok_or_else(|| problem("its owner is no number"))?
                }
                None => self.number(field, "owner")?,
            };
            // The greatest number means "leave it" to chown.
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| problem("its owner is out of range"))
        };
        let (uid, gid) = (id(b"uid", &old.uid)?, id(b"gid", &old.gid)?);
        let mode = self.number(&old.mode, "mode")? & 0o7777;
        let mtime = match extended.get(b"mtime") {
            Some(text) => pax::time(text).ok_or_else(|| problem("its time is malformed"))?,
            None => Timestamp::from_seconds(self.signed(&old.mtime, "time")?),
        };
        let device = match (kind, header.as_ustar(), header.as_gnu()) {
            (EntryKind::CharDevice | EntryKind::BlockDevice, Some(h), _) => {
                self.device(&h.dev_major, &h.dev_minor)?
            }
            (EntryKind::CharDevice | EntryKind::BlockDevice, _, Some(h)) => {
                self.device(&h.dev_major, &h.dev_minor)?
            }
            _ => Device::default(),
        };
        let stored = match extended.get(b"size") {
            Some(text) => pax::decimal(text).ok_or_else(|| problem("its size is malformed"))?,
            None => size,
        };
        if stored > i64::MAX.unsigned_abs() {
            return Err(problem("its size is out of range"));
        }
        // Only files have data: some writers state the size of a link's target, with none.
        self.begin_data(if kind == EntryKind::File { stored } else { 0 });
        let xattrs = extended.xattrs();
        let (size, sparse) = match kind {
            EntryKind::File => self
                .sparse(header, flag == b'S', &extended, &name)?
                .map_or((stored, None), |(size, map)| (size, Some(map))),
            _ => (0, None),
        };
        Ok(Entry {
            kind,
            link,
            size,
            mode: mode as u32,
            uid,
            gid,
            mtime,
            device,
            xattrs,
            sparse,
            name,
        })
    }

    fn device(&self, major: &[u8], minor: &[u8]) -> Result<Device, LayerError> {
        let part = |field| {
            u32::try_from(self.number(field, "device number")?)
                .map_err(|_| self.malformed("a device number is out of range"))
        };
        Ok(Device {
            major: part(major)?,
            minor: part(minor)?,
        })
    }

    /// Returns the size and the map of a sparse file. Reads the parts of the map that lie
    /// behind the header or at the start of the data.
    fn sparse(
        &mut self,
        header: &tar::Header,
        old_format: bool,
        extended: &Extended,
        name: &[u8],
    ) -> Result<Option<(u64, Vec<Segment>)>, LayerError> {
        let problem = |text: &'static str| LayerError::entry(name, text);
        let (size, map) = if old_format {
            let gnu = header
                .as_gnu()
                .ok_or_else(|| problem("it is sparse, but in no GNU archive"))?;
            let mut numbers = Vec::new();
            let mut append = |reader: &TarReader<'_>, offset: &[u8], length: &[u8]| {
                // An unused place is filled with zeros.
                if offset[0] != 0 {
                    numbers.push(reader.number(offset, "sparse map")?);
                    numbers.push(reader.number(length, "sparse map")?);
                }
                Ok::<bool, LayerError>(numbers.len() / 2 <= sparse::MAX_SEGMENTS)
            };
            for place in &gnu.sparse {
                append(self, &place.offset, &place.numbytes)?;
            }
            let mut goes_on = gnu.isextended[0] == 1;
            while goes_on {
                let block = self
                    .block("a sparse map")?
                    .ok_or_else(|| truncated("a sparse map"))?;
                for place in block[..504].chunks_exact(24) {
                    if !append(self, &place[..12], &place[12..])? {
                        return Err(problem("its sparse map is too long"));
                    }
                }
                goes_on = block[504] == 1;
            }
            let size = self.number(&gnu.realsize, "size")?;
            (size, sparse::from_numbers(&numbers))
        } else if extended.get(b"GNU.sparse.major") == Some(b"1") {
            let size = extended.number(b"GNU.sparse.realsize");
            (
                size.ok_or_else(|| problem("its size is malformed"))?,
                sparse::from_numbers(&self.map_in_data(name)?),
            )
        } else if let Some(size) = extended.number(b"GNU.sparse.size") {
            let map = match extended.get(b"GNU.sparse.map") {
                Some(text) => sparse::from_commas(text),
                None => sparse::from_numbers(&extended.sparse_numbers),
            };
            (size, map)
        } else {
            return Ok(None);
        };
        if size > i64::MAX.unsigned_abs() {
            return Err(problem("its size is out of range"));
        }
        let map = map
            .and_then(|map| sparse::check(map, size, self.remaining))
            .map_err(problem)?;
        Ok(Some((size, map)))
    }

    /// Reads the map of format 1.0: lines with numbers, padded to a block, before the data.
    fn map_in_data(&mut self, name: &[u8]) -> Result<Vec<u64>, LayerError> {
        let problem = |text: &'static str| LayerError::entry(name, text);
        let mut numbers = Vec::new();
        let mut line = Vec::new();
        let mut expected = None;
        let mut block = [0; BLOCK];
        while expected.is_none_or(|expected| numbers.len() < expected) {
            if self.read_data(&mut block)? < BLOCK {
                return Err(problem("its sparse map is malformed"));
            }
            for &byte in &block {
                if expected.is_some_and(|expected| numbers.len() >= expected) {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(problem("its sparse map is malformed"));
                    }
                    continue;
                }
                let number =
                    pax::decimal(&line).ok_or_else(|| problem("its sparse map is malformed"))?;
                line.clear();
                if expected.is_some() {
                    numbers.push(number);
                    continue;
                }
                let count = usize::try_from(number)
                    .ok()
                    .filter(|count| *count <= sparse::MAX_SEGMENTS)
                    .ok_or_else(|| problem("its sparse map is too long"))?;
                expected = Some(count * 2);
            }
        }
        Ok(numbers)
    }
}

fn truncated(within: &str) -> LayerError {
    LayerError::Truncated {
        within: within.to_owned(),
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(nul) = text.iter().position(|&b| b == 0) {
        text.truncate(nul);
    }
    text
}

/// Returns a numeric field: octal digits between blanks, or GNU's base 256.
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        let mut value = start;
        for &byte in rest {
            value = value.checked_mul(256)?.checked_add(i128::from(byte))?;
        }
        return i64::try_from(value).ok();
    }
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    let digits = field[..end].trim_ascii();
    if digits.is_empty() {
        return Some(0);
    }
    if !digits.iter().all(|b| (b'0'..=b'7').contains(b)) {
        return None;
    }
    i64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// The records of an extended header, the last of each key.
struct Extended {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The offsets and lengths of sparse format 0.0, whose keys repeat.
    sparse_numbers: Vec<u64>,
}

impl Extended {
    fn new(list: Vec<pax::Record>) -> Extended {
        let mut records = BTreeMap::new();
        let mut sparse_numbers = Vec::new();
        for (key, value) in list {
            if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
                sparse_numbers.push(pax::decimal(&value).unwrap_or(u64::MAX));
            } else {
                records.insert(key, value);
            }
        }
        Extended {
            records,
            sparse_numbers,
        }
    }

    /// Returns the value of a record. An empty one takes back what an earlier header said.
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let value = self.records.get(key)?;
        (!value.is_empty()).then_some(value)
    }

    fn text(&self, keys: &[&[u8]]) -> Option<Vec<u8>> {
        keys.iter()
            .find_map(|key| self.get(key))
            .map(<[u8]>::to_vec)
    }

    fn number(&self, key: &[u8]) -> Option<u64> {
        pax::decimal(self.get(key)?)
    }

    /// Returns the extended attributes. An empty value is a value here.
    fn xattrs(&self) -> Xattrs {
        self.records
            .iter()
            .filter_map(|(key, value)| {
                let name = key.strip_prefix(pax::XATTR)?;
                Some((name.to_vec(), value.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 644 \0\0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\x20\0\0"), Some(0x20_0000));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"00008\0\0\0"), None);
        assert_eq!(number(b"-0000001"), None);
        let mut huge = [0xff; 12];
        huge[0] = 0x80;
        assert_eq!(number(&huge), None);
    }
}
