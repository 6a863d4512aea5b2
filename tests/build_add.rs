//! ADD: archives are extracted, and can't leave their place.

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use support::{Image, Kiln, Kind, Registry};

fn base() -> String {
    Registry::shared().busybox()
}

/// A member of an archive of the tests.
struct Member<'a> {
    name: &'a str,
    kind: tar::EntryType,
    link: &'a str,
    content: &'a str,
}

fn file<'a>(name: &'a str, content: &'a str) -> Member<'a> {
    Member {
        name,
        kind: tar::EntryType::Regular,
        link: "",
        content,
    }
}

fn link<'a>(name: &'a str, kind: tar::EntryType, link: &'a str) -> Member<'a> {
    Member {
        name,
        kind,
        link,
        content: "",
    }
}

/// Returns a tar with names as they are given: the `tar` crate's own functions refuse bad ones.
fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..member.name.len()].copy_from_slice(member.name.as_bytes());
        header.as_mut_bytes()[157..157 + member.link.len()].copy_from_slice(member.link.as_bytes());
        header.set_entry_type(member.kind);
        header.set_mode(0o640);
        header.set_uid(11);
        header.set_gid(12);
        header.set_mtime(1_000_000_000);
        header.set_size(member.content.len() as u64);
        header.set_cksum();
        builder.append(&header, member.content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn compressed(tool: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn context(kiln: &Kiln, files: &[(&str, &[u8])]) {
    let context = kiln.sandbox().directory("context", &[]);
    for (name, bytes) in files {
        fs::write(context.join(name), bytes).unwrap();
    }
}

#[track_caller]
fn built(kiln: &Kiln, instructions: &str) -> Image {
    kiln.build(&format!("FROM {}\n{instructions}", base()), &[])
        .ok();
    kiln.image("test")
}

/// SEMANTICS 51
#[test]
fn archives_are_known_by_their_content() {
    let kiln = Kiln::new();
    let tar = archive(&[file("d/x", "x")]);
    context(
        &kiln,
        &[
            ("plain", &tar),
            ("gz.txt", &compressed("gzip", &tar)),
            ("bz2", &compressed("bzip2", &tar)),
            ("xz", &compressed("xz", &tar)),
            ("zst", &compressed("zstd", &tar)),
            ("fake.tar.gz", b"no archive"),
            ("text.gz", &compressed("gzip", b"only text")),
            ("empty.tar", b""),
        ],
    );
    let image = built(
        &kiln,
        "ADD plain /plain\nADD gz.txt /gz/\nADD bz2 /bz2\nADD xz /xz\nADD zst /deep/zst\n\
         ADD fake.tar.gz text.gz empty.tar /no/\nADD plain gz.txt fake.tar.gz /several/\n\
         COPY plain /copied\nADD --unpack=false plain /packed\n",
    );
    for directory in ["/plain", "/gz", "/bz2", "/xz", "/deep/zst", "/several"] {
        let node = image.tree.file(&format!("{directory}/d/x"));
        assert_eq!(node.content(), b"x", "{directory}");
        assert_eq!((node.uid, node.gid, node.mode), (11, 12, 0o640));
        assert_eq!(node.mtime, 1_000_000_000);
    }
    assert_eq!(image.tree.file("/no/fake.tar.gz").content(), b"no archive");
    assert_eq!(image.tree.file("/no/text.gz").kind, Kind::File);
    assert_eq!(image.tree.file("/no/empty.tar").size, 0);
    assert_eq!(
        image.tree.file("/several/fake.tar.gz").content(),
        b"no archive"
    );
    for path in ["/copied", "/packed"] {
        assert_eq!(image.tree.file(path).content(), tar, "{path}");
    }
}

/// SEMANTICS 51
#[test]
fn each_match_of_a_wildcard_is_looked_at() {
    let kiln = Kiln::new();
    let one = archive(&[file("one", "1")]);
    let two = archive(&[file("two", "2")]);
    context(
        &kiln,
        &[("a.tar", &one), ("b.tar", &two), ("c.tar", b"text")],
    );
    let image = built(&kiln, "ADD *.tar /d/\n");
    assert_eq!(image.tree.file("/d/one").content(), b"1");
    assert_eq!(image.tree.file("/d/two").content(), b"2");
    assert_eq!(image.tree.file("/d/c.tar").content(), b"text");
    assert!(image.tree.get("/d/a.tar").is_none());
}

#[test]
fn archive_in_a_directory_is_a_file() {
    let kiln = Kiln::new();
    let tar = archive(&[file("x", "x")]);
    kiln.sandbox().directory("context/d", &[]);
    context(&kiln, &[("d/a.tar", &tar)]);
    let image = built(&kiln, "ADD d /d\n");
    assert_eq!(image.tree.file("/d/a.tar").content(), tar);
}

/// SEMANTICS 51
#[test]
fn chown_counts_for_entries() {
    let kiln = Kiln::new();
    let tar = archive(&[link("d/", tar::EntryType::Directory, ""), file("d/x", "x")]);
    context(&kiln, &[("a.tar", &tar)]);
    let image = built(
        &kiln,
        "ADD --chown=app:7 a.tar /named\nADD --chown=: a.tar /empty\nADD a.tar /kept\n",
    );
    for (directory, owner) in [
        ("/named", (1000, 7)),
        ("/empty", (11, 12)),
        ("/kept", (11, 12)),
    ] {
        for name in ["d", "d/x"] {
            let node = image.tree.file(&format!("{directory}/{name}"));
            assert_eq!((node.uid, node.gid), owner, "{directory}/{name}");
        }
    }
    let made = image.tree.file("/named");
    assert_eq!((made.uid, made.gid, made.mode), (1000, 7, 0o755));
}

/// SEMANTICS 51
#[test]
fn what_git_and_other_tools_put_into_archives_is_read() {
    let kiln = Kiln::new();
    let mut tar = Vec::new();
    {
        let mut builder = tar::Builder::new(&mut tar);
        let mut header = tar::Header::new_ustar();
        let record = b"52 comment=0123456789abcdef0123456789abcdef01234567\n";
        header.set_path("pax_global_header").unwrap();
        header.set_entry_type(tar::EntryType::XGlobalHeader);
        header.set_size(record.len() as u64);
        header.set_cksum();
        builder.append(&header, &record[..]).unwrap();
        let long = format!("{}/x", "long".repeat(40));
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o600);
        header.set_cksum();
        builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
        builder.finish().unwrap();
    }
    context(&kiln, &[("a.tar", &tar)]);
    let image = built(&kiln, "ADD a.tar /d\n");
    let path = format!("/d/{}/x", "long".repeat(40));
    assert_eq!(image.tree.file(&path).content(), b"x");
}

#[test]
fn entries_replace_what_is_there() {
    let kiln = Kiln::new();
    let tar = archive(&[
        file("file", "new"),
        file("dir", "now a file"),
        link("link", tar::EntryType::Symlink, "file"),
        file("through/x", "x"),
        link("hard", tar::EntryType::Link, "file"),
    ]);
    context(&kiln, &[("a.tar", &tar)]);
    let image = built(
        &kiln,
        "RUN mkdir -p /d/dir /d/link /real && echo old > /d/file && echo in > /d/dir/in && ln -s /real /d/through\n\
         ADD a.tar /d\n",
    );
    assert_eq!(image.tree.file("/d/file").content(), b"new");
    assert_eq!(image.tree.file("/d/dir").content(), b"now a file");
    assert_eq!(image.tree.file("/d/link").target, b"file");
    // A link of the image among the parents of an entry is followed, within the image.
    assert_eq!(image.tree.file("/real/x").content(), b"x");
    assert!(std::ptr::eq(
        image.tree.file("/d/hard"),
        image.tree.file("/d/file")
    ));
}

/// Builds `ADD a.tar /d` and returns the error, after a look at what was left behind.
#[track_caller]
fn refused(members: &[Member<'_>]) -> String {
    let kiln = Kiln::new();
    context(&kiln, &[("a.tar", &archive(members))]);
    let outside = kiln.sandbox().join("outside");
    let output = kiln
        .build(&format!("FROM {}\nADD a.tar /d\n", base()), &[])
        .fails();
    assert!(!outside.exists());
    let images = kiln.run(["images", "-q", "test"]).ok().stdout();
    assert_eq!(images, "");
    assert_nothing_half_done(&kiln);
    let stderr = output.stderr();
    let (_, error) = stderr.split_once("\nerror: ").unwrap();
    error.lines().next().unwrap().to_owned()
}

fn assert_nothing_half_done(kiln: &Kiln) {
    let left: Vec<_> = fs::read_dir(kiln.store().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn names_that_leave_the_root_are_refused() {
    assert_eq!(
        refused(&[file("ok", ""), file("../outside", "x")]),
        "tar entry \"../outside\": its name leaves the root by \"..\""
    );
    assert_eq!(
        refused(&[file("a/../../outside", "x")]),
        "tar entry \"a/../../outside\": its name leaves the root by \"..\""
    );
}

#[test]
fn hard_link_to_what_is_outside_is_refused() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let target = target.to_str().unwrap();
    let message = refused(&[link("x", tar::EntryType::Link, target)]);
    assert!(message.contains("\"x\""), "{message}");
    let message = refused(&[link("x", tar::EntryType::Link, "../../../../etc/passwd")]);
    assert!(message.contains("\"x\""), "{message}");
    // Neither through a link of the archive's own.
    let message = refused(&[
        link("up", tar::EntryType::Symlink, "/etc"),
        link("x", tar::EntryType::Link, "up/nothing"),
    ]);
    assert!(message.contains("\"x\""), "{message}");
}

#[test]
fn absolute_names_and_links_stay_within_the_image() {
    let kiln = Kiln::new();
    let outside = kiln.sandbox().join("outside");
    let outside = outside.to_str().unwrap();
    let tar = archive(&[
        file("/absolute", "x"),
        link("up", tar::EntryType::Symlink, "../../../../../../../.."),
        link("root", tar::EntryType::Symlink, outside),
        file("up/through-up", "x"),
        file("root/through-root", "x"),
    ]);
    context(&kiln, &[("a.tar", &tar)]);
    let image = built(&kiln, "ADD a.tar /d\n");
    assert!(!Path::new(outside).exists());
    assert_eq!(image.tree.file("/d/absolute").content(), b"x");
    assert_eq!(image.tree.file("/through-up").content(), b"x");
    let path = format!("{outside}/through-root");
    assert_eq!(image.tree.file(&path).content(), b"x");
}

#[test]
fn truncated_and_damaged_archives_are_errors() {
    let tar = archive(&[file("x", &"x".repeat(100_000))]);
    let gz = compressed("gzip", &tar);
    let mut damaged = gz.clone();
    let middle = gz.len() / 2;
    damaged[middle] ^= 0xff;
    for (what, bytes) in [
        ("truncated", &tar[..5000]),
        ("truncated gzip", &gz[..gz.len() - 20]),
        ("damaged gzip", &damaged),
    ] {
        let kiln = Kiln::new();
        context(&kiln, &[("a.tar", bytes)]);
        let output = kiln.build("FROM scratch\nADD a.tar /d\n", &[]).fails();
        assert!(output.stderr().contains("\nerror: "), "{what}\n{output}");
        assert_nothing_half_done(&kiln);
        kiln.run(["history", "test"]).fails();
    }
}

/// SEMANTICS 68
#[test]
fn devices_of_an_archive_are_in_the_layer() {
    let kiln = Kiln::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_path("null").unwrap();
    header.set_entry_type(tar::EntryType::Char);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_mode(0o666);
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &[][..]).unwrap();
    context(&kiln, &[("a.tar", &builder.into_inner().unwrap())]);
    let image = built(&kiln, "ADD a.tar /d\n");
    let node = image.tree.file("/d/null");
    assert_eq!((node.kind, node.device), (Kind::CharDevice, (1, 3)));
}

#[test]
fn files_of_the_context_are_added_as_copy_does() {
    let kiln = Kiln::new();
    kiln.sandbox()
        .directory("context", &[("d/x", "x"), ("y", "y")]);
    let image = built(&kiln, "ADD d y /new/\nADD --chmod=600 --chown=5 y /owned\n");
    assert_eq!(image.tree.file("/new/x").content(), b"x");
    assert_eq!(image.tree.file("/new/y").content(), b"y");
    let node = image.tree.file("/owned");
    assert_eq!((node.uid, node.gid, node.mode), (5, 5, 0o600));
}

#[test]
fn changed_archive_misses_and_an_equal_one_hits() {
    let kiln = Kiln::new();
    let add = |members: &[Member<'_>]| {
        context(&kiln, &[("a.tar", &archive(members))]);
        let output = kiln.build("FROM scratch\nADD a.tar /d\n", &[]).ok();
        output.stderr().contains("\n#2 CACHED\n")
    };
    assert!(!add(&[file("x", "1")]));
    assert!(add(&[file("x", "1")]));
    assert!(!add(&[file("x", "2")]));
}
