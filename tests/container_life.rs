//! Containers from their making to their end: names, states, what they keep, what keeps them.

mod support;

use std::fs;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::{Kiln, wait_until};

/// Returns a column of all containers, by their names.
fn column(kiln: &Kiln, field: &str) -> Vec<String> {
    let format = format!("{{{{.Names}}}} {{{{.{field}}}}}");
    let output = kiln.run(["ps", "-a", "--format", &format]).ok().stdout();
    let mut lines: Vec<String> = output.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn changes_stay_from_start_to_start_and_go_with_the_container() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "echo x >> /count; cat /count; rm -f /etc/group; ls /etc/group";
    let made = kiln.run(["create", "--name", "one", &image, "sh", "-c", script]);
    let id = made.ok().line();
    assert_eq!(id.len(), 64);
    assert_eq!(column(&kiln, "Status"), ["one Created"]);
    let first = kiln.run(["start", "-a", "one"]).fails();
    assert_eq!((first.code(), first.stdout().as_str()), (Some(1), "x\n"));
    assert_eq!(
        first.stderr(),
        "ls: /etc/group: No such file or directory\n"
    );
    let second = kiln.run(["start", "-a", &id[..12]]).fails();
    assert_eq!(second.stdout(), "x\nx\n");
    assert_eq!(
        kiln.run(["diff", "one"]).ok().stdout(),
        "A /count\nC /etc\nD /etc/group\n"
    );
    // Another container of the image has nothing of it.
    let script = "ls /count /etc/group";
    let other = kiln.run(["run", "--rm", &image, "sh", "-c", script]);
    assert_eq!(other.stdout(), "/etc/group\n");
    assert_eq!(kiln.run(["rm", "one"]).ok().stdout(), "one\n");
    assert_eq!(kiln.run(["ps", "-aq"]).ok().stdout(), "");
    assert_eq!(
        fs::read_dir(kiln.store().join("containers"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn ps_shows_what_docker_s_does() {
    let (kiln, image) = Kiln::with_busybox();
    kiln.run(["tag", &image, "base"]).ok();
    let words = ["sh", "-c", "exit 3 # a long command"];
    kiln.run(["run", "--name", "ended", "base"].iter().chain(&words))
        .fails();
    kiln.run(["create", "--name", "made", "-l", "a=b", "base", "true"])
        .ok();
    let ids = kiln.run(["ps", "-aq"]).ok().stdout();
    let ids: Vec<&str> = ids.lines().collect();
    let table = kiln.run(["ps", "-a"]).ok().stdout();
    let line = |table: &str, at: usize| {
        let line = table.lines().nth(at).unwrap().to_owned();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        line(&table, 0),
        "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    );
    assert!(
        line(&table, 1).starts_with(&format!("{} base \"true\" ", ids[0]))
            && line(&table, 1).ends_with(" ago Created made"),
        "{table}"
    );
    assert!(
        line(&table, 2).starts_with(&format!("{} base \"sh -c exit 3 # a lo…\" ", ids[1])),
        "{table}"
    );
    assert!(table.contains(" Exited (3) "), "{table}");
    assert_eq!(
        kiln.run(["ps"]).ok().stdout(),
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    );
    let filtered = |filter: &str| {
        let output = kiln.run(["ps", "-a", "--format", "{{.Names}}", "-f", filter]);
        output.ok().stdout()
    };
    for (filter, names) in [
        ("status=exited", "ended\n"),
        ("status=created", "made\n"),
        ("status=running", ""),
        ("exited=3", "ended\n"),
        ("exited=0", ""),
        ("name=mad", "made\n"),
        ("name=^mad$", ""),
        ("label=a", "made\n"),
        ("label=a=b", "made\n"),
        ("ancestor=base", "made\nended\n"),
        ("ancestor=nosuch", ""),
        ("before=made", "ended\n"),
        ("since=ended", "made\n"),
    ] {
        assert_eq!(filtered(filter), names, "{filter}");
    }
    let wrong = kiln.run(["ps", "-f", "colour=red"]).fails();
    assert_eq!(wrong.code(), Some(2));
    assert!(
        wrong
            .stderr()
            .starts_with("error: invalid filter \"colour=red\"\nhint: the filters are name=TEXT,")
    );
}

#[test]
fn names_are_given_once_and_made_up_where_none_is_given() {
    let (kiln, image) = Kiln::with_busybox();
    let id = kiln.run(["create", "--name", "one", &image]).ok().line();
    let again = kiln.run(["run", "--name", "one", &image, "true"]).fails();
    assert_eq!(
        (again.code(), again.stderr()),
        (
            Some(125),
            format!(
                "error: the container name \"one\" is already in use by container {short}\n\
                 hint: choose another, or remove that container first: kiln rm {short}\n",
                short = &id[..12]
            )
        )
    );
    let wrong = kiln.run(["create", "--name", "a b", &image]).fails();
    assert_eq!(
        wrong.stderr(),
        "error: invalid container name \"a b\"\n\
         hint: a name has letters, digits, and after the first of them also _ . and -\n"
    );
    kiln.run(["rename", "one", "two"]).ok();
    kiln.run(["create", &image]).ok();
    let names = kiln
        .run(["ps", "-a", "--format", "{{.Names}}"])
        .ok()
        .stdout();
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names[1], "two");
    assert!(names[0].contains('_'), "{names:?}");
    assert_eq!(
        kiln.run(["rename", "two", names[0]])
            .fails()
            .stderr()
            .lines()
            .next(),
        Some(
            format!(
                "error: the container name {:?} is already in use by container {}",
                names[0],
                kiln.run(["ps", "-aq", "-n", "1"]).ok().line()
            )
            .as_str()
        )
    );
}

#[test]
fn container_that_runs_can_t_be_started_removed_or_lose_its_image() {
    let (kiln, image) = Kiln::with_busybox();
    kiln.run(["tag", &image, "base"]).ok();
    kiln.run(["rmi", &image]).ok();
    let id = kiln
        .run(["run", "-d", "--name", "bg", "base", "sleep", "300"])
        .ok()
        .line();
    assert_eq!(column(&kiln, "State"), ["bg running"]);
    let short = &id[..12];
    // docker says nothing of a container that runs already.
    assert_eq!(kiln.run(["start", "bg"]).ok().stdout(), "bg\n");
    let running = "error: container bg is running\nhint: stop it first: kiln stop bg\n";
    assert_eq!(kiln.run(["start", "-a", "bg"]).fails().stderr(), running);
    assert_eq!(kiln.run(["rm", "bg"]).fails().stderr(), running);
    let image_id = kiln.run(["images", "-q", "base"]).ok().line();
    for force in [&[][..], &["-f"]] {
        let refused = kiln
            .run(["rmi"].iter().chain(force).chain(&["base"]))
            .fails();
        assert_eq!(
            refused.stderr(),
            format!(
                "error: unable to delete {image_id} (cannot be forced) - \
                 image is being used by running container {short}\n\
                 hint: stop it first: kiln stop {short}\n"
            )
        );
    }
    kiln.run(["prune", "-af"]).ok();
    assert_eq!(
        kiln.run(["exec", "bg", "echo", "still here"]).ok().stdout(),
        "still here\n"
    );
    assert_eq!(kiln.run(["stop", "bg"]).ok().stdout(), "bg\n");
    assert_eq!(column(&kiln, "State"), ["bg exited"]);
    assert_eq!(kiln.run(["wait", "bg"]).ok().stdout(), "137\n");
    let refused = kiln.run(["rmi", "base"]).fails();
    assert_eq!(
        refused.stderr(),
        format!(
            "error: unable to delete {image_id} (must be forced) - \
             image is being used by stopped container {short}\n\
             hint: remove it first: kiln rm {short}\n"
        )
    );
    // With force the image loses its name, and the container keeps what it needs.
    kiln.run(["rmi", "-f", "base"]).ok();
    kiln.run(["image", "prune", "-af"]).ok();
    assert_eq!(kiln.run(["images", "-q"]).ok().stdout(), "");
    let export = kiln.run(["export", "-o", "out.tar", "bg"]);
    export.ok();
    kiln.run(["rm", "bg"]).ok();
    let layers = fs::read_dir(kiln.store().join("layers")).unwrap().count();
    assert_eq!(layers, 0);
}

#[test]
fn prune_removes_stopped_containers_and_then_what_only_they_had() {
    let (kiln, image) = Kiln::with_busybox();
    let id = kiln.run(["create", "--name", "old", &image]).ok().line();
    // An image that a container has stays, also where all go.
    kiln.run(["image", "prune", "-af"]).ok();
    assert_ne!(kiln.run(["images", "-q"]).ok().stdout(), "");
    kiln.run(["run", "-d", "--name", "bg", &image, "sleep", "300"])
        .ok();
    let pruned = kiln.run(["container", "prune", "-f"]).ok().stdout();
    assert_eq!(
        pruned,
        format!("Deleted Containers:\n{id}\n\nTotal reclaimed space: 0B\n")
    );
    assert_eq!(column(&kiln, "State"), ["bg running"]);
    assert_eq!(kiln.run(["rm", "-f", "bg"]).ok().stdout(), "bg\n");
    kiln.run(["create", &image]).ok();
    let pruned = kiln.run(["system", "prune", "-af"]).ok().stdout();
    assert!(pruned.starts_with("Deleted Containers:\n"), "{pruned}");
    assert_eq!(kiln.run(["ps", "-aq"]).ok().stdout(), "");
    assert_eq!(kiln.run(["images", "-q"]).ok().stdout(), "");
}

#[test]
fn killed_kiln_takes_its_container_along_which_is_exited_then_and_starts_again() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "echo start >> /log; cat /log; exec sleep 300";
    let mut child = kiln.start(["run", "--name", "one", &image, "sh", "-c", script]);
    let pid = || {
        let shown = kiln.run(["inspect", "-f", "{{.State.Pid}}", "one"]);
        shown.stdout().trim().parse::<u32>().unwrap_or(0)
    };
    wait_until("the container", || pid() != 0);
    let pid = pid();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    assert_eq!(column(&kiln, "Status"), ["one Exited (137)"]);
    // At once: what is left of the first start is waited for.
    let again = kiln.run(["start", "one"]).ok();
    assert_eq!(again.stdout(), "one\n");
    // Where nobody reaps it, a zombie stays.
    let left = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(left.is_empty() || left.contains(") Z "), "{left}");
    wait_until("the log", || {
        kiln.run(["logs", "one"]).ok().stdout() == "start\nstart\n"
    });
    // With --rm, nothing stays of a killed one: the next kiln sees to that.
    let mut child = kiln.start(["run", "--rm", "--name", "two", &image, "sleep", "300"]);
    wait_until("the container", || column(&kiln, "State").len() == 2);
    wait_until("its start", || column(&kiln, "State")[1] == "two running");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    kiln.run(["rm", "-f", "one"]).ok();
    assert_eq!(column(&kiln, "State"), [""; 0]);
}

#[test]
fn of_two_starts_at_once_one_wins() {
    let (kiln, image) = Kiln::with_busybox();
    kiln.run(["create", "--name", "one", &image, "sleep", "1"])
        .ok();
    let starts: Vec<Child> = (0..4).map(|_| kiln.start(["start", "-a", "one"])).collect();
    let mut codes: Vec<_> = starts
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            (
                output.status.code().unwrap(),
                String::from_utf8(output.stderr).unwrap(),
            )
        })
        .collect();
    codes.sort();
    assert_eq!(codes[0], (0, String::new()));
    let lost = "error: container one is running\nhint: stop it first: kiln stop one\n";
    assert_eq!(codes[1..], [(); 3].map(|()| (125, lost.to_owned())));
}

#[test]
fn stop_asks_first_and_kill_sends_any_signal() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "trap 'echo asked; exit 5' TERM; trap 'echo usr' USR1; echo up; \
                  while :; do sleep 0.05; done";
    kiln.run(["run", "-d", "--name", "one", &image, "sh", "-c", script])
        .ok();
    let logs = || kiln.run(["logs", "one"]).ok().stdout();
    wait_until("its start", || logs() == "up\n");
    assert_eq!(
        kiln.run(["kill", "-s", "USR1", "one"]).ok().stdout(),
        "one\n"
    );
    wait_until("the signal", || logs() == "up\nusr\n");
    kiln.run(["stop", "one"]).ok();
    assert_eq!(logs(), "up\nusr\nasked\n");
    assert_eq!(kiln.run(["wait", "one"]).ok().stdout(), "5\n");
    assert_eq!(
        kiln.run(["kill", "one"]).fails().stderr(),
        "error: container one is not running\n"
    );
    // What has ended is stopped.
    assert_eq!(kiln.run(["stop", "one"]).ok().stdout(), "one\n");
    assert_eq!(logs(), "up\nusr\nasked\n");
    assert_eq!(
        kiln.run(["logs", "-n", "1", "one"]).ok().stdout(),
        "asked\n"
    );
}

#[test]
fn wait_knows_the_exit_code_of_a_container_that_goes_with_its_end() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "while [ ! -e /dev/shm/go ]; do sleep 0.01; done; sleep 3; exit 9";
    let arguments = [
        "run", "-d", "--rm", "--name", "one", &image, "sh", "-c", script,
    ];
    kiln.run(arguments).ok();
    let waiting = kiln.start(["wait", "one"]);
    kiln.run(["exec", "one", "touch", "/dev/shm/go"]).ok();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "9\n");
    assert_eq!(kiln.run(["ps", "-aq"]).ok().stdout(), "");
}

#[test]
fn command_that_can_t_start_in_the_background_is_said_and_gives_its_code() {
    let (kiln, image) = Kiln::with_busybox();
    let failed = kiln
        .run(["run", "-d", "--name", "one", &image, "nosuch"])
        .fails();
    assert_eq!(
        (failed.code(), failed.stdout(), failed.stderr()),
        (
            Some(127),
            String::new(),
            "error: exec \"nosuch\": no such file in the image\n".to_owned()
        )
    );
    assert_eq!(column(&kiln, "State"), ["one created"]);
    let shown = kiln.run([
        "inspect",
        "-f",
        "{{.State.ExitCode}} {{.State.Error}}",
        "one",
    ]);
    assert_eq!(
        shown.ok().stdout(),
        "127 exec \"nosuch\": no such file in the image\n"
    );
    // Made for this run alone, it goes.
    kiln.run(["run", "--rm", &image, "nosuch"]).fails();
    assert_eq!(column(&kiln, "State"), ["one created"]);
}

#[test]
fn signal_goes_to_a_command_that_has_a_handler() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "trap 'echo bye; exit 7' INT; echo up; while :; do sleep 0.05; done";
    let mut child = kiln.start(["run", "--rm", &image, "sh", "-c", script]);
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout, output.stderr),
        (Some(7), b"bye\n".to_vec(), Vec::new())
    );
}
