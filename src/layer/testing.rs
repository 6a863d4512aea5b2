//! What the tests of this module build trees and archives with.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::header::{self, Fields};
use super::stat::{Device, Timestamp};
use super::*;

/// Returns the ownership with which the caller can hold any image: as root, as any user, or
/// within a builder's namespace.
pub fn ownership() -> Ownership {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let counts = map
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    let mapped: u64 = counts.filter_map(|count| count.parse::<u64>().ok()).sum();
    match nix::unistd::geteuid().is_root() {
        true if mapped > 1 << 31 => Ownership::Real,
        true if mapped > 1 => Ownership::Shifted {
            count: u32::try_from(mapped - 1).unwrap(),
        },
        _ => Ownership::Single,
    }
}

/// A layer directory that goes away with its test.
pub struct TestLayer {
    directory: tempfile::TempDir,
    fd: File,
}

impl TestLayer {
    pub fn new() -> TestLayer {
        let directory = tempfile::tempdir().unwrap();
        let fd = File::open(directory.path()).unwrap();
        TestLayer { directory, fd }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn layer(&self) -> LayerDir {
        let fd: OwnedFd = self.fd.try_clone().unwrap().into();
        LayerDir::new(fd, ownership()).with_own_root(false)
    }

    /// Returns the directory as its metadata describes it.
    pub fn layer_of(&self, written: &Written) -> LayerDir {
        self.layer()
            .with_overrides(written.overrides.clone())
            .with_own_root(!written.omit.root)
    }
}

/// Makes archives, also such as no honest tool makes.
#[derive(Default)]
pub struct TestTar(pub Vec<u8>);

impl TestTar {
    pub fn new() -> TestTar {
        TestTar::default()
    }

    pub fn with(
        mut self,
        flag: u8,
        path: &[u8],
        link: &[u8],
        data: &[u8],
        change: impl FnOnce(&mut Attributes),
    ) -> TestTar {
        let mut attributes = Attributes {
            mode: if flag == b'5' { 0o755 } else { 0o644 },
            mtime: Some(Timestamp::from_seconds(1_000_000)),
            ..Attributes::default()
        };
        change(&mut attributes);
        let fields = Fields {
            path,
            flag,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            size: data.len() as u64,
            mtime: attributes.mtime.unwrap(),
            link,
            device: Device { major: 8, minor: 1 },
            xattrs: &attributes.xattrs,
        };
        self.0.extend(header::encode(&fields, true));
        self.data(data)
    }

    fn data(mut self, data: &[u8]) -> TestTar {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, data: &str) -> TestTar {
        self.with(b'0', path.as_bytes(), b"", data.as_bytes(), |_| ())
    }

    pub fn dir(self, path: &str) -> TestTar {
        self.with(b'5', format!("{path}/").as_bytes(), b"", b"", |_| ())
    }

    pub fn symlink(self, path: &str, target: &str) -> TestTar {
        self.with(b'2', path.as_bytes(), target.as_bytes(), b"", |_| ())
    }

    pub fn hardlink(self, path: &str, target: &str) -> TestTar {
        self.with(b'1', path.as_bytes(), target.as_bytes(), b"", |_| ())
    }

    /// Puts an extended header of any bytes before the next entry.
    pub fn extended(mut self, flag: u8, data: &[u8]) -> TestTar {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[156] = flag;
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.data(data)
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> TestTar {
        let mut data = Vec::new();
        for (key, value) in records {
            pax::append(&mut data, key.as_bytes(), value);
        }
        self.extended(b'x', &data)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    pub fn apply_on(self, lower: &View) -> (TestLayer, Result<Applied, LayerError>) {
        self.apply_as(ApplyMode::Layer, lower)
    }

    pub fn apply_as(
        self,
        mode: ApplyMode,
        lower: &View,
    ) -> (TestLayer, Result<Applied, LayerError>) {
        let layer = TestLayer::new();
        let options = ApplyOptions {
            ownership: ownership(),
            lower,
            mode,
            limits: Limits::default(),
        };
        let result = apply(&mut &self.end()[..], layer.fd(), &options);
        (layer, result)
    }

    /// Extracts an archive that has to be fine, on top of nothing.
    pub fn apply(self) -> (TestLayer, Applied) {
        let (layer, result) = self.apply_on(&View::default());
        (layer, result.unwrap())
    }

    /// Returns what is said of an archive that must be refused.
    pub fn refused(self) -> String {
        self.apply_on(&View::default()).1.unwrap_err().to_string()
    }
}

/// Returns a view over layers made of archives, bottom first, and keeps them alive.
pub fn stack(tars: Vec<TestTar>) -> (Vec<TestLayer>, View) {
    let mut view = View::default();
    let mut layers = Vec::new();
    for tar in tars {
        let (layer, applied) = tar.apply_on(&view);
        view.push(layer.layer_of(&applied.unwrap()));
        layers.push(layer);
    }
    (layers, view)
}

/// Returns the content of a file, or nothing where there is none.
pub fn content(view: &View, path: &str) -> Option<String> {
    let node = view.resolve(path.as_bytes(), true).unwrap().node?;
    let mut file = view.open_file(&node).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    Some(text)
}

/// Returns the names in a directory.
pub fn names(view: &View, path: &str) -> Vec<String> {
    let entries = view.read_dir(path.as_bytes()).unwrap();
    entries.iter().map(|entry| escape(&entry.name)).collect()
}

/// Returns the names of a stream's entries, in order.
pub fn stream_names(layer: &LayerDir, omit: &Omit) -> Vec<String> {
    let mut stream = Vec::new();
    write_tar(layer, omit, &mut stream).unwrap();
    let mut input = &stream[..];
    let mut reader = reader::TarReader::new(&mut input);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(escape(&entry.name));
    }
    names
}
