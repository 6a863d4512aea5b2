//! `--cache-to` and `--cache-from`: what a build did is known on another machine.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::{Kiln, Output, Page, Registry, Sandbox, WebServer, has_program, require, run};

fn base() -> String {
    Registry::shared().busybox()
}

fn to(cache: &Path, more: &str) -> String {
    format!("--cache-to=type=local,dest={}{more}", cache.display())
}

fn from(cache: &Path) -> String {
    format!("--cache-from=type=local,src={}", cache.display())
}

/// Runs a program of the system.
fn tool<S: AsRef<std::ffi::OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Output {
    run(Command::new(name).args(arguments), Duration::from_secs(60)).ok()
}

/// Returns the steps that ran, by their instructions.
fn ran(output: &Output) -> Vec<String> {
    ran_in(&output.stderr())
}

fn ran_in(log: &str) -> Vec<String> {
    let mut ran = Vec::new();
    for line in log.lines() {
        let Some((id, name)) = line.split_once(" [").filter(|(id, _)| id.starts_with('#')) else {
            continue;
        };
        let name = name.split_once("] ").unwrap().1;
        if !name.starts_with("FROM") && !log.contains(&format!("{id} CACHED")) {
            ran.push(name.to_owned());
        }
    }
    ran
}

/// Returns the id of the last build.
fn id(kiln: &Kiln) -> String {
    kiln.run(["images", "--no-trunc", "-q", "test"]).ok().line()
}

/// Two RUNs whose results are others each time, and a COPY.
fn two_runs() -> String {
    let base = base();
    format!(
        "FROM {base}\nRUN cat /proc/sys/kernel/random/uuid > /one\nCOPY f /f\nRUN cat /proc/sys/kernel/random/uuid > /two\n"
    )
}

const FILES: &[(&str, &str)] = &[("f", "content")];

/// Writes a cache of [`two_runs`], and returns the id of the image.
fn cache_of_two_runs(cache: &Path) -> String {
    let kiln = Kiln::new();
    kiln.build_with(&[&to(cache, "")], &two_runs(), FILES).ok();
    id(&kiln)
}

fn blobs(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("blobs/sha256")).unwrap();
    let mut blobs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    blobs.sort();
    blobs
}

#[test]
fn every_step_is_known_on_another_machine_and_gives_the_same_image() {
    let server = WebServer::start();
    server.put("/u", Page::new("from afar"));
    let base = base();
    let lines = [
        &format!("FROM {base} AS build"),
        "RUN --mount=type=cache,target=/c cat /proc/sys/kernel/random/uuid > /built",
        &format!("FROM {base}"),
        "COPY f /f",
        &format!("ADD {} /u", server.url("/u")),
        "COPY --link f /linked/f",
        "WORKDIR /w/x",
        "COPY <<end /doc",
        "text",
        "end",
        "RUN cat /proc/sys/kernel/random/uuid > /now; mkdir -m 1777 /sticky; ln /now /again; ln -s now /l",
        "USER app",
        "COPY --from=build /built /b",
        "USER root",
        "RUN --mount=type=bind,from=build,target=/m cat /m/built > /copied",
        "CMD [\"x\"]",
        "",
    ];
    let dockerfile = lines.join("\n");
    let here = Kiln::new();
    let cache = here.sandbox().join("cache");
    let first = here
        .build_with(&[&to(&cache, ",mode=max")], &dockerfile, FILES)
        .ok();
    assert!(first.stderr().contains("exporting cache to"), "{first}");
    assert_eq!(ran(&first).len(), 9, "{first}");

    // As a CI carries it: owners and times are others then.
    let there = Kiln::new();
    let carried = there.sandbox().join("carried");
    tool(
        "cp",
        ["-r".as_ref(), cache.as_os_str(), carried.as_os_str()],
    );
    let second = there
        .build_with(&[&from(&carried)], &dockerfile, FILES)
        .ok();
    assert_eq!(ran(&second), [""; 0], "{second}");
    assert!(!second.stderr().contains("warning"), "{second}");
    assert_eq!(id(&there), id(&here));
    there.run(["fsck"]).ok();
    let shown = |kiln: &Kiln| {
        let files = ["run", "test", "cat", "/b", "/doc", "/copied", "/l"];
        kiln.run(files).ok().stdout()
    };
    assert_eq!(shown(&there), shown(&here));

    // What was brought is in the store from now on, and a cache of it is as good as the first.
    let further = there.sandbox().join("further");
    let third = there
        .build_with(&[&to(&further, ",mode=max")], &dockerfile, FILES)
        .ok();
    assert_eq!(ran(&third), [""; 0], "{third}");
    let last = Kiln::new();
    let fourth = last.build_with(&[&from(&further)], &dockerfile, FILES).ok();
    assert_eq!(ran(&fourth), [""; 0], "{fourth}");
    assert_eq!(id(&last), id(&here));
}

#[test]
fn changed_file_runs_what_depends_on_it() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    cache_of_two_runs(&cache);
    let kiln = Kiln::new();
    let output = kiln.build_with(&[&from(&cache)], &two_runs(), &[("f", "other")]);
    assert_eq!(
        ran(&output.ok()),
        ["COPY f /f", "RUN cat /proc/sys/kernel/random/uuid > /two"]
    );
}

#[test]
fn step_with_the_same_result_ends_the_work_on_another_machine_too() {
    let dockerfile = |way: &str| {
        let base = base();
        format!(
            "FROM {base}\nRUN echo same > /f; : {way}\nRUN cat /proc/sys/kernel/random/uuid > /after\n"
        )
    };
    let here = Kiln::new();
    let cache = here.sandbox().join("cache");
    here.build_with(&[&to(&cache, "")], &dockerfile("one"), &[])
        .ok();
    let there = Kiln::new();
    let output = there.build_with(&[&from(&cache)], &dockerfile("other"), &[]);
    assert_eq!(ran(&output.ok()), ["RUN echo same > /f; : other"]);
}

#[test]
fn min_keeps_the_steps_of_the_image_and_max_those_of_all_stages() {
    let base = base();
    let dockerfile = format!(
        "FROM {base} AS build\nRUN cat /proc/sys/kernel/random/uuid > /built\nFROM {base}\nRUN cat /proc/sys/kernel/random/uuid > /own\n\
         COPY --from=build /built /b\n",
    );
    let expected_of = |mode: &str| match mode {
        ",mode=max" => BTreeSet::new(),
        _ => [
            "COPY --from=build /built /b",
            "RUN cat /proc/sys/kernel/random/uuid > /built",
        ]
        .into(),
    };
    for mode in ["", ",mode=min", ",mode=max"] {
        let here = Kiln::new();
        let cache = here.sandbox().join("cache");
        here.build_with(&[&to(&cache, mode)], &dockerfile, &[]).ok();
        let there = Kiln::new();
        let output = there.build_with(&[&from(&cache)], &dockerfile, &[]).ok();
        let found = ran(&output);
        let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, expected_of(mode), "{mode}");
    }
}

#[test]
fn cache_is_plain_files_of_the_user_in_an_oci_layout() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    cache_of_two_runs(&cache);
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let mut pending = vec![cache.clone()];
    let mut files = 0;
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (uid.as_raw(), gid.as_raw()));
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else {
            assert!(meta.is_file());
            files += 1;
        }
    }
    // The layout, its index, the manifest, the records, and a layer for each step: nothing of
    // the base image.
    assert_eq!(files, 4 + 3);
    require!(has_program("skopeo"), "skopeo is not installed");
    let name = format!("oci:{}:kiln-cache", cache.display());
    let raw = tool("skopeo", ["inspect", "--raw", &name]);
    assert_eq!(raw.stdout().matches("tar+gzip").count(), 3, "{raw}");
    let copy = format!("oci:{}:copy", sandbox.join("copy").display());
    tool("skopeo", ["--insecure-policy", "copy", &name, &copy]);
    fs::remove_dir_all(&cache).unwrap();
}

#[test]
fn second_build_joins_what_is_there() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    let dockerfile = |text: &str| {
        format!(
            "FROM {}\nRUN cat /proc/sys/kernel/random/uuid > /{text}\n",
            base()
        )
    };
    for text in ["a", "b"] {
        Kiln::new()
            .build_with(&[&to(&cache, "")], &dockerfile(text), &[])
            .ok();
    }
    let kiln = Kiln::new();
    for text in ["a", "b"] {
        let output = kiln.build_with(&[&from(&cache)], &dockerfile(text), &[]);
        assert_eq!(ran(&output.ok()), [""; 0], "{text}");
    }
    // Where a build has nothing new, nothing is added.
    let before = blobs(&cache).len();
    kiln.build_with(&[&to(&cache, "")], &dockerfile("a"), &[])
        .ok();
    assert_eq!(blobs(&cache).len(), before);
}

#[test]
fn size_is_kept_by_dropping_what_was_used_longest_ago() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    let dockerfile = |text: &str| {
        let base = base();
        format!("FROM {base}\nRUN echo {text}; head -c 100000 /dev/urandom > /f\n")
    };
    let kiln = Kiln::new();
    kiln.build_with(&[&to(&cache, "")], &dockerfile("old"), &[])
        .ok();
    // The records have seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let options = [&to(&cache, "")[..], "--cache-max-size=150kB"];
    let output = kiln.build_with(&options, &dockerfile("new"), &[]).ok();
    assert!(
        output.stderr().contains("1 layer, 1 dropped for its size"),
        "{output}"
    );
    assert_eq!(blobs(&cache).len(), 3);
    let fresh = Kiln::new();
    let new = fresh.build_with(&[&from(&cache)], &dockerfile("new"), &[]);
    assert_eq!(ran(&new.ok()), [""; 0]);
    let old = fresh.build_with(&[&from(&cache)], &dockerfile("old"), &[]);
    assert_eq!(ran(&old.ok()).len(), 1);
}

#[test]
fn first_build_finds_nothing_and_says_so_once() {
    let kiln = Kiln::new();
    let cache = kiln.sandbox().join("none");
    let output = kiln.build_with(&[&from(&cache)], &two_runs(), FILES).ok();
    let text = format!("there is no cache in {} yet", cache.display());
    assert_eq!(output.stderr().matches(&text).count(), 1, "{output}");
    assert!(!output.stderr().contains("warning"), "{output}");
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A way to damage a file, and what it is called.
type Harm = (&'static str, fn(&Path));

const DAMAGES: [Harm; 8] = [
    ("truncated", |path| {
        overwrite(path, |bytes| bytes.truncate(bytes.len() / 2));
    }),
    ("emptied", |path| fs::write(path, "").unwrap()),
    ("flipped", |path| {
        overwrite(path, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        });
    }),
    ("grown", |path| overwrite(path, |bytes| bytes.push(b'x'))),
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("link", |path| {
        fs::remove_file(path).unwrap();
        symlink("/etc/hostname", path).unwrap();
    }),
    ("directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
    ("pipe", |path| {
        fs::remove_file(path).unwrap();
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }),
];

#[test]
fn damaged_cache_is_a_warning_and_is_mended_by_the_build() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    let whole = sandbox.join("whole");
    let expected = cache_of_two_runs(&whole);
    let mut names: Vec<PathBuf> = blobs(&whole);
    names.push(whole.join("index.json"));
    names.push(whole.join("oci-layout"));
    assert_eq!(names.len(), 7);
    // Each kind of damage meets a third of the files: all with all takes too long.
    for (number, (name, damage)) in DAMAGES.into_iter().enumerate() {
        for file in names.iter().skip(number % 3).step_by(3) {
            let _ = fs::remove_dir_all(&cache);
            tool("cp", ["-r".as_ref(), whole.as_os_str(), cache.as_os_str()]);
            let file = cache.join(file.strip_prefix(&whole).unwrap());
            damage(&file);
            let what = format!("{name} {}", file.display());
            let kiln = Kiln::new();
            let options = [&from(&cache)[..], &to(&cache, "")];
            let output = kiln.build_with(&options, &two_runs(), FILES).ok();
            // Nothing of that one is needed.
            if file.ends_with("oci-layout") {
                assert_eq!(id(&kiln), expected, "{what}");
            } else {
                let told = output.stderr().contains("warning: the cache in");
                assert!(told, "{what}: {output}");
                assert!(!ran(&output).is_empty(), "{what}: {output}");
            }
            kiln.run(["run", "test", "cat", "/one", "/two", "/f"]).ok();
            kiln.run(["fsck"]).ok();
            // What was written is whole again.
            let other = Kiln::new();
            let again = other.build_with(&[&from(&cache)], &two_runs(), FILES).ok();
            assert_eq!(ran(&again), [""; 0], "{what}: {again}");
            assert_eq!(id(&other), id(&kiln), "{what}");
        }
    }
}

/// Another layer under the name of the right one is what a digest tells.
#[test]
fn layers_that_changed_places_are_told() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    cache_of_two_runs(&cache);
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let is_layer = |path: &&PathBuf| !text(path).starts_with('{');
    let blobs = blobs(&cache);
    let layers: Vec<&PathBuf> = blobs.iter().filter(is_layer).collect();
    let [a, b, _] = layers.as_slice() else {
        panic!("{blobs:?}")
    };
    let bytes = fs::read(a).unwrap();
    fs::copy(b, a).unwrap();
    fs::write(b, bytes).unwrap();
    let kiln = Kiln::new();
    let output = kiln.build_with(&[&from(&cache)], &two_runs(), FILES).ok();
    assert!(
        output.stderr().contains("warning: the cache in"),
        "{output}"
    );
    let shown = kiln.run(["run", "test", "cat", "/f"]).ok();
    assert_eq!(shown.stdout(), "content");
}

/// Whoever can write the records can name other blobs, with their right digests: then the diff
/// ids are wrong.
#[test]
fn records_that_name_another_layer_are_told() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    cache_of_two_runs(&cache);
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let digest = |text: &str| {
        let path = sandbox.join("hashed");
        fs::write(&path, text).unwrap();
        let sum = tool("sha256sum", [&path]).stdout();
        sum.split(' ').next().unwrap().to_owned()
    };
    let replace = |old: &Path, text: &str| -> (String, String) {
        let new = digest(text);
        fs::remove_file(old).unwrap();
        fs::write(old.with_file_name(&new), text).unwrap();
        let name = old.file_name().unwrap().to_str().unwrap();
        (name.to_owned(), new)
    };
    let find = |part: &str| {
        let all = blobs(&cache);
        let found = all.into_iter().find(|path| read(path).contains(part));
        found.unwrap()
    };
    let records = find("\"keys\"");
    let text = read(&records);
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (a, b) = (
        document["layers"][0]["blob"].clone(),
        document["layers"][2]["blob"].clone(),
    );
    document["layers"][0]["blob"] = b;
    document["layers"][2]["blob"] = a;
    let new_text = document.to_string();
    let (old, new) = replace(&records, &new_text);
    let manifest = find("\"schemaVersion\"");
    let text = read(&manifest)
        .replace(&old, &new)
        .replace(&format!("{}", text.len()), &format!("{}", new_text.len()));
    let (old, new) = replace(&manifest, &text);
    overwrite(&cache.join("index.json"), |bytes| {
        let index = String::from_utf8(bytes.clone()).unwrap();
        *bytes = index.replace(&old, &new).into_bytes();
    });
    let kiln = Kiln::new();
    let output = kiln.build_with(&[&from(&cache)], &two_runs(), FILES).ok();
    assert!(
        output.stderr().contains("its content has the diff id"),
        "{output}"
    );
    kiln.run(["run", "test", "cat", "/one", "/two"]).ok();
    kiln.run(["fsck"]).ok();
}

#[test]
fn foreign_directories_are_left_alone() {
    let kiln = Kiln::new();
    let dockerfile = two_runs();
    kiln.build(&dockerfile, FILES).ok();
    let images = kiln.sandbox().join("images");
    let layout = images.to_str().unwrap();
    kiln.run(["save", "--format=oci-dir", "-o", layout, "test"])
        .ok();
    let own = kiln.sandbox().directory("own", &[("precious", "x")]);
    let file = kiln.sandbox().join("file");
    fs::write(&file, "x").unwrap();
    for (path, why, hint) in [
        (
            &images,
            "it holds images or a cache of another builder".to_owned(),
            "give the cache a directory of its own",
        ),
        (
            &own,
            format!("{} is not empty and no OCI layout", own.display()),
            "name a new or an empty directory",
        ),
    ] {
        let before = tool("find", [path]).stdout();
        let output = kiln.build_with(&[&to(path, "")], &dockerfile, FILES).ok();
        let shown = path.display();
        for expected in [
            format!("warning: no cache was written to {shown}: {why}\n"),
            format!("hint: {hint}\n"),
        ] {
            assert!(output.stderr().contains(&expected), "{output}\n{expected}");
        }
        assert_eq!(tool("find", [path]).stdout(), before);
    }
    for (path, why) in [
        (&images, "it is an OCI layout, and holds no cache of kiln"),
        (&file, "it is no directory"),
    ] {
        let fresh = Kiln::new();
        let output = fresh.build_with(&[&from(path)], &dockerfile, FILES).ok();
        let shown = path.display();
        let expected = format!("warning: the cache in {shown} is not used: {why}\n");
        assert!(output.stderr().contains(&expected), "{output}");
    }
}

#[test]
fn builds_that_write_one_directory_at_once_don_t_lose_each_other_s_steps() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    let dockerfile = |text: &str| {
        format!(
            "FROM {}\nRUN cat /proc/sys/kernel/random/uuid > /{text}\n",
            base()
        )
    };
    let names = ["a", "b", "c", "d"];
    base();
    std::thread::scope(|scope| {
        for name in names {
            let (cache, dockerfile) = (&cache, dockerfile(name));
            scope.spawn(move || {
                let kiln = Kiln::new();
                let options = [&from(cache)[..], &to(cache, "")];
                for _ in 0..3 {
                    let output = kiln.build_with(&options, &dockerfile, &[]).ok();
                    assert!(!output.stderr().contains("warning"), "{output}");
                }
            });
        }
    });
    let kiln = Kiln::new();
    for name in names {
        let output = kiln.build_with(&[&from(&cache)], &dockerfile(name), &[]);
        assert_eq!(ran(&output.ok()), [""; 0], "{name}");
    }
}

#[test]
fn build_that_is_killed_leaves_a_cache_that_the_next_one_mends() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    cache_of_two_runs(&cache);
    let dockerfile = format!(
        "FROM {}\nRUN head -c 3000000 /dev/urandom > /f\nRUN cat /proc/sys/kernel/random/uuid > /g\n",
        base()
    );
    let kiln = Kiln::new();
    kiln.build(&dockerfile, &[]).ok();
    let context = kiln.sandbox().join("context");
    let context = context.to_str().unwrap();
    for milliseconds in (0..120).step_by(8) {
        let limit = format!("0.{milliseconds:03}");
        let mut command = Command::new("timeout");
        let own = kiln.command(["build", "-t", "test", &to(&cache, ""), context]);
        command
            .env_clear()
            .envs(own.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .args(["-s", "KILL", &limit])
            .arg(own.get_program())
            .args(own.get_args());
        // It ends of itself now and then.
        let _ = run(&mut command, Duration::from_secs(60));
        // What was there before counts all the time.
        let other = Kiln::new();
        let output = other.build_with(&[&from(&cache)], &two_runs(), FILES).ok();
        assert_eq!(ran(&output), [""; 0], "{limit}");
        assert!(!output.stderr().contains("warning"), "{output}");
    }
    let output = kiln.build_with(&[&to(&cache, "")], &dockerfile, &[]).ok();
    assert!(output.stderr().contains("5 layers"), "{output}");
    // The manifest, the records, and the layers.
    assert_eq!(blobs(&cache).len(), 2 + 5);
    let other = Kiln::new();
    let output = other.build_with(&[&from(&cache)], &dockerfile, &[]).ok();
    assert_eq!(ran(&output), [""; 0]);
}

#[test]
fn read_only_cache_is_read_and_a_place_that_can_t_be_written_is_a_warning() {
    let sandbox = Sandbox::new();
    let cache = sandbox.join("cache");
    let expected = cache_of_two_runs(&cache);
    let chmod = |mode: &str| {
        tool("chmod", ["-R".as_ref(), mode.as_ref(), cache.as_os_str()]);
    };
    chmod("a-w");
    let kiln = Kiln::new();
    let nowhere = Path::new("/proc/nowhere/cache");
    let options = [&from(&cache)[..], &to(nowhere, "")];
    let output = kiln.build_with(&options, &two_runs(), FILES).ok();
    chmod("u+w");
    assert_eq!(ran(&output), [""; 0]);
    assert_eq!(id(&kiln), expected);
    let told = "warning: no cache was written to /proc/nowhere/cache: \
                cannot create /proc/nowhere/cache: No such file or directory (os error 2)\n";
    assert!(output.stderr().contains(told), "{output}");
}

#[test]
fn other_kinds_of_caches_have_no_effect() {
    let kiln = Kiln::new();
    let options = [
        "--cache-from=type=gha",
        "--cache-to",
        "type=registry,ref=x/y",
    ];
    let output = kiln.build_with(&options, "FROM scratch\n", &[]).ok();
    for line in [
        "--cache-from type=gha has no effect: kiln keeps caches in its store and in directories, \
         --cache-from type=local,src=DIR",
        "--cache-to type=registry has no effect: kiln keeps caches in its store and in \
         directories, --cache-to type=local,dest=DIR",
    ] {
        assert!(output.stderr().contains(line), "{output}");
    }
}

#[test]
fn layers_are_compressed_as_it_is_asked_for() {
    let here = Kiln::new();
    let cache = here.sandbox().join("cache");
    here.build_with(&[&to(&cache, ",compression=zstd")], &two_runs(), FILES)
        .ok();
    let is_zstd = |path: &&PathBuf| {
        fs::read(path)
            .unwrap()
            .starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
    };
    assert_eq!(blobs(&cache).iter().filter(is_zstd).count(), 3);
    let there = Kiln::new();
    let output = there.build_with(&[&from(&cache)], &two_runs(), FILES).ok();
    assert_eq!(ran(&output), [""; 0], "{output}");
    assert_eq!(id(&there), id(&here));
}

/// Each platform is built by itself, one after the other, and all of them go into one cache.
#[test]
fn cache_of_a_build_for_several_platforms_has_the_steps_of_all() {
    let sandbox = Sandbox::new();
    let cache = sandbox.path().join("cache");
    let base = base();
    let dockerfile = format!(
        "FROM --platform=$BUILDPLATFORM {base} AS tools\n\
         ARG TARGETARCH\n\
         RUN echo $TARGETARCH > /out && cat /proc/sys/kernel/random/uuid >> /out\n\
         FROM scratch\n\
         COPY f /f\n\
         COPY --from=tools /out /out\n"
    );
    let platforms = "--platform=linux/amd64,linux/arm64";
    let build = |kiln: &Kiln, more: &[&str]| {
        let output = kiln.build_with(&[&[platforms], more].concat(), &dockerfile, FILES);
        output.ok()
    };
    // The numbers of steps begin again with each platform.
    let ran = |output: &Output| -> Vec<String> {
        let log = output.stderr();
        log.split("building for ").flat_map(ran_in).collect()
    };
    let first = build(&Kiln::new(), &[&to(&cache, ",mode=max")]);
    // The COPY is the same for both.
    assert_eq!(ran(&first).len(), 5, "{first}");

    let fresh = Kiln::new();
    let layout = |name: &str| sandbox.path().join(name);
    let again = build(&fresh, &[&from(&cache)]);
    assert_eq!(ran(&again), [""; 0], "{again}");
    // What came of it is the same image for each, down to what was random.
    let third = Kiln::new();
    for (name, kiln) in [("one", &fresh), ("two", &third)] {
        let output = format!(
            "--output=type=oci,tar=false,dest={}",
            layout(name).display()
        );
        let output = build(kiln, &[&from(&cache), &output]);
        assert_eq!(ran(&output), [""; 0], "{output}");
    }
    let digests = |name: &str| -> Vec<_> {
        let blobs = blobs(&layout(name)).into_iter();
        blobs
            .map(|path| path.file_name().unwrap().to_owned())
            .collect()
    };
    assert_eq!(digests("one"), digests("two"));
}
