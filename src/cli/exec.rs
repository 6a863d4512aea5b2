//! `kiln exec`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::attach::{self, Attachment, SignalTarget};
use super::container::settings::{lines, variable};
use super::start::{kiln_failed, not_started};
use super::{Result, detach, interrupt, session};
use crate::container::{self, ContainerError, ExecRequest};
use crate::store::ContainerState;

/// Arguments of `kiln exec`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Run it in the background; what it writes goes nowhere
    #[arg(short, long)]
    detach: bool,
    /// Give it standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; without a value, the caller's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the environment variables that a file has, one on each line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Where the command starts
    #[arg(
        short,
        long,
        value_name = "DIR",
        default_value = "",
        hide_default_value = true
    )]
    workdir: String,
    /// Who runs it: user[:group], by name or number
    #[arg(short, long, default_value = "", hide_default_value = true)]
    user: String,
    /// A name, or the beginning of an id
    container: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let attachment = Attachment {
        stdin: arguments.interactive && !arguments.detach,
        terminal: arguments.tty && !arguments.detach,
    };
    attachment.check()?;
    if arguments.detach {
        return detach::run_silently(|detached| exec(arguments, root, attachment, Some(detached)));
    }
    exec(arguments, root, attachment, None)
}

fn exec(
    arguments: &Arguments,
    root: Option<PathBuf>,
    attachment: Attachment,
    detached: Option<detach::Detached>,
) -> Result<ExitCode> {
    attach::expect_signals();
    let mut env = Vec::new();
    for path in &arguments.env_file {
        env.extend(lines(path)?);
    }
    env.extend(arguments.env.iter().cloned());
    let store = session::open_store(root)?;
    let container = store.find_container(&arguments.container)?;
    if container.state == ContainerState::Paused {
        return Err(ContainerError::Paused(container.record.name).into());
    }
    let (store, builder, ()) = session::join(store, &container, || Ok(()))?;
    let (stdio, streams) = match detached {
        None => attachment.open().map_err(kiln_failed)?,
        Some(_) => Attachment::none()?,
    };
    let request = ExecRequest {
        args: arguments.command.clone(),
        env: env.iter().filter_map(|entry| variable(entry)).collect(),
        working_dir: arguments.workdir.clone(),
        user: arguments.user.clone(),
        stdio,
    };
    let target = SignalTarget::default();
    attach::forward_signals(target.clone());
    let started = container::exec(&builder, &store, &container, request);
    let mut step = started.map_err(|error| {
        target.is_none();
        not_started(error)
    })?;
    let master = step.take_terminal();
    let for_size = master.as_ref().map(|fd| fd.try_clone()).transpose()?;
    let killer = step.killer()?;
    interrupt::on_interrupt(move || killer.kill());
    target.is(step.pid(), step.killer()?, for_size);
    let passing = streams.begin(&builder, master, attachment)?;
    if let Some(detached) = detached {
        detached.leave(&container.record.id)?;
    }
    let exit = step.wait()?;
    passing.finish();
    drop(step);
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(255)))
}
