//! `kiln run`.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use super::session::{self, Workshop};
use super::{CliError, Result, interrupt, relay};
use crate::image::{ImageConfig, Reference, RunConfig};
use crate::sandbox::{self, Command, DEFAULT_PATH, SandboxError, Surroundings};
use crate::store::{Stack, StoreError};
use crate::transfer;
use crate::ui;

/// Arguments of `kiln run`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Remove what the command changed when it has ended (kiln always does)
    #[arg(long)]
    rm: bool,
    /// Set an environment variable; without a value, the caller's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Where the command starts
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it: user[:group], by name or number
    #[arg(short, long)]
    user: Option<String>,
    /// Replace the image's entry point; an empty one removes it
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Which network it sees
    #[arg(long, value_enum, default_value_t = NetworkChoice::Host)]
    network: NetworkChoice,
    /// Give it standard input
    #[arg(short, long)]
    interactive: bool,
    /// The host name
    #[arg(long, default_value = "kiln")]
    hostname: String,
    /// Which image of a multi-platform one, as in linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// The image
    image: String,
    /// The command, in place of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `--network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum NetworkChoice {
    /// The host's
    #[value(alias = "default", alias = "bridge")]
    Host,
    /// A loopback interface and nothing else
    None,
}

impl From<NetworkChoice> for kiln_runtime::Network {
    fn from(choice: NetworkChoice) -> kiln_runtime::Network {
        match choice {
            NetworkChoice::Host => kiln_runtime::Network::Host,
            NetworkChoice::None => kiln_runtime::Network::None,
        }
    }
}

pub(super) fn run(arguments: Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    start(arguments, root).map_err(|error| {
        if error.code() == 1 {
            error.with_code(125)
        } else {
            error
        }
    })
}

fn start(arguments: Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let workshop = Workshop::enter(root)?;
    let (config, stack) = find_or_pull(&workshop, &arguments)?;
    let config = &config.config;
    let sandboxes = workshop.sandboxes(&crate::event::NullReporter)?;
    let view = workshop.store.view(&stack)?;
    let user = arguments.user.as_deref().unwrap_or(&config.user);
    let identity = sandbox::lookup_user(&view, user).map_err(SandboxError::from)?;
    let args = command_line(&arguments, config)?;
    let env = environment(&arguments, config, &sandbox::home_of(&identity));
    let cwd = match &arguments.workdir {
        Some(dir) if dir.starts_with('/') => dir.clone(),
        Some(dir) => {
            return Err(CliError::message(format!(
                "the working directory {dir:?} must be an absolute path"
            )));
        }
        None if config.working_dir.is_empty() => "/".to_owned(),
        None => config.working_dir.clone(),
    };
    let writable = sandboxes.root(&sandboxes.trees(&stack)?, &view, cwd.as_bytes(), &[])?;
    let stdin = if arguments.interactive {
        std::io::stdin().as_fd().try_clone_to_owned()?
    } else {
        sandbox::dev_null()?
    };
    let (stdout, stderr, relay) = relay::outputs(arguments.interactive)?;
    let program = args.first().cloned().unwrap_or_default();
    let command = Command {
        args: args.into_iter().map(String::into_bytes).collect(),
        env,
        cwd: cwd.into_bytes(),
        user: identity.user,
        network: arguments.network.into(),
        surroundings: Surroundings::default(),
        hostname: arguments.hostname.clone(),
        mounts: Vec::new(),
        stdio: [stdin, stdout, stderr],
    };
    let mut step = match sandboxes.start(&writable, command) {
        Err(SandboxError::Runtime(kiln_runtime::Error::Exec { errno, .. })) => {
            let code = if errno == nix::errno::Errno::ENOENT {
                127
            } else {
                126
            };
            let error = kiln_runtime::Error::Exec { program, errno };
            return Err(CliError::from(error).with_code(code));
        }
        other => other?,
    };
    let killer = step.killer()?;
    interrupt::on_interrupt(move || killer.kill());
    let exit = step.wait()?;
    drop(step);
    relay.finish();
    drop(writable);
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(255)))
}

/// Returns an image of the store, else pulls it.
fn find_or_pull(workshop: &Workshop, arguments: &Arguments) -> Result<(ImageConfig, Stack)> {
    let platform = session::platform(arguments.platform.as_deref())?;
    match workshop.store.find(&arguments.image) {
        Ok(image) => {
            if let Some(stack) = workshop.store.stack(&image.config.rootfs.diff_ids)? {
                return Ok((image.config, stack));
            }
        }
        Err(StoreError::NoImage(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let reference: Reference = arguments.image.parse()?;
    let client = workshop.client(false)?;
    let any = arguments.platform.is_some();
    let (_, pulled) = workshop.transfer(false, ui::Mode::Auto, |transfer| {
        transfer.reporter.report(crate::event::Event::Info {
            message: format!("{} is not in the store: pulling it", reference.familiar()),
        });
        transfer::pull_named(transfer, &client, &arguments.image, &platform, any)
    })?;
    Ok((pulled.config, pulled.stack))
}

/// Puts entry point and command together, as docker does: a new entry point drops the
/// image's command.
fn command_line(arguments: &Arguments, config: &RunConfig) -> Result<Vec<String>> {
    let mut args = match &arguments.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => Vec::new(),
        Some(entrypoint) => vec![entrypoint.clone()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    if !arguments.command.is_empty() {
        args.extend(arguments.command.iter().cloned());
    } else if arguments.entrypoint.is_none() {
        args.extend(config.cmd.clone().unwrap_or_default());
    }
    if args.is_empty() {
        return Err(CliError::message("the image has no command")
            .hinted("give one: kiln run IMAGE COMMAND"));
    }
    Ok(args)
}

fn environment(arguments: &Arguments, config: &RunConfig, home: &str) -> Vec<String> {
    let mut merged = RunConfig {
        env: config.env.clone(),
        ..RunConfig::default()
    };
    if merged.env_value("PATH").is_none() {
        merged.set_env("PATH", DEFAULT_PATH);
    }
    if merged.env_value("HOME").is_none() {
        merged.set_env("HOME", home);
    }
    merged.set_env("HOSTNAME", &arguments.hostname);
    for entry in &arguments.env {
        match entry.split_once('=') {
            Some((name, value)) => merged.set_env(name, value),
            None => {
                if let Ok(value) = std::env::var(entry) {
                    merged.set_env(entry, &value);
                }
            }
        }
    }
    merged.env
}
