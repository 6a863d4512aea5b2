//! Collection of what nothing refers to any more.

use std::collections::BTreeSet;
use std::fs;

use super::layers::CompressedBlob;
use super::{IoContext, Result, Store, StoreError};
use crate::image::{ChainId, DiffId, Digest, ManifestKind};

/// What a collection took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Layer trees.
    pub layers: usize,
    /// Blobs.
    pub blobs: usize,
    /// The bytes of their files.
    pub bytes: u64,
}

/// What images and step records refer to.
#[derive(Default)]
struct Live {
    blobs: BTreeSet<Digest>,
    diff_ids: BTreeSet<DiffId>,
    chain_ids: BTreeSet<ChainId>,
}

/// Returns an error that may pass; what is damaged or missing stays so.
fn passing(error: StoreError) -> Result<()> {
    match error {
        StoreError::Damaged { .. } | StoreError::NoBlob(_) => Ok(()),
        error => Err(error),
    }
}

impl Store {
    /// Declares that this process uses the store: no collection runs meanwhile.
    ///
    /// # Errors
    /// The lock can't be taken.
    pub fn lease(&self) -> Result<super::Lock> {
        self.lock_shared("use")
    }

    /// Moves layers and blobs that no image and no step record refers to into the trash.
    /// Does nothing, and returns nothing, while another process uses the store.
    ///
    /// # Errors
    /// A directory can't be read.
    pub fn collect(&self) -> Result<Option<Freed>> {
        let Some(alone) = self.try_lock("use")? else {
            return Ok(None);
        };
        self.collect_alone(&alone).map(Some)
    }

    /// As [`Store::collect`]; the caller has the store alone.
    pub(super) fn collect_alone(&self, _alone: &super::Lock) -> Result<Freed> {
        let live = self.live()?;
        let mut freed = Freed::default();
        let mut kept = BTreeSet::new();
        for kind in ["diff", "chain"] {
            for form in super::files::names(&self.dir(kind))? {
                let directory = self.dir(kind).join(form);
                for hex in super::files::names(&directory)? {
                    let link = directory.join(&hex);
                    let id = fs::read_link(&link)
                        .ok()
                        .and_then(|target| target.file_name().map(ToOwned::to_owned));
                    let alive = self.link_is_live(kind, &hex, id.as_deref(), &live);
                    match id {
                        Some(id) if alive => {
                            kept.insert(id);
                        }
                        _ => {
                            super::files::remove_file(&link)?;
                        }
                    }
                }
            }
        }
        for id in super::files::names(&self.dir("layers"))? {
            if !kept.contains(std::ffi::OsStr::new(&id)) {
                let directory = self.dir("layers").join(id);
                freed.bytes += self.layer_bytes(&directory);
                self.trash(&directory)?;
                freed.layers += 1;
            }
        }
        for (digest, path) in self.blob_files()? {
            if digest.is_some_and(|d| live.blobs.contains(&d)) {
                continue;
            }
            freed.bytes += fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
            self.trash(&path)?;
            freed.blobs += 1;
        }
        self.remove_leftovers()?;
        Ok(freed)
    }

    /// Removes what only a crash leaves: files that were never renamed, names that can't be
    /// read; snapshots of contexts, which are made again; and locks that nobody can hold now.
    fn remove_leftovers(&self) -> Result<()> {
        for kind in [
            "refs",
            "images",
            "blobs/sha256",
            "blobs/sha512",
            "compressed",
            "stat",
            "urls",
        ] {
            let directory = self.dir(kind);
            if !directory.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&directory).at("cannot list", &directory)? {
                let entry = entry.at("cannot list", &directory)?;
                let path = entry.path();
                let unfinished = entry.file_name().as_encoded_bytes().starts_with(b".");
                let unreadable = kind == "refs"
                    && matches!(
                        super::files::read_json::<super::RefRecord>(&path),
                        Err(StoreError::Damaged { .. })
                    );
                if unfinished || unreadable {
                    self.trash(&path)?;
                }
            }
        }
        self.remove_leftover_records()?;
        self.remove_snapshots()?;
        self.remove_merged()?;
        for name in super::files::names(&self.dir("locks"))? {
            if name.starts_with("pull-") || name.starts_with("context-") {
                super::files::remove_file(&self.dir("locks").join(name))?;
            }
        }
        Ok(())
    }

    /// Removes unfinished step records, and what an earlier kiln kept in their place.
    fn remove_leftover_records(&self) -> Result<()> {
        let cache = self.dir("cache");
        for entry in fs::read_dir(&cache).at("cannot list", &cache)? {
            let path = entry.at("cannot list", &cache)?.path();
            if !path.is_dir() {
                self.trash(&path)?;
                continue;
            }
            for entry in fs::read_dir(&path).at("cannot list", &path)? {
                let entry = entry.at("cannot list", &path)?;
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    self.trash(&entry.path())?;
                }
            }
            // Where nothing is left in it.
            let _ = fs::remove_dir(&path);
        }
        Ok(())
    }

    fn link_is_live(
        &self,
        kind: &str,
        hex: &str,
        id: Option<&std::ffi::OsStr>,
        live: &Live,
    ) -> bool {
        let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else {
            return false;
        };
        if kind == "diff" {
            return live.diff_ids.contains(&DiffId(digest));
        }
        // A step record names the diff id, not the chain that its layer was made in.
        live.chain_ids.contains(&ChainId(digest))
            || id.is_some_and(|id| {
                #[derive(serde::Deserialize)]
                struct Head {
                    diff_id: DiffId,
                }
                let path = self.dir("layers").join(id).join("layer.json");
                super::files::read_json::<Head>(&path)
                    .ok()
                    .flatten()
                    .is_some_and(|head| live.diff_ids.contains(&head.diff_id))
            })
    }

    /// Returns the blobs that images and layers have; those of URLs alone are not among them.
    pub(super) fn live_blobs(&self) -> Result<BTreeSet<Digest>> {
        Ok(self.live_but_for_urls()?.blobs)
    }

    fn live(&self) -> Result<Live> {
        let mut live = self.live_but_for_urls()?;
        live.blobs
            .extend(self.url_records()?.into_iter().map(|r| r.digest));
        Ok(live)
    }

    /// Returns what must stay. Where an image can't be read for a reason that may pass, that
    /// is an error: what it needs must not be taken for garbage.
    fn live_but_for_urls(&self) -> Result<Live> {
        let mut live = Live::default();
        let refs = self.references()?;
        for digest in refs.iter().filter_map(|r| r.manifest.clone()) {
            match self.read_document(&digest) {
                Ok(bytes) => {
                    if let Ok(ManifestKind::Image(manifest)) = ManifestKind::parse(&bytes, None) {
                        let layers = manifest.layers.into_iter().map(|l| l.digest);
                        live.blobs.extend(layers);
                    }
                }
                Err(error) => passing(error)?,
            }
            live.blobs.insert(digest);
        }
        let of_containers = self.containers()?.into_iter().map(|c| c.record.image);
        let mut images = self.image_ids(&refs)?;
        images.extend(of_containers);
        for id in images {
            let config = match self.config(&id) {
                Ok(config) => config,
                Err(error) => {
                    passing(error)?;
                    continue;
                }
            };
            live.blobs.insert(id);
            let mut below = None;
            for diff_id in &config.rootfs.diff_ids {
                let chain_id = ChainId::extend(below.as_ref(), diff_id);
                live.chain_ids.insert(chain_id.clone());
                live.diff_ids.insert(diff_id.clone());
                below = Some(chain_id);
            }
        }
        let records = self.step_records()?;
        live.diff_ids.extend(records.into_iter().map(|r| r.diff_id));
        for diff_id in &live.diff_ids {
            let blobs = self.compressed(diff_id);
            live.blobs.extend(
                blobs
                    .into_iter()
                    .map(|b: CompressedBlob| b.descriptor.digest),
            );
        }
        Ok(live)
    }
}
