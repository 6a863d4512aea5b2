//! Ctrl-C and SIGTERM: end the steps, put the terminal back, take away what is half done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal};

type Hook = Box<dyn FnOnce() + Send>;

static HAPPENED: AtomicBool = AtomicBool::new(false);
static HOOKS: Mutex<Vec<Hook>> = Mutex::new(Vec::new());

fn signals() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set
}

/// Holds the signals back, from this thread and all that it starts. To be called first.
pub(super) fn block() {
    // It can't fail with a valid set.
    let _ = signals().thread_block();
}

/// Adds something to be done when a signal comes; the last one added is done first.
pub(super) fn on_interrupt(hook: impl FnOnce() + Send + 'static) {
    HOOKS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Box::new(hook));
}

/// Tells whether a signal has come: what fails then, fails because of it.
pub(super) fn happened() -> bool {
    HAPPENED.load(Ordering::SeqCst)
}

/// Starts the thread that waits for signals. To be called once the namespace is entered.
pub(super) fn watch() {
    std::thread::spawn(|| {
        let Ok(signal) = signals().wait() else {
            return;
        };
        HAPPENED.store(true, Ordering::SeqCst);
        let mut hooks = std::mem::take(&mut *HOOKS.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(hook) = hooks.pop() {
            hook();
        }
        crate::ui::say(match signal {
            Signal::SIGINT => "interrupted\n",
            _ => "terminated\n",
        });
        kiln_runtime::sys::process::exit_now(128 + signal as i32);
    });
}
