//! `kiln stop`, and how a container of another kiln is ended.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kiln_runtime::Killer;
use nix::sys::signal::Signal;

use super::{CliError, Result, attach, output_line, session};
use crate::container::{self, ContainerError};
use crate::dockerfile::parse_signal;
use crate::store::{Container, ContainerState, Store};

/// Arguments of `kiln stop`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The signal that asks it to end [default: the container's, else SIGTERM]
    #[arg(short, long)]
    signal: Option<String>,
    /// How many seconds it has then, before it is killed; -1 for as many as it takes
    #[arg(
        short,
        long,
        visible_alias = "timeout",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    time: Option<i64>,
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// How many seconds a container has, as in docker.
const PATIENCE: u64 = 10;

/// How long kiln may take to write down the end of what it ran.
const SETTLING: Duration = Duration::from_secs(5);

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    super::container::each(&arguments.containers, |name| {
        let container = store.find_container(name)?;
        let settings = &container.record.settings;
        let signal = signal_of(match &arguments.signal {
            Some(signal) => signal,
            None if settings.stop_signal.is_empty() => "TERM",
            None => &settings.stop_signal,
        })?;
        let patience = match (arguments.time, settings.stop_timeout) {
            (Some(seconds), _) => u64::try_from(seconds).unwrap_or(u64::MAX),
            (None, Some(seconds)) => seconds,
            (None, None) => PATIENCE,
        };
        if let Some(running) = Running::find(&container)? {
            // The kernel keeps a signal without a handler from process 1: it would only wait.
            if attach::catches(running.pid, signal) {
                running.killer.signal(signal);
                if container.state == ContainerState::Paused {
                    container::unpause(&container)?;
                }
                running
                    .killer
                    .wait(Duration::from_secs(patience.min(u64::from(u32::MAX))));
            }
            running.killer.kill();
            settle(&store, &container)?;
        }
        output_line(name)
    })
}

/// Returns a signal by its name or number.
pub(super) fn signal_of(text: &str) -> Result<Signal> {
    let number = parse_signal(text).map_err(|error| CliError::message(error.to_string()))?;
    Signal::try_from(number)
        .map_err(|_| CliError::message(format!("signal {text} can't be sent by kiln")))
}

/// The first process of a container that another kiln runs.
pub(super) struct Running {
    pub(super) pid: i32,
    pub(super) killer: Killer,
}

impl Running {
    /// Returns it; nothing where the container doesn't run.
    pub(super) fn find(container: &Container) -> Result<Option<Running>> {
        let Some(process) = container.process().filter(|_| container.is_running()) else {
            return Ok(None);
        };
        let Ok(killer) = Killer::open(process.pid) else {
            return Ok(None);
        };
        // The pid may have been given away while it was opened.
        let same = container.process().is_some();
        Ok(same.then_some(Running {
            pid: process.pid,
            killer,
        }))
    }
}

/// Kills a container that another kiln runs.
pub(super) fn kill(store: &Store, container: &Container) -> Result<()> {
    if let Some(running) = Running::find(container)? {
        running.killer.kill();
        settle(store, container)?;
    }
    Ok(())
}

/// Waits until the kiln that ran a container has written down how it ended.
pub(super) fn settle(store: &Store, container: &Container) -> Result<()> {
    let until = Instant::now() + SETTLING;
    let mut pause = Duration::from_millis(1);
    loop {
        match store.find_container(&container.record.id) {
            Ok(now) if now.is_running() && Instant::now() < until => {}
            Ok(now) if now.is_running() => {
                return Err(ContainerError::Running(container.record.name.clone()).into());
            }
            // It was to go with its end.
            Ok(_) | Err(crate::store::StoreError::NoContainer(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
