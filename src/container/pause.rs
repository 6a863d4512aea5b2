//! A container whose processes stand still.

use kiln_runtime::Pause;

use super::{ContainerError, Result};
use crate::sandbox::SandboxError;
use crate::store::{Container, ContainerLock, ContainerProcess, ContainerState};

fn process(container: &Container) -> Result<&ContainerProcess> {
    let not_running = || ContainerError::NotRunning(container.record.name.clone());
    let process = container.process().filter(|_| container.is_running());
    process.ok_or_else(not_running)
}

/// Stops all processes of a container, until [`unpause`].
///
/// # Errors
/// [`ContainerError::NotRunning`], [`ContainerError::Paused`], [`ContainerError::NotStill`].
pub fn pause(container: &Container) -> Result<()> {
    let process = process(container)?;
    if container.state == ContainerState::Paused {
        return Err(ContainerError::Paused(container.record.name.clone()));
    }
    kiln_runtime::pause(process.pid).map_err(|error| not_still(container, error))
}

/// Lets all processes of a paused container go on.
///
/// # Errors
/// [`ContainerError::NotRunning`], [`ContainerError::NotPaused`].
pub fn unpause(container: &Container) -> Result<()> {
    let process = process(container)?;
    if container.state != ContainerState::Paused {
        return Err(ContainerError::NotPaused(container.record.name.clone()));
    }
    Ok(kiln_runtime::resume(process.pid).map_err(SandboxError::from)?)
}

/// Stops all processes of a container as long as the value lives, or this process, however it
/// ends; does nothing where it doesn't run. Must come before any thread.
///
/// # Errors
/// [`ContainerError::NotStill`].
pub fn hold_still(container: &Container) -> Result<Option<(Pause, ContainerLock)>> {
    let Some(process) = container.process().filter(|_| container.is_running()) else {
        return Ok(None);
    };
    // Who comes second would find all stopped, and then have it go on with the first.
    let lock = container.hold_processes()?;
    let pause = Pause::begin(process.pid).map_err(|error| not_still(container, error))?;
    Ok(Some((pause, lock)))
}

fn not_still(container: &Container, error: kiln_runtime::Error) -> ContainerError {
    ContainerError::NotStill {
        name: container.record.name.clone(),
        source: error.into(),
    }
}
