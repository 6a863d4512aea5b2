//! `kiln run`: what the command gets, and what its end says.

mod support;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use support::{FaultyRegistry, Kiln, Output, Registry};

/// Runs a shell command in the image.
fn shell(kiln: &Kiln, options: &[&str], image: &str, script: &str) -> Output {
    let command = [image, "sh", "-c", script];
    kiln.run(["run", "--rm"].iter().chain(options).chain(&command))
}

#[test]
fn command_s_output_and_exit_code_come_through() {
    let (kiln, image) = Kiln::with_busybox();
    let output = shell(&kiln, &[], &image, "echo out; echo err >&2; exit 42");
    assert_eq!(
        (
            output.code(),
            output.stdout().as_str(),
            output.stderr().as_str()
        ),
        (Some(42), "out\n", "err\n")
    );
}

#[test]
fn dev_stdout_can_be_opened_and_lines_keep_their_order_where_output_goes_to_one_file() {
    let (kiln, image) = Kiln::with_busybox();
    let path = kiln.sandbox().join("log");
    let log = std::fs::File::create(&path).unwrap();
    // As the logs of nginx are linked, opened by a user who is not root.
    let script = "for i in 1 2 3; do echo out > /dev/stdout; echo err >&2; done; exit 7";
    let mut command = kiln.command(["run", "-u", "app", &image, "sh", "-c", script]);
    let status = command
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .unwrap();
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(written, "out\nerr\n".repeat(3));
    assert_eq!(status.code(), Some(7));
}

#[test]
fn large_output_to_a_file_is_whole() {
    let (kiln, image) = Kiln::with_busybox();
    let path = kiln.sandbox().join("log");
    let script = "head -c 3000000 /dev/zero; echo no >&2";
    let mut command = kiln.command(["run", &image, "sh", "-c", script]);
    let output = command
        .stdout(std::fs::File::create(&path).unwrap())
        .output()
        .unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().len(), 3_000_000);
    assert_eq!(output.stderr, b"no\n");
}

#[test]
fn exit_code_of_a_command_that_a_signal_ended_is_128_and_its_number() {
    let (kiln, image) = Kiln::with_busybox();
    // The kernel's own SIGKILL, since process 1 can't send itself one.
    let output = shell(&kiln, &[], &image, "ulimit -t 1; while :; do :; done");
    assert_eq!(output.code(), Some(128 + 9), "{output}");
}

#[test]
fn command_that_can_t_start_gives_127_or_126_and_what_fails_before_125() {
    let (kiln, image) = Kiln::with_busybox();
    let run = |arguments: &[&str]| {
        let output = kiln.run(["run"].iter().chain(arguments)).fails();
        assert_eq!(output.stdout(), "");
        (output.code().unwrap(), output.stderr())
    };
    assert_eq!(
        run(&[&image, "nosuch", "-x"]),
        (
            127,
            "error: exec \"nosuch\": no such file in the image\n".to_owned()
        )
    );
    assert_eq!(
        run(&[&image, "/etc/passwd"]),
        (
            126,
            "error: exec \"/etc/passwd\": permission denied (is it executable?)\n".to_owned()
        )
    );
    assert_eq!(
        run(&["-u", "nosuch", &image, "id"]),
        (
            125,
            "error: no user \"nosuch\" in the image's /etc/passwd\n\
             hint: create it when the image is built (RUN useradd or adduser, groupadd or addgroup), \
             or give the user by number\n"
                .to_owned()
        )
    );
    assert_eq!(
        run(&["-w", "relative", &image, "pwd"]),
        (
            125,
            "error: the working directory \"relative\" must be an absolute path\n".to_owned()
        )
    );
    assert_eq!(
        run(&["-w", "/etc/passwd", &image, "pwd"]),
        (
            125,
            "error: the working directory /etc/passwd is not a directory in the image\n".to_owned()
        )
    );
    assert_eq!(
        run(&["--entrypoint", "", &image]),
        (
            125,
            "error: the image has no command\nhint: give one: kiln run IMAGE COMMAND\n".to_owned()
        )
    );
    assert_eq!(run(&["--nosuch", &image]).0, 2);
}

#[test]
fn environment_is_the_image_s_and_what_is_given() {
    let (kiln, base) = Kiln::with_busybox();
    kiln.build(
        &format!("FROM {base}\nENV KEPT=image REPLACED=image\n"),
        &[],
    )
    .ok();
    let mut command = kiln.command([
        "run",
        "-e",
        "REPLACED=given",
        "-e",
        "NEW=a b=c",
        "-e",
        "CALLER",
        "-e",
        "UNSET",
        "--hostname",
        "box",
        "test",
        "env",
    ]);
    command
        .env("CALLER", "from outside")
        .env("SECRET", "stays outside");
    let output = support::run(&mut command, Duration::from_secs(60)).ok();
    let mut lines: Vec<_> = output.stdout().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "CALLER=from outside",
            "HOME=/root",
            "HOSTNAME=box",
            "KEPT=image",
            "NEW=a b=c",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "REPLACED=given",
        ]
    );
}

#[test]
fn working_directory_is_the_image_s_or_the_one_given_and_is_made_where_it_is_missing() {
    let (kiln, base) = Kiln::with_busybox();
    kiln.build(&format!("FROM {base}\nWORKDIR /src\n"), &[])
        .ok();
    assert_eq!(kiln.run(["run", "test", "pwd"]).ok().stdout(), "/src\n");
    assert_eq!(
        kiln.run(["run", "-w", "/tmp", "test", "pwd"]).ok().stdout(),
        "/tmp\n"
    );
    let script = "pwd; stat -c '%a %u:%g' . ..; stat -c %a /home";
    let output = shell(&kiln, &["-w", "/home/new/dir"], "test", script).ok();
    assert_eq!(output.stdout(), "/home/new/dir\n755 0:0\n755 0:0\n755\n");
    assert_eq!(shell(&kiln, &[], "test", "ls /home").ok().stdout(), "app\n");
}

#[test]
fn user_is_the_image_s_or_the_one_given_with_the_groups_that_docker_gives() {
    let (kiln, base) = Kiln::with_busybox();
    kiln.build(&format!("FROM {base}\nUSER app\n"), &[]).ok();
    let ids = "echo $(id -u) $(id -g) $(id -G) $HOME";
    for (options, expected) in [
        (&[][..], "1000 1000 1000 2000 /home/app\n"),
        (&["-u", "root"], "0 0 0 /root\n"),
        (&["-u", "app"], "1000 1000 1000 2000 /home/app\n"),
        (&["-u", "1000"], "1000 1000 1000 2000 /home/app\n"),
        (&["-u", "1234"], "1234 0 0 /\n"),
        (&["-u", "1234:5678"], "1234 5678 5678 /\n"),
        (&["-u", "app:root"], "1000 0 0 /home/app\n"),
    ] {
        assert_eq!(
            shell(&kiln, options, "test", ids).ok().stdout(),
            expected,
            "{options:?}"
        );
    }
}

#[test]
fn entry_point_and_command_go_together_as_in_docker() {
    let (kiln, base) = Kiln::with_busybox();
    let build = |text: &str| {
        kiln.build(&format!("FROM {base}\n{text}\n"), &[]).ok();
    };
    let run = |arguments: &[&str]| kiln.run(["run"].iter().chain(arguments)).ok().stdout();
    build("ENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"default\"]");
    assert_eq!(run(&["test"]), "entry default\n");
    assert_eq!(run(&["test", "given", "--flag"]), "entry given --flag\n");
    assert_eq!(run(&["--entrypoint", "echo", "test"]), "\n");
    assert_eq!(run(&["--entrypoint", "echo", "test", "given"]), "given\n");
    assert_eq!(run(&["--entrypoint", "", "test", "echo", "bare"]), "bare\n");
    build("CMD echo \"$0\" shell form");
    assert_eq!(run(&["test"]), "/bin/sh shell form\n");
    assert_eq!(run(&["test", "echo", "replaced"]), "replaced\n");
}

#[test]
fn without_a_network_there_is_a_loopback_that_is_up() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "ip -o link | cut -d: -f2; ip -o addr show lo | grep -c 127.0.0.1; \
                  wc -c < /etc/resolv.conf; grep -c localhost /etc/hosts";
    let output = shell(&kiln, &["--network", "none"], &image, script).ok();
    assert_eq!(output.stdout(), " lo\n1\n0\n2\n");
}

#[test]
fn resolver_is_the_host_s_and_the_host_name_is_known() {
    let (kiln, image) = Kiln::with_busybox();
    let output = kiln.run(["run", &image, "cat", "/etc/resolv.conf"]).ok();
    assert_eq!(
        output.stdout(),
        std::fs::read_to_string("/etc/resolv.conf").unwrap()
    );
    let script = "hostname; grep -w \"$(hostname)\" /etc/hosts";
    assert_eq!(
        shell(&kiln, &["--hostname", "box"], &image, script)
            .ok()
            .stdout(),
        "box\n127.0.0.1\tlocalhost box\n"
    );
}

#[test]
fn standard_input_is_given_only_where_it_is_asked_for() {
    let (kiln, image) = Kiln::with_busybox();
    let cat = |options: &[&str]| {
        let mut command = kiln.command(
            ["run"]
                .iter()
                .chain(options)
                .chain(&[image.as_str(), "cat"]),
        );
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Without -i nobody reads it, and the pipe may be closed already.
        let _ = child.stdin.take().unwrap().write_all(b"some input\n");
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(cat(&["-i"]), "some input\n");
    assert_eq!(cat(&[]), "");
}

#[test]
fn changes_are_gone_afterwards_and_nothing_is_left() {
    let (kiln, image) = Kiln::with_busybox();
    let layers = || {
        std::fs::read_dir(kiln.store().join("layers"))
            .unwrap()
            .count()
    };
    let before = layers();
    shell(
        &kiln,
        &[],
        &image,
        "touch /new; rm /etc/passwd; mkdir /a; chown 5:5 /a",
    )
    .ok();
    let output = shell(&kiln, &[], &image, "ls -d /new /a; ls /etc/passwd");
    assert_eq!(output.stdout(), "/etc/passwd\n", "{output}");
    assert_eq!(layers(), before);
    for directory in ["tmp", "trash"] {
        let left = std::fs::read_dir(kiln.store().join(directory))
            .unwrap()
            .count();
        assert_eq!(left, 0, "{directory}");
    }
}

#[test]
fn unknown_image_is_pulled_and_said_to_be() {
    let kiln = Kiln::new();
    let image = Registry::shared().busybox();
    let output = kiln.run(["run", &image, "echo", "hi"]).ok();
    assert_eq!(output.stdout(), "hi\n");
    assert!(
        output
            .stderr()
            .starts_with(&format!("{image} is not in the store: pulling it\npull ")),
        "{output}"
    );
    let registry = FaultyRegistry::start();
    let output = kiln.run(["run", &registry.reference("1"), "true"]).fails();
    assert_eq!(output.code(), Some(125));
    assert_eq!(
        output.stderr().replace(&registry.address(), "REGISTRY"),
        "REGISTRY/app:1 is not in the store: pulling it\n\
         error: REGISTRY/app: manifest 1: no such tag\n\
         hint: the repository exists; check the tag\n"
    );
}

#[test]
fn termination_ends_the_command_and_cleans_up() {
    let (kiln, image) = Kiln::with_busybox();
    let mut command = kiln.command(["run", &image, "sh", "-c", "echo up; exec sleep 300"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "kiln does not end on SIGTERM");
        thread::sleep(Duration::from_millis(10));
    }
    // The command held the pipe: its end shows that it is gone too.
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.status.signal()),
        (Some(143), None)
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "terminated\n");
    let left = std::fs::read_dir(kiln.store().join("tmp")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn what_follows_the_image_is_never_a_flag_of_kiln() {
    let kiln = Kiln::new();
    let image = Registry::shared().busybox();
    let said = |arguments: &[&str]| {
        let run = [&["run", "--rm"], arguments].concat();
        kiln.run(run).ok().stdout()
    };
    // -c is a flag of docker's for processors, -v and --rm are kiln's own.
    assert_eq!(
        said(&["--entrypoint", "sh", &image, "-c", "echo yes"]),
        "yes\n"
    );
    assert_eq!(
        said(&["--entrypoint", "echo", &image, "-v", "--rm", "--name=x"]),
        "-v --rm --name=x\n"
    );
    assert_eq!(said(&["--", &image, "echo", "x"]), "x\n");
}
