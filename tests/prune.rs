//! What `prune` takes away, what it leaves, and what it says of it.

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use support::{FaultyRegistry, Kiln, Output, Registry, names_in, run_from, tar_of};

/// Builds two steps, the second with an argument of its own.
fn build(kiln: &Kiln, name: &str, second: &str) {
    let base = Registry::shared().busybox();
    let dockerfile =
        format!("FROM {base}\nRUN echo one > /one\nRUN echo {second} > /two\nLABEL name={name}\n");
    kiln.build_with(&["-t", name], &dockerfile, &[]).ok();
    kiln.run(["rmi", "test"]).ok();
}

fn id(kiln: &Kiln, name: &str) -> String {
    let images = kiln.run(["images", "-q", "--no-trunc", name]).ok().stdout();
    images.trim().to_owned()
}

fn cached_steps(kiln: &Kiln, dockerfile: &str) -> usize {
    let output = kiln.build(dockerfile, &[]).ok();
    output.stderr().matches("CACHED").count()
}

#[test]
fn prune_removes_dangling_images_with_the_steps_that_led_to_them_alone() {
    let kiln = Kiln::new();
    build(&kiln, "app", "first");
    let old = id(&kiln, "app");
    build(&kiln, "app", "second");
    // By inputs and by content.
    assert_eq!(names_in(&kiln, "cache").len(), 6);
    let output = kiln.run(["prune"]).ok().stdout();
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("Deleted Images:"));
    assert_eq!(lines.next(), Some(&*format!("deleted: {old}")));
    assert_eq!(lines.next(), Some(""));
    assert_eq!(lines.next(), Some("Deleted build cache objects:"));
    assert_eq!(lines.next().map(str::len), Some(12), "{output}");
    assert_eq!(lines.next(), Some(""));
    // "first" and its newline, and the config of the old image.
    let space = lines.next().unwrap();
    assert!(space.starts_with("Total reclaimed space: "), "{output}");
    assert!(space.ends_with('B') && !space.ends_with(" 0B"), "{output}");
    assert_eq!(lines.next(), None);
    assert_eq!(names_in(&kiln, "cache").len(), 4);
    assert_eq!(names_in(&kiln, "layers").len(), 3);
    kiln.run(["run", "app", "cat", "/one", "/two"]).ok();
    let again = kiln.run(["prune"]).ok();
    assert_eq!(again.stdout(), "Total reclaimed space: 0B\n");
    assert_eq!(again.stderr(), "");
}

#[test]
fn prune_all_leaves_nothing() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=cache,target=/c umask 077; mkdir -p /c/d; echo 12345 > /c/d/f\n"
    );
    kiln.build(&dockerfile, &[]).ok();
    assert_eq!(cached_steps(&kiln, &dockerfile), 2);
    let mounts = || {
        let forms = fs::read_dir(kiln.store().join("mounts")).unwrap();
        let names = forms.flat_map(|form| fs::read_dir(form.unwrap().path()).unwrap());
        names.count()
    };
    assert_eq!(mounts(), 1);
    let output = kiln.run(["prune", "-a", "-f"]).ok().stdout();
    assert!(
        output.starts_with("Deleted Images:\nuntagged: "),
        "{output}"
    );
    assert!(output.contains("\nuntagged: test:latest\n"), "{output}");
    assert_eq!(output.matches("\ndeleted: sha256:").count(), 2, "{output}");
    assert_eq!(mounts(), 0);
    for directory in ["layers", "images", "refs", "blobs/sha256", "cache", "trash"] {
        let names = names_in(&kiln, directory);
        assert!(names.is_empty(), "{directory}: {names:?}");
    }
    assert_eq!(
        kiln.run(["images"]).ok().stdout(),
        "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"
    );
    // It is a store as before.
    kiln.build(&dockerfile, &[]).ok();
}

#[test]
fn image_prune_and_builder_prune_each_leave_the_other_s_things() {
    let kiln = Kiln::new();
    build(&kiln, "app", "first");
    build(&kiln, "app", "second");
    let output = kiln.run(["image", "prune", "-f"]).ok().stdout();
    assert!(!output.contains("build cache"), "{output}");
    assert_eq!(output.matches("deleted:").count(), 1);
    assert_eq!(names_in(&kiln, "cache").len(), 6);
    assert_eq!(names_in(&kiln, "layers").len(), 4);

    let output = kiln.run(["builder", "prune", "--all", "-f"]).ok().stdout();
    assert!(!output.contains("Deleted Images"), "{output}");
    // The layer of the image that is gone, and what is noted of the steps of past builds.
    let freed = output.rsplit_once("\nTotal reclaimed space: ").unwrap().1;
    assert!(freed.ends_with("B\n") && freed != "0B\n", "{output}");
    assert!(names_in(&kiln, "traces").is_empty());
    assert_eq!(names_in(&kiln, "cache").len(), 0);
    assert_eq!(names_in(&kiln, "layers").len(), 3);
    kiln.run(["run", "app", "cat", "/two"]).ok();
}

#[test]
fn filters_choose_by_time_and_label() {
    let kiln = Kiln::new();
    build(&kiln, "app", "first");
    build(&kiln, "other", "second");
    let nothing = "Total reclaimed space: 0B\n";
    for filter in [
        "until=24h",
        "until=2001-01-01",
        "label=nowhere",
        "label=name=x",
    ] {
        let output = kiln.run(["image", "prune", "-a", "--filter", filter]).ok();
        assert_eq!(output.stdout(), nothing, "{filter}");
    }
    let output = kiln.run(["builder", "prune", "-a", "--filter", "until=24h"]);
    assert_eq!(output.ok().stdout(), nothing);
    // Layers have no labels, and neither has the cache.
    let output = kiln.run(["prune", "-a", "--filter", "label=name=app"]);
    let output = output.ok().stdout();
    assert!(output.contains("untagged: app:latest\n"), "{output}");
    assert!(
        !output.contains("other") && !output.contains("cache"),
        "{output}"
    );
    assert_eq!(names_in(&kiln, "cache").len(), 6);
    let not = ["image", "prune", "-a", "--filter", "label!=name"];
    let output = kiln.run(not).ok().stdout();
    assert!(output.contains("busybox"), "{output}");
    assert!(!id(&kiln, "other").is_empty());

    let refused = |filter: &str| {
        let output = kiln.run(["prune", "--filter", filter]).fails();
        assert_eq!(output.code(), Some(2));
        output.stderr()
    };
    assert_eq!(
        refused("dangling=true"),
        "error: invalid filter \"dangling=true\"\n\
         hint: the filters are until=TIME, label=NAME[=VALUE] and label!=NAME[=VALUE]\n"
    );
    assert_eq!(
        refused("until=yesterday"),
        "error: invalid time \"yesterday\" in the filter until\n\
         hint: give a duration such as 24h, or a date such as 2026-01-31T12:00:00\n"
    );
}

#[test]
fn keep_storage_keeps_what_was_used_last() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    let dockerfile =
        |n: u32| format!("FROM {base}\nRUN head -c 100000 /dev/zero | tr '\\0' {n} > /f\n");
    for n in [1, 2, 3] {
        kiln.build(&dockerfile(n), &[]).ok();
    }
    // The first is used again, by a build that finds it in the cache.
    assert_eq!(cached_steps(&kiln, &dockerfile(1)), 2);
    kiln.run(["rmi", "test"]).ok();
    kiln.run(["image", "prune"]).ok();
    let keep = |size: &str| {
        let arguments = ["prune", "--keep-storage", size];
        kiln.run(arguments).ok().stdout()
    };
    assert_eq!(keep("300kB"), "Total reclaimed space: 0B\n");
    let output = keep("250kB");
    assert!(
        output.starts_with("Deleted build cache objects:\n"),
        "{output}"
    );
    assert!(
        output.ends_with("\n\nTotal reclaimed space: 100kB\n"),
        "{output}"
    );
    assert!(keep("100kb").ends_with("\n\nTotal reclaimed space: 100kB\n"));
    assert_eq!(cached_steps(&kiln, &dockerfile(1)), 2);
    assert_eq!(cached_steps(&kiln, &dockerfile(3)), 1);
    let wrong = kiln.run(["prune", "--max-used-space", "lots"]).fails();
    assert_eq!(wrong.code(), Some(2));
    assert!(
        wrong
            .stderr()
            .contains("expected a size such as 500MB or 10GB"),
        "{wrong}"
    );
}

/// Runs kiln on a terminal on which somebody types an answer.
fn answered(kiln: &Kiln, arguments: &[&str], answer: &str) -> Output {
    let command = kiln.command(arguments);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let mut script = Command::new("script");
    script
        .env_clear()
        .env("TERM", "dumb")
        .env("SHELL", "/bin/sh");
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap());
    }
    script
        .current_dir(kiln.sandbox().path())
        .args(["-qec", &words.join(" "), "/dev/null"]);
    let typed = kiln.sandbox().join("typed");
    fs::write(&typed, answer).unwrap();
    let typed = fs::File::open(&typed).unwrap();
    run_from(&mut script, typed.into(), Duration::from_secs(60))
}

#[test]
fn on_a_terminal_it_asks_first() {
    let kiln = Kiln::new();
    build(&kiln, "app", "first");
    let output = answered(&kiln, &["prune", "--all"], "n\n").fails();
    let shown = output.stdout().replace('\r', "");
    let question = "WARNING! This will remove:\n  - all images\n  - all build cache\n\n\
                    Are you sure you want to continue? [y/N] ";
    assert!(shown.contains(question), "{shown}");
    assert!(
        shown.ends_with("error: system prune has been cancelled\n"),
        "{shown}"
    );
    assert_eq!(output.code(), Some(1));
    assert_eq!(names_in(&kiln, "images").len(), 2);
    let reset = ["system", "reset"];
    let output = answered(&kiln, &reset, "\n").fails();
    assert!(
        output.stdout().contains("reset has been cancelled"),
        "{output}"
    );
    answered(&kiln, &["prune", "--all"], "y\n").ok();
    assert!(names_in(&kiln, "images").is_empty());
    answered(&kiln, &["system", "reset", "--force"], "").ok();
    assert!(!kiln.store().exists());
}

#[test]
fn store_is_not_removed_while_another_kiln_is_at_work_and_what_it_does_not_use_can_be() {
    let kiln = Kiln::new();
    let registry = FaultyRegistry::start();
    registry.image_of("one", &tar_of(&[("a", "a")]), serde_json::json!({}));
    kiln.run(["pull", &registry.reference("one")]).ok();
    let lock = fs::File::open(kiln.store().join("locks/use")).unwrap();
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockShared).unwrap();
    let output = kiln.run(["system", "reset", "-f"]).fails();
    assert_eq!(
        (output.code(), output.stdout(), output.stderr()),
        (
            Some(1),
            String::new(),
            "error: another kiln is at work in this store: nothing was removed\n\
             hint: try again when it has ended\n"
                .to_owned()
        )
    );
    assert_eq!(names_in(&kiln, "images").len(), 1);
    kiln.run(["prune", "-a", "-f"]).ok();
    assert_eq!(names_in(&kiln, "images").len(), 0);
    drop(lock);
    kiln.run(["system", "reset", "-f"]).ok();
}
