//! Ctrl-C and SIGTERM: the end comes at once, and nothing is left.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::{
    Kiln, Registry, assert_no_process_with, assert_swept, names_in, processes_with, unique_marker,
    wait_until,
};

/// The end must come within this time.
const PROMPT: Duration = Duration::from_secs(2);

/// Sends a signal, and returns how the process ended and what it had written to stderr.
fn end_with(signal: Signal, mut child: Child) -> (ExitStatus, String) {
    let sent = Instant::now();
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    let status = child.wait().unwrap();
    assert!(sent.elapsed() < PROMPT, "it took {:?}", sent.elapsed());
    // Comes to its end only when no process holds the pipe.
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert!(sent.elapsed() < PROMPT, "the pipe: {:?}", sent.elapsed());
    (status, stderr)
}

/// A registry in between that stops answering after so many bytes of answers.
fn stalling_registry(behind: &Registry, budget: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let behind = behind.address().to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&behind).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut to));
            thread::spawn(move || {
                let (mut server, mut client) = (server.take(budget as u64), client);
                let _ = std::io::copy(&mut server, &mut client);
                // The connection stays open and silent.
                thread::sleep(Duration::from_secs(600));
            });
        }
    });
    address
}

#[test]
fn signal_ends_a_step_with_all_of_its_processes() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    for (signal, code, word) in [
        (Signal::SIGINT, 130, "interrupted\n"),
        (Signal::SIGTERM, 143, "terminated\n"),
    ] {
        let marker = unique_marker();
        // Deaf to signals, in the background, in a session of its own: the end takes all.
        let dockerfile = format!(
            "FROM {base}\nRUN trap '' INT TERM; sleep {marker} & setsid sleep {marker} & \
             dd if=/dev/zero of=/large bs=1M count=8 2>/dev/null; echo ready; sleep {marker}\n"
        );
        let context = kiln
            .sandbox()
            .directory("stuck", &[("Dockerfile", &dockerfile)]);
        let child = kiln.start(["build", "--progress", "plain", context.to_str().unwrap()]);
        wait_until("the step", || {
            // The shell, which becomes the last sleep, and the two behind it.
            processes_with(&marker).len() >= 3
        });
        let (status, stderr) = end_with(signal, child);
        assert_eq!(status.code(), Some(code), "{stderr}");
        assert!(stderr.ends_with(word), "{stderr:?}");
        assert!(!stderr.contains("error"), "{stderr}");
        assert_no_process_with(&marker, Duration::from_millis(100));
        assert_no_process_with(kiln.store().to_str().unwrap(), Duration::from_millis(500));
        assert_swept(&kiln);
    }
    kiln.build(&format!("FROM {base}\nRUN echo ok > /ok\n"), &[])
        .ok();
    let output = kiln.run(["run", "test", "cat", "/ok"]).ok();
    assert_eq!(output.stdout(), "ok\n");
}

#[test]
fn signal_ends_a_pull_from_a_registry_that_says_nothing() {
    let (kiln, registry) = (Kiln::new(), Registry::shared());
    let name = registry.busybox().replacen(registry.address(), "", 1);
    // Before any answer, and in the middle of the layer.
    for budget in [0, 200_000] {
        let reference = format!("{}{name}", stalling_registry(registry, budget));
        let child = kiln.start(["pull", "--progress", "plain", &reference]);
        if budget == 0 {
            thread::sleep(Duration::from_millis(300));
        } else {
            wait_until("the layer", || {
                names_in(&kiln, "tmp")
                    .iter()
                    .any(|session| names_in(&kiln, &format!("tmp/{session}")).len() > 2)
            });
        }
        let (status, stderr) = end_with(Signal::SIGINT, child);
        assert_eq!(status.code(), Some(130), "{stderr}");
        assert!(stderr.ends_with("interrupted\n"), "{stderr}");
        assert_swept(&kiln);
        assert!(names_in(&kiln, "layers").is_empty());
    }
    kiln.run(["pull", &registry.busybox()]).ok();
}

#[test]
fn ctrl_c_on_a_terminal_gives_the_cursor_back() {
    let (kiln, base, marker) = (Kiln::new(), Registry::shared().busybox(), unique_marker());
    let dockerfile = format!("FROM {base}\nRUN sleep {marker}\n");
    let context = kiln
        .sandbox()
        .directory("stuck", &[("Dockerfile", &dockerfile)]);
    let kiln_command = kiln.command(["build", "--progress", "tty", context.to_str().unwrap()]);
    let words: Vec<_> = std::iter::once(kiln_command.get_program())
        .chain(kiln_command.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let mut terminal = std::process::Command::new("script")
        .args(["-qefc", &format!("exec {}", words.join(" ")), "/dev/null"])
        .env("HOME", kiln.sandbox().path())
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the step", || !processes_with(&marker).is_empty());
    // The progress hides the cursor with its first picture.
    thread::sleep(Duration::from_millis(300));
    let sent = Instant::now();
    let mut keyboard = terminal.stdin.take().unwrap();
    keyboard.write_all(b"\x03").unwrap();
    keyboard.flush().unwrap();
    let mut screen = String::new();
    terminal
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut screen)
        .unwrap();
    let status = terminal.wait().unwrap();
    assert!(sent.elapsed() < PROMPT, "it took {:?}", sent.elapsed());
    assert_eq!(status.code(), Some(130), "{screen:?}");
    let hidden = screen.rfind("\x1b[?25l").expect("the cursor is hidden");
    let shown = screen.rfind("\x1b[?25h").expect("the cursor comes back");
    assert!(shown > hidden, "{screen:?}");
    assert!(screen.contains("interrupted"), "{screen:?}");
    assert_no_process_with(&marker, Duration::from_millis(100));
    assert_swept(&kiln);
}

#[test]
fn command_that_only_reads_ends_by_the_signal_itself() {
    let kiln = Kiln::new();
    kiln.run(["images"]).ok();
    // The lock that a collection holds.
    let lock = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(kiln.store().join("locks/use"))
        .unwrap();
    lock.lock().unwrap();
    let child = kiln.start(["tag", "one", "two"]);
    thread::sleep(Duration::from_millis(200));
    let (status, stderr) = end_with(Signal::SIGINT, child);
    assert_eq!(
        status.signal(),
        Some(Signal::SIGINT as i32),
        "{status:?} {stderr}"
    );
}

#[test]
fn signal_leaves_nothing_of_what_a_step_has_mounted() {
    let (kiln, base, marker) = (Kiln::new(), Registry::shared().busybox(), unique_marker());
    let key = kiln.sandbox().join("key");
    let mut keygen = std::process::Command::new("ssh-keygen");
    keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key);
    support::run(&mut keygen, Duration::from_secs(20)).ok();
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=target=/src,rw --mount=target=/ro --mount=type=cache,target=/c,sharing=locked \
         --mount=type=secret,id=s,required --mount=type=tmpfs,target=/t --mount=type=ssh,required \
         --mount=from={base},target=/image,rw touch /c/kept /src/new /t/f && sleep {marker}\n"
    );
    let context = kiln
        .sandbox()
        .directory("stuck", &[("Dockerfile", &dockerfile)]);
    let context = context.to_str().unwrap();
    let (secret, ssh) = ("id=s,env=PATH", format!("default={}", key.display()));
    let build = [
        "build",
        "--progress",
        "plain",
        "--secret",
        secret,
        "--ssh",
        &ssh,
        context,
    ];
    let child = kiln.start(build);
    wait_until("the step", || !processes_with(&marker).is_empty());
    // Another one, which wants no result of this one, waits for the cache: that ends at once too.
    let anew: Vec<&str> = build.into_iter().chain(["--no-cache"]).collect();
    let second = kiln.start(&anew);
    thread::sleep(Duration::from_millis(500));
    let (status, stderr) = end_with(Signal::SIGINT, second);
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("waiting for the cache \"/c\""), "{stderr}");
    let (status, stderr) = end_with(Signal::SIGINT, child);
    assert_eq!(status.code(), Some(130), "{stderr}");
    // The agent too: its socket was below the store.
    assert_no_process_with(kiln.store().to_str().unwrap(), Duration::from_millis(500));
    assert_swept(&kiln);
    // The lock is free again, and the cache has what it had.
    let dockerfile =
        format!("FROM {base}\nRUN --mount=type=cache,target=/c,sharing=locked ls /c > /out\n");
    kiln.build(&dockerfile, &[]).ok();
    assert_eq!(
        kiln.run(["run", "test", "cat", "/out"]).ok().stdout(),
        "kept\n"
    );
}
