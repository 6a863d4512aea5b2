//! Removal of what commands leave: large trees take long to remove, and nobody waits for that.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use kiln_runtime::sys::process::lower_priority;

use super::Result;
use crate::store::Store;

/// How long the end of a command removes things itself.
const PATIENCE: Duration = Duration::from_millis(50);

/// The command that removes the rest; see [`run`].
const COMMAND: &str = "empty-trash";

/// Arguments of `kiln empty-trash`.
#[derive(clap::Args)]
pub(super) struct Arguments {}

/// Removes what is in the trash; what takes longer goes on when this process has ended. What
/// nobody has removed by then, the next kiln does.
pub(super) fn clean(store: &Store) {
    if !store.has_trash() {
        return;
    }
    let (done, cleaned) = channel();
    let own = store.clone();
    std::thread::spawn(move || {
        own.empty_trash();
        let _ = done.send(());
    });
    if cleaned.recv_timeout(PATIENCE).is_err() {
        hand_over(store);
    }
}

/// Has what is in the trash removed by a process of its own, unless one does so already.
pub(super) fn hand_over(store: &Store) {
    if !store.has_trash() || !matches!(store.try_lock(COMMAND), Ok(Some(_))) {
        return;
    }
    // It is in this namespace, as only then it can remove files of subordinate ids. Nothing
    // that somebody may wait for the end of is passed on.
    let _ = Command::new("/proc/self/exe")
        .arg("--root")
        .arg(store.root())
        .arg(COMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}

/// Empties the trash in the background. To be called within the builder's namespace.
pub(super) fn run(_: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    // The terminal's signals are for the command that was typed.
    let _ = nix::unistd::setsid();
    lower_priority();
    let store = Store::open(&super::session::store_root(root)?)?;
    if let Some(_alone) = store.try_lock(COMMAND)? {
        // More may come meanwhile; what can't be removed stays.
        let mut left = None;
        while store.has_trash() && left != Some(store.trash_names()) {
            left = Some(store.trash_names());
            store.empty_trash();
        }
    }
    Ok(ExitCode::SUCCESS)
}
