//! Questions to who sits at the terminal.

use std::io::IsTerminal;

use nix::sys::termios::{self, LocalFlags, SetArg};

use super::{CliError, Result, interrupt};
use crate::ui;

/// Asks for a line, which is shown as it is typed. `what` is asked for, and `hint` how it can be
/// given without a terminal.
///
/// # Errors
/// Standard input is no terminal.
pub(super) fn line(prompt: &str, what: &str, hint: &str) -> Result<String> {
    ask(prompt, what, hint, true)
}

/// As [`line`], for what nobody shall see.
///
/// # Errors
/// Standard input is no terminal.
pub(super) fn password(prompt: &str, what: &str, hint: &str) -> Result<String> {
    ask(prompt, what, hint, false)
}

fn ask(prompt: &str, what: &str, hint: &str, is_seen: bool) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::message(format!(
            "cannot ask for {what}: standard input is no terminal"
        ))
        .hinted(hint));
    }
    let shown = termios::tcgetattr(&stdin).map_err(std::io::Error::from)?;
    if !is_seen {
        // A signal must not leave a terminal that shows nothing.
        let restored = shown.clone();
        interrupt::on_interrupt(move || {
            let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &restored);
            ui::say("\n");
        });
        if !interrupt::is_watched() {
            interrupt::block();
            interrupt::watch();
        }
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden.local_flags.insert(LocalFlags::ECHONL);
        termios::tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden).map_err(std::io::Error::from)?;
    }
    ui::say(prompt);
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if !is_seen {
        let _ = termios::tcsetattr(&stdin, SetArg::TCSANOW, &shown);
    }
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
