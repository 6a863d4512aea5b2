//! What a person sees: the progress of a build ([`start`]), errors ([`diagnostics`],
//! [`failure`]), and numbers and tables ([`mod@format`]). Talk goes to standard error;
//! standard output is for data, and commands write it themselves.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::event::{Event, Reporter};

pub mod diagnostics;
pub mod failure;
pub mod format;
mod plain;
pub mod template;
mod terminal;
pub mod text;
mod transfer;

/// Time between two pictures on a terminal.
const FRAME: Duration = Duration::from_millis(100);

/// How progress is shown: the values of `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Live on a terminal, else plain.
    #[default]
    Auto,
    /// One line for everything that happens.
    Plain,
    /// Live lines, whatever standard error is.
    Tty,
    /// Warnings and errors only.
    Quiet,
}

/// What decides how things are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Surroundings {
    /// Standard error is a terminal that can move its cursor.
    live: bool,
    /// `CI` is set: what looks like a terminal may be a log.
    ci: bool,
    /// `NO_COLOR` is set (<https://no-color.org>).
    no_colour: bool,
}

impl Surroundings {
    fn probe() -> Surroundings {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Surroundings {
            live: std::io::stderr().is_terminal() && set("TERM").is_some_and(|t| t != "dumb"),
            ci: set("CI").is_some(),
            no_colour: set("NO_COLOR").is_some(),
        }
    }

    fn resolve(self, mode: Mode) -> Mode {
        match mode {
            Mode::Auto if self.live && !self.ci => Mode::Tty,
            Mode::Auto => Mode::Plain,
            mode => mode,
        }
    }

    fn colour(self) -> bool {
        self.live && !self.no_colour
    }
}

/// Returns whether what is written to standard error may be coloured.
pub fn colour() -> bool {
    Surroundings::probe().colour()
}

/// Writes `text` to standard error. That nobody can read it is no reason to fail.
pub fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// Starts to show progress on standard error, until the value is finished or dropped.
///
/// [`Mode::Tty`] starts a thread: a process that is going to enter a user namespace does
/// so before.
pub fn start(mode: Mode) -> Progress {
    let surroundings = Surroundings::probe();
    let colour = surroundings.colour();
    match surroundings.resolve(mode) {
        Mode::Quiet => Progress::direct(Quiet { colour }),
        Mode::Tty => Progress::live(colour)
            // No thread to be had: plain lines need none.
            .unwrap_or_else(|_| Progress::direct(plain::Plain::new(colour))),
        Mode::Plain | Mode::Auto => Progress::direct(plain::Plain::new(colour)),
    }
}

/// Progress that is being shown. Its end gives the terminal back.
#[must_use = "progress ends when this is dropped"]
pub struct Progress {
    reporter: Arc<dyn Reporter>,
    mute: Arc<dyn Mute>,
    ticker: Option<Ticker>,
}

/// What can be told to show nothing more.
trait Mute: Send + Sync {
    /// Gives the terminal back; what is reported from now on is dropped.
    fn mute(&self);
}

impl Progress {
    fn direct(view: impl View + 'static) -> Progress {
        let direct = Arc::new(Direct {
            view: Mutex::new(Some(view)),
            epoch: Instant::now(),
        });
        Progress {
            reporter: direct.clone(),
            mute: direct,
            ticker: None,
        }
    }

    fn live(colour: bool) -> std::io::Result<Progress> {
        let live = Arc::new(Live {
            screen: Mutex::new((terminal::Screen::new(colour), State::Open)),
            epoch: Instant::now(),
        });
        Ok(Progress {
            reporter: live.clone(),
            mute: live.clone(),
            ticker: Some(Ticker::start(live)?),
        })
    }

    /// Returns where to report to.
    pub fn reporter(&self) -> Arc<dyn Reporter> {
        Arc::clone(&self.reporter)
    }

    /// Returns what gives the terminal back from another thread, while this one is lost: for
    /// the end by a signal. What fails because of the signal is not shown.
    pub fn restorer(&self) -> impl FnOnce() + Send + 'static {
        let mute = Arc::clone(&self.mute);
        move || mute.mute()
    }

    /// Shows what is still to be shown, and gives the terminal back. A command writes to
    /// standard output, or its error to standard error, only after this.
    pub fn finish(self) {}
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(ticker) = self.ticker.take() {
            ticker.stop();
        }
    }
}

/// Turns events into text at once.
trait View: Send {
    /// Adds to `out` what `event` gives; `now` is counted from the start.
    fn handle(&mut self, event: Event, now: Duration, out: &mut String);
}

/// Shows warnings. Errors are the command's to show, once it knows its own.
struct Quiet {
    colour: bool,
}

impl View for Quiet {
    fn handle(&mut self, event: Event, _now: Duration, out: &mut String) {
        if let Event::Warning { message, hint } = event {
            let warning = diagnostics::render_warning(&message, hint.as_deref(), self.colour);
            out.push_str(&warning);
        }
    }
}

/// Writes while it is reported to.
struct Direct<V> {
    /// Nothing once it is muted.
    view: Mutex<Option<V>>,
    epoch: Instant,
}

impl<V: View> Mute for Direct<V> {
    fn mute(&self) {
        *lock(&self.view) = None;
    }
}

impl<V: View> Reporter for Direct<V> {
    fn report(&self, event: Event) {
        let mut out = String::new();
        // The lock is held while writing, so that lines come in the order of the events.
        let mut view = lock(&self.view);
        if let Some(view) = view.as_mut() {
            view.handle(event, self.epoch.elapsed(), &mut out);
        }
        if !out.is_empty() {
            say(&out);
        }
    }
}

/// Takes events; a [`Ticker`] draws.
struct Live {
    screen: Mutex<(terminal::Screen, State)>,
    epoch: Instant,
}

/// What the terminal is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Pictures are drawn.
    Open,
    /// It was given back; a late warning is still worth a line.
    Closed,
    /// Nothing more is written.
    Muted,
}

impl Live {
    fn draw(&self) {
        let mut screen = lock(&self.screen);
        let frame = screen.0.frame(self.epoch.elapsed(), size());
        // Said under the lock: a picture drawn after the end would hide the cursor again.
        if screen.1 == State::Open && !frame.is_empty() {
            say(&frame);
        }
    }

    fn close(&self) {
        self.end(State::Closed);
    }

    fn end(&self, state: State) {
        let mut screen = lock(&self.screen);
        if screen.1 != State::Muted {
            screen.1 = state;
            say(&screen.0.close(size()));
        }
    }
}

impl Mute for Live {
    fn mute(&self) {
        self.end(State::Muted);
    }
}

impl Reporter for Live {
    fn report(&self, event: Event) {
        let mut screen = lock(&self.screen);
        screen.0.handle(event, self.epoch.elapsed());
        if screen.1 == State::Closed {
            say(&screen.0.close(size()));
        }
    }
}

/// Draws ten times a second, however many events there are.
struct Ticker {
    live: Arc<Live>,
    /// The thread ends when this is dropped.
    running: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Ticker {
    fn start(live: Arc<Live>) -> std::io::Result<Ticker> {
        let (running, stopped) = mpsc::channel::<()>();
        let drawn = Arc::clone(&live);
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(FRAME) == Err(mpsc::RecvTimeoutError::Timeout) {
                    drawn.draw();
                }
            })?;
        Ok(Ticker {
            live,
            running,
            thread,
        })
    }

    fn stop(self) {
        drop(self.running);
        // A thread that panicked has drawn its last picture.
        let _ = self.thread.join();
        self.live.close();
    }
}

fn size() -> terminal::Size {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    let size = size.filter(|(columns, rows)| columns.0 > 0 && rows.0 > 0);
    let (columns, rows) = size.map_or((80, 24), |(columns, rows)| (columns.0, rows.0));
    terminal::Size {
        columns: columns.into(),
        rows: rows.into(),
    }
}

/// A panic elsewhere must not take the user's terminal with it: what is behind the lock is
/// only shown.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    const TERMINAL: Surroundings = Surroundings {
        live: true,
        ci: false,
        no_colour: false,
    };

    #[test]
    fn auto_is_live_only_on_a_terminal_outside_ci() {
        let ci = Surroundings {
            ci: true,
            ..TERMINAL
        };
        let pipe = Surroundings {
            live: false,
            ..TERMINAL
        };
        assert_eq!(TERMINAL.resolve(Mode::Auto), Mode::Tty);
        assert_eq!(ci.resolve(Mode::Auto), Mode::Plain);
        assert_eq!(pipe.resolve(Mode::Auto), Mode::Plain);
        assert_eq!(pipe.resolve(Mode::Tty), Mode::Tty);
        assert_eq!(TERMINAL.resolve(Mode::Quiet), Mode::Quiet);
    }

    #[test]
    fn no_color_turns_colour_off_and_leaves_the_mode() {
        let plain = Surroundings {
            no_colour: true,
            ..TERMINAL
        };
        assert!(TERMINAL.colour());
        assert!(!plain.colour());
        assert_eq!(plain.resolve(Mode::Auto), Mode::Tty);
    }

    #[test]
    fn modes_are_named_as_in_docker() {
        for (name, mode) in [
            ("auto", Mode::Auto),
            ("plain", Mode::Plain),
            ("quiet", Mode::Quiet),
            ("tty", Mode::Tty),
        ] {
            assert_eq!(Mode::from_str(name, false), Ok(mode));
        }
        assert!(Mode::from_str("fancy", false).is_err());
    }

    #[test]
    fn quiet_shows_warnings_only() {
        let mut out = String::new();
        let mut quiet = Quiet { colour: false };
        quiet.handle(
            Event::Info {
                message: "a note".to_owned(),
            },
            FRAME,
            &mut out,
        );
        assert_eq!(out, "");
        quiet.handle(
            Event::Warning {
                message: "careful".to_owned(),
                hint: None,
            },
            FRAME,
            &mut out,
        );
        assert_eq!(out, "warning: careful\n");
    }
}
