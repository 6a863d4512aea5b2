//! Containers in the background. There is no daemon: the kiln that started one goes on by itself,
//! without a terminal, and keeps what the container writes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_runtime::sys::process::{self, Fork};
use kiln_runtime::{Stdio, WindowSize};
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{CliError, Result, output_line};
use crate::sandbox;
use crate::store::Container;

/// A line of a log, in the form that docker's `json-file` has.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LogLine {
    pub(super) log: String,
    pub(super) stream: String,
    pub(super) time: String,
}

/// A line is split where it is longer, in bytes: as docker does it.
const LONGEST: u64 = 16 << 10;

/// The process in the background, which tells the one in the foreground that all is well.
pub(super) struct Detached(PipeWriter);

/// Goes on in the background, and prints the id of the container when that runs there.
pub(super) fn run(background: impl FnOnce(Detached) -> Result<ExitCode>) -> Result<ExitCode> {
    let (id, code) = fork(background)?;
    if !id.is_empty() {
        output_line(&id)?;
    }
    Ok(code)
}

/// As [`run`], and prints nothing.
pub(super) fn run_silently(
    background: impl FnOnce(Detached) -> Result<ExitCode>,
) -> Result<ExitCode> {
    fork(background).map(|(_, code)| code)
}

fn fork(background: impl FnOnce(Detached) -> Result<ExitCode>) -> Result<(String, ExitCode)> {
    let (reader, writer) = io::pipe()?;
    match process::fork_single_threaded().map_err(io::Error::from)? {
        Fork::Child => {
            drop(reader);
            let code = match background(Detached(writer)) {
                Ok(_) => 0,
                Err(error) => {
                    super::interrupt::yield_to_signal();
                    error.show();
                    error.code().into()
                }
            };
            process::exit_now(code)
        }
        Fork::Parent(pid) => {
            drop(writer);
            let mut id = String::new();
            // Its helper has the other end open too: a line is all that comes.
            BufReader::new(reader).read_line(&mut id)?;
            if let Some(id) = id.strip_suffix('\n') {
                return Ok((id.to_owned(), ExitCode::SUCCESS));
            }
            // It has said why.
            let code = match waitpid(Pid::from_raw(pid), None) {
                Ok(WaitStatus::Exited(_, code)) => u8::try_from(code).unwrap_or(125),
                Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as u8,
                _ => 125,
            };
            Ok((id, ExitCode::from(code)))
        }
    }
}

/// What keeps the output of a container.
pub(super) struct Logging {
    threads: Vec<JoinHandle<()>>,
}

/// The readers of a container's pipes, until it runs.
pub(super) struct Pipes(Vec<(File, &'static str)>);

impl Detached {
    /// Returns what the container gets. What it writes waits in pipes.
    pub(super) fn open(&self, pipes: &mut Pipes, is_terminal: bool) -> Result<Stdio> {
        if is_terminal {
            return Ok(Stdio::Terminal(WindowSize::default()));
        }
        let mut output = |stream| -> io::Result<OwnedFd> {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            pipes.0.push((File::from(read), stream));
            Ok(write)
        };
        Ok([sandbox::dev_null()?, output("stdout")?, output("stderr")?].into())
    }

    /// Leaves the terminal and tells that the container runs; keeps what it writes.
    pub(super) fn begin(
        self,
        container: &Container,
        mut pipes: Pipes,
        master: Option<OwnedFd>,
    ) -> Result<Logging> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(container.log())?;
        let log = Arc::new(Mutex::new(log));
        pipes.0.extend(master.map(|fd| (File::from(fd), "stdout")));
        let threads = pipes.0.into_iter().map(|(pipe, stream)| {
            let log = log.clone();
            std::thread::spawn(move || keep(pipe, stream, &log))
        });
        let logging = Logging {
            threads: threads.collect(),
        };
        self.leave(&container.record.id)?;
        Ok(logging)
    }

    /// Leaves the terminal, and tells that all is well.
    pub(super) fn leave(mut self, word: &str) -> Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let redirected = nix::unistd::dup2_stdin(&null)
            .and_then(|()| nix::unistd::dup2_stdout(&null))
            .and_then(|()| nix::unistd::dup2_stderr(&null));
        redirected.map_err(io::Error::from)?;
        // It leads no session yet, being the child of a fork.
        let _ = nix::unistd::setsid();
        self.0.write_all(format!("{word}\n").as_bytes())?;
        Ok(())
    }
}

impl Pipes {
    /// Returns none.
    pub(super) fn new() -> Pipes {
        Pipes(Vec::new())
    }
}

/// Writes what comes out of a pipe to a log, line by line.
fn keep(pipe: File, stream: &str, log: &Mutex<File>) {
    let mut reader = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        // A terminal's end is an error. What came before it counts.
        let read = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        if !line.is_empty() {
            let entry = LogLine {
                log: String::from_utf8_lossy(&line).into_owned(),
                stream: stream.to_owned(),
                time: jiff::Timestamp::now().to_string(),
            };
            let mut bytes = serde_json::to_vec(&entry).unwrap_or_default();
            bytes.push(b'\n');
            // On a full disk the container goes on, and its words are lost.
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = log.write_all(&bytes);
        }
        if line.is_empty() || read.is_err() {
            return;
        }
    }
}

impl Logging {
    /// Waits until all is written.
    pub(super) fn finish(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Fails where a container's output was not kept.
pub(super) fn must_be_logged(container: &Container) -> Result<()> {
    let name = &container.record.name;
    if container.log().exists() {
        return Ok(());
    }
    let error = match container.status.started.is_some() {
        true => CliError::message(format!("the output of container {name} was not kept"))
            .hinted("it went to who was attached; in the background (-d) it is kept"),
        false => return Ok(()),
    };
    Err(error)
}
