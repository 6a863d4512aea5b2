//! Real programs below the default seccomp filter.
//!
//! A filter belongs to a thread and to what it starts, so each test gives a thread of its
//! own the filter and starts the programs from there.

use std::fs;
use std::io;
use std::process::{Command, Output};
use std::thread;

use kiln_runtime::capability::CapabilitySet;
use kiln_runtime::seccomp::Policy;
use kiln_runtime::sys;
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;

/// Runs `work` in a thread below the default filter.
fn filtered<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let policy = Policy::default_policy();
    let program = policy.compile(CapabilitySet::default_set()).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            sys::seccomp::install(program.as_slice()).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn run(program: &str, args: &[&str]) -> Output {
    filtered(|| Command::new(program).args(args).env("LC_ALL", "C").output()).unwrap()
}

fn succeeds(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails_with(program: &str, args: &[&str], message: &str) {
    let output = run(program, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{program} {args:?} succeeded");
    assert!(stderr.contains(message), "{program} {args:?}: {stderr}");
}

#[test]
fn filter_is_active_and_inherited() {
    let status = succeeds("cat", &["/proc/self/status"]);
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
}

#[test]
fn common_programs_work() {
    succeeds("true", &[]);
    assert_eq!(succeeds("sh", &["-c", "echo $((6 * 7)) | cat"]), "42\n");
    assert!(succeeds("ls", &["-la", "/"]).contains(" usr"));
    succeeds("find", &["/etc", "-maxdepth", "1", "-newer", "/etc/passwd"]);
    succeeds("timeout", &["5", "sleep", "0.01"]);
    succeeds("nice", &["-n", "1", "true"]);
}

#[test]
fn tar_packs_and_unpacks_with_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mkdir a && echo text >a/file && ln -s file a/link && ln a/file a/hard &&
        mkfifo a/fifo && chmod 4750 a/file && touch -d 2001-02-03 a/file &&
        tar cf a.tar a && mkdir b && tar xpf a.tar -C b &&
        stat -c '%n %a %s %Y %h' b/a/file && cat b/a/link";
    let path = dir.path().to_str().unwrap();
    let text = succeeds(
        "sh",
        &["-ec", &format!("cd '{path}'; export TZ=UTC; {script}")],
    );
    assert_eq!(text, "b/a/file 4750 5 981158400 2\ntext\n");
}

#[test]
fn threads_start_although_clone3_is_denied() {
    let sum = filtered(|| {
        let threads: Vec<_> = (0..4).map(|n| thread::spawn(move || n)).collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.sum::<i32>()
    });
    assert_eq!(sum, 6);

    // Enough lines that sort divides them between threads.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines");
    let lines: String = (0..300_000u64)
        .map(|n| format!("{}\n", n * 7919 % 300_007))
        .collect();
    fs::write(&file, lines).unwrap();
    succeeds(
        "sort",
        &[
            "-n",
            "--parallel=2",
            "-o",
            "/dev/null",
            file.to_str().unwrap(),
        ],
    );
}

#[test]
fn namespaces_and_mounts_are_denied() {
    fails_with("unshare", &["-U", "true"], "Operation not permitted");
    fails_with("unshare", &["-m", "true"], "Operation not permitted");
    assert!(
        !run("mount", &["-t", "tmpfs", "none", "/mnt"])
            .status
            .success()
    );
    // Without the filter these errors would be others, for root as for anybody: a process
    // with threads can't enter a user namespace, and the directory does not exist.
    let flags = CloneFlags::CLONE_NEWUSER;
    assert_eq!(filtered(|| nix::sched::unshare(flags)), Err(Errno::EPERM));
    let mount = || {
        let (none, flags) = (None::<&str>, MsFlags::empty());
        nix::mount::mount(none, "/no/such/directory", Some("tmpfs"), flags, none)
    };
    assert_eq!(mount(), Err(Errno::ENOENT));
    assert_eq!(filtered(mount), Err(Errno::EPERM));
}

#[test]
fn harmless_personalities_work_and_others_do_not() {
    if cfg!(target_arch = "x86_64") {
        assert_eq!(succeeds("setarch", &["i686", "uname", "-m"]), "i686\n");
    }
    fails_with(
        "setarch",
        &["--addr-no-randomize", "true"],
        "Operation not permitted",
    );
}

#[test]
fn a_second_filter_can_be_added_below_the_first() {
    let policy = Policy::default_policy();
    let program = policy.compile(CapabilitySet::EMPTY).unwrap();
    let result = filtered(|| -> io::Result<()> {
        sys::seccomp::install(program.as_slice())?;
        // chroot(2) needs CAP_SYS_CHROOT in the policy too, so EPERM even for root.
        assert_eq!(nix::unistd::chroot("/"), Err(Errno::EPERM));
        Ok(())
    });
    result.unwrap();
}
