use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::layer::testing::{TestLayer, TestTar, ownership, stack};
use crate::layer::{LayerDir, LayerWriter, UpperKind, diff, write_tar};

const NOW: Timestamp = Timestamp {
    seconds: 5_000_000,
    nanoseconds: 7,
};

/// Files of a workstation.
struct Source {
    directory: tempfile::TempDir,
    view: View,
}

impl Source {
    fn new() -> Source {
        let directory = tempfile::tempdir().unwrap();
        let view = View::new(vec![LayerDir::plain(
            fs::File::open(directory.path()).unwrap().into(),
        )]);
        Source { directory, view }
    }

    fn file(self, path: &str, content: &[u8]) -> Source {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        self
    }

    fn link(self, path: &str, target: &str) -> Source {
        symlink(target, self.directory.path().join(path)).unwrap();
        self
    }

    /// Returns all entries below the root, parents first.
    fn nodes(&self) -> Vec<Node> {
        let mut nodes = Vec::new();
        let mut pending = vec![Vec::new()];
        while let Some(path) = pending.pop() {
            for entry in self.view.read_dir(&path).unwrap() {
                if entry.node.stat.is_dir() {
                    pending.push(entry.node.path.clone());
                }
                nodes.push(entry.node);
            }
        }
        nodes.sort_by(|a, b| components(&a.path).cmp(components(&b.path)));
        nodes
    }
}

/// What a layer came to: its stream, and what is in its directory.
#[derive(PartialEq)]
struct Outcome {
    stream: Vec<u8>,
    content_id: crate::layer::ContentId,
    entries: u64,
    size: u64,
}

impl Outcome {
    fn of(layer: &LayerDir, omit: &crate::layer::Omit) -> Outcome {
        let mut stream = Vec::new();
        let stats = write_tar(layer, omit, &mut stream).unwrap();
        Outcome {
            stream,
            content_id: stats.content_id,
            entries: stats.entries,
            size: stats.size_bytes,
        }
    }
}

fn attributes_of(node: &Node, owner: u32) -> Attributes {
    Attributes {
        uid: owner,
        ..Attributes::of(&node.stat, Xattrs::new())
    }
}

/// Copies all of a source to `target` entry by entry, as it is done where the short way can't
/// be taken.
fn the_long_way(source: &Source, lower: &View, target: &str, owner: u32) -> Outcome {
    let layer = TestLayer::new();
    let writer = LayerWriter::new(layer.fd(), lower, ownership()).unwrap();
    let mut writer = writer.with_now(NOW);
    let base = writer.ensure_dir(target.as_bytes(), 0o755, 0, 0).unwrap();
    let mut first_names: HashMap<u64, Vec<u8>> = HashMap::new();
    for node in source.nodes() {
        let path = path::join(&base, &node.path);
        let attributes = attributes_of(&node, owner);
        match node.stat.kind {
            FileKind::Directory => writer.put_dir(&path, &attributes).unwrap(),
            FileKind::Symlink => {
                let link = source.view.read_link(&node).unwrap();
                writer.put_symlink(&path, &link, &attributes).unwrap();
            }
            _ if first_names.contains_key(&node.stat.ino) => {
                writer
                    .put_hardlink(&path, &first_names[&node.stat.ino])
                    .unwrap();
            }
            _ => {
                let file = source.view.open_file(&node).unwrap();
                writer.put_file_from(&path, &file, &attributes).unwrap();
                first_names.insert(node.stat.ino, path);
            }
        }
    }
    let written = writer.finish().unwrap();
    let directory = layer.layer_of(&written).with_own_root(true);
    let changes = diff(&directory, lower, UpperKind::Overlay).unwrap();
    let directory = directory
        .with_overrides(changes.overrides.clone())
        .with_own_root(!changes.omit.root);
    Outcome::of(&directory, &changes.omit)
}

/// The same in one pass. Returns what was hashed, and what the directory's own stream is.
fn the_short_way(
    source: &Source,
    lower: &View,
    target: &str,
    owner: u32,
) -> Option<(Outcome, Outcome)> {
    let mut assembly = Assembly::new(lower, NOW);
    let created = Attributes {
        mode: 0o755,
        ..Attributes::default()
    };
    let base = assembly.ensure_dir(target.as_bytes(), &created).unwrap();
    let nodes = source.nodes();
    let mut first_names: HashMap<u64, Vec<u8>> = HashMap::new();
    for node in &nodes {
        let path = path::join(&base, &node.path);
        let content = match node.stat.kind {
            FileKind::Directory => Content::Directory,
            FileKind::Symlink => Content::Symlink(source.view.read_link(node).unwrap()),
            _ => match first_names.get(&node.stat.ino) {
                Some(first) => Content::HardLink(first.clone()),
                None => {
                    first_names.insert(node.stat.ino, path.clone());
                    Content::File {
                        view: &source.view,
                        node,
                        hash: hash_of(&source.view, node).unwrap(),
                    }
                }
            },
        };
        let attributes = attributes_of(node, owner);
        assembly
            .put(path, node.stat.kind, attributes, content)
            .unwrap();
    }
    let plan = assembly.plan().unwrap()?;
    let layer = TestLayer::new();
    let mut stream = Vec::new();
    let made = plan
        .write(layer.fd(), lower, ownership(), &mut stream)
        .unwrap();
    assert!(made.is_stable);
    let hashed = Outcome {
        stream,
        content_id: made.stats.content_id,
        entries: made.stats.entries,
        size: made.stats.size_bytes,
    };
    let omit = crate::layer::Omit {
        root: true,
        ..Default::default()
    };
    let directory = layer.layer().with_overrides(made.overrides);
    Some((hashed, Outcome::of(&directory, &omit)))
}

#[track_caller]
fn assert_both_ways_agree(source: &Source, lower: &View, target: &str, owner: u32) {
    let (hashed, written) = the_short_way(source, lower, target, owner).expect("a short way");
    assert!(hashed == written, "the directory is not what was hashed");
    let long = the_long_way(source, lower, target, owner);
    let names = |outcome: &Outcome| {
        let mut input = &outcome.stream[..];
        let mut reader = crate::layer::reader::TarReader::new(&mut input);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push((escape(&entry.name), entry.mtime, entry.mode));
        }
        names
    };
    assert_eq!(names(&hashed), names(&long));
    assert!(hashed == long, "the ways differ");
}

fn workstation() -> Source {
    let source = Source::new()
        .file("a/b/x", b"x")
        .file("a/b.c/y", b"")
        .file("a-b", &[7; 512])
        .file("a/large", &vec![3; 700_000])
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        .link("a/link", "../etc");
    fs::hard_link(
        source.directory.path().join("a/b/x"),
        source.directory.path().join("a/z"),
    )
    .unwrap();
    source
}

#[test]
fn layer_on_nothing_is_that_of_the_writer() {
    let source = workstation();
    for target in ["/", "/new/dir"] {
        for owner in [0, 5, 3_000_000_000] {
            assert_both_ways_agree(&source, &View::default(), target, owner);
        }
    }
}

#[test]
fn layer_on_other_layers_is_that_of_the_writer() {
    let (_layers, lower) = stack(vec![
        TestTar::new()
            .dir("etc")
            .file("etc/passwd", "old")
            .file("etc/other", "stays")
            .with(b'5', b"srv/", b"", b"", |a| (a.mode, a.uid) = (0o1770, 7))
            .symlink("to-srv", "/srv")
            .symlink("srv/a-b", "/etc/passwd"),
    ]);
    let source = workstation();
    for target in ["/", "/srv", "/to-srv", "/to-srv/deep/er", "/etc"] {
        assert_both_ways_agree(&source, &lower, target, 0);
    }
}

#[test]
fn what_is_there_already_is_left_out_as_by_the_writer() {
    let source = Source::new()
        .file("d/x", b"x")
        .file("d/e/y", b"y")
        .link("l", "d");
    let whole = |node: &Node, change: &mut Attributes| {
        change.mode = node.stat.mode;
        change.mtime = Some(node.stat.mtime);
    };
    let mut tar = TestTar::new();
    for node in source.nodes() {
        let (flag, name): (u8, Vec<u8>) = match node.stat.kind {
            FileKind::Directory => (b'5', [&node.path[..], b"/"].concat()),
            FileKind::Symlink => (b'2', node.path.clone()),
            _ => (b'0', node.path.clone()),
        };
        let data = match node.stat.kind {
            FileKind::File => fs::read(source.directory.path().join(escape(&node.path))).unwrap(),
            _ => Vec::new(),
        };
        // The stream has whole seconds only: times are cut off on both sides.
        let link: &[u8] = if flag == b'2' { b"d" } else { b"" };
        tar = tar.with(flag, &name, link, &data, |a| whole(&node, a));
    }
    let cut = fs::FileTimes::new().set_modified(
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000),
    );
    let (_layers, lower) = stack(vec![tar]);
    assert_both_ways_agree(&source, &lower, "/", 0);
    for name in ["d/x", "d/e/y", "d/e", "d"] {
        let file = fs::File::open(source.directory.path().join(name)).unwrap();
        file.set_times(cut).unwrap();
    }
    let (_layers, lower) = stack(vec![
        TestTar::new()
            .with(b'5', b"d/", b"", b"", |a| {
                a.mode = source.nodes()[0].stat.mode
            })
            .with(b'0', b"d/x", b"", b"x", |a| a.mode = 0o640),
    ]);
    assert_both_ways_agree(&source, &lower, "/", 0);
    let (hashed, _) = the_short_way(&source, &lower, "/", 0).unwrap();
    let text = String::from_utf8_lossy(&hashed.stream).into_owned();
    assert!(!text.contains("d/x"), "it is there, to the last nanosecond");
    assert!(text.contains("d/e/y"));
}

#[test]
fn directories_and_other_files_do_not_replace_each_other() {
    let (_layers, lower) = stack(vec![
        TestTar::new()
            .dir("t")
            .dir("t/x")
            .file("t/d", "a file")
            .symlink("t/l", "/"),
    ]);
    let refused = |path: &[u8], kind, content| {
        let mut assembly = Assembly::new(&lower, NOW);
        let put = assembly.put(path.to_vec(), kind, Attributes::default(), content);
        put.and_then(|()| assembly.plan().map(drop))
            .unwrap_err()
            .to_string()
    };
    let (file, directory) = (FileKind::File, FileKind::Directory);
    assert_eq!(
        refused(b"t/x", file, Content::Bytes(b"")),
        "cannot copy to non-directory: /t/x"
    );
    for path in ["t/d", "t/l"] {
        assert_eq!(
            refused(path.as_bytes(), directory, Content::Directory),
            format!("cannot copy to non-directory: /{path}")
        );
    }
    assert!(refused(b"t/.wh.x", file, Content::Bytes(b"")).contains(".wh.x"));
    // Among the sources of one copy as well.
    let mut assembly = Assembly::new(&lower, NOW);
    for (kind, content) in [(file, Content::Bytes(b"")), (directory, Content::Directory)] {
        let path = b"t/new".to_vec();
        assembly
            .put(path, kind, Attributes::default(), content)
            .unwrap();
    }
    assert!(matches!(assembly.plan(), Err(LayerError::NotADirectory(_))));
}

#[test]
fn what_was_put_later_counts() {
    let lower = View::default();
    let mut assembly = Assembly::new(&lower, NOW);
    for content in ["one", "two"] {
        let content = Content::Bytes(content.as_bytes());
        assembly
            .put(
                b"f".to_vec(),
                FileKind::File,
                Attributes::default(),
                content,
            )
            .unwrap();
    }
    let layer = TestLayer::new();
    let plan = assembly.plan().unwrap().unwrap();
    plan.write(layer.fd(), &lower, ownership(), &mut Vec::new())
        .unwrap();
    assert_eq!(fs::read(layer.path("f")).unwrap(), b"two");
}

#[test]
fn a_file_that_has_changed_is_copied_as_it_is_and_told() {
    let source = Source::new().file("a", b"before").file("b", b"same");
    let nodes = source.nodes();
    let lower = View::default();
    let mut assembly = Assembly::new(&lower, NOW);
    for node in &nodes {
        let content = Content::File {
            view: &source.view,
            node,
            hash: hash_of(&source.view, node).unwrap(),
        };
        let attributes = attributes_of(node, 0);
        assembly
            .put(node.path.clone(), FileKind::File, attributes, content)
            .unwrap();
    }
    let plan = assembly.plan().unwrap().unwrap();
    fs::write(source.directory.path().join("a"), b"now").unwrap();
    let layer = TestLayer::new();
    let mut stream = Vec::new();
    let made = plan
        .write(layer.fd(), &lower, ownership(), &mut stream)
        .unwrap();
    assert!(!made.is_stable);
    assert_eq!(fs::read(layer.path("a")).unwrap(), b"now");
    let omit = crate::layer::Omit {
        root: true,
        ..Default::default()
    };
    let written = Outcome::of(&layer.layer(), &omit);
    assert!(written.stream == stream);
    assert_eq!(written.content_id, made.stats.content_id);
}

#[test]
fn many_files_come_out_in_order() {
    let mut source = Source::new();
    for index in 0..3000 {
        let content = vec![b'x'; index % 5000];
        source = source.file(&format!("d{}/f{index}", index % 7), &content);
    }
    assert_both_ways_agree(&source, &View::default(), "/", 0);
}

#[test]
fn an_error_of_a_worker_ends_all() {
    let source = Source::new().file("a", b"a").file("b", b"b");
    let nodes = source.nodes();
    let lower = View::default();
    let mut assembly = Assembly::new(&lower, NOW);
    for node in &nodes {
        let content = Content::File {
            view: &source.view,
            node,
            hash: [0; 32],
        };
        let attributes = attributes_of(node, 0);
        assembly
            .put(node.path.clone(), FileKind::File, attributes, content)
            .unwrap();
    }
    let plan = assembly.plan().unwrap().unwrap();
    fs::remove_file(source.directory.path().join("b")).unwrap();
    let layer = TestLayer::new();
    let made = plan.write(layer.fd(), &lower, ownership(), &mut Vec::new());
    assert!(matches!(made, Err(LayerError::System { .. })));
}
