//! `du` and `system df`: what takes how much.

mod support;

use serde_json::{Value, json};
use support::{FaultyRegistry, Kiln, Registry, tar_of};

/// A store with a pulled image, a built one that lost its name, and a cache directory.
fn store() -> Kiln {
    let kiln = Kiln::new();
    let registry = FaultyRegistry::start();
    let layer = tar_of(&[("a", &"a".repeat(5000))]);
    registry.image_of("one", &layer, json!({"created": "2001-01-01T00:00:00Z"}));
    kiln.run(["pull", &registry.reference("one")]).ok();
    kiln
}

fn rows(kiln: &Kiln) -> Vec<Value> {
    let output = kiln.run(["du", "--format", "json"]).ok().stdout();
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn row(kiln: &Kiln, kind: &str) -> Vec<String> {
    let rows = rows(kiln);
    let row = rows.iter().find(|row| row["Type"] == kind).unwrap();
    ["TotalCount", "Active", "Size", "Reclaimable"]
        .map(|key| row[key].as_str().unwrap().to_owned())
        .into()
}

#[test]
fn empty_store_has_nothing_of_anything() {
    let kiln = Kiln::new();
    let expected = "\
TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE
Images          0         0         0B        0B
Containers      0         0         0B        0B
Build Cache     0         0         0B        0B
Cache Mounts    0         0         0B        0B
URLs            0         0         0B        0B
Contexts        0         0         0B        0B
Unused Layers   0         0         0B        0B
Blobs           0         0         0B        0B
Records         0         0         0B        0B
Merged Trees    0         0         0B        0B
Sessions        0         0         0B        0B
Trash           0         0         0B        0B
";
    assert_eq!(kiln.run(["du"]).ok().stdout(), expected);
    assert_eq!(kiln.run(["system", "df"]).ok().stdout(), expected);
}

#[test]
fn images_count_shared_layers_once() {
    let kiln = store();
    assert_eq!(row(&kiln, "Images"), ["1", "1", "5kB", "0B (0%)"]);
    let name = kiln.run(["images", "-q"]).ok().stdout();
    kiln.run(["tag", name.trim(), "base"]).ok();
    let from = |lines: &str| format!("FROM base\nCOPY f /{lines}\n");
    let file = "f".repeat(700);
    // The steps on top of the image have its layer below them.
    kiln.build(&from("one"), &[("f", &file)]).ok();
    assert_eq!(row(&kiln, "Images"), ["2", "2", "5.7kB", "0B (0%)"]);
    // The image has the layer of the step too.
    assert_eq!(row(&kiln, "Build Cache"), ["1", "1", "0B", "0B"]);
    kiln.build(&from("two"), &[("f", &file)]).ok();
    assert_eq!(row(&kiln, "Images"), ["3", "2", "6.4kB", "700B (10%)"]);
    kiln.run(["image", "prune"]).ok();
    assert_eq!(row(&kiln, "Images"), ["2", "2", "5.7kB", "0B (0%)"]);
    assert_eq!(row(&kiln, "Build Cache"), ["2", "1", "700B", "700B (100%)"]);
    kiln.run(["builder", "prune", "-a"]).ok();
    assert_eq!(row(&kiln, "Build Cache"), ["0", "0", "0B", "0B"]);
}

#[test]
fn cache_directories_count_though_only_their_owner_can_look_into_them() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=cache,target=/c umask 077; mkdir -p /c/d; \
         echo 12345 > /c/d/f; chown -R 5:5 /c/d\n"
    );
    kiln.build(&dockerfile, &[]).ok();
    assert_eq!(row(&kiln, "Cache Mounts"), ["1", "0", "6B", "6B (100%)"]);
    let text = kiln.run(["du", "-v"]).ok().stdout();
    let mut blocks = text.split("\n\n");
    assert_eq!(blocks.next(), Some("Images space usage:"));
    let images = blocks.next().unwrap();
    assert!(
        images.starts_with("REPOSITORY") && images.lines().next().unwrap().ends_with("UNIQUE SIZE"),
        "{text}"
    );
    assert_eq!(images.lines().count(), 3, "{text}");
    assert_eq!(blocks.next(), Some("Build cache usage: 6B"), "{text}");
    let cache = blocks.next().unwrap();
    let header = "CACHE ID       CACHE TYPE        SIZE      CREATED";
    assert!(cache.starts_with(header), "{text}");
    assert!(cache.contains("   exec.cachemount   6B "), "{text}");
    assert!(cache.contains("   regular           "), "{text}");
}

#[test]
fn format_takes_templates() {
    let kiln = store();
    let output = kiln
        .run(["system", "df", "--format", "{{.Type}}={{.TotalCount}}"])
        .ok();
    assert!(output.stdout().starts_with("Images=1\n"), "{output}");
    let output = kiln.run(["du", "--format", r"table {{.Type}}\t{{.Size}}"]);
    assert!(
        output
            .ok()
            .stdout()
            .starts_with("TYPE            SIZE\nImages          5kB\n"),
    );
    let output = kiln.run(["du", "--format", "{{.Nope}}"]).fails();
    assert_eq!(
        output.stderr(),
        "error: invalid template: there is no field .Nope\n\
         hint: the fields are Active, Reclaimable, Size, TotalCount, Type\n"
    );
}
