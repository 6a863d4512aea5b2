//! A directory of a test, removed with what subordinate ids own in it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{processes_with, refuse_root, say};

/// Bytes that must be free on /dev/shm for a test to work there.
const ENOUGH_ROOM: u64 = 2 << 30;

/// A temporary directory, on tmpfs where there is room: the tests then don't wait for a disk.
pub struct Sandbox {
    path: PathBuf,
}

impl Sandbox {
    /// Makes an empty directory.
    pub fn new() -> Self {
        Self::below(&if has_room(Path::new("/dev/shm")) {
            PathBuf::from("/dev/shm")
        } else {
            PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        })
    }

    /// Makes an empty directory on the disk of the target directory, for what tmpfs can't do.
    pub fn on_disk() -> Self {
        Self::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// Makes an empty directory whose name carries the id of this process, on the disk, for what
    /// lives as long as the process does and is swept by the next one.
    pub fn named_by_process(name: &str) -> Self {
        refuse_root();
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    fn below(parent: &Path) -> Self {
        refuse_root();
        let path = tempfile::Builder::new()
            .prefix("kiln-test.")
            .tempdir_in(parent)
            .unwrap_or_else(|error| panic!("no directory below {}: {error}", parent.display()))
            .keep();
        // Steps have other uids: they must be able to pass through to what is mounted below.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a path below the directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory with files in it, and returns its path. What is written has the same
    /// times whenever that is: layers that hold it can be compared.
    pub fn directory(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let directory = self.join(name);
        fs::create_dir_all(&directory).unwrap();
        for (file, content) in files {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            for written in path.ancestors().take_while(|path| *path != self.path) {
                set_time(written);
            }
        }
        directory
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let path = self.path.display();
        // A test that fails may leave a container in the background.
        for pid in processes_with(&format!("{path}/")) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if std::env::var_os("KILN_TEST_KEEP").is_some() {
            say(&format!("KILN_TEST_KEEP: {path} stays"));
        } else if fs::remove_dir_all(&self.path).is_err() && !remove_as_namespace_root(&self.path) {
            say(&format!(
                "WARNING: {path} could not be removed: unshare -r --map-auto rm -rf {path}"
            ));
        }
    }
}

/// Sets when a file or directory was changed last, to a moment long ago.
fn set_time(path: &Path) {
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    // A file that its mode closes to its owner keeps its times.
    if let Ok(file) = fs::File::open(path) {
        file.set_modified(changed).unwrap();
    }
}

/// Removes what belongs to subordinate ids, as root of a user namespace that has them all.
fn remove_as_namespace_root(path: &Path) -> bool {
    let unshare: [&OsStr; 3] = ["unshare", "--map-root-user", "--map-auto"].map(OsStr::new);
    // On a machine whose AppArmor forbids namespaces to `unshare`, `buildah` has a profile.
    let buildah: [&OsStr; 2] = ["buildah", "unshare"].map(OsStr::new);
    [&unshare[..], &buildah[..]].iter().any(|prefix| {
        Command::new(prefix[0])
            .args(&prefix[1..])
            .args(["rm", "-rf", "--"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

fn has_room(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path)
        .is_ok_and(|fs| fs.fragment_size() * fs.blocks_available() > ENOUGH_ROOM)
}
