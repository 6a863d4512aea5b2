use std::os::unix::fs::{MetadataExt as _, symlink};

use super::*;
use crate::layer::Attributes;
use crate::layer::stat::Timestamp;
use crate::layer::testing::{TestLayer, TestTar, content, names, ownership, stack, stream_names};
use crate::layer::{
    ApplyMode, ApplyOptions, LayerWriter, Limits, apply, write_contents, write_tar,
};

fn tar() -> TestTar {
    TestTar::new()
}

/// Copies an entry up as overlayfs does.
fn copy_up(upper: &TestLayer, lower: &View, paths: &[&str]) {
    let empty = View::default();
    let mut writer = LayerWriter::new(upper.fd(), &empty, ownership()).unwrap();
    for path in paths {
        let node = lower.lookup(path.as_bytes()).unwrap().unwrap();
        let attributes = Attributes::of(&node.stat, lower.xattrs(&node).unwrap());
        let path = path.as_bytes();
        match node.stat.kind {
            FileKind::Directory => writer.replace_dir(path, &attributes),
            FileKind::Symlink => {
                let target = lower.read_link(&node).unwrap();
                writer.put_symlink(path, &target, &attributes)
            }
            _ => writer.put_file_from(path, &lower.open_file(&node).unwrap(), &attributes),
        }
        .unwrap();
    }
    writer.finish().unwrap();
}

fn whiteout(upper: &TestLayer, path: &str) {
    whiteout::make_whiteout(upper.fd(), path.as_bytes()).unwrap();
}

/// Returns the names in the stream of what differs.
fn streamed(upper: &TestLayer, lower: &View) -> Vec<String> {
    let layer = upper.layer();
    let (diff, contents) = diff_with_contents(&layer, lower, UpperKind::Overlay).unwrap();
    let layer = layer.with_overrides(diff.overrides);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let stats = write_contents(&layer, &contents, &mut one).unwrap();
    assert_eq!(
        stats,
        write_tar(&layer, &diff.omit, &mut other).unwrap(),
        "what was seen, and what is there"
    );
    assert!(one == other);
    let names = stream_names(&layer, &diff.omit);
    assert_eq!(diff.empty, names.is_empty());
    names
}

/// SEMANTICS 65
#[test]
fn identical_copied_up_entries_are_dropped() {
    let (_below, lower) = stack(vec![
        tar()
            .dir("d")
            .file("d/same", "1")
            .file("d/changed", "1")
            .symlink("d/link", "x")
            .dir("e")
            .file("e/f", ""),
    ]);
    let upper = TestLayer::new();
    copy_up(
        &upper,
        &lower,
        &["d", "d/same", "d/changed", "d/link", "e", "e/f"],
    );
    assert_eq!(streamed(&upper, &lower), Vec::<String>::new());
    std::fs::write(upper.path("d/changed"), "2").unwrap();
    assert_eq!(streamed(&upper, &lower), ["d/", "d/changed"]);
}

#[test]
fn content_counts_where_size_and_time_are_equal() {
    let (_below, lower) = stack(vec![tar().file("f", "one")]);
    let (upper, _) = tar().file("f", "two").apply();
    assert_eq!(streamed(&upper, &lower), ["f"]);
}

/// SEMANTICS 65
#[test]
fn time_alone_counts_as_a_change() {
    let (_below, lower) = stack(vec![tar().file("f", "one").dir("d")]);
    let later = |a: &mut Attributes| a.mtime = Some(Timestamp::from_seconds(2_000_000));
    let (upper, _) = tar()
        .with(b'0', b"f", b"", b"one", later)
        .with(b'5', b"d/", b"", b"", later)
        .apply();
    assert_eq!(streamed(&upper, &lower), ["d/", "f"]);
}

/// SEMANTICS 65
#[test]
fn directory_whose_mode_alone_changed_is_one_entry() {
    let (_below, lower) = stack(vec![tar().dir("d").file("d/x", "").file("d/y", "")]);
    let (upper, _) = tar()
        .with(b'5', b"d/", b"", b"", |a| a.mode = 0o711)
        .apply();
    assert_eq!(streamed(&upper, &lower), ["d/"]);
}

/// SEMANTICS 65, SEMANTICS 70
#[test]
fn hard_link_to_a_lower_file_keeps_both_names() {
    let (_below, lower) = stack(vec![tar().file("low", "data")]);
    let upper = TestLayer::new();
    copy_up(&upper, &lower, &["low"]);
    assert_eq!(streamed(&upper, &lower), Vec::<String>::new());
    std::fs::hard_link(upper.path("low"), upper.path("anew")).unwrap();
    assert_eq!(streamed(&upper, &lower), ["anew", "low"]);
}

#[test]
fn files_that_were_two_and_became_one_inode_are_kept() {
    let (_below, lower) = stack(vec![tar().file("a", "same").file("b", "same")]);
    let (upper, _) = tar().file("a", "same").hardlink("b", "a").apply();
    assert_eq!(streamed(&upper, &lower), ["a", "b"]);
}

#[test]
fn whiteouts_of_what_never_was_below_are_dropped() {
    let (_below, lower) = stack(vec![tar().file("old", "").dir("d").file("d/x", "")]);
    let upper = TestLayer::new();
    whiteout(&upper, "old");
    whiteout(&upper, "never");
    std::fs::create_dir(upper.path("new")).unwrap();
    whiteout(&upper, "new/never");
    assert_eq!(streamed(&upper, &lower), [".wh.old", "new/"]);
}

/// SEMANTICS 64
#[test]
fn directory_made_again_is_opaque_and_its_marker_comes_first() {
    let (_below, lower) = stack(vec![tar().dir("d").file("d/old", "")]);
    let upper = TestLayer::new();
    std::fs::create_dir(upper.path("d")).unwrap();
    std::fs::write(upper.path("d/!first"), "").unwrap();
    whiteout::make_opaque(upper.fd(), b"d").unwrap();
    assert_eq!(
        streamed(&upper, &lower),
        ["d/", "d/.wh..wh..opq", "d/!first"]
    );
}

#[test]
fn opaque_marker_over_nothing_is_omitted() {
    let (_below, lower) = stack(vec![tar().file("f", "")]);
    let upper = TestLayer::new();
    for name in ["d", "f"] {
        std::fs::create_dir(upper.path(name)).unwrap();
        whiteout::make_opaque(upper.fd(), name.as_bytes()).unwrap();
    }
    assert_eq!(streamed(&upper, &lower), ["d/", "f/"]);
}

/// SEMANTICS 62
#[test]
fn whiteouts_precede_their_siblings() {
    let (_below, lower) = stack(vec![tar().dir("d").file("d/zz", "").file("d/a", "")]);
    let upper = TestLayer::new();
    copy_up(&upper, &lower, &["d"]);
    std::fs::write(upper.path("d/!x"), "").unwrap();
    whiteout(&upper, "d/zz");
    assert_eq!(streamed(&upper, &lower), ["d/", "d/.wh.zz", "d/!x"]);
}

/// SEMANTICS 62
#[test]
fn file_of_a_user_with_the_prefix_of_deletions_is_refused() {
    let upper = TestLayer::new();
    std::fs::write(upper.path(".wh.mine"), "").unwrap();
    let error = diff(&upper.layer(), &View::default(), UpperKind::Overlay).unwrap_err();
    assert!(matches!(&error, LayerError::ReservedName(name) if name == ".wh.mine"));
    assert!(error.hint().is_some());
}

/// SEMANTICS 66
#[test]
fn fuse_overlayfs_forms_become_those_of_the_kernel() {
    let (_below, lower) = stack(vec![
        tar()
            .file("old", "")
            .dir("d")
            .file("d/x", "")
            .dir("e")
            .file("e/x", ""),
    ]);
    let upper = TestLayer::new();
    std::fs::write(upper.path(".wh.old"), "").unwrap();
    std::fs::create_dir(upper.path("d")).unwrap();
    std::fs::write(upper.path("d/.wh..wh..opq"), "").unwrap();
    std::fs::create_dir(upper.path("e")).unwrap();
    let set = kiln_runtime::sys::file::set_xattr;
    set(upper.fd(), b"e", b"user.fuseoverlayfs.opaque", b"y").unwrap();
    let layer = upper.layer();
    let diff = diff(&layer, &lower, UpperKind::Fuse).unwrap();
    let expected = [".wh.old", "d/", "d/.wh..wh..opq", "e/", "e/.wh..wh..opq"];
    assert_eq!(stream_names(&layer, &diff.omit), expected);
    let mut view = lower.clone();
    view.push(layer);
    assert_eq!(names(&view, ""), ["d", "e"]);
    assert!(names(&view, "d").is_empty());
}

#[test]
fn socket_is_skipped_but_what_it_replaced_is_gone() {
    let (_below, lower) = stack(vec![tar().file("was-file", "")]);
    let upper = TestLayer::new();
    for name in ["was-file", "new"] {
        std::os::unix::net::UnixListener::bind(upper.path(name)).unwrap();
    }
    assert_eq!(streamed(&upper, &lower), [".wh.was-file"]);
}

#[test]
fn root_is_an_entry_where_its_attributes_changed() {
    let (_below, lower) = stack(vec![tar().with(b'5', b"./", b"", b"", |_| ())]);
    for (mode, expected) in [(0o755, &[][..]), (0o700, &["./"])] {
        let (upper, applied) = tar().with(b'5', b"./", b"", b"", |a| a.mode = mode).apply();
        let layer = upper.layer_of(&applied);
        let diff = diff(&layer, &lower, UpperKind::Overlay).unwrap();
        assert_eq!(stream_names(&layer, &diff.omit), expected);
    }
}

#[test]
fn record_of_a_link_is_taken_over_when_it_is_copied_up() {
    let (_below, lower) = stack(vec![tar().dir("d").with(b'2', b"d/link", b"x", b"", |a| {
        (a.uid, a.gid) = (0x8000_0000, 7)
    })]);
    let upper = TestLayer::new();
    copy_up(&upper, &lower, &["d", "d/link"]);
    assert_eq!(streamed(&upper, &lower), Vec::<String>::new());
}

/// SEMANTICS 67
#[test]
fn stream_applied_elsewhere_is_the_same_tree_and_stream() {
    let (_below, lower) = stack(vec![
        tar()
            .dir("etc")
            .file("etc/a", "1")
            .file("etc/b", "1")
            .dir("gone")
            .file("gone/x", "")
            .dir("again")
            .file("again/x", ""),
    ]);
    let upper = TestLayer::new();
    copy_up(&upper, &lower, &["etc", "etc/a"]);
    std::fs::write(upper.path("etc/a"), "2").unwrap();
    whiteout(&upper, "etc/b");
    whiteout(&upper, "gone");
    std::fs::create_dir(upper.path("again")).unwrap();
    whiteout::make_opaque(upper.fd(), b"again").unwrap();
    symlink("etc/a", upper.path("link")).unwrap();
    std::fs::hard_link(upper.path("etc/a"), upper.path("zz")).unwrap();
    let layer = upper.layer();
    let diff = diff(&layer, &lower, UpperKind::Overlay).unwrap();
    let mut stream = Vec::new();
    let stats = write_tar(&layer, &diff.omit, &mut stream).unwrap();
    assert_eq!(stats.stream_bytes, stream.len() as u64);

    let other = TestLayer::new();
    let options = ApplyOptions {
        ownership: ownership(),
        lower: &lower,
        mode: ApplyMode::Layer,
        limits: Limits::default(),
    };
    let applied = apply(&mut &stream[..], other.fd(), &options).unwrap();
    assert!(applied.self_contained);
    let mut view = lower.clone();
    view.push(other.layer_of(&applied));
    assert_eq!(names(&view, ""), ["again", "etc", "link", "zz"]);
    assert_eq!(names(&view, "etc"), ["a"]);
    assert!(names(&view, "again").is_empty());
    assert_eq!(content(&view, "zz").unwrap(), "2");
    let (zz, a) = (other.path("zz"), other.path("etc/a"));
    assert_eq!(zz.metadata().unwrap().ino(), a.metadata().unwrap().ino());
    let mut again = Vec::new();
    let second = write_tar(&other.layer_of(&applied), &applied.omit, &mut again).unwrap();
    assert!(again == stream);
    assert_eq!(second.content_id, stats.content_id);
}
