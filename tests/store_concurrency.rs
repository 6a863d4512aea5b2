//! Several kiln processes on one store at once.

mod support;

use std::thread;
use std::time::Duration;

use support::meeting::{Meeting, let_go};
use support::{Kiln, Output, Registry, assert_swept, names_in};

/// Builds a Dockerfile from a directory of its own.
fn build(kiln: &Kiln, name: &str, dockerfile: &str) -> Output {
    build_with(kiln, &[], name, dockerfile)
}

fn build_with(kiln: &Kiln, options: &[&str], name: &str, dockerfile: &str) -> Output {
    let context = kiln
        .sandbox()
        .directory(&format!("context-{name}"), &[("Dockerfile", dockerfile)]);
    let head = ["build", "--progress", "plain", "-t", name];
    let options = options.iter().copied();
    kiln.run(
        head.into_iter()
            .chain(options)
            .chain([context.to_str().unwrap()]),
    )
}

fn cat(kiln: &Kiln, image: &str, file: &str) -> String {
    kiln.run(["run", "--rm", image, "cat", file]).ok().stdout()
}

#[test]
fn two_builds_overlap_in_time_and_both_are_right() {
    let (kiln, base, meeting) = (Kiln::new(), Registry::shared().busybox(), Meeting::new());
    let come = meeting.command();
    thread::scope(|scope| {
        for name in ["one", "two"] {
            let dockerfile =
                format!("FROM {base}\nRUN {come} && echo {name} > /who\nRUN cat /who > /again\n");
            let kiln = &kiln;
            scope.spawn(move || build(kiln, name, &dockerfile).ok());
        }
        // Each is in the middle of its step when the other one is.
        let_go(meeting.wait_for(2));
    });
    for name in ["one", "two"] {
        assert_eq!(cat(&kiln, name, "/again"), format!("{name}\n"));
    }
    assert_swept(&kiln);
}

#[test]
fn same_build_twice_at_once_gives_one_that_works() {
    let (kiln, base, meeting) = (Kiln::new(), Registry::shared().busybox(), Meeting::new());
    let dockerfile = format!("FROM {base}\nRUN {}; echo x > /file\n", meeting.command());
    thread::scope(|scope| {
        for _ in 0..2 {
            // From the cache, the second would wait for the first one's result.
            scope.spawn(|| build_with(&kiln, &["--no-cache"], "same", &dockerfile).ok());
        }
        let_go(meeting.wait_for(2));
    });
    assert_eq!(cat(&kiln, "same", "/file"), "x\n");
    let again = build(&kiln, "same", &dockerfile).ok();
    assert!(again.stderr().contains("CACHED"), "{again}");
    assert_swept(&kiln);
}

#[test]
fn four_pulls_of_one_image_store_it_once() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| kiln.run(["pull", &base]).ok());
        }
    });
    assert_eq!(names_in(&kiln, "layers").len(), 1);
    // A manifest, a config and a layer.
    assert_eq!(names_in(&kiln, "blobs/sha256").len(), 3);
    assert_eq!(
        kiln.run(["run", "--rm", &base, "echo", "hi"]).ok().stdout(),
        "hi\n"
    );
    assert_swept(&kiln);
}

#[test]
fn removing_the_base_of_a_running_build_does_not_break_it() {
    let (kiln, base, meeting) = (Kiln::new(), Registry::shared().busybox(), Meeting::new());
    let dockerfile = format!(
        "FROM {base}\nRUN {}\nRUN ls /bin/sh > /still\nWORKDIR /new\n",
        meeting.command()
    );
    thread::scope(|scope| {
        scope.spawn(|| build(&kiln, "late", &dockerfile).ok());
        let steps = meeting.wait_for(1);
        kiln.run(["rmi", "-f", &base]).ok();
        let images = kiln.run(["images", "-q"]).ok();
        assert_eq!(images.stdout(), "");
        let_go(steps);
    });
    assert_eq!(cat(&kiln, "late", "/still"), "/bin/sh\n");
    assert_swept(&kiln);
}

#[test]
fn names_and_lists_while_builds_run() {
    let (kiln, base, meeting) = (Kiln::new(), Registry::shared().busybox(), Meeting::new());
    build(
        &kiln,
        "before",
        &format!("FROM {base}\nRUN echo 1 > /file\n"),
    )
    .ok();
    let dockerfile = format!("FROM {base}\nRUN {}\n", meeting.command());
    thread::scope(|scope| {
        scope.spawn(|| build(&kiln, "running", &dockerfile).ok());
        let steps = meeting.wait_for(1);
        for count in 0..5 {
            let name = format!("before:{count}");
            kiln.run(["tag", "before", &name]).ok();
            let images = kiln.run(["images", "--format", "json"]).ok().stdout();
            assert!(images.contains(&format!("\"Tag\":\"{count}\"")), "{images}");
            kiln.run(["history", &name]).ok();
            kiln.run(["rmi", &name]).ok();
        }
        let_go(steps);
    });
    assert_eq!(cat(&kiln, "before", "/file"), "1\n");
    let images = kiln.run(["images"]).ok().stdout();
    assert!(images.contains("running"), "{images}");
}

#[test]
fn image_that_is_tagged_while_it_is_removed_is_there_or_gone_but_never_broken() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    for round in 0..6 {
        let (first, second) = ("first", format!("second:{round}"));
        build(
            &kiln,
            first,
            &format!("FROM {base}\nRUN echo {round} > /file\n"),
        )
        .ok();
        let tagged = thread::scope(|scope| {
            let removal = scope.spawn(|| {
                thread::sleep(Duration::from_millis(5));
                kiln.run(["rmi", first]).ok()
            });
            thread::sleep(Duration::from_millis(round * 3));
            let tagged = kiln.run(["tag", first, &second]).code();
            removal.join().unwrap();
            tagged == Some(0)
        });
        let images = kiln.run(["images", "second"]).ok().stdout();
        assert_eq!(images.contains(&format!(" {round} ")), tagged, "{images}");
        if tagged {
            assert_eq!(cat(&kiln, &second, "/file"), format!("{round}\n"));
        }
    }
}

/// Removes all that can be removed, and returns what was said.
fn prune_all(kiln: &Kiln) -> String {
    kiln.run(["prune", "--all", "--force"]).ok().stdout()
}

#[test]
fn pruning_all_leaves_a_running_build_what_it_stands_on() {
    let (kiln, base, meeting) = (Kiln::new(), Registry::shared().busybox(), Meeting::new());
    let dockerfile = format!(
        "FROM {base} AS side\nRUN echo side > /side\n\
         FROM {base}\nRUN echo first > /first\nCOPY --from=side /side /side\n\
         RUN --mount=type=cache,target=/c echo kept > /c/x; {}\n\
         RUN cat /first /side > /all\n",
        meeting.command()
    );
    thread::scope(|scope| {
        scope.spawn(|| build(&kiln, "late", &dockerfile).ok());
        let steps = meeting.wait_for(1);
        prune_all(&kiln);
        prune_all(&kiln);
        let images = kiln.run(["images", "-a", "-q"]).ok();
        // It is the base of what runs.
        assert_eq!(images.stdout().lines().count(), 1, "{images}");
        assert_eq!(names_in(&kiln, "mounts").len(), 1);
        let_go(steps);
    });
    assert_eq!(cat(&kiln, "late", "/all"), "first\nside\n");
    kiln.run(["fsck"]).ok();
    // With the blob of the base, which can't be made again.
    let archive = kiln.sandbox().join("late.tar");
    kiln.run(["save", "-o", archive.to_str().unwrap(), "late"])
        .ok();
    assert_swept(&kiln);
    kiln.run(["rmi", "late"]).ok();
    prune_all(&kiln);
    for directory in [
        "layers",
        "images",
        "refs",
        "blobs/sha256",
        "cache",
        "compressed",
    ] {
        let names = names_in(&kiln, directory);
        assert!(names.is_empty(), "{directory}: {names:?}");
    }
}

#[test]
fn pruning_image_that_is_run_leaves_it() {
    let (kiln, base, meeting) = (Kiln::new(), Registry::shared().busybox(), Meeting::new());
    build(&kiln, "app", &format!("FROM {base}\nRUN echo x > /x\n")).ok();
    let command = format!("{}; cat /x", meeting.command());
    thread::scope(|scope| {
        let run = scope.spawn(|| kiln.run(["run", "--rm", "app", "sh", "-c", &command]).ok());
        let steps = meeting.wait_for(1);
        prune_all(&kiln);
        let_go(steps);
        assert_eq!(run.join().unwrap().stdout(), "x\n");
    });
    // The base was not needed, and its layer is.
    assert_eq!(cat(&kiln, "app", "/x"), "x\n");
    kiln.run(["fsck"]).ok();
}

#[test]
fn builds_go_well_while_everything_else_is_pruned_all_the_time() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    kiln.run(["pull", &base]).ok();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::Relaxed;
    let pruned = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        let builders: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|name| {
                let (kiln, base) = (&kiln, &base);
                scope.spawn(move || {
                    for round in 0..12 {
                        let dockerfile = format!(
                            "FROM {base} AS x\nRUN echo common > /common\n\
                             RUN echo {} > /round\n\
                             FROM {base}\nCOPY --from=x /round /again\n",
                            round / 3
                        );
                        build(kiln, name, &dockerfile).ok();
                        assert_eq!(cat(kiln, name, "/again"), format!("{}\n", round / 3));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(ordering) {
                for command in [
                    // A container that is made, and not yet started, is none that has stopped.
                    &["prune", "-f"][..],
                    &["builder", "prune", "-a", "-f"],
                    &["builder", "prune", "-f", "--keep-storage=0"],
                ] {
                    kiln.run(command).ok();
                    pruned.fetch_add(1, ordering);
                }
            }
        });
        for builder in builders {
            let result = builder.join();
            stop.store(result.is_err(), ordering);
            result.unwrap();
        }
        stop.store(true, ordering);
    });
    assert!(pruned.load(ordering) > 3);
    kiln.run(["fsck"]).ok();
    assert_swept(&kiln);
}

#[test]
fn builds_go_well_while_all_images_are_pruned_too() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::Relaxed;
    thread::scope(|scope| {
        let builders: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|name| {
                let (kiln, base) = (&kiln, &base);
                scope.spawn(move || {
                    for round in 0..10 {
                        let dockerfile = format!(
                            "FROM {base} AS x\nRUN echo common > /common\n\
                             FROM {base}\nCOPY --from=x /common /again\nRUN echo {round}\n"
                        );
                        build(kiln, name, &dockerfile).ok();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(ordering) {
                prune_all(&kiln);
            }
        });
        for builder in builders {
            let result = builder.join();
            stop.store(result.is_err(), ordering);
            result.unwrap();
        }
        stop.store(true, ordering);
    });
    kiln.run(["fsck"]).ok();
    // Of the base too, a build may have been the last user.
    for name in ["a", "b"] {
        for image in kiln.run(["images", "-q", name]).ok().stdout().lines() {
            kiln.run(["run", "--rm", image, "cat", "/again"]).ok();
        }
    }
    assert_swept(&kiln);
}
