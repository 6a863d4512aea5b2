//! Ctrl-C and SIGTERM: end the steps, put the terminal back, take away what is half done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

type Hook = Box<dyn FnOnce() + Send>;

static HAPPENED: AtomicBool = AtomicBool::new(false);
static HOOKS: Mutex<Vec<Hook>> = Mutex::new(Vec::new());

/// How long the end may take. What is not taken away by then is left to the next kiln.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The signals that end a command, but for those that the caller wants ignored, as nohup(1)
/// does.
fn signals() -> SigSet {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .filter(|signal| ignored & (1 << (*signal as u32 - 1)) == 0)
        .collect()
}

/// Holds the signals back, from this thread and all that it starts, until [`watch`]. Commands
/// that have nothing to take away leave the signals to the kernel.
pub(super) fn block() {
    // It can't fail with a valid set.
    let _ = signals().thread_block();
}

/// Where a signal has come, waits for the end that its thread is preparing: a command that
/// fails because of it must not end first, with another exit code.
pub(super) fn yield_to_signal() {
    while happened() {
        std::thread::park();
    }
}

/// Adds something to be done when a signal comes; the last one added is done first.
pub(super) fn on_interrupt(hook: impl FnOnce() + Send + 'static) {
    HOOKS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Box::new(hook));
}

/// Tells whether a signal has come: what fails then, fails because of it.
fn happened() -> bool {
    HAPPENED.load(Ordering::SeqCst)
}

/// Starts the thread that waits for signals. To be called once the namespace is entered.
pub(super) fn watch() {
    std::thread::spawn(|| {
        let signals = signals();
        let Ok(signal) = signals.wait() else {
            return;
        };
        HAPPENED.store(true, Ordering::SeqCst);
        let code = 128 + signal as i32;
        std::thread::spawn(move || {
            std::thread::sleep(PATIENCE);
            kiln_runtime::sys::process::exit_now(code);
        });
        let mut hooks = std::mem::take(&mut *HOOKS.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(hook) = hooks.pop() {
            hook();
        }
        crate::ui::say(match signal {
            Signal::SIGINT => "interrupted\n",
            _ => "terminated\n",
        });
        kiln_runtime::sys::process::exit_now(code);
    });
}
