//! Removal of what people can do without: images, and what only makes builds faster.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, SystemTime};

use super::inventory::{CacheItem, CacheKind, Inventory};
use super::{Hold, Image, RefRecord, Result, Store, StoreError};
use crate::image::{ChainId, DiffId, Digest};

/// How much of one sort goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Nothing.
    #[default]
    None,
    /// What nobody can name any more: images without a name, and steps that lead nowhere else.
    Dangling,
    /// All of it.
    All,
}

/// What is to go.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Whether containers that don't run go.
    pub containers: bool,
    /// Which images, of those that no container has.
    pub images: Extent,
    /// Which cache.
    pub cache: Extent,
    /// Only what was made (images) or used last (cache) before this.
    pub until: Option<SystemTime>,
    /// Only images with these labels; the cache has none, so nothing of it goes then.
    pub labels: Vec<LabelFilter>,
    /// Only images that did not come and were not built within this time.
    pub idle: Option<Duration>,
    /// Whether cache stays that an image has too: to remove it frees nothing.
    pub only_what_frees: bool,
    /// How many bytes of cache stay: what was used last. All else goes, whatever `cache` says.
    pub keep: Option<u64>,
}

/// `label=NAME`, `label=NAME=VALUE`, or `label!=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFilter {
    /// The label's name.
    pub name: String,
    /// The value that it must have.
    pub value: Option<String>,
    /// Whether images that have it are meant, or all others.
    pub wanted: bool,
}

impl LabelFilter {
    /// Tells whether an image is meant.
    pub fn matches(&self, image: &Image) -> bool {
        self.fits(&image.config.config.labels)
    }

    /// Tells whether something with these labels is meant.
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.name);
        let has = match &self.value {
            Some(value) => found == Some(value),
            None => found.is_some(),
        };
        has == self.wanted
    }
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Containers.
    pub containers: Vec<String>,
    /// Names.
    pub untagged: Vec<String>,
    /// Images.
    pub deleted: Vec<Digest>,
    /// What made builds faster, by the names of [`CacheItem`].
    pub cache: Vec<String>,
    /// The bytes of all that went, also of what nothing referred to before.
    pub bytes: u64,
}

impl Store {
    /// Removes images and cache, and all that nothing refers to then; nothing that a process
    /// uses. Does nothing, and returns nothing, while the store is verified or removed.
    ///
    /// # Errors
    /// Something can't be read or removed.
    pub fn prune(&self, options: &PruneOptions) -> Result<Option<Pruned>> {
        let Some(lease) = self.try_lock_shared("use")? else {
            return Ok(None);
        };
        let mut inventory = self.for_collection().inventory()?;
        let mut pruned = Pruned::default();
        // Before anything is claimed: who has a container's lock may wait for that.
        if options.containers {
            self.prune_containers(&mut inventory, options, &mut pruned)?;
        }
        let Some(collection) = self.begin_collection()? else {
            return Ok(None);
        };
        let store = &collection.store;
        // Some may have been made since.
        let containers = store.containers()?;
        let in_use: BTreeSet<&Digest> = containers.iter().map(|c| &c.record.image).collect();
        let (doomed, left): (Vec<&Image>, Vec<&Image>) = inventory
            .images
            .iter()
            .partition(|image| options.wants(image) && !in_use.contains(&image.id));
        let cache = doomed_cache(&inventory, options, &doomed, &left);
        // Names may have been given since.
        let refs = store.references()?;
        for image in &doomed {
            let refs: Vec<&RefRecord> = refs.iter().filter(|r| r.image == image.id).collect();
            let has_name_now = options.images == Extent::Dangling && !refs.is_empty();
            if has_name_now || !collection.is_free(&image.id) {
                continue;
            }
            let removed = store.delete_image(&image.id, &refs)?;
            pruned.untagged.extend(removed.untagged);
            pruned.deleted.extend(removed.deleted);
        }
        let used = collection.used_diff_ids()?;
        for item in cache {
            let place = item.place.as_ref();
            if place.is_some_and(|place| used.contains(&place.diff_id)) {
                continue;
            }
            // Layers and blobs are counted when they are collected.
            match item.kind {
                CacheKind::Mount | CacheKind::Context => match store.trash_tree(item)? {
                    true => pruned.bytes += item.size,
                    false => continue,
                },
                _ => {
                    for path in &item.paths {
                        store.trash(path)?;
                    }
                }
            }
            pruned.cache.push(item.id.clone());
        }
        pruned.cache.sort();
        if options.is_all_cache() {
            for name in super::inventory::FORGETTABLE {
                for file in super::files::names(&store.dir(name))? {
                    let path = store.dir(name).join(file);
                    pruned.bytes += super::inventory::tree_bytes(&path);
                    store.trash(&path)?;
                }
            }
        }
        pruned.bytes += collection.finish()?.bytes;
        drop(lease);
        self.remove_leftovers()?;
        Ok(Some(pruned))
    }

    /// Moves the directory of a cache mount or of a snapshot to the trash, unless a step uses
    /// it. Returns whether it did.
    fn trash_tree(&self, item: &CacheItem) -> Result<bool> {
        let mut is_free = true;
        for path in &item.paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let lock = match item.kind {
                CacheKind::Mount => super::mounts::cache_lock(&name),
                _ => super::mounts::snapshot_lock(&name),
            };
            match self.try_lock(&lock)? {
                Some(_alone) => self.trash(path)?,
                None => is_free = false,
            }
        }
        Ok(is_free)
    }
}

impl Store {
    fn prune_containers(
        &self,
        inventory: &mut Inventory,
        options: &PruneOptions,
        pruned: &mut Pruned,
    ) -> Result<()> {
        let mut left = Vec::new();
        for (container, bytes) in std::mem::take(&mut inventory.containers) {
            let record = &container.record;
            let made = record.created.parse::<jiff::Timestamp>();
            let old = options
                .until
                .is_none_or(|until| made.is_ok_and(|made| SystemTime::from(made) < until));
            let labels = &record.settings.labels;
            let wanted = old && options.labels.iter().all(|filter| filter.fits(labels));
            // Nothing where it runs.
            let held = match wanted {
                true => match self.hold_container(&container, Hold::Alone) {
                    // It went just now.
                    Err(StoreError::NoContainer(_)) => continue,
                    other => other?,
                },
                false => None,
            };
            match held {
                Some((lock, container)) => {
                    self.remove_container(&container, &lock)?;
                    pruned.bytes += bytes;
                    pruned.containers.push(container.record.id);
                }
                None => left.push((container, bytes)),
            }
        }
        inventory.containers = left;
        Ok(())
    }
}

impl PruneOptions {
    fn is_all_cache(&self) -> bool {
        let chosen = self.until.is_some() || self.keep.is_some() || !self.labels.is_empty();
        self.cache == Extent::All && !chosen
    }

    pub(super) fn wants(&self, image: &Image) -> bool {
        let extent = match self.images {
            Extent::None => false,
            Extent::Dangling => image.refs.is_empty(),
            Extent::All => true,
        };
        let old = self.until.is_none_or(|until| {
            let created = image.config.created.as_deref();
            created
                .and_then(|text| text.parse::<jiff::Timestamp>().ok())
                .is_none_or(|created| SystemTime::from(created) < until)
        });
        let idle = self.idle.is_none_or(|idle| {
            let since = SystemTime::now().duration_since(image.used);
            since.is_ok_and(|since| since > idle)
        });
        extent && old && idle && self.labels.iter().all(|label| label.matches(image))
    }
}

/// Returns what of the cache goes: nothing before what stands on it.
fn doomed_cache<'a>(
    inventory: &'a Inventory,
    options: &PruneOptions,
    doomed: &[&'a Image],
    left: &[&'a Image],
) -> Vec<&'a CacheItem> {
    if options.cache == Extent::None || !options.labels.is_empty() {
        return Vec::new();
    }
    let chains = |images: &[&Image]| -> BTreeSet<ChainId> {
        images.iter().flat_map(|image| chain_ids(image)).collect()
    };
    let (gone, kept) = (chains(doomed), chains(left));
    let layers = |images: &[&'a Image]| -> BTreeSet<&'a DiffId> {
        let ids = images.iter().flat_map(|i| &i.config.rootfs.diff_ids);
        ids.collect()
    };
    let (gone_layers, kept_layers) = (layers(doomed), layers(left));
    let dangling = |item: &CacheItem| {
        item.place.as_ref().is_some_and(|place| {
            let leads_nowhere = !inventory.layers.contains_key(&place.diff_id);
            // What COPY --link made stands on anything.
            let linked = place.below.is_none()
                && gone_layers.contains(&place.diff_id)
                && !kept_layers.contains(&place.diff_id);
            let left_alone = gone.contains(&place.above) && !kept.contains(&place.above);
            leads_nowhere || linked || left_alone
        })
    };
    // A context is made again from the files of the user, and goes with any collection.
    let mut out: Vec<&CacheItem> = inventory
        .cache
        .iter()
        .filter(|item| item.kind == CacheKind::Context)
        .collect();
    let candidates: Vec<&CacheItem> = inventory
        .cache
        .iter()
        .filter(|item| item.kind != CacheKind::Context)
        .collect();
    let of_image = |item: &CacheItem| match &item.place {
        Some(place) => kept_layers.contains(&place.diff_id),
        None => item.shared,
    };
    let mut ledger = Ledger::new(&candidates, of_image);
    // How many records stand on what a record leads to.
    let mut standing: BTreeMap<&ChainId, usize> = BTreeMap::new();
    for place in candidates.iter().filter_map(|item| item.place.as_ref()) {
        if let Some(below) = &place.below {
            *standing.entry(below).or_default() += 1;
        }
    }
    // What was used longest ago comes first.
    let mut free: BinaryHeap<(std::cmp::Reverse<SystemTime>, usize)> = BinaryHeap::new();
    let mut waiting: BTreeMap<&ChainId, Vec<usize>> = BTreeMap::new();
    for (index, item) in candidates.iter().enumerate() {
        match &item.place {
            Some(place) if standing.contains_key(&place.above) => {
                waiting.entry(&place.above).or_default().push(index);
            }
            _ => free.push((std::cmp::Reverse(item.used), index)),
        }
    }
    while let Some((_, index)) = free.pop() {
        let item = candidates[index];
        let wanted = match options.keep {
            Some(keep) => ledger.bytes > keep,
            None => options.cache == Extent::All || dangling(item),
        };
        let is_spared = options.only_what_frees && of_image(item);
        if !wanted || is_spared || options.until.is_some_and(|until| item.used >= until) {
            continue;
        }
        ledger.remove(item);
        out.push(item);
        let Some(below) = item.place.as_ref().and_then(|place| place.below.as_ref()) else {
            continue;
        };
        let Some(count) = standing.get_mut(below) else {
            continue;
        };
        *count -= 1;
        if *count == 0 {
            for index in waiting.remove(below).unwrap_or_default() {
                free.push((std::cmp::Reverse(candidates[index].used), index));
            }
        }
    }
    out
}

/// The bytes that cache takes which no image has, equal content once.
struct Ledger {
    bytes: u64,
    /// How many items have a content.
    holders: BTreeMap<String, usize>,
}

impl Ledger {
    fn new(items: &[&CacheItem], of_image: impl Fn(&CacheItem) -> bool) -> Ledger {
        let mut ledger = Ledger {
            bytes: 0,
            holders: BTreeMap::new(),
        };
        for item in items.iter().filter(|item| !of_image(item)) {
            let holders = ledger.holders.entry(item.content()).or_default();
            if *holders == 0 {
                ledger.bytes += item.size;
            }
            *holders += 1;
        }
        ledger
    }

    fn remove(&mut self, item: &CacheItem) {
        if let Some(holders) = self.holders.get_mut(&item.content()) {
            *holders -= 1;
            if *holders == 0 {
                self.bytes -= item.size;
            }
        }
    }
}

/// Returns the chain id of each layer of an image.
fn chain_ids(image: &Image) -> Vec<ChainId> {
    let mut chains: Vec<ChainId> = Vec::new();
    for diff_id in &image.config.rootfs.diff_ids {
        chains.push(ChainId::extend(chains.last(), diff_id));
    }
    chains
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::inventory::Place;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A step of 10 bytes on top of another.
    fn step(id: &str, below: Option<&CacheItem>, used: u64) -> CacheItem {
        let diff_id = DiffId(Digest::of(id.as_bytes()));
        let below = below.and_then(|item| item.place.as_ref().map(|place| place.above.clone()));
        CacheItem {
            id: id.to_owned(),
            kind: CacheKind::Step,
            size: 10,
            created: at(used),
            used: at(used),
            shared: false,
            paths: vec![id.into()],
            place: Some(Place {
                above: ChainId::extend(below.as_ref(), &diff_id),
                below,
                diff_id,
            }),
            blob: None,
        }
    }

    fn pruned(cache: &[CacheItem], options: &PruneOptions) -> Vec<String> {
        let layers = cache.iter().filter_map(|item| item.place.as_ref());
        let inventory = Inventory {
            layers: layers.map(|place| (place.diff_id.clone(), 10)).collect(),
            cache: cache.to_vec(),
            ..Inventory::default()
        };
        let doomed = doomed_cache(&inventory, options, &[], &[]);
        doomed.iter().map(|item| item.id.clone()).collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_but_never_before_what_stands_on_it() {
        let a = step("a", None, 1);
        let b = step("b", Some(&a), 9);
        let c = step("c", Some(&a), 4);
        let d = step("d", None, 6);
        let cache = [a, b, c, d];
        let keep = |keep| PruneOptions {
            cache: Extent::Dangling,
            keep: Some(keep),
            ..PruneOptions::default()
        };
        assert_eq!(pruned(&cache, &keep(40)), [""; 0]);
        assert_eq!(pruned(&cache, &keep(39)), ["c"]);
        assert_eq!(pruned(&cache, &keep(10)), ["c", "d", "b"]);
        assert_eq!(pruned(&cache, &keep(0)), ["c", "d", "b", "a"]);
        let until = PruneOptions {
            cache: Extent::All,
            until: Some(at(5)),
            ..PruneOptions::default()
        };
        assert_eq!(pruned(&cache, &until), ["c"]);
    }

    #[test]
    fn equal_layers_count_once() {
        let a = step("same", None, 1);
        let mut b = step("same", None, 2);
        b.id = "again".to_owned();
        let options = PruneOptions {
            cache: Extent::All,
            keep: Some(10),
            ..PruneOptions::default()
        };
        assert_eq!(pruned(&[a, b], &options), [""; 0]);
    }
}
