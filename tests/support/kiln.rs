//! The built binary on a store of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Image, Output, Registry, Sandbox, run, run_from, settled};

/// The time limit of a command: ample, so that a busy machine fails no test.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs `kiln --root <store>` with a clean environment.
pub struct Kiln {
    sandbox: Sandbox,
    environment: Vec<(String, String)>,
    limit: Duration,
}

impl Kiln {
    /// Returns kiln on an empty store.
    pub fn new() -> Self {
        Self::within(Sandbox::new())
    }

    /// Returns kiln on an empty store in the given sandbox.
    pub fn within(sandbox: Sandbox) -> Self {
        sandbox.directory("home", &[]);
        sandbox.directory("tmp", &[]);
        Self {
            sandbox,
            environment: Vec::new(),
            limit: LIMIT,
        }
    }

    /// Sets a variable for all commands that follow.
    pub fn env(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        let value = value.as_ref().to_str().unwrap().to_owned();
        self.environment.push((name.to_owned(), value));
        self
    }

    /// Sets the time limit of all commands that follow.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Returns the directory in which the test may put its own things.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Returns the directory of the store.
    pub fn store(&self) -> PathBuf {
        self.sandbox.join("store")
    }

    /// Returns the command, for tests that start or kill it in their own way.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        // A shell starts what is in the background with SIGINT ignored, and that is inherited.
        kiln_runtime::sys::process::stop_ignoring(Signal::SIGINT);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.sandbox.join("home"))
            .env("TMPDIR", self.sandbox.join("tmp"))
            .env("LANG", "C.UTF-8")
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.sandbox.path())
            .arg("--root")
            .arg(self.store())
            .args(arguments);
        command
    }

    /// Returns kiln, and the name of an image with busybox, which is in its store.
    pub fn with_busybox() -> (Kiln, String) {
        let kiln = Kiln::new();
        let name = Registry::shared().busybox();
        kiln.run(["pull", "-q", &name]).ok();
        (kiln, name)
    }

    /// Starts a command beside the test, with pipes for its outputs.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Child {
        self.command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs a command to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        run(&mut self.command(arguments), self.limit)
    }

    /// Runs a command to its end, with the given bytes as its standard input.
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Output {
        let path = self.sandbox.join("input");
        std::fs::write(&path, input).unwrap();
        let input = std::fs::File::open(&path).unwrap();
        run_from(&mut self.command(arguments), input.into(), self.limit)
    }

    /// Builds a Dockerfile with the given files beside it, as the image `test`, in plain progress.
    /// The directory `context` of the sandbox is written over and not emptied.
    pub fn build(&self, dockerfile: &str, files: &[(&str, &str)]) -> Output {
        self.build_with(&[], dockerfile, files)
    }

    /// Builds as [`Kiln::build`] does, with further arguments.
    pub fn build_with(&self, options: &[&str], dockerfile: &str, files: &[(&str, &str)]) -> Output {
        let context = self.sandbox.directory("context", files);
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let head = ["build", "-t", "test", "--progress", "plain"].map(OsStr::new);
        let options = options.iter().map(OsStr::new);
        self.run(head.into_iter().chain(options).chain([context.as_os_str()]))
    }

    /// Builds instructions on the small base image.
    #[track_caller]
    pub fn build_on_busybox(&self, instructions: &str) -> Output {
        let base = Registry::shared().busybox();
        self.build(&format!("FROM {base}\n{instructions}\n"), &[])
    }

    /// Builds instructions on the small base image, and reads the image.
    #[track_caller]
    pub fn built_on_busybox(&self, instructions: &str) -> Image {
        self.build_on_busybox(instructions).ok();
        self.image("test")
    }

    /// Saves an image as an OCI archive and reads it with the reader of the tests.
    pub fn image(&self, name: &str) -> Image {
        let archive = tempfile::Builder::new()
            .suffix(".tar")
            .tempfile_in(self.sandbox.path())
            .unwrap()
            .into_temp_path();
        let out: &OsStr = archive.as_os_str();
        self.run([
            OsStr::new("save"),
            "--format".as_ref(),
            "oci-archive".as_ref(),
            "-o".as_ref(),
            out,
            name.as_ref(),
        ])
        .ok();
        Image::open(&archive)
    }
}

/// Asserts that what brings an image failed with this text, and that the store holds no image,
/// no blob and no rest of one.
#[track_caller]
pub fn assert_refused(kiln: &Kiln, output: Output, registry: &str, stderr: &str) {
    let output = output.fails();
    assert_eq!(output.code(), Some(1), "{output}");
    assert_eq!(output.stdout(), "");
    let shown = settled(&output.stderr(), &[(registry, "REGISTRY")]);
    // Of the transfers only the end is of interest, and their order is a race.
    let error = shown
        .find("error: ")
        .unwrap_or_else(|| panic!("no error in {shown}"));
    assert_eq!(&shown[error..], stderr);
    assert_eq!(kiln.run(["images", "-q"]).ok().stdout(), "");
    for place in ["tmp", "blobs/sha256", "layers", "refs"] {
        let rests = std::fs::read_dir(kiln.store().join(place)).unwrap();
        assert_eq!(rests.count(), 0, "something is left in {place}");
    }
}
