//! `fsck`: what it finds, what it says, and that what it takes away comes back.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::{FaultyRegistry, Kiln, Output, Registry, names_in, tar_of};

fn dockerfile() -> String {
    let base = Registry::shared().busybox();
    format!("FROM {base}\nRUN echo one > /one\nRUN echo two > /two\n")
}

fn cached_steps(output: &Output) -> usize {
    output.stderr().matches("CACHED").count()
}

/// Returns the directory of the layer that has a file.
fn layer_with(kiln: &Kiln, file: &str) -> PathBuf {
    let layers = names_in(kiln, "layers").into_iter();
    let mut layers = layers.map(|id| kiln.store().join("layers").join(id));
    layers.find(|l| l.join("fs").join(file).exists()).unwrap()
}

fn write_within(kiln: &Kiln, path: &std::path::Path, text: &str) {
    let script = format!("printf '{text}' > {}", path.display());
    kiln.run(["unshare", "sh", "-c", &script]).ok();
}

/// Returns the path of something as fsck shows it.
fn shown(kiln: &Kiln, path: &std::path::Path) -> String {
    let path = path.strip_prefix(kiln.store()).unwrap();
    path.display().to_string()
}

const ADVICE: &str = "`kiln fsck --repair` removes what is damaged: pull or build it again then\n";

#[test]
fn whole_store_has_no_damage() {
    let kiln = Kiln::new();
    let empty = kiln.run(["fsck"]).ok();
    assert_eq!(
        empty.stdout(),
        "Verified 0 blobs, 0 layers, 0 images, 0 names, 0 records: no damage\n"
    );
    let base = Registry::shared().busybox();
    let all = format!(
        "{}COPY --chown=3:4 f /link/f\n\
         RUN mkdir /d && ln /one /d/hard && ln -s x /d/soft && rm -r /two && mkfifo /p; \
         chmod 4711 /one; touch -d @1 /d\n\
         RUN rm -r /d && mkdir /d && touch /d/new && truncate -s 1M /sparse\n\
         FROM {base}\nCOPY --link --from=0 / /all/\n",
        dockerfile()
    );
    kiln.build(&all, &[("f", "f")]).ok();
    let output = kiln.run(["fsck", "--repair"]).ok();
    assert!(
        output
            .stdout()
            .ends_with(" 2 names, 14 records: no damage\n"),
        "{output}"
    );
    assert_eq!(kiln.run(["fsck", "-q"]).ok().stdout(), "");
    assert_eq!(cached_steps(&kiln.build(&all, &[("f", "f")]).ok()), 8);
}

#[test]
fn pulled_distribution_has_no_damage() {
    let kiln = Kiln::new();
    kiln.run(["pull", &Registry::shared().debian()]).ok();
    let output = kiln.run(["fsck"]).ok().stdout();
    assert!(
        output.ends_with(" 1 layer, 1 image, 1 name, 1 record: no damage\n"),
        "{output}"
    );
}

#[test]
fn altered_file_of_a_layer_is_found_and_the_layer_built_again() {
    let kiln = Kiln::new();
    kiln.build(&dockerfile(), &[]).ok();
    let layer = layer_with(&kiln, "two");
    let record: Value =
        serde_json::from_slice(&fs::read(layer.join("layer.json")).unwrap()).unwrap();
    write_within(&kiln, &layer.join("fs/two"), "tvo\\n");
    let output = kiln.run(["fsck"]).fails();
    assert_eq!((output.code(), output.stderr()), (Some(1), String::new()));
    let stdout = output.stdout();
    let mut lines = stdout.lines();
    let line = lines.next().unwrap();
    let head = format!("{}: its diff id is sha256:", shown(&kiln, &layer));
    assert!(line.starts_with(&head), "{output}");
    let end = format!(", and should be {}", record["diff_id"].as_str().unwrap());
    assert!(line.ends_with(&end), "{output}");
    assert!(lines.next().unwrap().ends_with(": 1 damage"), "{output}");
    assert_eq!(lines.next(), Some(ADVICE.trim_end()));

    let output = kiln.run(["fsck", "--repair"]).ok().stdout();
    assert!(output.contains(&format!("{end} (removed)\n")), "{output}");
    assert!(
        output.contains("test:latest: 1 layer of its image is missing (removed)\n"),
        "{output}"
    );
    assert!(!output.contains(ADVICE), "{output}");
    assert!(kiln.run(["fsck"]).ok().stdout().ends_with(": no damage\n"));
    assert_eq!(cached_steps(&kiln.build(&dockerfile(), &[]).ok()), 2);
    let output = kiln.run(["run", "test", "cat", "/two"]).ok();
    assert_eq!(output.stdout(), "two\n");
}

#[test]
fn altered_tree_of_a_pulled_layer_is_extracted_again_and_its_name_stays() {
    let kiln = Kiln::new();
    let registry = FaultyRegistry::start();
    registry.image_of("one", &tar_of(&[("a", "content")]), json!({}));
    let name = registry.reference("one");
    kiln.run(["pull", &name]).ok();
    kiln.run(["fsck"]).ok();
    let layer = layer_with(&kiln, "a");
    write_within(&kiln, &layer.join("fs/a"), "cOntent");
    let output = kiln.run(["fsck", "-q"]).fails();
    let place = shown(&kiln, &layer);
    assert_eq!(
        output.stdout(),
        format!("{place}: it differs from the blob it came from\n")
    );
    let output = kiln.run(["fsck", "-q", "--repair"]).ok();
    let link = output.stdout();
    let link = link.lines().nth(1).unwrap();
    assert!(
        link.starts_with("diff/") && link.ends_with(": its layer is missing (removed)"),
        "{output}"
    );
    assert_eq!(kiln.run(["images"]).ok().stdout().lines().count(), 2);
    kiln.run(["fsck"]).ok();
    kiln.run(["pull", &name]).ok();
    assert_eq!(
        fs::read_to_string(layer_with(&kiln, "a").join("fs/a")).unwrap(),
        "content"
    );
}

#[test]
fn damaged_blobs_names_and_records_are_each_named() {
    let kiln = Kiln::new();
    kiln.build(&dockerfile(), &[]).ok();
    kiln.run(["tag", "test", "other"]).ok();
    let id = kiln
        .run(["images", "-q", "--no-trunc", "test"])
        .ok()
        .stdout();
    let hex = id.trim().strip_prefix("sha256:").unwrap().to_owned();
    let store = kiln.store();
    fs::write(store.join("blobs/sha256").join(&hex), "{}").unwrap();
    fs::write(store.join("blobs/sha256/odd"), "").unwrap();
    fs::write(store.join("refs/garbage"), "\0").unwrap();
    fs::create_dir(store.join("cache/odd")).unwrap();
    fs::write(store.join("cache/odd/nothing"), "]").unwrap();
    let form = &names_in(&kiln, "diff")[0];
    let link = format!("diff/{form}/{}", "2".repeat(64));
    symlink("../../layers/nowhere", store.join(&link)).unwrap();
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let expected = [
        format!("blobs/sha256/{hex}: its digest is {empty}"),
        "blobs/sha256/odd: its name is no digest".to_owned(),
        format!("{link}: its layer is missing"),
        format!("images/{hex}: its config is damaged"),
        "refs/docker.io%2flibrary%2fother%3alatest: docker.io/library/other:latest: its config is damaged".to_owned(),
        "refs/docker.io%2flibrary%2ftest%3alatest: docker.io/library/test:latest: its config is damaged".to_owned(),
        "refs/garbage: it can't be read: expected value at line 1 column 1".to_owned(),
        "cache/odd/nothing: it can't be read: expected value at line 1 column 1".to_owned(),
    ];
    let output = kiln.run(["fsck", "-q"]).fails();
    assert_eq!(output.stdout(), expected.join("\n") + "\n");
    let output = kiln.run(["fsck", "-q", "--repair"]).ok().stdout();
    assert_eq!(
        output.matches(" (removed)\n").count(),
        expected.len(),
        "{output}"
    );
    assert_eq!(kiln.run(["fsck", "-q"]).ok().stdout(), "");
    // The base image was whole, and so were the layers.
    assert_eq!(kiln.run(["images"]).ok().stdout().lines().count(), 2);
    assert_eq!(cached_steps(&kiln.build(&dockerfile(), &[]).ok()), 3);
}

#[test]
fn blob_that_is_recorded_for_another_layer_is_found() {
    let kiln = Kiln::new();
    let registry = FaultyRegistry::start();
    for (name, content) in [("one", "1"), ("two", "2")] {
        registry.image_of(name, &tar_of(&[("a", content)]), json!({}));
        kiln.run(["pull", &registry.reference(name)]).ok();
    }
    let records = names_in(&kiln, "compressed");
    let [one, two] = records.as_slice() else {
        panic!("{records:?}")
    };
    let directory = kiln.store().join("compressed");
    fs::copy(directory.join(one), directory.join(two)).unwrap();
    let output = kiln.run(["fsck", "-q"]).fails().stdout();
    let head = format!("compressed/{two}: the blob sha256:");
    assert!(output.starts_with(&head), "{output}");
    let line = output.lines().next().unwrap();
    assert!(line.ends_with(&format!(" holds sha256:{one}")), "{output}");
    kiln.run(["fsck", "--repair"]).ok();
    assert_eq!(names_in(&kiln, "compressed"), [one.as_str()]);
}

#[test]
fn cache_directory_without_its_tree_is_found_and_made_anew() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    let dockerfile = |n: u32| {
        format!("FROM {base}\nRUN --mount=type=cache,target=/c echo {n} >> /c/f; cat /c/f > /f\n")
    };
    kiln.build(&dockerfile(1), &[]).ok();
    assert!(kiln.run(["fsck"]).ok().stdout().ends_with(": no damage\n"));
    let form = kiln
        .store()
        .join("mounts")
        .join(&names_in(&kiln, "mounts")[0]);
    let slot = fs::read_dir(form).unwrap().next().unwrap().unwrap().path();
    kiln.run(["unshare", "rm", "-r", slot.join("fs").to_str().unwrap()])
        .ok();
    fs::write(slot.join("fs"), "").unwrap();
    let output = kiln.run(["fsck", "--repair"]).ok().stdout();
    let expected = format!("{}: its tree is missing (removed)\n", shown(&kiln, &slot));
    assert!(output.starts_with(&expected), "{output}");
    kiln.build(&dockerfile(2), &[]).ok();
    assert_eq!(kiln.run(["run", "test", "cat", "/f"]).ok().stdout(), "2\n");
}
