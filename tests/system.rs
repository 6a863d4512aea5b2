//! `system reset` and `unshare`.

mod support;

use std::fs;

use support::{Kiln, Registry};

#[test]
fn reset_removes_the_store_with_files_of_other_owners() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    let dockerfile =
        format!("FROM {base}\nRUN umask 777; mkdir -p /d/e; echo 1 > /d/e/f; chown -R 7:7 /d\n");
    kiln.build(&dockerfile, &[]).ok();
    // What people try first leaves what belongs to others.
    assert!(fs::remove_dir_all(kiln.store()).is_err());
    let output = kiln.run(["system", "reset"]).ok();
    assert_eq!(
        (output.stdout(), output.stderr()),
        (String::new(), String::new())
    );
    assert!(!kiln.store().exists());
    // Where there is none, there is nothing to do.
    kiln.run(["system", "reset", "--force"]).ok();
    assert!(!kiln.store().exists());
    kiln.build(&dockerfile, &[]).ok();
}

#[test]
fn reset_leaves_a_directory_that_is_no_store() {
    let kiln = Kiln::new();
    fs::create_dir(kiln.store()).unwrap();
    fs::write(kiln.store().join(".precious"), "").unwrap();
    let output = kiln.run(["system", "reset", "-f"]).fails();
    assert_eq!(
        output.stderr(),
        format!(
            "error: {} is no store of kiln: nothing was removed\n",
            kiln.store().display()
        )
    );
    assert!(kiln.store().join(".precious").exists());
}

#[test]
fn unshare_runs_a_command_among_the_ids_of_the_store() {
    let kiln = Kiln::new();
    let output = kiln.run(["unshare", "id", "-u"]).ok();
    assert_eq!(output.stdout(), "0\n");
    let file = kiln.sandbox().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    kiln.run(["unshare", "chown", "8:8", file]).ok();
    let owner = kiln.run(["unshare", "stat", "-c", "%u:%g", file]).ok();
    assert_eq!(owner.stdout(), "8:8\n");
    let root = kiln.run(["unshare", "sh", "-c", "echo $KILN_ROOT"]).ok();
    assert_eq!(root.stdout(), format!("{}\n", kiln.store().display()));
}

#[test]
fn unshare_ends_as_its_command_does() {
    let kiln = Kiln::new();
    let code = |arguments: &[&str]| kiln.run([&["unshare"], arguments].concat()).fails().code();
    assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["/"]), Some(126));
    let output = kiln.run(["unshare", "no-such-program"]).fails();
    assert_eq!(output.code(), Some(127));
    assert_eq!(
        output.stderr(),
        "error: cannot execute \"no-such-program\": No such file or directory (os error 2)\n"
    );
    // Without a command, a shell.
    let output = kiln.run_with_input(["unshare"], b"id -u; exit 3\n").fails();
    assert_eq!(
        (output.code(), output.stdout()),
        (Some(3), "0\n".to_owned())
    );
}
