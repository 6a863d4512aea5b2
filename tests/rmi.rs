//! `kiln rmi`: names go first, the image with its last one.

mod support;

use std::fs;

use support::{FaultyRegistry, Kiln, Published};

fn pulled() -> (Kiln, FaultyRegistry, Published) {
    let registry = FaultyRegistry::start();
    let kiln = Kiln::new();
    let image = registry.image("1", &[("hello", "hello\n")]);
    kiln.run(["pull", &registry.reference("1")]).ok();
    (kiln, registry, image)
}

fn entries(kiln: &Kiln, directory: &str) -> usize {
    fs::read_dir(kiln.store().join(directory)).unwrap().count()
}

#[test]
fn last_name_takes_the_image_with_it() {
    let (kiln, registry, image) = pulled();
    let reference = registry.reference("1");
    kiln.run(["tag", &reference, "hello"]).ok();
    assert_eq!(
        kiln.run(["rmi", "hello"]).ok().stdout(),
        "Untagged: hello:latest\n"
    );
    let output = kiln.run(["rmi", &reference]).ok();
    assert_eq!(
        (output.stdout(), output.stderr()),
        (
            format!("Untagged: {reference}\nDeleted: {}\n", image.id),
            String::new()
        )
    );
    assert_eq!(kiln.run(["images", "-q"]).ok().stdout(), "");
    for directory in ["layers", "blobs/sha256", "refs", "images", "tmp", "trash"] {
        assert_eq!(entries(&kiln, directory), 0, "{directory} is not empty");
    }
}

#[test]
fn id_of_an_image_with_several_names_needs_force() {
    let (kiln, registry, image) = pulled();
    let reference = registry.reference("1");
    kiln.run(["tag", &reference, "hello"]).ok();
    let short = &image.id["sha256:".len()..][..12];
    assert_eq!(
        kiln.run(["rmi", short]).fails().stderr(),
        format!(
            "error: unable to delete {short}: \
             the image has several names ({reference}, hello:latest)\n\
             hint: remove it by name, or all of it with -f\n"
        )
    );
    assert_eq!(
        kiln.run(["rmi", "-f", short]).ok().stdout(),
        format!(
            "Untagged: {reference}\nUntagged: hello:latest\nDeleted: {}\n",
            image.id
        )
    );
}

#[test]
fn image_without_a_name_is_removed_by_its_id() {
    let (kiln, registry, old) = pulled();
    let new = registry.image("1", &[]);
    kiln.run(["pull", &registry.reference("1")]).ok();
    assert_eq!(
        kiln.run(["rmi", &old.id]).ok().stdout(),
        format!("Deleted: {}\n", old.id)
    );
    assert_eq!(kiln.run(["images", "-q", "--no-trunc"]).ok().line(), new.id);
}

#[test]
fn several_are_removed_although_one_is_not_there() {
    let (kiln, registry, image) = pulled();
    registry.image("2", &[("hello", "hello\n"), ("more", "")]);
    kiln.run(["pull", &registry.reference("2")]).ok();
    let names = [
        registry.reference("1"),
        "nosuch".to_owned(),
        registry.reference("2"),
    ];
    let output = kiln.run(["rmi".to_owned()].iter().chain(&names)).fails();
    assert_eq!(output.code(), Some(1));
    assert_eq!(
        output.stderr(),
        "error: no such image: nosuch\n\
         hint: `kiln images` lists what there is; `kiln pull nosuch` fetches it\n"
    );
    assert!(
        output
            .stdout()
            .contains(&format!("Deleted: {}\n", image.id)),
        "{output}"
    );
    assert_eq!(kiln.run(["images", "-q"]).ok().stdout(), "");
    let output = kiln.run(["rmi", "-f", "nosuch"]).ok();
    assert_eq!(
        (output.stdout(), output.stderr()),
        (String::new(), String::new())
    );
}

#[test]
fn layer_that_another_image_has_stays() {
    let (kiln, registry, _) = pulled();
    kiln.build(
        &format!("FROM {}\nCOPY own /own\n", registry.reference("1")),
        &[("own", "")],
    )
    .ok();
    kiln.run(["rmi", &registry.reference("1")]).ok();
    assert_eq!(kiln.image("test").tree.file("/hello").content(), b"hello\n");
}
