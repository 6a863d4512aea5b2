//! `push --all-tags` and `pull --all-tags`: all tags of a repository, as docker has them.

mod support;

use serde_json::json;
use support::{FaultyRegistry, Kiln, Registry, TagPages, settled};

#[test]
fn all_tags_of_a_name_are_pushed_and_all_of_a_repository_come_back() {
    let (kiln, base, registry) = (Kiln::new(), FaultyRegistry::start(), Registry::start());
    let name = registry.reference("team/app");
    for (tag, content) in [("1", "one"), ("1.2", "two"), ("latest", "two")] {
        base.image(tag, &[("file", content)]);
        kiln.run(["pull", "-q", &base.reference(tag)]).ok();
        kiln.run(["tag", &base.reference(tag), &format!("{name}:{tag}")])
            .ok();
    }
    // Names that only begin so are others.
    kiln.run(["tag", &base.reference("1"), &format!("{name}-other:1")])
        .ok();
    let pushed = kiln.run(["push", "-a", &name]).ok().stdout();
    let digest_of = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
    let digests: Vec<String> = pushed.lines().map(digest_of).collect();
    assert_eq!(
        pushed,
        format!(
            "{name}:1: digest: {0}\n{name}:1.2: digest: {1}\n{name}:latest: digest: {1}\n",
            digests[0], digests[1]
        )
    );
    assert_ne!(digests[0], digests[1]);

    let other = Kiln::new();
    let pull = |status: &str| {
        let pulled = other.run(["pull", "--all-tags", &name]).ok();
        assert_eq!(
            pulled.stdout(),
            format!(
                "1: Pulling from team/app\nDigest: {0}\n\
                 1.2: Pulling from team/app\nDigest: {1}\n\
                 latest: Pulling from team/app\nDigest: {1}\n\
                 Status: {status} {name}\n",
                digests[0], digests[1]
            )
        );
    };
    pull("Downloaded newer image for");
    pull("Image is up to date for");
    let quiet = other.run(["pull", "-aq", &name]).ok().stdout();
    let ids: Vec<&str> = quiet.lines().collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(ids[1], ids[2]);
    let content = other.image(&format!("{name}:1.2")).tree;
    assert_eq!(content.file("/file").content(), b"two");
    let unknown = other.run(["pull", "-a", &registry.reference("team/app-other")]);
    let shown = settled(
        &unknown.fails().stderr(),
        &[(registry.address(), "REGISTRY")],
    );
    assert_eq!(
        shown,
        "error: REGISTRY/team/app-other: tags: no such repository\n\
         hint: check the spelling, and that the repository exists\n"
    );
}

#[test]
fn tag_or_digest_together_with_all_tags_is_refused() {
    let kiln = Kiln::new();
    let digest = format!("sha256:{}", "1".repeat(64));
    for name in ["app:1", "r.example:5000/app:1", &format!("app@{digest}")] {
        for command in ["push", "pull"] {
            let output = kiln.run([command, "-a", name]).fails();
            assert_eq!(
                output.stderr(),
                "error: tag can't be used with --all-tags/-a\n\
                 hint: write the name without a tag\n"
            );
            assert_eq!(output.code(), Some(2));
        }
    }
    let output = kiln.run(["push", "-a", "r.example:5000/app"]).fails();
    assert_eq!(
        output.stderr(),
        "error: no such image: r.example:5000/app\n\
         hint: `kiln images` lists what there is; `kiln pull r.example:5000/app` fetches it\n"
    );
    let output = kiln.run(["push", "-a", "app", "oci:x"]).fails();
    assert_eq!(output.code(), Some(2));
}

#[test]
fn list_of_tags_comes_in_pages_and_is_read_to_its_end_where_it_has_one() {
    let (kiln, registry) = (Kiln::new(), FaultyRegistry::start());
    for tag in ["a", "b", "c", "d", "e"] {
        registry.image(tag, &[("file", tag)]);
    }
    registry.page_tags(TagPages::Of(2));
    let name = format!("{}/app", registry.address());
    let ids = kiln.run(["pull", "-a", "-q", &name]).ok().stdout();
    assert_eq!(ids.lines().count(), 5);
    let log = registry.take_log();
    let pages = log.iter().filter(|line| line.contains("tags/list"));
    assert_eq!(pages.count(), 3, "{log:?}");

    let elsewhere = "http://127.0.0.1:1/v2/app/tags/list?last=c&secret=1";
    for (pages, text) in [
        (
            TagPages::Endless,
            "malformed answer: its list of tags goes on without an end",
        ),
        (
            TagPages::At(elsewhere.to_owned()),
            "refused to follow a redirect to http://127.0.0.1:1/v2/app/tags/list, for more tags",
        ),
    ] {
        registry.page_tags(pages);
        let output = kiln.run(["pull", "-a", &name]).fails();
        assert_eq!(output.stderr(), format!("error: {name}: tags: {text}\n"));
    }
}

/// Repositories keep signatures and other artifacts beside images.
#[test]
fn tag_that_is_no_image_is_told_and_the_others_come() {
    let (kiln, registry) = (Kiln::new(), FaultyRegistry::start());
    registry.image("1", &[("file", "one")]);
    registry.image("2", &[("file", "two")]);
    let layer = registry.blob("application/x-what", b"signature");
    let signature = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": registry.blob("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [layer],
    });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    registry.manifest("1.sig", kind, &signature);
    let name = format!("{}/app", registry.address());
    let output = kiln.run(["pull", "-a", "-q", &name]).fails();
    assert_eq!(output.stdout().lines().count(), 2);
    assert_eq!(
        output.stderr(),
        format!(
            "error: {name}:1.sig: the image's config is unusable: \
             it names 0 layers, and the manifest 1\n\
             hint: the image is damaged or was tampered with where it comes from; \
             nothing of it was kept\n"
        )
    );
    let images = kiln.run(["images", "-q", &name]).ok().stdout();
    assert_eq!(images.lines().count(), 2);
}
