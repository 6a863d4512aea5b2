//! What is known of a running transfer.

use std::time::Duration;

use super::{format, text};
use crate::event::{StepId, TransferOutcome, Verb};

/// The rate is that of the last one to two windows.
const WINDOW: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) step: Option<StepId>,
    pub(super) started: Duration,
    verb: Verb,
    name: String,
    total: Option<u64>,
    bytes: u64,
    /// Moments and bytes then, the older first.
    marks: [(Duration, u64); 2],
}

impl Transfer {
    pub(super) fn new(
        step: Option<StepId>,
        verb: Verb,
        name: &str,
        total: Option<u64>,
        now: Duration,
    ) -> Transfer {
        Transfer {
            step,
            started: now,
            verb,
            name: text::one_line(name),
            total,
            bytes: 0,
            marks: [(now, 0); 2],
        }
    }

    pub(super) fn progress(&mut self, bytes: u64, now: Duration) {
        if bytes < self.bytes {
            // It begins again: what went before says nothing about the rate.
            self.marks = [(now, bytes); 2];
        } else if now.saturating_sub(self.marks[1].0) >= WINDOW {
            self.marks = [self.marks[1], (now, bytes)];
        }
        self.bytes = bytes;
    }

    /// Returns what is transferred: `pull 4a5b6c7d8e9f`.
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.verb, text::truncate(&self.name, 40))
    }

    /// Returns how far it is: `12.3MB / 45.6MB`.
    pub(super) fn amount(&self) -> String {
        let bytes = format::size_precise(self.bytes);
        match self.total {
            Some(total) => format!("{bytes} / {}", format::size_precise(total)),
            None => bytes,
        }
    }

    /// Returns which part is done, from 0 to 1.
    pub(super) fn part(&self) -> Option<f64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((self.bytes as f64 / total as f64).min(1.0))
    }

    /// Returns the bytes per second of the last seconds.
    pub(super) fn rate(&self, now: Duration) -> u64 {
        let (then, bytes) = self.marks[0];
        let seconds = now.saturating_sub(then).as_secs_f64();
        // Too short a time gives wild figures.
        if seconds < 0.2 {
            return 0;
        }
        (self.bytes.saturating_sub(bytes) as f64 / seconds) as u64
    }

    /// Returns how it ended: `28.23MB done 1.2s`.
    pub(super) fn end(&self, outcome: TransferOutcome, now: Duration) -> String {
        match outcome {
            TransferOutcome::Done => format!(
                "{} done {}",
                format::size_precise(self.total.unwrap_or(self.bytes)),
                format::elapsed(now.saturating_sub(self.started))
            ),
            TransferOutcome::Exists => "exists".to_owned(),
            TransferOutcome::Failed => format!("{} FAILED", self.amount()),
            TransferOutcome::Canceled => format!("{} CANCELED", self.amount()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn rate_follows_the_last_seconds_and_starts_anew_on_a_retry() {
        let mut transfer = Transfer::new(None, Verb::Pull, "x", Some(1_000), s(0));
        assert_eq!(transfer.rate(s(0)), 0);
        transfer.progress(100, s(1));
        assert_eq!(transfer.rate(s(1)), 100);
        for second in 2..=10 {
            transfer.progress(100 + (second - 1) * 10, s(second));
        }
        assert_eq!(transfer.rate(s(10)), 10);
        assert_eq!(transfer.part(), Some(0.19));
        transfer.progress(5, s(11));
        assert_eq!(transfer.rate(s(12)), 0);
        transfer.progress(25, s(12));
        assert_eq!(transfer.rate(s(12)), 20);
    }

    #[test]
    fn more_bytes_than_announced_is_no_more_than_all() {
        let mut transfer = Transfer::new(None, Verb::Pull, "x", Some(10), s(0));
        transfer.progress(100, s(1));
        assert_eq!(transfer.part(), Some(1.0));
        let empty = Transfer::new(None, Verb::Pull, "x", Some(0), s(0));
        assert_eq!(empty.part(), None);
    }
}
