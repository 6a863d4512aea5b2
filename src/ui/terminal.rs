//! Progress on a terminal: what has ended scrolls away above, what runs is redrawn in
//! place below.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::diagnostics::{self, Look};
use super::transfer::Transfer;
use super::{format, text};
use crate::event::{Event, StepId, StepOutcome, Stream, TransferId};

/// Lines of output shown of a running step.
const TAIL: usize = 5;

/// Columns between the brackets of a bar.
const BAR: usize = 24;

// Control sequences (ECMA-48 section 8.3, and DEC's private modes).
const ERASE_LINE: &str = "\x1b[K";
const ERASE_BELOW: &str = "\x1b[J";
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const WRAP_OFF: &str = "\x1b[?7l";
const WRAP_ON: &str = "\x1b[?7h";

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

#[derive(Debug, Default)]
struct Step {
    name: String,
    started: Duration,
    tail: VecDeque<String>,
    stdout: text::LineBuffer,
    stderr: text::LineBuffer,
}

impl Step {
    fn output(&mut self, stream: Stream, data: &[u8]) {
        let buffer = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        buffer.push(data, |line| {
            if !line.trim().is_empty() {
                self.tail.truncate(TAIL - 1);
                self.tail.push_front(line);
            }
        });
    }

    /// Returns the last `count` lines, the unfinished ones included.
    fn last_lines(&self, count: usize) -> Vec<String> {
        let partial = [self.stdout.partial(), self.stderr.partial()];
        let partial = partial.into_iter().filter(|line| !line.trim().is_empty());
        let mut lines: Vec<String> = self.tail.iter().rev().cloned().chain(partial).collect();
        lines.drain(..lines.len().saturating_sub(count));
        lines
    }
}

/// A line with something at its right end.
#[derive(Debug)]
struct Row {
    look: Option<Look>,
    left: String,
    right: String,
}

impl Row {
    fn new(look: Option<Look>, left: String, right: String) -> Row {
        Row { look, left, right }
    }

    /// Returns the row in at most `columns`, and how many it takes.
    fn lay_out(&self, columns: usize, colour: bool) -> (String, usize) {
        let right_width = text::width(&self.right);
        // On a very narrow terminal the name counts more than the time.
        let (room, right) = match columns.checked_sub(right_width + 1) {
            Some(room) if room >= 10 && right_width > 0 => (room, &*self.right),
            _ => (columns, ""),
        };
        let left = text::truncate(&self.left, room);
        let left_width = text::width(&left);
        let painted = match self.look {
            Some(look) => look.paint(&left, colour),
            None => left.into_owned(),
        };
        if right.is_empty() {
            return (painted, left_width);
        }
        let blanks = columns - right_width - left_width;
        (format!("{painted}{:blanks$}{right}", ""), columns)
    }
}

/// Something that has ended.
#[derive(Debug)]
enum Above {
    Row(Row),
    Text(String),
}

/// What a terminal shows, as a function of the events, the time and the size.
#[derive(Debug, Default)]
pub(super) struct Screen {
    colour: bool,
    steps: BTreeMap<StepId, Step>,
    transfers: BTreeMap<TransferId, Transfer>,
    above: Vec<Above>,
    /// The widths of the live lines that are on the terminal now, and their text.
    drawn: Vec<usize>,
    drawn_text: String,
    cursor_hidden: bool,
}

impl Screen {
    pub(super) fn new(colour: bool) -> Screen {
        Screen {
            colour,
            ..Screen::default()
        }
    }

    pub(super) fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::StepStarted { step, name } => {
                let running = Step {
                    name: text::one_line(&name),
                    started: now,
                    ..Step::default()
                };
                self.steps.insert(step, running);
            }
            Event::StepOutput { step, stream, data } => {
                if let Some(step) = self.steps.get_mut(&step) {
                    step.output(stream, &data);
                }
            }
            Event::StepFinished {
                step,
                outcome,
                elapsed,
                detail,
            } => self.finish_step(step, outcome, elapsed, detail.as_deref()),
            Event::TransferStarted {
                id,
                step,
                name,
                verb,
                total,
            } => {
                let transfer = Transfer::new(step, verb, &name, total, now);
                self.transfers.insert(id, transfer);
            }
            Event::TransferProgress { id, bytes } => {
                if let Some(transfer) = self.transfers.get_mut(&id) {
                    transfer.progress(bytes, now);
                }
            }
            Event::TransferFinished { id, outcome } => {
                // What belongs to a step is summed up by the line of the step.
                if let Some(transfer) = self.transfers.remove(&id)
                    && transfer.step.is_none()
                {
                    let left = format!("=> {}", transfer.label());
                    let row = Row::new(None, left, transfer.end(outcome, now));
                    self.above.push(Above::Row(row));
                }
            }
            Event::Warning { message, hint } => {
                let text = diagnostics::render_warning(&message, hint.as_deref(), self.colour);
                self.above.push(Above::Text(text));
            }
            Event::Info { message } => {
                let text = text::sanitise(message.trim_end().as_bytes()) + "\n";
                self.above.push(Above::Text(text));
            }
        }
    }

    fn finish_step(
        &mut self,
        id: StepId,
        outcome: StepOutcome,
        elapsed: Duration,
        detail: Option<&str>,
    ) {
        let name = match self.steps.remove(&id) {
            Some(step) => step.name,
            None => id.to_string(),
        };
        self.transfers
            .retain(|_, transfer| transfer.step != Some(id));
        let (word, look) = match outcome {
            StepOutcome::Done => ("", None),
            StepOutcome::Cached => ("CACHED ", Some(Look::Good)),
            StepOutcome::Failed => ("ERROR ", Some(Look::Error)),
            StepOutcome::Skipped => ("SKIPPED ", Some(Look::Dim)),
            StepOutcome::Canceled => ("CANCELED ", Some(Look::Warning)),
        };
        let detail = match detail {
            Some(detail) => format!(" ({})", text::one_line(detail)),
            None => String::new(),
        };
        let time = match outcome {
            StepOutcome::Cached | StepOutcome::Skipped => String::new(),
            _ => format::elapsed(elapsed),
        };
        let row = Row::new(look, format!("=> {word}{name}{detail}"), time);
        self.above.push(Above::Row(row));
    }

    /// Returns what to write to the terminal to bring it up to date; empty where it is.
    pub(super) fn frame(&mut self, now: Duration, size: Size) -> String {
        let lines = self.live_lines(now, size);
        let text: String = lines
            .iter()
            .map(|(line, _)| format!("{line}{ERASE_LINE}\n"))
            .collect();
        if self.above.is_empty() && text == self.drawn_text {
            return String::new();
        }
        let mut out = String::new();
        if !self.cursor_hidden {
            out.push_str(HIDE_CURSOR);
            self.cursor_hidden = true;
        }
        self.push_above(&mut out, size);
        // Terminals don't agree on the width of every character: a line that is wider than
        // computed is cut and not wrapped, so that the count of lines stays right.
        out.push_str(WRAP_OFF);
        out.push_str(&text);
        out.push_str(WRAP_ON);
        out.push_str(ERASE_BELOW);
        self.drawn = lines.into_iter().map(|(_, width)| width).collect();
        self.drawn_text = text;
        out
    }

    /// Returns what to write to leave the terminal as it was found, with everything that
    /// has ended on it.
    pub(super) fn close(&mut self, size: Size) -> String {
        let mut out = String::new();
        if !self.drawn.is_empty() || !self.above.is_empty() {
            self.push_above(&mut out, size);
            out.push_str(ERASE_BELOW);
        }
        self.drawn.clear();
        self.drawn_text.clear();
        if std::mem::take(&mut self.cursor_hidden) {
            out.push_str(SHOW_CURSOR);
        }
        out
    }

    /// Goes up to the first live line, and writes over it what has ended.
    fn push_above(&mut self, out: &mut String, size: Size) {
        // A terminal that has become narrower has wrapped the lines that were wider.
        let columns = size.columns.max(1);
        let rows: usize = self.drawn.iter().map(|w| w.div_ceil(columns).max(1)).sum();
        // The cursor stops at the top of the screen by itself.
        if rows > 0 {
            out.push_str(&format!("\x1b[{rows}A\r"));
        }
        if !self.above.is_empty() {
            out.push_str(ERASE_BELOW);
        }
        for above in self.above.drain(..) {
            match above {
                Above::Row(row) => {
                    let (line, _) = row.lay_out(columns.saturating_sub(1), self.colour);
                    out.push_str(line.trim_end());
                    out.push('\n');
                }
                Above::Text(text) => out.push_str(&text),
            }
        }
    }

    /// Returns the lines of all that runs, each with its width. There are fewer than the
    /// terminal has rows, since no cursor reaches what has scrolled away.
    fn live_lines(&self, now: Duration, size: Size) -> Vec<(String, usize)> {
        let columns = size.columns.saturating_sub(1);
        let room = size.rows.saturating_sub(1).max(1);
        let mut rows = self.live_rows(now, columns, TAIL);
        for tail in (0..TAIL).rev() {
            if rows.len() <= room {
                break;
            }
            rows = self.live_rows(now, columns, tail);
        }
        if rows.len() > room {
            let hidden = rows.len() - room + 1;
            rows.truncate(room - 1);
            let more = format!("   … and {hidden} more lines");
            rows.push(Row::new(Some(Look::Dim), more, String::new()));
        }
        let laid_out = rows.iter().map(|row| row.lay_out(columns, self.colour));
        laid_out.collect()
    }

    fn live_rows(&self, now: Duration, columns: usize, tail: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        for (id, step) in &self.steps {
            let time = format::elapsed(now.saturating_sub(step.started));
            let name = format!("-> {}", step.name);
            rows.push(Row::new(Some(Look::Bold), name, time));
            for line in step.last_lines(tail) {
                let line = format!("   | {}", text::expand_tabs(line.trim_end()));
                rows.push(Row::new(Some(Look::Dim), line, String::new()));
            }
            rows.extend(self.transfer_rows(Some(*id), now, columns));
        }
        // A transfer whose step isn't known is shown as if it had none.
        let alone = |step: Option<StepId>| step.is_none_or(|id| !self.steps.contains_key(&id));
        for transfer in self.transfers.values().filter(|t| alone(t.step)) {
            rows.push(transfer_row("-> ", transfer, now, columns));
        }
        rows
    }

    fn transfer_rows(&self, step: Option<StepId>, now: Duration, columns: usize) -> Vec<Row> {
        let transfers = self.transfers.values().filter(|t| t.step == step);
        let rows = transfers.map(|transfer| transfer_row("   ", transfer, now, columns));
        rows.collect()
    }
}

fn transfer_row(mark: &str, transfer: &Transfer, now: Duration, columns: usize) -> Row {
    let label = transfer.label();
    let mut left = format!("{mark}{label:<20}");
    let mut right = transfer.amount();
    let rate = transfer.rate(now);
    if rate > 0 {
        right.push_str(&format!(" {:>8}/s", format::size(rate)));
    }
    if let Some(part) = transfer.part() {
        let bar = bar(part);
        let taken = text::width(&left) + text::width(&bar) + text::width(&right) + 2;
        if taken <= columns {
            left.push(' ');
            left.push_str(&bar);
        }
    }
    Row::new(None, left.trim_end().to_owned(), right)
}

/// Returns a bar of which `part` is full.
fn bar(part: f64) -> String {
    let full = ((part * BAR as f64) as usize).min(BAR);
    let mut inner = "=".repeat(full);
    if full < BAR {
        inner.push('>');
    }
    format!("[{inner:<BAR$}]")
}

#[cfg(test)]
mod tests;
