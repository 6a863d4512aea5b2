//! `kiln inspect`: JSON as docker prints it.

mod support;

use serde_json::{Value, json};
use support::{FaultyRegistry, Kiln, host_architecture, tar_of};

#[test]
fn inspect_prints_an_array_with_docker_s_keys() {
    let registry = FaultyRegistry::start();
    let kiln = Kiln::new();
    let image = registry.image_of(
        "1",
        &tar_of(&[("a", "abc")]),
        json!({
            "author": "somebody",
            "config": {
                "User": "app", "Env": ["PATH=/bin", "A=b"], "Cmd": ["sh"], "WorkingDir": "/src",
                "ExposedPorts": {"80/tcp": {}}, "Labels": {"l": "m"},
                "Healthcheck": {"Test": ["NONE"]}, "Unknown": [1],
            },
        }),
    );
    let reference = registry.reference("1");
    kiln.run(["pull", &reference]).ok();
    let output = kiln.run(["inspect", &reference]).ok();
    assert_eq!(output.stderr(), "");
    let found: Value = serde_json::from_str(&output.stdout()).unwrap();
    assert_eq!(
        found,
        json!([{
            "Id": image.id,
            "RepoTags": [reference],
            "RepoDigests": [format!("{}/app@{}", registry.address(), image.manifest)],
            "Parent": "",
            "Comment": "",
            "Created": "2000-01-01T00:00:00Z",
            "Author": "somebody",
            "Config": {
                "User": "app",
                "ExposedPorts": {"80/tcp": {}},
                "Env": ["PATH=/bin", "A=b"],
                "Cmd": ["sh"],
                "WorkingDir": "/src",
                "Labels": {"l": "m"},
                "Healthcheck": {"Test": ["NONE"]},
                "Unknown": [1],
            },
            "Architecture": host_architecture(),
            "Variant": "",
            "Os": "linux",
            "Size": 3,
            "RootFS": {"Type": "layers", "Layers": [image.layer]},
        }])
    );
    // People read it too: indented, a key per line.
    assert!(output.stdout().starts_with("[\n"), "{output}");
    assert!(output.stdout().ends_with("]\n"), "{output}");
}

#[test]
fn image_is_found_by_name_by_id_and_by_the_beginning_of_an_id() {
    let registry = FaultyRegistry::start();
    let kiln = Kiln::new();
    let image = registry.image("1", &[]);
    kiln.run(["pull", &registry.reference("1")]).ok();
    kiln.run(["tag", &registry.reference("1"), "short"]).ok();
    let hex = &image.id["sha256:".len()..];
    for name in [
        "short",
        "docker.io/library/short:latest",
        &image.id,
        hex,
        &hex[..12],
        &hex[..4],
    ] {
        let found: Value =
            serde_json::from_str(&kiln.run(["inspect", name]).ok().stdout()).unwrap();
        assert_eq!(found[0]["Id"], image.id.as_str(), "{name}");
    }
}

#[test]
fn what_is_found_is_printed_although_something_is_not_there() {
    let registry = FaultyRegistry::start();
    let kiln = Kiln::new();
    let image = registry.image("1", &[]);
    kiln.run(["pull", &registry.reference("1")]).ok();
    let output = kiln
        .run(["inspect", "nosuch", &registry.reference("1")])
        .fails();
    assert_eq!(output.code(), Some(1));
    assert_eq!(
        output.stderr(),
        "error: no such image: nosuch\n\
         hint: `kiln images` lists what there is; `kiln pull nosuch` fetches it\n"
    );
    let found: Value = serde_json::from_str(&output.stdout()).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["Id"], image.id.as_str());
    assert_eq!(kiln.run(["inspect", "nosuch"]).fails().stdout(), "[]\n");
}

#[test]
fn format_takes_the_templates_of_docker() {
    let registry = FaultyRegistry::start();
    let kiln = Kiln::new();
    let image = registry.image_of(
        "1",
        &[],
        json!({"config": {"Env": ["PATH=/bin", "A=b"], "Labels": {"l": "m"}}}),
    );
    let name = registry.reference("1");
    kiln.run(["pull", &name]).ok();
    for (format, text) in [
        ("{{.Id}}", &*image.id),
        ("{{.Config.Env}}", "[PATH=/bin A=b]"),
        ("{{json .Config.Env}}", "[\"PATH=/bin\",\"A=b\"]"),
        ("{{.Config.Labels.l}}", "m"),
        (r#"{{index .Config.Labels "l"}}"#, "m"),
        (
            "{{range .Config.Env}}{{println .}}{{end}}",
            "PATH=/bin\nA=b\n",
        ),
        // What the image leaves out.
        (
            "{{.Config.User}}|{{.Config.Cmd}}|{{.Config.ExposedPorts}}",
            "|[]|map[]",
        ),
        ("{{index .RootFS.Layers 0}}", &image.layer),
    ] {
        let output = kiln.run(["inspect", "-f", format, &name]).ok();
        assert_eq!(output.stdout(), format!("{text}\n"), "{format}");
    }
    let output = kiln.run(["inspect", "--format", "json", &name]).ok();
    assert_eq!(output.stdout().lines().count(), 1);
    let output = kiln
        .run(["inspect", "--format", "{{yaml .}}", &name])
        .fails();
    assert_eq!(
        output.stderr(),
        "error: invalid template: there is no function \"yaml\"\n\
         hint: the functions are json, join, split, upper, lower, title, println, print, index, \
         len, eq, ne, not, truncate\n"
    );
}
