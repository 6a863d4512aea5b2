//! Attacks from within a step, each named after what it must not reach. Where not said
//! otherwise the root is the host's own `/`, so that only the sandbox stands in between.

mod support;

use std::fs::{self, Permissions};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use nix::libc;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getuid};
use support::{
    Background, directory, entries, perl, require, run, sandbox, sandboxes_work, script, small_root,
};

/// Docker's default capabilities, as /proc/PID/status writes them.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

/// Returns a field of the step's /proc/self/status.
fn status(text: &str, field: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {field} in {text}"))
        .trim()
        .to_owned()
}

fn is_subordinate(uid: u32) -> bool {
    let name = nix::unistd::User::from_uid(getuid()).unwrap().unwrap().name;
    let subuid = fs::read_to_string("/etc/subuid").unwrap();
    kiln_runtime::subid::ranges_for(&name, getuid().as_raw(), &subuid)
        .iter()
        .any(|range| (range.start..range.start + range.count).contains(&uid))
}

#[test]
fn root_of_a_step_is_a_subordinate_id_on_the_host() {
    if !sandboxes_work() {
        return;
    }
    let background = Background::start(&["sleep", "31.41"]);
    let status = fs::read_to_string(format!("/proc/{}/status", background.step)).unwrap();
    let ids = self::status(&status, "Uid");
    let ids: Vec<u32> = ids
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    assert_eq!(ids.len(), 4);
    for id in ids {
        assert_ne!(id, getuid().as_raw());
        assert!(is_subordinate(id), "{id} is no subordinate id");
    }
    let directory = directory();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let file = directory.path().join("file");
    assert_eq!(
        script(&format!("id -u; touch {}", file.display())).ok(),
        "0"
    );
    assert!(is_subordinate(fs::metadata(file).unwrap().uid()));
}

#[test]
fn private_file_of_the_user_within_the_root_stays_unread() {
    if !sandboxes_work() {
        return;
    }
    let directory = directory();
    let (private, public) = (
        directory.path().join("private"),
        directory.path().join("public"),
    );
    fs::write(&private, "secret").unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
    fs::write(&public, "public").unwrap();
    assert_eq!(script(&format!("cat {}", public.display())).ok(), "public");
    let private = private.display();
    script(&format!("cat {private}")).fails_with(&["Permission denied"]);
    script(&format!("chmod 666 {private}")).fails_with(&["not permitted"]);
    script(&format!("chown 0 {private}")).fails_with(&["not permitted"]);
    script(&format!("echo x > {}", public.display())).fails_with(&["denied"]);
    script(&format!("rm -f {}", public.display())).fails_with(&["denied"]);
}

#[test]
fn processes_of_the_host_are_not_seen() {
    if !sandboxes_work() {
        return;
    }
    let seen = script("for p in /proc/[0-9]*; do echo ${p#/proc/}; done").ok();
    assert_eq!(seen, "1");
    let host = std::process::id();
    perl(&format!("kill(0, {host}) or die $!")).fails_with(&["No such process"]);
    assert_eq!(script("kill -9 -1; echo alive").ok(), "alive");
    // The test and what runs it still do.
    assert!(kill(Pid::this(), None).is_ok());
}

/// Asserts that a system call with perl's arguments fails for want of permission.
#[track_caller]
fn assert_refused(number: libc::c_long, arguments: &str) {
    perl(&format!(
        "my @a = ({arguments}); syscall({number}, @a) >= 0 or die \"call {number}: $!\""
    ))
    .fails_with(&[&format!("call {number}: Operation not permitted")]);
}

#[test]
fn mounts_and_namespaces_are_refused() {
    if !sandboxes_work() {
        return;
    }
    let calls = [
        (libc::SYS_mount, "'none', '/mnt', 'tmpfs', 0, 0"),
        (libc::SYS_umount2, "'/proc/sys', 2"),
        (libc::SYS_unshare, "0x10000000"),
        (libc::SYS_pivot_root, "'.', '.'"),
        (libc::SYS_fsopen, "'tmpfs', 0"),
        (libc::SYS_open_tree, "-100, '/', 1"),
        (libc::SYS_setns, "0, 0"),
    ];
    for (number, arguments) in calls {
        assert_refused(number, arguments);
    }
    // clone(2) with CLONE_NEWUSER.
    perl(&format!(
        "my $p = syscall({}, 0x10000011, 0, 0, 0, 0); $p >= 0 or die $!; exit 0",
        libc::SYS_clone
    ))
    .fails_with(&["Operation not permitted"]);
}

#[test]
fn modules_and_settings_of_the_host_are_out_of_reach() {
    if !sandboxes_work() {
        return;
    }
    let calls = [
        (libc::SYS_init_module, "'x', 1, ''"),
        (libc::SYS_finit_module, "0, '', 0"),
        (libc::SYS_delete_module, "'x', 0"),
        (libc::SYS_reboot, "0xfee1dead, 672274793, 0, 0"),
        (libc::SYS_bpf, "0, 0, 0"),
        (libc::SYS_keyctl, "0, -3, 0"),
        (libc::SYS_perf_event_open, "0, 0, 0, 0, 0"),
        (libc::SYS_settimeofday, "0, 0"),
        (libc::SYS_syslog, "3, 0, 0"),
    ];
    for (number, arguments) in calls {
        assert_refused(number, arguments);
    }
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ] {
        script(&format!("echo x > {path}")).fails_with(&["cannot create"]);
    }
    // A device node can be made by nobody who has no capability over the host's devices.
    let directory = directory();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let node = directory.path().join("disk");
    script(&format!("mknod {} b 254 0", node.display())).fails_with(&["not permitted"]);
}

#[test]
fn masked_paths_are_empty() {
    if !sandboxes_work() {
        return;
    }
    for options in [&[][..], &["--host-network"]] {
        let words = [
            options,
            &[
                "/",
                "sh",
                "-c",
                "cat /proc/keys /proc/timer_list /proc/kcore; ls -A /sys/firmware",
            ],
        ];
        assert_eq!(run(&mut sandbox(words.concat())).stdout, "", "{options:?}");
    }
}

#[test]
fn chroot_leads_to_the_sandbox_s_root_at_most() {
    if !sandboxes_work() {
        return;
    }
    let root = small_root();
    fs::create_dir(root.path().join("tmp/inner")).unwrap();
    let escape = "chdir '/tmp'; chroot 'inner' or die $!; chdir '..' for 1..99; chroot '.' or die $!; \
                  opendir my $d, '/' or die $!; print join ' ', sort readdir $d";
    let mut command = sandbox([root.path().as_os_str()]);
    let seen = run(command.args(["perl", "-e", escape])).ok();
    let mut expected = entries(root.path());
    expected.extend([".".to_owned(), "..".to_owned()]);
    expected.sort();
    assert_eq!(seen.split(' ').collect::<Vec<_>>(), expected);
}

/// Returns a command like `sandbox`, from a caller that leaves the host's `/` open as
/// descriptor 9, ignores signals and has a umask and a secret in its environment.
fn sandbox_of_careless_caller(words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "exec 9</; umask 077; trap '' INT HUP CHLD PIPE; exec \"$@\"",
            "sh",
        ])
        .arg(support::example("run_in_directory"))
        .args(words)
        .env("SECRET", "1");
    command
}

#[test]
fn nothing_of_the_caller_is_inherited() {
    if !sandboxes_work() {
        return;
    }
    let inside = |words: &[&str]| run(&mut sandbox_of_careless_caller(words));
    assert_eq!(
        inside(&["/", "env"]).ok(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
    assert_eq!(inside(&["/", "sh", "-c", "umask"]).ok(), "0022");
    // The fourth is the directory that ls reads.
    assert_eq!(inside(&["/", "ls", "/proc/self/fd"]).ok(), "0\n1\n2\n3");
    let text = inside(&["/", "cat", "/proc/self/status"]).ok();
    for signals in ["SigIgn", "SigBlk", "SigCgt", "SigPnd", "ShdPnd"] {
        assert_eq!(status(&text, signals), "0000000000000000", "{signals}");
    }
    // An ignored SIGCHLD would lose it.
    assert_eq!(inside(&["/", "sh", "-c", "exit 7"]).code, Some(7));
}

#[test]
fn descriptors_of_the_builder_lead_nowhere() {
    if !sandboxes_work() {
        return;
    }
    let root = small_root();
    let root = root.path().to_str().unwrap();
    for number in 3..32 {
        let path = format!("/proc/self/fd/{number}");
        let cwd = run(&mut sandbox_of_careless_caller(&[
            "--cwd", &path, root, "ls",
        ]));
        cwd.fails_with(&["chdir(/proc/self/fd/"]);
        let program = format!("{path}/bin/sh");
        let program = run(&mut sandbox_of_careless_caller(&[
            root, &program, "-c", "echo out",
        ]));
        program.fails_with(&["exec"]);
    }
}

#[test]
fn capabilities_and_filter_are_the_default() {
    if !sandboxes_work() {
        return;
    }
    let text = script("cat /proc/self/status").ok();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status(&text, set), DEFAULT_CAPABILITIES, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(&text, set), "0000000000000000", "{set}");
    }
    // Setuid programs work; the filter was installed without giving them up.
    assert_eq!(status(&text, "NoNewPrivs"), "0");
    assert_eq!(status(&text, "Seccomp"), "2");
}

#[test]
fn other_users_have_no_capabilities() {
    if !sandboxes_work() {
        return;
    }
    let inside = |words: &[&str]| {
        run(&mut sandbox(
            [&["--user", "1000:1001,20,30", "/"], words].concat(),
        ))
    };
    assert_eq!(inside(&["id", "-u"]).ok(), "1000");
    assert_eq!(inside(&["id", "-G"]).ok(), "1001 20 30");
    let text = inside(&["cat", "/proc/self/status"]).ok();
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(status(&text, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(&text, "CapBnd"), DEFAULT_CAPABILITIES);
    run(&mut sandbox(["--user", "4000000000:0", "/", "id"])).fails_with(&[
        "id 4000000000 is not mapped",
        "hint: ",
        "/etc/subuid",
    ]);
}

#[test]
fn abstract_sockets_of_the_host_are_closed() {
    if !sandboxes_work() || !require("landlock") {
        return;
    }
    let name = format!("kiln-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _server = UnixListener::bind_addr(&address).unwrap();
    let client = format!(
        "use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0) or die $!; \
         connect(S, pack_sockaddr_un(\"\\0{name}\")) or die $!; print 'connected'"
    );
    let mut command = sandbox(["--host-network", "/", "perl", "-e", &client]);
    run(&mut command).fails_with(&["Operation not permitted"]);
    // It is Landlock that closes it, and not a mistake in this test.
    assert_eq!(
        run(command.env("KILN_DISABLE", "landlock")).ok(),
        "connected"
    );
    perl(&client).fails_with(&["Connection refused"]);
}

#[test]
fn network_none_is_a_loopback_that_is_up() {
    if !sandboxes_work() || !require("net-namespace") {
        return;
    }
    let devices = script("cat /proc/net/dev").ok();
    let names: Vec<&str> = devices
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|d| d.0.trim())
        .collect();
    // Tunnels that the kernel adds to every namespace are down and lead nowhere.
    assert!(names.contains(&"lo"), "{devices}");
    assert_eq!(
        script("ls /sys/class/net").ok().split_whitespace().count(),
        names.len()
    );
    assert!(
        !names
            .iter()
            .any(|n| n.starts_with("eth") || n.starts_with("en")),
        "{names:?}"
    );
    assert_eq!(script("tail -n +2 /proc/net/route").ok(), "");
    let talk = "use Socket; socket(L, AF_INET, SOCK_STREAM, 0) or die $!; \
                bind(L, pack_sockaddr_in(7777, INADDR_LOOPBACK)) or die $!; listen(L, 1) or die $!; \
                socket(C, AF_INET, SOCK_STREAM, 0) or die $!; \
                connect(C, pack_sockaddr_in(7777, INADDR_LOOPBACK)) or die $!; print 'connected'";
    assert_eq!(perl(talk).ok(), "connected");
}

#[test]
fn step_dies_with_a_killed_builder() {
    if !sandboxes_work() {
        return;
    }
    let background = Background::start(&["sleep", "31.42"]);
    kill(
        Pid::from_raw(background.builder.id() as i32),
        Signal::SIGKILL,
    )
    .unwrap();
    background.assert_step_ends();
}

#[test]
fn step_that_clears_its_death_signal_dies_too() {
    if !sandboxes_work() {
        return;
    }
    // Setuid programs do the same without meaning to.
    let program = format!("syscall({}, 1, 0); exec 'sleep', '31.43'", libc::SYS_prctl);
    let background = Background::start_as(&["perl", "-e", &program], &["sleep", "31.43"]);
    kill(
        Pid::from_raw(background.builder.id() as i32),
        Signal::SIGKILL,
    )
    .unwrap();
    background.assert_step_ends();
}

#[test]
fn interrupt_of_the_terminal_ends_the_step() {
    if !sandboxes_work() {
        return;
    }
    let background = Background::start(&["sleep", "31.44"]);
    killpg(
        Pid::from_raw(background.builder.id() as i32),
        Signal::SIGINT,
    )
    .unwrap();
    background.assert_step_ends();
}

#[test]
fn processes_left_in_a_step_end_with_it() {
    if !sandboxes_work() {
        return;
    }
    assert_eq!(
        script("sleep 31.45 >/dev/null 2>&1 & echo started").ok(),
        "started"
    );
    assert_eq!(support::find_process(&["sleep", "31.45"]), None);
}
