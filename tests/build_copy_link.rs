//! COPY --link: a layer that does not depend on what lies below it.

mod support;

use support::{Image, Kiln, Kind, Registry};

fn busybox() -> String {
    Registry::shared().busybox()
}

/// Builds, and returns the image with whether its last COPY came from the cache.
#[track_caller]
fn build(kiln: &Kiln, below: &str, copy: &str, files: &[(&str, &str)]) -> (Image, bool) {
    let output = kiln.build(&format!("{below}\n{copy}\n"), files).ok();
    let log = output.stderr();
    let step = log.lines().find(|line| line.contains("--link")).unwrap();
    let id = step.split(' ').next().unwrap();
    let cached = log.contains(&format!("{id} CACHED"));
    (kiln.image("test"), cached)
}

fn top_diff_id(image: &Image) -> String {
    let ids = image.config["rootfs"]["diff_ids"].as_array().unwrap();
    ids.last().unwrap().to_string()
}

/// SEMANTICS 48.
#[test]
fn linked_layer_follows_no_link_and_stands_alone() {
    let kiln = Kiln::new();
    let (image, _) = build(
        &kiln,
        &format!(
            "FROM {}\nRUN mkdir /real && chmod 0700 /real && ln -s /real /link",
            busybox()
        ),
        "COPY --link x /link/x\nCOPY --link x /etc",
        &[("x", "x")],
    );
    assert_eq!(image.tree.file("/link").kind, Kind::Directory);
    assert_eq!(image.tree.file("/link/x").content(), b"x");
    assert!(image.tree.get("/real/x").is_none());
    // It can't know that /etc is a directory below it: without a slash it is a file's name.
    assert_eq!(image.tree.file("/etc").kind, Kind::File);
}

/// SEMANTICS 48.
#[test]
fn linked_layer_is_the_same_on_whatever_base() {
    let kiln = Kiln::new();
    let files = &[("d/x", "x"), ("d/sub/y", "y")];
    let copy = "WORKDIR /new\nCOPY --link --chown=7:8 d dir";
    let debian = Registry::shared().debian();
    let bases = [
        format!("FROM {}", busybox()),
        format!("FROM {}\nRUN echo 2 > /two", busybox()),
        // Where it goes there is a link, a file, a directory with another owner and mode.
        format!("FROM {}\nRUN mkdir /r && ln -s /r /new", busybox()),
        format!("FROM {debian}"),
        "FROM scratch".to_owned(),
        format!(
            "FROM {}\nRUN mkdir -p /new/dir/sub && chmod -R 700 /new && chown -R 5:5 /new && touch /new/dir/x",
            busybox()
        ),
    ];
    let (first, cached) = build(&kiln, &bases[0], copy, files);
    assert!(!cached);
    for base in &bases[1..] {
        let (image, cached) = build(&kiln, base, copy, files);
        assert!(cached, "{base}");
        assert_eq!(top_diff_id(&image), top_diff_id(&first), "{base}");
        assert_eq!(image.layers.last(), first.layers.last());
        assert_eq!(image.tree.file("/new/dir/sub/y").content(), b"y", "{base}");
    }
}

/// SEMANTICS 48.
#[test]
fn linked_layer_is_taken_again_without_its_cache_record() {
    let kiln = Kiln::new();
    let files = &[("d/x", "x")];
    let (one, _) = build(
        &kiln,
        &format!("FROM {}", busybox()),
        "COPY --link d /new/",
        files,
    );
    // The directory that is made for it has another time, in the next second.
    std::thread::sleep(std::time::Duration::from_millis(1010));
    // Another form of the same instruction: another key, the same content.
    let (two, cached) = build(
        &kiln,
        "FROM scratch",
        "COPY --link --chown=0:0 d /new/",
        files,
    );
    assert!(!cached);
    assert_eq!(top_diff_id(&one), top_diff_id(&two));
}

#[test]
fn names_of_owners_are_looked_up_in_the_stage_and_change_the_layer() {
    let kiln = Kiln::new();
    let files = &[("x", "x")];
    let with_user = |id: u32| {
        format!(
            "FROM {}\nRUN echo who:x:{id}:{id}::/:/bin/sh >> /etc/passwd",
            busybox()
        )
    };
    let copy = "COPY --link --chown=who x /x";
    build(&kiln, &with_user(71), copy, files);
    let (image, cached) = build(&kiln, &with_user(72), copy, files);
    assert!(!cached);
    assert_eq!(image.tree.file("/x").uid, 72);
}

#[test]
fn add_links_too_with_archives() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o600);
    header.set_cksum();
    builder.append_data(&mut header, "in", &b"x"[..]).unwrap();
    std::fs::write(context.join("a.tar"), builder.into_inner().unwrap()).unwrap();
    let add = "ADD --link a.tar /to/";
    let (one, cached) = build(&kiln, &format!("FROM {}", busybox()), add, &[]);
    assert!(!cached);
    assert_eq!(one.tree.file("/to/in").content(), b"x");
    let (two, cached) = build(&kiln, "FROM scratch", add, &[]);
    assert!(cached);
    assert_eq!(top_diff_id(&one), top_diff_id(&two));
}
