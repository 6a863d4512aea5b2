//! Collection of what nothing refers to any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::session::Lock;
use super::uses::{Claim, Kind};
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

impl Live {
    fn add_blobs_of(&mut self, store: &Store, diff_id: &DiffId) {
        let blobs = store.compressed(diff_id).into_iter();
        self.blobs.extend(blobs.map(|blob| blob.descriptor.digest));
    }
}

/// What makes builds faster or says more of them, and was not used for so long, goes.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Returns an error that may pass; what is damaged or missing stays so.
fn passing(error: StoreError) -> Result<()> {
    match error {
        StoreError::Damaged { .. } | StoreError::NoBlob(_) => Ok(()),
        error => Err(error),
    }
}

/// A collection under way. Nobody publishes or names anything meanwhile, and nobody finds what
/// is claimed; see [`super::uses`].
pub(super) struct Collection {
    /// The store, without uses of its own.
    pub(super) store: Store,
    claim: Claim,
    /// The layers that nobody uses, by their directories.
    layers: BTreeSet<String>,
    /// The files among the blobs that nobody uses.
    blobs: Vec<(Option<Digest>, PathBuf)>,
    #[expect(dead_code, reason = "held for their drop")]
    locks: [Lock; 5],
}

impl Store {
    /// Declares that this process uses the store: it is neither verified nor removed meanwhile.
    ///
    /// # Errors
    /// The lock can't be taken.
    pub fn lease(&self) -> Result<Lock> {
        self.lock_shared("use")
    }

    /// Moves layers and blobs into the trash that no image and no step record refers to, and
    /// that no process uses. Does nothing, and returns nothing, while the store is verified or
    /// removed.
    ///
    /// # Errors
    /// A directory can't be read.
    pub fn collect(&self) -> Result<Option<Freed>> {
        let Some(collection) = self.begin_collection()? else {
            return Ok(None);
        };
        let freed = collection.finish()?;
        self.remove_leftovers()?;
        Ok(Some(freed))
    }

    /// Begins a collection. What is used from now on is not seen by it.
    pub(super) fn begin_collection(&self) -> Result<Option<Collection>> {
        let Some(lease) = self.try_lock_shared("use")? else {
            return Ok(None);
        };
        // All locks before the first claim: who has one of them may wait for what is claimed.
        let locks = [
            lease,
            self.lock("collect")?,
            self.lock(super::images::NAMING)?,
            self.lock(super::layers::COMPRESSED)?,
            self.lock(super::layers::PUBLISHING)?,
        ];
        let claim = self.claim()?;
        let layers = super::files::names(&self.dir("layers"))?;
        let blobs = self.blob_files()?.into_iter();
        Ok(Some(Collection {
            layers: layers
                .into_iter()
                .filter(|id| claim.take(Kind::Layer, id))
                .collect(),
            blobs: blobs
                .filter(|(digest, _)| {
                    let is_free = |digest: &Digest| claim.take(Kind::Blob, digest.hex());
                    digest.as_ref().is_none_or(is_free)
                })
                .collect(),
            store: self.for_collection(),
            claim,
            locks,
        }))
    }

    /// Removes what only a crash leaves: files that were never renamed, names that can't be
    /// read; and locks that nobody can hold now. While another process uses the store, nobody
    /// can tell these from what it is about to make.
    pub(super) fn remove_leftovers(&self) -> Result<()> {
        let Some(_alone) = self.try_lock("use")? else {
            return Ok(());
        };
        for kind in [
            "refs",
            "lists",
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
        for name in super::files::names(&self.dir("locks"))? {
            if ["pull-", "context-", "cache-"]
                .iter()
                .any(|own| name.starts_with(own))
            {
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

    fn link_is_live(&self, kind: &str, hex: &str, id: Option<&str>, live: &Live) -> bool {
        let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else {
            return false;
        };
        if kind == "diff" {
            return live.diff_ids.contains(&DiffId(digest));
        }
        // A step record names the diff id, not the chain that its layer was made in.
        live.chain_ids.contains(&ChainId(digest))
            || id
                .and_then(|id| self.diff_id_of(id))
                .is_some_and(|diff_id| live.diff_ids.contains(&diff_id))
    }

    /// Returns the diff id of a directory in `layers/`.
    fn diff_id_of(&self, id: &str) -> Option<DiffId> {
        #[derive(serde::Deserialize)]
        struct Head {
            diff_id: DiffId,
        }
        let path = self.dir("layers").join(id).join("layer.json");
        let head = super::files::read_json::<Head>(&path).ok().flatten();
        head.map(|head| head.diff_id)
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

    /// Marks a manifest or an index, and what of all that it refers to is here.
    fn mark_document(&self, digest: &Digest, live: &mut BTreeSet<Digest>) -> Result<()> {
        let mut pending = vec![digest.clone()];
        while let Some(digest) = pending.pop() {
            if !live.insert(digest.clone()) {
                continue;
            }
            match self.read_document(&digest) {
                Ok(bytes) => match ManifestKind::parse(&bytes, None) {
                    Ok(ManifestKind::Image(manifest)) => {
                        let layers = manifest.layers.into_iter().map(|l| l.digest);
                        live.extend(layers.chain([manifest.config.digest]));
                    }
                    Ok(ManifestKind::Index(index)) => {
                        pending.extend(index.entries.into_iter().map(|e| e.descriptor.digest));
                    }
                    Err(_) => {}
                },
                Err(error) => passing(error)?,
            }
        }
        Ok(())
    }

    /// Returns what must stay. Where an image can't be read for a reason that may pass, that
    /// is an error: what it needs must not be taken for garbage.
    fn live_but_for_urls(&self) -> Result<Live> {
        let mut live = Live::default();
        let refs = self.references()?;
        for record in &refs {
            for digest in record.manifest.iter().chain(&record.index) {
                self.mark_document(digest, &mut live.blobs)?;
            }
        }
        for list in self.lists()? {
            self.mark_document(&list.index, &mut live.blobs)?;
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
        for diff_id in live.diff_ids.clone() {
            live.add_blobs_of(self, &diff_id);
        }
        Ok(live)
    }
}

impl Collection {
    /// Tells whether nobody uses a blob.
    pub(super) fn is_free(&self, blob: &Digest) -> bool {
        self.claim.take(Kind::Blob, blob.hex())
    }

    /// Moves what nothing refers to into the trash.
    pub(super) fn finish(self) -> Result<Freed> {
        let store = &self.store;
        let mut live = store.live()?;
        self.add_used(&mut live)?;
        let mut freed = Freed::default();
        let mut kept = BTreeSet::new();
        for kind in ["diff", "chain"] {
            for form in super::files::names(&store.dir(kind))? {
                let directory = store.dir(kind).join(form);
                for hex in super::files::names(&directory)? {
                    let link = directory.join(&hex);
                    let id = fs::read_link(&link)
                        .ok()
                        .and_then(|target| target.file_name()?.to_str().map(ToOwned::to_owned));
                    let alive = store.link_is_live(kind, &hex, id.as_deref(), &live);
                    match id {
                        Some(id) if alive || self.is_used(&id) => {
                            kept.insert(id);
                        }
                        _ => {
                            super::files::remove_file(&link)?;
                        }
                    }
                }
            }
        }
        for id in self.layers.difference(&kept) {
            let directory = store.dir("layers").join(id);
            freed.bytes += store.layer_bytes(&directory);
            store.trash(&directory)?;
            freed.layers += 1;
        }
        for (digest, path) in &self.blobs {
            if digest.as_ref().is_some_and(|d| live.blobs.contains(d)) {
                continue;
            }
            freed.bytes += fs::symlink_metadata(path).map_or(0, |meta| meta.len());
            store.trash(path)?;
            freed.blobs += 1;
        }
        self.forget(&live)?;
        store.remove_snapshots()?;
        store.remove_merged(&self.claim)?;
        Ok(freed)
    }

    /// Adds the layers that processes use, with their blobs: without its blob, an image on top of
    /// a layer that was pulled could not leave the store any more.
    fn add_used(&self, live: &mut Live) -> Result<()> {
        for diff_id in self.used_diff_ids()? {
            live.add_blobs_of(&self.store, &diff_id);
            live.diff_ids.insert(diff_id);
        }
        Ok(())
    }

    /// Returns the layers that processes use.
    pub(super) fn used_diff_ids(&self) -> Result<BTreeSet<DiffId>> {
        let ids = super::files::names(&self.store.dir("layers"))?;
        let used = ids.iter().filter(|id| self.is_used(id));
        Ok(used.filter_map(|id| self.store.diff_id_of(id)).collect())
    }

    /// Tells whether a process uses a layer that is there.
    fn is_used(&self, id: &str) -> bool {
        !self.layers.contains(id) && self.store.dir("layers").join(id).is_dir()
    }

    /// Removes what is known of the blobs of layers that are gone, and what was known of
    /// contexts and steps that nobody has built for long.
    fn forget(&self, live: &Live) -> Result<()> {
        let store = &self.store;
        let compressed = store.dir("compressed");
        for hex in super::files::names(&compressed)? {
            let digest = format!("sha256:{hex}").parse::<Digest>();
            let is_live = digest.is_ok_and(|digest| live.diff_ids.contains(&DiffId(digest)));
            if !is_live {
                store.trash(&compressed.join(hex))?;
            }
        }
        let horizon = SystemTime::now().checked_sub(FORGOTTEN);
        for kind in super::inventory::FORGETTABLE {
            let directory = store.dir(kind);
            for name in super::files::names(&directory)? {
                let path = directory.join(name);
                let used = fs::symlink_metadata(&path).and_then(|meta| meta.modified());
                if let (Some(horizon), Ok(used)) = (horizon, used)
                    && used < horizon
                {
                    store.trash(&path)?;
                }
            }
        }
        Ok(())
    }
}
