//! The cache: which steps are taken from earlier builds, and which run.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use support::{Kiln, Output, Registry};

fn base() -> String {
    Registry::shared().busybox()
}

/// Returns the steps of a build in plain progress, and whether each came from the cache.
fn steps(output: &Output) -> Vec<(String, bool)> {
    let log = output.stderr();
    let named = log.lines().filter_map(|line| {
        let (id, rest) = line.split_once(' ')?;
        let (_, name) = rest.strip_prefix('[')?.split_once("] ")?;
        id.starts_with('#').then_some((id, name))
    });
    let ended = |id: &str, word: &str| {
        log.lines()
            .any(|line| line.starts_with(&format!("{id} {word}")))
    };
    named
        .filter(|(_, name)| !name.starts_with("FROM"))
        .map(|(id, name)| {
            let cached = ended(id, "CACHED");
            assert!(cached || ended(id, "DONE") || ended(id, "ERROR"), "{log}");
            (name.to_owned(), cached)
        })
        .collect()
}

/// Returns the steps that ran, by their first words.
fn ran(output: &Output) -> Vec<String> {
    let steps = steps(output).into_iter();
    steps
        .filter(|(_, cached)| !cached)
        .map(|(name, _)| name)
        .collect()
}

/// Returns the id of the last build.
fn id(kiln: &Kiln) -> String {
    kiln.run(["images", "--no-trunc", "-q", "test"]).ok().line()
}

/// SEMANTICS 60
#[test]
fn nothing_runs_and_the_image_is_the_same_when_nothing_changed() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\nARG A=1\nENV E=1\nRUN date +%N > /now\nCOPY d /d\nWORKDIR /w/x\nUSER app\nCMD [\"x\"]\n",
        base()
    );
    let files = &[("d/x", "x")];
    let first = kiln.build(&dockerfile, files).ok();
    let first_id = id(&kiln);
    assert_eq!(
        steps(&first),
        [
            ("RUN date +%N > /now".to_owned(), false),
            ("COPY d /d".to_owned(), false),
            ("WORKDIR /w/x".to_owned(), false),
        ]
    );
    let second = kiln.build(&dockerfile, files).ok();
    assert!(ran(&second).is_empty(), "{second}");
    assert_eq!(id(&kiln), first_id);
}

/// SEMANTICS 60
#[test]
fn config_is_the_same_on_a_rebuild_without_any_step() {
    let kiln = Kiln::new();
    let dockerfile = "FROM scratch\nENV A=1\nLABEL x=y\nWORKDIR /\nCMD [\"/x\"]\n";
    kiln.build(dockerfile, &[]).ok();
    let first = id(&kiln);
    kiln.build(dockerfile, &[]).ok();
    assert_eq!(id(&kiln), first);
}

/// SEMANTICS 47
#[test]
fn new_times_of_the_same_files_hit() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nCOPY . /c\nADD d /a\n", base());
    let files = &[("x", "x"), ("d/y", "y")];
    kiln.build(&dockerfile, files).ok();
    let first = id(&kiln);
    let context = kiln.sandbox().join("context");
    for name in ["x", "d/y", "d", ".", "Dockerfile"] {
        let file = fs::File::open(context.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
            .unwrap();
    }
    let context = context.to_str().unwrap();
    let again = kiln
        .run(["build", "-t", "test", "--progress", "plain", context])
        .ok();
    assert!(ran(&again).is_empty(), "{again}");
    assert_eq!(id(&kiln), first);
}

#[test]
fn changed_file_misses_its_copy_and_what_follows() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\nCOPY other /other\nRUN true\nCOPY x /x\nRUN cat /x > /y\n",
        base()
    );
    kiln.build(&dockerfile, &[("x", "1"), ("other", "o")]).ok();
    let changed = kiln.build(&dockerfile, &[("x", "2")]).ok();
    assert_eq!(ran(&changed), ["COPY x /x", "RUN cat /x > /y"]);
    // And back: the first result is still known.
    let back = kiln.build(&dockerfile, &[("x", "1")]).ok();
    assert!(ran(&back).is_empty(), "{back}");
}

#[test]
fn work_stops_where_a_result_is_unchanged() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\nCOPY x /x\nRUN rm /x && echo same > /out\nFROM {0}\nCOPY --from=0 /out /out\nRUN cat /out\n",
        base()
    );
    kiln.build(&dockerfile, &[("x", "1")]).ok();
    let first = id(&kiln);
    let changed = kiln.build(&dockerfile, &[("x", "2")]).ok();
    assert_eq!(
        ran(&changed),
        ["COPY x /x", "RUN rm /x && echo same > /out"],
        "{changed}"
    );
    assert_eq!(id(&kiln), first);
}

#[test]
fn run_again_with_the_same_result_lets_what_follows_hit() {
    let kiln = Kiln::new();
    let dockerfile = |command: &str| {
        format!(
            "FROM {}\nRUN {command} > /out\nRUN cat /out > /two\nCOPY x /x\n",
            base()
        )
    };
    let files = &[("x", "x")];
    kiln.build(&dockerfile("echo same"), files).ok();
    std::thread::sleep(Duration::from_millis(1100));
    // Another command, the same content, a second later: only itself runs.
    let other = kiln.build(&dockerfile("printf 'same\\n'"), files).ok();
    assert_eq!(ran(&other), ["RUN printf 'same\\n' > /out"], "{other}");
}

/// SEMANTICS 27
#[test]
fn changed_variables_miss_from_the_first_run_that_sees_them() {
    let kiln = Kiln::new();
    let dockerfile = |env: &str| {
        format!(
            "FROM {}\nRUN echo before\nARG A=1\nENV E={env}\nCOPY x /x\nRUN echo $A $E > /out\n",
            base()
        )
    };
    let files = &[("x", "x")];
    kiln.build(&dockerfile("1"), files).ok();
    let env = kiln.build(&dockerfile("2"), files).ok();
    assert_eq!(ran(&env), ["RUN echo $A $E > /out"]);
    let arg = kiln
        .build_with(&["--build-arg", "A=2"], &dockerfile("1"), files)
        .ok();
    assert_eq!(ran(&arg), ["RUN echo $A $E > /out"]);
    // An argument that no RUN sees runs nothing; neither does a proxy.
    let dockerfile = format!("FROM {}\nRUN echo p > /out\nARG A\n", base());
    kiln.build(&dockerfile, files).ok();
    let options = [
        "--build-arg",
        "A=3",
        "--build-arg",
        "HTTP_PROXY=http://p.invalid",
    ];
    let unseen = kiln.build_with(&options, &dockerfile, files).ok();
    assert!(ran(&unseen).is_empty(), "{unseen}");
}

/// SEMANTICS 26
#[test]
fn declared_proxy_is_part_of_the_key() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nARG HTTP_PROXY\nRUN echo p > /out\n", base());
    for (proxy, hit) in [("a", false), ("b", false), ("a", true)] {
        let arg = format!("HTTP_PROXY=http://{proxy}.invalid");
        let output = kiln
            .build_with(&["--build-arg", &arg], &dockerfile, &[])
            .ok();
        assert_eq!(steps(&output), [("RUN echo p > /out".to_owned(), hit)]);
    }
}

#[test]
fn user_directory_shell_and_network_are_part_of_the_key() {
    let kiln = Kiln::new();
    let build = |before: &str, run: &str| {
        let dockerfile = format!("FROM {}\n{before}\nRUN {run}\n", base());
        steps(&kiln.build(&dockerfile, &[]).ok()).pop().unwrap().1
    };
    assert!(!build("", "true"));
    assert!(build("", "true"));
    // Metadata that no step sees.
    assert!(build(
        "LABEL a=b\nEXPOSE 1\nCMD x\nHEALTHCHECK NONE",
        "true"
    ));
    for before in ["USER app", "WORKDIR /tmp", "SHELL [\"/bin/sh\", \"-ec\"]"] {
        assert!(!build(before, "true"), "{before}");
        assert!(build(before, "true"), "{before}");
    }
    assert!(!build("", "--network=none true"));
    assert!(!build("", "[\"true\"]"));
}

#[test]
fn no_cache_runs_all_and_leaves_records() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\nRUN date +%N > /now\nCOPY x /x\nWORKDIR /w\n",
        base()
    );
    let files = &[("x", "x")];
    kiln.build(&dockerfile, files).ok();
    let first = id(&kiln);
    let again = kiln.build_with(&["--no-cache"], &dockerfile, files).ok();
    assert_eq!(ran(&again).len(), 3, "{again}");
    let second = id(&kiln);
    assert_ne!(first, second);
    // What it made is what later builds find.
    let third = kiln.build(&dockerfile, files).ok();
    assert!(ran(&third).is_empty(), "{third}");
    assert_eq!(id(&kiln), second);
}

#[test]
fn modes_links_and_names_miss() {
    let kiln = Kiln::new();
    let dockerfile = "FROM scratch\nCOPY d /d\n";
    let context = kiln
        .sandbox()
        .directory("context", &[("d/a", "same"), ("d/b", "same")]);
    let build = |what: &str, hit: bool| {
        let output = kiln.build(dockerfile, &[]).ok();
        let expected = [("COPY d /d".to_owned(), hit)];
        assert_eq!(steps(&output), expected, "{what}");
    };
    build("first", false);
    fs::set_permissions(context.join("d/a"), fs::Permissions::from_mode(0o600)).unwrap();
    build("mode", false);
    fs::set_permissions(context.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    build("mode of the directory", false);
    fs::set_permissions(context.join("d/a"), fs::Permissions::from_mode(0o644)).unwrap();
    build("mode and again", false);
    fs::remove_file(context.join("d/b")).unwrap();
    fs::hard_link(context.join("d/a"), context.join("d/b")).unwrap();
    build("hard link", false);
    build("nothing", true);
    fs::rename(context.join("d/b"), context.join("d/c")).unwrap();
    build("name", false);
    fs::remove_file(context.join("d/c")).unwrap();
    std::os::unix::fs::symlink("a", context.join("d/c")).unwrap();
    build("symbolic link", false);
    fs::remove_file(context.join("d/c")).unwrap();
    std::os::unix::fs::symlink("b", context.join("d/c")).unwrap();
    build("another target", false);
    fs::create_dir(context.join("d/empty")).unwrap();
    build("empty directory", false);
    build("nothing", true);
}

#[test]
fn owners_in_another_stage_miss() {
    let kiln = Kiln::new();
    let build = |owner: &str| {
        let dockerfile = format!(
            "FROM {} AS a\nRUN echo x > /x && chown {owner} /x\nFROM scratch\nCOPY --from=a /x /x\n",
            base()
        );
        steps(&kiln.build(&dockerfile, &[]).ok()).pop().unwrap()
    };
    assert_eq!(build("1:1"), ("COPY --from=a /x /x".to_owned(), false));
    assert_eq!(build("1:2"), ("COPY --from=a /x /x".to_owned(), false));
    assert_eq!(build("1:1"), ("COPY --from=a /x /x".to_owned(), true));
}

/// A stage that is known need not be read again: what it holds goes by its layers.
#[test]
fn copy_from_a_known_stage_reads_none_of_its_files() {
    let kiln = Kiln::new();
    let dockerfile = |other: &str| {
        format!(
            "FROM {base} AS made\nRUN mkdir /out && echo 4711 > /out/file && echo {other} > /other\n\
             FROM {base}\nCOPY --from=made /out /out\nCOPY --link --from=made /out /linked\n",
            base = base()
        )
    };
    kiln.build(&dockerfile("1"), &[]).ok();
    // Another layer with the same files below /out: they are read, and found to be the same.
    assert_eq!(ran(&kiln.build(&dockerfile("2"), &[]).ok()).len(), 1);
    let image = id(&kiln);
    // Damage that reading would find, in all layers that have the file.
    let damage = "for f in \"$0\"/layers/*/fs/out/file; do echo 4712 > \"$f\"; cat \"$f\"; done";
    let store = kiln.store().to_str().unwrap().to_owned();
    let damaged = kiln.run(["unshare", "sh", "-c", damage, &store]).ok();
    assert_eq!(damaged.stdout().trim_end(), "4712\n4712\n4712");
    for other in ["1", "2"] {
        assert_eq!(ran(&kiln.build(&dockerfile(other), &[]).ok()), [""; 0]);
        assert_eq!(id(&kiln), image);
    }
}

#[test]
fn options_of_copy_miss() {
    let kiln = Kiln::new();
    let words = [
        "x /x",
        "x /y",
        "--chmod=600 x /x",
        "--chown=1 x /x",
        "--link x /x",
    ];
    for hit in [false, true] {
        for words in words {
            let dockerfile = format!("FROM {}\nCOPY {words}\n", base());
            let output = kiln.build(&dockerfile, &[("x", "x")]).ok();
            assert_eq!(steps(&output), [(format!("COPY {words}"), hit)]);
        }
    }
}

#[test]
fn ignored_files_take_no_part() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nCOPY . /c\n", base());
    let files = &[
        ("x", "x"),
        ("log", "1"),
        (".dockerignore", "log\nDockerfile\n.dockerignore\n"),
    ];
    kiln.build(&dockerfile, files).ok();
    let hit = |files: &[(&str, &str)]| steps(&kiln.build(&dockerfile, files).ok())[0].1;
    assert!(hit(&[("log", "2")]));
    // Other rules for the same files.
    assert!(hit(&[(
        ".dockerignore",
        "l*g\nDockerfile\n.dockerignore\n"
    )]));
    assert!(!hit(&[(".dockerignore", "Dockerfile\n.dockerignore\n")]));
    assert!(!hit(&[("log", "3")]));
}

#[test]
fn heredoc_misses_when_its_text_or_its_variables_change() {
    let kiln = Kiln::new();
    let hit = |value: &str, text: &str| {
        let dockerfile = format!("FROM scratch\nENV V={value}\nCOPY <<EOF /x\n$V {text}\nEOF\n");
        steps(&kiln.build(&dockerfile, &[]).ok())[0].1
    };
    assert!(!hit("1", "a"));
    assert!(hit("1", "a"));
    assert!(!hit("2", "a"));
    assert!(!hit("1", "b"));
}

#[test]
fn failed_step_leaves_no_record_and_those_before_it_hit() {
    let kiln = Kiln::new();
    let dockerfile =
        |command: &str| format!("FROM {}\nRUN echo first > /1\nRUN {command}\n", base());
    kiln.build(&dockerfile("echo second > /2 && exit 3"), &[])
        .fails();
    let again = kiln
        .build(&dockerfile("echo second > /2 && exit 3"), &[])
        .fails();
    assert_eq!(ran(&again), ["RUN echo second > /2 && exit 3"]);
    let mended = kiln.build(&dockerfile("echo second > /2"), &[]).ok();
    assert_eq!(ran(&mended), ["RUN echo second > /2"]);
}

#[test]
fn removed_image_can_still_be_built_from_the_cache() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nRUN echo x > /x\n", base());
    kiln.build(&dockerfile, &[]).ok();
    let first = id(&kiln);
    kiln.run(["rmi", "test"]).ok();
    kiln.build(&dockerfile, &[]).ok();
    assert_eq!(id(&kiln), first);
    assert_eq!(
        kiln.run(["run", "--rm", "test", "cat", "/x"]).ok().line(),
        "x"
    );
}
