//! Makes tar headers: ustar, and PAX only for what does not fit, so that equal entries have
//! equal bytes.

use super::pax;
use super::stat::{Device, Timestamp};
use super::xattr::Xattrs;

/// An entry as it goes into a stream.
#[derive(Debug)]
pub(super) struct Fields<'e> {
    /// With a slash at its end for a directory.
    pub path: &'e [u8],
    pub flag: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Its whole seconds are what is written.
    pub mtime: Timestamp,
    pub link: &'e [u8],
    pub device: Device,
    pub xattrs: &'e Xattrs,
}

/// The greatest number in seven and in eleven octal digits.
const MAX_ID: u64 = 0o777_7777;
const MAX_LONG: u64 = 0o777_7777_7777;

/// Returns all header blocks of an entry. Without `timed` its time is left out: zero.
pub(super) fn encode(fields: &Fields<'_>, timed: bool) -> Vec<u8> {
    let mut records = Vec::new();
    let mut header = tar::Header::new_ustar();
    let bytes = header.as_mut_bytes();

    let id = |records: &mut Vec<u8>, key: &[u8], id: u32| {
        if u64::from(id) <= MAX_ID {
            return u64::from(id);
        }
        pax::append(records, key, id.to_string().as_bytes());
        0
    };
    octal(&mut bytes[116..124], id(&mut records, b"gid", fields.gid));
    let linked = fields.link.len().min(100);
    bytes[157..157 + linked].copy_from_slice(&fields.link[..linked]);
    if linked < fields.link.len() {
        pax::append(&mut records, b"linkpath", fields.link);
    }
    let seconds = if timed { fields.mtime.seconds } else { 0 };
    match u64::try_from(seconds) {
        Ok(seconds) if seconds <= MAX_LONG => octal(&mut bytes[136..148], seconds),
        _ => {
            octal(&mut bytes[136..148], 0);
            pax::append(&mut records, b"mtime", seconds.to_string().as_bytes());
        }
    }
    match place_name(fields.path) {
        Some((prefix, name)) => {
            bytes[..name.len()].copy_from_slice(name);
            bytes[345..345 + prefix.len()].copy_from_slice(prefix);
        }
        None => {
            bytes[..100].copy_from_slice(&fields.path[..100]);
            pax::append(&mut records, b"path", fields.path);
        }
    }
    for (name, value) in fields.xattrs {
        // A record's key ends at its first "=".
        if !name.contains(&b'=') {
            pax::append(&mut records, &[pax::XATTR, name].concat(), value);
        }
    }
    if fields.size <= MAX_LONG {
        octal(&mut bytes[124..136], fields.size);
    } else {
        octal(&mut bytes[124..136], 0);
        pax::append(&mut records, b"size", fields.size.to_string().as_bytes());
    }
    octal(&mut bytes[108..116], id(&mut records, b"uid", fields.uid));
    octal(&mut bytes[100..108], fields.mode.into());
    bytes[156] = fields.flag;
    octal(&mut bytes[329..337], fields.device.major.into());
    octal(&mut bytes[337..345], fields.device.minor.into());
    header.set_cksum();

    let mut blocks = Vec::with_capacity(512);
    if !records.is_empty() {
        append_extended(&mut blocks, &records);
    }
    blocks.extend_from_slice(header.as_bytes());
    blocks
}

fn append_extended(blocks: &mut Vec<u8>, records: &[u8]) {
    let mut header = tar::Header::new_ustar();
    let bytes = header.as_mut_bytes();
    // Only readers without PAX show this name.
    bytes[..11].copy_from_slice(b"PaxHeader/x");
    octal(&mut bytes[100..108], 0o644);
    octal(&mut bytes[108..116], 0);
    octal(&mut bytes[116..124], 0);
    octal(&mut bytes[124..136], records.len() as u64);
    octal(&mut bytes[136..148], 0);
    bytes[156] = b'x';
    header.set_cksum();
    blocks.extend_from_slice(header.as_bytes());
    blocks.extend_from_slice(records);
    blocks.resize(blocks.len().next_multiple_of(512), 0);
}

/// Writes octal digits and a NUL. What does not fit was seen to before.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let mut rest = value;
    for digit in field[..width].iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    field[width] = 0;
}

/// Returns the prefix and the name that a path is divided into, or nothing where it is too long.
fn place_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let fits =
        |slash: usize| slash > 0 && slash <= 155 && (1..=100).contains(&(path.len() - slash - 1));
    let slash = (0..path.len()).find(|&at| path[at] == b'/' && fits(at))?;
    Some((&path[..slash], &path[slash + 1..]))
}
