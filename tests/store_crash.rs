//! A kiln that is killed leaves a store that works, and no process. The long version is
//! `soak_kills`.

mod support;

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use support::{
    Kiln, Registry, Victim, assert_no_process_with, assert_swept, processes_with, unique_marker,
};

#[test]
fn store_works_after_kills_at_random_moments() {
    let mut victim = Victim::new(Registry::shared().multi());
    victim.suffer(8);
    victim.assert_unharmed();
}

#[test]
fn step_that_changed_its_user_dies_with_kiln() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    for kill_group in [false, true] {
        let marker = unique_marker();
        // The change of ids clears the death signal of the step's first process.
        let dockerfile =
            format!("FROM {base}\nRUN exec su -s /bin/sh nobody -c 'sleep {marker}'\n");
        let context = kiln
            .sandbox()
            .directory("su", &[("Dockerfile", &dockerfile)]);
        let mut child = kiln
            .command(["build", context.to_str().unwrap()])
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !runs_as_another(&marker) {
            assert!(Instant::now() < deadline, "the step did not start");
            thread::sleep(Duration::from_millis(5));
        }
        if kill_group {
            killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
        } else {
            child.kill().unwrap();
        }
        child.wait().unwrap();
        assert_no_process_with(&marker, Duration::from_secs(2));
        assert_no_process_with(kiln.store().to_str().unwrap(), Duration::from_secs(2));
    }
    kiln.build(&format!("FROM {base}\nRUN true\n"), &[]).ok();
    assert_swept(&kiln);
}

/// Tells whether the `sleep` itself runs: the words before it name it too.
fn runs_as_another(marker: &str) -> bool {
    processes_with(marker).into_iter().any(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\0")
    })
}
