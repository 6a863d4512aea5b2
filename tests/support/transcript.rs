//! Sessions as a user types them, compared with what was seen last time.
//!
//! A transcript is its own script: the lines that begin with `$ ` (and `> ` where a command goes
//! on) are given to a shell that has `kiln` in its PATH; between them stands what came. So a
//! command is added by writing its line, and `UPDATE_EXPECT=1` writes down what it says:
//!
//! ```text
//! $ kiln rmi nothing
//! 2> error: no image "nothing" in the store
//! [exit code 1]
//! ```
//!
//! Standard error has `2> ` before its lines. What differs from run to run has the same name in
//! each: ids are a digit over and over, times are `moments`, and tables are laid out again.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use expect_test::Expect;

use super::{Registry, Sandbox, host_architecture, run, settled};

/// The time limit of a command: ample, so that a busy machine fails no test.
const LIMIT: Duration = Duration::from_secs(120);

/// A user with a home and an empty store.
pub struct Session {
    sandbox: Sandbox,
    /// What is there, and what the transcript calls it.
    names: Vec<(String, String)>,
}

impl Session {
    /// Returns a user `ann`, who has nothing yet.
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        for directory in ["home", "tmp", "bin"] {
            sandbox.directory(directory, &[]);
        }
        symlink(env!("CARGO_BIN_EXE_kiln"), sandbox.join("bin/kiln")).unwrap();
        let place = |name: &str| sandbox.join(name).to_str().unwrap().to_owned();
        let names = vec![
            (place("home"), "/home/ann".to_owned()),
            (place("tmp"), "/tmp".to_owned()),
        ];
        Self { sandbox, names }.call(host_architecture(), "amd64")
    }

    /// Returns a user `ann` who has pulled an image `busybox`.
    pub fn with_busybox() -> Self {
        let base = Registry::shared().busybox();
        let session = Self::new().prepare(&format!(
            "kiln pull -q {base} && kiln tag {base} busybox && kiln rmi {base}"
        ));
        let mut size = session.shell("kiln images --format '{{.Size}}' busybox");
        let size = run(&mut size, LIMIT).ok().line();
        session.call(&size, "1.09MB")
    }

    /// Calls what the machine has by another name in the transcript: a registry's address.
    pub fn call(mut self, value: &str, name: &str) -> Self {
        // As it is, and as the store has it in the names of files.
        for value in [value.to_owned(), value.replace(':', "%3a")] {
            self.names.push((value, name.to_owned()));
        }
        self
    }

    /// Puts files into the home of the user.
    pub fn files(self, files: &[(&str, &str)]) -> Self {
        self.sandbox.directory("home", files);
        self
    }

    /// Runs what no transcript shows.
    #[track_caller]
    pub fn prepare(self, script: &str) -> Self {
        run(&mut self.shell(&self.meant(script)), LIMIT).ok();
        self
    }

    /// Types the commands of a transcript, and compares all that came.
    #[track_caller]
    pub fn transcript(&self, expected: Expect) {
        let mut ids = Ids::default();
        let is_slow = std::env::var_os("KILN_SOAK").is_some();
        let mut text = String::new();
        for command in commands(expected.data()) {
            text += &command.shown;
            if is_slow {
                // Onto another second: what depends on the clock shows then.
                std::thread::sleep(Duration::from_millis(1100));
            }
            let output = run(&mut self.shell(&self.meant(&command.script)), LIMIT);
            text += &ids.named(&self.settled(&output.stdout()));
            let stderr = in_order(&self.settled(&output.stderr()));
            for line in ids.named(&stderr).lines() {
                text += format!("2> {line}").trim_end();
                text += "\n";
            }
            match output.code() {
                Some(0) => {}
                Some(code) => text += &format!("[exit code {code}]\n"),
                None => text += "[killed]\n",
            }
        }
        expected.assert_eq(&text);
    }

    /// Returns a script with what the machine has in place of what transcripts call it.
    fn meant(&self, script: &str) -> String {
        let mut script = script.to_owned();
        for (value, name) in &self.names {
            script = script.replace(name, value);
        }
        script
    }

    fn shell(&self, script: &str) -> Command {
        let bin = self.sandbox.join("bin");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
        let mut command = Command::new("/bin/sh");
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.sandbox.join("home"))
            .env("TMPDIR", self.sandbox.join("tmp"))
            .env("LANG", "C.UTF-8")
            // Images are as old in every run.
            .env("SOURCE_DATE_EPOCH", "946684800")
            .current_dir(self.sandbox.join("home"))
            .args(["-c", script]);
        command
    }

    /// Returns what came with all that differs from run to run made equal.
    fn settled(&self, text: &str) -> String {
        let names: Vec<(&str, &str)> = self
            .names
            .iter()
            .map(|(value, name)| (value.as_str(), name.as_str()))
            .collect();
        let settle = |text: &str| without_ages(&settled(text, &names));
        let parts = text.split("\n\n").map(|part| {
            let end = if part.ends_with('\n') { "\n" } else { "" };
            match part.lines().next().and_then(columns) {
                Some(columns) => table(part, &columns, settle) + end,
                None => part.split_inclusive('\n').map(settle).collect(),
            }
        });
        parts.collect::<Vec<_>>().join("\n\n")
    }
}

/// A command of a transcript.
struct Typed {
    /// As the transcript has it.
    shown: String,
    /// As the shell gets it.
    script: String,
}

fn commands(transcript: &str) -> Vec<Typed> {
    let mut commands: Vec<Typed> = Vec::new();
    let mut goes_on = false;
    for line in transcript.lines().map(str::trim_start) {
        let typed = match (line.strip_prefix("$ "), line.strip_prefix("> ")) {
            (Some(typed), _) => {
                commands.push(Typed {
                    shown: String::new(),
                    script: String::new(),
                });
                goes_on = true;
                typed
            }
            (None, Some(typed)) if goes_on => typed,
            _ => {
                goes_on = false;
                continue;
            }
        };
        if let Some(command) = commands.last_mut() {
            command.shown += &format!("{line}\n");
            command.script += &format!("{typed}\n");
        }
    }
    commands
}

/// Names for ids and digests, in the order in which they come.
#[derive(Default)]
struct Ids {
    /// By the first characters.
    names: BTreeMap<String, String>,
}

impl Ids {
    const SHORT: usize = 12;
    const WHOLE: usize = 64;

    fn named(&mut self, text: &str) -> String {
        let mut named = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = |is_part: fn(char) -> bool| {
                let end = rest.find(|c: char| c.is_ascii_alphanumeric() != is_part('a'));
                end.unwrap_or(rest.len())
            };
            let word = &rest[..end(|_| true)];
            let is_id = [Self::SHORT, Self::WHOLE].contains(&word.len())
                && word
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let taken = match word {
                "" => &rest[..end(|_| false)],
                word => word,
            };
            match is_id {
                true => {
                    let count = self.names.len() + 1;
                    let name = self.names.entry(word[..Self::SHORT].to_owned());
                    let name = name.or_insert_with(|| format!("{count:x}"));
                    named.extend(name.chars().cycle().take(word.len()));
                }
                false => named += taken,
            }
            rest = &rest[taken.len()..];
        }
        named
    }
}

/// Sorts the lines of transfers, each of which ends when it does, and takes out which of them
/// was the first to fail: that is a race.
fn in_order(text: &str) -> String {
    const VERBS: [&str; 4] = ["copy ", "extract ", "pull ", "push "];
    let is_transfer = |line: &str| VERBS.iter().any(|verb| line.starts_with(verb));
    let lines = text.lines();
    let mut lines: Vec<&str> = lines
        .filter(|line| !(is_transfer(line) && line.ends_with(" FAILED")))
        .collect();
    for transfers in lines.chunk_by_mut(|a, b| is_transfer(a) && is_transfer(b)) {
        // By what it is, and not by an id that depends on the machine.
        transfers.sort_unstable_by_key(|line| (line.split(' ').nth(2), *line));
    }
    let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if let Some(at) = text.find(": blob sha256:") {
        let id = at + ": blob sha256:".len();
        text.replace_range(id..(id + Ids::WHOLE).min(text.len()), "…");
    }
    text
}

/// Returns a line with `moments` for every time that has passed, but for years, and with a name
/// for the log of a step.
fn without_ages(line: &str) -> String {
    const UNITS: [&str; 6] = ["second", "minute", "hour", "day", "week", "month"];
    let mut line = line.replace("Less than a second", "moments");
    for unit in UNITS {
        for unit in [format!(" {unit}s"), format!(" {unit}")] {
            let Some(at) = line.find(&unit) else { continue };
            let before = &line[..at];
            let start = match ["About a", "About an"].map(|about| before.strip_suffix(about)) {
                [Some(before), _] | [_, Some(before)] => before.len(),
                _ => before.trim_end_matches(|c: char| c.is_ascii_digit()).len(),
            };
            if start < at {
                line.replace_range(start..at + unit.len(), "moments");
            }
        }
    }
    if let (Some(start), Some(end)) = (line.find("/logs/"), line.find(".log")) {
        line.replace_range(start + "/logs/".len()..end, "STEP");
    }
    line
}

/// Returns where the columns begin, of a line that is the header of a table.
fn columns(header: &str) -> Option<Vec<usize>> {
    let is_header = header.contains(GAP)
        && header
            .chars()
            .all(|c| c.is_ascii_uppercase() || c == ' ' || c == '%');
    let begins =
        |at: &usize| !header[*at..].starts_with(' ') && (header[..*at].ends_with(GAP) || *at == 0);
    is_header.then(|| (0..header.len()).filter(begins).collect())
}

/// What is between the columns of a table, at least.
const GAP: &str = "   ";

/// Lays a table out again, whose cells get other widths.
fn table(text: &str, columns: &[usize], settle: impl Fn(&str) -> String) -> String {
    let cells = |line: &str| -> Vec<String> {
        let line: Vec<char> = line.chars().collect();
        let mut ends = columns[1..].to_vec();
        ends.push(usize::MAX);
        let cells = columns.iter().zip(ends).map(|(start, end)| {
            let cell: String = line.iter().take(end).skip(*start).collect();
            settle(cell.trim_end())
        });
        cells.collect()
    };
    let rows: Vec<Vec<String>> = text.lines().map(cells).collect();
    let mut laid_out = Vec::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let widest = rows.iter().map(|row| row[column].chars().count()).max();
            let width = (widest.unwrap_or(0) + GAP.len()).max(10);
            line += &format!("{cell:width$}");
        }
        laid_out.push(line.trim_end().to_owned());
    }
    laid_out.join("\n")
}
