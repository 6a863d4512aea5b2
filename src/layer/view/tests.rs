use super::*;
use crate::layer::testing::{TestLayer, TestTar, content, names, stack};

fn tar() -> TestTar {
    TestTar::new()
}

#[test]
fn upper_entries_whiteouts_and_opaque_directories_count() {
    let (_layers, view) = stack(vec![
        tar()
            .dir("d")
            .file("d/a", "1")
            .file("d/b", "1")
            .dir("o")
            .file("o/x", "1"),
        tar()
            .file("d/a", "2")
            .file("d/.wh.b", "")
            .dir("o")
            .file("o/.wh..wh..opq", "")
            .file("o/y", "2"),
    ]);
    assert_eq!(names(&view, "d"), ["a"]);
    assert_eq!(content(&view, "d/a").unwrap(), "2");
    assert!(view.lookup(b"d/b").unwrap().is_none());
    assert_eq!(names(&view, "o"), ["y"]);
    assert!(view.lookup(b"o/x").unwrap().is_none());
}

/// SEMANTICS 64
#[test]
fn removed_in_one_layer_and_made_in_the_next_hides_the_first() {
    let (_layers, view) = stack(vec![
        tar().dir("d").file("d/old", ""),
        tar().file(".wh.d", ""),
        tar().dir("d").file("d/new", ""),
    ]);
    assert_eq!(names(&view, "d"), ["new"]);
    assert!(view.lookup(b"d/old").unwrap().is_none());
}

#[test]
fn directory_over_a_file_over_a_directory_shows_only_itself() {
    let (_layers, view) = stack(vec![
        tar().dir("d").file("d/old", ""),
        tar().file("d", ""),
        tar().dir("d"),
    ]);
    assert_eq!(names(&view, "d"), Vec::<String>::new());
    assert!(view.lookup(b"d/old").unwrap().is_none());
}

#[test]
fn entry_below_a_file_of_an_upper_layer_is_hidden() {
    let (_layers, view) = stack(vec![tar().dir("d").file("d/old", ""), tar().file("d", "")]);
    assert!(view.lookup(b"d/old").unwrap().is_none());
    assert!(matches!(
        view.read_dir(b"d"),
        Err(LayerError::ThroughFile(_))
    ));
    assert!(matches!(
        view.resolve(b"d/x", true),
        Err(LayerError::ThroughFile(_))
    ));
}

#[test]
fn links_resolve_within_the_root_across_layers() {
    let (_layers, view) = stack(vec![
        tar().dir("usr").dir("usr/lib").symlink("lib", "/usr/lib"),
        tar()
            .file("usr/lib/x", "1")
            .symlink("up", "../../../../lib/x")
            .symlink("dangling", "a/b"),
    ]);
    assert_eq!(content(&view, "/lib/x").unwrap(), "1");
    assert_eq!(content(&view, "up").unwrap(), "1");
    assert_eq!(view.resolve(b"lib/../../..", true).unwrap().path, b"");
    assert_eq!(view.resolve(b"lib/..", true).unwrap().path, b"usr");
    let dangling = view.resolve(b"dangling/../c", true).unwrap();
    assert_eq!(
        (dangling.path, dangling.node.is_none()),
        (b"a/c".to_vec(), true)
    );
    let link = view.resolve(b"lib", false).unwrap();
    assert!(link.node.unwrap().stat.is_symlink());
}

#[test]
fn symlink_loop_ends_in_an_error() {
    let (_layers, view) = stack(vec![tar().symlink("a", "b").symlink("b", "a")]);
    assert!(matches!(
        view.resolve(b"a", true),
        Err(LayerError::TooManyLinks(_))
    ));
    assert!(view.resolve(b"a", false).is_ok());
}

#[test]
fn chain_of_links_up_to_the_limit_resolves() {
    let mut chain = tar().file("l0", "end");
    for at in 1..=255 {
        chain = chain.symlink(&format!("l{at}"), &format!("l{}", at - 1));
    }
    let (_layers, view) = stack(vec![chain.symlink("l256", "l255")]);
    assert_eq!(content(&view, "l255").unwrap(), "end");
    assert!(view.resolve(b"l256", true).is_err());
}

#[test]
fn devices_and_pipes_are_never_opened() {
    let (_layers, view) = stack(vec![tar().with(b'6', b"fifo", b"", b"", |_| ()).with(
        b'3',
        b"dev",
        b"",
        b"",
        |_| (),
    )]);
    for path in [&b"fifo"[..], b"dev"] {
        let node = view.lookup(path).unwrap().unwrap();
        assert!(matches!(
            view.open_file(&node),
            Err(LayerError::NotAFile(_))
        ));
    }
}

#[test]
fn a_layer_that_is_pushed_shows_at_once() {
    let (_layers, mut view) = stack(vec![tar().dir("d").file("d/a", "")]);
    assert_eq!(names(&view, "d"), ["a"]);
    let (upper, applied) = tar().file("d/b", "").apply_on(&view);
    view.push(upper.layer_of(&applied.unwrap()));
    assert_eq!(names(&view, "d"), ["a", "b"]);
}

/// SEMANTICS 66
#[test]
fn xattr_whiteouts_of_a_store_on_overlayfs_are_read() {
    let (layers, view) = stack(vec![
        tar().dir("d").file("d/a", ""),
        tar().dir("d").file("d/x", ""),
    ]);
    let upper = layers[1].fd();
    std::fs::write(layers[1].path("d/a"), b"").unwrap();
    let set = kiln_runtime::sys::file::set_xattr;
    set(upper, b"d/a", b"user.overlay.whiteout", b"y").unwrap();
    set(upper, b"d", b"user.overlay.opaque", b"x").unwrap();
    assert_eq!(names(&view, "d"), ["x"]);
}

#[test]
fn no_layers_are_an_empty_root() {
    let view = View::default();
    let root = view.root().unwrap();
    assert_eq!((root.stat.mode, root.stat.uid), (0o755, 0));
    assert!(view.xattrs(&root).unwrap().is_empty());
    assert!(names(&view, "/").is_empty());
    assert!(view.lookup(b"etc/passwd").unwrap().is_none());
}

/// Whatever was asked before a layer came, the answers afterwards are those of a view that was
/// never asked.
#[test]
fn what_is_remembered_of_lower_layers_never_shows_through_upper_ones() {
    const PATHS: [&str; 7] = ["a", "a/b", "a/b/c", "a/d", "e", "e/f", "g"];
    // A fixed sequence (xorshift), so that a failure comes again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |count: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % count as u64) as usize
    };
    for round in 0..60 {
        let mut asked = View::default();
        let mut kept = Vec::new();
        for layer in 0..8 {
            let directory = TestLayer::new();
            for path in PATHS {
                let target = directory.path(path);
                if !target.parent().is_some_and(std::path::Path::is_dir) {
                    continue;
                }
                match below(8) {
                    0 | 1 => std::fs::create_dir(target).unwrap(),
                    2 => std::fs::write(target, "").unwrap(),
                    kind @ (3 | 4) => {
                        let (name, value): (&[u8], &[u8]) = match kind {
                            3 => {
                                std::fs::write(&target, "").unwrap();
                                (b"user.overlay.whiteout", b"y")
                            }
                            _ => {
                                std::fs::create_dir(&target).unwrap();
                                (b"user.overlay.opaque", b"y")
                            }
                        };
                        let set = kiln_runtime::sys::file::set_xattr;
                        set(directory.fd(), path.as_bytes(), name, value).unwrap();
                        // Whiteouts by attribute count in directories that are marked.
                        let parent = path::split(path.as_bytes()).0;
                        if kind == 3 && !parent.is_empty() {
                            let mark = b"user.overlay.opaque";
                            let known = kiln_runtime::sys::file::get_xattr;
                            if known(directory.fd(), parent, mark).unwrap().is_none() {
                                set(directory.fd(), parent, mark, b"x").unwrap();
                            }
                        }
                    }
                    _ => {}
                }
            }
            asked.push(directory.layer());
            kept.push(directory);
            let fresh = View::new(asked.layers().to_vec());
            for path in PATHS {
                let shown = |view: &View| {
                    let node = view.lookup(path.as_bytes()).unwrap();
                    node.map(|node| (node.stat.kind, node.stat.ino, node.layers))
                };
                // Some are not asked for each time, so that memories are of various ages.
                if below(3) > 0 {
                    assert_eq!(
                        shown(&asked),
                        shown(&fresh),
                        "{round}: layer {layer}, {path}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_upper_layers_lack_is_asked_of_each_layer_once() {
    let layers = (0..20).map(|at| tar().dir("etc").file(&format!("etc/{at}"), ""));
    let (layers, mut view) = stack(layers.collect());
    assert!(view.lookup(b"etc/hosts").unwrap().is_none());
    // What is added by hand to a layer that was asked can't be seen: it was not looked at again.
    std::fs::write(layers[3].path("etc/hosts"), "").unwrap();
    let top = TestLayer::new();
    view.push(top.layer());
    assert!(view.lookup(b"etc/hosts").unwrap().is_none());
    assert!(
        View::new(view.layers().to_vec())
            .lookup(b"etc/hosts")
            .unwrap()
            .is_some()
    );
}
