//! What a person sees of a build: plain lines, a live terminal, the report of a step that fails.

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use support::{Kiln, Output, Registry, run, settled};

/// Returns standard error, with the base and the image's id by name.
fn shown(output: &Output, base: &str, id: &str) -> String {
    let short = id.get("sha256:".len()..).and_then(|hex| hex.get(..12));
    settled(
        &output.stderr(),
        &[(base, "BASE"), (short.unwrap_or("no image"), "IMAGE")],
    )
}

#[test]
fn plain_progress_names_each_step_and_the_lines_of_its_output() {
    let (kiln, base) = Kiln::with_busybox();
    let dockerfile = format!(
        "FROM {base} AS one\nCOPY file /file\nRUN echo first; echo second >&2; printf rest\n\
         FROM one\nCOPY --from=one /file /copy\nCMD [\"true\"]\n"
    );
    let output = kiln.build(&dockerfile, &[("file", "")]).ok();
    let id = kiln.run(["images", "-q", "--no-trunc", "test"]).ok().line();
    assert_eq!(output.stdout(), "");
    let stderr = shown(&output, &base, &id);
    // Two pipes: which of the lines comes first is a race.
    let stderr = stderr.replace(
        "#3 0.000 second\n#3 0.000 first\n",
        "#3 0.000 first\n#3 0.000 second\n",
    );
    assert_eq!(
        stderr,
        "\
#1 [one 1/3] FROM BASE
#1 CACHED
#2 [one 2/3] COPY file /file
#2 DONE 0.0s
#3 [one 3/3] RUN echo first; echo second >&2; printf rest
#3 0.000 first
#3 0.000 second
#3 0.000 rest
#3 DONE 0.0s
#4 [stage-1 1/2] FROM one
#4 CACHED
#5 [stage-1 2/2] COPY --from=one /file /copy
#5 DONE 0.0s
#6 exporting to image
#6 DONE 0.0s (image IMAGE, named test:latest)
"
    );
    let again = kiln.build(&dockerfile, &[]).ok();
    assert_eq!(
        shown(&again, &base, &id),
        "\
#1 [one 1/3] FROM BASE
#1 CACHED
#2 [one 2/3] COPY file /file
#2 CACHED
#3 [one 3/3] RUN echo first; echo second >&2; printf rest
#3 CACHED
#4 [stage-1 1/2] FROM one
#4 CACHED
#5 [stage-1 2/2] COPY --from=one /file /copy
#5 CACHED
#6 exporting to image
#6 DONE 0.0s (image IMAGE, named test:latest)
"
    );
}

#[test]
fn base_that_is_not_in_the_store_is_pulled_in_its_step() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    let output = kiln
        .build(&format!("FROM {base}\nCMD [\"true\"]\n"), &[])
        .ok();
    let stderr = shown(&output, &base, "");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines[0], "#1 [1/1] FROM BASE");
    let (verb, rest) = lines[1].split_at("#1 pull ".len());
    assert_eq!(
        (verb, &rest[12..]),
        ("#1 pull ", " 1.088MB done 0.0s"),
        "{stderr}"
    );
    assert_eq!(lines[2], "#1 DONE 0.0s", "{stderr}");
}

#[test]
fn step_that_fails_is_reported_with_its_place_command_output_and_log() {
    let (kiln, base) = Kiln::with_busybox();
    let dockerfile = format!(
        "FROM {base}\nRUN true\n# a comment\nRUN echo some output && \\\n    \
         seq 1 30 && exit 7\nCMD [\"true\"]\n"
    );
    let output = kiln.build(&dockerfile, &[]).fails();
    assert_eq!((output.code(), output.stdout()), (Some(1), String::new()));
    let stderr = shown(&output, &base, "");
    let (progress, report) = stderr.split_at(stderr.find("error: ").unwrap());
    assert!(
        progress.ends_with("#3 0.000 30\n#3 ERROR: exit code: 7\n"),
        "{output}"
    );
    let (report, log) = report.split_once("  full log: ").unwrap();
    let last: String = (11..=30).map(|number| format!("    {number}\n")).collect();
    assert_eq!(
        report,
        format!(
            "\
error: step failed: [3/3] RUN echo some output &&     seq 1 30 && exit 7
  Dockerfile:4
    2 | RUN true
    3 | # a comment
>   4 | RUN echo some output && \\
>   5 |     seq 1 30 && exit 7
    6 | CMD [\"true\"]
  command: /bin/sh -c 'echo some output &&     seq 1 30 && exit 7'
  exit code: 7
  last 20 lines of output:
{last}"
        )
    );
    let all: String = (1..=30).map(|number| format!("{number}\n")).collect();
    assert_eq!(
        fs::read_to_string(log.trim_end()).unwrap(),
        format!("some output\n{all}")
    );
    assert!(log.ends_with('\n'), "the last line ends");
    assert_eq!(kiln.run(["images", "-q", "test"]).ok().stdout(), "");
}

#[test]
fn end_by_a_signal_and_a_command_that_is_not_there_are_said_in_words() {
    let (kiln, base) = Kiln::with_busybox();
    let output = kiln
        .build(
            &format!("FROM {base}\nRUN ulimit -t 1; while :; do :; done\n"),
            &[],
        )
        .fails();
    assert!(
        output
            .stderr()
            .contains("\n  killed by: SIGKILL\n  output: none\n"),
        "{output}"
    );
    let output = kiln
        .build(&format!("FROM {base}\nRUN nosuch --flag\n"), &[])
        .fails();
    assert!(
        output
            .stderr()
            .contains("\n  exit code: 127 (command not found)\n"),
        "{output}"
    );
}

#[test]
fn quiet_build_prints_the_id_alone_and_a_failure_still_says_why() {
    let (kiln, base) = Kiln::with_busybox();
    let quiet = |dockerfile: &str| {
        let context = kiln
            .sandbox()
            .directory("context", &[("Dockerfile", dockerfile)]);
        kiln.run(["build", "-q", "--iidfile", "iid", context.to_str().unwrap()])
    };
    let output = quiet(&format!("FROM {base}\nRUN echo talk; echo talk >&2\n")).ok();
    let id = kiln.run(["images", "-q", "--no-trunc"]).ok().stdout();
    let id = id.lines().next().unwrap();
    assert_eq!(
        (output.stdout(), output.stderr()),
        (format!("{id}\n"), String::new())
    );
    let iidfile = kiln.sandbox().join("iid");
    assert_eq!(
        fs::read_to_string(&iidfile).unwrap(),
        id,
        "no newline, as docker"
    );

    let output = quiet(&format!("FROM {base}\nRUN echo talk; exit 3\n")).fails();
    assert_eq!(output.stdout(), "");
    assert!(
        output
            .stderr()
            .starts_with("error: step failed: [2/2] RUN "),
        "{output}"
    );
    assert!(
        output.stderr().contains("\n  output:\n    talk\n"),
        "{output}"
    );
}

/// Runs kiln on a terminal of 80 columns and 24 lines, and returns what reaches it.
fn on_terminal(kiln: &Kiln, arguments: &[&str], environment: &[(&str, &str)]) -> (Output, Vec<u8>) {
    let command = kiln.command(arguments);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<_> = words
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''")))
        .collect();
    let mut script = Command::new("script");
    script
        .env_clear()
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh");
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    script
        .envs(environment.iter().copied())
        .current_dir(kiln.sandbox().path())
        .arg("-qec")
        .arg(format!("stty cols 80 rows 24; {}", quoted.join(" ")))
        .arg("/dev/null");
    let output = run(&mut script, Duration::from_secs(60));
    let bytes = output.stdout_bytes().to_vec();
    (output, bytes)
}

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";

#[test]
fn terminal_shows_running_steps_live_and_gets_its_cursor_back() {
    let (kiln, base) = Kiln::with_busybox();
    let dockerfile = format!("FROM {base}\nRUN echo a line of output; sleep 1; echo more\n");
    let context = kiln
        .sandbox()
        .directory("context", &[("Dockerfile", &dockerfile)]);
    let build = ["build", "-t", "test", context.to_str().unwrap()];
    let (output, bytes) = on_terminal(&kiln, &build, &[]);
    assert_eq!(output.code(), Some(0), "{output}");
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(
        text.contains("a line of output"),
        "the tail of a running step: {text:?}"
    );
    let (hidden, given_back) = (text.rfind(HIDE_CURSOR), text.rfind(SHOW_CURSOR));
    assert!(hidden.is_some() && hidden < given_back, "{text:?}");

    let size = |count| std::num::NonZero::new(count).unwrap();
    let mut parser = vt100::Parser::new(size(24), size(80), 0);
    parser.process(&bytes);
    let screen = parser.screen();
    assert!(!screen.hide_cursor());
    let id = kiln.run(["images", "-q", "test"]).ok().line();
    let lines: Vec<_> = screen
        .rows(0, 80)
        .map(|row| row.trim_end().to_owned())
        .collect();
    let last = lines.iter().rposition(|line| !line.is_empty()).unwrap();
    assert_eq!(
        settled_terminal(&lines[..=last], &base, &id),
        "\
=> CACHED [1/2] FROM BASE
=> [2/2] RUN echo a line of output; sleep 1; echo more 0.0s
=> exporting to image (image IMAGE, named test:latest) 0.0s"
    );
    assert_eq!(
        screen.cursor_position(),
        (u16::try_from(last).unwrap() + 1, 0)
    );
}

/// Returns the lines of a terminal with the times of steps as zeros.
fn settled_terminal(lines: &[String], base: &str, id: &str) -> String {
    let lines = lines.iter().map(|line| {
        let line = line.replace(base, "BASE").replace(id, "IMAGE");
        match line.rsplit_once(' ') {
            Some((head, time)) if time.ends_with('s') && time[..1].parse::<u8>().is_ok() => {
                format!("{} 0.0s", head.trim_end())
            }
            _ => line,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn terminal_is_given_back_before_the_report_of_a_failure() {
    let (kiln, base) = Kiln::with_busybox();
    let dockerfile = format!("FROM {base}\nRUN echo doomed; sleep 0.3; exit 9\n");
    let context = kiln
        .sandbox()
        .directory("context", &[("Dockerfile", &dockerfile)]);
    let build = ["build", context.to_str().unwrap()];
    let (output, bytes) = on_terminal(&kiln, &build, &[]);
    assert_eq!(output.code(), Some(1), "{output}");
    let text = String::from_utf8(bytes).unwrap();
    let report = text.find("step failed").unwrap();
    assert!(text.rfind(SHOW_CURSOR).unwrap() < report, "{text:?}");
    assert!(
        text.contains("\x1b[1;31merror:\x1b[0m step failed: "),
        "{text:?}"
    );
    assert!(text.ends_with(".log\r\n"), "{text:?}");
}

#[test]
fn interrupted_terminal_is_given_back() {
    let (kiln, base) = Kiln::with_busybox();
    let dockerfile = format!("FROM {base}\nRUN echo up; sleep 300\n");
    let context = kiln
        .sandbox()
        .directory("context", &[("Dockerfile", &dockerfile)]);
    let mut command = kiln.command(["build", "--progress", "tty", context.to_str().unwrap()]);
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(" up") {
        let mut buffer = [0; 4096];
        let count = std::io::Read::read(&mut stderr, &mut buffer).unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    std::io::Read::read_to_end(&mut stderr, &mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let text = String::from_utf8(seen).unwrap();
    assert!(
        text.rfind(HIDE_CURSOR) < text.rfind(SHOW_CURSOR),
        "{text:?}"
    );
    // Nor is the step, which was killed for it, reported as a failure after that.
    assert!(text.ends_with("interrupted\n"), "{text:?}");
    assert_eq!(kiln.run(["images", "-q"]).ok().stdout().lines().count(), 1);
}

#[test]
fn no_color_and_ci_are_respected_on_a_terminal() {
    let (kiln, base) = Kiln::with_busybox();
    let dockerfile = format!("FROM {base}\nRUN exit 9\n");
    let context = kiln
        .sandbox()
        .directory("context", &[("Dockerfile", &dockerfile)]);
    let build = ["build", context.to_str().unwrap()];
    let (_, bytes) = on_terminal(&kiln, &build, &[("NO_COLOR", "1"), ("CI", "1")]);
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains('\x1b'), "{text:?}");
    assert!(text.starts_with("#1 [1/2] FROM "), "{text:?}");
}
