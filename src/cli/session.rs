//! What most commands begin with: the store, and the builder's namespace where files of
//! layers are touched.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_runtime::{Builder, HostHelper};

use super::connection::{Given, Trust};
use super::{CliError, Result, cleaning, interrupt};
use crate::container::ContainerError;
use crate::image::{Digest, Platform, Reference};
use crate::layer::Ownership;
use crate::registry::{
    Client, ClientOptions, CredentialPaths, Credentials, HelperRunner, Registries, RegistriesPaths,
    SetupError,
};
use crate::store::{Container, Form, Lock, Session, Store};
use crate::transfer::Transfer;

/// Returns where the store is.
pub(super) fn store_root(root: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(root) = root {
        return Ok(root);
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(data) = absolute("XDG_DATA_HOME") {
        return Ok(data.join("kiln"));
    }
    match absolute("HOME") {
        Some(home) => Ok(home.join(".local/share/kiln")),
        None => Err(
            CliError::message("there is no place for the store: HOME is not set")
                .hinted("give one with --root or KILN_ROOT"),
        ),
    }
}

/// Opens the store for commands that touch no files of layers.
pub(super) fn open_store(root: Option<PathBuf>) -> Result<Store> {
    Ok(Store::open(&store_root(root)?)?.with_short_names(short_names))
}

/// Returns what `registries.conf` lets a name without a registry stand for. A file that can't be
/// used is an error where a registry is asked, not here.
fn short_names(text: &str) -> Vec<Reference> {
    Registries::load(&RegistriesPaths::from_environment())
        .ok()
        .and_then(|registries| registries.candidates(text).ok())
        .unwrap_or_default()
}

/// Opens the store for a look where there is one, and makes none.
pub(super) fn open_store_if_there(root: Option<PathBuf>) -> Option<Store> {
    let root = store_root(root).ok().filter(|root| root.is_dir())?;
    Some(Store::open(&root).ok()?.with_short_names(short_names))
}

/// A command's hold on the store, within the builder's namespace.
pub(super) struct Workshop {
    pub(super) store: Store,
    pub(super) builder: Builder,
    pub(super) session: Arc<Session>,
    lease: Option<Lock>,
}

/// How long a command that was interrupted waits for its threads, which may put something into
/// directories that are removed.
const LAST_THREADS: Duration = Duration::from_millis(100);

impl Drop for Workshop {
    fn drop(&mut self) {
        self.session.abandon();
        cleaning::clean(&self.store);
    }
}

impl Workshop {
    /// Enters the builder's namespace, opens the store and begins a session. Must come before
    /// any thread.
    pub(super) fn enter(root: Option<PathBuf>) -> Result<Workshop> {
        let root = store_root(root)?;
        interrupt::block();
        let builder = Builder::enter()?;
        interrupt::watch();
        let store = Store::open(&root)?
            .with_short_names(short_names)
            .with_form(form(&builder))?;
        let lease = store.lease()?;
        store.sweep()?;
        cleaning::hand_over(&store);
        let session = Arc::new(store.session());
        let doomed = (session.clone(), store.clone());
        interrupt::on_interrupt(move || {
            let (session, store) = doomed;
            session.abandon();
            let begun = Instant::now();
            while store.has_trash() && begun.elapsed() < LAST_THREADS {
                cleaning::clean(&store);
                std::thread::sleep(Duration::from_millis(5));
            }
            cleaning::hand_over(&store);
        });
        Ok(Workshop {
            store,
            builder,
            session,
            lease: Some(lease),
        })
    }

    /// Returns a client of registries with the user's credentials, ahead of them those that were
    /// given for one registry.
    pub(super) fn registry_client(
        &self,
        trust: &Trust,
        authfile: Option<PathBuf>,
        given: Option<Given>,
    ) -> std::result::Result<Client, SetupError> {
        let mut paths = CredentialPaths::from_environment();
        paths.registry_auth_file = authfile.or(paths.registry_auth_file);
        let mut credentials =
            Credentials::load(&paths)?.with_helpers(Arc::new(OnHost(self.builder.clone())));
        if let Some(given) = given {
            credentials = credentials.with(&given.registry, given.credential);
        }
        client(trust, credentials)
    }
}

/// Returns a client that heeds what the user and the system say of registries.
pub(super) fn client(
    trust: &Trust,
    credentials: Credentials,
) -> std::result::Result<Client, SetupError> {
    Ok(Client::new(ClientOptions {
        insecure: trust.is_insecure(),
        credentials,
        registries: Registries::load(&RegistriesPaths::from_environment())?,
        certificates: trust.certificates()?,
        ..ClientOptions::default()
    }))
}

/// Returns what a name as people write it may stand for.
///
/// # Errors
/// It is no name; `registries.conf` can't be used.
pub(super) fn candidates(text: &str) -> Result<Vec<Reference>> {
    let registries = Registries::load(&RegistriesPaths::from_environment())?;
    Ok(registries.candidates(text)?)
}

/// Returns where credentials are kept: in the file that the command line names, else where
/// docker and podman keep them.
pub(super) fn credential_paths(authfile: Option<PathBuf>) -> CredentialPaths {
    authfile.map_or_else(CredentialPaths::from_environment, CredentialPaths::only)
}

/// Runs credential helpers for commands that enter no namespace.
pub(super) struct OnTheSpot;

impl HelperRunner for OnTheSpot {
    fn run(
        &self,
        program: &str,
        args: &[&str],
        stdin: &[u8],
    ) -> std::io::Result<std::process::Output> {
        use std::io::Write;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            match pipe.write_all(stdin) {
                // It has answered without reading all.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                other => other?,
            }
        }
        child.wait_with_output()
    }
}

/// Runs credential helpers outside the namespace.
struct OnHost(Builder);

impl HelperRunner for OnHost {
    fn run(
        &self,
        program: &str,
        args: &[&str],
        stdin: &[u8],
    ) -> std::io::Result<std::process::Output> {
        use std::os::unix::process::ExitStatusExt;
        let host: &HostHelper = self.0.host();
        let output = host.run(program, args, stdin)?;
        // A raw wait status: the exit code is its second byte, a signal the first.
        let status = output.code.map_or(libc::SIGKILL, |code| code << 8);
        Ok(std::process::Output {
            status: std::process::ExitStatus::from_raw(status),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

/// Enters the builder's namespace that a running container lies in. `enter` is called there
/// before any thread.
pub(super) fn join<T>(
    store: Store,
    container: &Container,
    enter: impl FnOnce() -> Result<T>,
) -> Result<(Store, Builder, T)> {
    let not_running = || ContainerError::NotRunning(container.record.name.clone());
    let process = container
        .process()
        .filter(|_| container.is_running())
        .ok_or_else(not_running)?;
    interrupt::block();
    let builder = Builder::join(process.pid)?;
    let entered = enter()?;
    interrupt::watch();
    let store = store.with_form(form(&builder))?;
    // The pid was joined; now it is known whose it was.
    container.process().ok_or_else(not_running)?;
    Ok((store, builder, entered))
}

/// Returns the error of what needs the store alone.
pub(super) fn busy(nothing: &str) -> CliError {
    CliError::message(format!("another kiln is at work in this store: {nothing}"))
        .hinted("try again when it has ended")
}

/// Returns how trees are stored by this user: the map is part of it, since a tree that was
/// made under another one has other owners.
pub(super) fn form(builder: &Builder) -> Form {
    let (uids, gids) = builder.maps();
    let map = Digest::of(format!("{uids}{gids}").as_bytes());
    Form {
        ownership: Ownership::Shifted {
            count: builder.step_ids(),
        },
        name: format!("shifted-{}", map.short()),
    }
}

/// Parses `--platform`, or returns the host's.
pub(super) fn platform(text: Option<&str>) -> Result<Platform> {
    match text {
        Some(text) => Ok(text.parse()?),
        None => Ok(Platform::host()),
    }
}

/// Checks that a file can be written later.
pub(super) fn probe_writable(path: &Path) -> Result<()> {
    let existed = path.exists();
    std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| CliError::message(format!("cannot write {}: {e}", path.display())))?;
    if !existed {
        // Nobody shall read it before the build is done.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Creates a file that a command writes its result to, beside the place where it will be.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes)
        .map_err(|e| CliError::message(format!("cannot write {}: {e}", path.display())))
}

impl Workshop {
    /// Gives up the hold and the session: from here on, nothing can be added to the store.
    pub(super) fn give_up(&mut self) {
        self.session.abandon();
        self.store.end_uses();
        self.release();
    }

    /// Gives up the hold, to have the store alone.
    pub(super) fn release(&mut self) {
        drop(self.lease.take());
    }

    /// Gives up the hold, and removes what nothing refers to and no process uses any more.
    pub(super) fn collect(mut self) -> Result<()> {
        self.give_up();
        self.store.collect()?;
        Ok(())
    }
}

impl Workshop {
    /// Starts to show progress, and puts the terminal back when a signal comes.
    pub(super) fn progress(&self, mode: crate::ui::Mode) -> crate::ui::Progress {
        let progress = crate::ui::start(mode);
        let restore = progress.restorer();
        interrupt::on_interrupt(restore);
        progress
    }

    /// Moves images, showing progress meanwhile.
    pub(super) fn transfer<T, E: Into<super::CliError>>(
        &self,
        quiet: bool,
        mode: crate::ui::Mode,
        action: impl FnOnce(&Transfer<'_>) -> std::result::Result<T, E>,
    ) -> Result<T> {
        let mode = if quiet { crate::ui::Mode::Quiet } else { mode };
        let progress = self.progress(mode);
        let reporter = progress.reporter();
        let result = action(&Transfer {
            store: &self.store,
            session: &self.session,
            reporter: &reporter,
            step: None,
        });
        progress.finish();
        result.map_err(Into::into)
    }

    /// Prepares for sandboxes; a fallback is said aloud.
    pub(super) fn sandboxes(
        &self,
        reporter: &dyn crate::event::Reporter,
    ) -> std::result::Result<crate::sandbox::Sandboxes, crate::sandbox::SandboxError> {
        let remembered = self.store.root().join("overlay.json");
        let choice =
            kiln_runtime::overlay_kind(&self.builder, &self.session.directory()?, &remembered)?;
        if let Some(reason) = choice.reason {
            reporter.report(crate::event::Event::Warning {
                message: format!(
                    "steps run on fuse-overlayfs, which is slower, and loses set-gid bits and \
                     default ACLs of directories that get new entries: {reason}"
                ),
                hint: Some("`kiln doctor` says what would help".to_owned()),
            });
        }
        let overlay = choice.kind;
        crate::sandbox::Sandboxes::new(&self.builder, &self.store, &self.session, overlay)
    }
}
