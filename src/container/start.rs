//! The start of a container, and its end.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use kiln_runtime::capability::CapabilitySet;
use kiln_runtime::{Exit, Killer, Network, OverlayKind, Stdio, Step, Upper};
use nix::errno::Errno;

use super::mounts::Mounts;
use super::{ContainerError, Result};
use crate::image::RunConfig;
use crate::layer::View;
use crate::sandbox::{
    self, Command, DEFAULT_PATH, Identity, Root, SandboxError, Sandboxes, Surroundings,
};
use crate::store::{
    Container, ContainerLock, ContainerProcess, ContainerSettings, ContainerStatus, Hold, Store,
    process_ticks,
};

/// How long what a killed kiln has left running may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A container that this process runs.
pub struct Started {
    store: Store,
    container: Container,
    step: Step,
    root: Root,
    lock: ContainerLock,
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Starts a container; `held` is the lock of one that was made just now. `logged` says whether
/// what it writes goes to its log.
///
/// # Errors
/// [`ContainerError::Running`]; what the sandbox says.
pub fn start(
    sandboxes: &Sandboxes,
    container: &Container,
    held: Option<ContainerLock>,
    stdio: Stdio,
    logged: bool,
) -> Result<Started> {
    let store = sandboxes.store();
    let running = || ContainerError::Running(container.record.name.clone());
    let (lock, mut container) = match held {
        Some(lock) => (lock, container.clone()),
        None => store
            .hold_container(container, Hold::Alone)?
            .ok_or_else(running)?,
    };
    await_the_last(&container)?;
    settle(store, &mut container)?;
    let status = ContainerStatus {
        logged,
        is_raw: sandboxes.overlay() == OverlayKind::Fuse,
        ..ContainerStatus::default()
    };
    match spawn(sandboxes, &container, stdio) {
        Ok((step, root)) => {
            container.write_status(ContainerStatus {
                started: Some(now()),
                process: Some(ContainerProcess {
                    kiln: std::process::id().cast_signed(),
                    pid: step.pid(),
                    ticks: process_ticks(step.pid()).unwrap_or(0),
                    boot_id: crate::store::boot_id().to_owned(),
                }),
                ..status
            })?;
            Ok(Started {
                store: store.clone(),
                container,
                step,
                root,
                lock,
            })
        }
        Err(error) => {
            let failed = ContainerStatus {
                exit_code: Some(exit_code_of(&error)),
                error: Some(error.to_string()),
                ..container.status.clone()
            };
            container.write_status(failed)?;
            Err(error)
        }
    }
}

/// Returns the exit code that stands for a command that did not start: 127 where it is not
/// there, 126 where it can't be executed, 125 for all else.
pub fn exit_code_of(error: &ContainerError) -> i32 {
    match error {
        ContainerError::Sandbox(SandboxError::Runtime(kiln_runtime::Error::Exec {
            errno: Errno::ENOENT,
            ..
        })) => 127,
        ContainerError::Sandbox(SandboxError::Runtime(
            kiln_runtime::Error::Exec { .. } | kiln_runtime::Error::Interpreter(_),
        )) => 126,
        _ => 125,
    }
}

/// Puts the changes of a container that doesn't run into the form that all know.
pub(super) fn settle(store: &Store, container: &mut Container) -> Result<()> {
    if container.status.is_raw {
        let changes = store.container_changes(container)?;
        crate::layer::normalise_fuse(changes.fd())?;
        let settled = ContainerStatus {
            is_raw: false,
            ..container.status.clone()
        };
        container.write_status(settled)?;
    }
    Ok(())
}

/// Makes an empty working directory for an overlay: what one has left there is of no use to the
/// next.
pub(super) fn renew(work: &Path) -> Result<()> {
    match fs::remove_dir_all(work) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(fs::create_dir(work)?),
    }
}

/// Waits for the end of what a killed kiln has left: its helper kills it a moment later.
fn await_the_last(container: &Container) -> Result<()> {
    let Some(process) = container.process() else {
        return Ok(());
    };
    match Killer::open(process.pid) {
        Ok(last) if !last.wait(PATIENCE) => {
            Err(ContainerError::Lingering(container.record.name.clone()))
        }
        _ => Ok(()),
    }
}

fn spawn(sandboxes: &Sandboxes, container: &Container, stdio: Stdio) -> Result<(Step, Root)> {
    let store = sandboxes.store();
    let settings = &container.record.settings;
    let (stack, _, view) = store.container_views(container)?;
    let identity = identity(&view, &settings.user, &settings.groups)?;
    let mounts = Mounts::open(store, &settings.mounts)?;
    let work = container.work();
    renew(&work)?;
    let upper = Upper {
        changes: &container.changes(),
        work: &work,
        // What goes at the end needs no disk.
        volatile: settings.remove,
    };
    let root = sandboxes.reopen(&sandboxes.trees(&stack)?, &view, &mounts.points, upper)?;
    let mut args = settings.entrypoint.clone();
    args.extend(settings.command.iter().cloned());
    let command = Command {
        args: args.into_iter().map(String::into_bytes).collect(),
        env: environment(settings, settings.terminal, &identity),
        cwd: settings.working_dir.clone().into_bytes(),
        user: identity.user,
        network: match settings.no_network {
            true => Network::None,
            false => Network::Host,
        },
        surroundings: Surroundings {
            hosts: settings.hosts.clone(),
            nameservers: settings.dns.clone(),
            search: settings.dns_search.clone(),
            resolver_options: settings.dns_options.clone(),
            shm_size: settings.shm_size,
            rlimits: settings.rlimits.clone(),
        },
        hostname: settings.hostname.clone(),
        mounts: mounts.mounts,
        read_only: settings.read_only,
        maps_caller: mounts.has_binds,
        capabilities: capabilities(settings)?,
        stdio,
    };
    let step = sandboxes.start(&root, command)?;
    Ok((step, root))
}

/// Returns the capabilities of a container's root.
pub(super) fn capabilities(settings: &ContainerSettings) -> Result<CapabilitySet> {
    let default = CapabilitySet::default_set();
    if settings
        .cap_drop
        .iter()
        .any(|name| name.eq_ignore_ascii_case("all"))
    {
        return Ok(CapabilitySet::EMPTY);
    }
    Ok(default.without(CapabilitySet::from_names(&settings.cap_drop)?))
}

/// Finds the user of a command, with further groups.
pub(super) fn identity(view: &View, user: &str, groups: &[String]) -> Result<Identity> {
    let mut identity = sandbox::lookup_user(view, user).map_err(SandboxError::from)?;
    for group in groups {
        let found =
            sandbox::lookup_user(view, &format!("0:{group}")).map_err(SandboxError::from)?;
        if !identity.user.groups.contains(&found.user.gid) {
            identity.user.groups.push(found.user.gid);
        }
    }
    Ok(identity)
}

/// Returns the variables of a command in a container.
pub(super) fn environment(
    settings: &ContainerSettings,
    terminal: bool,
    identity: &Identity,
) -> Vec<String> {
    let mut merged = RunConfig {
        env: settings.env.clone(),
        ..RunConfig::default()
    };
    let home = sandbox::home_of(identity);
    let defaults = [
        ("PATH", DEFAULT_PATH),
        ("HOSTNAME", &settings.hostname),
        ("TERM", "xterm"),
        ("HOME", &home),
    ];
    for (name, value) in defaults {
        if merged.env_value(name).is_none() && (name != "TERM" || terminal) {
            merged.set_env(name, value);
        }
    }
    merged.env
}

impl Started {
    /// Returns the container.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Returns the process id of its first process.
    pub fn pid(&self) -> i32 {
        self.step.pid()
    }

    /// Takes the other end of its terminal, where it has one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.step.take_terminal()
    }

    /// Returns a handle that kills it from elsewhere.
    ///
    /// # Errors
    /// EMFILE.
    pub fn killer(&self) -> Result<Killer> {
        Ok(self.step.killer().map_err(SandboxError::from)?)
    }

    /// Waits for the end, records it, and takes the container away where that was asked for.
    ///
    /// # Errors
    /// What waitid(2) says; the record can't be written.
    pub fn wait(mut self) -> Result<Exit> {
        let exit = self.step.wait().map_err(SandboxError::from)?;
        drop(self.step);
        drop(self.root);
        settle(&self.store, &mut self.container)?;
        let ended = ContainerStatus {
            finished: Some(now()),
            exit_code: Some(exit.code()),
            ..self.container.status.clone()
        };
        self.container.write_status(ended)?;
        if self.container.record.settings.remove {
            self.store.remove_container(&self.container, &self.lock)?;
        }
        Ok(exit)
    }
}
