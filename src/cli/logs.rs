//! `kiln logs`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::detach::{LogLine, must_be_logged};
use super::{CliError, Result, session};
use crate::store::{Container, Store};

/// Arguments of `kiln logs`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Go on with what it writes until it ends
    #[arg(short, long)]
    follow: bool,
    /// Print when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only so many lines from the end, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all")]
    tail: String,
    /// Only what was written since: 10m, or a date
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written before: 10m, or a date
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// A name, or the beginning of an id
    container: String,
}

/// How often a log is looked at for more.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = session::open_store(root)?;
    let container = store.find_container(&arguments.container)?;
    must_be_logged(&container)?;
    let tail = match arguments.tail.as_str() {
        "all" => None,
        number => Some(number.parse::<usize>().map_err(|_| {
            CliError::message(format!("--tail {number:?} is neither a number nor all")).with_code(2)
        })?),
    };
    let moment = |text: &Option<String>| text.as_deref().map(super::prune::moment).transpose();
    let filter = Shown {
        timestamps: arguments.timestamps,
        since: moment(&arguments.since)?,
        until: moment(&arguments.until)?,
    };
    let Ok(log) = File::open(container.log()) else {
        return Ok(ExitCode::SUCCESS);
    };
    match filter.show(&store, &container, log, tail, arguments.follow) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        other => {
            other?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What is shown of a log, and how.
struct Shown {
    timestamps: bool,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
}

impl Shown {
    fn show(
        &self,
        store: &Store,
        container: &Container,
        log: File,
        tail: Option<usize>,
        follow: bool,
    ) -> io::Result<()> {
        let mut reader = BufReader::new(log);
        let mut line = String::new();
        let mut last: std::collections::VecDeque<LogLine> = Default::default();
        while let Some(entry) = next(&mut reader, &mut line)? {
            match tail {
                _ if !self.wants(&entry) => {}
                None => self.write(&entry)?,
                Some(0) => {}
                Some(most) => {
                    if last.len() == most {
                        last.pop_front();
                    }
                    last.push_back(entry);
                }
            }
        }
        for entry in last {
            self.write(&entry)?;
        }
        if !follow {
            return Ok(());
        }
        loop {
            // First whether it runs, then what it wrote: so nothing is missed.
            let runs = store
                .find_container(&container.record.id)
                .is_ok_and(|container| container.is_running());
            while let Some(entry) = next(&mut reader, &mut line)? {
                if self.wants(&entry) {
                    self.write(&entry)?;
                }
            }
            if !runs {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn wants(&self, entry: &LogLine) -> bool {
        let time = entry.time.parse::<jiff::Timestamp>().map(SystemTime::from);
        let Ok(time) = time else {
            return true;
        };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    fn write(&self, entry: &LogLine) -> io::Result<()> {
        let text = match self.timestamps {
            true => format!("{} {}", entry.time, entry.log),
            false => entry.log.clone(),
        };
        if entry.stream == "stderr" {
            io::stderr().lock().write_all(text.as_bytes())
        } else {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        }
    }
}

/// Reads the next whole line; nothing where there is none yet. What is not whole stays in `line`.
fn next(reader: &mut impl BufRead, line: &mut String) -> io::Result<Option<LogLine>> {
    loop {
        reader.read_line(line)?;
        if !line.ends_with('\n') {
            return Ok(None);
        }
        let entry = serde_json::from_str(line);
        line.clear();
        // A line that a crash has cut is left out.
        if let Ok(entry) = entry {
            return Ok(Some(entry));
        }
    }
}
