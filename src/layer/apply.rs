//! Extracts a tar stream: a layer, or an archive for ADD and import.
//! See <https://github.com/opencontainers/image-spec/blob/main/layer.md#applying-changesets>.

use std::io::Read;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use super::attributes::Attributes;
use super::reader::{Entry, EntryKind, TarReader};
use super::sparse::Segment;
use super::stat::{Device, FileKind};
use super::writer::{LayerWriter, Style, Written};
use super::{Call as _, LayerError, Ownership, View, escape, path, whiteout};

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The number of entries.
    pub entries: u64,
    /// The bytes of all files, holes included.
    pub bytes: u64,
}

impl Default for Limits {
    /// Returns limits that no honest image meets.
    fn default() -> Limits {
        Limits {
            entries: 16 << 20,
            bytes: 1 << 42,
        }
    }
}

/// How the entries of a stream are to be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// A layer of an image: `.wh.*` entries are deletions, and parents without an entry take
    /// their attributes from below.
    Layer,
    /// A user's archive, for ADD and import.
    Archive {
        /// The directory that it is extracted in. Made if missing: 0755 and root's.
        dest: Vec<u8>,
        /// The owner and group that all entries get.
        owner: Option<(u32, u32)>,
    },
}

/// How a stream is extracted.
#[derive(Clone, Debug)]
pub struct ApplyOptions<'v> {
    /// How ownership is stored.
    pub ownership: Ownership,
    /// The layers below. May be empty.
    pub lower: &'v View,
    /// What the stream is.
    pub mode: ApplyMode,
    /// How much it may hold.
    pub limits: Limits,
}

/// What is known of a directory after extraction.
pub type Applied = Written;

/// Extracts an uncompressed tar stream into an empty directory. The stream is read to its end.
pub fn apply(
    reader: &mut dyn Read,
    dir: BorrowedFd<'_>,
    options: &ApplyOptions<'_>,
) -> Result<Applied, LayerError> {
    let mut writer = LayerWriter::new(dir, options.lower, options.ownership)?;
    match &options.mode {
        ApplyMode::Layer => {
            writer.style = Style::Layer;
            let target = Target {
                dest: Vec::new(),
                owner: None,
                skip_root: false,
            };
            extract(&mut writer, reader, &target, options.limits)?;
        }
        ApplyMode::Archive { dest, owner } => {
            writer.extract(reader, dest, *owner, options.limits)?;
        }
    }
    writer.finish()
}

impl LayerWriter<'_> {
    /// Extracts an uncompressed archive into the directory `dest`, which is made if missing.
    /// Entries replace what is in their way. With `owner` all of them get that owner.
    pub fn extract(
        &mut self,
        reader: &mut dyn Read,
        dest: &[u8],
        owner: Option<(u32, u32)>,
        limits: Limits,
    ) -> Result<(), LayerError> {
        let dest = self.ensure_dir(dest, 0o755, 0, 0)?;
        let target = Target {
            // An archive extracted into an existing directory leaves that directory's own
            // attributes alone; one that is a whole image sets them.
            skip_root: !(dest.is_empty() && self.is_bottom() && !self.is_existing()),
            dest,
            owner,
        };
        let style = std::mem::replace(&mut self.style, Style::Archive);
        let result = extract(self, reader, &target, limits);
        self.style = style;
        result
    }
}

/// Where entries go.
struct Target {
    dest: Vec<u8>,
    owner: Option<(u32, u32)>,
    skip_root: bool,
}

fn extract(
    writer: &mut LayerWriter<'_>,
    reader: &mut dyn Read,
    target: &Target,
    limits: Limits,
) -> Result<(), LayerError> {
    let mut tar = TarReader::new(reader);
    let (mut entries, mut bytes) = (0u64, 0u64);
    while let Some(entry) = tar.next_entry()? {
        entries += 1;
        if entries > limits.entries {
            return Err(LayerError::Limit {
                what: "entries",
                limit: limits.entries,
            });
        }
        bytes = bytes.saturating_add(entry.size);
        if bytes > limits.bytes {
            return Err(LayerError::Limit {
                what: "bytes of files",
                limit: limits.bytes,
            });
        }
        let name = path::of_entry(&entry.name)?;
        put(writer, &mut tar, target, &entry, &name).map_err(|error| in_entry(&entry, error))?;
    }
    Ok(())
}

/// Names the entry in errors about paths.
fn in_entry(entry: &Entry, error: LayerError) -> LayerError {
    match error {
        LayerError::NotADirectory(path) => LayerError::entry(
            &entry.name,
            format!("/{path} is in its way and is no directory"),
        ),
        LayerError::TooManyLinks(_) | LayerError::NameTooLong(_) => {
            LayerError::entry(&entry.name, error.to_string())
        }
        other => other,
    }
}

fn put(
    writer: &mut LayerWriter<'_>,
    tar: &mut TarReader<'_>,
    target: &Target,
    entry: &Entry,
    name: &[u8],
) -> Result<(), LayerError> {
    if writer.style == Style::Layer {
        match deletion(entry, name)? {
            Deletion::None => {}
            Deletion::Skip => return Ok(()),
            Deletion::Name(hidden) => return writer.hide(&hidden),
            Deletion::Opaque(directory) => return writer.hide_below(directory),
        }
    } else if path::components(name).any(|c| c.starts_with(whiteout::PREFIX)) {
        return Err(LayerError::ReservedName(escape(&entry.name)));
    }
    if name.is_empty() {
        if entry.kind != EntryKind::Directory {
            return Err(LayerError::entry(
                &entry.name,
                "the root can only be a directory",
            ));
        }
        if target.skip_root {
            return Ok(());
        }
    }
    let path = path::join(&target.dest, name);
    let (uid, gid) = target.owner.unwrap_or((entry.uid, entry.gid));
    let attributes = Attributes {
        mode: entry.mode,
        uid,
        gid,
        mtime: Some(entry.mtime),
        xattrs: entry.xattrs.clone(),
    };
    match entry.kind {
        EntryKind::Directory => writer.replace_dir(&path, &attributes),
        EntryKind::File => writer.put_filled(&path, &attributes, |file| {
            let segments = entry.sparse.as_deref();
            write_data(tar, file, entry.size, segments, &path)
        }),
        EntryKind::Symlink => {
            if entry.link.is_empty() || entry.link.contains(&0) {
                return Err(LayerError::entry(
                    &entry.name,
                    "its link target is malformed",
                ));
            }
            writer.put_symlink(&path, &entry.link, &attributes)
        }
        EntryKind::HardLink => {
            let of_link = |error: LayerError, problem: &str| match error {
                LayerError::System { .. } => error,
                _ => LayerError::entry(
                    &entry.name,
                    format!("hard link to {:?}, which {problem}", escape(&entry.link)),
                ),
            };
            let link = path::of_entry(&entry.link)
                .map_err(|error| of_link(error, "is no name within the archive"))?;
            let link = path::join(&target.dest, &link);
            writer
                .put_hardlink(&path, &link)
                .map_err(|error| match error {
                    LayerError::Missing(_) => {
                        of_link(error, "is neither in the archive nor in the layers below")
                    }
                    LayerError::NotAFile(_) => of_link(error, "is a directory"),
                    other => other,
                })
        }
        EntryKind::CharDevice => {
            writer.put_special(&path, FileKind::CharDevice, entry.device, &attributes)
        }
        EntryKind::BlockDevice => {
            writer.put_special(&path, FileKind::BlockDevice, entry.device, &attributes)
        }
        EntryKind::Fifo => {
            writer.put_special(&path, FileKind::Fifo, Device::default(), &attributes)
        }
    }
}

/// What a name with the prefix of deletions means.
enum Deletion<'n> {
    None,
    /// Book-keeping of aufs.
    Skip,
    Name(Vec<u8>),
    Opaque(&'n [u8]),
}

fn deletion<'n>(entry: &Entry, name: &'n [u8]) -> Result<Deletion<'n>, LayerError> {
    let (parent, last) = path::split(name);
    if last == whiteout::OPAQUE {
        return Ok(Deletion::Opaque(parent));
    }
    if path::components(name).any(|c| c.starts_with(b".wh..wh.")) {
        return Ok(Deletion::Skip);
    }
    if path::components(parent).any(|c| c.starts_with(whiteout::PREFIX)) {
        return Err(LayerError::entry(&entry.name, "it lies below a deletion"));
    }
    match last.strip_prefix(whiteout::PREFIX) {
        None => Ok(Deletion::None),
        Some(b"" | b"." | b"..") => Err(LayerError::entry(
            &entry.name,
            "it deletes a name that no file can have",
        )),
        Some(hidden) => Ok(Deletion::Name(path::join(parent, hidden))),
    }
}

/// Runs of zeros become holes in pieces of this size: less is not worth an extent of its own.
const HOLE: usize = 64 * 1024;

/// Writes the data of an entry, with holes where a sparse file has them, and where it has nothing
/// but zeros: most archives hold sparse files as if they were none.
fn write_data(
    tar: &mut TarReader<'_>,
    file: &std::fs::File,
    size: u64,
    segments: Option<&[Segment]>,
    path: &[u8],
) -> Result<u64, LayerError> {
    let whole = [Segment {
        offset: 0,
        length: size,
    }];
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(2 * HOLE)];
    let mut written = 0;
    for segment in segments.unwrap_or(&whole) {
        let end = segment.offset + segment.length;
        let mut at = segment.offset;
        while at < end {
            let want = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            fill(tar, &mut buffer[..want])?;
            for run in runs_of_data(&buffer[..want]) {
                let start = at + run.start as u64;
                file.write_all_at(&buffer[run.clone()], start)
                    .call("write", path)?;
                written = start + run.len() as u64;
            }
            at += want as u64;
        }
    }
    if written < size {
        file.set_len(size).call("ftruncate", path)?;
    }
    Ok(size)
}

/// Reads as much data of an entry as there is room for.
fn fill(tar: &mut TarReader<'_>, mut room: &mut [u8]) -> Result<(), LayerError> {
    while !room.is_empty() {
        let count = tar.read_data(room)?;
        if count == 0 {
            return Err(LayerError::Truncated {
                within: "the data of an entry".to_owned(),
            });
        }
        room = &mut room[count..];
    }
    Ok(())
}

/// Returns the parts of `bytes` that lie between pieces of zeros.
fn runs_of_data(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, piece) in bytes.chunks(HOLE).enumerate() {
        if piece.len() == HOLE && is_zero(piece) {
            continue;
        }
        let start = index * HOLE;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end += piece.len(),
            _ => runs.push(start..start + piece.len()),
        }
    }
    runs
}

/// Tells whether all bytes are zero: the first one is, and each is like the one before it. Of
/// other data, that is known at once.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0) && bytes[..bytes.len() - 1] == bytes[1..]
}

#[cfg(test)]
mod tests;
