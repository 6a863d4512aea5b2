//! What earlier builds have done already, and what another one is doing just now.

use std::sync::Arc;
use std::time::Duration;

use super::error::Step;
use super::key::{Inputs, Keys};
use super::schedule::Slot;
use super::stage::{Outcome, State};
use super::{Build, Running};
use crate::event::{Event, StepId, Stream};
use crate::store::{Layer, Stack, StepLock, StepRecord};

/// How often a build that waits for another looks again: at first, and at last.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// What is known of a step.
pub(super) enum Recalled<'a> {
    /// It was done before.
    Hit(Outcome),
    /// It is this build's turn to do it.
    Miss(Turn<'a>),
}

/// The right to do a step now.
pub(super) struct Turn<'a> {
    /// Keeps other builds from doing the same; to be held until there is a record.
    pub(super) lock: Option<StepLock>,
    _slot: Slot<'a>,
}

impl Build<'_> {
    /// Returns what is recorded of a step with these inputs, or the right to do it. Where
    /// another build is at the same step, waits for what it comes to. `files` names the files
    /// of a COPY and their hashes.
    pub(super) fn recall(
        &self,
        state: &mut State,
        keys: &Keys,
        created_by: &str,
        files: Option<&dyn Fn() -> Vec<(String, String)>>,
        step: &Running,
    ) -> Step<Recalled<'_>> {
        let inputs = &keys.content;
        let place = state.advance(inputs);
        if state.no_cache {
            self.explain_miss(state, inputs, files, step);
            return Ok(Recalled::Miss(Turn {
                lock: None,
                _slot: self.schedule.slot(),
            }));
        }
        if let Some(outcome) = self.known(state, keys, created_by, step)? {
            return Ok(Recalled::Hit(outcome));
        }
        let lock = self.lock_step(place, step)?;
        // Somebody else may have been done with it just before.
        if let Some(outcome) = self.known(state, keys, created_by, step)? {
            return Ok(Recalled::Hit(outcome));
        }
        self.explain_miss(state, inputs, files, step);
        Ok(Recalled::Miss(Turn {
            lock: Some(lock),
            _slot: self.schedule.slot(),
        }))
    }

    /// Returns what is recorded of a step by the layers that its inputs are from: then nobody
    /// need read them.
    pub(super) fn recall_by_layers(
        &self,
        state: &mut State,
        inputs: &Inputs,
        created_by: &str,
        step: &Running,
    ) -> Step<Option<Outcome>> {
        let outcome = self.look_up(state, inputs, created_by, step)?;
        if let Some(outcome) = &outcome {
            state.advance(inputs);
            self.explain_hit(outcome, step);
        }
        Ok(outcome)
    }

    /// Returns what is recorded of a step by its content, and sees to it that it is found by
    /// its layers too.
    fn known(
        &self,
        state: &mut State,
        keys: &Keys,
        created_by: &str,
        step: &Running,
    ) -> Step<Option<Outcome>> {
        let outcome = self.look_up(state, &keys.content, created_by, step)?;
        if let Some(outcome) = &outcome {
            self.explain_hit(outcome, step);
            if let (Some(layers), Some(record)) = (&keys.layers, outcome.record()) {
                self.record(layers, state.stack.chain_id(), &record)?;
            }
        }
        Ok(outcome)
    }

    fn lock_step(&self, place: [u8; 8], step: &Running) -> Step<StepLock> {
        let (mut pause, longest) = LOOK_AGAIN;
        let mut told = false;
        loop {
            if let Some(lock) = self.shop.store.try_lock_step(place)? {
                return Ok(lock);
            }
            self.check_canceled()?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
            if !told && pause == longest {
                told = true;
                self.shop.reporter.report(Event::StepOutput {
                    step: step.id,
                    stream: Stream::Stderr,
                    data: b"another build is at the same step: waiting for its result\n".to_vec(),
                });
            }
        }
    }

    /// Returns what is recorded of a step, where its layer is there or can be brought.
    fn look_up(
        &self,
        state: &mut State,
        inputs: &Inputs,
        created_by: &str,
        step: &Running,
    ) -> Step<Option<Outcome>> {
        let store = self.shop.store;
        let is_known =
            || store.has_step_records(&inputs.hash) || self.carried.knows(self, &inputs.hash);
        if state.no_cache || !is_known() {
            return Ok(None);
        }
        self.settle(state)?;
        let found =
            self.recorded_layer(inputs, &state.stack, Some(step.id), self.options.cache_ttl)?;
        Ok(found.map(|(layer, created)| Outcome::cached(created_by.to_owned(), layer, created)))
    }

    /// Returns the layer that is recorded for some inputs on top of a stack, and when it was
    /// made, where that is not too long ago: out of the store, else out of a cache that another
    /// machine wrote.
    pub(super) fn recorded_layer(
        &self,
        inputs: &Inputs,
        stack: &Stack,
        step: Option<StepId>,
        max_age: Option<Duration>,
    ) -> Step<Option<(Arc<Layer>, String)>> {
        let store = self.shop.store;
        let below = stack.chain_id();
        let recorded = store.step_record(&inputs.hash, inputs.below(below));
        if let Some(StepRecord { diff_id, created }) = recorded
            && !is_too_old(&created, max_age)
            && let Some(layer) = store.layer(below, &diff_id)?
        {
            return Ok(Some((layer, created)));
        }
        self.bring_carried(inputs, stack, step, max_age)
    }
}

/// Tells whether `--cache-ttl` rules a record out.
pub(super) fn is_too_old(created: &str, max_age: Option<Duration>) -> bool {
    let Some(limit) = max_age else {
        return false;
    };
    // A record whose time can't be read has no age that one could trust.
    let Ok(created) = created.parse::<jiff::Timestamp>() else {
        return true;
    };
    Duration::try_from(jiff::Timestamp::now().duration_since(created)).is_ok_and(|age| age > limit)
}
