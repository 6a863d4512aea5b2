//! Overlay roots: the same with the kernel's overlay and with fuse-overlayfs.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serial_test::serial;
use support::{
    Run, directory, entries, example, require, run, sandbox, sandboxes_work, small_root,
};
use tempfile::TempDir;

/// A directory for changes. What is in it belongs to ids that only a sandbox has: one
/// empties it in the end.
struct Changes(TempDir);

impl Drop for Changes {
    fn drop(&mut self) {
        let upper = self.0.path().join("upper");
        let script = format!("rm -rf {}/*", upper.display());
        run(&mut sandbox(["/", "sh", "-c", &script]));
        let _ = fs::remove_dir(upper);
        // The kernel's own directories have mode 0.
        let mut work = self.0.path().join("work");
        for name in ["work", "incompat", "volatile"] {
            work.push(name);
            let _ = fs::set_permissions(&work, Permissions::from_mode(0o700));
        }
    }
}

fn in_overlay(kind: &str, changes: &Changes, lowers: &[&Path], script: &str) -> Run {
    let lowers = std::env::join_paths(lowers).unwrap();
    let mut command = Command::new(example("run_in_overlay"));
    let kind = match kind {
        "kernel-by-mount" => {
            command.env("KILN_DISABLE", "fsmount");
            "kernel"
        }
        kind => kind,
    };
    run(command
        .arg(kind)
        .arg(changes.0.path())
        .arg(lowers)
        .args(["sh", "-c", script]))
}

/// Returns path, mode and size of all that is below a directory.
fn listing(directory: &Path) -> Vec<(String, u32, u64)> {
    let mut found = Vec::new();
    for name in entries(directory) {
        let path = directory.join(&name);
        let metadata = path.symlink_metadata().unwrap();
        found.push((path.display().to_string(), metadata.mode(), metadata.size()));
        if metadata.is_dir() {
            found.extend(listing(&path));
        }
    }
    found
}

fn upper_receives_changes_and_lowers_stay(kind: &str) {
    let bottom = small_root();
    let top = directory();
    fs::write(top.path().join("marker"), "from the top").unwrap();
    fs::write(top.path().join("doomed"), "").unwrap();
    fs::create_dir(bottom.path().join("directory")).unwrap();
    fs::write(bottom.path().join("directory/file"), "").unwrap();
    let before = (listing(bottom.path()), listing(top.path()));
    let changes = Changes(directory());
    let script = "set -e; cat /marker; rm /doomed; test ! -e /doomed; echo new > /new; \
                  mkdir /own; echo x > /own/file; ls /directory; touch /dev/shm/x";
    let said = in_overlay(kind, &changes, &[top.path(), bottom.path()], script).ok();
    assert_eq!(said, "from the topfile");
    assert_eq!((listing(bottom.path()), listing(top.path())), before);
    let upper = changes.0.path().join("upper");
    let changed = entries(&upper);
    let changed: Vec<&str> = changed
        .iter()
        .map(String::as_str)
        // fuse-overlayfs's own way to hide a file.
        .filter(|name| !name.starts_with(".wh."))
        .collect();
    let doomed = upper.join("doomed").symlink_metadata();
    match &doomed {
        Ok(whiteout) => {
            assert_eq!(changed, ["doomed", "new", "own"]);
            assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
        }
        Err(_) => assert_eq!(changed, ["new", "own"]),
    }
    assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(upper.join("own/file")).unwrap(), "x\n");
    let owner = upper.join("new").metadata().unwrap().uid();
    assert_eq!(owner, upper.metadata().unwrap().uid());
    assert_ne!(owner, nix::unistd::getuid().as_raw());
}

#[test]
fn kernel_overlay_receives_changes_and_lowers_stay() {
    if sandboxes_work() && require("kernel-overlay") {
        upper_receives_changes_and_lowers_stay("kernel");
    }
}

#[test]
fn older_kernels_overlay_receives_changes_and_lowers_stay() {
    if sandboxes_work() && require("kernel-overlay") {
        upper_receives_changes_and_lowers_stay("kernel-by-mount");
    }
}

#[test]
#[serial(fuse)]
fn fuse_overlay_receives_changes_and_lowers_stay() {
    if sandboxes_work() && require("fuse-overlay") {
        upper_receives_changes_and_lowers_stay("fuse");
    }
}

#[test]
#[serial(fuse)]
fn fuse_overlay_ends_with_its_builder() {
    if !sandboxes_work() || !require("fuse-overlay") {
        return;
    }
    let root = small_root();
    let changes = Changes(directory());
    in_overlay("fuse", &changes, &[root.path()], "exit 0").ok();
    let mountpoint = changes.0.path().join("scratch/merged");
    let running = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).into_owned();
        cmdline.starts_with("fuse-overlayfs") && cmdline.contains(mountpoint.to_str().unwrap())
    });
    assert!(!running, "fuse-overlayfs goes on without a mount");
}

#[test]
fn step_that_fails_over_an_overlay_reports_so() {
    if !sandboxes_work() || !require("kernel-overlay") {
        return;
    }
    let root = small_root();
    let changes = Changes(directory());
    assert_eq!(
        in_overlay("kernel", &changes, &[root.path()], "exit 9").code,
        Some(9)
    );
}

#[test]
fn lower_that_is_missing_is_named() {
    if !sandboxes_work() {
        return;
    }
    let changes = Changes(directory());
    let lower = Path::new("/nowhere/lower");
    in_overlay("kernel", &changes, &[lower], "true").fails_with(&["/nowhere/lower"]);
}

#[test]
fn many_lowers_and_long_paths_are_no_matter() {
    if sandboxes_work() && require("kernel-overlay") {
        many_lowers_and_long_paths("kernel");
        many_lowers_and_long_paths("kernel-by-mount");
    }
}

fn many_lowers_and_long_paths(kind: &str) {
    let root = small_root();
    let holder = directory();
    let long = holder.path().join("l".repeat(200)).join("m".repeat(200));
    let mut lowers = Vec::new();
    for number in 0..120 {
        let lower = long.join(number.to_string());
        fs::create_dir_all(&lower).unwrap();
        fs::write(lower.join("top"), number.to_string()).unwrap();
        fs::write(lower.join(format!("file{number}")), "").unwrap();
        lowers.push(lower);
    }
    let mut lowers: Vec<&Path> = lowers.iter().map(|p| p.as_path()).collect();
    lowers.push(root.path());
    let changes = Changes(directory());
    let said = in_overlay(
        kind,
        &changes,
        &lowers,
        "cat /top; echo; ls /file* | { n=0; while read f; do n=$((n+1)); done; echo $n; }",
    )
    .ok();
    assert_eq!(said, "0\n120");
}
