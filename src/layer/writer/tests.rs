use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::layer::testing::{TestLayer, TestTar, content, names, ownership, stack};
use crate::layer::write_tar;

fn tar() -> TestTar {
    TestTar::new()
}

const NOW: Timestamp = Timestamp {
    seconds: 5_000_000,
    nanoseconds: 0,
};
const OLD: Timestamp = Timestamp {
    seconds: 1_000_000,
    nanoseconds: 0,
};

fn plain(mode: u32) -> Attributes {
    Attributes {
        mode,
        mtime: Some(OLD),
        ..Attributes::default()
    }
}

/// Writes a layer with `write`, and returns the view with it on top.
fn written<'l>(
    lower: &'l View,
    write: impl FnOnce(&mut LayerWriter<'l>),
) -> (TestLayer, View, Written) {
    let layer = TestLayer::new();
    let writer = LayerWriter::new(layer.fd(), lower, ownership()).unwrap();
    let mut writer = writer.with_now(NOW);
    write(&mut writer);
    let written = writer.finish().unwrap();
    let mut view = lower.clone();
    view.push(layer.layer_of(&written));
    (layer, view, written)
}

fn stat(view: &View, path: &str) -> Stat {
    view.lookup(path.as_bytes()).unwrap().expect(path).stat
}

#[test]
fn existing_directories_keep_owner_and_mode_and_created_ones_get_theirs() {
    let (_below, lower) = stack(vec![tar().with(b'5', b"srv/", b"", b"", |a| {
        (a.mode, a.uid, a.gid) = (0o1770, 7, 8);
        a.xattrs.insert(b"user.a".to_vec(), b"1".to_vec());
    })]);
    let (_layer, view, _) = written(&lower, |writer| {
        let path = writer.ensure_dir(b"/srv/app/data", 0o700, 5, 6).unwrap();
        assert_eq!(path, b"srv/app/data");
    });
    let srv = stat(&view, "srv");
    assert_eq!((srv.mode, srv.uid, srv.gid), (0o1770, 7, 8));
    let node = view.lookup(b"srv").unwrap().unwrap();
    assert_eq!(view.xattrs(&node).unwrap()[&b"user.a"[..]], b"1");
    for path in ["srv/app", "srv/app/data"] {
        let made = stat(&view, path);
        assert_eq!(
            (made.mode, made.uid, made.gid, made.mtime),
            (0o700, 5, 6, NOW)
        );
    }
    assert_eq!(srv.mtime, NOW, "it has a new entry");
}

#[test]
fn directory_that_exists_is_not_written() {
    let (_below, lower) = stack(vec![tar().dir("srv").dir("srv/app")]);
    let (layer, _, written) = written(&lower, |writer| {
        writer.ensure_dir(b"srv/app", 0o700, 5, 6).unwrap();
    });
    assert_eq!(written.entries, 0);
    assert!(!layer.path("srv").exists());
}

#[test]
fn directory_put_on_an_existing_one_brings_its_attributes_and_keeps_what_is_in_it() {
    let (_below, lower) = stack(vec![tar().dir("srv").dir("srv/app").file("srv/app/x", "1")]);
    let (_layer, view, _) = written(&lower, |writer| {
        for mode in [0o700, 0o1711] {
            let attributes = Attributes {
                uid: 7,
                ..plain(mode)
            };
            writer.put_dir(b"srv/app", &attributes).unwrap();
        }
    });
    let app = stat(&view, "srv/app");
    assert_eq!((app.mode, app.uid, app.mtime), (0o1711, 7, OLD));
    assert_eq!(stat(&view, "srv").mode, 0o755);
    assert_eq!(content(&view, "srv/app/x").unwrap(), "1");
}

#[test]
fn only_the_parent_of_a_new_entry_gets_a_new_time() {
    let (_below, lower) = stack(vec![tar().dir("a").dir("a/b").file("a/b/x", "1")]);
    let (_layer, view, _) = written(&lower, |writer| {
        writer
            .put_file(b"a/b/new", &mut &b"2"[..], &plain(0o600))
            .unwrap();
    });
    assert_eq!(
        (stat(&view, "a").mtime, stat(&view, "a/b").mtime),
        (OLD, NOW)
    );
    let file = stat(&view, "a/b/new");
    assert_eq!((file.mode, file.mtime, file.size), (0o600, OLD, 1));
    assert_eq!(names(&view, "a/b"), ["new", "x"]);
}

#[test]
fn symlinked_destination_is_resolved_inside_the_image() {
    let (_below, lower) = stack(vec![
        tar()
            .dir("real")
            .symlink("link", "/real")
            .symlink("dangling", "../made"),
    ]);
    let (_layer, view, _) = written(&lower, |writer| {
        assert_eq!(writer.ensure_dir(b"link", 0o755, 0, 0).unwrap(), b"real");
        writer
            .put_file(b"link/x", &mut &b"1"[..], &plain(0o644))
            .unwrap();
        assert_eq!(
            writer.ensure_dir(b"dangling/d", 0o755, 0, 0).unwrap(),
            b"made/d"
        );
    });
    assert_eq!(content(&view, "real/x").unwrap(), "1");
    assert!(stat(&view, "link").is_symlink());
    assert!(stat(&view, "made/d").is_dir());
}

#[test]
fn directory_and_other_files_do_not_replace_each_other() {
    let (_below, lower) = stack(vec![tar().dir("d").file("f", "").symlink("l", "d")]);
    written(&lower, |writer| {
        let said = |result: Result<(), LayerError>| result.unwrap_err().to_string();
        let refusal = |path: &str| format!("cannot copy to non-directory: /{path}");
        assert_eq!(said(writer.put_dir(b"f", &plain(0o755))), refusal("f"));
        assert_eq!(said(writer.put_dir(b"l", &plain(0o755))), refusal("l"));
        assert_eq!(
            said(writer.put_file(b"d", &mut &b""[..], &plain(0o644))),
            refusal("d")
        );
        assert_eq!(
            said(writer.put_symlink(b"d", b"x", &plain(0o644))),
            refusal("d")
        );
        assert_eq!(
            said(writer.put_file(b"f/x", &mut &b""[..], &plain(0o644))),
            refusal("f")
        );
        let result = writer.ensure_dir(b"f/x", 0o755, 0, 0).map(drop);
        assert_eq!(said(result), refusal("f"));
        writer.put_dir(b"d", &plain(0o700)).unwrap();
        writer
            .put_file(b"l", &mut &b"now a file"[..], &plain(0o644))
            .unwrap();
    });
}

#[test]
fn hard_links_holes_and_specials_are_put() {
    let (_layer, view, _) = written(&View::default(), |writer| {
        let source = tempfile::tempfile().unwrap();
        source.set_len(1 << 22).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&source, b"data", 3 << 20).unwrap();
        writer
            .put_file_from(b"sparse", &source, &plain(0o644))
            .unwrap();
        writer.put_hardlink(b"same", b"/sparse").unwrap();
        writer
            .put_symlink(b"link", b"sparse", &plain(0o777))
            .unwrap();
        let device = Device { major: 1, minor: 3 };
        writer
            .put_special(b"null", FileKind::CharDevice, device, &plain(0o666))
            .unwrap();
        writer
            .put_special(b"pipe", FileKind::Fifo, Device::default(), &plain(0o600))
            .unwrap();
    });
    assert_eq!(stat(&view, "same").ino, stat(&view, "sparse").ino);
    let node = view.lookup(b"sparse").unwrap().unwrap();
    let file = view.open_file(&node).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 22);
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
    let null = stat(&view, "null");
    assert_eq!(
        (null.kind, null.rdev.minor, null.mode),
        (FileKind::CharDevice, 3, 0o666)
    );
    assert_eq!(stat(&view, "pipe").kind, FileKind::Fifo);
}

#[test]
fn name_of_a_deletion_is_refused() {
    written(&View::default(), |writer| {
        let error = writer
            .put_file(b"d/.wh.x", &mut &b""[..], &plain(0o644))
            .unwrap_err();
        assert!(matches!(error, LayerError::ReservedName(_)));
    });
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let (_layer, view, _) = written(&View::default(), |writer| {
        writer
            .put_symlink(b"x", b"/etc/passwd", &plain(0o777))
            .unwrap();
        writer
            .put_file(b"x", &mut &b"1"[..], &plain(0o644))
            .unwrap();
        writer
            .put_file(b"x", &mut &b"22"[..], &plain(0o644))
            .unwrap();
    });
    assert_eq!(content(&view, "x").unwrap(), "22");
}

#[test]
fn archive_and_files_share_a_layer() {
    let archive = tar().dir("d").file("d/x", "from tar").end();
    let (_layer, view, _) = written(&View::default(), |writer| {
        writer
            .put_file(b"dest/d/y", &mut &b""[..], &plain(0o644))
            .unwrap();
        let limits = crate::layer::Limits::default();
        writer
            .extract(&mut &archive[..], b"dest", Some((3, 4)), limits)
            .unwrap();
    });
    assert_eq!(names(&view, "dest/d"), ["x", "y"]);
    assert_eq!(
        (stat(&view, "dest/d/x").uid, stat(&view, "dest").uid),
        (3, 0)
    );
}

#[test]
fn order_of_writing_does_not_change_the_stream() {
    let stream = |order: &[&str]| {
        let (layer, _, written) = written(&View::default(), |writer| {
            for path in order {
                writer
                    .put_file(path.as_bytes(), &mut &b"1"[..], &plain(0o644))
                    .unwrap();
            }
        });
        let mut stream = Vec::new();
        let stats = write_tar(&layer.layer_of(&written), &written.omit, &mut stream).unwrap();
        (stream, stats.content_id)
    };
    let one = stream(&["a/b", "a-b", "a/a", "z"]);
    assert!(one == stream(&["z", "a/a", "a-b", "a/b"]));
}
