//! Images in files as copies see them: documents and blobs, which nothing unpacks.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::destination::{Directory, Sink};
use super::load::{DOCUMENT_LIMIT, Layers};
use super::save::{merge, present_index};
use super::source::{Section, blob_name};
use super::{Archive, ArchiveError, Destination, IoContext, Layout, Result, docker, oci};
use crate::image::{
    Descriptor, Digest, Index, IndexEntry, Manifest, Platform, Reference, media_type,
};
use crate::layer::member_header;
use crate::store::Verifying;
use crate::transfer::{LayerSource as _, Transfer, TransferError};

/// An image, or an index, of an archive or a layout.
pub struct ImageFile {
    archive: Archive,
    root: (Descriptor, Vec<u8>),
    /// Documents and layers that are no blobs of a layout.
    documents: HashMap<Digest, Vec<u8>>,
    files: HashMap<Digest, Section>,
}

impl ImageFile {
    /// Finds what `wanted` names; without, the only one, or that of the tag `latest`.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn find(
        transfer: &Transfer<'_>,
        archive: Archive,
        wanted: Option<&str>,
    ) -> Result<ImageFile> {
        if archive.find("index.json")?.is_some() {
            return Ok(ImageFile {
                root: oci::named(&archive, wanted)?,
                archive,
                documents: HashMap::new(),
                files: HashMap::new(),
            });
        }
        if archive.find("manifest.json")?.is_none() {
            return Err(ArchiveError::NoImages);
        }
        let mut images = docker::images(transfer, &archive)?;
        let at = match (wanted, images.len()) {
            (None, 1) => Some(0),
            (wanted, _) => {
                let wanted: Option<Reference> = wanted.unwrap_or("latest").parse().ok();
                images
                    .iter()
                    .position(|image| image.names.iter().any(|name| Some(name) == wanted.as_ref()))
            }
        };
        let Some(at) = at else {
            let names = images.iter().flat_map(|image| &image.names);
            return Err(ArchiveError::NoSuchImage {
                wanted: wanted.unwrap_or("latest").to_owned(),
                found: names.map(Reference::familiar).collect(),
            });
        };
        let image = images.swap_remove(at);
        // The format has no manifest: this is what OCI's would be.
        let manifest = Manifest {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: Descriptor::of(media_type::OCI_CONFIG, &image.config),
            layers: image.layers,
        };
        let bytes = manifest.to_bytes();
        Ok(ImageFile {
            archive,
            root: (Descriptor::of(media_type::OCI_MANIFEST, &bytes), bytes),
            documents: HashMap::from([(image.id, image.config)]),
            files: image.files,
        })
    }

    /// Returns the manifest or index, and its bytes.
    pub fn root(&self) -> &(Descriptor, Vec<u8>) {
        &self.root
    }

    /// Reads a manifest or an index that another one refers to.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.archive.blob(digest, DOCUMENT_LIMIT)
    }

    /// Opens a blob; what is read from it is verified by the time it ends.
    ///
    /// # Errors
    /// It is not there, or has another size.
    pub fn blob(
        &self,
        blob: &Descriptor,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> std::result::Result<Box<dyn Read + Send>, TransferError> {
        if let Some(document) = self.documents.get(&blob.digest) {
            return Ok(Box::new(std::io::Cursor::new(document.clone())));
        }
        let layers = Layers {
            archive: &self.archive,
            files: &self.files,
        };
        layers.open(blob, progress)
    }
}

/// An archive or a layout that blobs and documents are put into.
pub struct ImageWriter {
    place: Place,
    layout: Layout,
    target: PathBuf,
}

enum Place {
    Directory {
        directory: Directory,
        /// The index of a layout that was there.
        present: Option<Vec<u8>>,
    },
    /// The stream, and the members that it has.
    Stream(Mutex<(Sink, BTreeSet<String>)>),
}

/// What an image is called in a layout.
#[derive(Clone, Debug, Default)]
pub struct LayoutName {
    /// For a layout: any text.
    pub text: Option<String>,
    /// For docker's archive: a name.
    pub reference: Option<Reference>,
    /// The platform, where it is one image.
    pub platform: Option<Platform>,
    /// The config and the layers, bottom first, where it is one image.
    pub image: Option<Manifest>,
}

impl ImageWriter {
    /// Opens a destination.
    ///
    /// # Errors
    /// It can't be written, or is a directory of other things.
    pub fn open(destination: &Destination, layout: Layout) -> Result<ImageWriter> {
        let stream = |sink: Sink| {
            let target = sink.target().to_owned();
            (Place::Stream(Mutex::new((sink, BTreeSet::new()))), target)
        };
        let (place, target) = match destination {
            Destination::File(path) => stream(Sink::to_file(path)?),
            Destination::Stdout => stream(Sink::to_stdout()?),
            Destination::Directory(path) => {
                let directory = Directory::open(path)?;
                let present = present_index(path)?;
                let place = Place::Directory { directory, present };
                (place, path.clone())
            }
        };
        let writer = ImageWriter {
            place,
            layout,
            target,
        };
        if matches!(writer.place, Place::Directory { .. }) {
            writer.put_bytes("oci-layout", oci::LAYOUT.as_bytes())?;
        }
        Ok(writer)
    }

    /// Tells whether blobs may be put at the same time: into a directory.
    pub fn takes_several(&self) -> bool {
        matches!(self.place, Place::Directory { .. })
    }

    /// Tells whether a blob is there, whole, from before.
    pub fn has(&self, blob: &Descriptor) -> bool {
        if let Place::Stream(stream) = &self.place {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
            return stream.1.contains(&blob_name(&blob.digest));
        }
        let path = self.target.join(blob_name(&blob.digest));
        let Ok(file) = std::fs::File::open(path) else {
            return false;
        };
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let mut verifying = Verifying::new(file, blob.digest.clone());
        size == blob.size && std::io::copy(&mut verifying, &mut std::io::sink()).is_ok()
    }

    /// Puts a blob, whose bytes `write` gives.
    ///
    /// # Errors
    /// Disk full, and the like, or those of `write`.
    pub fn put<E: From<ArchiveError>>(
        &self,
        blob: &Descriptor,
        write: impl FnOnce(&mut dyn Write) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.put_member(&blob_name(&blob.digest), blob.size, write)
    }

    fn put_member<E: From<ArchiveError>>(
        &self,
        name: &str,
        size: u64,
        write: impl FnOnce(&mut dyn Write) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        match &self.place {
            Place::Directory { directory, .. } => {
                for (slash, _) in name.match_indices('/') {
                    directory.directory(&name[..=slash])?;
                }
                directory.put(name, |sink| write(sink))
            }
            Place::Stream(stream) => {
                let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                let (sink, members) = &mut *stream;
                let put = |sink: &mut Sink, bytes: &[u8]| {
                    sink.write_all(bytes).at("cannot write", &self.target)
                };
                for (slash, _) in name.match_indices('/') {
                    if members.insert(name[..=slash].to_owned()) {
                        put(sink, &member_header(&name[..=slash], 0))?;
                    }
                }
                put(sink, &member_header(name, size))?;
                write(sink)?;
                let padding = size.next_multiple_of(512) - size;
                put(sink, &[0; 512][..usize::try_from(padding).unwrap_or(0)])?;
                members.insert(name.to_owned());
                Ok(())
            }
        }
    }

    fn put_bytes(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.put_member(name, bytes.len() as u64, |out| {
            out.write_all(bytes).at("cannot write", &self.target)
        })
    }

    /// Names what was put, which makes it count.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn finish(self, root: &Descriptor, name: &LayoutName) -> Result<()> {
        let reference = name.reference.as_ref();
        let tag = reference.and_then(|name| name.tag().map(str::to_owned));
        let platform = name.platform.clone();
        let entry = IndexEntry {
            descriptor: root.clone(),
            // A platform that the config does not name can't be in an index either.
            platform: platform.filter(|platform| !platform.architecture.is_empty()),
            ref_name: name.text.clone().or(tag),
            image_name: reference.map(ToString::to_string),
        };
        let index = Index {
            entries: vec![entry],
        };
        if let (Layout::Docker, Some(image)) = (self.layout, &name.image) {
            let entry = docker::Entry {
                config: blob_name(&image.config.digest),
                repo_tags: reference.map(|name| vec![name.familiar()]),
                layers: image.layers.iter().map(|l| blob_name(&l.digest)).collect(),
            };
            let json = serde_json::to_vec(&[entry]).map_err(|error| ArchiveError::Malformed {
                name: "manifest.json".to_owned(),
                reason: error.to_string(),
            })?;
            self.put_bytes("manifest.json", &json)?;
        }
        let index = match &self.place {
            Place::Directory {
                present: Some(present),
                ..
            } => merge(present, &index.to_bytes())?,
            _ => index.to_bytes(),
        };
        if let Place::Stream(_) = self.place {
            self.put_bytes("oci-layout", oci::LAYOUT.as_bytes())?;
        }
        self.put_bytes("index.json", &index)?;
        match self.place {
            Place::Directory { directory, .. } => directory.keep(),
            Place::Stream(stream) => {
                let stream = stream.into_inner();
                let (mut sink, _) = stream.unwrap_or_else(PoisonError::into_inner);
                let end = sink.write_all(&[0; 1024]);
                end.at("cannot write", &self.target)?;
                sink.commit()?;
            }
        }
        Ok(())
    }

    /// Gives up, and keeps the blobs of a layout: a copy that comes again goes on with them.
    pub fn give_up(self) {
        if let Place::Directory { directory, .. } = self.place {
            directory.keep();
        }
    }
}
