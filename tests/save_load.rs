//! `save`, `load` and `import` in all forms that an archive has, against skopeo.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::{Kiln, Output, Registry, has_program, require, run};

fn tool<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Output {
    run(
        Command::new(program).args(arguments),
        Duration::from_secs(120),
    )
    .ok()
}

/// A store with two images that share a layer; one of them has two names.
fn two_images() -> Kiln {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    for (name, file) in [("one", "1"), ("two", "2")] {
        let dockerfile =
            format!("FROM {base}\nRUN echo {file} > /file\nCMD [\"cat\", \"/file\"]\n");
        let context = kiln
            .sandbox()
            .directory(name, &[("Dockerfile", &dockerfile)]);
        let context = context.to_str().unwrap();
        kiln.run(["build", "-q", "-t", name, context]).ok();
    }
    kiln.run(["tag", "one", "team/other:v2"]).ok();
    kiln
}

const NAMES: [&str; 3] = ["one:latest", "team/other:v2", "two:latest"];

/// Returns the ids of images by their names.
fn ids(kiln: &Kiln) -> Vec<(String, String)> {
    let format = "--format={{.Repository}}:{{.Tag}} {{.ID}}";
    let listed = kiln.run(["images", "--no-trunc", format]).ok().stdout();
    let rows = listed.lines().map(|line| line.split_once(' ').unwrap());
    let mut ids: Vec<_> = rows
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect();
    ids.retain(|(name, _)| NAMES.contains(&name.as_str()));
    ids.sort();
    ids
}

fn assert_runs(kiln: &Kiln) {
    for (name, output) in [("one", "1\n"), ("two", "2\n"), ("team/other:v2", "1\n")] {
        assert_eq!(kiln.run(["run", name]).ok().stdout(), output);
    }
}

#[test]
fn several_images_come_back_from_every_format_by_file_and_by_pipe() {
    let kiln = two_images();
    let expected = ids(&kiln);
    assert_eq!(expected.len(), 3);
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let place = kiln.sandbox().join(format);
        let place = place.to_str().unwrap();
        let save = ["save", "--format", format];
        let to_file = save.into_iter().chain(["-o", place]).chain(NAMES);
        kiln.run(to_file).ok();
        let other = Kiln::new();
        let loaded = other.run(["load", "-q", "-i", place]).ok().stdout();
        let lines: Vec<String> = NAMES.iter().map(|n| format!("Loaded image: {n}")).collect();
        let mut found: Vec<&str> = loaded.lines().collect();
        found.sort_unstable();
        assert_eq!(found, lines, "{format}");
        assert_eq!(ids(&other), expected, "{format}");
        assert_runs(&other);

        if format == "oci-dir" {
            let output = kiln.run(save.into_iter().chain(NAMES)).fails();
            assert!(output.stderr().contains("-o"), "{output}");
            continue;
        }
        let piped = kiln.run(save.into_iter().chain(NAMES)).ok();
        assert_eq!(piped.stdout_bytes(), fs::read(place).unwrap());
        let other = Kiln::new();
        other.run_with_input(["load"], piped.stdout_bytes()).ok();
        assert_eq!(ids(&other), expected, "{format}");
    }
}

#[test]
fn compressed_archives_are_loaded_from_a_pipe() {
    let kiln = two_images();
    let expected = ids(&kiln);
    let plain = kiln.sandbox().join("plain.tar");
    kiln.run(["save", "-o", plain.to_str().unwrap()].iter().chain(&NAMES))
        .ok();
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        require!(has_program(program), "{program} is not installed");
        let output = tool(program, ["-c".as_ref(), plain.as_os_str()]);
        let other = Kiln::new();
        other.run_with_input(["load"], output.stdout_bytes()).ok();
        assert_eq!(ids(&other), expected, "{program}");
    }
}

/// Returns the names of the transports of skopeo, and what kiln takes of each.
fn by_skopeo(directory: &Path) -> Vec<(String, PathBuf)> {
    let at = |name: &str| directory.join(name);
    let tagged = |transport: &str, name: &str, tag: &str| {
        (
            format!("{transport}:{}:{tag}", at(name).display()),
            at(name),
        )
    };
    vec![
        tagged("docker-archive", "docker.tar", "one:latest"),
        tagged("oci-archive", "oci.tar", "one:latest"),
        tagged("oci", "layout", "one:latest"),
    ]
}

#[test]
fn what_skopeo_writes_in_every_format_is_loaded_and_what_kiln_saves_is_copied_into_each() {
    require!(has_program("skopeo"), "skopeo is not installed");
    let kiln = two_images();
    let expected = ids(&kiln);
    let directory = kiln.sandbox().directory("skopeo", &[]);
    for (format, transport) in [
        ("docker-archive", "docker-archive"),
        ("oci-archive", "oci-archive"),
        ("oci-dir", "oci"),
    ] {
        let own = kiln.sandbox().join(format!("own-{format}"));
        let own = own.to_str().unwrap();
        // Of several images in docker's format, the one that is meant is found by its name; in
        // a layout, by its tag, which is the same here.
        let (images, wanted) = match transport {
            "docker-archive" => (&["one", "two"][..], "one:latest"),
            _ => (&["one"][..], "latest"),
        };
        let save = ["save", "--format", format, "-o", own];
        kiln.run(save.iter().chain(images)).ok();
        let source = format!("{transport}:{own}:{wanted}");
        for (target, file) in by_skopeo(&directory) {
            let _ = fs::remove_file(&file);
            let _ = fs::remove_dir_all(&file);
            tool("skopeo", ["--insecure-policy", "copy", &source, &target]);
            let other = Kiln::new();
            let file = file.to_str().unwrap();
            let output = other.run(["load", "-q", "-i", file]).ok();
            let what = format!("{source} to {target}: {output}");
            assert_eq!(output.stdout(), "Loaded image: one:latest\n", "{what}");
            // From one family of formats to the other, skopeo writes the config anew.
            if transport.starts_with("oci") == target.starts_with("oci") {
                assert_eq!(ids(&other), expected[..1], "{what}");
            }
            assert_eq!(other.run(["run", "one"]).ok().stdout(), "1\n");
        }
    }
}

#[test]
fn root_file_system_is_imported_from_a_file_and_from_a_pipe() {
    let kiln = two_images();
    let tree = kiln.sandbox().join("tree.tar");
    let out = format!("type=tar,dest={}", tree.display());
    let context = kiln.sandbox().join("one");
    kiln.run(["build", "-q", "-o", &out, context.to_str().unwrap()])
        .ok();
    let bytes = fs::read(&tree).unwrap();
    let other = Kiln::new();
    let change = "CMD [\"cat\", \"/file\"]";
    let tree = tree.to_str().unwrap();
    let id = other
        .run(["import", "-c", change, tree, "file"])
        .ok()
        .line();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(other.run(["run", "file"]).ok().stdout(), "1\n");
    other
        .run_with_input(["import", "-c", change, "-", "pipe:v1"], &bytes)
        .ok();
    assert_eq!(other.run(["run", "pipe:v1"]).ok().stdout(), "1\n");
    let nameless = other.run_with_input(["import", "-"], &bytes).ok().line();
    let files = other.run(["run", &nameless, "cat", "/file"]).ok();
    assert_eq!(files.stdout(), "1\n");
}
