//! `kiln pause`, `unpause`, and the pause of `kiln commit`: all processes stand still, and go on
//! whatever becomes of kiln.

mod support;

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::{Kiln, wait_until};

/// Returns kiln and the container `bg` of busybox, which runs a script.
fn running(script: &str) -> Kiln {
    let (kiln, image) = Kiln::with_busybox();
    let script = format!("echo up; {script}");
    kiln.run(["run", "-d", "--name", "bg", &image, "sh", "-c", &script])
        .ok();
    wait_until("the start", || {
        kiln.run(["logs", "bg"]).ok().stdout() == "up\n"
    });
    kiln
}

fn status(kiln: &Kiln) -> String {
    let format = "{{.State}} {{.Status}}";
    let shown = kiln.run(["ps", "-a", "--format", format]).ok().line();
    // How long it has been up is a matter of luck.
    let words: Vec<&str> = shown.split(' ').collect();
    let last = words.iter().find(|word| word.starts_with('('));
    [words[0], words[1], last.unwrap_or(&"")].join(" ")
}

/// Returns a file of the container.
fn file(kiln: &Kiln, path: &str) -> String {
    let from = format!("bg:{path}");
    kiln.run(["cp", "-q", &from, "file"]).ok();
    std::fs::read_to_string(kiln.sandbox().join("file")).unwrap()
}

/// Counts in a file, a number after the other.
const COUNT: &str =
    "while :; do i=$((i+1)); echo $i > /dev/shm/n; mv /dev/shm/n /dev/shm/count; done";

#[test]
fn processes_of_a_paused_container_stand_still_until_it_goes_on() {
    let kiln = running(&format!("({COUNT}) & trap 'exit 3' TERM; {COUNT}"));
    let count = || file(&kiln, "/dev/shm/count");
    wait_until("the count", || {
        kiln.run(["cp", "bg:/dev/shm/count", "c"]).code() == Some(0)
    });
    assert_eq!(status(&kiln), "running Up ");
    assert_eq!(kiln.run(["pause", "bg"]).ok().stdout(), "bg\n");
    assert_eq!(status(&kiln), "paused Up (Paused)");
    let listed = |filter: &str| {
        let output = kiln.run(["ps", "--filter", filter, "--format", "{{.Names}}"]);
        output.ok().stdout()
    };
    assert_eq!(
        (listed("status=paused"), listed("status=running")),
        ("bg\n".to_owned(), String::new())
    );
    let shown = kiln.run([
        "inspect",
        "-f",
        "{{.State.Status}} {{.State.Running}} {{.State.Paused}}",
        "bg",
    ]);
    assert_eq!(shown.ok().stdout(), "paused true true\n");
    let before = count();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(count(), before);
    assert_eq!(
        kiln.run(["pause", "bg"]).fails().stderr(),
        "error: container bg is paused\nhint: let it go on first: kiln unpause bg\n"
    );
    assert_eq!(
        kiln.run(["exec", "bg", "true"]).fails().stderr(),
        "error: container bg is paused\nhint: let it go on first: kiln unpause bg\n"
    );
    // A commit leaves it as it was.
    kiln.run(["commit", "bg", "image"]).ok();
    assert_eq!(status(&kiln), "paused Up (Paused)");
    assert_eq!(
        kiln.run(["container", "unpause", "bg"]).ok().stdout(),
        "bg\n"
    );
    assert_eq!(status(&kiln), "running Up ");
    wait_until("the next number", || count() != before);
    assert_eq!(
        kiln.run(["unpause", "bg"]).fails().stderr(),
        "error: container bg is not paused\n"
    );
    // To be stopped, it goes on: its handler runs.
    kiln.run(["container", "pause", "bg"]).ok();
    kiln.run(["stop", "bg"]).ok();
    assert_eq!(status(&kiln), "exited Exited (3)");
    assert_eq!(
        kiln.run(["pause", "bg"]).fails().stderr(),
        "error: container bg is not running\nhint: start it first: kiln start bg\n"
    );
    // And one that is to be killed need not.
    kiln.run(["start", "bg"]).ok();
    kiln.run(["pause", "bg"]).ok();
    kiln.run(["rm", "-f", "bg"]).ok();
    assert_eq!(kiln.run(["ps", "-aq"]).ok().stdout(), "");
}

#[test]
fn commit_takes_all_files_at_one_moment() {
    // What grows last lies behind the large file, and what grows first before it.
    let script = "mkdir /a /z; dd if=/dev/zero of=/large bs=1M count=64 2> /dev/null; \
                  while :; do echo >> /a/first; echo >> /z/last; done";
    let kiln = running(script);
    wait_until("the files", || {
        kiln.run(["cp", "bg:/z/last", "l"]).code() == Some(0)
    });
    let distance = |image: &str| {
        let output = kiln.run([
            "run", "--rm", image, "stat", "-c", "%s", "/a/first", "/z/last",
        ]);
        let sizes: Vec<i64> = output
            .ok()
            .stdout()
            .lines()
            .map(|line| line.parse().unwrap())
            .collect();
        sizes[1] - sizes[0]
    };
    for option in ["--pause", "--pause=true", "-p=true"] {
        kiln.run(["commit", option, "bg", "image"]).ok();
        assert!((-1..=0).contains(&distance("image")), "{option}");
        assert_eq!(status(&kiln), "running Up ");
    }
    // Of two at once, one waits for the other.
    for mut commit in ["one", "two"].map(|image| kiln.start(["commit", "bg", image])) {
        assert!(commit.wait().unwrap().success());
    }
    for image in ["one", "two"] {
        assert!((-1..=0).contains(&distance(image)), "{image}");
    }
    // It would be otherwise.
    kiln.run(["commit", "-p=false", "bg", "image"]).ok();
    assert!(distance("image") > 0);
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn container_goes_on_where_commit_is_killed() {
    let kiln = running(&format!(
        "dd if=/dev/urandom of=/large bs=1M count=256 2> /dev/null; {COUNT}"
    ));
    let count = || file(&kiln, "/dev/shm/count");
    wait_until("the count", || {
        kiln.run(["cp", "bg:/dev/shm/count", "c"]).code() == Some(0)
    });
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let mut commit = kiln.start(["commit", "bg", "image"]);
        wait_until("the pause", || status(&kiln) == "paused Up (Paused)");
        kill(Pid::from_raw(commit.id() as i32), signal).unwrap();
        assert!(!commit.wait().unwrap().success());
        wait_until("its end", || status(&kiln) == "running Up ");
        let before = count();
        wait_until("the next number", || count() != before);
    }
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn what_was_stopped_before_stays_so_and_a_storm_of_new_processes_is_stilled() {
    let script = "sleep 600 & kill -STOP $!; echo $! > /stopped; \
                  while :; do (echo x > /dev/shm/last; sleep 0.01) & \
                  (exec sleep 0.005) & sleep 0.002; done";
    let kiln = running(script);
    let stopped = || {
        let script = "for i in $(seq 20); do cut -d ' ' -f 3 /proc/$(cat /stopped)/stat; \
                      done | sort -u";
        let output = kiln.run(["exec", "bg", "sh", "-c", script]);
        output.ok().stdout()
    };
    assert_eq!(stopped(), "T\n");
    for _ in 0..5 {
        kiln.run(["pause", "bg"]).ok();
        kiln.run(["cp", "-q", "bg:/stopped", "file"]).ok();
        // Whoever still ran would write this anew.
        std::fs::write(kiln.sandbox().join("last"), "still\n").unwrap();
        kiln.run(["cp", "-q", "last", "bg:/dev/shm/last"]).ok();
        thread::sleep(Duration::from_millis(50));
        assert_eq!(file(&kiln, "/dev/shm/last"), "still\n");
        kiln.run(["unpause", "bg"]).ok();
        wait_until("the storm", || file(&kiln, "/dev/shm/last") == "x\n");
    }
    let script = "kill -STOP $(cat /stopped)";
    kiln.run(["exec", "bg", "sh", "-c", script]).ok();
    kiln.run(["commit", "bg", "image"]).ok();
    assert_eq!(stopped(), "T\n");
    kiln.run(["rm", "-f", "bg"]).ok();
}
