//! Debian's docker-registry on loopback, with base images that kiln did not make.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::{Sandbox, TestAuthority, run};

/// The base images of this machine, as `ci/bases` describes them.
pub struct Bases {
    directory: PathBuf,
    names: String,
}

impl Bases {
    /// Returns the base images; makes them, which takes a minute, on the first use on a machine.
    pub fn shared() -> &'static Self {
        static BASES: OnceLock<Bases> = OnceLock::new();
        BASES.get_or_init(|| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/bases");
            let output = run(Command::new(script).arg("-p"), Duration::from_secs(900)).ok();
            let directory = PathBuf::from(output.line());
            let names = fs::read_to_string(directory.join("names")).unwrap();
            Bases { directory, names }
        })
    }

    /// Returns the tar of the Debian root file system.
    pub fn debian_tar(&self) -> PathBuf {
        self.directory.join("debian.tar")
    }

    /// Returns the tar of the busybox root file system.
    pub fn busybox_tar(&self) -> PathBuf {
        self.directory.join("busybox.tar")
    }

    fn name(&self, key: &str) -> &str {
        let line = self
            .names
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("ci/bases made no {key}"))
    }
}

/// A running registry. It dies with this process, however that ends.
pub struct Registry {
    address: String,
    child: Child,
    sandbox: Sandbox,
}

impl Registry {
    /// Returns the registry of this test process.
    pub fn shared() -> &'static Self {
        // A static is never dropped: its directory lies in the target directory of cargo, and
        // what an earlier process left is swept here.
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        REGISTRY.get_or_init(|| {
            let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
            sweep(parent);
            Self::start_in(Sandbox::named_by_process("registry"), "", "")
        })
    }

    /// Starts a registry with the base images that a test may change and stop.
    pub fn start() -> Self {
        Self::start_in(Sandbox::on_disk(), "", "")
    }

    /// Starts a registry of a test that asks for a user, given as a line of an htpasswd file
    /// (with bcrypt, which is all that docker-registry takes).
    pub fn start_with_user(htpasswd: &str) -> Self {
        let sandbox = Sandbox::on_disk();
        let path = sandbox.join("htpasswd");
        fs::write(&path, htpasswd).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: tests, path: {path:?}}}}}\n");
        Self::start_in(sandbox, "", &auth)
    }

    /// Starts a registry of a test that speaks TLS, with the files of a [`TestAuthority`]; with
    /// `clients`, to those whom the authority knows.
    pub fn start_with_tls(authority: &TestAuthority, clients: bool) -> Self {
        let sandbox = Sandbox::on_disk();
        let (certificate, key) = authority.issue("127.0.0.1");
        let clients = match clients {
            true => format!(", clientcas: [{:?}]", authority.certificate()),
            false => String::new(),
        };
        let tls = format!(", tls: {{certificate: {certificate:?}, key: {key:?}{clients}}}");
        Self::start_in(sandbox, &tls, "")
    }

    fn start_in(sandbox: Sandbox, http: &str, settings: &str) -> Self {
        let storage = sandbox.join("storage");
        copy_storage(&Bases::shared().directory.join("registry"), &storage);
        let config = sandbox.join("registry.yml");
        // The kernel picks the port, and the log says which: no two registries can collide.
        let text = format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {storage:?}}}\n  delete: {{enabled: true}}\n  \
             maintenance: {{uploadpurging: {{enabled: false}}}}\n\
             http: {{addr: '127.0.0.1:0', secret: loopback{http}}}\n{settings}"
        );
        fs::write(&config, text).unwrap();
        let log = sandbox.join("registry.log");
        let mut child = spawn_bound_to_process(&config, &log);
        let deadline = Instant::now() + Duration::from_secs(30);
        let address = loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(address) = listening_address(&text) {
                break address.to_owned();
            }
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "docker-registry did not start ({ended:?})\n{text}"
            );
            thread::sleep(Duration::from_millis(5));
        };
        Self {
            address,
            child,
            sandbox,
        }
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the reference of a repository here.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Returns the reference of the distribution's base image, which has apt.
    pub fn debian(&self) -> String {
        self.reference(Bases::shared().name("debian"))
    }

    /// Returns the reference of the small base image.
    pub fn busybox(&self) -> String {
        self.reference(Bases::shared().name("busybox"))
    }

    /// Returns the reference of an index for amd64 and arm64, which differ in `/architecture`.
    pub fn multi(&self) -> String {
        self.reference(Bases::shared().name("multi"))
    }

    /// Returns the directory of blobs and links, for tests that damage them.
    pub fn storage(&self) -> PathBuf {
        self.sandbox.join("storage")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the registry so that the kernel kills it when this process dies.
///
/// That signal follows the *thread* that made the child, and the threads of tests end with the
/// test: so one thread, which sleeps as long as the process lives, makes all of them.
fn spawn_bound_to_process(config: &Path, log: &Path) -> Child {
    type Request = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(log).unwrap());
    let (reply, answer) = mpsc::channel();
    spawner.send((command, reply)).unwrap();
    answer
        .recv()
        .unwrap()
        .expect("setpriv of util-linux starts docker-registry")
}

fn listening_address(log: &str) -> Option<&str> {
    let (_, rest) = log.split_once("listening on ")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
    Some(&rest[..end])
}

/// Copies a registry's storage: blobs by hard link where it can, since no one writes into a
/// blob; the rest, which the registry overwrites in place, for real.
fn copy_storage(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_storage(&entry.path(), &target);
        } else if entry.file_name() != "data" || fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Removes the directories of registries whose processes have ended.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix("registry."));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
