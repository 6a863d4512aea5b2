//! Ctrl-C and SIGTERM: end the steps, put the terminal back, take away what is half done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

type Hook = Box<dyn FnOnce() + Send>;

static HAPPENED: AtomicBool = AtomicBool::new(false);
static WATCHED: AtomicBool = AtomicBool::new(false);
static HOOKS: Mutex<Vec<Hook>> = Mutex::new(Vec::new());
static FURTHER: Mutex<Vec<Signal>> = Mutex::new(Vec::new());
static FORWARDER: Mutex<Option<Forwarder>> = Mutex::new(None);

/// Takes a signal in place of this process; returns whether it has.
type Forwarder = Box<dyn FnMut(Signal) -> bool + Send>;

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
    let further = FURTHER.lock().unwrap_or_else(PoisonError::into_inner);
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .chain(further.iter().copied())
        .filter(|signal| ignored & (1 << (*signal as u32 - 1)) == 0)
        .collect()
}

/// Holds the signals back, from this thread and all that it starts, until [`watch`]. Commands
/// that have nothing to take away leave the signals to the kernel.
pub(super) fn block() {
    // It can't fail with a valid set.
    let _ = signals().thread_block();
}

/// Has further signals wait for [`forward`]: to be called before [`block`].
pub(super) fn also(signals: &[Signal]) {
    let mut further = FURTHER.lock().unwrap_or_else(PoisonError::into_inner);
    further.extend_from_slice(signals);
}

/// Hands signals that come to something else: what returns false ends this process all the same.
pub(super) fn forward(to: impl FnMut(Signal) -> bool + Send + 'static) {
    *FORWARDER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(to));
}

/// Tells whether a signal has been taken care of.
fn is_forwarded(signal: Signal) -> bool {
    let mut forwarder = FORWARDER.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *forwarder {
        Some(forwarder) => forwarder(signal),
        // Of no use to anybody yet.
        None => signal == Signal::SIGWINCH,
    }
}

/// Where a signal has come, waits for the end that its thread is preparing: a command that
/// fails because of it must not end first, with another exit code.
pub(super) fn yield_to_signal() {
    if !WATCHED.load(Ordering::SeqCst) {
        // One that was held back for a thread that never came ends the process here.
        let _ = signals().thread_unblock();
    }
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

/// Tells whether [`watch`] was called.
pub(super) fn is_watched() -> bool {
    WATCHED.load(Ordering::SeqCst)
}

/// Starts the thread that waits for signals. To be called once the namespace is entered.
pub(super) fn watch() {
    WATCHED.store(true, Ordering::SeqCst);
    std::thread::spawn(|| {
        let signals = signals();
        let signal = loop {
            match signals.wait() {
                Ok(signal) if is_forwarded(signal) => {}
                Ok(signal) => break signal,
                Err(_) => return,
            }
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
