//! The tar stream of a layer directory: a pure function of the directory and of what is
//! omitted. Sorted, whole seconds, no names of owners.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use super::chunks::{CHUNK, Chunked, Chunks};
use super::dir::{Found, LayerDir, Names};
use super::entries::{Contents, Entry, entries};
use super::header::{self, Fields};
use super::stat::{Device, FileKind, Stat, Timestamp};
use super::view::{Node, View};
use super::xattr::Xattrs;
use super::{Call as _, ContentId, LayerError, Omit, copy, escape, path, whiteout};

/// What a stream held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStats {
    /// The hash of the stream without mtimes.
    pub content_id: ContentId,
    /// The number of entries, deletions included.
    pub entries: u64,
    /// The bytes of all regular files, hard links counted once.
    pub size_bytes: u64,
    /// How many of them lie in holes, and were written as zeros.
    pub hole_bytes: u64,
    /// The length of the stream.
    pub stream_bytes: u64,
}

/// Writes the layer's tar stream, and returns what it held.
pub fn write_tar(
    layer: &LayerDir,
    omit: &Omit,
    out: &mut dyn Chunks,
) -> Result<StreamStats, LayerError> {
    let mut sink = Sink::new(out);
    if !omit.root {
        sink.root(layer)?;
    }
    // What comes next is on top.
    let mut pending = entries(layer, omit, b"")?;
    while let Some(entry) = pending.pop() {
        let is_dir = matches!(entry.found, Found::Entry(stat) if stat.is_dir());
        let opaque = is_dir
            && !omit.opaque.contains(&entry.path)
            && layer.is_opaque(&entry.path, &entry.names)?;
        sink.found(layer, &entry, opaque)?;
        if is_dir {
            pending.extend(entries(layer, omit, &entry.path)?);
        }
    }
    sink.finish()
}

/// As [`write_tar`], of a directory that was looked at before and that nobody has changed since.
pub fn write_contents(
    layer: &LayerDir,
    contents: &Contents,
    out: &mut dyn Chunks,
) -> Result<StreamStats, LayerError> {
    let mut sink = Sink::new(out);
    if contents.root {
        sink.root(layer)?;
    }
    for (entry, opaque) in &contents.entries {
        sink.found(layer, entry, *opaque)?;
    }
    sink.finish()
}

/// Writes what a view shows as one tar stream, without the root directory's own entry. There
/// are no deletions in it, and hard links stay what they are.
pub fn write_merged_tar(view: &View, out: &mut dyn Chunks) -> Result<StreamStats, LayerError> {
    let sink = Sink::new(out);
    let pending = children_of(view, b"")?;
    write_nodes(view, sink, pending)
}

/// Writes what a view shows at a path, and below it, as one tar stream in which it has another
/// name: an empty one leaves out the directory itself.
pub fn write_part_tar(
    view: &View,
    node: &Node,
    name: &[u8],
    out: &mut dyn Chunks,
) -> Result<StreamStats, LayerError> {
    let mut sink = Sink::new(out);
    sink.rebase = Some(path::Rebase::new(&node.path, name));
    let pending = match name.is_empty() {
        true => children_of(view, &node.path)?,
        false => vec![node.clone()],
    };
    write_nodes(view, sink, pending)
}

/// Returns the entries of a directory, the last one first.
fn children_of(view: &View, path: &[u8]) -> Result<Vec<Node>, LayerError> {
    let entries = view.read_dir(path)?.into_iter().rev();
    Ok(entries.map(|entry| entry.node).collect())
}

fn write_nodes(
    view: &View,
    mut sink: Sink<'_>,
    mut pending: Vec<Node>,
) -> Result<StreamStats, LayerError> {
    while let Some(node) = pending.pop() {
        let (layer, names) = (view.layer_of(&node)?, Names::default());
        sink.entry(layer, &node.path, &node.stat, &names, Form::Plain)?;
        if node.stat.is_dir() {
            pending.extend(children_of(view, &node.path)?);
        }
    }
    sink.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Opaque,
}

/// How much of a file is read at once.
const READ: usize = CHUNK / 2;

/// Where a stream is made.
pub(super) struct Sink<'w> {
    out: Chunked<&'w mut dyn Chunks>,
    /// Sees the headers with all times zero, and the hash of each file's content behind its
    /// header: so that who knows the one needs no look at the other.
    hasher: blake3::Hasher,
    stats: StreamStats,
    /// The first name of each inode that has several.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    /// Where things lie in the stream, if not where they are.
    rebase: Option<path::Rebase>,
}

impl<'w> Sink<'w> {
    pub(super) fn new(out: &'w mut dyn Chunks) -> Sink<'w> {
        Sink {
            out: Chunked::new(out),
            hasher: blake3::Hasher::new(),
            stats: StreamStats {
                content_id: ContentId([0; 32]),
                entries: 0,
                size_bytes: 0,
                hole_bytes: 0,
                stream_bytes: 0,
            },
            first_names: HashMap::new(),
            rebase: None,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.out.write_all(bytes).map_err(LayerError::Write)
    }

    fn header(&mut self, fields: &Fields<'_>) -> Result<(), LayerError> {
        self.write(&header::encode(fields, true))?;
        self.hasher.update(&header::encode(fields, false));
        self.stats.entries += 1;
        Ok(())
    }

    /// Takes over a part of the stream that was made elsewhere, and leaves it empty.
    pub(super) fn append(&mut self, part: &mut Part) -> Result<(), LayerError> {
        let written = self.out.append(&mut part.stream);
        written.map_err(LayerError::Write)?;
        self.hasher.update(&part.content);
        self.stats.entries += part.entries;
        self.stats.size_bytes += part.size_bytes;
        part.content.clear();
        (part.entries, part.size_bytes) = (0, 0);
        Ok(())
    }

    /// Writes a deletion of `path`.
    fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let (parent, name) = path::split(path);
        let mark = path::join(parent, &[whiteout::PREFIX, name].concat());
        self.mark(&mark)
    }

    fn mark(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.header(&Fields {
            path,
            flag: b'0',
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timestamp::default(),
            link: b"",
            device: Device::default(),
            xattrs: &Xattrs::new(),
        })
    }

    /// Writes the entry of the root directory.
    fn root(&mut self, layer: &LayerDir) -> Result<(), LayerError> {
        match layer.look(b"")? {
            (Found::Entry(stat), names) => self.entry(layer, b"", &stat, &names, Form::Plain),
            _ => Ok(()),
        }
    }

    /// Writes what lies at a path of a layer.
    fn found(&mut self, layer: &LayerDir, entry: &Entry, opaque: bool) -> Result<(), LayerError> {
        match &entry.found {
            _ if entry.deletes() => self.whiteout(&entry.path),
            Found::Entry(stat) => {
                let form = if opaque { Form::Opaque } else { Form::Plain };
                self.entry(layer, &entry.path, stat, &entry.names, form)
            }
            Found::Nothing | Found::Whiteout => Ok(()),
        }
    }

    fn entry(
        &mut self,
        layer: &LayerDir,
        path: &[u8],
        stat: &Stat,
        names: &Names,
        form: Form,
    ) -> Result<(), LayerError> {
        if stat.nlink > 1 && !stat.is_dir() {
            let inode = (stat.dev, stat.ino);
            if let Some(first) = self.first_names.get(&inode).cloned() {
                return self.plain(path, b'1', stat, &first, &Xattrs::new());
            }
            self.first_names.insert(inode, path.to_vec());
        }
        let xattrs = layer.xattrs_of(path, names)?;
        match stat.kind {
            FileKind::Directory => {
                let name = if path.is_empty() { b"." } else { path };
                self.plain(&[name, b"/"].concat(), b'5', stat, b"", &xattrs)?;
                if form == Form::Opaque {
                    self.mark(&path::join(path, whiteout::OPAQUE))?;
                }
                Ok(())
            }
            FileKind::File => {
                self.plain(path, b'0', stat, b"", &xattrs)?;
                match stat.size {
                    0 => {
                        self.hash_of_content(&blake3::Hasher::new());
                        Ok(())
                    }
                    size => {
                        let file = layer.open_file(path)?;
                        self.content(&file, path, size, stat.may_have_holes())
                    }
                }
            }
            FileKind::Symlink => {
                let target = layer.read_link(path)?;
                self.plain(path, b'2', stat, &target, &xattrs)
            }
            FileKind::CharDevice => self.plain(path, b'3', stat, b"", &xattrs),
            FileKind::BlockDevice => self.plain(path, b'4', stat, b"", &xattrs),
            FileKind::Fifo => self.plain(path, b'6', stat, b"", &xattrs),
            FileKind::Socket => Ok(()),
        }
    }

    fn plain(
        &mut self,
        path: &[u8],
        flag: u8,
        stat: &Stat,
        link: &[u8],
        xattrs: &Xattrs,
    ) -> Result<(), LayerError> {
        let (mut path, mut link) = (Cow::Borrowed(path), Cow::Borrowed(link));
        if let Some(rebase) = &self.rebase {
            path = Cow::Owned(match path.strip_suffix(b"/") {
                Some(directory) => [&rebase.apply(directory)[..], b"/"].concat(),
                None => rebase.apply(&path),
            });
            if flag == b'1' {
                link = Cow::Owned(rebase.apply(&link));
            }
        }
        self.header(&Fields {
            path: &path,
            flag,
            mode: if flag == b'2' { 0o777 } else { stat.mode },
            uid: stat.uid,
            gid: stat.gid,
            size: if flag == b'0' { stat.size } else { 0 },
            mtime: stat.mtime,
            link: &link,
            device: stat.rdev,
            xattrs,
        })
    }

    fn hash_of_content(&mut self, content: &blake3::Hasher) {
        self.hasher.update(content.finalize().as_bytes());
    }

    /// Writes the content of a file of `size` bytes, and what fills up its last block.
    pub(super) fn content(
        &mut self,
        file: &File,
        path: &[u8],
        size: u64,
        may_have_holes: bool,
    ) -> Result<(), LayerError> {
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        let whole = copy::Run {
            start: 0,
            end: size,
        };
        let mut next = match may_have_holes {
            true => copy::next_run(file, 0, size).call("lseek", path)?,
            false => Some(whole),
        };
        while let Some(run) = next {
            self.zeros(run.start - at, &mut hasher)?;
            at = run.start;
            while at < run.end {
                // So little that it is still in the cache when it is hashed.
                let want = usize::try_from(run.end - at).unwrap_or(READ).min(READ);
                let data = self.out.room(want).map_err(LayerError::Write)?;
                file.read_exact_at(data, at)
                    .map_err(|error| match error.kind() {
                        std::io::ErrorKind::UnexpectedEof => LayerError::Changed(escape(path)),
                        _ => LayerError::Read(error),
                    })?;
                hasher.update(data);
                let count = data.len();
                self.out.advance(count);
                at += count as u64;
            }
            next = match at < size {
                true => copy::next_run(file, at, size).call("lseek", path)?,
                false => None,
            };
        }
        self.zeros(size - at, &mut hasher)?;
        self.hash_of_content(&hasher);
        self.stats.size_bytes += size;
        let padding = size.next_multiple_of(512) - size;
        self.write(&[0; 512][..usize::try_from(padding).unwrap_or(0)])
    }

    fn zeros(&mut self, mut count: u64, hasher: &mut blake3::Hasher) -> Result<(), LayerError> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        self.stats.hole_bytes += count;
        while count > 0 {
            let part = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(ZEROS.len());
            self.write(&ZEROS[..part])?;
            hasher.update(&ZEROS[..part]);
            count -= part as u64;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<StreamStats, LayerError> {
        self.write(&[0; 1024])?;
        self.out.flush().map_err(LayerError::Write)?;
        self.stats.stream_bytes = self.out.length();
        self.stats.content_id = ContentId(*self.hasher.finalize().as_bytes());
        Ok(self.stats)
    }
}

/// A part of a stream, made apart from the rest.
#[derive(Debug, Default)]
pub(super) struct Part {
    stream: Vec<u8>,
    content: Vec<u8>,
    entries: u64,
    size_bytes: u64,
}

impl Part {
    /// Adds a header.
    pub(super) fn header(&mut self, fields: &Fields<'_>) {
        self.stream.extend_from_slice(&header::encode(fields, true));
        self.content
            .extend_from_slice(&header::encode(fields, false));
        self.entries += 1;
    }

    /// Adds a file with its content, whose hash is known.
    pub(super) fn file(&mut self, fields: &Fields<'_>, data: &[u8], hash: &[u8; 32]) {
        self.header(fields);
        self.stream.extend_from_slice(data);
        let filled = self.stream.len().next_multiple_of(512);
        self.stream.resize(filled, 0);
        self.content.extend_from_slice(hash);
        self.size_bytes += data.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::testing::{TestTar, stream_names};

    fn stream(tar: TestTar) -> (Vec<u8>, StreamStats) {
        let (layer, applied) = tar.apply();
        let mut stream = Vec::new();
        let stats = write_tar(&layer.layer_of(&applied), &applied.omit, &mut stream).unwrap();
        (stream, stats)
    }

    /// SEMANTICS 67
    #[test]
    fn stream_is_sorted_by_components_whatever_the_order_of_creation() {
        let names = ["z", "a/z", "a-b", "a.b", "a/a"];
        let forward = names
            .iter()
            .fold(TestTar::new().dir("a"), |t, n| t.file(n, n));
        let backward = names
            .iter()
            .rev()
            .fold(TestTar::new().dir("a"), |t, n| t.file(n, n));
        let (layer, applied) = names
            .iter()
            .fold(TestTar::new().dir("a"), |t, n| t.file(n, n))
            .apply();
        assert_eq!(
            stream_names(&layer.layer_of(&applied), &applied.omit),
            ["a/", "a/a", "a/z", "a-b", "a.b", "z"]
        );
        assert!(stream(forward).0 == stream(backward).0);
    }

    #[test]
    fn content_id_ignores_times_and_nothing_else() {
        let tar = |time: i64, mode: u32, data: &str| {
            let change = |a: &mut crate::layer::Attributes| {
                (a.mode, a.mtime) = (mode, Some(Timestamp::from_seconds(time)));
            };
            stream(TestTar::new().with(b'0', b"f", b"", data.as_bytes(), change))
        };
        let (one, other) = (tar(1, 0o644, "x"), tar(-1_000, 0o644, "x"));
        assert!(one.0 != other.0);
        assert_eq!(one.1.content_id, other.1.content_id);
        assert_ne!(one.1.content_id, tar(1, 0o600, "x").1.content_id);
        assert_ne!(one.1.content_id, tar(1, 0o644, "y").1.content_id);
    }

    /// SEMANTICS 67
    #[test]
    fn gnu_tar_reads_long_names_great_ids_attributes_and_hard_links() {
        let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
        let (bytes, _) = stream(
            TestTar::new()
                .with(b'0', long.as_bytes(), b"", b"data", |a| {
                    (a.uid, a.gid) = (3_000_000, 0);
                    a.xattrs.insert(b"user.a".to_vec(), b"line\nline".to_vec());
                })
                .hardlink("zz", &long)
                .symlink("link", &"t".repeat(150)),
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let output = std::process::Command::new("tar")
            .args(["--numeric-owner", "--xattrs", "-tvvf"])
            .arg(file.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        assert!(text.contains("3000000/0"), "{text}");
        assert!(text.contains(&format!("zz link to {long}")), "{text}");
        assert!(
            text.contains(&format!("link -> {}", "t".repeat(150))),
            "{text}"
        );
        assert!(text.contains("x: 9 user.a"), "{text}");
    }

    /// SEMANTICS 70
    #[test]
    fn hard_links_point_to_the_first_name_that_is_in_the_stream() {
        let (layer, applied) = TestTar::new()
            .file("a", "data")
            .hardlink("b", "a")
            .hardlink("c", "a")
            .apply();
        let mut omit = applied.omit.clone();
        omit.entries.insert(b"a".to_vec());
        let mut stream = Vec::new();
        let stats = write_tar(&layer.layer_of(&applied), &omit, &mut stream).unwrap();
        assert_eq!(stats.size_bytes, 4);
        let mut input = &stream[..];
        let mut reader = crate::layer::reader::TarReader::new(&mut input);
        let first = reader.next_entry().unwrap().unwrap();
        assert_eq!((&first.name[..], first.size), (&b"b"[..], 4));
        let second = reader.next_entry().unwrap().unwrap();
        assert_eq!((&second.name[..], &second.link[..]), (&b"c"[..], &b"b"[..]));
    }

    /// SEMANTICS 71
    #[test]
    fn holes_are_zeros_in_the_stream_and_counted() {
        let (layer, applied) = TestTar::new()
            .pax(&[
                ("GNU.sparse.size", b"2000000"),
                ("GNU.sparse.map", b"1000000,4"),
            ])
            .file("f", "data")
            .apply();
        let mut stream = Vec::new();
        let stats = write_tar(&layer.layer_of(&applied), &applied.omit, &mut stream).unwrap();
        assert_eq!(stats.size_bytes, 2_000_000);
        assert!(stats.hole_bytes > 1_900_000, "{}", stats.hole_bytes);
        assert!(stream[512..512 + 1_000_000].iter().all(|b| *b == 0));
        assert_eq!(&stream[512 + 1_000_000..][..4], b"data");
    }
}
