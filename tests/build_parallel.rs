//! What runs at once: independent stages, commits beside steps, and builds beside builds.

mod support;

use std::time::Duration;

use support::meeting::{Meeting, let_go};
use support::{Image, Kiln, Output, Registry};

fn base() -> String {
    Registry::shared().busybox()
}

/// Returns how the step whose name contains `text` ended, in plain progress.
fn end_of(output: &Output, text: &str) -> String {
    let log = output.stderr();
    let named = log
        .lines()
        .find(|line| line.starts_with('#') && line.contains("] ") && line.contains(text));
    let id = named.and_then(|line| line.split(' ').next());
    let id = id.unwrap_or_else(|| panic!("no step {text:?} in\n{log}"));
    let words = ["DONE", "CACHED", "CANCELED", "ERROR"];
    let ends = |line: &&str| {
        let rest = line
            .strip_prefix(id)
            .and_then(|rest| rest.strip_prefix(' '));
        rest.is_some_and(|rest| words.iter().any(|word| rest.starts_with(word)))
    };
    let end = log.lines().find(ends);
    let end = end.unwrap_or_else(|| panic!("step {text:?} has no end in\n{log}"));
    end.split_whitespace()
        .nth(1)
        .unwrap()
        .trim_end_matches(':')
        .to_owned()
}

/// Two stages, each with a step that comes to a meeting.
fn two_stages(meeting: &Meeting) -> String {
    let (base, come) = (base(), meeting.command());
    format!(
        "FROM {base} AS one\nRUN {come} && echo 1 > /1\n\
         FROM {base} AS two\nRUN {come} && echo 2 > /2\n\
         FROM scratch\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n"
    )
}

#[test]
fn independent_stages_run_at_once() {
    let (kiln, meeting) = (Kiln::new(), Meeting::new());
    let dockerfile = two_stages(&meeting);
    std::thread::scope(|scope| {
        scope.spawn(|| kiln.build(&dockerfile, &[]).ok());
        // Each is in its step when the other one is.
        let_go(meeting.wait_for(2));
    });
    let image = kiln.image("test");
    assert_eq!(image.text("/1") + &image.text("/2"), "1\n2\n");
}

#[test]
fn with_one_job_stages_run_in_turn() {
    let (kiln, meeting) = (Kiln::new(), Meeting::new());
    let dockerfile = two_stages(&meeting);
    std::thread::scope(|scope| {
        scope.spawn(|| kiln.build_with(&["--jobs", "1"], &dockerfile, &[]).ok());
        let first = meeting.wait_for(1);
        assert!(!meeting.has_more(Duration::from_millis(500)));
        let_go(first);
        let_go(meeting.wait_for(1));
    });
    kiln.build_with(&["--jobs", "0"], &dockerfile, &[])
        .fails_with("--jobs");
}

#[test]
fn failed_stage_ends_the_others() {
    let (kiln, meeting) = (Kiln::new(), Meeting::new());
    let (base, come) = (base(), meeting.command());
    let dockerfile = format!(
        "FROM {base} AS long\nRUN {come} && sleep 600\n\
         FROM {base} AS wrong\nRUN {come} && exit 7\n\
         FROM scratch\nCOPY --from=long / /\nCOPY --from=wrong / /\n"
    );
    let output = std::thread::scope(|scope| {
        let build = scope.spawn(|| kiln.build(&dockerfile, &[]).fails());
        let_go(meeting.wait_for(2));
        build.join().unwrap()
    });
    assert_eq!(end_of(&output, "sleep 600"), "CANCELED");
    assert_eq!(end_of(&output, "exit 7"), "ERROR");
    assert!(
        output.stderr().contains("exit code: 7"),
        "{}",
        output.stderr()
    );
    assert_eq!(
        output.stderr().matches("error:").count(),
        1,
        "{}",
        output.stderr()
    );
}

#[test]
fn step_may_stand_on_a_layer_that_is_still_being_committed() {
    let kiln = Kiln::new();
    // Steps that undo, rename, replace and look at what those just before them did.
    let dockerfile = format!(
        "FROM {}\n\
         RUN mkdir -p /d/e && head -c 20000000 /dev/zero > /big && echo 1 > /d/e/f && ln -s e /d/l\n\
         RUN test $(wc -c < /big) = 20000000 && rm -r /big /d/e && mkdir /d/e && echo 2 > /d/e/g\n\
         COPY x /d/l/x\n\
         RUN test ! -e /d/e/f && mv /d/e/g /d/e/h && echo later:x:77:77::/:/bin/sh >> /etc/passwd && echo later:x:77: >> /etc/group\n\
         WORKDIR /d/w\n\
         USER later\n\
         RUN id -u > /tmp/id && test $(stat -c %u /d/w) = 0\n\
         COPY --chown=later:later x /y\n\
         RUN cat /y && test $(stat -c %u:%g /y) = 77:77\n",
        base()
    );
    let files = &[("x", "x")];
    let first = kiln.build(&dockerfile, files).ok();
    assert_eq!(end_of(&first, "RUN cat /y"), "DONE");
    let image = kiln.image("test");
    let gone = |image: &Image| {
        let paths = ["/big", "/d/e/f", "/d/e/g"];
        paths.iter().all(|path| image.tree.get(path).is_none())
    };
    assert_eq!(image.text("/d/e/x"), "x");
    assert_eq!(image.text("/d/e/h"), "2\n");
    assert_eq!(image.text("/tmp/id"), "77\n");
    assert!(gone(&image));
    let diff_ids = image.config["rootfs"]["diff_ids"].clone();
    // The records are those of the layers that were made: nothing runs any more.
    let again = kiln.build(&dockerfile, files).ok();
    assert_eq!(end_of(&again, "RUN cat /y"), "CACHED");
    assert_eq!(kiln.image("test").config["rootfs"]["diff_ids"], diff_ids);
    // The same again without records: each step on its own layer.
    kiln.build_with(&["--no-cache"], &dockerfile, files).ok();
    let image = kiln.image("test");
    assert_eq!(image.text("/d/e/h"), "2\n");
    assert!(gone(&image));
}

#[test]
fn error_of_a_commit_beside_the_next_step_names_its_own_line() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\nRUN touch /.wh.x\nRUN sleep 0.3\nRUN true\n",
        base()
    );
    let output = kiln.build(&dockerfile, &[]).fails();
    let log = output.stderr();
    assert!(log.contains("RUN touch /.wh.x"), "{log}");
    assert!(log.contains("Dockerfile:2:1"), "{log}");
}

#[test]
fn builds_at_the_same_step_do_it_once() {
    let kiln = Kiln::new();
    let unique = "cat /proc/sys/kernel/random/uuid";
    let dockerfile = format!(
        "FROM {}\nRUN {unique} > /1 && sleep 1\nRUN {unique} > /2 && sleep 0.5\n",
        base()
    );
    kiln.run(["pull", "-q", &base()]).ok();
    let context = kiln.sandbox().directory("context", &[]);
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let build = |name: &str| {
        let context = context.to_str().unwrap();
        kiln.run(["build", "-t", name, "--progress", "plain", context])
            .ok()
    };
    let outputs = std::thread::scope(|scope| {
        let names = ["one", "two", "three"];
        let builds = names.map(|name| scope.spawn(move || build(name)));
        builds.map(|build| build.join().unwrap())
    });
    let done = |text: &str| {
        let ends = outputs.iter().map(|output| end_of(output, text));
        ends.filter(|end| end == "DONE").count()
    };
    assert_eq!((done("> /1"), done("> /2")), (1, 1));
    let id = |name: &str| kiln.run(["images", "--no-trunc", "-q", name]).ok().line();
    assert_eq!(id("one"), id("two"));
    assert_eq!(id("one"), id("three"));
    let told = outputs.iter().filter(|output| {
        let text = "another build is at the same step: waiting for its result";
        output.stderr().contains(text)
    });
    assert_eq!(told.count(), 2);
}

#[test]
fn equal_stages_of_one_build_run_once() {
    let kiln = Kiln::new();
    let base = base();
    let stage = "RUN cat /proc/sys/kernel/random/uuid > /id && sleep 0.3";
    let dockerfile = format!(
        "FROM {base} AS one\n{stage}\nFROM {base} AS two\n{stage}\n\
         FROM scratch\nCOPY --from=one /id /1\nCOPY --from=two /id /2\n"
    );
    kiln.build(&dockerfile, &[]).ok();
    let image = kiln.image("test");
    assert_eq!(image.text("/1"), image.text("/2"));
}

#[test]
fn cache_can_be_passed_over_by_stage_and_by_age() {
    let kiln = Kiln::new();
    let base = base();
    let dockerfile = format!(
        "FROM {base} AS one\nRUN echo 1 > /1\nFROM {base} AS two\nRUN echo 2 > /2\n\
         FROM scratch\nCOPY --from=one /1 /1\nCOPY --from=two /2 /2\n"
    );
    let ends = |options: &[&str]| {
        let output = kiln.build_with(options, &dockerfile, &[]).ok();
        [end_of(&output, "> /1"), end_of(&output, "> /2")]
    };
    assert_eq!(ends(&[]), ["DONE", "DONE"]);
    assert_eq!(ends(&["--no-cache-filter", "TWO"]), ["CACHED", "DONE"]);
    assert_eq!(ends(&["--no-cache-filter=one,two"]), ["DONE", "DONE"]);
    assert_eq!(ends(&["--cache-ttl", "7d"]), ["CACHED", "CACHED"]);
    assert_eq!(ends(&["--cache-ttl", "0s"]), ["DONE", "DONE"]);
    kiln.build_with(&["--cache-ttl", "soon"], &dockerfile, &[])
        .fails_with("--cache-ttl");
}
