//! A changed tree becomes a layer.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::Build;
use super::error::Step;
use super::key::{Inputs, Keys};
use super::pipeline::{Committed, Made, Stream};
use crate::event::Event;
use crate::image::{Algorithm, ChainId, DiffId};
use crate::layer::{
    Assembled, Contents, Diff, Digester, LayerDir, LayerError, LayerMeta, LayerWriter, Overrides,
    Plan, View, diff_with_contents, write_contents,
};
use crate::store::{IoContext, Layer, Stack, StepRecord};

/// A layer with more bytes of zeros in holes than this is worth a word.
const HOLES: u64 = GIB;

const GIB: u64 = 1 << 30;
/// What takes long enough to hash that the disk begins to write it meanwhile.
const LARGE: u64 = 64 << 20;

impl Build<'_> {
    /// Writes a tree for a layer without a sandbox. `below` is what it may refer to.
    pub(super) fn write_tree(
        &self,
        below: &View,
        fill: impl FnOnce(&mut LayerWriter<'_>) -> Step<()>,
    ) -> Step<(PathBuf, Overrides)> {
        let staged = self.shop.session.directory()?;
        let fs = staged.join("fs");
        std::fs::create_dir(&fs).at("cannot create", &fs)?;
        let directory = std::fs::File::open(&fs).at("cannot open", &fs)?;
        let ownership = self.shop.store.form().ownership;
        let mut writer =
            LayerWriter::new(directory.as_fd(), below, ownership)?.with_now(self.time_of_new());
        fill(&mut writer)?;
        let written = writer.finish()?;
        Ok((staged, written.overrides))
    }

    /// Writes a planned tree for a layer, and hashes its stream meanwhile. `below` is what it
    /// was planned on top of.
    pub(super) fn write_plan(
        &self,
        below: &View,
        plan: &Plan<'_>,
    ) -> Step<(PathBuf, Assembled, Stream)> {
        let staged = self.shop.session.directory()?;
        let fs = staged.join("fs");
        std::fs::create_dir(&fs).at("cannot create", &fs)?;
        let directory = std::fs::File::open(&fs).at("cannot open", &fs)?;
        let ownership = self.shop.store.form().ownership;
        let mut digester = Digester::new(Algorithm::Sha256);
        let assembled = plan.write(directory.as_fd(), below, ownership, &mut digester)?;
        let stream = Stream {
            diff_id: DiffId(digester.finish().map_err(LayerError::Write)?),
            stats: assembled.stats,
        };
        Ok((staged, assembled, stream))
    }

    /// Opens a tree of the session.
    pub(super) fn open_staged(&self, fs: &Path, overrides: &Overrides) -> Step<LayerDir> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = nix::fcntl::open(fs, flags, Mode::empty()).at("cannot open", fs)?;
        let ownership = self.shop.store.form().ownership;
        Ok(LayerDir::new(opened, ownership).with_overrides(overrides.clone()))
    }

    /// Turns a tree that a step has made into a layer on top of a stack: what differs from the
    /// view over it belongs to it. Where a layer with the same content but other times is
    /// recorded there, that one is taken: so what follows finds its records again. The step is
    /// recorded, and its lock released.
    pub(super) fn commit(
        &self,
        stack: &Stack,
        view: &View,
        made: Made,
        no_cache: bool,
    ) -> Step<Committed> {
        let store = self.shop.store;
        let below = stack.chain_id();
        let directory = self.open_staged(&made.staged.join("fs"), &made.overrides)?;
        let nothing = View::new(Vec::new());
        let lower = if made.keys.content.linked {
            &nothing
        } else {
            view
        };
        let (changes, contents) = match &made.stream {
            // It was hashed when it was written.
            Some(_) => (Diff::whole(made.overrides.clone()), Contents::default()),
            None => diff_with_contents(&directory, lower, made.kind)?,
        };
        if contents.size_bytes() > LARGE {
            store.begin_sync();
        }
        let directory = directory
            .with_overrides(changes.overrides.clone())
            .with_own_root(!changes.omit.root);
        let Stream { diff_id, stats } = match made.stream {
            Some(stream) => stream,
            None => {
                let mut digester = Digester::new(Algorithm::Sha256);
                let stats = write_contents(&directory, &contents, &mut digester)?;
                let diff_id = DiffId(digester.finish().map_err(LayerError::Write)?);
                Stream { diff_id, stats }
            }
        };
        if stats.hole_bytes > HOLES {
            self.shop.reporter.report(Event::Warning {
                message: format!(
                    "a layer has {:.1} GiB of zeros in sparse files, which a registry gets in full",
                    stats.hole_bytes as f64 / GIB as f64
                ),
                hint: Some(
                    "with huge user ids, useradd makes such files: give it --no-log-init"
                        .to_owned(),
                ),
            });
        }
        // What differs from a recorded layer in times only is taken for the same.
        let mut content = self.key("content").bytes(&stats.content_id.0).finish();
        content.linked = made.keys.content.linked;
        let recorded = match no_cache {
            true => None,
            false => self.recorded_layer(&content, stack, None, None)?,
        };
        let layer = match recorded {
            Some((layer, _)) => layer,
            None => {
                let meta = LayerMeta {
                    diff_id,
                    content_id: Some(stats.content_id),
                    omit: changes.omit.clone(),
                    overrides: changes.overrides,
                    // What is in the tree and not in the stream holds on top of this very
                    // stack only.
                    self_contained: changes.self_contained
                        && changes.omit.entries.is_empty()
                        && changes.omit.opaque.is_empty(),
                    size: stats.size_bytes,
                    entries: stats.entries,
                };
                let layer = store.publish_layer(below, &made.staged, meta)?;
                self.record(&content, below, &self.record_of(&layer))?;
                layer
            }
        };
        if made.is_sound {
            let record = self.record_of(&layer);
            let Keys { content, layers } = &made.keys;
            for inputs in [Some(content), layers.as_ref()].into_iter().flatten() {
                self.record(inputs, below, &record)?;
            }
        }
        Ok(Committed { layer, directory })
    }

    /// Returns the record of a layer that was made now.
    fn record_of(&self, layer: &Layer) -> StepRecord {
        StepRecord {
            diff_id: layer.meta.diff_id.clone(),
            created: self.now.to_string(),
        }
    }

    /// Records what a step came to.
    pub(super) fn record(
        &self,
        inputs: &Inputs,
        below: Option<&ChainId>,
        record: &StepRecord,
    ) -> Step<()> {
        let below = inputs.below(below);
        Ok(self
            .shop
            .store
            .write_step_record(&inputs.hash, below, record)?)
    }
}
