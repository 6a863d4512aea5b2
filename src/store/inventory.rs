//! What the store holds, and how much each thing takes: for `du` and `prune`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Container, Image, Result, Store};
use crate::image::{ChainId, DiffId, Digest};

/// Directories of what only says more of builds, or makes them faster.
pub(super) const FORGETTABLE: [&str; 3] = ["logs", "stat", "traces"];

/// Directories of other small files.
const RECORDS: [&str; 6] = ["cache", "compressed", "images", "lists", "refs", "urls"];

/// What kind of thing makes the next build faster. Their names are those of BuildKit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// What a step came to.
    Step,
    /// A directory of `RUN --mount=type=cache`.
    Mount,
    /// What a URL gave.
    Url,
    /// A snapshot of files of a build context.
    Context,
}

impl CacheKind {
    /// Returns the name that `docker buildx du` shows.
    pub fn name(self) -> &'static str {
        match self {
            CacheKind::Step => "regular",
            CacheKind::Mount => "exec.cachemount",
            CacheKind::Url => "source.http",
            CacheKind::Context => "source.local",
        }
    }
}

/// A step record and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The layer that it leads to.
    pub(super) diff_id: DiffId,
    /// What lies below that layer.
    pub(super) below: Option<ChainId>,
    /// What it is then.
    pub(super) above: ChainId,
}

/// Something that makes the next build faster, and that it could do without.
#[derive(Clone, Debug)]
pub struct CacheItem {
    /// A name for people.
    pub id: String,
    /// What it is.
    pub kind: CacheKind,
    /// The bytes of its files: of a step, those of its layer.
    pub size: u64,
    /// When it was made; of a step, when it was done first.
    pub created: SystemTime,
    /// When a build used it last.
    pub used: SystemTime,
    /// Whether an image has it too: to remove it frees nothing.
    pub shared: bool,
    /// Its records or its directory.
    pub(super) paths: Vec<PathBuf>,
    pub(super) place: Option<Place>,
    /// The blob of a URL.
    pub(super) blob: Option<Digest>,
}

/// A number of things and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What the store holds. Every byte is counted once.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// All images.
    pub images: Vec<Image>,
    /// All containers, with the bytes of what they have changed.
    pub containers: Vec<(Container, u64)>,
    /// The bytes of each layer that has a tree.
    pub layers: BTreeMap<DiffId, u64>,
    /// What makes builds faster.
    pub cache: Vec<CacheItem>,
    /// Layers that no image and no step record has.
    pub unused_layers: Amount,
    /// Blobs but for those of URLs.
    pub blobs: Amount,
    /// Those of them that no image and no layer has.
    pub unused_blobs: Amount,
    /// What is remembered of names, images, layers, steps, blobs, contexts and failures.
    pub records: Amount,
    /// Those of them that builds go well without, and a prune of everything takes away.
    pub unused_records: Amount,
    /// Merged trees, and of their bytes those that are in no layer.
    pub merged: Amount,
    /// What processes work on, and what they have left that were killed.
    pub sessions: Amount,
    /// The latter.
    pub unused_sessions: Amount,
    /// What waits to be removed.
    pub trash: Amount,
}

impl Inventory {
    /// Returns the bytes of the distinct layers of some images.
    pub fn image_bytes<'a>(&self, images: impl IntoIterator<Item = &'a Image>) -> u64 {
        let ids: BTreeSet<&DiffId> = images
            .into_iter()
            .flat_map(|image| &image.config.rootfs.diff_ids)
            .collect();
        ids.iter().filter_map(|id| self.layers.get(*id)).sum()
    }

    /// Returns the bytes that the other images have too, and those that this one has alone.
    pub fn shared_and_unique(&self, image: &Image) -> (u64, u64) {
        let of = |image: &Image| -> BTreeSet<DiffId> {
            image.config.rootfs.diff_ids.iter().cloned().collect()
        };
        let others: BTreeSet<DiffId> = self
            .images
            .iter()
            .filter(|other| other.id != image.id)
            .flat_map(of)
            .collect();
        let mut bytes = (0, 0);
        for id in of(image) {
            let size = self.layers.get(&id).copied().unwrap_or(0);
            match others.contains(&id) {
                true => bytes.0 += size,
                false => bytes.1 += size,
            }
        }
        bytes
    }

    /// Returns the bytes of cache of some kind that no image has, equal layers once.
    pub fn cache_bytes(&self, wanted: impl Fn(&CacheItem) -> bool) -> u64 {
        let mut seen = BTreeSet::new();
        self.cache
            .iter()
            .filter(|item| !item.shared && wanted(item) && seen.insert(item.content()))
            .map(|item| item.size)
            .sum()
    }
}

impl CacheItem {
    /// Returns what tells whether two items are stored once.
    pub(super) fn content(&self) -> String {
        match (&self.place, &self.blob) {
            (Some(place), _) => place.diff_id.0.to_string(),
            (None, Some(blob)) => blob.to_string(),
            (None, None) => format!("{:?}", self.paths),
        }
    }
}

/// Returns the bytes of all regular files below a directory, or of a file.
pub(super) fn tree_bytes(path: &Path) -> u64 {
    let (alone, linked) = file_bytes(path);
    alone + linked.values().map(|file| file.bytes).sum::<u64>()
}

/// As [`tree_bytes`], without files that have links elsewhere.
fn own_bytes(path: &Path) -> u64 {
    let (alone, linked) = file_bytes(path);
    let own = linked.values().filter(|file| file.seen == file.links);
    alone + own.map(|file| file.bytes).sum::<u64>()
}

/// A file of several names.
struct Linked {
    bytes: u64,
    links: u64,
    seen: u64,
}

/// Returns the bytes of files with one name, and the others by device and inode.
fn file_bytes(path: &Path) -> (u64, BTreeMap<(u64, u64), Linked>) {
    let mut bytes = 0;
    let mut linked: BTreeMap<(u64, u64), Linked> = BTreeMap::new();
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            pending.extend(entries.map(|entry| entry.path()));
        } else if meta.is_file() && meta.nlink() == 1 {
            bytes += meta.len();
        } else if meta.is_file() {
            let file = linked.entry((meta.dev(), meta.ino())).or_insert(Linked {
                bytes: meta.len(),
                links: meta.nlink(),
                seen: 0,
            });
            file.seen += 1;
        }
    }
    (bytes, linked)
}

/// Returns when a file was changed or touched last.
pub(super) fn modified(path: &Path) -> SystemTime {
    fs::symlink_metadata(path)
        .and_then(|meta| meta.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Store {
    /// Returns what the store holds. To be called within the builder's namespace: cache
    /// directories may have files that only it can see.
    ///
    /// # Errors
    /// A directory can't be read.
    pub fn inventory(&self) -> Result<Inventory> {
        let images = self.images()?;
        let mut containers = Vec::new();
        let mut of_containers: Vec<DiffId> = Vec::new();
        for container in self.containers()? {
            let bytes = tree_bytes(&container.changes()) + tree_bytes(&container.log());
            // Its image may have no other trace.
            if let Ok(config) = self.config(&container.record.image) {
                of_containers.extend(config.rootfs.diff_ids);
            }
            containers.push((container, bytes));
        }
        let of_images: BTreeSet<DiffId> = images
            .iter()
            .flat_map(|image| image.config.rootfs.diff_ids.iter().cloned())
            .chain(of_containers)
            .collect();
        let layers = self.layer_sizes()?;
        let mut cache = self.step_items(&layers, &of_images)?;
        let mut unused_layers = Amount::default();
        let of_steps: BTreeSet<&DiffId> = cache
            .iter()
            .filter_map(|item| item.place.as_ref().map(|place| &place.diff_id))
            .collect();
        for (diff_id, size) in &layers {
            if !of_images.contains(diff_id) && !of_steps.contains(diff_id) {
                unused_layers.add(*size);
            }
        }
        cache.extend(self.tree_items("mounts", CacheKind::Mount)?);
        cache.extend(self.tree_items("contexts", CacheKind::Context)?);
        let live = self.live_blobs()?;
        for (path, record) in self.url_files()? {
            let blob = self.blob_path(&record.digest);
            let used = modified(&path);
            cache.push(CacheItem {
                id: record.url,
                kind: CacheKind::Url,
                size: fs::metadata(&blob).map_or(0, |meta| meta.len()),
                created: fs::metadata(&blob)
                    .and_then(|meta| meta.modified())
                    .unwrap_or(used),
                used,
                // The body may be a layer or a document of an image as well.
                shared: live.contains(&record.digest),
                paths: vec![path],
                place: None,
                blob: Some(record.digest),
            });
        }
        let of_urls: BTreeSet<&Digest> = cache.iter().filter_map(|i| i.blob.as_ref()).collect();
        let (mut blobs, mut unused_blobs) = (Amount::default(), Amount::default());
        for (digest, path) in self.blob_files()? {
            let bytes = fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
            let used = digest.as_ref().is_some_and(|d| live.contains(d));
            let of_url = digest.as_ref().is_some_and(|d| of_urls.contains(d));
            if used || !of_url {
                blobs.add(bytes);
            }
            if !used && !of_url {
                unused_blobs.add(bytes);
            }
        }
        let (mut records, mut unused_records) = (Amount::default(), Amount::default());
        for kind in RECORDS.iter().chain(&FORGETTABLE) {
            for name in super::files::names(&self.dir(kind))? {
                let bytes = tree_bytes(&self.dir(kind).join(name));
                records.add(bytes);
                if FORGETTABLE.contains(kind) {
                    unused_records.add(bytes);
                }
            }
        }
        for id in super::files::names(&self.dir("layers"))? {
            records.bytes += tree_bytes(&self.dir("layers").join(id).join("layer.json"));
        }
        let mut merged = Amount::default();
        for form in super::files::names(&self.dir("merged"))? {
            let form = self.dir("merged").join(form);
            for name in super::files::names(&form)? {
                merged.add(own_bytes(&form.join(name)));
            }
        }
        let (mut sessions, mut unused_sessions) = (Amount::default(), Amount::default());
        for name in super::files::names(&self.dir("tmp"))? {
            let path = self.dir("tmp").join(name);
            let bytes = tree_bytes(&path);
            sessions.add(bytes);
            if !super::session::lives(&path) {
                unused_sessions.add(bytes);
            }
        }
        let mut trash = Amount::default();
        for name in super::files::names(&self.dir("trash"))? {
            trash.add(tree_bytes(&self.dir("trash").join(name)));
        }
        Ok(Inventory {
            images,
            containers,
            layers,
            cache,
            unused_layers,
            blobs,
            unused_blobs,
            records,
            unused_records,
            merged,
            sessions,
            unused_sessions,
            trash,
        })
    }

    fn step_items(
        &self,
        layers: &BTreeMap<DiffId, u64>,
        of_images: &BTreeSet<DiffId>,
    ) -> Result<Vec<CacheItem>> {
        // A step is recorded by its inputs and by the content that it came to: that is one thing.
        let mut items: BTreeMap<Place, CacheItem> = BTreeMap::new();
        for file in self.step_files()? {
            let used = modified(&file.path);
            let created = file.record.created.parse::<jiff::Timestamp>();
            let diff_id = file.record.diff_id;
            let place = Place {
                above: ChainId::extend(file.below.as_ref(), &diff_id),
                below: file.below,
                diff_id,
            };
            let item = items.entry(place.clone()).or_insert_with(|| CacheItem {
                id: place.above.0.short().to_owned(),
                kind: CacheKind::Step,
                size: layers.get(&place.diff_id).copied().unwrap_or(0),
                created: created.map_or(used, SystemTime::from),
                used,
                shared: of_images.contains(&place.diff_id),
                paths: Vec::new(),
                place: Some(place),
                blob: None,
            });
            item.used = item.used.max(used);
            item.paths.push(file.path);
        }
        Ok(items.into_values().collect())
    }

    fn tree_items(&self, directory: &str, kind: CacheKind) -> Result<Vec<CacheItem>> {
        let mut items = Vec::new();
        for form in super::files::names(&self.dir(directory))? {
            let directory = self.dir(directory).join(form);
            for name in super::files::names(&directory)? {
                let path = directory.join(&name);
                let used = modified(&path);
                items.push(CacheItem {
                    id: name.get(..12).unwrap_or(&name).to_owned(),
                    kind,
                    size: tree_bytes(&path),
                    created: modified(&path.join("fs")),
                    used,
                    shared: false,
                    paths: vec![path],
                    place: None,
                    blob: None,
                });
            }
        }
        Ok(items)
    }
}
