//! What files have beside their content survives every way that an image goes: into the store
//! and out of it, through registries, and through programs that know nothing of kiln.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ocipkg::image::{OciArchive, OciArchiveBuilder, copy};
use serde_json::json;
use support::{FaultyRegistry, Image, Kiln, Kind, Registry, Tree, has_program, require, run};

/// A file capability as version 2 has it: `cap_net_raw=ep`.
/// See capabilities(7), and `struct vfs_cap_data` of linux/capability.h.
const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// An ACL that lets the user 1234 read and the group 3,000,000 read and write.
/// See `struct posix_acl_xattr_header` of linux/posix_acl_xattr.h.
fn acl() -> Vec<u8> {
    let undefined = u32::MAX;
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01_u16, 6_u16, undefined),
        (0x02, 4, 1234),
        (0x04, 4, undefined),
        (0x08, 6, 3_000_000),
        (0x10, 6, undefined),
        (0x20, 0, undefined),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// A tar of what is rare.
struct Rare(tar::Builder<Vec<u8>>);

impl Rare {
    fn pax(&mut self, records: &[(&str, &[u8])]) {
        let mut data = Vec::new();
        for (key, value) in records {
            // A record begins with its own length, whose digits count too.
            let rest = key.len() + value.len() + 3;
            let mut length = rest;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.append(&header, data.as_slice()).unwrap();
    }

    fn add(&mut self, name: &[u8], kind: tar::EntryType, content: &[u8]) {
        self.add_as(name, kind, content, |_| {});
    }

    fn add_as(
        &mut self,
        name: &[u8],
        kind: tar::EntryType,
        content: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) {
        let mut header = tar::Header::new_ustar();
        let short = name.len().min(100);
        header.as_mut_bytes()[..short].copy_from_slice(&name[..short]);
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o640 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_234_567_890);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
    }
}

/// Returns a path of so many bytes.
fn long_path(length: usize) -> Vec<u8> {
    let part = [&b"d"[..], &[b'x'; 200]].concat();
    let mut path = b"deep".to_vec();
    while path.len() + part.len() + 1 < length {
        path.push(b'/');
        path.extend_from_slice(&part);
    }
    path.push(b'/');
    path.resize(length, b'f');
    path
}

/// Returns a layer of all that is rare. With `devices`, those too, which COPY can't make.
fn rare_layer(devices: bool) -> Vec<u8> {
    use tar::EntryType as T;
    let mut rare = Rare(tar::Builder::new(Vec::new()));
    rare.pax(&[("SCHILY.xattr.system.posix_acl_access", &acl())]);
    rare.add_as(b"acl", T::Regular, b"shared\n", |header| {
        header.set_mode(0o660)
    });
    rare.pax(&[("SCHILY.xattr.security.capability", &CAPABILITY)]);
    rare.add_as(b"capable", T::Regular, b"\x7fELF", |header| {
        header.set_mode(0o755)
    });
    rare.add(b"deep/", T::Directory, b"");
    let deep = long_path(4095);
    for (slash, _) in deep
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .skip(1)
    {
        rare.pax(&[("path", &deep[..=slash])]);
        rare.add(&deep[..=slash], T::Directory, b"");
    }
    rare.pax(&[("path", &deep)]);
    rare.add(&deep, T::Regular, b"at the bottom\n");
    rare.add(b"fifo", T::Fifo, b"");
    rare.add(b"first", T::Regular, b"linked\n");
    rare.add_as(b"second", T::Link, b"", |header| {
        header.set_link_name("first").unwrap()
    });
    rare.pax(&[("uid", b"3000000"), ("gid", b"4294967294")]);
    rare.add(b"far", T::Regular, b"of far users\n");
    rare.add(b"n\xff\xfeme", T::Regular, b"no text\n");
    rare.add_as(b"set", T::Regular, b"set ids\n", |header| {
        header.set_mode(0o6755)
    });
    rare.add(b"sparse", T::Regular, &vec![0; 900_000]);
    rare.add_as(b"sticky/", T::Directory, b"", |header| {
        header.set_mode(0o1777)
    });
    let target = "t/".repeat(40);
    rare.add_as(b"link", T::Symlink, b"", |header| {
        header.set_mode(0o777);
        header.set_link_name(&target).unwrap();
    });
    rare.pax(&[
        ("SCHILY.xattr.user.text", b"value"),
        ("SCHILY.xattr.user.binary", b"\x00\x01=\n\xff"),
    ]);
    rare.add(b"xattrs", T::Regular, b"");
    if devices {
        for (name, kind, (major, minor)) in [("null", T::Char, (1, 3)), ("loop", T::Block, (7, 9))]
        {
            rare.add_as(name.as_bytes(), kind, b"", |header| {
                header.set_device_major(major).unwrap();
                header.set_device_minor(minor).unwrap();
            });
        }
    }
    rare.0.into_inner().unwrap()
}

/// Returns all that is known of each path, times too, which `compare_trees` leaves out.
fn described(tree: &Tree) -> Vec<String> {
    let describe = |path: String| format!("{path}: {:?}", tree.file(&path));
    // The root is what the base says of it.
    tree.paths()
        .filter(|path| path != "/" && !path.contains('\u{fffd}'))
        .map(describe)
        .collect()
}

#[track_caller]
fn assert_same(found: &Tree, expected: &Tree) {
    assert_eq!(support::compare_trees(found, expected), []);
    let (found, expected) = (described(found), described(expected));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

fn tool(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    run(command.args(arguments), Duration::from_secs(60)).ok();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn diff_ids(image: &Image) -> serde_json::Value {
    image.config["rootfs"]["diff_ids"].clone()
}

/// SEMANTICS 67, 68, 69, 70: pull → build → push → pull.
#[test]
fn base_layer_comes_back_as_it_came_with_its_devices() {
    let (base, registry) = (FaultyRegistry::start(), Registry::start());
    let layer = rare_layer(true);
    base.image_of("rare", &layer, json!({}));
    let mut expected = Tree::default();
    expected.apply(layer.as_slice());
    assert_eq!(expected.file("/far").gid, 4_294_967_294);
    assert_eq!(expected.file("/null").kind, Kind::CharDevice);

    let kiln = Kiln::new();
    let from = base.reference("rare");
    kiln.build(
        &format!("FROM {from}\nCOPY own /own\n"),
        &[("own", "own\n")],
    )
    .ok();
    let name = registry.reference("rare:1");
    kiln.run(["tag", "test", &name]).ok();
    kiln.run(["push", &name]).ok();
    let other = Kiln::new();
    other.run(["pull", &name]).ok();
    let image = other.image(&name);
    let own = image.tree.file("/own").clone();
    assert_eq!(own.content(), b"own\n");
    let mut with_own = expected;
    let mut copied = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(own.mode);
    header.set_uid(own.uid);
    header.set_gid(own.gid);
    header.set_mtime(own.mtime);
    copied
        .append_data(&mut header, "own", &b"own\n"[..])
        .unwrap();
    with_own.apply(copied.into_inner().unwrap().as_slice());
    assert_same(&image.tree, &with_own);
    // The trees that it was extracted to are whole, byte for byte.
    other.run(["fsck"]).ok();
}

/// Here kiln reads the trees that it keeps, and writes the layer: SEMANTICS 62 to 71.
#[test]
fn layer_that_kiln_writes_of_a_tree_is_the_same_again_and_again() {
    let (base, registry) = (FaultyRegistry::start(), Registry::start());
    let layer = rare_layer(false);
    base.image_of("rare", &layer, json!({}));
    let mut expected = Tree::default();
    expected.apply(layer.as_slice());
    let kiln = Kiln::new();
    let again = |kiln: &Kiln, from: &str| {
        kiln.build(
            &format!("FROM {from} AS rare\nFROM scratch\nCOPY --from=rare / /\n"),
            &[],
        )
        .ok();
        kiln.image("test")
    };
    let first = again(&kiln, &base.reference("rare"));
    assert_same(&first.tree, &expected);
    let name = registry.reference("rare:1");
    kiln.run(["tag", "test", &name]).ok();
    kiln.run(["push", &name]).ok();
    // A copy of a copy, in another store, is the same layer.
    let other = Kiln::new();
    let second = again(&other, &name);
    assert_eq!(diff_ids(&second), diff_ids(&first));
}

/// SEMANTICS 67 to 71 through skopeo, umoci and ocipkg: the same digests and the same trees.
#[test]
fn round_trips_through_other_programs_change_nothing() {
    require!(has_program("skopeo"), "no skopeo");
    require!(has_program("umoci"), "no umoci");
    let (base, registry) = (FaultyRegistry::start(), Registry::start());
    base.image_of("rare", &rare_layer(true), json!({}));
    let kiln = Kiln::new();
    kiln.build(
        &format!("FROM {}\nCOPY own /own\n", base.reference("rare")),
        &[("own", "own\n")],
    )
    .ok();
    let sent = kiln.image("test");
    let name = registry.reference("sent:1");
    kiln.run(["tag", "test", &name]).ok();
    kiln.run(["push", &name]).ok();

    // skopeo: from the registry into a layout, and back under another name.
    let layout = kiln.sandbox().join("layout");
    let place = format!("oci:{}:1", text(&layout));
    let remote = format!("docker://{name}");
    let returned = registry.reference("returned:1");
    let back = format!("docker://{returned}");
    let quiet = ["--insecure-policy", "copy", "--quiet"];
    let from = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    tool("skopeo", &[&quiet[..], &from, &[&remote, &place]].concat());
    tool("skopeo", &[&quiet[..], &from, &[&place, &back]].concat());
    let other = Kiln::new();
    let pulled = other.run(["pull", "-q", &returned]).ok().line();
    assert_eq!(pulled, sent.id);
    assert_same(&other.image(&returned).tree, &sent.tree);
    // The same manifest: nothing was written anew.
    let digest = |name: &str| {
        let copied = ["copy", "-q", name, "oci:scrap:x"];
        kiln.run(copied).ok().line()
    };
    assert_eq!(digest(&returned), digest(&name));

    // umoci: another config over the same layers.
    let image = format!("{}:1", text(&layout));
    tool(
        "umoci",
        &["config", "--image", &image, "--config.label", "by=umoci"],
    );
    other.run(["copy", "-q", &place, "store:umoci"]).ok();
    let changed = other.image("umoci");
    assert_eq!(changed.setting("Labels")["by"], "umoci");
    assert_eq!(diff_ids(&changed), diff_ids(&sent));
    assert_same(&changed.tree, &sent.tree);

    // ocipkg: an archive into another, blob by blob.
    let (written, archive) = (
        kiln.sandbox().join("written.tar"),
        kiln.sandbox().join("archive.tar"),
    );
    let place = format!("oci-archive:{}:localhost/a:1", text(&archive));
    kiln.run(["copy", "-q", &name, &place]).ok();
    let to = ocipkg::ImageName::parse("localhost/written:2").unwrap();
    let to = OciArchiveBuilder::new(written.clone(), to).unwrap();
    copy(&mut OciArchive::new(&archive).unwrap(), to).unwrap();
    other.run(["load", "-i", text(&written)]).ok();
    let loaded = other.image("localhost/written:2");
    assert_eq!(loaded.id, sent.id);
    assert_same(&loaded.tree, &sent.tree);
}

/// How large the sparse files are, each: several times what kiln may hold in memory.
const SPARSE: u64 = 512 << 20;

/// Where they have data: in the middle of a page too, and to the last byte.
fn islands() -> [(u64, &'static [u8]); 3] {
    [
        (0, b"begin"),
        (SPARSE / 2 - 3, b"middle"),
        (SPARSE - 3, b"end"),
    ]
}

/// Asserts that a file is as it was made, byte for byte; with `is_sparse`, in little space.
#[track_caller]
fn assert_sparse(path: &Path, is_sparse: bool) {
    let mut file = File::open(path).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), SPARSE, "{}", path.display());
    let space = metadata.blocks() * 512;
    assert!(!is_sparse || space <= 1 << 20, "{space} bytes on disk");
    let zeros = vec![0; 1 << 20];
    let (mut found, mut at) = (Vec::new(), 0);
    let mut piece = vec![0; zeros.len()];
    while at < SPARSE {
        file.read_exact(&mut piece).unwrap();
        if piece != zeros {
            let data = piece.iter().enumerate().filter(|(_, byte)| **byte != 0);
            found.extend(data.map(|(index, byte)| (at + index as u64, *byte)));
        }
        at += piece.len() as u64;
    }
    let expected: Vec<(u64, u8)> = islands()
        .into_iter()
        .flat_map(|(start, data)| (start..).zip(data.iter().copied()))
        .collect();
    assert_eq!(found, expected, "{}", path.display());
}

/// Returns the files of a name in the trees of a store's layers.
fn in_layers(kiln: &Kiln, name: &str) -> Vec<PathBuf> {
    let layers = fs::read_dir(kiln.store().join("layers")).unwrap();
    let files = layers.map(|layer| layer.unwrap().path().join("fs").join(name));
    files.filter(|path| path.exists()).collect()
}

/// Asserts that a store has the two files of [`holes_stay_holes`], with their holes.
#[track_caller]
fn assert_holes(kiln: &Kiln) {
    for name in ["copied", "made"] {
        let files = in_layers(kiln, name);
        assert_eq!(files.len(), 1, "{name}");
        assert_sparse(&files[0], true);
    }
}

/// SEMANTICS 71: what COPY takes and what a step makes by seeking; through a push and a pull, an
/// archive, skopeo and umoci.
#[test]
fn holes_stay_holes() {
    let (registry, base) = (Registry::start(), Registry::shared().busybox());
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context", &[]);
    let file = File::create(context.join("hole")).unwrap();
    file.set_len(SPARSE).unwrap();
    let mut script = format!("truncate -s {SPARSE} /made");
    for (at, data) in islands() {
        file.write_all_at(data, at).unwrap();
        let data = std::str::from_utf8(data).unwrap();
        script += &format!(" && printf {data} | dd of=/made bs=1 seek={at} conv=notrunc");
    }
    let dockerfile = format!("FROM {base}\nCOPY hole /copied\nRUN {script}\n");
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let name = registry.reference("sparse:1");
    kiln.run(["build", "-t", &name, "context"]).ok();
    assert_holes(&kiln);
    let described = |kiln: &Kiln, name: &str| {
        let format = "{{.Id}} {{json .RootFS.Layers}}";
        kiln.run(["inspect", "--format", format, name]).ok().line()
    };
    let made = described(&kiln, &name);
    kiln.run(["push", &name]).ok();

    let pulled = Kiln::new();
    pulled.run(["pull", &name]).ok();
    assert_eq!(described(&pulled, &name), made);
    assert_holes(&pulled);
    pulled.run(["fsck"]).ok();
    let archive = kiln.sandbox().join("archive.tar");
    pulled.run(["save", "-o", text(&archive), &name]).ok();
    let loaded = Kiln::new();
    loaded.run(["load", "-i", text(&archive)]).ok();
    assert_eq!(described(&loaded, &name), made);
    assert_holes(&loaded);

    require!(has_program("skopeo"), "no skopeo");
    require!(has_program("umoci"), "no umoci");
    let layout = kiln.sandbox().join("layout");
    let place = format!("oci:{}:1", text(&layout));
    let from = format!("docker://{name}");
    let quiet = ["--insecure-policy", "copy", "--quiet"];
    let plain = ["--src-tls-verify=false", &from, &place];
    tool("skopeo", &[&quiet[..], &plain].concat());
    let copied = Kiln::new();
    copied.run(["copy", "-q", &place, "store:copied"]).ok();
    assert_eq!(described(&copied, "copied"), made);
    assert_holes(&copied);
    let image = format!("{}:1", text(&layout));
    let bundle = kiln.sandbox().join("bundle");
    let arguments = ["unpack", "--rootless", "--image", &image, text(&bundle)];
    tool("umoci", &arguments);
    for name in ["copied", "made"] {
        assert_sparse(&bundle.join("rootfs").join(name), false);
    }
}
