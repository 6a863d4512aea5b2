//! Archives and layouts as places of images.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BlobStream, CopyError, Document, Goal, Origin, Plan};
use crate::archive::{
    Archive, ArchiveError, Destination, ImageFile, ImageWriter, Layout, LayoutName,
};
use crate::event::{TransferOutcome, Verb};
use crate::image::{Descriptor, ImageConfig, Platform, Reference};
use crate::registry::Progress;
use crate::store::Verifying;
use crate::transfer::Transfer;

/// No config is larger, in bytes.
const CONFIG_LIMIT: u64 = 8 << 20;

/// An image of an archive or a layout as the origin.
pub struct FileOrigin(ImageFile);

impl FileOrigin {
    /// Opens a file or directory; `wanted` is the image's name in it.
    ///
    /// # Errors
    /// It can't be read, or has no such image.
    pub fn open(
        transfer: &Transfer<'_>,
        path: &Path,
        wanted: Option<&str>,
    ) -> Result<FileOrigin, CopyError> {
        let archive = Archive::open(transfer.session, path)?;
        Ok(FileOrigin(ImageFile::find(transfer, archive, wanted)?))
    }
}

impl Origin for FileOrigin {
    fn root(&self) -> Result<Document, CopyError> {
        let (descriptor, bytes) = self.0.root().clone();
        Ok(Document { descriptor, bytes })
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, CopyError> {
        Ok(self.0.document(&descriptor.digest)?)
    }

    fn blob(&self, blob: &Descriptor, progress: Progress) -> Result<BlobStream, CopyError> {
        Ok(self.0.blob(blob, progress)?)
    }
}

/// An archive or a layout as the goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Where.
    pub destination: Destination,
    /// What it is like.
    pub layout: Layout,
    /// What the image is called there.
    pub name: Option<String>,
}

impl Files {
    /// Copies into it, and returns what is there now. A directory keeps what came whole when
    /// the copy fails: the next one goes on with that.
    ///
    /// # Errors
    /// Of either place.
    pub fn take(
        &self,
        transfer: &Transfer<'_>,
        plan: &Plan,
        origin: &dyn Origin,
    ) -> Result<Plan, CopyError> {
        let mut name = LayoutName::default();
        if let ([manifest], [_]) = (plan.manifests.as_slice(), plan.documents.as_slice()) {
            name.platform = platform(origin, &manifest.config)?;
        }
        if self.layout == Layout::Docker {
            if name.platform.is_none() {
                return Err(CopyError::refused(
                    "docker's archives hold images for one platform, and this is something else",
                    "copy one of its images with --platform, or write an oci-archive",
                ));
            }
            let parsed = self.name.as_ref().map(|text| text.parse::<Reference>());
            name.reference = parsed.transpose().map_err(|error| CopyError::Refused {
                text: error.to_string(),
                hint: error.hint().unwrap_or_default(),
            })?;
        } else {
            name.text.clone_from(&self.name);
        }
        let goal = FileGoal {
            writer: ImageWriter::open(&self.destination, self.layout)?,
            target: match &self.destination {
                Destination::File(path) | Destination::Directory(path) => path.clone(),
                Destination::Stdout => "standard output".into(),
            },
        };
        match super::copy(transfer, plan, origin, &goal, Verb::Copy) {
            Ok(plan) => {
                if let ([manifest], [_]) = (plan.manifests.as_slice(), plan.documents.as_slice()) {
                    name.image = Some(manifest.clone());
                }
                goal.writer.finish(&plan.root()?.descriptor, &name)?;
                Ok(plan)
            }
            Err(error) => {
                goal.writer.give_up();
                Err(error)
            }
        }
    }
}

/// Returns the platform that an image's config names; nothing where it is something else, as
/// in an artifact.
///
/// # Errors
/// The config can't be read.
pub(super) fn platform(
    origin: &dyn Origin,
    config: &Descriptor,
) -> Result<Option<Platform>, CopyError> {
    let platform = config_of(origin, config)?.map(|config| config.platform());
    Ok(platform.filter(|platform| !platform.architecture.is_empty() && !platform.os.is_empty()))
}

/// Reads the config of an image; nothing where it is something else, as in an artifact.
///
/// # Errors
/// It can't be read.
pub(super) fn config_of(
    origin: &dyn Origin,
    config: &Descriptor,
) -> Result<Option<ImageConfig>, CopyError> {
    if config.size > CONFIG_LIMIT {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&read_all(origin, config)?).ok())
}

/// Reads a small blob, and verifies it.
pub(super) fn read_all(origin: &dyn Origin, blob: &Descriptor) -> Result<Vec<u8>, CopyError> {
    let reader = origin.blob(blob, Arc::new(|_| {}))?;
    let mut bytes = Vec::new();
    Verifying::new(reader.take(blob.size + 1), blob.digest.clone())
        .read_to_end(&mut bytes)
        .map_err(|error| CopyError::read(&blob.digest, error))?;
    Ok(bytes)
}

struct FileGoal {
    writer: ImageWriter,
    target: PathBuf,
}

impl FileGoal {
    fn cannot_write(&self, source: io::Error) -> CopyError {
        let error = ArchiveError::Io {
            action: "cannot write",
            path: self.target.clone(),
            source,
        };
        error.into()
    }
}

impl Goal for FileGoal {
    fn blob(
        &self,
        blob: &Descriptor,
        origin: &dyn Origin,
        progress: Progress,
    ) -> Result<TransferOutcome, CopyError> {
        if self.writer.has(blob) {
            return Ok(TransferOutcome::Exists);
        }
        let mut reader = origin.blob(blob, progress)?;
        self.writer.put(blob, |out| {
            pass(&mut reader, blob, |bytes| {
                out.write_all(bytes)
                    .map_err(|error| self.cannot_write(error))
            })
        })?;
        Ok(TransferOutcome::Done)
    }

    fn document(&self, document: &Document, _is_root: bool) -> Result<(), CopyError> {
        if self.writer.has(&document.descriptor) {
            return Ok(());
        }
        self.writer.put(&document.descriptor, |out| {
            out.write_all(&document.bytes)
                .map_err(|error| self.cannot_write(error))
        })
    }

    fn has(&self, blob: &Descriptor) -> Result<bool, CopyError> {
        Ok(self.writer.has(blob))
    }

    fn takes_several(&self) -> bool {
        self.writer.takes_several()
    }
}

/// Passes on the bytes of a blob, which has to have the size that it is said to have.
pub(super) fn pass(
    reader: &mut dyn Read,
    blob: &Descriptor,
    mut on: impl FnMut(&[u8]) -> Result<(), CopyError>,
) -> Result<(), CopyError> {
    let failed = |error| CopyError::read(&blob.digest, error);
    let mut buffer = vec![0; 1 << 17];
    let mut left = blob.size;
    loop {
        let read = match reader.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(failed)?,
        };
        if read == 0 && left == 0 {
            return Ok(());
        }
        left = match left.checked_sub(read as u64) {
            Some(rest) if read > 0 => rest,
            _ => {
                let text = format!("it has another size than {} bytes", blob.size);
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, text)));
            }
        };
        on(&buffer[..read])?;
    }
}
