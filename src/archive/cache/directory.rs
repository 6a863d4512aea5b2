//! A cache in a directory, written: what a build used joins what is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::reader::{self, Content};
use super::records::{CachedLayer, Records};
use super::{CacheError, NAME, RECORDS};
use crate::archive::destination::Sink;
use crate::archive::source::blob_name;
use crate::archive::{Archive, ArchiveError, oci};
use crate::image::{Descriptor, Digest, Index, IndexEntry, Manifest, media_type};
use crate::store::{Session, Store, Verifying};

/// How long a build waits for another one that writes the same cache.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

type Result<T> = std::result::Result<T, CacheError>;

/// Writes a cache.
pub struct CacheWriter<'a> {
    /// Where the cache is, or will be.
    pub path: &'a Path,
    /// How many bytes its layers may have.
    pub limit: Option<u64>,
    /// Blobs of the cache that turned out to be damaged.
    pub damaged: &'a BTreeSet<Digest>,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The layers that the cache has now.
    pub layers: usize,
    /// The bytes of their blobs.
    pub bytes: u64,
    /// The bytes of what was added.
    pub added: u64,
    /// How many layers went, to keep the limit.
    pub dropped: usize,
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let noun = if self.layers == 1 { "layer" } else { "layers" };
        write!(f, "{} {noun}", self.layers)?;
        if self.dropped > 0 {
            write!(f, ", {} dropped for its size", self.dropped)?;
        }
        Ok(())
    }
}

trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| CacheError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

impl CacheWriter<'_> {
    /// Adds what a build used, whose blobs are in the store; a file `index.json` that is
    /// replaced at the end makes it count.
    ///
    /// # Errors
    /// See [`CacheError`]. What the cache had before is still there then.
    pub fn write(
        &self,
        store: &Store,
        session: &Session,
        used: Vec<CachedLayer>,
    ) -> Result<Written> {
        fs::create_dir_all(self.path).at("cannot create", self.path)?;
        let _alone = lock(self.path)?;
        let mut records = self.present(session)?;
        self.put("oci-layout", |sink| sink.write_all(oci::LAYOUT.as_bytes()))?;
        for directory in ["blobs", "blobs/sha256"] {
            self.make_dir(directory)?;
        }
        // What is not there any more, or was never whole, can't be kept.
        records
            .layers
            .retain(|layer| !self.damaged.contains(&layer.blob.digest) && self.has(&layer.blob));
        records.add(used);
        let mut written = Written::default();
        if let Some(limit) = self.limit {
            let before = records.layers.len();
            records.limit(limit);
            written.dropped = before - records.layers.len();
        }
        let blobs = records.blobs();
        written.layers = records.layers.len();
        for blob in blobs.values() {
            written.bytes += blob.size;
            if self.damaged.contains(&blob.digest) || !self.has(blob) {
                self.put_blob(store, blob)?;
                written.added += blob.size;
            }
        }
        let document = records.to_bytes();
        let manifest = Manifest {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: Descriptor::of(RECORDS, &document),
            layers: blobs.values().map(|blob| (*blob).clone()).collect(),
        };
        let bytes = manifest.to_bytes();
        let entry = IndexEntry {
            descriptor: Descriptor::of(media_type::OCI_MANIFEST, &bytes),
            platform: None,
            ref_name: Some(NAME.to_owned()),
            image_name: None,
        };
        let mut kept: BTreeSet<Digest> = blobs.keys().map(|digest| (*digest).clone()).collect();
        for (descriptor, bytes) in [(&manifest.config, &document), (&entry.descriptor, &bytes)] {
            self.put(&blob_name(&descriptor.digest), |sink| sink.write_all(bytes))?;
            kept.insert(descriptor.digest.clone());
        }
        let index = Index {
            entries: vec![entry],
        };
        self.put("index.json", |sink| sink.write_all(&index.to_bytes()))?;
        self.remove_others(&kept);
        Ok(written)
    }

    /// Returns what the directory has already. A cache that is damaged is begun anew; what is
    /// none is left alone.
    fn present(&self, session: &Session) -> Result<Records> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(self.path).at("cannot list", self.path)? {
            names.insert(entry.at("cannot list", self.path)?.file_name());
        }
        // What a first build has left that was killed.
        let own = |name: &std::ffi::OsString| {
            let own = ["oci-layout", "index.json", "blobs"];
            own.iter().any(|own| name == own) || name.as_encoded_bytes().starts_with(b".kiln-")
        };
        let is_layout = names.contains("oci-layout".as_ref() as &std::ffi::OsStr)
            || names.contains("index.json".as_ref() as &std::ffi::OsStr);
        let is_own = is_layout && names.iter().all(own);
        if !names.is_empty() && !is_own {
            return Err(ArchiveError::NotALayout(self.path.to_owned()).into());
        }
        let archive = Archive::open(session, self.path)?;
        let manifest = match reader::content(&archive) {
            Ok(Content::Cache(manifest)) => manifest,
            Ok(Content::Foreign) => return Err(CacheError::Occupied),
            Ok(Content::Nothing) | Err(_) => return Ok(Records::default()),
        };
        match reader::read(&archive, &manifest) {
            Ok(records) => Ok(records),
            Err(CacheError::Foreign) => Err(CacheError::Occupied),
            Err(_) => Ok(Records::default()),
        }
    }

    /// Tells whether a blob is there, as a plain file of the right size.
    fn has(&self, blob: &Descriptor) -> bool {
        let path = self.path.join(blob_name(&blob.digest));
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == blob.size)
    }

    fn make_dir(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        clear(&path, fs::Metadata::is_dir)?;
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).at("cannot create", &path)
            }
            _ => Ok(()),
        }
    }

    /// Writes a file whole.
    fn put(&self, name: &str, write: impl FnOnce(&mut Sink) -> io::Result<()>) -> Result<()> {
        let path = self.path.join(name);
        // Through a link, a file elsewhere would be overwritten.
        clear(&path, fs::Metadata::is_file)?;
        let mut sink = Sink::to_file(&path)?;
        write(&mut sink).at("cannot write", &path)?;
        Ok(sink.commit()?)
    }

    fn put_blob(&self, store: &Store, blob: &Descriptor) -> Result<()> {
        let file = store.open_blob(&blob.digest).map_err(ArchiveError::from)?;
        let mut reader = Verifying::new(file, blob.digest.clone());
        self.put(&blob_name(&blob.digest), |sink| {
            io::copy(&mut reader, sink).map(|_| ())
        })
    }

    /// Removes the blobs that nothing refers to any more, and what a killed build has left.
    fn remove_others(&self, kept: &BTreeSet<Digest>) {
        let wanted: BTreeSet<&str> = kept.iter().map(Digest::hex).collect();
        let blobs = self.path.join("blobs/sha256");
        for entry in fs::read_dir(&blobs).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_none_or(|name| !wanted.contains(name)) {
                let _ = remove(&entry.path());
            }
        }
        for entry in fs::read_dir(self.path).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".kiln-") {
                let _ = remove(&entry.path());
            }
        }
    }
}

/// Removes what stands in the place of something of another kind.
fn clear(path: &Path, is_right: impl FnOnce(&fs::Metadata) -> bool) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !is_right(&meta) => remove(path).at("cannot remove", path),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

/// Takes the lock of a directory, which is the directory's own: no file of it is left over.
/// Returns nothing on a file system that has no locks: there, of two builds that write at once
/// one may be forgotten.
fn lock(path: &Path) -> Result<Option<Flock<File>>> {
    let mut directory = File::open(path).at("cannot open", path)?;
    let begun = Instant::now();
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((again, Errno::EAGAIN | Errno::EINTR)) => directory = again,
            Err(_) => return Ok(None),
        }
        if begun.elapsed() > PATIENCE {
            return Err(CacheError::Busy(PATIENCE.as_secs()));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Returns the time as records have it.
pub fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
