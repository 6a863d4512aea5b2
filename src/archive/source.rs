//! Archives and layout directories as named files. Nothing of them is ever extracted: names
//! only find members, and members are read where they lie.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::{ArchiveError, IoContext, Result};
use crate::image::Digest;
use crate::layer::{Compression, MemberContent, members};
use crate::store::Session;

/// No archive of images has more members.
const MAX_MEMBERS: usize = 1 << 16;
/// No member that kiln reads has a longer name, in bytes.
const MAX_NAME: usize = 1024;
/// No stream is spooled beyond this many bytes.
const MAX_SPOOLED: u64 = 1 << 42;
/// Links followed from one member to the next.
const MAX_LINKS: usize = 16;

/// An archive of images or an OCI layout, open for reading.
pub struct Archive {
    place: Place,
}

enum Place {
    Tar {
        file: Arc<File>,
        members: HashMap<Vec<u8>, MemberContent>,
    },
    Directory(OwnedFd),
}

/// A part of a file.
#[derive(Clone, Debug)]
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Section {
    fn whole(file: File) -> io::Result<Section> {
        let left = file.metadata()?.len();
        Ok(Section {
            file: Arc::new(file),
            at: 0,
            left,
        })
    }

    /// Returns the number of bytes that are left to read.
    pub(super) fn len(&self) -> u64 {
        self.left
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.file.read_at(&mut buffer[..want], self.at)?;
        if read == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Copies what is read from it.
struct Tee<R> {
    reader: R,
    copy: File,
    left: u64,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.copy.write_all(&buffer[..read])?;
        Ok(read)
    }
}

/// Creates a file that has no name any more, and goes with its descriptor.
fn nameless(session: &Session) -> Result<File> {
    let path = session.file()?;
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .at("cannot create", &path)?;
    std::fs::remove_file(&path).at("cannot remove", &path)?;
    Ok(file)
}

impl Archive {
    /// Opens an archive or a layout directory.
    ///
    /// # Errors
    /// It can't be read, or is no whole archive.
    pub fn open(session: &Session, path: &Path) -> Result<Archive> {
        let metadata = std::fs::metadata(path).at("cannot read", path)?;
        let file = File::open(path).at("cannot read", path)?;
        if metadata.is_dir() {
            return Ok(Archive {
                place: Place::Directory(file.into()),
            });
        }
        Archive::read(session, file)
    }

    /// Reads an archive, compressed or not. What can't be read in any order, or is
    /// compressed, is spooled in the session.
    ///
    /// # Errors
    /// It can't be read, or is no whole archive.
    pub fn read(session: &Session, file: File) -> Result<Archive> {
        let unreadable = |source| ArchiveError::Unreadable(crate::layer::LayerError::Read(source));
        let seekable = file.metadata().is_ok_and(|m| m.is_file())
            && io::Seek::stream_position(&mut &file).is_ok_and(|at| at == 0);
        let mut magic = [0; 6];
        if seekable && {
            let read = file.read_at(&mut magic, 0).map_err(unreadable)?;
            Compression::detect(&magic[..read]) == Compression::None
        } {
            let members = scan(&mut io::BufReader::with_capacity(1 << 17, &file))?;
            return Ok(Archive::tar(file, members));
        }
        let spool = nameless(session)?;
        let (_, reader) = Compression::decode(file).map_err(unreadable)?;
        let copy = spool.try_clone().map_err(unreadable)?;
        let mut tee = Tee {
            reader,
            copy,
            left: MAX_SPOOLED,
        };
        let members = scan(&mut io::BufReader::with_capacity(1 << 17, &mut tee))?;
        drop(tee);
        Ok(Archive::tar(spool, members))
    }

    fn tar(file: File, members: HashMap<Vec<u8>, MemberContent>) -> Archive {
        Archive {
            place: Place::Tar {
                file: Arc::new(file),
                members,
            },
        }
    }

    /// Returns a file of the archive, where there is one of that name.
    pub(super) fn find(&self, name: &str) -> Result<Option<Section>> {
        match &self.place {
            Place::Tar { file, members } => {
                let mut name = name.trim_start_matches("./").as_bytes();
                for _ in 0..MAX_LINKS {
                    match members.get(name) {
                        None => return Ok(None),
                        Some(MemberContent::Link(target)) => name = target,
                        Some(&MemberContent::Here { offset, size }) => {
                            return Ok(Some(Section {
                                file: file.clone(),
                                at: offset,
                                left: size,
                            }));
                        }
                    }
                }
                Ok(None)
            }
            Place::Directory(directory) => {
                let path = PathBuf::from(name);
                let how = OpenHow::new()
                    // A pipe must not hold up the one who opens it.
                    .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
                    .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
                let file = match openat2(directory.as_fd(), name, how) {
                    Err(nix::errno::Errno::ENOENT) => return Ok(None),
                    other => File::from(other.at("cannot read", &path)?),
                };
                if !file.metadata().at("cannot read", &path)?.is_file() {
                    return Ok(None);
                }
                Section::whole(file).at("cannot read", &path).map(Some)
            }
        }
    }

    /// Returns a file of the archive.
    ///
    /// # Errors
    /// [`ArchiveError::Missing`].
    pub(super) fn get(&self, name: &str) -> Result<Section> {
        self.find(name)?.ok_or_else(|| missing(name))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// It is not there, or has more than `limit` bytes.
    pub(super) fn document(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let mut section = self.get(name)?;
        if section.len() > limit {
            return Err(ArchiveError::Malformed {
                name: printable(name),
                reason: format!("it has {} bytes", section.len()),
            });
        }
        let mut bytes = Vec::new();
        section
            .read_to_end(&mut bytes)
            .at("cannot read", Path::new(name))?;
        Ok(bytes)
    }

    /// Reads the document of a digest and verifies it.
    ///
    /// # Errors
    /// It is not there, has more than `limit` bytes, or another digest.
    pub(super) fn blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let name = blob_name(digest);
        let bytes = self.document(&name, limit)?;
        let mut hasher = crate::image::Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(ArchiveError::WrongDigest { name, found });
        }
        Ok(bytes)
    }
}

/// Returns the content of a section without its compression, as a section of a spool.
pub(super) fn decompressed(session: &Session, section: Section) -> Result<Section> {
    let unreadable = |source| ArchiveError::Unreadable(crate::layer::LayerError::Read(source));
    let spool = nameless(session)?;
    let (_, reader) = Compression::decode(section).map_err(unreadable)?;
    let copy = spool.try_clone().map_err(unreadable)?;
    let left = MAX_SPOOLED;
    let mut tee = Tee { reader, copy, left };
    io::copy(&mut tee, &mut io::sink()).map_err(unreadable)?;
    Section::whole(spool).map_err(unreadable)
}

fn scan(reader: &mut dyn Read) -> Result<HashMap<Vec<u8>, MemberContent>> {
    let mut found = HashMap::new();
    members(reader, |member| {
        // Names that long are none that kiln asks for.
        let short = |path: &[u8]| path.len() <= MAX_NAME;
        let link_is_short = match &member.content {
            MemberContent::Link(target) => short(target),
            MemberContent::Here { .. } => true,
        };
        if short(&member.path) && link_is_short {
            // As when it is extracted, the last one of a name counts.
            found.insert(member.path, member.content);
        }
        if found.len() > MAX_MEMBERS {
            return Err(ArchiveError::Limit {
                what: "members",
                limit: MAX_MEMBERS as u64,
            });
        }
        Ok(())
    })
    .map_err(|error| match error {
        ArchiveError::Layer(error) => ArchiveError::Unreadable(error),
        other => other,
    })?;
    Ok(found)
}

/// Returns the name of a blob in a layout.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

pub(super) fn missing(name: &str) -> ArchiveError {
    ArchiveError::Missing(printable(name))
}

/// Returns a name out of an archive as it can be shown.
pub(super) fn printable(name: &str) -> String {
    crate::layer::escape(&name.as_bytes()[..name.len().min(200)])
}
