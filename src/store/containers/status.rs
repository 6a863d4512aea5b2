//! How a container is, and what was written down of its last start.

use std::fs;

use serde::{Deserialize, Serialize};

use super::Container;
use crate::store::layers::boot_id;

/// The exit code of what SIGKILL ended.
const KILLED: i32 = 137;

/// How a container was started last, and how that ended. What a killed kiln can't have written
/// is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// When it was started.
    pub started: Option<String>,
    /// When it ended.
    pub finished: Option<String>,
    /// With which exit code.
    pub exit_code: Option<i32>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// Whether its output goes to its log.
    #[serde(default)]
    pub logged: bool,
    /// Whether fuse-overlayfs has written to its changes since they were put into the one form
    /// that all know.
    #[serde(default)]
    pub is_raw: bool,
    /// The processes of the last start.
    pub process: Option<ContainerProcess>,
}

/// The processes of a container that runs, or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerProcess {
    /// The kiln that runs it.
    pub kiln: i32,
    /// Its first process.
    pub pid: i32,
    /// When that began, in the kernel's ticks: pids are used again.
    pub ticks: u64,
    /// In which boot.
    pub boot_id: String,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It was never started.
    Created,
    /// It runs.
    Running,
    /// It runs, and all its processes are stopped.
    Paused,
    /// It has ended, with this exit code.
    Exited(i32),
}

impl ContainerState {
    /// Returns the state of a container by the status of its last start.
    pub(super) fn of(status: &ContainerStatus, runs: bool) -> ContainerState {
        match (runs, &status.started) {
            (true, _) if status.is_paused() => ContainerState::Paused,
            (true, _) => ContainerState::Running,
            (false, None) => ContainerState::Created,
            (false, Some(_)) => ContainerState::Exited(status.exit_code.unwrap_or(KILLED)),
        }
    }

    /// Returns docker's name of it.
    pub fn name(self) -> &'static str {
        match self {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Paused => "paused",
            ContainerState::Exited(_) => "exited",
        }
    }
}

impl ContainerStatus {
    fn process(&self) -> Option<&ContainerProcess> {
        let process = self.process.as_ref()?;
        let same =
            process.boot_id == boot_id() && process_ticks(process.pid) == Some(process.ticks);
        same.then_some(process)
    }

    /// Nothing in the container can stop its first process, and kiln stops that with all others.
    fn is_paused(&self) -> bool {
        self.process()
            .is_some_and(|process| kiln_runtime::is_paused(process.pid))
    }
}

impl Container {
    /// Tells whether it runs, paused or not.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Paused)
    }

    /// Returns the process that the container runs in, where the record of it is true.
    pub fn process(&self) -> Option<&ContainerProcess> {
        self.status.process()
    }
}

/// Returns when a process began, in the kernel's ticks since boot; nothing where there is none.
pub fn process_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, with anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
