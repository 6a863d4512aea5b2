//! Hosts that deny something: a full disk, no subordinate ids, no user namespaces. Root sets
//! them up; kiln runs as the user kiln-test. Full disks come one at a time: they are tmpfs, and
//! take the machine's memory.

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::User;

use serial_test::serial;
use support::{Output, Sandbox, root_only, run};

const USER: &str = "kiln-test";

/// A small file system for a store and nothing else.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn new(sandbox: &Sandbox, name: &str, megabytes: usize) -> Self {
        let path = sandbox.directory(name, &[]);
        let options = format!("size={megabytes}m,mode=0755");
        let none = None::<&str>;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(none, &path, Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        hand_over(&path);
        Self { path }
    }

    fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Takes all the room that is left, but for so many bytes.
    fn fill(&self, spare: u64) -> PathBuf {
        let ballast = self.path.join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        let block = [0u8; 4096];
        let mut size = 0;
        while file.write_all(&block).is_ok() {
            size += block.len() as u64;
        }
        file.set_len(size.saturating_sub(spare)).unwrap();
        ballast
    }

    fn leftovers(&self) -> Vec<PathBuf> {
        ["tmp", "trash"]
            .iter()
            .flat_map(|name| fs::read_dir(self.store().join(name)).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

fn hand_over(path: &Path) {
    let user = User::from_name(USER).unwrap().expect("ci/setup-root");
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
}

/// Returns kiln as a user, given by name or number.
fn kiln_as(user: &str, sandbox: &Sandbox, store: &Path) -> Command {
    let home = sandbox.directory(&format!("home-{user}"), &[]);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--regid", user])
        .arg(if user == USER {
            "--init-groups"
        } else {
            "--clear-groups"
        })
        .args(["--", env!("CARGO_BIN_EXE_kiln"), "--root"])
        .arg(store)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", home)
        .current_dir(sandbox.path());
    command
}

fn go(command: &mut Command) -> Output {
    run(command, Duration::from_secs(60))
}

fn kiln(sandbox: &Sandbox, disk: &SmallDisk, arguments: &[&str]) -> Output {
    go(kiln_as(USER, sandbox, &disk.store()).args(arguments))
}

/// Makes a context with a static busybox, which can be built without a registry.
fn context(sandbox: &Sandbox, name: &str, instructions: &str) -> String {
    let dockerfile =
        format!("FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/dd\n{instructions}\n");
    let context = sandbox.directory(name, &[("Dockerfile", &dockerfile)]);
    fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    context.to_str().unwrap().to_owned()
}

const FULL: &str = "hint: the disk of the store is full: remove images with `kiln rmi`, \
    or put the store elsewhere with --root\n";

#[test]
#[serial]
fn disk_that_fills_up_in_a_step_is_named_and_the_next_build_works() {
    root_only!();
    let sandbox = Sandbox::new();
    let disk = SmallDisk::new(&sandbox, "disk", 24);
    let run = "RUN dd if=/dev/zero of=/large bs=1M count=40";
    let build = ["build", "--progress", "plain", "-t", "large"];
    let large = context(&sandbox, "large", run);
    let output = kiln(&sandbox, &disk, &[&build[..], &[large.as_str()]].concat()).fails();
    assert_eq!(output.code(), Some(1));
    let stderr = output.stderr();
    for text in [
        "No space left on device",
        "[4/4] RUN dd if=/dev/zero of=/large bs=1M count=40",
        "Dockerfile:4",
        FULL,
    ] {
        assert!(stderr.contains(text), "{text:?} in\n{stderr}");
    }
    assert_eq!(disk.leftovers(), [] as [PathBuf; 0]);
    let small = context(&sandbox, "large", &run.replace("40", "4"));
    kiln(&sandbox, &disk, &[&build[..], &[small.as_str()]].concat()).ok();
    kiln(
        &sandbox,
        &disk,
        &["run", "--rm", "large", "dd", "if=/large", "of=/dev/null"],
    )
    .ok();
}

#[test]
#[serial]
fn disk_that_fills_up_in_a_copy_is_named_and_the_next_build_works() {
    root_only!();
    let sandbox = Sandbox::new();
    let disk = SmallDisk::new(&sandbox, "disk", 16);
    let context = context(&sandbox, "context", "COPY large /");
    let large = Path::new(&context).join("large");
    fs::write(&large, vec![7; 20 << 20]).unwrap();
    let output = kiln(&sandbox, &disk, &["build", "--progress", "plain", &context]).fails();
    assert_eq!(output.code(), Some(1));
    let stderr = output.stderr();
    for text in ["Dockerfile:4", "No space left on device", FULL] {
        assert!(stderr.contains(text), "{text:?} in\n{stderr}");
    }
    assert_eq!(disk.leftovers(), [] as [PathBuf; 0]);
    fs::write(&large, "small").unwrap();
    kiln(&sandbox, &disk, &["build", &context]).ok();
}

#[test]
#[serial]
fn images_can_be_removed_from_a_disk_that_is_all_full() {
    root_only!();
    let sandbox = Sandbox::new();
    let disk = SmallDisk::new(&sandbox, "disk", 16);
    let context = context(
        &sandbox,
        "context",
        "RUN dd if=/dev/zero of=/some bs=1M count=1",
    );
    kiln(&sandbox, &disk, &["build", "-t", "some", &context]).ok();
    let ballast = disk.fill(0);
    for arguments in [
        &["images"][..],
        &["history", "some"],
        &["inspect", "some"],
        &["version"],
    ] {
        kiln(&sandbox, &disk, arguments).ok();
    }
    let output = kiln(&sandbox, &disk, &["build", "--no-cache", &context]).fails();
    assert!(output.stderr().contains(FULL), "{output}");
    let output = kiln(&sandbox, &disk, &["tag", "some", "other"]).fails();
    assert!(output.stderr().contains(FULL), "{output}");
    assert_eq!(disk.leftovers(), [] as [PathBuf; 0]);
    kiln(&sandbox, &disk, &["rmi", "some"]).ok();
    fs::remove_file(ballast).unwrap();
    kiln(&sandbox, &disk, &["build", "-t", "some", &context]).ok();
}

/// A registry that dies with its value.
struct Registry(Child, String);

impl Registry {
    fn start(sandbox: &Sandbox) -> Self {
        let storage = sandbox.directory("registry", &[]);
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {storage:?}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n"
        );
        let path = sandbox.join("registry.yml");
        fs::write(&path, config).unwrap();
        let log = sandbox.join("registry.log");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        // From here on, its end is seen to.
        let mut registry = Self(process, String::new());
        for _ in 0..1000 {
            let text = fs::read_to_string(&log).unwrap();
            if let Some((_, rest)) = text.split_once("listening on ") {
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
                registry.1 = rest[..end.unwrap()].to_owned();
                return registry;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("docker-registry did not start");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[serial]
fn disk_that_fills_up_in_a_pull_is_named_and_the_next_pull_works() {
    root_only!();
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox);
    let name = format!("{}/large:latest", registry.1);
    let large = SmallDisk::new(&sandbox, "large", 200);
    let context = context(&sandbox, "context", "COPY large /");
    // Nothing that compression makes small.
    let noise = fs::File::open("/dev/urandom").unwrap();
    let mut file = fs::File::create(Path::new(&context).join("large")).unwrap();
    std::io::copy(&mut std::io::Read::take(noise, 20 << 20), &mut file).unwrap();
    kiln(&sandbox, &large, &["build", "-t", &name, &context]).ok();
    kiln(&sandbox, &large, &["push", &name]).ok();

    let disk = SmallDisk::new(&sandbox, "disk", 60);
    kiln(&sandbox, &disk, &["images"]).ok();
    let ballast = disk.fill(24 << 20);
    let output = kiln(&sandbox, &disk, &["pull", &name]).fails();
    assert_eq!(output.code(), Some(1));
    let stderr = output.stderr();
    for text in ["error: layer sha256:", "No space left on device", FULL] {
        assert!(stderr.contains(text), "{text:?} in\n{stderr}");
    }
    assert_eq!(disk.leftovers(), [] as [PathBuf; 0]);
    assert!(
        kiln(&sandbox, &disk, &["images", "-q"])
            .ok()
            .line()
            .is_empty()
    );
    fs::remove_file(ballast).unwrap();
    kiln(&sandbox, &disk, &["pull", &name]).ok();
    kiln(
        &sandbox,
        &disk,
        &["run", "--rm", &name, "dd", "if=/large", "of=/dev/null"],
    )
    .ok();
}

/// What needs no namespace works for everyone.
fn assert_others_work(mut kiln: impl FnMut() -> Command) {
    go(kiln().arg("images")).ok();
    go(kiln().arg("version")).ok();
    go(kiln().arg("--help")).ok();
    for command in ["history", "inspect"] {
        go(kiln().args([command, "none"])).fails_with("error: no such image: none\n");
    }
    go(kiln().args(["tag", "none", "other"])).fails_with("error: no such image: none\n");
}

#[test]
fn user_without_subordinate_ids_is_told_the_line_to_add() {
    root_only!();
    let sandbox = Sandbox::new();
    let store = sandbox.directory("store-of-nobody", &[]);
    let number = 12_345;
    chown(&store, Some(number), Some(number)).unwrap();
    let kiln = || kiln_as("12345", &sandbox, &store);
    let context = context(&sandbox, "context", "");
    for arguments in [vec!["build", &context], vec!["pull", "127.0.0.1:1/none"]] {
        let output = go(kiln().args(arguments)).fails();
        assert_eq!(output.code(), Some(1));
        let stderr = output.stderr();
        assert!(
            stderr.starts_with("error: no subordinate ids for user 12345\nhint: add \"12345:")
                && stderr.contains(":65536\" to /etc/subuid and /etc/subgid"),
            "{stderr}"
        );
    }
    let output = go(kiln().args(["run", "--rm", "none"]));
    assert_eq!(output.code(), Some(125), "{output}");
    assert_others_work(kiln);
}

#[test]
fn user_namespaces_beyond_their_limit_are_named_with_the_setting() {
    root_only!();
    let sandbox = Sandbox::new();
    let store = sandbox.directory("store", &[]);
    hand_over(&store);
    let context = context(&sandbox, "context", "");
    // A namespace with all ids, in which no further one may be made.
    let mut holder = Command::new("unshare")
        .args(["--user", "sleep", "60"])
        .spawn()
        .unwrap();
    let pid = holder.id().to_string();
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    while fs::read_link(format!("/proc/{pid}/ns/user")).unwrap() == own {
        std::thread::sleep(Duration::from_millis(1));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), "0 0 4294967295").unwrap();
    }
    let within = |command: &Command| {
        let mut outer = Command::new("nsenter");
        outer
            .args([
                "--user", "--target", &pid, "--setuid", "0", "--setgid", "0", "--",
            ])
            .args([
                "sh",
                "-c",
                "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"",
                "sh",
            ])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
        outer
    };
    let kiln = || within(&kiln_as(USER, &sandbox, &store));
    let output = go(kiln().args(["build", &context]));
    let others = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_others_work(kiln);
    }));
    let _ = holder.kill();
    let _ = holder.wait();
    assert_eq!(output.code(), Some(1), "{output}");
    assert_eq!(
        output.stderr(),
        "error: user namespaces are not available: unshare(CLONE_NEWUSER|CLONE_NEWNS): \
         No space left on device\n\
         hint: the limit of user namespaces is reached; as root: \
         sysctl -w user.max_user_namespaces=65536\n"
    );
    others.unwrap();
}
