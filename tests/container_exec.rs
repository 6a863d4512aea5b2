//! `kiln exec`: another command in a container that runs, with no more rights than it has.

mod support;

use std::process::Stdio;

use support::{Kiln, Registry};

/// Returns kiln, and the container `bg` of busybox that runs in it.
fn running(options: &[&str]) -> Kiln {
    let kiln = Kiln::new();
    let image = Registry::shared().busybox();
    let start = ["run", "-d", "--name", "bg"];
    let command = [image.as_str(), "sleep", "300"];
    kiln.run(start.iter().chain(options).chain(&command)).ok();
    kiln
}

fn exec(kiln: &Kiln, options: &[&str], script: &str) -> String {
    let command = ["bg", "sh", "-c", script];
    let output = kiln.run(["exec"].iter().chain(options).chain(&command));
    output.ok().stdout()
}

#[test]
fn command_sees_the_processes_files_and_names_of_the_container() {
    let kiln = running(&["--hostname", "box", "-e", "OWN=1", "-w", "/tmp"]);
    let script = "hostname; pwd; echo $OWN $HOME; tr '\\0' ' ' < /proc/1/cmdline; echo; \
                  echo new > /file; readlink /proc/self/exe";
    assert_eq!(
        exec(&kiln, &[], script),
        "box\n/tmp\n1 /root\nsleep 300 \n/bin/busybox\n"
    );
    assert_eq!(exec(&kiln, &[], "cat /file"), "new\n");
    assert!(kiln.run(["diff", "bg"]).ok().stdout().contains("A /file\n"));
    // A signal reaches the others.
    exec(&kiln, &[], "kill -0 1 && kill -CONT 1");
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn user_directory_and_variables_can_be_others() {
    let kiln = running(&["-e", "OWN=1"]);
    let script = "echo $(id -u) $(id -G) $HOME $OWN $NEW; pwd";
    assert_eq!(
        exec(
            &kiln,
            &["-u", "app", "-w", "/etc", "-e", "NEW=2", "-e", "OWN=3"],
            script
        ),
        "1000 1000 2000 /home/app 3 2\n/etc\n"
    );
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn command_has_no_more_rights_than_the_container_and_no_descriptor_of_kiln_s() {
    for options in [&[][..], &["--cap-drop", "all", "--network", "none"]] {
        let kiln = running(options);
        let limits = |pid: &str| {
            format!("grep -E '^(Cap|Seccomp|NoNewPrivs|Uid|Gid|Groups|Umask)' /proc/{pid}/status")
        };
        assert_eq!(
            exec(&kiln, &[], &limits("self")),
            exec(&kiln, &[], &limits("1")),
            "{options:?}"
        );
        // 3 is that of the directory being read.
        assert_eq!(exec(&kiln, &[], "cd /proc/self/fd; echo *"), "0 1 2 3\n");
        assert_eq!(
            exec(&kiln, &["-w", "/proc/self/fd"], "pwd -P | wc -l"),
            "1\n"
        );
        kiln.run(["rm", "-f", "bg"]).ok();
    }
}

#[test]
fn input_exit_codes_and_commands_that_are_not_there() {
    let kiln = running(&[]);
    let mut command = kiln.command(["exec", "-i", "bg", "sh", "-c", "cat; exit 4"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"some input\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout),
        (Some(4), b"some input\n".to_vec())
    );
    let missing = kiln.run(["exec", "bg", "nosuch"]).fails();
    assert_eq!(
        (missing.code(), missing.stderr()),
        (
            Some(127),
            "error: exec \"nosuch\": no such file in the image\n".to_owned()
        )
    );
    assert_eq!(kiln.run(["exec", "bg", "/etc/passwd"]).code(), Some(126));
    kiln.run(["stop", "bg"]).ok();
    assert_eq!(
        kiln.run(["exec", "bg", "true"]).fails().stderr(),
        "error: container bg is not running\nhint: start it first: kiln start bg\n"
    );
}

#[test]
fn command_in_the_background_goes_on_and_ends_with_the_container() {
    let kiln = running(&[]);
    kiln.run(["exec", "-d", "bg", "sh", "-c", "echo x > /made; sleep 300"])
        .ok();
    let script = "while [ ! -e /made ]; do sleep 0.01; done; sleep 0.1; \
                  ps | grep -c '[s]leep 300'";
    assert_eq!(exec(&kiln, &[], script), "2\n");
    kiln.run(["rm", "-f", "bg"]).ok();
}

/// What a command says that can't start may come before its pid does: neither is taken for the
/// other.
#[test]
fn many_that_fail_at_once_all_say_why() {
    let kiln = running(&[]);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let output = kiln.run(["exec", "-w", "/nowhere", "bg", "true"]).fails();
                    let expected = "error: chdir(/nowhere): No such file or directory\n";
                    assert_eq!(output.stderr(), expected);
                }
            });
        }
    });
    kiln.run(["rm", "-f", "bg"]).ok();
}
