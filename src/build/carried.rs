//! What other machines did: caches that are read before steps run, and written at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::error::Step;
use super::key::Inputs;
use super::recall::is_too_old;
use super::{Build, Running};
use crate::archive::{
    ArchiveError, CacheError, CacheReader, CacheWriter, CachedLayer, seconds_now,
};
use crate::event::{Event, StepId, StepOutcome};
use crate::image::{ChainId, DiffId};
use crate::store::{Layer, Stack, StepRecord};
use crate::transfer::{self, Packing, Transfer, TransferError};

/// A directory that steps are kept in for other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedTo {
    /// The directory.
    pub directory: PathBuf,
    /// Whether the steps of all stages are kept, and not only those of the image.
    pub all_stages: bool,
    /// How layers are compressed.
    pub packing: Packing,
}

/// The caches of other machines, opened when the first step has no record here.
#[derive(Default)]
pub(super) struct Carried {
    readers: OnceLock<Vec<CacheReader>>,
}

impl Carried {
    fn readers(&self, build: &Build<'_>) -> &[CacheReader] {
        self.readers.get_or_init(|| {
            let directories = build.options.cache_from.iter();
            directories
                .filter_map(|directory| build.open_carried(directory))
                .collect()
        })
    }

    /// Tells whether a step with these inputs has a record on top of anything.
    pub(super) fn knows(&self, build: &Build<'_>, key: &str) -> bool {
        let mut readers = self.readers(build).iter();
        readers.any(|reader| reader.knows(key))
    }
}

/// A layer that a build used, and what lies below it.
struct Used {
    below: Option<ChainId>,
    layer: Arc<Layer>,
}

impl Build<'_> {
    fn open_carried(&self, directory: &Path) -> Option<CacheReader> {
        let shown = directory.display();
        match CacheReader::open(self.shop.session, directory) {
            Ok(Some(reader)) => return Some(reader),
            Ok(None) => self.shop.reporter.report(Event::Info {
                message: format!("there is no cache in {shown} yet"),
            }),
            Err(error) => self.warn(format!("the cache in {shown} is not used: {error}"), &error),
        }
        None
    }

    fn warn(&self, message: String, error: &CacheError) {
        let hint = error.hint();
        self.shop.reporter.report(Event::Warning { message, hint });
    }

    fn transfer(&self, step: Option<StepId>) -> Transfer<'_> {
        Transfer {
            store: self.shop.store,
            session: self.shop.session,
            reporter: &self.shop.reporter,
            step,
        }
    }

    /// Brings the layer that a cache has for some inputs on top of a stack, and records it.
    pub(super) fn bring_carried(
        &self,
        inputs: &Inputs,
        stack: &Stack,
        step: Option<StepId>,
        max_age: Option<Duration>,
    ) -> Step<Option<(Arc<Layer>, String)>> {
        let below = inputs.below(stack.chain_id());
        for reader in self.carried.readers(self) {
            let Some((found, created)) = reader.find(&inputs.hash, below) else {
                continue;
            };
            if is_too_old(created, max_age) {
                continue;
            }
            let wanted = (found.blob.clone(), found.diff_id.clone());
            match transfer::bring_layer(&self.transfer(step), stack, wanted, reader) {
                Ok(layer) => {
                    let record = StepRecord {
                        diff_id: found.diff_id.clone(),
                        created: created.clone(),
                    };
                    self.record(inputs, stack.chain_id(), &record)?;
                    return Ok(Some((layer, record.created)));
                }
                // It is the store that fails.
                Err(TransferError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    self.check_canceled()?;
                    reader.distrust(&found.blob.digest);
                    self.shop.reporter.report(Event::Warning {
                        message: format!("the cache in {}: {error}", reader.path().display()),
                        hint: Some("it is damaged; the step is done again".to_owned()),
                    });
                }
            }
        }
        Ok(None)
    }

    /// Writes the caches that other machines get. What fails about that is no reason for the
    /// build to fail.
    pub(super) fn export_carried(&self, image: &Stack) {
        for to in &self.options.cache_to {
            let shown = to.directory.display();
            let step = self.begin(&format!("exporting cache to {shown}"));
            match self.write_carried(to, image, &step) {
                Ok(detail) => self.end(step, StepOutcome::Done, Some(detail)),
                Err(error) => {
                    self.end(step, StepOutcome::Skipped, None);
                    self.warn(format!("no cache was written to {shown}: {error}"), &error);
                }
            }
        }
    }

    fn write_carried(
        &self,
        to: &CarriedTo,
        image: &Stack,
        step: &Running,
    ) -> Result<String, CacheError> {
        let used = self.used_layers((!to.all_stages).then_some(image));
        let layers = self.as_cached(&used, &to.packing, step)?;
        let readers = self.carried.readers(self).iter();
        let writer = CacheWriter {
            path: &to.directory,
            limit: self.options.cache_max_size,
            damaged: &readers.flat_map(CacheReader::damaged).collect(),
        };
        let written = writer.write(self.shop.store, self.shop.session, layers)?;
        Ok(written.to_string())
    }

    /// Returns the layers that steps of this build came to, now or before, bottom first; with
    /// `image`, only those that it has.
    fn used_layers(&self, image: Option<&Stack>) -> Vec<Used> {
        let chain_ids = |stack: &Stack| {
            let mut chain_ids: Vec<ChainId> = Vec::new();
            for layer in stack.layers() {
                chain_ids.push(ChainId::extend(chain_ids.last(), &layer.meta.diff_id));
            }
            chain_ids
        };
        let of_image: Option<BTreeSet<ChainId>> =
            image.map(|image| chain_ids(image).into_iter().collect());
        let mut seen = BTreeSet::new();
        let mut used = Vec::new();
        for stage in self.schedule.done() {
            let chain_ids = chain_ids(&stage.stack);
            let own = stage
                .stack
                .layers()
                .iter()
                .enumerate()
                .skip(stage.inherited);
            for (index, layer) in own {
                let chain_id = &chain_ids[index];
                let is_wanted = of_image.as_ref().is_none_or(|ids| ids.contains(chain_id));
                if is_wanted && seen.insert(chain_id.clone()) {
                    used.push(Used {
                        below: index.checked_sub(1).map(|below| chain_ids[below].clone()),
                        layer: layer.clone(),
                    });
                }
            }
        }
        used
    }

    /// Returns layers with all records that lead to them, of the store and of the caches that
    /// were read, and with their blobs, which are made where they are missing.
    fn as_cached(
        &self,
        used: &[Used],
        packing: &Packing,
        step: &Running,
    ) -> Result<Vec<CachedLayer>, CacheError> {
        let store = self.shop.store;
        let diff_ids: BTreeSet<&DiffId> = used.iter().map(|u| &u.layer.meta.diff_id).collect();
        type Keys = BTreeMap<String, String>;
        let mut keys: BTreeMap<(Option<ChainId>, DiffId), Keys> = BTreeMap::new();
        let carried = self.carried.readers(self).iter();
        for layer in carried.flat_map(CacheReader::layers) {
            let place = (layer.below.clone(), layer.diff_id.clone());
            keys.entry(place).or_default().extend(layer.keys.clone());
        }
        let recorded = store
            .steps_leading_to(&diff_ids)
            .map_err(ArchiveError::from)?;
        for (inputs, below, record) in recorded {
            let place = (below, record.diff_id);
            keys.entry(place)
                .or_default()
                .insert(inputs, record.created);
        }
        let mut stack = Stack::default();
        for used in used {
            stack.push(used.layer.clone());
        }
        let blobs = transfer::compress_layers(&self.transfer(Some(step.id)), &stack, packing)
            .map_err(ArchiveError::from)?;
        let now = seconds_now();
        let mut layers = Vec::new();
        for (used, blob) in used.iter().zip(blobs) {
            // What does not depend on what lies below is recorded on nothing.
            for below in [None, used.below.clone()] {
                let place = (below, used.layer.meta.diff_id.clone());
                if let Some(keys) = keys.remove(&place) {
                    layers.push(CachedLayer {
                        below: place.0,
                        diff_id: place.1,
                        blob: blob.clone(),
                        keys,
                        used: now,
                    });
                }
            }
        }
        Ok(layers)
    }
}
