//! The user's terminal while a container has it: every key goes through, and what it was before
//! comes back whatever happens.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_runtime::sys::terminal::{self, Modes};
use kiln_runtime::{Builder, WindowSize};

use super::interrupt;

/// A terminal whose modes are changed until this is dropped.
pub(super) struct RawTerminal {
    builder: Builder,
    saved: Arc<Mutex<Option<(OwnedFd, Modes)>>>,
}

impl RawTerminal {
    /// Lets every byte of standard input through, where that is a terminal. A signal that ends
    /// this process brings the modes back, and so does the helper, should it be killed.
    pub(super) fn of_stdin(builder: &Builder) -> io::Result<Option<RawTerminal>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let fd = stdin.as_fd().try_clone_to_owned()?;
        let modes = terminal::modes(fd.as_fd())?;
        builder.host().restore_at_end(fd.as_fd(), &modes)?;
        terminal::set_modes(fd.as_fd(), &terminal::raw(&modes))?;
        let saved = Arc::new(Mutex::new(Some((fd, modes))));
        let doomed = saved.clone();
        interrupt::on_interrupt(move || drop(restore(&doomed)));
        Ok(Some(RawTerminal {
            builder: builder.clone(),
            saved,
        }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(fd) = restore(&self.saved) {
            let _ = self.builder.host().terminal_is_restored(fd.as_fd());
        }
    }
}

/// Brings the modes back, once.
fn restore(saved: &Mutex<Option<(OwnedFd, Modes)>>) -> Option<OwnedFd> {
    let (fd, modes) = saved
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()?;
    let _ = terminal::set_modes(fd.as_fd(), &modes);
    Some(fd)
}

/// Returns the size of the user's terminal; 0 by 0 where there is none.
pub(super) fn size() -> WindowSize {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    terminal::window_size(stdout.as_fd())
        .or_else(|_| terminal::window_size(stdin.as_fd()))
        .unwrap_or_default()
}
