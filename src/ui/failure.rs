//! The report of a step that failed: where it stands, what ran, how it ended, and what it
//! said last.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

use nix::sys::signal::Signal;

use super::diagnostics::{Look, push_hint};
use super::text::{self, LineBuffer};

/// How many of the last lines of output are shown.
const OUTPUT_LINES: usize = 20;

/// Lines of the Dockerfile shown above and below the instruction.
const CONTEXT_LINES: usize = 2;

/// How the process of a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    fn describe(self) -> String {
        match self {
            Exit::Code(126) => "exit code: 126 (command can't be executed)".to_owned(),
            Exit::Code(127) => "exit code: 127 (command not found)".to_owned(),
            // A shell reports the signal that ended its child as 128 + signal.
            Exit::Code(code) => match code.checked_sub(128).and_then(signal_name) {
                Some(name) => format!("exit code: {code} (128 + {name})"),
                None => format!("exit code: {code}"),
            },
            Exit::Signal(signal) => match signal_name(signal) {
                Some(name) => format!("killed by: {name}"),
                None => format!("killed by: signal {signal}"),
            },
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Signal::try_from(signal).ok().map(Signal::as_str)
}

/// What is known of a step that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// The name of the step, as in its events.
    pub step: &'a str,
    /// Where it stands in the Dockerfile, as [`excerpt`] shows it; may be empty.
    pub excerpt: &'a str,
    /// The command and its arguments.
    pub command: &'a [String],
    /// How it ended.
    pub exit: Exit,
    /// The output of the step, or the end of it.
    pub output: &'a [u8],
    /// The file that holds all of the output.
    pub log: Option<&'a Path>,
    /// What to do about it.
    pub hint: Option<&'a str>,
}

impl Failure<'_> {
    /// Returns the report.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{} step failed: {}",
            Look::Error.paint("error:", colour),
            text::one_line(self.step)
        );
        for line in text::sanitise(self.excerpt.as_bytes()).lines() {
            let line = match line.starts_with('>') {
                true => Look::Bold.paint(line, colour),
                false => line.to_owned(),
            };
            let _ = writeln!(out, "{line}");
        }
        let _ = writeln!(out, "  command: {}", shell_words(self.command));
        let _ = writeln!(out, "  {}", self.exit.describe());
        let (lines, cut) = last_lines(self.output);
        let heading = match (lines.len(), cut) {
            (0, _) => "  output: none".to_owned(),
            (_, false) => "  output:".to_owned(),
            (shown, true) => format!("  last {shown} lines of output:"),
        };
        let _ = writeln!(out, "{heading}");
        for line in lines {
            let line = format!("    {line}");
            let _ = writeln!(out, "{}", Look::Dim.paint(line.trim_end(), colour));
        }
        if let Some(log) = self.log {
            let log = text::one_line(&log.to_string_lossy());
            let _ = writeln!(out, "  full log: {log}");
        }
        push_hint(&mut out, self.hint, colour);
        out
    }
}

/// Returns the lines of a Dockerfile around an instruction, which spans `lines` (from 1),
/// each with its number; those of the instruction are marked with `>`.
pub fn excerpt(file: &str, source: &str, lines: RangeInclusive<usize>) -> String {
    let (start, end) = (*lines.start(), *lines.end());
    let first = start.saturating_sub(CONTEXT_LINES).max(1);
    let last = end
        .saturating_add(CONTEXT_LINES)
        .min(source.lines().count());
    let digits = last.to_string().len().max(3);
    let mut out = format!("  {}:{start}\n", text::one_line(file));
    for (at, line) in (first..=last).zip(source.lines().skip(first - 1)) {
        let mark = if lines.contains(&at) { '>' } else { ' ' };
        let line = text::sanitise(line.as_bytes());
        let line = format!("{mark} {at:digits$} | {line}");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Returns a command as one could type it into a shell.
fn shell_words(command: &[String]) -> String {
    let words = command.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        }
    });
    let text = words.collect::<Vec<_>>().join(" ");
    text::sanitise(text.as_bytes()).replace('\n', "\n    ")
}

/// Returns the last lines of `output`, and whether there were more.
fn last_lines(output: &[u8]) -> (Vec<String>, bool) {
    let mut buffer = LineBuffer::default();
    let mut lines = Vec::new();
    buffer.push(output, |line| lines.push(line));
    buffer.finish(|line| lines.push(line));
    let cut = lines.len().saturating_sub(OUTPUT_LINES);
    lines.drain(..cut);
    (lines, cut > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERFILE: &str = "\
FROM debian:12
COPY . /src

RUN apt-get update && \\
    apt-get install -y nothing
USER www-data
CMD [\"sh\"]
LABEL a=b
";

    fn failure(output: &[u8], exit: Exit) -> String {
        let command = ["/bin/sh", "-c", "apt-get update && echo 'x'"].map(str::to_owned);
        Failure {
            step: "[build 3/5] RUN apt-get update &&     apt-get install -y nothing",
            excerpt: &excerpt("Dockerfile", DOCKERFILE, 4..=5),
            command: &command,
            exit,
            output,
            log: Some(Path::new("/home/bob/.local/share/kiln/logs/3.log")),
            hint: Some("see the log"),
        }
        .render(false)
    }

    #[test]
    fn report_says_where_what_how_and_what_it_said_last() {
        assert_eq!(
            failure(
                b"Reading...\r\nE: \x1b[31mnothing\x1b[0m\n",
                Exit::Code(100)
            ),
            r#"error: step failed: [build 3/5] RUN apt-get update &&     apt-get install -y nothing
  Dockerfile:4
    2 | COPY . /src
    3 |
>   4 | RUN apt-get update && \
>   5 |     apt-get install -y nothing
    6 | USER www-data
    7 | CMD ["sh"]
  command: /bin/sh -c 'apt-get update && echo '\''x'\'''
  exit code: 100
  output:
    Reading...
    E: nothing
  full log: /home/bob/.local/share/kiln/logs/3.log
hint: see the log
"#
        );
    }

    #[test]
    fn long_output_is_cut_to_its_last_lines() {
        let output: String = (1..=100).map(|n| format!("line {n}\n")).collect();
        let report = failure(output.as_bytes(), Exit::Code(1));
        assert!(
            report.contains("  last 20 lines of output:\n    line 81\n"),
            "{report}"
        );
        assert!(report.contains("    line 100\n  full log:"), "{report}");
    }

    #[test]
    fn silent_step_has_no_output() {
        assert!(failure(b"", Exit::Code(1)).contains("\n  output: none\n  full log"));
    }

    #[test]
    fn exit_is_put_into_words() {
        for (exit, words) in [
            (Exit::Code(1), "exit code: 1"),
            (Exit::Code(127), "exit code: 127 (command not found)"),
            (Exit::Code(137), "exit code: 137 (128 + SIGKILL)"),
            (Exit::Code(255), "exit code: 255"),
            (Exit::Signal(9), "killed by: SIGKILL"),
            (Exit::Signal(40), "killed by: signal 40"),
        ] {
            assert_eq!(exit.describe(), words);
        }
    }

    #[test]
    fn excerpt_stays_within_the_file() {
        assert_eq!(
            excerpt("Dockerfile", "FROM a\nRUN b", 1..=1),
            "  Dockerfile:1\n>   1 | FROM a\n    2 | RUN b\n"
        );
        assert_eq!(excerpt("D", "", 1..=1), "  D:1\n");
        assert_eq!(excerpt("D", "FROM a", 7..=9), "  D:7\n");
    }
}
