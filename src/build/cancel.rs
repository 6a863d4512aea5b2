//! The early end of a build: one step failed, or the user has had enough.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiln_runtime::Killer;

/// Ends the steps of a build from elsewhere.
#[derive(Default)]
pub struct Cancel(Mutex<State>);

#[derive(Default)]
struct State {
    canceled: bool,
    next: u64,
    running: BTreeMap<u64, Killer>,
}

impl Cancel {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills all steps that run, waits a moment until they are gone, and keeps others from
    /// starting.
    pub fn cancel(&self) {
        let running = {
            let mut state = self.state();
            state.canceled = true;
            std::mem::take(&mut state.running)
        };
        for killer in running.values() {
            killer.kill();
        }
    }

    /// Tells whether it has happened: what fails then, fails because of it.
    pub fn is_canceled(&self) -> bool {
        self.state().canceled
    }

    /// Takes a step into account until the result is dropped. Where it is too late, the step
    /// is killed at once.
    pub(super) fn watch(&self, killer: Killer) -> Watched<'_> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        if state.canceled {
            drop(state);
            killer.kill();
        } else {
            state.running.insert(number, killer);
        }
        Watched {
            cancel: self,
            number,
        }
    }
}

/// A step that is taken into account.
pub(super) struct Watched<'a> {
    cancel: &'a Cancel,
    number: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.cancel.state().running.remove(&self.number);
    }
}
