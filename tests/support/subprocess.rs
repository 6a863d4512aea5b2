//! Runs a program with a time limit and keeps all that it says.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the pipes may stay open after the program has ended.
const GRACE: Duration = Duration::from_secs(5);

/// Waits until a condition holds; panics after 30 s.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Output {
    command: String,
    status: Option<ExitStatus>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How long it ran.
    pub elapsed: Duration,
}

/// Runs a command to its end, or kills it at the limit and panics. Kills only its own child.
pub fn run(command: &mut Command, limit: Duration) -> Output {
    run_from(command, Stdio::null(), limit)
}

/// As [`run`], with an input.
pub fn run_from(command: &mut Command, input: Stdio, limit: Duration) -> Output {
    let shown = format!("{command:?}");
    let started = Instant::now();
    let mut child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown} did not start: {error}"));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let status = wait(&mut child, started + limit);
    let elapsed = started.elapsed();
    let deadline = Instant::now() + GRACE;
    let (stdout, stdout_closed) = receive(&stdout, deadline);
    let (stderr, stderr_closed) = receive(&stderr, deadline);
    let output = Output {
        command: shown,
        status,
        stdout,
        stderr,
        elapsed,
    };
    assert!(
        status.is_some(),
        "still running after {limit:?}, killed\n{output}"
    );
    assert!(
        stdout_closed && stderr_closed,
        "a process outlived the command and holds its output open\n{output}"
    );
    output
}

fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    // Short at first: most commands take milliseconds, and tests run hundreds of them.
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Returns what came until the pipe closed or the deadline passed, and whether it closed.
fn receive(pieces: &mpsc::Receiver<Vec<u8>>, deadline: Instant) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match pieces.recv_timeout(left) {
            Ok(piece) => all.extend(piece),
            Err(mpsc::RecvTimeoutError::Disconnected) => return (all, true),
            Err(mpsc::RecvTimeoutError::Timeout) => return (all, false),
        }
    }
}

impl Output {
    /// Panics with all output unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.code() == Some(0), "expected success\n{self}");
        self
    }

    /// Panics with all output unless the command failed by its own exit code.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(
            self.code().is_some_and(|code| code != 0),
            "expected an exit code above 0\n{self}"
        );
        self
    }

    /// Panics unless the command failed and its stderr has the text.
    #[track_caller]
    pub fn fails_with(self, text: &str) -> Self {
        let output = self.fails();
        assert!(
            output.stderr().contains(text),
            "expected {text:?} on stderr\n{output}"
        );
        output
    }

    /// Returns the exit code; none after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// Returns how the command ended; none when it was killed at its limit.
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Returns stdout as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Returns stdout as it came.
    pub fn stdout_bytes(&self) -> &[u8] {
        &self.stdout
    }

    /// Returns stderr as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Returns stdout without white space at its ends.
    pub fn line(&self) -> String {
        self.stdout().trim().to_owned()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "command: {}", self.command)?;
        match self.status {
            Some(status) => writeln!(f, "ended after {:?}: {status}", self.elapsed)?,
            None => writeln!(f, "killed after {:?}", self.elapsed)?,
        }
        writeln!(
            f,
            "--- stdout\n{}--- stderr\n{}---",
            self.stdout(),
            self.stderr()
        )
    }
}
