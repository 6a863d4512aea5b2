//! Runs the example binaries as the user that the tests run as.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Returns the path of an example: cargo builds them beside the tests.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build --examples",
        path.display()
    );
    path
}

/// Tells whether sandboxes work here, for a test that is passed over where they don't:
/// loudly, and not at all under `KILN_TEST_NO_SKIP=1`.
#[must_use]
pub fn sandboxes_work() -> bool {
    require("sandbox")
}

/// Tells the same of one feature, as `host_features` names it.
#[must_use]
pub fn require(feature: &str) -> bool {
    assert!(
        !nix::unistd::geteuid().is_root(),
        "these tests are about what protects an ordinary user, and prove nothing as root: \
         run ./ci/test, which runs them as one"
    );
    static FEATURES: OnceLock<serde_json::Value> = OnceLock::new();
    let features = FEATURES.get_or_init(|| features(&[]));
    let probed = features["features"]
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["feature"] == feature)
        .unwrap();
    probed["state"] == "works"
        || skip(&format!(
            "{feature}: {}, {}",
            probed["reason"], probed["remedy"]
        ))
}

/// Passes a test over: loudly, and not at all under `KILN_TEST_NO_SKIP=1`.
pub fn skip(reason: &str) -> bool {
    assert!(
        std::env::var_os("KILN_TEST_NO_SKIP").is_none_or(|v| v != "1"),
        "skipped, and KILN_TEST_NO_SKIP=1: {reason}"
    );
    // Not by a macro, whose output the test harness would hide.
    let _ = writeln!(
        std::io::stderr(),
        "SKIP {}: {reason}",
        std::thread::current().name().unwrap_or_default()
    );
    false
}

/// Returns what the probe says, with variables added to its environment.
pub fn features(env: &[(&str, &str)]) -> serde_json::Value {
    let store = directory();
    let output = Command::new(example("host_features"))
        .arg(store.path())
        .envs(env.iter().copied())
        .output()
        .unwrap();
    assert_eq!(entries(store.path()), [""; 0], "the probe left something");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Returns a temporary directory that the ids of sandboxes may enter.
pub fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Returns the sorted names in a directory.
pub fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Returns a directory root with the host's shell, a few programs and their libraries, and
/// a file `marker`.
pub fn small_root() -> TempDir {
    let root = directory();
    for name in ["proc", "sys", "dev", "tmp", "bin"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    fs::write(root.path().join("marker"), "marker").unwrap();
    for program in [
        "sh", "cat", "ls", "env", "id", "sleep", "rm", "mkdir", "touch", "perl", "rmdir", "chmod",
    ] {
        let source = ["/bin", "/usr/bin"]
            .map(|dir| Path::new(dir).join(program))
            .into_iter()
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("the host has no {program}"));
        fs::copy(&source, root.path().join("bin").join(program)).unwrap();
        let libraries = Command::new("ldd").arg(&source).output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        for library in libraries.split_whitespace().filter(|w| w.starts_with('/')) {
            let copy = root.path().join(&library[1..]);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            if !copy.exists() {
                fs::copy(library, copy).unwrap();
            }
        }
    }
    root
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Returns standard output, trimmed, of a run that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.trim().to_owned()
    }

    /// Asserts a failure whose output has all the words.
    #[track_caller]
    pub fn fails_with(&self, words: &[&str]) {
        assert_ne!(self.code, Some(0), "{self:?}");
        for word in words {
            let said = self.stderr.contains(word) || self.stdout.contains(word);
            assert!(said, "{word:?} is not in {self:?}");
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Returns a command that runs words in a sandbox of `run_in_directory`: options, the root,
/// the command line.
pub fn sandbox<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(example("run_in_directory"));
    command.args(words);
    command
}

/// Runs a shell script in a sandbox whose root is the host's.
pub fn script(text: &str) -> Run {
    run(&mut sandbox(["/", "sh", "-c", text]))
}

/// Runs perl in a sandbox whose root is the host's: for system calls that no program makes.
pub fn perl(text: &str) -> Run {
    run(&mut sandbox(["/", "perl", "-e", text]))
}

/// Waits until `condition` gives something, at most for `seconds`.
pub fn within<T>(seconds: u64, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the process on the host that was started with exactly these words.
pub fn find_process(words: &[&str]) -> Option<i32> {
    let wanted: Vec<u8> = words
        .iter()
        .flat_map(|w| [w.as_bytes(), b"\0"].concat())
        .collect();
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        (cmdline == wanted).then_some(pid)
    })
}

/// A sandbox in the background, whose builder is killed at the end of the test.
pub struct Background {
    pub builder: Child,
    /// The first process in the sandbox, as the host sees it.
    pub step: i32,
}

impl Background {
    /// Starts a sandbox with the host's root, and waits until the command runs.
    pub fn start(command: &[&str]) -> Background {
        Background::start_as(command, command)
    }

    /// Starts a command that executes another, and waits until that runs.
    pub fn start_as(command: &[&str], shown: &[&str]) -> Background {
        use std::os::unix::process::CommandExt;
        // A shell starts what runs in the background with SIGINT ignored.
        kiln_runtime::sys::process::stop_ignoring(nix::sys::signal::Signal::SIGINT);
        let words = [&["/"], command].concat();
        let builder = sandbox(words)
            .stdin(Stdio::null())
            // As a shell does it: Ctrl-C goes to this group.
            .process_group(0)
            .spawn()
            .unwrap();
        let step = within(10, || find_process(shown)).expect("the step does not start");
        Background { builder, step }
    }

    /// Asserts that the step ends soon.
    #[track_caller]
    pub fn assert_step_ends(&self) {
        let proc = PathBuf::from(format!("/proc/{}", self.step));
        let gone = within(2, || (!proc.exists()).then_some(()));
        assert!(gone.is_some(), "the step goes on without its builder");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.builder.kill();
        let _ = self.builder.wait();
    }
}
