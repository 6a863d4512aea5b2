//! Progress as plain lines, for logs, pipes and terminals that can do no more. The lines
//! are those of BuildKit, which people and scripts know.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::transfer::Transfer;
use super::{View, diagnostics, format, text};
use crate::event::{Event, StepId, StepOutcome, Stream, TransferId};

/// All transfers together give one line of progress in this time.
const TRANSFER_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Step {
    started: Duration,
    stdout: text::LineBuffer,
    stderr: text::LineBuffer,
}

/// The state behind the lines.
#[derive(Debug, Default)]
pub(super) struct Plain {
    colour: bool,
    steps: HashMap<StepId, Step>,
    /// Each with the moment of its last line.
    transfers: BTreeMap<TransferId, (Transfer, Duration)>,
    last_transfer_line: Duration,
}

impl Plain {
    pub(super) fn new(colour: bool) -> Plain {
        Plain {
            colour,
            ..Plain::default()
        }
    }

    fn finish_step(
        &mut self,
        id: StepId,
        outcome: StepOutcome,
        elapsed: Duration,
        detail: Option<&str>,
        now: Duration,
        out: &mut String,
    ) {
        if let Some(mut step) = self.steps.remove(&id) {
            let stamp = format::stamp(now.saturating_sub(step.started));
            let mut emit = |line: String| push_output(out, id, &stamp, &line);
            step.stdout.finish(&mut emit);
            step.stderr.finish(&mut emit);
        }
        let elapsed = format::elapsed(elapsed);
        let detail = detail.map(|detail| text::sanitise(detail.trim_end().as_bytes()));
        let (word, detail) = match (outcome, detail) {
            (StepOutcome::Failed, Some(detail)) => (format!("ERROR: {detail}"), None),
            (StepOutcome::Failed, None) => (format!("ERROR {elapsed}"), None),
            (StepOutcome::Done, detail) => (format!("DONE {elapsed}"), detail),
            (StepOutcome::Cached, detail) => ("CACHED".to_owned(), detail),
            (StepOutcome::Skipped, detail) => ("SKIPPED".to_owned(), detail),
            (StepOutcome::Canceled, detail) => ("CANCELED".to_owned(), detail),
        };
        for line in word.lines() {
            out.push_str(&format!("{id} {line}\n"));
        }
        if let Some(detail) = detail {
            out.truncate(out.trim_end().len());
            out.push_str(&format!(" ({})\n", text::one_line(&detail)));
        }
    }

    fn show_transfer(&mut self, now: Duration, out: &mut String) {
        if now.saturating_sub(self.last_transfer_line) < TRANSFER_PAUSE {
            return;
        }
        // In turns, so that a fast one doesn't hide the others.
        let Some((transfer, shown)) = self.transfers.values_mut().min_by_key(|(_, shown)| *shown)
        else {
            return;
        };
        *shown = now;
        self.last_transfer_line = now;
        push_transfer(out, transfer, &transfer.amount());
    }
}

fn push_output(out: &mut String, id: StepId, stamp: &str, line: &str) {
    let line = line.trim_end();
    let blank = if line.is_empty() { "" } else { " " };
    out.push_str(&format!("{id} {stamp}{blank}{line}\n"));
}

fn push_transfer(out: &mut String, transfer: &Transfer, state: &str) {
    if let Some(step) = transfer.step {
        out.push_str(&format!("{step} "));
    }
    out.push_str(&format!("{} {state}\n", transfer.label()));
}

impl View for Plain {
    fn handle(&mut self, event: Event, now: Duration, out: &mut String) {
        match event {
            Event::StepStarted { step, name } => {
                out.push_str(&format!("{step} {}\n", text::one_line(&name)));
                self.steps.insert(
                    step,
                    Step {
                        started: now,
                        ..Step::default()
                    },
                );
            }
            Event::StepOutput { step, stream, data } => {
                let Some(running) = self.steps.get_mut(&step) else {
                    return;
                };
                let buffer = match stream {
                    Stream::Stdout => &mut running.stdout,
                    Stream::Stderr => &mut running.stderr,
                };
                let stamp = format::stamp(now.saturating_sub(running.started));
                buffer.push(&data, |line| push_output(out, step, &stamp, &line));
            }
            Event::StepFinished {
                step,
                outcome,
                elapsed,
                detail,
            } => self.finish_step(step, outcome, elapsed, detail.as_deref(), now, out),
            Event::TransferStarted {
                id,
                step,
                name,
                verb,
                total,
            } => {
                let transfer = Transfer::new(step, verb, &name, total, now);
                self.transfers.insert(id, (transfer, now));
            }
            Event::TransferProgress { id, bytes } => {
                if let Some((transfer, _)) = self.transfers.get_mut(&id) {
                    transfer.progress(bytes, now);
                    self.show_transfer(now, out);
                }
            }
            Event::TransferFinished { id, outcome } => {
                if let Some((transfer, _)) = self.transfers.remove(&id) {
                    push_transfer(out, &transfer, &transfer.end(outcome, now));
                }
            }
            Event::Warning { message, hint } => {
                let warning = diagnostics::render_warning(&message, hint.as_deref(), self.colour);
                out.push_str(&warning);
            }
            Event::Info { message } => {
                out.push_str(text::sanitise(message.trim_end().as_bytes()).as_str());
                out.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{TransferOutcome, Verb};

    /// Returns what is printed for events at given milliseconds.
    fn plain(events: impl IntoIterator<Item = (u64, Event)>) -> String {
        let mut view = Plain::new(false);
        let mut out = String::new();
        for (at, event) in events {
            view.handle(event, Duration::from_millis(at), &mut out);
        }
        out
    }

    fn started(step: u32, name: &str) -> Event {
        Event::StepStarted {
            step: StepId(step),
            name: name.to_owned(),
        }
    }

    fn output(step: u32, data: &str) -> Event {
        Event::StepOutput {
            step: StepId(step),
            stream: Stream::Stdout,
            data: data.into(),
        }
    }

    fn finished(step: u32, outcome: StepOutcome, millis: u64, detail: Option<&str>) -> Event {
        Event::StepFinished {
            step: StepId(step),
            outcome,
            elapsed: Duration::from_millis(millis),
            detail: detail.map(str::to_owned),
        }
    }

    fn transfer(id: u64, name: &str) -> Event {
        Event::TransferStarted {
            id: TransferId(id),
            step: Some(StepId(1)),
            name: name.to_owned(),
            verb: Verb::Pull,
            total: Some(45_600_000),
        }
    }

    fn progress(id: u64, bytes: u64) -> Event {
        Event::TransferProgress {
            id: TransferId(id),
            bytes,
        }
    }

    #[test]
    fn steps_that_run_at_once_are_told_apart_by_number() {
        assert_eq!(
            plain([
                (0, started(1, "[internal] load .dockerignore")),
                (5, finished(1, StepOutcome::Done, 5, None)),
                (10, started(2, "[a 1/2] RUN make\n\tall")),
                (1010, started(3, "[b 1/2] RUN make test")),
                (1244, output(2, "cc a.c\ncc ")),
                (1500, output(3, "ok 1\n\nok 2\n")),
                (2010, output(2, "b.c\n")),
                (3010, finished(2, StepOutcome::Done, 3000, Some("12MB"))),
                (3010, finished(3, StepOutcome::Canceled, 2000, None)),
                (3020, started(4, "[c 1/1] RUN true")),
                (3020, finished(4, StepOutcome::Cached, 0, None)),
                (3020, finished(5, StepOutcome::Skipped, 0, None)),
            ]),
            "\
#1 [internal] load .dockerignore
#1 DONE 0.0s
#2 [a 1/2] RUN make all
#3 [b 1/2] RUN make test
#2 1.234 cc a.c
#3 0.490 ok 1
#3 0.490
#3 0.490 ok 2
#2 2.000 cc b.c
#2 DONE 3.0s (12MB)
#3 CANCELED
#4 [c 1/1] RUN true
#4 CACHED
#5 SKIPPED
"
        );
    }

    #[test]
    fn unfinished_lines_come_out_before_the_step_ends() {
        assert_eq!(
            plain([
                (0, started(1, "RUN sh")),
                (100, output(1, "Password: ")),
                (
                    200,
                    Event::StepOutput {
                        step: StepId(1),
                        stream: Stream::Stderr,
                        data: b"10%\r20%".to_vec(),
                    }
                ),
                (
                    300,
                    finished(
                        1,
                        StepOutcome::Failed,
                        300,
                        Some("exit code: 1\nsecond line")
                    )
                ),
                (400, output(1, "too late\n")),
            ]),
            "\
#1 RUN sh
#1 0.300 Password:
#1 0.300 20%
#1 ERROR: exit code: 1
#1 second line
"
        );
    }

    #[test]
    fn hostile_output_is_harmless() {
        assert_eq!(
            plain([
                (0, started(1, "RUN \x1b[2Jevil")),
                (
                    0,
                    output(1, "\x1b]0;title\x07\x1b[31mred\x1b[0m\n#2 DONE\n")
                ),
                (0, finished(1, StepOutcome::Done, 0, Some("\x1b[2J"))),
            ]),
            "#1 RUN evil\n#1 0.000 red\n#1 0.000 #2 DONE\n#1 DONE 0.0s ()\n"
        );
    }

    #[test]
    fn transfers_give_one_line_per_second_in_turns() {
        let mut events = vec![
            (0, transfer(1, "aaaaaaaaaaaa")),
            (0, transfer(2, "bbbbbbbbbbbb")),
        ];
        for tick in 1..=31 {
            events.push((tick * 100, progress(1, tick * 1_000_000)));
            events.push((tick * 100, progress(2, tick * 10_000)));
        }
        events.push((
            3200,
            Event::TransferFinished {
                id: TransferId(1),
                outcome: TransferOutcome::Done,
            },
        ));
        events.push((
            3300,
            Event::TransferFinished {
                id: TransferId(2),
                outcome: TransferOutcome::Failed,
            },
        ));
        events.push((3300, progress(2, 5)));
        assert_eq!(
            plain(events),
            "\
#1 pull aaaaaaaaaaaa 10MB / 45.6MB
#1 pull bbbbbbbbbbbb 190kB / 45.6MB
#1 pull aaaaaaaaaaaa 30MB / 45.6MB
#1 pull aaaaaaaaaaaa 45.6MB done 3.2s
#1 pull bbbbbbbbbbbb 310kB / 45.6MB FAILED
"
        );
    }

    #[test]
    fn transfer_without_a_step_has_no_number() {
        assert_eq!(
            plain([
                (
                    0,
                    Event::TransferStarted {
                        id: TransferId(1),
                        step: None,
                        name: "aaaaaaaaaaaa".to_owned(),
                        verb: Verb::Push,
                        total: None,
                    }
                ),
                (1500, progress(1, 1234)),
                (
                    1500,
                    Event::TransferFinished {
                        id: TransferId(1),
                        outcome: TransferOutcome::Exists,
                    }
                ),
            ]),
            "push aaaaaaaaaaaa 1.234kB\npush aaaaaaaaaaaa exists\n"
        );
    }

    #[test]
    fn warnings_and_notes_stand_between_the_lines() {
        assert_eq!(
            plain([
                (
                    0,
                    Event::Warning {
                        message: "no Landlock".to_owned(),
                        hint: Some("use a newer kernel".to_owned()),
                    }
                ),
                (
                    0,
                    Event::Info {
                        message: "using fuse-overlayfs\n".to_owned(),
                    }
                ),
            ]),
            "warning: no Landlock\nhint: use a newer kernel\nusing fuse-overlayfs\n"
        );
    }
}
