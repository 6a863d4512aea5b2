//! `kiln start`, and what `run` does once there is a container.

use std::path::PathBuf;
use std::process::ExitCode;

use super::attach::{self, Attachment, Settled, SignalTarget};
use super::detach::{self, Detached, Pipes};
use super::session::Workshop;
use super::{CliError, Result, interrupt, output_line, session};
use crate::container::{self, ContainerError};
use crate::event::NullReporter;
use crate::sandbox::SandboxError;
use crate::store::{Container, ContainerLock, Hold};

/// Arguments of `kiln start`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Stay attached to what it writes, and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Give it standard input, where it was made with -i
    #[arg(short, long)]
    interactive: bool,
    /// Names, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let is_attached = arguments.attach || arguments.interactive;
    if is_attached && arguments.containers.len() > 1 {
        return Err(CliError::message(
            "you cannot start and attach multiple containers at once",
        ));
    }
    let store = session::open_store(root.clone())?;
    if is_attached {
        let container = store.find_container(&arguments.containers[0])?;
        let settings = &container.record.settings;
        let attachment = Attachment {
            stdin: arguments.interactive && settings.open_stdin,
            terminal: settings.terminal,
        };
        attachment.check()?;
        attach::expect_signals();
        return carry_out(Workshop::enter(root)?, &container, None, attachment, None);
    }
    let mut code = ExitCode::SUCCESS;
    for name in &arguments.containers {
        let started = store.find_container(name).map_err(CliError::from);
        let started = started.and_then(|container| {
            if container.is_running() {
                return Ok(ExitCode::SUCCESS);
            }
            let attachment = Attachment {
                stdin: false,
                terminal: container.record.settings.terminal,
            };
            detach::run_silently(|detached| {
                attach::expect_signals();
                let workshop = Workshop::enter(root.clone())?;
                carry_out(workshop, &container, None, attachment, Some(detached))
            })
        });
        match started {
            Ok(started) if started == ExitCode::SUCCESS => output_line(name)?,
            Ok(_) => code = ExitCode::FAILURE,
            Err(error) => {
                error.show();
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Returns an error of kiln's own with the exit code that tells it from one of the command.
pub(super) fn kiln_failed(error: CliError) -> CliError {
    match error.code() {
        1 => error.with_code(125),
        _ => error,
    }
}

/// Starts a container, waits for its end, and returns its exit code.
pub(super) fn carry_out(
    workshop: Workshop,
    container: &Container,
    held: Option<ContainerLock>,
    attachment: Attachment,
    detached: Option<Detached>,
) -> Result<ExitCode> {
    let result = attend(&workshop, container, held, attachment, detached);
    // What was made for this start alone, and did not start.
    if result.is_err() && container.record.settings.remove {
        let store = &workshop.store;
        if let Ok(Some((lock, container))) = store.hold_container(container, Hold::Alone) {
            store.remove_container(&container, &lock)?;
        }
    }
    result
}

fn attend(
    workshop: &Workshop,
    container: &Container,
    held: Option<ContainerLock>,
    attachment: Attachment,
    detached: Option<Detached>,
) -> Result<ExitCode> {
    let failed = |error: CliError| kiln_failed(error);
    let sandboxes = workshop
        .sandboxes(&NullReporter)
        .map_err(|error| failed(error.into()))?;
    let mut pipes = Pipes::new();
    let (stdio, streams) = match &detached {
        Some(detached) => (detached.open(&mut pipes, attachment.terminal)?, None),
        None => {
            let (stdio, streams) = attachment.open().map_err(failed)?;
            (stdio, Some(streams))
        }
    };
    // Before the start: a signal may come as soon as the command has said that it is up.
    let target = SignalTarget::default();
    attach::forward_signals(target.clone());
    let started = container::start(&sandboxes, container, held, stdio, detached.is_some());
    let mut started = started.map_err(|error| {
        target.is_none();
        not_started(error)
    })?;
    let container = started.container().clone();
    let master = started.take_terminal();
    let for_size = master.as_ref().map(|fd| fd.try_clone()).transpose()?;
    let (settled, killer) = (Settled::default(), started.killer()?);
    let awaited = settled.clone();
    interrupt::on_interrupt(move || {
        killer.kill();
        awaited.wait();
    });
    target.is(started.pid(), started.killer()?, for_size);
    let passing = match (streams, detached) {
        (Some(streams), _) => {
            Passing::Attached(streams.begin(&workshop.builder, master, attachment)?)
        }
        (None, Some(detached)) => Passing::Detached(detached.begin(&container, pipes, master)?),
        (None, None) => return Err(CliError::message("nobody listens")),
    };
    let exit = started.wait();
    match passing {
        Passing::Attached(passing) => passing.finish(),
        Passing::Detached(logging) => logging.finish(),
    }
    settled.done();
    let code = exit.map_err(|error| failed(error.into()))?.code();
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)))
}

/// What takes what the container writes.
enum Passing {
    Attached(attach::Passing),
    Detached(detach::Logging),
}

/// Returns the error of a command that did not start with the exit code that says why.
pub(super) fn not_started(error: ContainerError) -> CliError {
    let code = u8::try_from(container::exit_code_of(&error)).unwrap_or(125);
    match error {
        ContainerError::Sandbox(SandboxError::Runtime(error)) => CliError::from(error),
        other => CliError::from(other),
    }
    .with_code(code)
}
