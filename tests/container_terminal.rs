//! `run -it`, `start -ai` and `exec -it` on a real terminal.

mod support;

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;

use support::{Console, Kiln};

fn console(kiln: &Kiln, arguments: &[&str]) -> Console {
    Console::start(&kiln.command(arguments))
}

#[test]
fn shell_gets_what_is_typed_and_the_size_of_the_terminal() {
    let (kiln, image) = Kiln::with_busybox();
    let mut console = console(&kiln, &["run", "--rm", "-it", &image, "sh"]);
    console.types("tty; stty size; echo $TERM; cat /proc/sys/kernel/hostname | wc -c\n");
    console.shows("/dev/pts/0\r\n24 80\r\nxterm\r\n13\r\n");
    console.resize(50, 132);
    console.types("stty size; echo done\n");
    console.shows("50 132\r\ndone\r\n");
    assert!(!console.is_cooked());
    console.types("exit 42\n");
    assert_eq!(console.ends().code(), Some(42));
    assert!(console.is_cooked());
}

#[test]
fn ctrl_c_goes_to_the_command_and_ctrl_d_ends_its_input() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "trap 'echo caught' INT; echo up; cat; echo rest; cat; exit 3";
    let mut console = console(&kiln, &["run", "--rm", "-it", &image, "sh", "-c", script]);
    console.shows("up\r\n");
    console.types("\x03");
    console.shows("caught\r\n");
    console.shows("rest\r\n");
    console.types("typed\n");
    console.shows("typed\r\ntyped\r\n");
    console.types("\x04");
    assert_eq!(console.ends().code(), Some(3));
    assert!(console.is_cooked());
}

#[test]
fn terminal_is_as_it_was_when_kiln_is_ended_or_killed() {
    let (kiln, image) = Kiln::with_busybox();
    for (signal, code) in [(Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)] {
        let arguments = [
            "run",
            "--rm",
            "-it",
            &image,
            "sh",
            "-c",
            "echo up; sleep 300",
        ];
        let mut console = console(&kiln, &arguments);
        console.shows("up\r\n");
        assert!(!console.is_cooked());
        console.signals(signal);
        let status = console.ends();
        assert_eq!(status.code(), code, "{signal}");
        if code.is_none() {
            assert_eq!(status.signal(), Some(signal as i32));
        }
        // By the helper, where kiln could not.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !console.is_cooked() {
            assert!(std::time::Instant::now() < until, "{signal}: still raw");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
fn large_output_arrives_whole_and_in_order() {
    let (kiln, image) = Kiln::with_busybox();
    let arguments = ["run", "--rm", "-it", &image, "seq", "1", "30000"];
    let mut console = console(&kiln, &arguments);
    assert_eq!(console.ends().code(), Some(0));
    console.shows("\r\n30000\r\n");
    let expected: String = (1..=30000).map(|number| format!("{number}\r\n")).collect();
    assert_eq!(console.shown(), expected);
}

#[test]
fn terminal_belongs_to_the_user_of_the_command() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "stat -c %U \"$(tty)\"; echo again > /dev/tty; echo more > \"$(tty)\"";
    let arguments = [
        "run", "--rm", "-it", "-u", "app", &image, "sh", "-c", script,
    ];
    let mut console = console(&kiln, &arguments);
    assert_eq!(console.ends().code(), Some(0));
    console.shows("app\r\nagain\r\nmore\r\n");
}

#[test]
fn terminal_needs_one_at_the_other_end_unless_nothing_is_typed() {
    let (kiln, image) = Kiln::with_busybox();
    let refused = kiln.run(["run", "--rm", "-it", &image, "true"]).fails();
    assert_eq!(
        (refused.code(), refused.stderr()),
        (
            Some(1),
            "error: the input device is not a TTY\n\
             hint: leave -t out where input comes from a file or a pipe\n"
                .to_owned()
        )
    );
    let output = kiln.run(["run", "--rm", "-t", &image, "sh", "-c", "tty; echo x >&2"]);
    assert_eq!(output.ok().stdout(), "/dev/pts/0\r\nx\r\n");
}

#[test]
fn container_is_started_again_with_its_terminal() {
    let (kiln, image) = Kiln::with_busybox();
    kiln.run(["create", "-it", "--name", "one", &image, "sh"])
        .ok();
    let mut first = console(&kiln, &["start", "-ai", "one"]);
    first.types("echo kept > /file; exit 5\n");
    assert_eq!(first.ends().code(), Some(5));
    let mut second = console(&kiln, &["start", "-ai", "one"]);
    second.types("cat /file; exit\n");
    second.shows("\r\nkept\r\n");
    assert_eq!(second.ends().code(), Some(0));
}

#[test]
fn exec_has_a_terminal_of_its_own_in_a_container_that_runs() {
    let (kiln, image) = Kiln::with_busybox();
    kiln.run(["run", "-d", "--name", "bg", &image, "sleep", "300"])
        .ok();
    let mut console = console(&kiln, &["exec", "-it", "bg", "sh"]);
    console.types("tty; stty size; ps | grep -c 'sleep 300'\n");
    console.shows("/dev/pts/0\r\n24 80\r\n");
    console.resize(30, 100);
    console.types("stty size; exit 9\n");
    console.shows("30 100\r\n");
    assert_eq!(console.ends().code(), Some(9));
    assert!(console.is_cooked());
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn container_that_runs_in_the_background_has_a_terminal_that_is_logged() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "tty; echo err >&2";
    kiln.run(["run", "-dt", "--name", "one", &image, "sh", "-c", script])
        .ok();
    assert_eq!(kiln.run(["wait", "one"]).ok().stdout(), "0\n");
    assert_eq!(
        kiln.run(["logs", "one"]).ok().stdout(),
        "/dev/pts/0\r\nerr\r\n"
    );
}
