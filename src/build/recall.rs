//! What earlier builds have done already, and what another one is doing just now.

use std::time::Duration;

use super::error::Step;
use super::key::{Inputs, Keys};
use super::schedule::Slot;
use super::stage::{Outcome, State};
use super::{Build, Running};
use crate::event::{Event, Stream};
use crate::store::{StepLock, StepRecord};

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
        let outcome = self.look_up(state, inputs, created_by)?;
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
        let outcome = self.look_up(state, &keys.content, created_by)?;
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

    /// Returns what is recorded of a step, where its layer is there.
    fn look_up(
        &self,
        state: &mut State,
        inputs: &Inputs,
        created_by: &str,
    ) -> Step<Option<Outcome>> {
        let store = self.shop.store;
        if state.no_cache || !store.has_step_records(&inputs.hash) {
            return Ok(None);
        }
        self.settle(state)?;
        let below = state.stack.chain_id();
        let recorded = store.step_record(&inputs.hash, inputs.below(below));
        let Some(StepRecord { diff_id, created }) = recorded else {
            return Ok(None);
        };
        if self.is_too_old(&created) {
            return Ok(None);
        }
        let layer = store.layer(below, &diff_id)?;
        Ok(layer.map(|layer| Outcome::cached(created_by.to_owned(), layer, created)))
    }

    /// Tells whether `--cache-ttl` rules a record out.
    fn is_too_old(&self, created: &str) -> bool {
        let Some(limit) = self.options.cache_ttl else {
            return false;
        };
        // A record whose time can't be read has no age that one could trust.
        let Ok(created) = created.parse::<jiff::Timestamp>() else {
            return true;
        };
        Duration::try_from(jiff::Timestamp::now().duration_since(created))
            .is_ok_and(|age| age > limit)
    }
}
