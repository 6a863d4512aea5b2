//! A changed tree becomes a layer.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::error::Step;
use super::{Build, stage::State};
use crate::image::{Algorithm, DiffId, Hasher};
use crate::layer::{LayerDir, LayerMeta, UpperKind, diff, write_tar};
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
    /// Turns a directory of the session with a changed tree in `fs` into a layer on top of a
    /// stage. Where a layer with the same content but other times is recorded there, that one
    /// is taken: so what follows finds its records again.
    pub(super) fn commit(
        &self,
        state: &State,
        staged: &Path,
        kind: UpperKind,
        overrides: crate::layer::Overrides,
    ) -> Step<Arc<Layer>> {
        let store = self.shop.store;
        let below = state.stack.chain_id();
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
        let changes = diff(&directory, &state.view, kind)?;
        let directory = directory
            .with_overrides(changes.overrides.clone())
            .with_own_root(!changes.omit.root);
        let mut sink = Sink(Hasher::new(Algorithm::Sha256));
        let stats = write_tar(&directory, &changes.omit, &mut sink)?;
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
        let layer = store.publish_layer(below, staged, meta)?;
        let record = StepRecord {
            diff_id: Some(layer.meta.diff_id.clone()),
            created: self.now.to_string(),
        };
        store.write_step_record(&key, &record)?;
        Ok(layer)
    }
}
