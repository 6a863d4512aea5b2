//! `kiln history`.

mod support;

use serde_json::{Value, json};
use support::{FaultyRegistry, Kiln, Published, settled, tar_of};

fn pulled() -> (Kiln, String, Published) {
    let registry = FaultyRegistry::start();
    let kiln = Kiln::new();
    let at = |second: u32| format!("2000-01-01T00:00:{second:02}Z");
    let history = json!([
        {"created": at(1), "created_by": "ADD rootfs.tar /", "comment": "the base"},
        {"created": at(2), "created_by": "ENV A=b", "empty_layer": true},
        {"created": at(3), "created_by": format!("RUN /bin/sh -c {}", "x".repeat(60))},
        {"created": at(4), "created_by": "CMD [\"sh\"]", "empty_layer": true},
    ]);
    let base = tar_of(&[("a", &"a".repeat(1234))]);
    let top = tar_of(&[("b", &"b".repeat(56))]);
    // Two layers: the base as usual, and the other beside it.
    let media_type = "application/vnd.oci.image.layer.v1.tar";
    let layers = [
        registry.blob(media_type, &base),
        registry.blob(media_type, &top),
    ];
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = json!({
        "created": at(4),
        "architecture": support::host_architecture(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    });
    let config = registry.blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers,
    });
    let published = Published {
        id: config["digest"].as_str().unwrap().to_owned(),
        manifest: registry.manifest("1", manifest_type, &manifest),
        layer: String::new(),
    };
    let reference = registry.reference("1");
    kiln.run(["pull", &reference]).ok();
    (kiln, reference, published)
}

#[test]
fn table_has_docker_s_columns_the_newest_first_and_sizes_of_layers() {
    let (kiln, reference, image) = pulled();
    let short = &image.id["sha256:".len()..][..12];
    assert_eq!(
        settled(
            &kiln.run(["history", &reference]).ok().stdout(),
            &[(short, "0123456789ab")]
        ),
        "\
IMAGE          CREATED        CREATED BY                                      SIZE      COMMENT
0123456789ab   NN years ago   CMD [\"sh\"]                                      0B
<missing>      NN years ago   RUN /bin/sh -c xxxxxxxxxxxxxxxxxxxxxxxxxxxxx…   56B
<missing>      NN years ago   ENV A=b                                         0B
<missing>      NN years ago   ADD rootfs.tar /                                1.23kB    the base
"
    );
}

#[test]
fn sizes_and_times_for_programs_are_bytes_and_dates() {
    let (kiln, reference, _) = pulled();
    let table = kiln.run(["history", "--human=false", &reference]).ok();
    let table = table.stdout();
    assert!(table.starts_with("IMAGE          CREATED AT "), "{table}");
    let last = table.lines().last().unwrap();
    let words: Vec<&str> = last.split_whitespace().collect();
    assert!(words[1].parse::<jiff::Timestamp>().is_ok(), "{table}");
    assert!(words.contains(&"1234"), "{table}");
    let usual = kiln.run(["history", &reference]).ok().stdout();
    assert_eq!(kiln.run(["history", "-H", &reference]).ok().stdout(), usual);
}

#[test]
fn no_trunc_shows_whole_instructions_and_ids() {
    let (kiln, reference, image) = pulled();
    let table = kiln
        .run(["history", "--no-trunc", &reference])
        .ok()
        .stdout();
    assert!(table.contains(&"x".repeat(60)), "{table}");
    assert!(table.contains(&image.id), "{table}");
    assert_eq!(
        kiln.run(["history", "-q", "--no-trunc", &reference])
            .ok()
            .stdout(),
        format!("{}\n<missing>\n<missing>\n<missing>\n", image.id)
    );
}

#[test]
fn json_has_docker_s_keys_an_object_per_line() {
    let (kiln, reference, image) = pulled();
    let output = kiln
        .run(["history", "--format", "json", &reference])
        .ok()
        .stdout();
    let mut lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    lines[3]["CreatedSince"].take();
    assert_eq!(
        lines[3],
        json!({
            "Comment": "the base",
            "CreatedAt": "2000-01-01T00:00:01Z",
            "CreatedBy": "ADD rootfs.tar /",
            "CreatedSince": null,
            "ID": "<missing>",
            "Size": "1.23kB",
        })
    );
    assert_eq!(lines[0]["ID"], image.id["sha256:".len()..][..12]);
}

#[test]
fn image_that_is_not_there_is_named() {
    let kiln = Kiln::new();
    assert_eq!(
        kiln.run(["history", "nosuch"]).fails().stderr(),
        "error: no such image: nosuch\n\
         hint: `kiln images` lists what there is; `kiln pull nosuch` fetches it\n"
    );
}

#[test]
fn format_takes_the_templates_of_docker() {
    let (kiln, name, _) = pulled();
    let output = kiln
        .run(["history", "--format", "{{.Size}} {{.CreatedBy}}", &name])
        .ok();
    assert_eq!(
        output.stdout(),
        "0B CMD [\"sh\"]\n\
         56B RUN /bin/sh -c xxxxxxxxxxxxxxxxxxxxxxxxxxxxx…\n\
         0B ENV A=b\n\
         1.23kB ADD rootfs.tar /\n"
    );
    let output = kiln
        .run([
            "history",
            "--format",
            r"table {{.Size}}\t{{.Comment}}",
            &name,
        ])
        .ok();
    assert!(
        output.stdout().starts_with("SIZE      COMMENT\n0B\n"),
        "{output}"
    );
}
