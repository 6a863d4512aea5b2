//! Reads the tar of a layer: PAX records and names of its own, plain headers from the `tar` crate.

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::tree::{Kind, Node};

/// Contents up to this size are kept for [`Node::content`].
const KEPT_CONTENT: u64 = 1 << 20;

/// One entry of a layer: its name, what it is, and whether it is a link to another name.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) node: Node,
    pub(super) hard_link: Option<Vec<u8>>,
}

/// Extended headers that wait for their entry.
#[derive(Default)]
struct Extended {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Extended {
    /// Reads `length key=value\n` records; a value may hold any byte, newlines too.
    fn read_pax(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let space = data
                .iter()
                .position(|byte| *byte == b' ')
                .expect("PAX: a length");
            let length: usize = std::str::from_utf8(&data[..space])
                .unwrap()
                .parse()
                .unwrap();
            let record = &data[space + 1..length];
            let record = record
                .strip_suffix(b"\n")
                .expect("PAX: a newline at the end");
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .expect("PAX: an equals sign");
            self.records
                .insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
            data = &data[length..];
        }
    }

    fn number(&self, key: &str) -> Option<u64> {
        let text = std::str::from_utf8(self.records.get(key.as_bytes())?).unwrap();
        let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
        Some(whole.parse().unwrap())
    }

    fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.records.get(key.as_bytes()).cloned()
    }

    fn xattrs(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let records = self.records.iter();
        records
            .filter_map(|(key, value)| {
                Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()))
            })
            .collect()
    }
}

/// Reads the entries of a tar; of the `tar` crate only the plain headers are used.
pub(super) fn read_tar(tar: impl Read) -> Vec<Entry> {
    use tar::EntryType as T;

    let mut entries = Vec::new();
    let mut extended = Extended::default();
    for entry in tar::Archive::new(tar).entries().unwrap().raw(true) {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let kind = match header.entry_type() {
            T::XHeader => {
                extended.read_pax(&read_all(&mut entry));
                continue;
            }
            T::GNULongName | T::GNULongLink => {
                let mut name = read_all(&mut entry);
                while name.last() == Some(&0) {
                    name.pop();
                }
                let long_name = header.entry_type() == T::GNULongName;
                let key: &[u8] = if long_name { b"path" } else { b"linkpath" };
                extended.records.insert(key.to_vec(), name);
                continue;
            }
            T::XGlobalHeader => continue,
            T::Regular | T::Continuous | T::Link => Kind::File,
            T::Directory => Kind::Directory,
            T::Symlink => Kind::Symlink,
            T::Fifo => Kind::Fifo,
            T::Char => Kind::CharDevice,
            T::Block => Kind::BlockDevice,
            other => panic!("tar entry of unknown type {other:?}"),
        };
        let extended = std::mem::take(&mut extended);
        let name = extended
            .bytes("path")
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended
            .bytes("linkpath")
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
            .unwrap_or_default();
        let size = header.entry_size().unwrap();
        assert!(
            extended.number("size").is_none_or(|pax| pax == size),
            "a size only PAX can hold"
        );
        let (sha256, content) = match kind {
            Kind::File => hash(&mut entry, size),
            _ => (String::new(), None),
        };
        let is_link = header.entry_type() == T::Link;
        entries.push(Entry {
            name,
            hard_link: is_link.then(|| link.clone()),
            node: Node {
                kind,
                mode: header.mode().unwrap() & 0o7777,
                uid: extended
                    .number("uid")
                    .unwrap_or_else(|| header.uid().unwrap()),
                gid: extended
                    .number("gid")
                    .unwrap_or_else(|| header.gid().unwrap()),
                mtime: extended
                    .number("mtime")
                    .unwrap_or_else(|| header.mtime().unwrap()),
                target: if kind == Kind::Symlink {
                    link
                } else {
                    Vec::new()
                },
                device: match kind {
                    Kind::CharDevice | Kind::BlockDevice => (
                        header.device_major().unwrap().unwrap_or(0),
                        header.device_minor().unwrap().unwrap_or(0),
                    ),
                    _ => (0, 0),
                },
                xattrs: extended.xattrs(),
                size: if kind == Kind::File { size } else { 0 },
                sha256,
                content,
            },
        });
    }
    entries
}

fn read_all(mut reader: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    all
}

fn hash(mut reader: impl Read, size: u64) -> (String, Option<Vec<u8>>) {
    if size <= KEPT_CONTENT {
        let content = read_all(reader);
        return (sha256(&content), Some(content));
    }
    let mut hasher = Sha256::new();
    io::copy(&mut reader, &mut hasher).unwrap();
    (hex(&hasher.finalize()), None)
}

/// Returns the SHA-256 of bytes in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
