//! What a build tells while it runs. The build never prints: it hands [`Event`]s to a
//! [`Reporter`], and whoever started it decides what a person sees of them.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A step of a build. Numbers are given in the order in which steps are first reported,
/// from 1: they are shown to people, and name a step in the lines of plain progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u32);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A download, an upload or an extraction, unique within one reporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub u64);

/// Where a process wrote its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepOutcome {
    /// It was done now.
    Done,
    /// Its result was taken from the cache.
    Cached,
    /// It failed, and so does the build.
    Failed,
    /// It turned out not to be needed.
    Skipped,
    /// It was stopped, because another step failed or the user interrupted the build.
    Canceled,
}

/// What a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Bytes come from a registry or another server.
    Pull,
    /// Bytes go to a registry.
    Push,
    /// Bytes go from one place to another.
    Copy,
    /// A layer that is here already becomes a directory.
    Extract,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verb::Pull => "pull",
            Verb::Push => "push",
            Verb::Copy => "copy",
            Verb::Extract => "extract",
        })
    }
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferOutcome {
    /// Everything was transferred.
    Done,
    /// The destination had it already.
    Exists,
    /// It failed.
    Failed,
    /// It was stopped.
    Canceled,
}

/// Something that happened, with everything needed to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step begins.
    StepStarted {
        /// The step.
        step: StepId,
        /// Its name, such as `[build 2/5] RUN apt-get update` or
        /// `[internal] load .dockerignore`.
        name: String,
    },
    /// The process of a step wrote something.
    StepOutput {
        /// The step.
        step: StepId,
        /// Where the process wrote it.
        stream: Stream,
        /// The bytes as they came: neither whole lines nor necessarily text.
        data: Vec<u8>,
    },
    /// A step ends.
    StepFinished {
        /// The step.
        step: StepId,
        /// How it ended.
        outcome: StepOutcome,
        /// How long it took.
        elapsed: Duration,
        /// The error of a step that failed, or a word about the result.
        detail: Option<String>,
    },
    /// A transfer begins.
    TransferStarted {
        /// The transfer.
        id: TransferId,
        /// The step that it is part of.
        step: Option<StepId>,
        /// A label: the short digest of a layer, the name of a file.
        name: String,
        /// What the transfer does.
        verb: Verb,
        /// How many bytes there are, where that is known.
        total: Option<u64>,
    },
    /// A transfer gets on.
    TransferProgress {
        /// The transfer.
        id: TransferId,
        /// How many bytes are done since the start. It may go back on a retry.
        bytes: u64,
    },
    /// A transfer ends.
    TransferFinished {
        /// The transfer.
        id: TransferId,
        /// How it ended.
        outcome: TransferOutcome,
    },
    /// Something that a person should look at, but the build goes on.
    Warning {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Something worth saying, such as a fallback that was taken.
    Info {
        /// The text.
        message: String,
    },
}

/// Takes the events of a build, from any thread.
pub trait Reporter: Send + Sync {
    /// Takes one event. It returns soon, and it can't fail: a build doesn't end because
    /// its progress can't be shown.
    fn report(&self, event: Event);
}

/// Drops all events.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullReporter;

impl Reporter for NullReporter {
    fn report(&self, _event: Event) {}
}

/// Keeps all events, for tests.
#[derive(Debug, Default)]
pub struct Recorder {
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    /// Returns a recorder that has seen nothing.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// Takes out the events that came since the last call.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reporter for Recorder {
    fn report(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn recorder_keeps_the_order_of_events_and_gives_each_once() {
        let recorder = Arc::new(Recorder::new());
        let reporter: Arc<dyn Reporter> = recorder.clone();
        let info = |n: u32| Event::Info {
            message: n.to_string(),
        };
        reporter.report(info(1));
        reporter.report(info(2));
        assert_eq!(recorder.take(), [info(1), info(2)]);
        reporter.report(info(3));
        assert_eq!(recorder.take(), [info(3)]);
    }
}
