//! Another command in a container that runs.

use kiln_runtime::seccomp::Policy;
use kiln_runtime::{Addition, Builder, Stdio, Step};

use super::start::{capabilities, environment, identity};
use super::{ContainerError, Result};
use crate::image::RunConfig;
use crate::sandbox::SandboxError;
use crate::store::{Container, Store};

/// What is to run in it.
pub struct ExecRequest {
    /// The command line.
    pub args: Vec<String>,
    /// Variables beside those of the container.
    pub env: Vec<(String, String)>,
    /// Where it starts; the container's place where it is empty.
    pub working_dir: String,
    /// Who runs it; the container's user where it is empty.
    pub user: String,
    /// Its input and outputs.
    pub stdio: Stdio,
}

/// Starts a command in a running container. `builder` has joined it.
///
/// # Errors
/// [`ContainerError::NotRunning`]; what the sandbox says.
pub fn exec(
    builder: &Builder,
    store: &Store,
    container: &Container,
    request: ExecRequest,
) -> Result<Step> {
    let record = &container.record;
    let not_running = || ContainerError::NotRunning(record.name.clone());
    let process = container.process().ok_or_else(not_running)?;
    let settings = &record.settings;
    let (_, _, view) = store.container_views(container)?;
    let own_user = request.user.is_empty();
    let user = if own_user {
        &settings.user
    } else {
        &request.user
    };
    let groups = if own_user { &settings.groups[..] } else { &[] };
    let identity = identity(&view, user, groups)?;
    let is_terminal = matches!(request.stdio, Stdio::Terminal(_));
    let mut env = RunConfig {
        env: environment(settings, is_terminal, &identity),
        ..RunConfig::default()
    };
    for (name, value) in &request.env {
        env.set_env(name, value);
    }
    let capabilities = capabilities(settings)?;
    let seccomp = Policy::default_policy()
        .compile(capabilities)
        .map_err(kiln_runtime::Error::from)
        .map_err(SandboxError::from)?;
    let cwd = match request.working_dir.as_str() {
        "" => settings.working_dir.clone(),
        given => given.to_owned(),
    };
    let addition = Addition {
        args: request.args.into_iter().map(String::into_bytes).collect(),
        env: env.env.into_iter().map(String::into_bytes).collect(),
        cwd: cwd.into_bytes(),
        user: identity.user,
        capabilities,
        seccomp: Some(seccomp),
        rlimits: settings.rlimits.clone(),
        stdio: request.stdio,
    };
    let added = builder.add(process.pid, addition);
    Ok(added.map_err(SandboxError::from)?)
}
