//! `kiln build --platform a,b` and `--manifest`: one name for images of several platforms.

mod support;

use std::fs;

use serde_json::Value;
use support::{Kiln, Output, Registry, host_architecture};

/// Made on this machine for each platform, as with a cross compiler.
fn dockerfile() -> String {
    format!(
        "FROM --platform=$BUILDPLATFORM {} AS compiler\nARG TARGETARCH\n\
         RUN echo $TARGETARCH >/architecture\nFROM scratch\n\
         COPY --from=compiler /architecture /architecture\n",
        Registry::shared().busybox()
    )
}

/// Builds with no other names than the options give.
#[track_caller]
fn build(kiln: &Kiln, options: &[&str]) -> Output {
    let context = kiln.sandbox().directory("context", &[]);
    fs::write(context.join("Dockerfile"), dockerfile()).unwrap();
    let progress = ["build", "--progress", "plain", "context"];
    kiln.run([&progress[..], options].concat()).ok()
}

const BOTH: &str = "linux/amd64,linux/arm64";

#[track_caller]
fn assert_is_for(kiln: &Kiln, name: &str, architecture: &str) {
    let image = kiln.image(name);
    assert_eq!(image.config["architecture"], architecture);
    let content = String::from_utf8(image.tree.file("/architecture").content().to_vec());
    assert_eq!(content.unwrap(), format!("{architecture}\n"));
}

#[test]
fn images_for_several_platforms_get_one_name_and_are_pushed_together() {
    let (kiln, registry) = (Kiln::new(), Registry::start());
    let name = registry.reference("both:1");
    let file = kiln.sandbox().join("iid");
    let options = ["--platform", BOTH, "-t", &name];
    let iidfile = ["--iidfile", file.to_str().unwrap()];
    let options = [&options[..], &iidfile].concat();
    build(&kiln, &options);
    let index = fs::read_to_string(&file).unwrap();
    assert_is_for(&kiln, &name, host_architecture());
    // The other one is no image of its own, and no leftover either.
    let dangling = ["images", "-q", "--filter", "dangling=true"];
    assert_eq!(kiln.run(dangling).ok().stdout(), "");
    kiln.run(["prune", "-f"]).ok();
    let pushed = kiln.run(["push", "-q", &name]).ok().line();
    assert_eq!(pushed, index);
    let other = Kiln::new();
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        other.run(["pull", "--platform", &platform, &name]).ok();
        assert_is_for(&other, &name, architecture);
    }
    // One of them alone.
    let single = registry.reference("single:1");
    let push = ["push", "-q", "--platform", "linux/arm64", &name, &single];
    let digest = kiln.run(push).ok().line();
    assert_ne!(digest, index);
    other.run(["pull", "--platform=linux/arm64", &single]).ok();
    assert_is_for(&other, &single, "arm64");
}

#[test]
fn outputs_and_pushes_of_the_build_itself_take_the_index() {
    let (kiln, registry) = (Kiln::new(), Registry::start());
    let name = registry.reference("out:1");
    let output = "type=oci,dest=both.tar";
    let options = ["--platform", BOTH, "-t", &name, "--push", "-o", output];
    let built = build(&kiln, &options);
    assert!(
        built
            .stderr()
            .contains(&format!("pushed {name}: digest: sha256:"))
    );
    let inspect = |place: &str| -> Value {
        let shown = kiln.run(["manifest", "inspect", place]).ok().stdout();
        serde_json::from_str(&shown).unwrap()
    };
    let archive = format!("oci-archive:{}", kiln.sandbox().join("both.tar").display());
    assert_eq!(inspect(&archive), inspect(&name));
    assert_eq!(inspect(&name)["manifests"].as_array().unwrap().len(), 2);
    let other = Kiln::new();
    let archive = kiln.sandbox().join("both.tar");
    let load = [
        "load",
        "--platform=linux/arm64",
        "-i",
        archive.to_str().unwrap(),
    ];
    other.run(load).ok();
    assert_is_for(&other, &name, "arm64");
}

#[test]
fn builds_are_gathered_in_a_list() {
    let (kiln, registry) = (Kiln::new(), Registry::start());
    let list = registry.reference("gathered:1");
    for platform in BOTH.split(',') {
        let options = ["--platform", platform, "--manifest", &list];
        build(&kiln, &options);
    }
    kiln.run(["manifest", "push", &list]).ok();
    let other = Kiln::new();
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        other.run(["pull", "--platform", &platform, &list]).ok();
        assert_is_for(&other, &list, architecture);
    }
}

#[test]
fn what_holds_one_platform_is_refused_before_anything_is_built() {
    let kiln = Kiln::new();
    let refused = |options: &[&str], text: &str| {
        let options = [&["--platform", BOTH], options].concat();
        let output = kiln.build_with(&options, "FROM scratch\n", &[]).fails();
        assert_eq!(output.stderr(), text);
    };
    refused(
        &["-o", "type=docker,dest=x.tar"],
        "error: an output of this type holds one platform, and several are built\n\
         hint: write type=oci, or build for one platform at a time\n",
    );
    refused(
        &["-f", "-"],
        "error: standard input can't be read once for each platform\n\
         hint: put it into a file\n",
    );
}
