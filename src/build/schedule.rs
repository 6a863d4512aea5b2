//! Which stages are built when: all that are needed at once, each in a thread of its own that
//! waits where it comes to what another one makes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Build;
use super::error::{BuildError, Step, Trouble};
use super::stage::Finished;

/// How far the stages are.
pub(super) struct Schedule {
    stages: Mutex<Vec<Progress>>,
    changed: Condvar,
    /// Why the build failed: the first reason counts, the others follow from it.
    failure: Mutex<Option<BuildError>>,
    slots: Slots,
}

/// How far a stage is.
#[derive(Clone)]
enum Progress {
    Waiting,
    Building,
    Done(Arc<Finished>),
    Failed,
}

impl Schedule {
    /// Returns the schedule of as many stages, of which at most `jobs` steps run at once.
    pub(super) fn new(stages: usize, jobs: usize) -> Schedule {
        Schedule {
            stages: Mutex::new(vec![Progress::Waiting; stages]),
            changed: Condvar::new(),
            failure: Mutex::default(),
            slots: Slots::new(jobs),
        }
    }

    fn stages(&self) -> MutexGuard<'_, Vec<Progress>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the stages that are done.
    pub(super) fn done(&self) -> Vec<Arc<Finished>> {
        let stages = self.stages();
        stages
            .iter()
            .filter_map(|stage| match stage {
                Progress::Done(finished) => Some(finished.clone()),
                _ => None,
            })
            .collect()
    }

    /// Returns why the build failed.
    pub(super) fn failure(&self) -> BuildError {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().unwrap_or(BuildError::Canceled)
    }

    /// Waits until a step may run.
    pub(super) fn slot(&self) -> Slot<'_> {
        self.slots.take()
    }
}

impl Build<'_> {
    /// Builds the stages that the target needs, and returns it.
    pub(super) fn build_stages(&self) -> Result<Arc<Finished>, BuildError> {
        let (target, order) = {
            let plan = self.plan();
            (plan.target, plan.order.clone())
        };
        let result = std::thread::scope(|scope| {
            for index in order {
                if index != target {
                    scope.spawn(move || self.finished(index));
                }
            }
            self.finished(target)
        });
        result.map_err(|_| self.schedule.failure())
    }

    /// Returns a stage when it is built. Where nobody has begun with it, that is done here and
    /// now: triggers of a base image bring in stages that were not thought to be needed.
    pub(super) fn finished(&self, index: usize) -> Step<Arc<Finished>> {
        let mut stages = self.schedule.stages();
        loop {
            match &stages[index] {
                Progress::Done(finished) => return Ok(finished.clone()),
                Progress::Failed => return Err(Trouble::Canceled),
                Progress::Building => {
                    stages = self
                        .schedule
                        .changed
                        .wait(stages)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                Progress::Waiting => break,
            }
        }
        stages[index] = Progress::Building;
        drop(stages);
        // A panic must not leave others waiting for ever.
        let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stage(index)));
        let (progress, result) = match built {
            Ok(Ok(finished)) => {
                let finished = Arc::new(finished);
                (Progress::Done(finished.clone()), Ok(finished))
            }
            Ok(Err(error)) => {
                self.fail(error);
                (Progress::Failed, Err(Trouble::Canceled))
            }
            Err(panic) => {
                self.schedule.stages()[index] = Progress::Failed;
                self.schedule.changed.notify_all();
                std::panic::resume_unwind(panic);
            }
        };
        self.schedule.stages()[index] = progress;
        self.schedule.changed.notify_all();
        result
    }

    /// Ends the build because of an error, unless it is ending already.
    pub(super) fn fail(&self, error: BuildError) {
        let first = {
            let failure = &self.schedule.failure;
            let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            let first = failure.is_none() && !matches!(error, BuildError::Canceled);
            if first {
                *failure = Some(error);
            }
            first
        };
        if first {
            self.shop.cancel.cancel();
        }
    }

    /// Returns an error where the build is to end.
    pub(super) fn check_canceled(&self) -> Step<()> {
        match self.shop.cancel.is_canceled() {
            true => Err(Trouble::Canceled),
            false => Ok(()),
        }
    }
}

/// Bounds how many steps run at once.
struct Slots {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Slots {
    fn new(count: usize) -> Slots {
        Slots {
            free: Mutex::new(count.max(1)),
            changed: Condvar::new(),
        }
    }

    fn take(&self) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .changed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

/// The right to run a step; given back when dropped.
pub(super) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free += 1;
        drop(free);
        self.0.changed.notify_one();
    }
}
