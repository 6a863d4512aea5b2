//! Kills kiln at random moments, and looks at what is left.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Kiln, Registry, say};

/// Numbers that look random, the same for the same seed.
pub struct Random(u64);

impl Random {
    /// Seeds with the time, and says the seed.
    pub fn from_time() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = now.as_nanos() as u64 | 1;
        say(&format!("seed {seed}"));
        Self(seed)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }
}

/// How long the removal of what a command has left may take.
const SWEEP: Duration = Duration::from_secs(20);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process that was started.
    Process,
    /// Its whole process group.
    Group,
}

/// Returns a number that stands in the command line of a test's steps and nowhere else.
pub fn unique_marker() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("9{:09}", now.as_nanos() % 1_000_000_000)
}

/// Returns the pids of all processes on the host that have `text` in their command line.
pub fn processes_with(text: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name == own || !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // It may have ended since.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(text) {
            found.extend(name.parse::<i32>());
        }
    }
    found
}

/// Waits until no process has `text` in its command line; panics after `limit`.
#[track_caller]
pub fn assert_no_process_with(text: &str, limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        let left = processes_with(text);
        if left.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "processes {left:?} with {text:?} in their command line are left"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the names in a directory of a kiln's store.
pub fn names_in(kiln: &Kiln, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(kiln.store().join(directory)).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Panics unless nothing half-done is in a store.
#[track_caller]
pub fn assert_swept(kiln: &Kiln) {
    // Large trees are removed behind the command that left them.
    let deadline = Instant::now() + SWEEP;
    while !names_in(kiln, "trash").is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    for directory in ["tmp", "trash"] {
        let names = names_in(kiln, directory);
        assert!(names.is_empty(), "{directory}/ still has {names:?}");
    }
}

/// Returns the files below a directory whose names begin with a dot.
fn hidden_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry.path());
        } else if entry.file_type().unwrap().is_dir() {
            hidden_files(&entry.path(), found);
        }
    }
}

/// A store whose kiln is killed again and again.
pub struct Victim {
    kiln: Kiln,
    base: String,
    /// What is pulled while being killed; no other image shares its layers.
    pulled: String,
    marker: String,
    random: Random,
}

impl Victim {
    /// Makes a store with an image in it that must stay.
    pub fn new(pulled: String) -> Self {
        let kiln = Kiln::new();
        let base = Registry::shared().busybox();
        kiln.build(&format!("FROM {base}\nRUN echo whole > /kept\n"), &[])
            .ok();
        kiln.run(["tag", "test", "kept"]).ok();
        Self {
            kiln,
            base,
            pulled,
            marker: unique_marker(),
            random: Random::from_time(),
        }
    }

    fn context(&self) -> PathBuf {
        let (base, marker) = (&self.base, &self.marker);
        // A background process that outlives the command, many files, a large one, a change of
        // user that clears the death signal, a copy.
        let dockerfile = format!(
            "FROM {base}\n\
             RUN sleep {marker} & mkdir /many && for i in $(seq 200); do echo $i > /many/$i; done\n\
             RUN dd if=/dev/zero of=/large bs=1M count=16 2>/dev/null; rm -r /many\n\
             COPY files /files\n\
             RUN exec su -s /bin/sh nobody -c 'sleep {marker} & sleep 0.1'\n\
             RUN test -e /files/b && test ! -e /many && echo done > /done\n"
        );
        let files = [
            ("files/a", "a"),
            ("files/b", "b"),
            ("Dockerfile", &dockerfile),
        ];
        self.kiln.sandbox().directory("victim", &files)
    }

    fn arguments(&self, operation: u64) -> Vec<String> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        match operation {
            0 => words(&format!("pull {}", self.pulled)),
            1 => words(&format!("rmi -f {}", self.pulled)),
            2 => words("tag kept again"),
            _ => {
                let mut all = words("build --no-cache --progress plain -t test");
                all.push(self.context().to_str().unwrap().to_owned());
                all
            }
        }
    }

    /// Runs each operation to its end once, to know how long they take; then starts operations
    /// and kills them, `count` times.
    pub fn suffer(&mut self, count: usize) {
        let spans: Vec<Duration> = (0..4)
            .map(|operation| self.kiln.run(self.arguments(operation)).ok().elapsed)
            .collect();
        assert_no_process_with(&self.marker, Duration::from_secs(2));
        for round in 0..count {
            let operation = match self.random.below(10) {
                0..3 => 0,
                3 => 1,
                4 => 2,
                _ => 3,
            };
            let scope = [Scope::Process, Scope::Group][self.random.below(2) as usize];
            // A little longer than it takes: some of them end by themselves.
            let span = spans[operation].as_micros() as u64 * 11 / 10;
            let pause = Duration::from_micros(self.random.below(span));
            let arguments = self.arguments(operation as u64);
            say(&format!(
                "kill {} of {count}: {scope:?} of {} after {pause:?}",
                round + 1,
                arguments[0]
            ));
            self.kill(&arguments, scope, pause);
        }
    }

    fn kill(&self, arguments: &[String], scope: Scope, pause: Duration) {
        let mut child = self
            .kiln
            .command(arguments)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(pause);
        match scope {
            Scope::Process => child.kill().unwrap(),
            // It fails where all have ended.
            Scope::Group => drop(killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL)),
        }
        child.wait().unwrap();
    }

    /// Starts operations and interrupts them, `count` times. Each must end as one that was
    /// interrupted, or well, and have taken all with it by then.
    pub fn be_interrupted(&mut self, count: usize) {
        let log = self.kiln.sandbox().join("stderr");
        for round in 0..count {
            let operation = [0, 1, 3, 3][self.random.below(4) as usize];
            let arguments = self.arguments(operation);
            let pause = Duration::from_micros(self.random.below(400_000));
            say(&format!(
                "interrupt {} of {count}: {} after {pause:?}",
                round + 1,
                arguments[0]
            ));
            let mut child = self
                .kiln
                .command(&arguments)
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(&log).unwrap())
                .spawn()
                .unwrap();
            thread::sleep(pause);
            // As the terminal does: to the whole group.
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGINT);
            let sent = Instant::now();
            let status = child.wait().unwrap();
            assert!(sent.elapsed() < Duration::from_secs(2));
            // Before kiln holds signals back, there is nothing to take away.
            let ended = status.signal() == Some(Signal::SIGINT as i32)
                || matches!(status.code(), Some(0 | 130));
            assert!(ended, "{status:?} {}", fs::read_to_string(&log).unwrap());
            if self.kiln.store().join("tmp").exists() {
                assert_swept(&self.kiln);
            }
            assert_no_process_with(&self.marker, Duration::from_millis(200));
        }
    }

    /// Panics unless the store works as if nothing had happened.
    pub fn assert_unharmed(&self) {
        let limit = Duration::from_secs(2);
        assert_no_process_with(&self.marker, limit);
        assert_no_process_with(self.kiln.store().to_str().unwrap(), limit);
        let kept = ["run", "kept", "cat", "/kept"];
        assert_eq!(self.kiln.run(kept).ok().stdout(), "whole\n");
        self.kiln.run(self.arguments(3)).ok();
        assert_swept(&self.kiln);
        let done = ["run", "test", "cat", "/done", "/files/a"];
        assert_eq!(self.kiln.run(done).ok().stdout(), "done\na");
        self.kiln.run(self.arguments(0)).ok();
        self.kiln.run(["inspect", &self.pulled]).ok();
        let images = self.kiln.run(["images"]).ok().stdout();
        for name in ["kept", "test"] {
            assert!(
                images.lines().any(|line| line.starts_with(name)),
                "{images}"
            );
        }
        // What a kill left in between files is garbage, and goes with the next collection.
        self.kiln.run(self.arguments(1)).ok();
        let mut hidden = Vec::new();
        hidden_files(&self.kiln.store(), &mut hidden);
        hidden.retain(|path| !path.components().any(|part| part.as_os_str() == "fs"));
        assert!(hidden.is_empty(), "{hidden:?}");
        assert_eq!(self.kiln.run(kept).ok().stdout(), "whole\n");
        assert_swept(&self.kiln);
        assert_no_process_with(&self.marker, limit);
    }
}
