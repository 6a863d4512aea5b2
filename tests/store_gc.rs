//! What a collection takes away, and a store in which something is damaged.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use support::{Kiln, Output, Registry, assert_swept, names_in};

fn dockerfile() -> String {
    let base = Registry::shared().busybox();
    format!("FROM {base}\nRUN echo one > /one\nRUN echo two > /two\n")
}

fn build(kiln: &Kiln) -> Output {
    kiln.build(&dockerfile(), &[]).ok()
}

fn cached_steps(output: &Output) -> usize {
    output.stderr().matches("CACHED").count()
}

/// Returns the trees of a store with their records.
fn layers(kiln: &Kiln) -> Vec<(PathBuf, Value)> {
    let directory = kiln.store().join("layers");
    let layers = names_in(kiln, "layers").into_iter().filter_map(|id| {
        let layer = directory.join(id);
        let record = fs::read(layer.join("layer.json")).ok()?;
        Some((layer, serde_json::from_slice(&record).unwrap()))
    });
    layers.collect()
}

/// Returns the one directory below `diff/`: that of the id map in use.
fn form(kiln: &Kiln) -> PathBuf {
    let forms = names_in(kiln, "diff");
    assert_eq!(forms.len(), 1, "{forms:?}");
    kiln.store().join("diff").join(&forms[0])
}

#[track_caller]
fn assert_works(kiln: &Kiln) {
    let output = kiln.run(["run", "test", "cat", "/one", "/two"]).ok();
    assert_eq!(output.stdout(), "one\ntwo\n");
}

#[test]
fn rmi_keeps_what_the_cache_or_another_image_needs_and_removes_the_rest() {
    let kiln = Kiln::new();
    build(&kiln);
    let all = names_in(&kiln, "layers");
    assert_eq!(all.len(), 3);
    kiln.run(["rmi", "test"]).ok();
    // The records of the steps still lead to their layers.
    assert_eq!(names_in(&kiln, "layers"), all);
    assert_eq!(cached_steps(&build(&kiln)), 3);
    kiln.run(["tag", "test", "other"]).ok();

    for record in names_in(&kiln, "cache") {
        fs::remove_dir_all(kiln.store().join("cache").join(record)).unwrap();
    }
    kiln.run(["rmi", "test"]).ok();
    assert_eq!(names_in(&kiln, "layers"), all);
    kiln.run(["rmi", &Registry::shared().busybox()]).ok();
    assert_eq!(names_in(&kiln, "layers"), all);
    kiln.run(["run", "other", "cat", "/two"]).ok();

    kiln.run(["rmi", "other"]).ok();
    for directory in ["layers", "images", "refs", "blobs/sha256"] {
        let names = names_in(&kiln, directory);
        assert!(names.is_empty(), "{directory}: {names:?}");
    }
    assert!(fs::read_dir(form(&kiln)).unwrap().next().is_none());
    assert_swept(&kiln);
    build(&kiln);
    assert_works(&kiln);
}

#[test]
fn garbage_in_the_store_breaks_no_command() {
    let kiln = Kiln::new();
    build(&kiln);
    let store = kiln.store();
    let hex = "0".repeat(64);
    for (name, content) in [
        ("refs/empty", ""),
        ("refs/garbage", "\0\u{1}{"),
        ("images/not-a-digest", "{}"),
        (&format!("images/{hex}"), "{}"),
        (&format!("blobs/sha256/{hex}"), "cut o"),
        ("blobs/sha256/odd", ""),
        ("cache/garbage", "]"),
        ("layers/file", ""),
        ("tmp/file", ""),
        ("trash/file", ""),
        ("compressed/garbage", "nonsense"),
    ] {
        fs::write(store.join(name), content).unwrap();
    }
    for name in [
        "refs/dir",
        "images/dir",
        "cache/dir",
        "layers/dir/fs",
        "tmp/dead/x",
        "trash/t/x",
    ] {
        fs::create_dir_all(store.join(name)).unwrap();
    }
    fs::create_dir(store.join(format!("blobs/sha256/{}", "1".repeat(64)))).unwrap();
    fs::write(store.join(format!("images/{}", "1".repeat(64))), "{}").unwrap();
    symlink("nowhere", form(&kiln).join("2".repeat(64))).unwrap();

    let images = kiln.run(["images"]).ok();
    assert_eq!(images.stdout().lines().count(), 3, "{images}");
    kiln.run(["history", "test"]).ok();
    kiln.run(["inspect", "test"]).ok();
    kiln.run(["tag", "test", "other"]).ok();
    assert_eq!(cached_steps(&build(&kiln)), 3);
    assert_works(&kiln);
    kiln.run(["rmi", "other"]).ok();
    assert_works(&kiln);
    assert_swept(&kiln);
    assert_eq!(names_in(&kiln, "layers").len(), 3);
}

#[test]
fn damaged_records_and_trees_are_made_anew() {
    let damages: [fn(&Path); 5] = [
        |layer| fs::write(layer.join("layer.json"), "").unwrap(),
        |layer| fs::write(layer.join("layer.json"), "{\"diff_id\": 3").unwrap(),
        |layer| fs::remove_file(layer.join("layer.json")).unwrap(),
        |layer| fs::rename(layer.join("fs"), layer.join("gone")).unwrap(),
        |layer| fs::rename(layer, layer.with_extension("gone")).unwrap(),
    ];
    for damage in damages {
        let kiln = Kiln::new();
        build(&kiln);
        let layers = layers(&kiln);
        // From the top: those below stay what they are.
        for file in ["two", "one", "bin/sh"] {
            let holds = |(layer, _): &&(PathBuf, Value)| {
                fs::symlink_metadata(layer.join("fs").join(file)).is_ok()
            };
            let (layer, _) = layers.iter().find(holds).unwrap();
            damage(layer);
            let output = build(&kiln);
            assert!(cached_steps(&output) < 3, "{file}: {output}");
            assert_works(&kiln);
            assert_eq!(cached_steps(&build(&kiln)), 3);
        }
        assert_swept(&kiln);
    }
}

#[test]
fn damaged_name_is_mended_by_a_pull() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    kiln.run(["pull", &base]).ok();
    let name = names_in(&kiln, "refs").remove(0);
    fs::write(kiln.store().join("refs").join(name), "").unwrap();
    kiln.run(["inspect", &base])
        .fails_with(&format!("error: no such image: {base}\n"));
    kiln.run(["pull", &base]).ok();
    kiln.run(["run", &base, "true"]).ok();
}

#[test]
fn truncated_config_and_layer_blob_are_fetched_again() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    kiln.run(["pull", &base]).ok();
    for (layer, _) in layers(&kiln) {
        fs::write(layer.join("layer.json"), "").unwrap();
    }
    for name in names_in(&kiln, "blobs/sha256") {
        let path = kiln.store().join("blobs/sha256").join(name);
        let size = fs::metadata(&path).unwrap().len();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(size / 2).unwrap();
    }
    kiln.run(["images"]).ok();
    kiln.run(["pull", &base]).ok();
    kiln.run(["run", &base, "true"]).ok();
    // And one whose bytes are others, of the same size.
    for (layer, _) in layers(&kiln) {
        fs::write(layer.join("layer.json"), "").unwrap();
    }
    for name in names_in(&kiln, "blobs/sha256") {
        let path = kiln.store().join("blobs/sha256").join(name);
        let size = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, vec![0; size]).unwrap();
    }
    kiln.run(["pull", &base]).ok();
    kiln.run(["run", &base, "true"]).ok();
}

#[test]
fn trees_of_another_id_map_are_not_read() {
    let kiln = Kiln::new();
    build(&kiln);
    let ours = form(&kiln);
    for kind in ["diff", "chain"] {
        let directory = kiln.store().join(kind);
        let name = ours.file_name().unwrap();
        fs::rename(directory.join(name), directory.join("shifted-000000000000")).unwrap();
    }
    // What only the other map's trees hold would give it away.
    for (layer, _) in layers(&kiln) {
        fs::rename(layer.join("fs"), layer.join("other")).unwrap();
    }
    kiln.run(["images"]).ok();
    let output = build(&kiln);
    assert_eq!(cached_steps(&output), 0, "{output}");
    assert_works(&kiln);
    assert_eq!(names_in(&kiln, "layers").len(), 6);
    assert_eq!(cached_steps(&build(&kiln)), 3);
}

#[test]
fn layers_that_another_boot_did_not_sync_are_made_anew() {
    let kiln = Kiln::new();
    build(&kiln);
    let mut synced = layers(&kiln);
    for (layer, record) in &mut synced {
        assert!(layer.join("synced").exists(), "{}", layer.display());
        record["boot_id"] = "another".into();
        fs::write(layer.join("layer.json"), record.to_string()).unwrap();
    }
    assert_eq!(cached_steps(&build(&kiln)), 3);
    let (last, _) = synced
        .iter()
        .find(|(layer, _)| layer.join("fs/two").exists())
        .unwrap();
    fs::remove_file(last.join("synced")).unwrap();
    fs::write(last.join("fs/two"), "lost").ok();
    assert_eq!(cached_steps(&build(&kiln)), 2);
    assert_works(&kiln);
    assert!(!last.exists());
    assert_swept(&kiln);
}

#[test]
fn build_syncs_what_it_made_and_one_that_made_nothing_does_not() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    let dockerfile = format!(
        "FROM {base} AS first\nRUN echo one > /one\nFROM {base}\nCOPY --from=first /one /two\n"
    );
    let marks = || -> Vec<_> {
        let layers = layers(&kiln).into_iter();
        layers
            .map(|(layer, _)| {
                fs::metadata(layer.join("synced"))
                    .unwrap()
                    .modified()
                    .unwrap()
            })
            .collect()
    };
    kiln.build(&dockerfile, &[]).ok();
    // The layers of the other stage too: the cache leads to them after a reboot.
    let before = marks();
    assert_eq!(before.len(), 3);
    kiln.build(&dockerfile, &[]).ok();
    assert_eq!(marks(), before);
}

#[test]
fn nobody_waits_for_the_removal_of_a_large_tree_and_the_next_kiln_takes_it_over() {
    let kiln = Kiln::new();
    build(&kiln);
    // More than can be removed before the command ends.
    let tree = kiln.store().join("trash/large");
    for directory in 0..100 {
        let directory = tree.join(directory.to_string());
        fs::create_dir_all(&directory).unwrap();
        for file in 0..1000 {
            fs::write(directory.join(file.to_string()), "").unwrap();
        }
    }
    // As if another process did it, and was killed.
    let lock = fs::File::create(kiln.store().join("locks/empty-trash")).unwrap();
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    kiln.run(["rmi", "test"]).ok();
    assert!(tree.exists());
    drop(lock);
    kiln.run(["prune", "--force"]).ok();
    assert_swept(&kiln);
}
