//! RUN: a command in a sandbox over the layers so far.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_runtime::capability::CapabilitySet;
use kiln_runtime::{Exit, Network, OverlayKind};

use super::error::{RunFailure, Step, Trouble};
use super::key::{Inputs, Keys};
use super::mount::{By, Mounts, Script};
use super::origin::Origin;
use super::pipeline::Made;
use super::recall::Recalled;
use super::stage::{Outcome, State};
use super::{Build, Running};
use crate::dockerfile::{self, Invocation, Run, Security, Source, Span};
use crate::event::{Event, Stream};
use crate::layer::space_hint;
use crate::sandbox::{self, Command, SandboxError};

/// How much of a step's output is kept for the report of a failure, in bytes.
const TAIL: usize = 64 << 10;

/// How many logs of failed steps are kept.
const LOGS: usize = 20;

/// The host name that a step sees, where the build argument for it is not given.
const HOSTNAME: &str = "kiln";

/// What a step's output goes to.
struct Output {
    log: File,
    path: PathBuf,
    tail: Vec<u8>,
}

impl Output {
    fn add(&mut self, bytes: &[u8]) {
        // A full disk must not end the step's pipe: the log is a comfort.
        let _ = self.log.write_all(bytes);
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
    }
}

/// Refuses a step that can't do without a device; one that can gets none.
fn refuse_devices(state: &State, run: &Run) -> Step<()> {
    for word in &run.devices {
        let device = state.scope.expand(word)?;
        if device
            .split(',')
            .any(|o| o == "required" || o == "required=true")
        {
            return Err(Trouble::hinted(
                format!("RUN --device={device}: steps see no devices of the host"),
                "leave \"required\" out where the step can do without",
            ));
        }
    }
    Ok(())
}

impl Build<'_> {
    pub(super) fn run_step(
        &self,
        state: &mut State,
        run: &Run,
        origins: &[Option<Origin>],
        source: &Arc<Source>,
        span: Span,
        step: &Running,
    ) -> Step<Outcome> {
        if run.security == Some(Security::Insecure) {
            return Err(Trouble::hinted(
                "RUN --security=insecure is not possible without root",
                "kiln never gives a step more rights than its own user has; leave the flag out",
            ));
        }
        refuse_devices(state, run)?;
        let network = match run.network {
            Some(dockerfile::Network::None) => Network::None,
            Some(dockerfile::Network::Host) => Network::Host,
            _ => self.options.network,
        };
        let config = &state.config.config;
        let shell = config
            .shell
            .clone()
            .unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        let invocation = run.invocation();
        let is_shell = matches!(invocation, Invocation::Shell(_));
        let mut script = None;
        let args = match invocation {
            Invocation::Exec(args) => args,
            Invocation::Shell(text) => shell.into_iter().chain([text]).collect(),
            Invocation::Script { name, content } => {
                let target = script_path(&name);
                script = Some((target.clone(), content));
                vec![target]
            }
        };
        let mut mounts = Mounts::plan(run, state, self.context, origins)?;
        self.read_contents(mounts.of_contexts())?;
        let created_by = state.scope.run_history(&args);
        let working_dir = match config.working_dir.as_str() {
            "" => "/".to_owned(),
            dir => dir.to_owned(),
        };
        let given = self.options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
        let hostname = given.map_or(HOSTNAME, |name| name.as_str());
        let user = config.user.clone();
        let key = |state: &State, by: By| -> Step<Inputs> {
            let mut key = self.key("run");
            key.part("the platform").text(&self.platform.to_string());
            key.part("the command").list(&args);
            key.part("the working directory").text(&working_dir);
            key.part("the user").text(&user);
            key.part("the network").number(network as u64);
            key.part("the host name").text(hostname);
            for (name, value) in state.scope.key_environment() {
                key.part(format!("variable {name}")).text(name).text(value);
            }
            if let Some((_, content)) = &script {
                key.part("the script").text("script").text(content);
            }
            if !run.mounts.is_empty() {
                mounts.add_to_key(key.part("what is mounted").text("mounts"), by)?;
            }
            key.part("what is around it, such as --add-host");
            self.options.surroundings.add_to(|text| {
                key.text(text);
            });
            Ok(key.finish())
        };
        let layers = match mounts.have_layers() {
            true => Some(key(state, By::Layers)?),
            false => None,
        };
        if let Some(layers) = &layers
            && let Some(outcome) = self.recall_by_layers(state, layers, &created_by, step)?
        {
            return Ok(outcome);
        }
        let content = key(state, By::Content)?;
        let keys = Keys { content, layers };
        let turn = match self.recall(state, &keys, &created_by, None, step)? {
            Recalled::Hit(outcome) => return Ok(outcome),
            Recalled::Miss(turn) => turn,
        };
        let config = &state.config.config;

        let identity = sandbox::lookup_user(&state.view, &config.user)?;
        let mut env = state.scope.run_environment();
        if !env.iter().any(|(name, _)| name == "HOME") {
            env.push(("HOME".to_owned(), sandbox::home_of(&identity)));
        }
        let sandboxes = self.sandboxes()?;
        if sandboxes.overlay() == OverlayKind::Fuse {
            // Another process: it finds trees by their paths, which change when they are
            // published.
            self.settle(state)?;
        }
        let script = script
            .as_ref()
            .map(|(target, content)| Script { target, content });
        let prepared = self.prepare_mounts(&mounts, script.as_ref(), state, sandboxes, step)?;
        for (name, value) in &prepared.env {
            env.retain(|(other, _)| other != name);
            env.push((name.clone(), value.clone()));
        }
        let cwd = working_dir.as_bytes();
        let mut trees = sandboxes.trees(&state.stack)?;
        trees.extend_from_slice(&state.ahead);
        let root = sandboxes.root(&trees, &state.view, cwd, &prepared.points)?;
        let pipe = || {
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
                .map_err(|errno| SandboxError::from(kiln_runtime::Error::call("pipe2", errno)))
        };
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let command = Command {
            args: args.iter().map(|a| a.clone().into_bytes()).collect(),
            env: env.into_iter().map(|(n, v)| format!("{n}={v}")).collect(),
            cwd: working_dir.as_bytes().to_vec(),
            user: identity.user,
            network,
            surroundings: self.options.surroundings.clone(),
            hostname: hostname.to_owned(),
            mounts: prepared.mounts,
            read_only: false,
            maps_caller: false,
            capabilities: CapabilitySet::default_set(),
            stdio: [
                sandbox::dev_null().map_err(SandboxError::from)?,
                stdout_end,
                stderr_end,
            ]
            .into(),
        };
        let mut running = match sandboxes.start(&root, command) {
            Ok(running) => running,
            Err(error) => return Err(explain_exec(error, state, is_shell, script.as_ref())),
        };
        let killer = running.killer().map_err(SandboxError::from)?;
        let watched = self.shop.cancel.watch(killer);
        let path = self.shop.session.file()?;
        let output = Mutex::new(Output {
            log: File::create(&path).map_err(SandboxError::from)?,
            path,
            tail: Vec::new(),
        });
        let exit = std::thread::scope(|scope| {
            scope.spawn(|| self.forward(step, stderr, Stream::Stderr, &output));
            self.forward(step, stdout, Stream::Stdout, &output);
            running.wait()
        });
        let exit = exit?;
        drop(running);
        drop(watched);
        // Others may wait for its caches.
        drop(prepared.held);
        if !exit.success() {
            self.check_canceled()?;
            let mut failure = self.failure(step, source, span, args, exit, output);
            failure.hint = failure.hint.or(prepared.not_given);
            return Err(Trouble::Run(Box::new(failure)));
        }
        let changes = root.into_changes()?;
        let made = Made {
            staged: changes.staged,
            kind: changes.kind,
            overrides: Default::default(),
            stream: None,
            keys,
            // What changed while it was copied is no longer what the key was made of.
            is_sound: prepared.stable,
            lock: turn.lock,
        };
        Ok(Outcome::made(created_by, made))
    }

    /// Passes the output of a step on until all its ends are closed.
    fn forward(&self, step: &Running, pipe: OwnedFd, stream: Stream, output: &Mutex<Output>) {
        let mut pipe = File::from(pipe);
        let mut buffer = [0u8; 16 << 10];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let bytes = &buffer[..length];
                    output
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(bytes);
                    self.shop.reporter.report(Event::StepOutput {
                        step: step.id,
                        stream,
                        data: bytes.to_vec(),
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Keeps the log of a failed step, and says where it is.
    fn failure(
        &self,
        step: &Running,
        source: &Arc<Source>,
        span: Span,
        command: Vec<String>,
        exit: Exit,
        output: Mutex<Output>,
    ) -> RunFailure {
        let output = output.into_inner().unwrap_or_else(PoisonError::into_inner);
        let hint = self
            .shop
            .store
            .is_full()
            .then(|| space_hint(&std::io::ErrorKind::StorageFull.into()))
            .flatten();
        RunFailure {
            hint,
            step: step.name.clone(),
            source: source.clone(),
            span,
            command,
            exit,
            log: self.shop.store.keep_log(&output.path, LOGS),
            output: output.tail,
        }
    }
}

/// Returns where a heredoc with `#!` is mounted: the reference uses the same place, which
/// scripts see as `$0`.
fn script_path(name: &str) -> String {
    let name = match name {
        "." | ".." => "script",
        name if name.contains('/') => "script",
        name => name,
    };
    format!("/dev/pipes/{name}")
}

/// Says why a command could not be executed in terms of the image.
fn explain_exec(
    error: SandboxError,
    state: &State,
    is_shell: bool,
    script: Option<&Script<'_>>,
) -> Trouble {
    use nix::errno::Errno;
    if let (SandboxError::Runtime(kiln_runtime::Error::Interpreter(_)), Some(script)) =
        (&error, script)
    {
        let line = script.content.split('\n').next().unwrap_or_default();
        return Trouble::hinted(
            format!("the script begins with {line:?}, which the image does not have"),
            "install that program in an earlier step, or name one that is there; \
             without a #! line the text is given to the shell",
        );
    }
    let SandboxError::Runtime(kiln_runtime::Error::Exec { program, errno }) = &error else {
        return error.into();
    };
    if *errno == Errno::EACCES {
        return Trouble::hinted(
            error.to_string(),
            "make it executable with RUN chmod +x, or COPY --chmod=755; its directories must let the user pass",
        );
    }
    if *errno == Errno::E2BIG {
        return Trouble::hinted(
            error.to_string(),
            "Linux takes at most 128 KiB for a command or a variable: \
             put the text into a file, as COPY <<EOF does",
        );
    }
    if *errno != Errno::ENOENT {
        return error.into();
    }
    if state.stack.layers().is_empty() {
        return Trouble::hinted(
            format!("exec {program}: no such file: FROM scratch has no shell and no programs"),
            "COPY what you need into the image, and use the exec form: RUN [\"/program\"]",
        );
    }
    Trouble::hinted(
        format!("exec {program}: no such file in the image"),
        if is_shell {
            "the image has no such shell: name one with SHELL, or use the exec form: RUN [\"program\", \"argument\"]"
        } else {
            "is it installed, and in the PATH of the image?"
        },
    )
}
