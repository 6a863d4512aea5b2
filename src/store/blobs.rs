//! Blobs, by digest.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::growth::{Announcer, GrowingBlob};
use super::uses::Kind;
use super::{IoContext, Result, Session, Store, StoreError};
use crate::image::{Digest, Hasher};

/// No manifest or config is larger, in bytes.
const DOCUMENT_LIMIT: u64 = 16 << 20;

/// A blob that is being written. It is published by [`BlobWriter::commit`].
pub struct BlobWriter {
    store: Store,
    path: PathBuf,
    file: io::BufWriter<File>,
    name: Name,
    size: u64,
    announcer: Option<Announcer>,
}

/// What a blob will be called.
enum Name {
    /// By the digest of what is written.
    Hashed(Hasher),
    /// By one that the caller verifies.
    Known(Digest),
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if let Name::Hashed(hasher) = &mut self.name {
            hasher.update(&bytes[..written]);
        }
        self.size += written as u64;
        if let Some(announcer) = &mut self.announcer
            && announcer.is_due(self.size)
        {
            self.file.flush()?;
            announcer.announce(self.size)?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobWriter {
    /// Returns the digest of what was written so far.
    pub fn digest(&self) -> Digest {
        match &self.name {
            Name::Hashed(hasher) => hasher.clone().finish(),
            Name::Known(digest) => digest.clone(),
        }
    }

    /// Returns the blob for those who read it while it is written.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn grow(&mut self) -> Result<GrowingBlob> {
        let file = File::open(&self.path).at("cannot read", &self.path)?;
        let (announcer, growing) = super::growth::begin(file);
        self.announcer = Some(announcer);
        Ok(growing)
    }

    /// Publishes the blob under the digest of what was written, and returns digest and size.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn commit(mut self) -> Result<(Digest, u64)> {
        self.file.flush().at("cannot write", &self.path)?;
        let digest = match self.name {
            Name::Hashed(hasher) => hasher.finish(),
            Name::Known(digest) => digest,
        };
        let target = self.store.blob_path(&digest);
        self.store.uses(Kind::Blob, digest.hex());
        fs::rename(&self.path, &target).at("cannot publish", &target)?;
        if let Some(announcer) = self.announcer {
            announcer.end(digest.clone(), self.size);
        }
        Ok((digest, self.size))
    }

    /// Ends the blob without publishing it: who reads it meanwhile does so to its end, and it
    /// goes with the file that is returned.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn set_aside(mut self) -> Result<(Digest, u64, File)> {
        self.file.flush().at("cannot write", &self.path)?;
        let digest = self.digest();
        let file = File::open(&self.path).at("cannot read", &self.path)?;
        fs::remove_file(&self.path).at("cannot remove", &self.path)?;
        if let Some(announcer) = self.announcer {
            announcer.end(digest.clone(), self.size);
        }
        Ok((digest, self.size, file))
    }
}

impl Store {
    /// Returns where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    /// Tells whether a blob is here; then it stays as long as this process lives.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.uses(Kind::Blob, digest.hex());
        self.blob_path(digest).exists()
    }

    /// Returns all files among the blobs, each with the digest that its name says.
    pub(super) fn blob_files(&self) -> Result<Vec<(Option<Digest>, PathBuf)>> {
        let mut files = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let directory = self.dir("blobs").join(algorithm);
            for hex in super::files::names(&directory)? {
                let digest = format!("{algorithm}:{hex}").parse().ok();
                files.push((digest, directory.join(hex)));
            }
        }
        Ok(files)
    }

    /// Starts to write a blob.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn new_blob(&self, session: &Session) -> Result<BlobWriter> {
        let hasher = Hasher::new(crate::image::Algorithm::Sha256);
        self.begin_blob(session, Name::Hashed(hasher))
    }

    /// Starts to write a blob that the caller verifies before it is committed.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn new_verified_blob(&self, session: &Session, digest: Digest) -> Result<BlobWriter> {
        self.begin_blob(session, Name::Known(digest))
    }

    fn begin_blob(&self, session: &Session, name: Name) -> Result<BlobWriter> {
        let path = session.file()?;
        let file = File::create_new(&path).at("cannot create", &path)?;
        Ok(BlobWriter {
            store: self.clone(),
            path,
            file: io::BufWriter::with_capacity(1 << 17, file),
            name,
            size: 0,
            announcer: None,
        })
    }

    /// Writes a document, such as a manifest or a config.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_document(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.write_document_as(&digest, bytes)?;
        Ok(digest)
    }

    /// Writes a document under a digest that the caller has verified.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_document_as(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let path = self.blob_path(digest);
        self.uses(Kind::Blob, digest.hex());
        // After a crash there may be one whose bytes were lost: reading tells.
        if self.read_document(digest).is_ok() {
            return Ok(());
        }
        super::files::write_atomically(&path, bytes)
    }

    /// Reads a document and verifies it.
    ///
    /// # Errors
    /// [`StoreError::NoBlob`], or [`StoreError::Damaged`] where the digest is another.
    pub fn read_document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        self.uses(Kind::Blob, digest.hex());
        let bytes = super::files::read_bounded(&path, DOCUMENT_LIMIT)?
            .ok_or_else(|| StoreError::NoBlob(digest.clone()))?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(StoreError::Damaged {
                path,
                reason: format!("its digest is {found}"),
            });
        }
        Ok(bytes)
    }

    /// Opens a blob for streaming. What reads it verifies it.
    ///
    /// # Errors
    /// [`StoreError::NoBlob`].
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        self.uses(Kind::Blob, digest.hex());
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NoBlob(digest.clone()))
            }
            other => other.at("cannot read", &path),
        }
    }
}

/// A reader that hashes what passes, and fails at the end where the digest is another.
pub struct Verifying<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
}

impl<R: Read> Verifying<R> {
    /// Wraps a reader of the blob `expected`.
    pub fn new(inner: R, expected: Digest) -> Verifying<R> {
        Verifying {
            inner,
            hasher: Some(Hasher::new(expected.algorithm())),
            expected,
        }
    }
}

impl<R: Read> Read for Verifying<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        if read == 0
            && !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let found = hasher.finish();
            if found != self.expected {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("wrong digest: expected {}, found {found}", self.expected),
                ));
            }
        }
        Ok(read)
    }
}
