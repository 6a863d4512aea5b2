//! `kiln tag`.

mod support;

use support::{FaultyRegistry, Kiln, Published};

fn pulled() -> (Kiln, FaultyRegistry, Published) {
    let registry = FaultyRegistry::start();
    let kiln = Kiln::new();
    let image = registry.image("1", &[]);
    kiln.run(["pull", &registry.reference("1")]).ok();
    (kiln, registry, image)
}

fn id(kiln: &Kiln, name: &str) -> String {
    kiln.run(["images", "-q", "--no-trunc", name]).ok().line()
}

#[test]
fn tag_gives_another_name_and_says_nothing() {
    let (kiln, registry, image) = pulled();
    let output = kiln
        .run(["tag", &registry.reference("1"), "me/hello:2"])
        .ok();
    assert_eq!(
        (output.stdout(), output.stderr()),
        (String::new(), String::new())
    );
    assert_eq!(id(&kiln, "me/hello:2"), image.id);
    assert_eq!(id(&kiln, &registry.reference("1")), image.id);
    kiln.run(["tag", &image.id[..20], "by-id"]).ok();
    assert_eq!(id(&kiln, "by-id:latest"), image.id);
}

#[test]
fn name_moves_from_the_image_that_had_it() {
    let (kiln, registry, first) = pulled();
    kiln.run(["tag", &registry.reference("1"), "hello"]).ok();
    let second = registry.image("2", &[("new", "")]);
    kiln.run(["pull", &registry.reference("2")]).ok();
    kiln.run(["tag", &registry.reference("2"), "hello"]).ok();
    assert_eq!(id(&kiln, "hello"), second.id);
    assert_eq!(id(&kiln, &registry.reference("1")), first.id);
}

#[test]
fn bad_names_and_missing_images_are_refused() {
    let (kiln, registry, image) = pulled();
    let reference = registry.reference("1");
    assert_eq!(
        kiln.run(["tag", &reference, "Hello"]).fails().stderr(),
        "error: invalid image reference \"Hello\": invalid reference format\n\
         hint: repositories have no capitals in their names; tags may\n"
    );
    let with_digest = format!("hello@{}", image.id);
    assert_eq!(
        kiln.run(["tag", &reference, &with_digest]).fails().stderr(),
        format!("error: invalid name \"{with_digest}\": an image can't be tagged with a digest\n")
    );
    assert_eq!(
        kiln.run(["tag", "nosuch", "hello"]).fails().stderr(),
        "error: no such image: nosuch\n\
         hint: `kiln images` lists what there is; `kiln pull nosuch` fetches it\n"
    );
}
