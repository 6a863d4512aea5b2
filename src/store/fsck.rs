//! Verification of all that the store holds, and removal of what is damaged. Of what is only a
//! comfort and checks itself when it is read (`stat/`, `traces/`, `logs/`), and of everything else,
//! it is verified that it is what belongs there.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::layers::{CompressedBlob, LayerFile};
use super::places::{self, Place};
use super::{
    IoContext, ListRecord, RefRecord, Result, Session, StepRecord, Store, StoreError, UrlRecord,
};
use crate::image::{Algorithm, DiffId, Digest, Hasher, ImageConfig};
use crate::layer::{
    ApplyMode, ApplyOptions, Compression, LayerError, LayerMeta, Limits, Omit, View, apply,
    write_tar,
};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where in the store.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// Whether it was taken away, to be fetched or built again.
    pub repaired: bool,
}

/// What was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blobs.
    pub blobs: usize,
    /// Layer trees.
    pub layers: usize,
    /// Names.
    pub references: usize,
    /// Images.
    pub images: usize,
    /// Step records, URLs and containers.
    pub records: usize,
    /// What is not as it should be.
    pub damages: Vec<Damage>,
}

impl Store {
    /// Verifies every blob, tree, name and record. With `repair`, what is damaged is taken
    /// away, so that it is fetched or built again; nothing that is whole is. Returns nothing
    /// while another process uses the store.
    ///
    /// # Errors
    /// Something can't be read or taken away for a reason that is no damage.
    pub fn fsck(&self, session: &Session, repair: bool) -> Result<Option<Verified>> {
        let Some(_alone) = self.try_lock("use")? else {
            return Ok(None);
        };
        let mut run = Run {
            store: self,
            session,
            repair,
            found: Verified::default(),
        };
        run.blobs()?;
        run.compressed()?;
        run.layers()?;
        run.links()?;
        run.images()?;
        run.references()?;
        run.lists()?;
        run.records()?;
        run.trees()?;
        run.containers()?;
        run.strangers(&mut Vec::new())?;
        Ok(Some(run.found))
    }
}

struct Run<'a> {
    store: &'a Store,
    session: &'a Session,
    repair: bool,
    found: Verified,
}

impl Run<'_> {
    /// Notes a damage of a file or directory, and takes it away where that is asked for.
    fn damaged(&mut self, path: &Path, problem: impl Into<String>) -> Result<()> {
        if self.repair {
            self.store.trash(path)?;
        }
        let place = path.strip_prefix(self.store.root()).unwrap_or(path);
        self.found.damages.push(Damage {
            place: place.display().to_string(),
            problem: problem.into(),
            repaired: self.repair,
        });
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        for (digest, path) in self.store.blob_files()? {
            self.found.blobs += 1;
            let Some(digest) = digest else {
                self.damaged(&path, "its name is no digest")?;
                continue;
            };
            match digest_of(&path, digest.algorithm()) {
                Ok(found) if found == digest => {}
                Ok(found) => self.damaged(&path, format!("its digest is {found}"))?,
                Err(error) => self.damaged(&path, format!("it can't be read: {error}"))?,
            }
        }
        Ok(())
    }

    /// A blob that is recorded for another layer than it holds would make a wrong image of a
    /// right one.
    fn compressed(&mut self) -> Result<()> {
        let directory = self.store.dir("compressed");
        for hex in super::files::names(&directory)? {
            let path = directory.join(&hex);
            let Ok(diff_id) = format!("sha256:{hex}").parse::<Digest>() else {
                self.damaged(&path, "its name is no digest")?;
                continue;
            };
            let Some(blobs) = self.record::<Vec<CompressedBlob>>(path.clone())? else {
                continue;
            };
            for blob in blobs {
                let digest = blob.descriptor.digest;
                // What is damaged itself was found before.
                if let Ok(file) = self.store.open_blob(&digest)
                    && let Ok(found) = content_digest(&file)
                    && found != diff_id
                {
                    self.damaged(&path, format!("the blob {digest} holds {found}"))?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Directories of RUN --mount have no digests: what can be told is whether they can be read
    /// at all.
    fn trees(&mut self) -> Result<()> {
        for (kind, tree) in [("mounts", "fs/data"), ("contexts", "fs"), ("merged", "fs")] {
            for form in super::files::names(&self.store.dir(kind))? {
                let directory = self.store.dir(kind).join(form);
                for name in super::files::names(&directory)? {
                    let path = directory.join(name);
                    if !path.join(tree).is_dir() {
                        self.damaged(&path, "its tree is missing")?;
                    } else if let Err(error) = list(&path.join(tree)) {
                        self.damaged(&path, format!("it can't be read: {error}"))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let directory = self.store.dir("layers");
        for id in super::files::names(&directory)? {
            self.found.layers += 1;
            let path = directory.join(id);
            if let Some(problem) = self.problem_of_layer(&path)? {
                self.damaged(&path, problem)?;
            }
        }
        Ok(())
    }

    fn problem_of_layer(&self, directory: &Path) -> Result<Option<String>> {
        let file = super::files::read_json::<LayerFile>(&directory.join("layer.json"));
        let meta = match file {
            Ok(Some(file)) => file.meta,
            Ok(None) => return Ok(Some("it has no layer.json".to_owned())),
            Err(StoreError::Damaged { reason, .. }) => {
                return Ok(Some(format!("layer.json: {reason}")));
            }
            Err(error) => return Err(error),
        };
        let tree = directory.join("fs");
        if !tree.is_dir() {
            return Ok(Some("its tree is missing".to_owned()));
        }
        let (found, size) = match self.stream(&tree, &meta) {
            Ok(stream) => stream,
            Err(error) => return Ok(Some(format!("its tree can't be read: {error}"))),
        };
        if found == meta.diff_id.0 {
            return Ok(None);
        }
        if meta.content_id.is_some() {
            return Ok(Some(format!(
                "its diff id is {found}, and should be {}",
                meta.diff_id.0
            )));
        }
        // What was pulled has the diff id of a stream that somebody else wrote: it is compared
        // with what comes out of its blob.
        match self.extracted(&meta) {
            Some(again) if again == found => Ok(None),
            Some(_) => Ok(Some("it differs from the blob it came from".to_owned())),
            None if size == meta.size => Ok(None),
            None => Ok(Some(format!(
                "it has {size} bytes of files, and should have {}",
                meta.size
            ))),
        }
    }

    /// Returns the digest of a tree's stream, and the bytes of its files.
    fn stream(&self, tree: &Path, meta: &LayerMeta) -> std::result::Result<(Digest, u64), String> {
        let layer = self
            .store
            .layer_dir(tree, meta)
            .map_err(|error| error.to_string())?;
        let mut sink = Hasher::new(Algorithm::Sha256);
        let written = write_tar(&layer, &meta.omit, &mut sink);
        let stats = written.map_err(|error: LayerError| error.to_string())?;
        Ok((sink.finish(), stats.size_bytes))
    }

    /// Returns the digest of the stream of what a layer's blob holds, where there is a blob
    /// that can be extracted alone.
    fn extracted(&self, meta: &LayerMeta) -> Option<Digest> {
        if !meta.self_contained {
            return None;
        }
        let blob = self.store.compressed(&meta.diff_id).into_iter().next()?;
        let file = self.store.open_blob(&blob.descriptor.digest).ok()?;
        let staged = self.session.directory().ok()?;
        let again = self.extract(&file, &staged.join("fs"), meta);
        self.session.discard(&staged);
        again
    }

    fn extract(&self, blob: &File, tree: &Path, meta: &LayerMeta) -> Option<Digest> {
        fs::create_dir(tree).ok()?;
        let directory = File::open(tree).ok()?;
        let (_, mut decoder) = Compression::decode(blob).ok()?;
        let options = ApplyOptions {
            ownership: self.store.form().ownership,
            lower: &View::new(Vec::new()),
            mode: ApplyMode::Layer,
            limits: Limits::default(),
        };
        let applied = apply(&mut decoder, directory.as_fd(), &options).ok()?;
        let meta = LayerMeta {
            omit: Omit {
                root: meta.omit.root,
                ..applied.omit
            },
            overrides: applied.overrides,
            ..meta.clone()
        };
        self.stream(tree, &meta).ok().map(|(digest, _)| digest)
    }

    /// A link that leads nowhere hides that its layer has to be made again.
    fn links(&mut self) -> Result<()> {
        for kind in ["diff", "chain"] {
            for form in super::files::names(&self.store.dir(kind))? {
                let directory = self.store.dir(kind).join(form);
                for hex in super::files::names(&directory)? {
                    let path = directory.join(hex);
                    if !path.exists() {
                        self.damaged(&path, "its layer is missing")?;
                    }
                }
            }
        }
        Ok(())
    }

    fn images(&mut self) -> Result<()> {
        let directory = self.store.dir("images");
        for hex in super::files::names(&directory)? {
            self.found.images += 1;
            let path = directory.join(&hex);
            let Ok(id) = format!("sha256:{hex}").parse::<Digest>() else {
                self.damaged(&path, "its name is no digest")?;
                continue;
            };
            let problem = match self.config(&id)? {
                Err(problem) => Some(problem),
                Ok(_) => super::files::read_json::<serde_json::Value>(&path)
                    .err()
                    .map(|error| reason(&error)),
            };
            if let Some(problem) = problem {
                self.damaged(&path, problem)?;
            }
        }
        Ok(())
    }

    /// Returns an image's config, or what is wrong with it.
    fn config(&self, id: &Digest) -> Result<std::result::Result<ImageConfig, String>> {
        match self.store.config(id) {
            Ok(config) => Ok(Ok(config)),
            Err(StoreError::NoBlob(_)) => Ok(Err("its config is missing".to_owned())),
            Err(StoreError::Damaged { .. }) => Ok(Err("its config is damaged".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// A list goes where its index can't be read; what that refers to may be in a registry.
    fn lists(&mut self) -> Result<()> {
        let directory = self.store.dir("lists");
        for name in super::files::names(&directory)? {
            self.found.references += 1;
            let path = directory.join(name);
            let record: ListRecord = match super::files::read_json(&path) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    self.damaged(&path, reason(&error))?;
                    continue;
                }
            };
            match self.store.read_document(&record.index) {
                Ok(_) => {}
                Err(StoreError::NoBlob(_) | StoreError::Damaged { .. }) => {
                    self.damaged(&path, format!("{}: its index is missing", record.name))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A name goes only where its image can't be had from the store any more.
    fn references(&mut self) -> Result<()> {
        let directory = self.store.dir("refs");
        let trees = self.store.layer_sizes()?;
        for name in super::files::names(&directory)? {
            self.found.references += 1;
            let path = directory.join(name);
            let record: RefRecord = match super::files::read_json(&path) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    self.damaged(&path, reason(&error))?;
                    continue;
                }
            };
            let config = match self.config(&record.image)? {
                Ok(config) => config,
                Err(problem) => {
                    self.damaged(&path, format!("{}: {problem}", record.name))?;
                    continue;
                }
            };
            // What has a blob is extracted again.
            let is_missing =
                |id: &&DiffId| !trees.contains_key(*id) && self.store.compressed(id).is_empty();
            let missing = config.rootfs.diff_ids.iter().filter(is_missing).count();
            if missing > 0 {
                let (noun, verb) = match missing {
                    1 => ("layer", "is"),
                    _ => ("layers", "are"),
                };
                self.damaged(
                    &path,
                    format!(
                        "{}: {missing} {noun} of its image {verb} missing",
                        record.name
                    ),
                )?;
            }
        }
        Ok(())
    }

    fn records(&mut self) -> Result<()> {
        for inputs in super::files::names(&self.store.dir("cache"))? {
            let directory = self.store.dir("cache").join(inputs);
            if !directory.is_dir() {
                continue;
            }
            for below in super::files::names(&directory)? {
                self.record::<StepRecord>(directory.join(below))?;
            }
        }
        let directory = self.store.dir("urls");
        for name in super::files::names(&directory)? {
            let path = directory.join(name);
            if let Some(record) = self.record::<UrlRecord>(path.clone())?
                && !self.store.has_blob(&record.digest)
            {
                self.damaged(&path, format!("the body of {} is missing", record.url))?;
            }
        }
        Ok(())
    }

    /// Verifies the records of containers. What they hold is in no other place: it is never
    /// taken away.
    fn containers(&mut self) -> Result<()> {
        let directory = self.store.dir("containers");
        for id in super::files::names(&directory)? {
            self.found.records += 1;
            let problem = match self.store.container_at(&id) {
                Ok(Some(container)) => {
                    let record = &container.record;
                    match self.store.config(&record.image) {
                        Ok(_) if container.changes().is_dir() => continue,
                        Ok(_) => "its files are missing".to_owned(),
                        Err(_) => format!("its image {} is missing", record.image),
                    }
                }
                Ok(None) => "it has no container.json".to_owned(),
                Err(error) => format!("container.json: {}", reason(&error)),
            };
            self.found.damages.push(Damage {
                place: format!("containers/{id}"),
                problem,
                repaired: false,
            });
        }
        Ok(())
    }

    /// Looks for what no kiln has put into the store. It stays: who put it there may want it.
    fn strangers(&mut self, path: &mut Vec<String>) -> Result<()> {
        let directory = self.store.root().join(path.join("/"));
        for entry in fs::read_dir(&directory).at("cannot list", &directory)? {
            let entry = entry.at("cannot list", &directory)?;
            let kind = entry.file_type().at("cannot read", &entry.path())?;
            path.push(entry.file_name().to_string_lossy().into_owned());
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            match places::place(&names, kind) {
                Place::Shelf => self.strangers(path)?,
                Place::Item => {}
                Place::Strange => {
                    let place = path.join("/");
                    // What is wrong with the whole was said.
                    let said = |damage: &Damage| Path::new(&place).starts_with(&damage.place);
                    if !self.found.damages.iter().any(said) {
                        self.found.damages.push(Damage {
                            place,
                            problem: "it does not belong into a store; it is left alone".to_owned(),
                            repaired: false,
                        });
                    }
                }
            }
            path.pop();
        }
        Ok(())
    }

    fn record<T: serde::de::DeserializeOwned>(&mut self, path: PathBuf) -> Result<Option<T>> {
        self.found.records += 1;
        match super::files::read_json(&path) {
            Ok(record) => Ok(record),
            Err(error) => {
                self.damaged(&path, reason(&error))?;
                Ok(None)
            }
        }
    }
}

fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Damaged { reason, .. } => format!("it can't be read: {reason}"),
        error => error.to_string(),
    }
}

/// Returns the digest of what a blob holds, without its compression.
fn content_digest(blob: &File) -> io::Result<Digest> {
    let (_, mut decoder) = Compression::decode(blob)?;
    let mut hashing = Hasher::new(Algorithm::Sha256);
    io::copy(&mut decoder, &mut hashing)?;
    Ok(hashing.finish())
}

/// Looks at everything in a directory.
fn list(directory: &Path) -> io::Result<()> {
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.metadata()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}

fn digest_of(path: &Path, algorithm: Algorithm) -> io::Result<Digest> {
    let mut file = io::BufReader::with_capacity(1 << 17, File::open(path)?);
    let mut hasher = Hasher::new(algorithm);
    io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finish())
}
