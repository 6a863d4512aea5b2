//! What a step reports, and what a caller's mistakes get.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use support::{Run, perl, run, sandbox, sandboxes_work, script, small_root};

fn inside(root: &tempfile::TempDir, words: &[&str]) -> Run {
    run(sandbox([root.path()]).args(words))
}

#[test]
fn exit_code_and_signal_are_reported() {
    if !sandboxes_work() {
        return;
    }
    assert_eq!(script("exit 7").code, Some(7));
    assert_eq!(script("exit 255").code, Some(255));
    // A bad address; sent signals do not reach the first process of a pid namespace.
    assert_eq!(perl("print unpack 'p', pack 'J', 8").code, Some(128 + 11));
    assert_eq!(script("kill -9 $$; exit 3").code, Some(3));
}

#[test]
fn clone3_is_not_needed() {
    if !sandboxes_work() {
        return;
    }
    let mut command = sandbox(["/", "sh", "-c", "echo $$"]);
    assert_eq!(run(command.env("KILN_DISABLE", "clone3")).ok(), "1");
}

#[test]
fn limits_are_set() {
    if !sandboxes_work() {
        return;
    }
    let words = ["--nofile", "77", "/", "sh", "-c", "ulimit -n; ulimit -Hn"];
    assert_eq!(run(&mut sandbox(words)).ok(), "77\n77");
}

#[test]
fn devices_work() {
    if !sandboxes_work() {
        return;
    }
    assert_eq!(
        script("echo x > /dev/null; head -c 3 /dev/zero | od -An -tx1").ok(),
        "00 00 00"
    );
    script("head -c 1 /dev/zero > /dev/full").fails_with(&["No space left"]);
    assert_eq!(script("head -c 4 /dev/urandom | wc -c").ok(), "4");
    assert_eq!(script("touch /dev/shm/x && ls /dev/shm").ok(), "x");
    assert_eq!(script("echo through > /dev/stdout").ok(), "through");
    let words = [
        "--user",
        "1000:1000",
        "/",
        "sh",
        "-c",
        "echo x > /dev/stderr",
    ];
    assert_eq!(run(&mut sandbox(words)).stderr, "x\n");
    assert_eq!(
        script("cd /dev && echo *").ok(),
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
}

#[test]
fn command_that_cannot_be_executed_is_told_from_one_that_is_missing() {
    if !sandboxes_work() {
        return;
    }
    let root = small_root();
    let write = |name: &str, text: &str, mode| {
        let path = root.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    write("bin/plain", "#!/bin/sh\n", 0o644);
    write("bin/words", "words\n", 0o755);
    write("bin/script", "#!/bin/nowhere\n", 0o755);
    inside(&root, &["nowhere"]).fails_with(&["exec \"nowhere\"", "no such file"]);
    inside(&root, &["/bin/nowhere"]).fails_with(&["exec \"/bin/nowhere\"", "no such file"]);
    inside(&root, &["plain"]).fails_with(&["permission denied"]);
    inside(&root, &["/bin"]).fails_with(&["permission denied"]);
    inside(&root, &["words"]).fails_with(&["exec format error", "hint: "]);
    inside(&root, &["script"]).fails_with(&["its interpreter is not in the image", "hint: "]);
    inside(&root, &[""]).fails_with(&["no such file"]);
    inside(&root, &[]).fails_with(&["no such file"]);
}

#[test]
fn working_directory_that_is_missing_is_named() {
    if !sandboxes_work() {
        return;
    }
    run(&mut sandbox(["--cwd", "/nowhere", "/", "true"])).fails_with(&["chdir(/nowhere)"]);
}

#[test]
fn mount_point_must_be_a_real_directory() {
    if !sandboxes_work() {
        return;
    }
    for name in ["proc", "dev", "sys"] {
        let root = small_root();
        let point = root.path().join(name);
        let refused =
            || inside(&root, &["cat", "/marker"]).fails_with(&[&format!("/{name})"), "hint: "]);
        fs::remove_dir(&point).unwrap();
        refused();
        fs::write(&point, "").unwrap();
        refused();
        fs::remove_file(&point).unwrap();
        symlink("/tmp", &point).unwrap();
        refused();
        symlink("/", root.path().join("tmp/up")).unwrap();
    }
}

#[test]
fn host_s_standard_descriptors_may_be_closed() {
    if !sandboxes_work() {
        return;
    }
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "exec \"$@\" <&- 2>&-", "sh"])
        .arg(support::example("run_in_directory"))
        .args([
            "/",
            "sh",
            "-c",
            "echo through; cat; ls /proc/self/fd | tail -n 1",
        ]);
    assert_eq!(run(&mut command).ok(), "through\n3");
}
