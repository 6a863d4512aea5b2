//! `RUN --mount` of type bind, cache and tmpfs.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use support::{Image, Kiln, Output, Registry};

fn base() -> String {
    Registry::shared().busybox()
}

fn dockerfile(instructions: &str) -> String {
    format!("FROM {}\n{instructions}\n", base())
}

#[track_caller]
fn build(kiln: &Kiln, instructions: &str, files: &[(&str, &str)]) -> Output {
    kiln.build(&dockerfile(instructions), files)
}

#[track_caller]
fn built(kiln: &Kiln, instructions: &str, files: &[(&str, &str)]) -> Image {
    build(kiln, instructions, files).ok();
    kiln.image("test")
}

/// Tells whether the step with a command was taken from the cache.
#[track_caller]
fn was_cached(output: &Output, command: &str) -> bool {
    let stderr = output.stderr();
    let step = stderr.lines().find(|line| line.ends_with(command));
    let step = step.unwrap_or_else(|| panic!("no step {command:?}\n{output}"));
    let number = step.split(' ').next().unwrap();
    stderr
        .lines()
        .any(|l| l.starts_with(&format!("{number} CACHED")))
}

/// SEMANTICS 34
#[test]
fn bind_shows_the_context_read_only_by_default() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "WORKDIR /work\n\
         RUN --mount=target=/src cat /src/a /src/dir/b > /out; touch /src/new 2> /error; ls -ln /src > /list; true\n\
         RUN --mount=type=bind,source=dir,target=relative cat relative/b > /relative\n\
         RUN --mount=type=bind,src=/dir/../a,dst=/file cat /file > /single\n\
         RUN --mount=source=dir ls > /here",
        &[("a", "one\n"), ("dir/b", "two\n")],
    );
    assert_eq!(image.text("/out"), "one\ntwo\n");
    assert!(image.text("/error").contains("Read-only file system"));
    let list = image.text("/list");
    assert!(
        list.lines()
            .any(|l| l.contains(" 0        0 ") && l.ends_with(" a")),
        "{list}"
    );
    assert_eq!(image.text("/relative"), "two\n");
    assert_eq!(image.text("/single"), "one\n");
    assert_eq!(image.text("/here"), "b\n");
    // Neither the files nor what they were mounted on.
    for path in ["/src", "/work/relative", "/file", "/work/b"] {
        assert!(image.tree.get(path).is_none(), "{path}");
    }
}

/// SEMANTICS 34
#[test]
fn writes_to_a_bind_are_discarded() {
    let kiln = Kiln::new();
    let files = [("a", "one\n"), ("dir/b", "two\n")];
    let image = built(
        &kiln,
        "RUN --mount=target=/src,rw echo new > /src/a && rm -r /src/dir && cat /src/a > /out\n\
         RUN --mount=target=/src,readwrite=true cat /src/a /src/dir/b > /again\n\
         RUN --mount=source=a,target=/f,rw echo changed > /f && cat /f > /file",
        &files,
    );
    assert_eq!(image.text("/out"), "new\n");
    assert_eq!(image.text("/again"), "one\ntwo\n");
    assert_eq!(image.text("/file"), "changed\n");
    for (name, content) in files {
        let path = kiln.sandbox().join("context").join(name);
        assert_eq!(fs::read_to_string(path).unwrap(), content);
    }
    assert_eq!(image.top(), ["file"]);
}

#[test]
fn bind_from_a_stage_and_an_image_keeps_owners_and_changes_nothing_there() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        &format!(
            "RUN mkdir -p /made/sub && echo s > /made/sub/f && chown 7:8 /made/sub/f && ln -s sub /made/link\n\
             RUN rm /etc/group\n\
             FROM {base} AS other\n\
             FROM {base}\n\
             RUN --mount=from=0,target=/all ls /all/etc > /listed; cat /all/made/sub/f > /f\n\
             RUN --mount=from=0,source=/made/link,target=/part,rw stat -c '%u:%g' /part/f > /owner; rm /part/f\n\
             RUN --mount=from=0,source=made,target=/part cat /part/sub/f > /still\n\
             RUN --mount=from={base},source=/bin/busybox,target=/tool/busybox /tool/busybox echo hi > /tool-out",
            base = base()
        ),
        &[],
    );
    assert!(!image.text("/listed").lines().any(|name| name == "group"));
    assert_eq!(image.text("/f"), "s\n");
    assert_eq!(image.text("/owner"), "7:8\n");
    assert_eq!(image.text("/still"), "s\n");
    assert_eq!(image.text("/tool-out"), "hi\n");
}

/// SEMANTICS 34
#[test]
fn link_as_a_source_stays_within_its_root() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[("inside/f", "in\n")]);
    for (link, to) in [
        ("up", "../../../../etc"),
        ("absolute", "/etc"),
        ("fine", "inside"),
    ] {
        std::os::unix::fs::symlink(to, context.join(link)).unwrap();
    }
    let image = built(
        &kiln,
        "RUN --mount=source=fine,target=/x cat /x/f > /out",
        &[],
    );
    assert_eq!(image.text("/out"), "in\n");
    for link in ["up", "absolute"] {
        build(
            &kiln,
            &format!("RUN --mount=source={link},target=/x ls /x"),
            &[],
        )
        .fails_with(&format!(
            "{link:?} is not in the build context: no such file or directory"
        ));
    }
    build(
        &kiln,
        &format!(
            "RUN ln -s /../../etc/passwd /l\nFROM {}\nRUN --mount=from=0,source=/l,target=/x cat /x > /got",
            base()
        ),
        &[],
    )
    .ok();
    assert!(kiln.image("test").text("/got").starts_with("root:x:0:0:"));
}

#[test]
fn what_is_ignored_is_not_in_a_bind() {
    let kiln = Kiln::new();
    let files = [
        ("a", "1"),
        ("no", "2"),
        ("d/no", "3"),
        ("d/x", "4"),
        (".dockerignore", "**/no\n"),
    ];
    let image = built(
        &kiln,
        "RUN --mount=target=/src cd /src && find . -type f | sort > /out",
        &files,
    );
    assert_eq!(
        image.text("/out"),
        "./.dockerignore\n./Dockerfile\n./a\n./d/x\n"
    );
    build(&kiln, "RUN --mount=source=no,target=/x true", &files)
        .fails_with("\"no\" is excluded by .dockerignore");
}

/// SEMANTICS 35
#[test]
fn key_has_the_content_of_the_selected_path_and_no_more() {
    let kiln = Kiln::new();
    let run = "--mount=source=dir,target=/d cat /d/f > /out";
    let instructions = format!("RUN {run}");
    build(&kiln, &instructions, &[("dir/f", "1\n"), ("other", "1")]).ok();
    let output = build(&kiln, &instructions, &[("dir/f", "1\n"), ("other", "2")]).ok();
    assert!(was_cached(&output, run), "{output}");
    let output = build(&kiln, &instructions, &[("dir/f", "2\n")]).ok();
    assert!(!was_cached(&output, run), "{output}");
    assert_eq!(kiln.image("test").text("/out"), "2\n");
    // What the files hold is remembered, as for COPY, once they are old enough to be trusted.
    let remembered = || fs::read_dir(kiln.store().join("stat")).unwrap().count();
    for _ in 0..50 {
        if remembered() == 0 {
            std::thread::sleep(Duration::from_millis(200));
            build(&kiln, &instructions, &[]).ok();
        }
    }
    assert_eq!(remembered(), 1);
}

/// SEMANTICS 35
#[test]
fn key_of_a_bind_from_a_stage_is_its_content() {
    let kiln = Kiln::new();
    let run = "--mount=from=a,source=/s,target=/s cat /s/f > /out";
    let with = |content: &str, other: &str| {
        format!(
            "FROM {base} AS a\nRUN mkdir /s && echo {content} > /s/f && echo {other} > /o\nFROM {base}\nRUN {run}\n",
            base = base()
        )
    };
    kiln.build(&with("1", "1"), &[]).ok();
    let id = kiln.image("test").id;
    let output = kiln.build(&with("1", "2"), &[]).ok();
    assert!(was_cached(&output, run), "{output}");
    // A step from the cache keeps its time, under whichever key it was found.
    for _ in 0..2 {
        kiln.build(&with("1", "2"), &[]).ok();
        assert_eq!(kiln.image("test").id, id);
    }
    let output = kiln.build(&with("2", "2"), &[]).ok();
    assert!(!was_cached(&output, run), "{output}");
    assert_eq!(kiln.image("test").text("/out"), "2\n");
}

#[test]
fn snapshot_of_the_context_is_used_again_and_few_are_kept() {
    let kiln = Kiln::new();
    let contexts = || {
        let forms = fs::read_dir(kiln.store().join("contexts")).unwrap();
        let slots = forms.flat_map(|form| fs::read_dir(form.unwrap().path()).unwrap());
        slots.count()
    };
    build(
        &kiln,
        "RUN --mount=source=f,target=/f cat /f > /1",
        &[("f", "a")],
    )
    .ok();
    build(
        &kiln,
        "RUN --mount=source=f,target=/f cat /f > /2",
        &[("f", "a")],
    )
    .ok();
    // The same file may have another time: as a source it is another one then.
    assert!(contexts() <= 2, "{}", contexts());
    for number in 0..12 {
        let content = number.to_string();
        build(
            &kiln,
            "RUN --mount=source=f,target=/f cat /f",
            &[("f", &content)],
        )
        .ok();
    }
    assert!(contexts() <= 9, "{}", contexts());
}

/// SEMANTICS 34, SEMANTICS 36
#[test]
fn cache_outlives_builds_and_leaves_nothing_in_the_image() {
    let kiln = Kiln::new();
    let step = |number: u32| {
        format!(
            "RUN --mount=type=cache,target=/deep/er/cache stat -c '%a %u:%g' /deep/er/cache > /out; \
             echo {number} >> /deep/er/cache/log; cat /deep/er/cache/log >> /out"
        )
    };
    let image = built(&kiln, &step(1), &[]);
    assert_eq!(image.text("/out"), "755 0:0\n1\n");
    assert_eq!(image.top(), ["out"]);
    let output = kiln.build_with(&["--no-cache"], &dockerfile(&step(2)), &[]);
    output.ok();
    assert_eq!(kiln.image("test").text("/out"), "755 0:0\n1\n2\n");
    // Nor does it go with the image.
    kiln.run(["rmi", "-f", "test"]).ok();
    assert_eq!(
        built(&kiln, &step(3), &[]).text("/out"),
        "755 0:0\n1\n2\n3\n"
    );
}

/// SEMANTICS 34
#[test]
fn caches_are_the_same_by_id_or_else_by_target() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "RUN --mount=type=cache,target=/a/./b/ echo 1 > /a/b/f\n\
         RUN --mount=type=cache,target=/a/b cat /a/b/f > /same\n\
         RUN --mount=type=cache,target=/other,id=/a/b cat /other/f > /by-id\n\
         RUN --mount=type=cache,target=/a/b,id=x ls /a/b > /empty\n\
         RUN --mount=type=cache,target=/c,uid=7,gid=8,mode=0700 stat -c '%a %u:%g' /c > /mode\n\
         RUN --mount=type=cache,target=/a/b,ro touch /a/b/g 2> /ro; true",
        &[],
    );
    assert_eq!(image.text("/same"), "1\n");
    assert_eq!(image.text("/by-id"), "1\n");
    assert_eq!(image.text("/empty"), "");
    assert_eq!(image.text("/mode"), "700 7:8\n");
    assert!(image.text("/ro").contains("Read-only file system"));
}

#[test]
fn cache_begins_with_what_it_is_from() {
    let kiln = Kiln::new();
    let last = format!("FROM {}\n", base());
    let image = built(
        &kiln,
        &format!(
            "RUN mkdir /seed && echo s > /seed/f && chown 5:6 /seed\n{last}\
             RUN --mount=type=cache,from=0,source=/seed,target=/c cat /c/f > /1; stat -c %u:%g /c >> /1; echo t > /c/f\n\
             RUN --mount=type=cache,from=0,source=/seed,target=/c cat /c/f > /2"
        ),
        &[],
    );
    assert_eq!(image.text("/1"), "s\n5:6\n");
    assert_eq!(image.text("/2"), "t\n");
    build(&kiln, "RUN --mount=type=cache,source=x,target=/c true", &[])
        .fails_with("the source of a cache needs a from");
}

/// SEMANTICS 35
#[test]
fn id_and_sharing_of_a_cache_are_not_in_the_key() {
    let kiln = Kiln::new();
    build(&kiln, "RUN --mount=type=cache,target=/c,id=a true", &[]).ok();
    let run = "--mount=type=cache,target=/c,id=b,sharing=locked true";
    let output = build(&kiln, &format!("RUN {run}"), &[]).ok();
    assert!(was_cached(&output, run), "{output}");
}

/// Starts a build beside the test's own, in the same store.
fn beside(kiln: &Kiln, name: &str, instructions: &str) -> std::thread::JoinHandle<Output> {
    let context = kiln.sandbox().directory(name, &[]);
    fs::write(context.join("Dockerfile"), dockerfile(instructions)).unwrap();
    let mut command = kiln.command(["build", "-t", name, "--progress", "plain"]);
    command.arg(context);
    std::thread::spawn(move || support::run(&mut command, Duration::from_secs(60)))
}

/// Two builds at once, of which each says for a second that it is in its cache.
fn two_at_once(sharing: &str) -> (Kiln, Vec<Output>) {
    let kiln = Kiln::new();
    // Both have the base then.
    build(&kiln, "RUN true", &[]).ok();
    let builds = ["one", "two"].map(|name| {
        let run = format!(
            "RUN --mount=type=cache,target=/c,sharing={sharing} ls /c > /seen; touch /c/{name}; sleep 1; rm /c/{name}"
        );
        beside(&kiln, name, &run)
    });
    let outputs = builds.map(|build| build.join().unwrap().ok());
    (kiln, outputs.into())
}

fn seen(kiln: &Kiln) -> Vec<String> {
    let mut seen = ["one", "two"].map(|name| kiln.image(name).text("/seen"));
    seen.sort();
    seen.into()
}

/// SEMANTICS 34
#[test]
fn locked_cache_is_used_by_one_build_at_a_time_and_the_other_says_that_it_waits() {
    let (kiln, outputs) = two_at_once("locked");
    assert_eq!(seen(&kiln), ["", ""]);
    let waiting = "waiting for the cache \"/c\": another step uses it";
    let who_waited = outputs.iter().filter(|o| o.stderr().contains(waiting));
    assert_eq!(who_waited.count(), 1, "{outputs:?}");
}

/// SEMANTICS 34
#[test]
fn private_cache_is_another_one_while_the_first_is_in_use() {
    let (kiln, outputs) = two_at_once("private");
    assert_eq!(seen(&kiln), ["", ""]);
    assert!(
        outputs.iter().all(|o| !o.stderr().contains("waiting")),
        "{outputs:?}"
    );
}

/// SEMANTICS 34
#[test]
fn shared_cache_is_used_by_several_builds_at_once() {
    let kiln = Kiln::new();
    build(&kiln, "RUN true", &[]).ok();
    // Each waits for the other one's file: one after the other, they would never end.
    let run = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/c touch /c/{own}; \
             for i in $(seq 100); do [ -e /c/{other} ] && exit 0; sleep 0.1; done; exit 1"
        )
    };
    let builds = [
        beside(&kiln, "one", &run("one", "two")),
        beside(&kiln, "two", &run("two", "one")),
    ];
    for build in builds {
        build.join().unwrap().ok();
    }
}

#[test]
fn one_step_may_mount_a_locked_cache_twice() {
    let kiln = Kiln::new();
    let started = Instant::now();
    let image = built(
        &kiln,
        "RUN --mount=type=cache,id=x,target=/a,sharing=locked --mount=type=cache,id=x,target=/b echo 1 > /a/f; cat /b/f > /out",
        &[],
    );
    assert_eq!(image.text("/out"), "1\n");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn tmpfs_has_its_size_and_the_looks_of_the_directory_below() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "RUN mkdir -m 750 /own && chown 3:4 /own\n\
         RUN --mount=type=tmpfs,target=/t,size=1m df -k /t | tail -n 1 > /df; stat -c '%a %u:%g' /t > /looks; \
         dd if=/dev/zero of=/t/big bs=1k count=2000 2> /dev/null && exit 1; true\n\
         RUN --mount=type=tmpfs,target=/own stat -c '%a %u:%g' /own > /own-looks\n\
         USER 1000\n\
         RUN --mount=type=tmpfs,target=/t touch /t/f",
        &[],
    );
    assert_eq!(image.text("/df").split_whitespace().nth(1), Some("1024"));
    assert_eq!(image.text("/looks"), "1777 0:0\n");
    assert_eq!(image.text("/own-looks"), "750 3:4\n");
    assert!(image.tree.get("/t").is_none());
}

#[test]
fn mounts_below_mounts() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "RUN --mount=target=/src --mount=type=cache,target=/src/deep/target --mount=type=tmpfs,target=/src/dir/tmp \
           echo built > /src/deep/target/f && ls /src /src/dir > /list && touch /src/dir/tmp/x\n\
         RUN --mount=type=cache,target=/c --mount=source=f,target=/c/one/file --mount=type=tmpfs,target=/c/t cat /c/one/file > /file\n\
         RUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/t/a/b,id=/src/deep/target cat /t/a/b/f > /kept\n\
         RUN --mount=type=tmpfs,target=/dev/shm/x --mount=type=tmpfs,target=/dev/own touch /dev/shm/x/a /dev/own/b",
        &[("f", "file\n"), ("dir/g", "")],
    );
    assert_eq!(
        image.text("/list"),
        "/src:\nDockerfile\ndeep\ndir\nf\n\n/src/dir:\ng\ntmp\n"
    );
    assert_eq!(image.text("/file"), "file\n");
    assert_eq!(image.text("/kept"), "built\n");
    let names: Vec<_> = image.layers.iter().skip(1).flatten().collect();
    assert_eq!(names, ["list", "file", "kept"]);
}

/// SEMANTICS 36
#[test]
fn mount_points_keep_the_attributes_of_what_is_there() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "RUN mkdir -m 700 /there && chown 5:6 /there && touch -d '2001-02-03 04:05:06' /there\n\
         RUN --mount=type=cache,target=/there/a/b --mount=type=tmpfs,target=/there/c stat -c '%a %u:%g %Y' /there > /looks",
        &[],
    );
    assert_eq!(
        image.text("/looks").split(' ').take(2).collect::<Vec<_>>(),
        ["700", "5:6"]
    );
    assert_eq!(image.top(), ["looks"]);
    let there = image.tree.file("/there");
    assert_eq!((there.mode, there.uid, there.gid), (0o700, 5, 6));
}

#[test]
fn what_a_step_writes_beside_a_mount_point_is_in_the_layer() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "RUN --mount=type=cache,target=/root/.cache/pip echo x > /root/.cache/other && echo y > /root/.cache/pip/f",
        &[],
    );
    assert_eq!(image.text("/root/.cache/other"), "x\n");
    assert!(image.tree.get("/root/.cache/pip").is_none());
}

/// SEMANTICS 34, SEMANTICS 37
#[test]
fn values_are_expanded_and_labels_are_ignored() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "ARG DIR=dir\nENV WHERE=/where\n\
         RUN --mount=type=bind,source=$DIR,target=${WHERE}/x,Z,relabel=shared cat $WHERE/x/f > /out\n\
         ARG KIND=tmpfs\nRUN --mount=type=$KIND,target=/t,z touch /t/f",
        &[("dir/f", "f\n")],
    );
    assert_eq!(image.text("/out"), "f\n");
}

/// SEMANTICS 34
#[test]
fn targets_that_make_no_sense_are_refused() {
    let kiln = Kiln::new();
    let files = [("f", ""), ("d/g", "")];
    for (run, error) in [
        (
            "--mount=target=/ true",
            "a mount of type bind can't be at \"/\"",
        ),
        (
            "--mount=type=cache,target=/a/.. true",
            "a mount of type cache can't be at \"/\"",
        ),
        (
            "--mount=type=tmpfs true",
            "a mount of type tmpfs can't be at \"/\"",
        ),
        (
            "--mount=target=/proc/x true",
            "a mount of type bind can't be at \"/proc/x\"",
        ),
        (
            "--mount=type=tmpfs,target=/etc/passwd true",
            "cannot mount a directory at \"/etc/passwd\": there is a file",
        ),
        (
            "--mount=source=f,target=/etc true",
            "cannot mount a file at \"/etc\": there is a directory",
        ),
        (
            "--mount=type=tmpfs,target=/etc/passwd/x true",
            "cannot mount at \"/etc/passwd/x\": in the image, /etc/passwd is a file",
        ),
        (
            "--mount=source=f,target=/x --mount=type=tmpfs,target=/x/y true",
            "cannot mount at \"/x/y\": /x is a file",
        ),
        (
            "--mount=source=nothing,target=/x true",
            "\"nothing\" is not in the build context",
        ),
        (
            "--mount=from=no-such-stage,target=/x true",
            "no stage is named no-such-stage",
        ),
    ] {
        build(&kiln, &format!("RUN {run}"), &files).fails_with(error);
    }
}

#[test]
fn link_of_the_image_is_followed_to_the_target() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "RUN mkdir /real && ln -s /real /link && ln -s ../../etc /escape\n\
         RUN --mount=type=cache,target=/link/c touch /real/c/f && ls /real > /out\n\
         RUN --mount=source=f,target=/escape/hosts cat /etc/hosts > /hosts",
        &[("f", "mine\n")],
    );
    assert_eq!(image.text("/out"), "c\n");
    assert_eq!(image.text("/hosts"), "mine\n");
}

#[test]
fn cache_with_a_planted_link_is_no_way_out() {
    let kiln = Kiln::new();
    build(
        &kiln,
        "RUN --mount=type=cache,target=/c ln -s /../../../../tmp /c/out",
        &[],
    )
    .ok();
    build(
        &kiln,
        "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/c/out/x touch /c/out/x/f",
        &[],
    )
    .fails();
}

#[test]
fn files_of_the_context_keep_mode_and_time() {
    let kiln = Kiln::new();
    let context = kiln
        .sandbox()
        .directory("context", &[("script", "#!/bin/sh\necho ran\n")]);
    let path = context.join("script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_secs(981_173_106);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let image = built(
        &kiln,
        "RUN --mount=source=script,target=/s /s > /out; stat -c '%a %Y' /s >> /out",
        &[],
    );
    assert_eq!(image.text("/out"), "ran\n755 981173106\n");
}

#[test]
fn security_sandbox_is_accepted_and_insecure_says_why_not() {
    let kiln = Kiln::new();
    build(&kiln, "RUN --security=sandbox true", &[]).ok();
    let output = build(&kiln, "RUN --security=insecure true", &[]);
    let output = output.fails_with("RUN --security=insecure is not possible without root");
    assert!(
        output.stderr().contains(
            "kiln never gives a step more rights than its own user has; leave the flag out"
        )
    );
}

/// Binds of all kinds, where the kernel lacks something.
#[track_caller]
fn works_with(variable: &str, value: &str) {
    let kiln = Kiln::new().env(variable, value);
    let image = built(
        &kiln,
        &format!(
            "RUN mkdir /s && echo s > /s/f && ln -s f /s/l\nFROM {}\n\
             RUN --mount=target=/src --mount=type=cache,target=/src/deep/c --mount=from=0,source=s,target=/s,rw \
               cat /src/f /s/l > /out && echo x > /s/f && cat /s/f >> /out && touch /src/deep/c/g && ! touch /src/no 2> /dev/null\n\
             RUN --mount=source=f,target=/f --mount=type=tmpfs,target=/t cat /f >> /out",
            base()
        ),
        &[("f", "file\n")],
    );
    assert_eq!(image.text("/out"), "file\ns\nx\nfile\n");
    assert!(
        image
            .layers
            .iter()
            .skip(1)
            .flatten()
            .all(|name| name == "out"),
        "{:?}",
        image.layers
    );
}

#[test]
fn mounts_work_on_fuse_overlayfs() {
    works_with("KILN_OVERLAY", "fuse");
}

#[test]
fn mounts_work_without_the_new_mount_api() {
    works_with("KILN_DISABLE", "fsmount");
}

#[test]
fn failure_elsewhere_ends_the_wait_for_a_cache() {
    let kiln = Kiln::new();
    build(&kiln, "RUN true", &[]).ok();
    let run = "RUN --mount=type=cache,target=/c,sharing=locked";
    let holder = beside(&kiln, "holder", &format!("{run} touch /c/f; sleep 6"));
    let held = || {
        let mounts = kiln.store().join("mounts");
        mounts.exists() && fs::read_dir(mounts).unwrap().count() > 0
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !held() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    let failing = format!(
        "{run} true\nFROM {base} AS b\nRUN sleep 0.5; exit 7\nFROM {base}\nCOPY --from=0 /etc/passwd /0\nCOPY --from=b /etc/passwd /b",
        base = base()
    );
    let output = build(&kiln, &failing, &[]).fails_with("exit code: 7");
    assert!(output.elapsed < Duration::from_secs(4), "{output}");
    holder.join().unwrap().ok();
}
