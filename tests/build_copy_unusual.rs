//! COPY of what trees hold beside plain files with plain names.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

use support::{Kiln, Kind, Registry};

#[test]
fn names_need_not_be_text() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[("d/plain", "")]);
    let name = OsStr::from_bytes(b"n\xff\xfe.x");
    fs::write(context.join("d").join(name), "content").unwrap();
    kiln.build(
        "FROM scratch\nCOPY d /dir\nCOPY d/*.x /wild/\nCOPY --parents **/*.x /parents/\n",
        &[],
    )
    .ok();
    let image = kiln.image("test");
    let names: Vec<_> = image
        .tree
        .paths()
        .filter(|p| p.contains('\u{fffd}'))
        .collect();
    assert_eq!(
        names,
        [
            "/dir/n\u{fffd}\u{fffd}.x",
            "/parents/d/n\u{fffd}\u{fffd}.x",
            "/wild/n\u{fffd}\u{fffd}.x"
        ]
    );
}

#[test]
fn sources_that_lead_nowhere_are_named() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[("d/x", "")]);
    symlink("nothing", context.join("dangling")).unwrap();
    symlink("loop", context.join("loop")).unwrap();
    symlink("nothing", context.join("d/inside")).unwrap();
    kiln.build("FROM scratch\nCOPY dangling /x\n", &[])
        .fails_with("\"dangling\" is not in the build context: no such file or directory\n")
        .fails_with("\nhint: it is a symbolic link to what is not in the build context\n");
    kiln.build("FROM scratch\nCOPY loop /x\n", &[])
        .fails_with("too many levels of symbolic links");
    kiln.build("FROM scratch\nCOPY dang* d/x /e/\n", &[])
        .fails_with("\"dangling\" is not in the build context: no such file or directory\n")
        .fails_with("\nhint: it is a symbolic link to what is not in the build context\n");
    // Neither what is left out nor what lies in a directory is followed.
    let ignored = [(".dockerignore", "dangling\nloop\n")];
    kiln.build("FROM scratch\nCOPY d /d\nCOPY dang* d/x /e/\n", &ignored)
        .ok();
    let image = kiln.image("test");
    assert_eq!(image.tree.file("/d/inside").target, b"nothing");
    assert!(image.tree.get("/e/dangling").is_none());
}

/// SEMANTICS 71.
#[test]
fn holes_stay_holes() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[]);
    let file = fs::File::create(context.join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"middle", 32 << 20).unwrap();
    kiln.build("FROM scratch\nCOPY sparse /sparse\n", &[]).ok();
    let image = kiln.image("test");
    assert_eq!(image.tree.file("/sparse").size, 64 << 20);
    let disk = fs::read_dir(kiln.store().join("layers"))
        .unwrap()
        .map(|layer| fs::metadata(layer.unwrap().path().join("fs/sparse")).unwrap())
        .map(|meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512)
        .max();
    assert!(disk.unwrap() < 1 << 20, "{disk:?}");
}

#[test]
fn a_deep_tree_takes_no_square_of_its_depth() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[]);
    let depth = 1000;
    let mut path = context.join("d");
    for _ in 0..depth {
        path.push("x");
    }
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("f"), "deep").unwrap();
    let started = Instant::now();
    kiln.build(
        &format!(
            "FROM {}\nCOPY d /d\nCOPY d/{}/f /e/\n",
            Registry::shared().busybox(),
            ["x"; 1000].join("/")
        ),
        &[],
    )
    .ok();
    let image = kiln.image("test");
    let deep = format!("/d{}/f", "/x".repeat(depth));
    assert_eq!(image.tree.file(&deep).content(), b"deep");
    assert_eq!(image.tree.file("/e/f").content(), b"deep");
    assert!(started.elapsed().as_secs() < 40, "{:?}", started.elapsed());
}

#[test]
fn ten_thousand_files_are_all_there() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory(
        "context",
        &[(".dockerignore", "**/skip*\nDockerfile\n.dockerignore\n")],
    );
    for directory in 0..100 {
        let directory = context.join(format!("d{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..100 {
            fs::write(directory.join(format!("f{file}")), format!("{file}")).unwrap();
        }
        fs::write(directory.join("skipped"), "").unwrap();
    }
    fs::set_permissions(context.join("d7/f7"), fs::Permissions::from_mode(0o4711)).unwrap();
    kiln.build(
        &format!(
            "FROM {}\nWORKDIR /app\nCOPY . .\n",
            Registry::shared().busybox()
        ),
        &[],
    )
    .ok();
    let image = kiln.image("test");
    let copied = |kind| {
        let paths = image.tree.paths().filter(|path| path.starts_with("/app/"));
        paths
            .filter(|path| image.tree.file(path).kind == kind)
            .count()
    };
    assert_eq!((copied(Kind::Directory), copied(Kind::File)), (100, 10_000));
    assert_eq!(image.tree.file("/app/d99/f98").content(), b"98");
    assert_eq!(image.tree.file("/app/d7/f7").mode, 0o4711);
}
