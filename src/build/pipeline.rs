//! Layers on their way into the store, beside the steps that follow.
//!
//! Where the next step has no record on top of anything, it cannot matter what the last one's
//! layer comes to: it starts on the tree as it lies there, while that is still compared, hashed
//! and published.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::Build;
use super::error::{BuildError, Step, Trouble};
use super::key::Keys;
use super::stage::State;
use crate::dockerfile::{Source, Span};
use crate::image::DiffId;
use crate::layer::{LayerDir, Overrides, StreamStats, UpperKind, View};
use crate::store::{Layer, Stack, StepLock};

/// How many layers may wait for being committed: what is ahead of them only takes up room.
const AHEAD: usize = 2;

/// A tree that a step has made, which is to become a layer.
pub(super) struct Made {
    /// The directory of the session with the tree in `fs`.
    pub(super) staged: PathBuf,
    /// Whose forms of deletions the tree has.
    pub(super) kind: UpperKind,
    /// Records of entries that the tree can't say.
    pub(super) overrides: Overrides,
    /// What is known of its stream, where that was made together with the tree: then all of
    /// the tree belongs to the layer.
    pub(super) stream: Option<Stream>,
    /// What the step was given.
    pub(super) keys: Keys,
    /// Whether the tree is what the inputs say: files of a context may change under the copy.
    pub(super) is_sound: bool,
    /// Keeps other builds from doing the same until there is a record.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) lock: Option<StepLock>,
}

/// What is known of a layer's stream.
pub(super) struct Stream {
    pub(super) diff_id: DiffId,
    pub(super) stats: StreamStats,
}

/// A layer that was committed, and its tree.
pub(super) struct Committed {
    pub(super) layer: Arc<Layer>,
    /// The tree as the step made it. The layer's may be another with the same content.
    pub(super) directory: LayerDir,
}

/// A tree to be committed, and the instruction that made it.
struct Job {
    made: Made,
    source: Arc<Source>,
    span: Span,
}

/// The layers of a stage that are on their way.
pub(super) struct Pipeline {
    jobs: SyncSender<Job>,
    results: Receiver<Result<Arc<Layer>, BuildError>>,
}

impl Pipeline {
    /// Starts to commit what is sent, in a thread of its own, on top of a stack.
    fn start<'scope>(
        build: &'scope Build<'scope>,
        scope: &'scope Scope<'scope, '_>,
        mut stack: Stack,
        mut view: View,
        no_cache: bool,
    ) -> Pipeline {
        let (jobs, queue) = sync_channel::<Job>(AHEAD);
        let (done, results) = std::sync::mpsc::channel();
        scope.spawn(move || {
            for Job { made, source, span } in queue {
                match build.commit(&stack, &view, made, no_cache) {
                    Ok(committed) => {
                        stack.push(committed.layer.clone());
                        view.push(committed.directory);
                        // Where nobody waits for it any more, it is in the cache all the same.
                        let _ = done.send(Ok(committed.layer));
                    }
                    Err(trouble) => {
                        let _ = done.send(Err(trouble.at(&source, span)));
                        return;
                    }
                }
            }
        });
        Pipeline { jobs, results }
    }
}

impl Build<'_> {
    /// Has a tree committed beside what follows, which stands on it from now on.
    pub(super) fn commit_beside<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        state: &mut State,
        made: Made,
        source: &Arc<Source>,
        span: Span,
    ) -> Step<()> {
        self.take_committed(state)?;
        let fs = made.staged.join("fs");
        let directory = self.open_staged(&fs, &made.overrides)?;
        let pipeline = match state.pipeline.take() {
            Some(pipeline) => pipeline,
            None => {
                let (stack, view) = (state.stack.clone(), state.view.clone());
                Pipeline::start(self, scope, stack, view, state.no_cache)
            }
        };
        let job = Job {
            made,
            source: source.clone(),
            span,
        };
        let is_taken = pipeline.jobs.send(job).is_ok();
        state.pipeline = Some(pipeline);
        if !is_taken {
            // The thread ended over an error, which is among the results.
            return self.settle(state);
        }
        // Its path changes when it is published; the descriptor, which the view holds, stays.
        let fd = directory.fd().as_raw_fd();
        state.ahead.push(format!("/proc/self/fd/{fd}").into());
        state.view.push(directory);
        Ok(())
    }

    /// Takes in the layers that are in the store by now, without waiting for others.
    fn take_committed(&self, state: &mut State) -> Step<()> {
        let results = state.pipeline.iter().flat_map(|p| p.results.try_iter());
        for result in results {
            match result {
                Ok(layer) => {
                    state.stack.push(layer);
                    state.ahead.remove(0);
                }
                Err(error) => {
                    self.fail(error);
                    return Err(Trouble::Canceled);
                }
            }
        }
        Ok(())
    }

    /// Waits until all layers of a stage are in the store.
    pub(super) fn settle(&self, state: &mut State) -> Step<()> {
        let Some(Pipeline { jobs, results }) = state.pipeline.take() else {
            return Ok(());
        };
        drop(jobs);
        state.ahead.clear();
        for result in results {
            match result {
                Ok(layer) => state.stack.push(layer),
                Err(error) => {
                    self.fail(error);
                    return Err(Trouble::Canceled);
                }
            }
        }
        state.view = self.shop.store.view(&state.stack)?;
        Ok(())
    }
}
