//! A changed tree becomes a layer.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::error::Step;
use super::{Build, stage::State};
use crate::image::{Algorithm, DiffId, Hasher};
use crate::layer::{
    LayerDir, LayerMeta, LayerWriter, Omit, Plan, StreamStats, UpperKind, View, diff, write_tar,
};
use crate::store::{IoContext, Layer, StepRecord};

/// Hashes what is written to it.
struct Sink(Hasher);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Build<'_> {
    /// Writes a layer on top of a stage without a sandbox. `below` is what it may refer to.
    pub(super) fn write_layer(
        &self,
        state: &State,
        below: &View,
        fill: impl FnOnce(&mut LayerWriter<'_>) -> Step<()>,
    ) -> Step<Arc<Layer>> {
        let staged = self.shop.session.directory()?;
        let fs = staged.join("fs");
        std::fs::create_dir(&fs).at("cannot create", &fs)?;
        let directory = std::fs::File::open(&fs).at("cannot open", &fs)?;
        let ownership = self.shop.store.form().ownership;
        let mut writer =
            LayerWriter::new(directory.as_fd(), below, ownership)?.with_now(self.time_of_new());
        fill(&mut writer)?;
        let written = writer.finish()?;
        self.commit(state, below, &staged, UpperKind::Overlay, written.overrides)
    }

    /// Turns a directory of the session with a changed tree in `fs` into a layer on top of a
    /// stage: what differs from `lower` belongs to it. Where a layer with the same content but other times is recorded there, that one
    /// is taken: so what follows finds its records again.
    pub(super) fn commit(
        &self,
        state: &State,
        lower: &View,
        staged: &Path,
        kind: UpperKind,
        overrides: crate::layer::Overrides,
    ) -> Step<Arc<Layer>> {
        let store = self.shop.store;
        let fs = staged.join("fs");
        let opened = nix::fcntl::open(
            &fs,
            nix::fcntl::OFlag::O_RDONLY
                | nix::fcntl::OFlag::O_DIRECTORY
                | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
        .at("cannot open", &fs)?;
        let directory = LayerDir::new(opened, store.form().ownership).with_overrides(overrides);
        let changes = diff(&directory, lower, kind)?;
        let directory = directory
            .with_overrides(changes.overrides.clone())
            .with_own_root(!changes.omit.root);
        let mut sink = Sink(Hasher::new(Algorithm::Sha256));
        let stats = write_tar(&directory, &changes.omit, &mut sink)?;
        let meta = LayerMeta {
            diff_id: DiffId(sink.0.finish()),
            content_id: Some(stats.content_id),
            omit: changes.omit.clone(),
            overrides: changes.overrides,
            // What is in the tree and not in the stream holds on top of this very stack only.
            self_contained: changes.self_contained
                && changes.omit.entries.is_empty()
                && changes.omit.opaque.is_empty(),
            size: stats.size_bytes,
            entries: stats.entries,
        };
        self.adopt(state, staged, &stats, meta)
    }

    /// Writes a planned layer on top of a stage. Returns whether its files were still what they
    /// had been when they were planned.
    pub(super) fn assemble_layer(
        &self,
        state: &State,
        below: &View,
        plan: &Plan<'_>,
    ) -> Step<(Arc<Layer>, bool)> {
        let staged = self.shop.session.directory()?;
        let fs = staged.join("fs");
        std::fs::create_dir(&fs).at("cannot create", &fs)?;
        let directory = std::fs::File::open(&fs).at("cannot open", &fs)?;
        let ownership = self.shop.store.form().ownership;
        let mut sink = Sink(Hasher::new(Algorithm::Sha256));
        let made = plan.write(directory.as_fd(), below, ownership, &mut sink)?;
        let meta = LayerMeta {
            diff_id: DiffId(sink.0.finish()),
            content_id: Some(made.stats.content_id),
            omit: Omit {
                root: true,
                ..Omit::default()
            },
            overrides: made.overrides,
            self_contained: true,
            size: made.stats.size_bytes,
            entries: made.stats.entries,
        };
        let layer = self.adopt(state, &staged, &made.stats, meta)?;
        Ok((layer, made.is_stable))
    }

    /// Publishes a layer, or takes one that is recorded and differs in times only: so what
    /// follows finds its records again.
    fn adopt(
        &self,
        state: &State,
        staged: &Path,
        stats: &StreamStats,
        meta: LayerMeta,
    ) -> Step<Arc<Layer>> {
        let store = self.shop.store;
        let below = state.stack.chain_id();
        if stats.hole_bytes > 1 << 30 {
            self.shop.reporter.report(crate::event::Event::Warning {
                message: format!(
                    "a layer has {} of zeros in sparse files, which a registry gets in full",
                    stats.hole_bytes
                ),
                hint: Some(
                    "with huge user ids, useradd makes such files: give it --no-log-init"
                        .to_owned(),
                ),
            });
        }
        // What differs from a recorded layer in times only is taken for the same.
        let mut key = self.key("content");
        key.chain(below).bytes(&stats.content_id.0);
        let key = key.finish();
        if !self.options.no_cache
            && let Some(StepRecord {
                diff_id: Some(diff_id),
                ..
            }) = store.step_record(&key)
            && let Some(layer) = store.layer(below, &diff_id)?
        {
            self.shop.session.discard(staged);
            return Ok(layer);
        }
        let layer = store.publish_layer(below, staged, meta)?;
        let record = StepRecord {
            diff_id: Some(layer.meta.diff_id.clone()),
            created: self.now.to_string(),
        };
        store.write_step_record(&key, &record)?;
        Ok(layer)
    }
}
