//! The frames are shown to a terminal emulator, and its screen is compared.

use std::num::NonZeroU16;

use super::*;
use crate::event::{TransferOutcome, Verb};

/// A terminal with a screen on it.
struct Terminal {
    screen: Screen,
    emulator: vt100::Parser,
    size: Size,
}

impl Terminal {
    fn new(columns: u16, rows: u16) -> Terminal {
        let cells = |n| NonZeroU16::new(n).expect("a terminal has cells");
        let mut terminal = Terminal {
            screen: Screen::new(false),
            emulator: vt100::Parser::new(cells(rows), cells(columns), 100),
            size: Size {
                columns: columns.into(),
                rows: rows.into(),
            },
        };
        terminal.write("$ kiln build .\n");
        terminal
    }

    fn write(&mut self, text: &str) {
        // As the line discipline does (ONLCR).
        self.emulator.process(text.replace('\n', "\r\n").as_bytes());
    }

    fn event(&mut self, millis: u64, event: Event) {
        self.screen.handle(event, Duration::from_millis(millis));
    }

    fn draw(&mut self, millis: u64) -> String {
        let frame = self.screen.frame(Duration::from_millis(millis), self.size);
        self.write(&frame);
        self.text()
    }

    fn close(&mut self) -> String {
        let closing = self.screen.close(self.size);
        self.write(&closing);
        self.text()
    }

    fn text(&self) -> String {
        let columns = self.emulator.screen().size().1;
        let rows = self.emulator.screen().rows(0, columns.get());
        let text: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
        text.join("\n").trim_end().to_owned() + "\n"
    }
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
        stream: Stream::Stderr,
        data: data.into(),
    }
}

fn finished(step: u32, outcome: StepOutcome, millis: u64) -> Event {
    Event::StepFinished {
        step: StepId(step),
        outcome,
        elapsed: Duration::from_millis(millis),
        detail: None,
    }
}

fn transfer(id: u64, step: Option<u32>, verb: Verb, total: Option<u64>) -> Event {
    Event::TransferStarted {
        id: TransferId(id),
        step: step.map(StepId),
        name: "4a5b6c7d8e9f".to_owned(),
        verb,
        total,
    }
}

#[test]
fn finished_steps_scroll_above_and_running_ones_stay_below() {
    let mut terminal = Terminal::new(50, 12);
    terminal.event(0, started(1, "[build 1/3] FROM debian:12"));
    terminal.event(0, started(2, "[internal] load build context"));
    assert_eq!(
        terminal.draw(1200),
        "\
$ kiln build .
-> [build 1/3] FROM debian:12                1.2s
-> [internal] load build context             1.2s
"
    );
    terminal.event(1300, finished(2, StepOutcome::Done, 1300));
    terminal.event(1400, finished(1, StepOutcome::Cached, 0));
    terminal.event(
        1400,
        started(
            3,
            "[build 2/3] RUN apt-get update && apt-get install -y gcc",
        ),
    );
    terminal.event(1500, output(3, "Get:1\nGet:2\n\nGet:3\n"));
    terminal.event(1500, output(3, "Get:4\nGet:5\n10%\r20%"));
    assert_eq!(
        terminal.draw(13_700),
        "\
$ kiln build .
=> [internal] load build context             1.3s
=> CACHED [build 1/3] FROM debian:12
-> [build 2/3] RUN apt-get update && apt-g… 12.3s
   | Get:2
   | Get:3
   | Get:4
   | Get:5
   | 20%
"
    );
    assert!(terminal.emulator.screen().hide_cursor());
    terminal.event(14_000, finished(3, StepOutcome::Failed, 12_600));
    assert_eq!(
        terminal.close(),
        "\
$ kiln build .
=> [internal] load build context             1.3s
=> CACHED [build 1/3] FROM debian:12
=> ERROR [build 2/3] RUN apt-get update &&… 12.6s
"
    );
    assert!(!terminal.emulator.screen().hide_cursor());
    assert_eq!(terminal.emulator.screen().cursor_position(), (4, 0));
}

#[test]
fn downloads_have_bars_with_total_and_rate() {
    let mut terminal = Terminal::new(80, 10);
    terminal.event(0, started(1, "FROM debian:12"));
    terminal.event(0, transfer(1, Some(1), Verb::Pull, Some(40_000_000)));
    terminal.event(0, transfer(2, Some(1), Verb::Extract, None));
    terminal.event(0, transfer(3, None, Verb::Push, Some(10)));
    for (id, bytes) in [(1, 10_000_000), (2, 1234), (3, 10)] {
        let id = TransferId(id);
        terminal.event(2000, Event::TransferProgress { id, bytes });
    }
    assert_eq!(
        terminal.draw(2000),
        "\
$ kiln build .
-> FROM debian:12                                                          2.0s
   pull 4a5b6c7d8e9f    [======>                 ]       10MB / 40MB      5MB/s
   extract 4a5b6c7d8e9f                                      1.234kB     617B/s
-> push 4a5b6c7d8e9f    [========================]         10B / 10B       5B/s
"
    );
    for id in 1..=3 {
        let id = TransferId(id);
        let outcome = TransferOutcome::Done;
        terminal.event(2100, Event::TransferFinished { id, outcome });
    }
    assert_eq!(
        terminal.draw(2100),
        "\
$ kiln build .
=> push 4a5b6c7d8e9f                                              10B done 2.1s
-> FROM debian:12                                                          2.1s
"
    );
}

#[test]
fn narrow_terminal_cuts_lines_and_leaves_out_bars() {
    let mut terminal = Terminal::new(30, 10);
    terminal.event(0, started(1, "[build 1/3] FROM debian:12"));
    terminal.event(0, output(1, "a\ttab and a long line of words\n"));
    terminal.event(0, transfer(1, Some(1), Verb::Pull, Some(40_000_000)));
    assert_eq!(
        terminal.draw(1000),
        "\
$ kiln build .
-> [build 1/3] FROM deb… 1.0s
   | a       tab and a long …
   pull 4a5b6c7d8e… 0B / 40MB
"
    );
}

#[test]
fn more_steps_than_rows_stay_on_the_screen() {
    let mut terminal = Terminal::new(40, 5);
    for step in 1..=3 {
        terminal.event(0, started(step, "RUN make"));
        terminal.event(0, output(step, "one\ntwo\n"));
    }
    // Without their output, all three fit.
    let three = "\
$ kiln build .
-> RUN make                        1.0s
-> RUN make                        1.0s
-> RUN make                        1.0s
";
    assert_eq!(terminal.draw(1000), three);
    for step in 4..=6 {
        terminal.event(0, started(step, "RUN make"));
    }
    let six = "\
-> RUN make                        1.1s
-> RUN make                        1.1s
-> RUN make                        1.1s
   … and 3 more lines
";
    assert_eq!(terminal.draw(1100), six);
    // Drawing again must not scroll.
    assert_eq!(terminal.draw(1101), six);
    assert_eq!(terminal.draw(1200), six.replace("1.1s", "1.2s"));
}

#[test]
fn hostile_output_can_neither_move_the_cursor_nor_wrap() {
    let mut terminal = Terminal::new(30, 8);
    terminal.event(0, started(1, "RUN \x1b[2J\x1b[Hevil"));
    terminal.event(0, output(1, "\x1b[5A\x1b[2Kup\n\x1b]0;title\x07"));
    terminal.event(0, output(1, "\u{9b}3Jclear\n\x08\x08\x08bs\n"));
    terminal.event(0, output(1, &"漢".repeat(40)));
    let screen = "\
$ kiln build .
-> RUN evil              1.0s
   | up
   | clear
   | bs
   | 漢漢漢漢漢漢漢漢漢漢漢…
";
    assert_eq!(terminal.draw(1000), screen);
    assert_eq!(terminal.draw(1100), screen.replace("1.0s", "1.1s"));
}

#[test]
fn frame_without_change_writes_nothing() {
    let mut terminal = Terminal::new(40, 8);
    assert_eq!(terminal.screen.frame(Duration::ZERO, terminal.size), "");
    terminal.event(0, started(1, "RUN make"));
    terminal.draw(1000);
    let again = terminal
        .screen
        .frame(Duration::from_millis(1001), terminal.size);
    assert_eq!(again, "");
}

#[test]
fn close_without_a_frame_leaves_the_terminal_alone() {
    let mut screen = Screen::new(false);
    let size = Size {
        columns: 80,
        rows: 24,
    };
    assert_eq!(screen.close(size), "");
    // A step may end before the first frame.
    screen.handle(finished(7, StepOutcome::Done, 5), Duration::ZERO);
    let text = screen.close(size);
    assert!(text.starts_with("\x1b[J=> #7 "), "{text:?}");
    assert!(!text.contains(SHOW_CURSOR));
}

#[test]
fn wrapped_lines_of_a_terminal_made_narrower_are_counted() {
    let mut screen = Screen::new(false);
    let size = |columns| Size { columns, rows: 24 };
    screen.handle(started(1, "RUN make"), Duration::ZERO);
    screen.handle(output(1, "ok\n"), Duration::ZERO);
    screen.frame(Duration::from_secs(1), size(81));
    // 80 columns have become two rows; the line of output is still one.
    let frame = screen.frame(Duration::from_secs(2), size(40));
    assert!(frame.starts_with("\x1b[3A\r"), "{frame:?}");
    let frame = screen.frame(Duration::from_secs(3), size(120));
    assert!(frame.starts_with("\x1b[2A\r"), "{frame:?}");
}

#[test]
fn warning_wraps_above_and_the_live_lines_follow() {
    let mut terminal = Terminal::new(30, 8);
    terminal.event(0, started(1, "RUN make"));
    terminal.draw(1000);
    terminal.event(
        1100,
        Event::Warning {
            message: "the kernel has no Landlock here".to_owned(),
            hint: Some("use a newer one".to_owned()),
        },
    );
    assert_eq!(
        terminal.draw(1100),
        "\
$ kiln build .
warning: the kernel has no Lan
dlock here
hint: use a newer one
-> RUN make              1.1s
"
    );
}

#[test]
fn colour_changes_no_character() {
    let text = |colour| {
        let mut terminal = Terminal::new(60, 12);
        terminal.screen = Screen::new(colour);
        terminal.event(0, started(1, "RUN make"));
        terminal.event(0, output(1, "hello\n"));
        terminal.event(0, finished(2, StepOutcome::Cached, 0));
        terminal.event(0, finished(3, StepOutcome::Failed, 10));
        terminal.draw(500)
    };
    assert_eq!(text(true), text(false));
    let mut screen = Screen::new(false);
    screen.handle(started(1, "RUN make"), Duration::ZERO);
    screen.handle(finished(2, StepOutcome::Failed, 0), Duration::ZERO);
    let size = Size {
        columns: 60,
        rows: 12,
    };
    let frame = screen.frame(Duration::ZERO, size);
    assert!(!frame.split("\x1b[").any(|part| part.contains('m') && {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        end.is_some_and(|end| part[end..].starts_with('m'))
    }));
}
