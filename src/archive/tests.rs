//! Round trips, and archives that lie.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::event::{NullReporter, Reporter};
use crate::image::{
    Descriptor, DiffId, ImageConfig, Index, IndexEntry, Manifest, Reference, media_type,
};
use crate::layer::member_header;
use crate::store::{Session, Stack, Store};
use crate::transfer::{Packing, Transfer};

/// A store below a directory that goes with it.
struct Fixture {
    directory: tempfile::TempDir,
    store: Store,
    session: Session,
    reporter: Arc<dyn Reporter>,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let form = store.form().clone();
        let store = store.with_form(form).unwrap();
        Fixture {
            session: store.session(),
            store,
            directory,
            reporter: Arc::new(NullReporter),
        }
    }

    fn transfer(&self) -> Transfer<'_> {
        Transfer {
            store: &self.store,
            session: &self.session,
            reporter: &self.reporter,
            step: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn import(&self, tar: &[u8], name: &str) -> Digest {
        let options = ImportOptions {
            changes: vec!["CMD [\"/a\"]".to_owned()],
            message: "test".to_owned(),
            platform: Platform::host(),
            created: "2020-01-01T00:00:00Z".to_owned(),
            name: Some(name.parse().unwrap()),
        };
        import(&self.transfer(), tar, &options).unwrap()
    }

    fn load(&self, bytes: &[u8]) -> Result<Vec<Loaded>> {
        let path = self.path("input");
        fs::write(&path, bytes).unwrap();
        let archive = Archive::open(&self.session, &path)?;
        load(&self.transfer(), &archive, None)
    }

    /// Loads what is to be refused, and returns the error as people see it.
    fn refuse(&self, bytes: &[u8]) -> String {
        let error = self.load(bytes).unwrap_err();
        assert!(self.store.images().unwrap().is_empty());
        assert!(self.store.references().unwrap().is_empty());
        error.to_string()
    }

    fn save(&self, name: &str, layout: Layout, destination: &Destination) -> Result<Digest> {
        let images = select(&self.store, &[name.to_owned()])?;
        let digests = write_images(
            &self.transfer(),
            &images,
            layout,
            destination,
            &Packing::default(),
        )?;
        Ok(digests[0].clone())
    }

    fn stack(&self, name: &str) -> Stack {
        let image = self.store.find(name).unwrap();
        let diff_ids = &image.config.rootfs.diff_ids;
        self.store.stack(diff_ids).unwrap().unwrap()
    }
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in members {
        tar.extend(member_header(name, content.len() as u64));
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Returns an archive of one link, without its end.
fn link(name: &str, target: &str, kind: tar::EntryType) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_link_name_literal(target).unwrap();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn layer() -> Vec<u8> {
    tar(&[("dir/", b""), ("dir/file", b"content")])
}

fn config_of(layers: &[&[u8]], platform: &str) -> Vec<u8> {
    let mut config = ImageConfig::scratch(&platform.parse().unwrap());
    config.rootfs.diff_ids = layers.iter().map(|l| DiffId(Digest::of(l))).collect();
    config.to_bytes()
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    config_of(layers, &Platform::host().to_string())
}

fn docker_manifest(config: &str, tags: &str, layers: &[&str]) -> Vec<u8> {
    let layers = layers.join("\",\"");
    format!(r#"[{{"Config":"{config}","RepoTags":[{tags}],"Layers":["{layers}"]}}]"#).into_bytes()
}

/// The members of a layout, by name.
#[derive(Default)]
struct Members(Vec<(String, Vec<u8>)>);

impl Members {
    fn layout(index: &Index) -> Members {
        let version = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
        Members(vec![
            ("oci-layout".to_owned(), version),
            ("index.json".to_owned(), index.to_bytes()),
        ])
    }

    fn blob(&mut self, bytes: &[u8]) {
        let name = source::blob_name(&Digest::of(bytes));
        self.0.push((name, bytes.to_vec()));
    }

    fn tar(&self) -> Vec<u8> {
        let members: Vec<_> = self.0.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
        tar(&members)
    }

    fn write(&self, directory: &Path) {
        for (name, bytes) in &self.0 {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

fn manifest(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    Manifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::of(media_type::OCI_CONFIG, config),
        layers: layers
            .iter()
            .map(|layer| Descriptor::of(media_type::OCI_LAYER, layer))
            .collect(),
    }
    .to_bytes()
}

fn entry(manifest: &[u8], platform: Option<&str>, name: Option<&str>) -> IndexEntry {
    IndexEntry {
        descriptor: Descriptor::of(media_type::OCI_MANIFEST, manifest),
        platform: platform.map(|p| p.parse().unwrap()),
        ref_name: None,
        image_name: name.map(str::to_owned),
    }
}

/// Returns a layout of images of one layer, each for a platform.
fn layout(images: &[(&str, Option<&str>)]) -> Members {
    let layer = layer();
    let mut entries = Vec::new();
    let mut blobs = Members::default();
    for (platform, name) in images {
        let config = config_of(&[&layer], platform);
        let manifest = manifest(&config, &[&layer]);
        entries.push(entry(&manifest, Some(platform), *name));
        blobs.blob(&config);
        blobs.blob(&manifest);
    }
    blobs.blob(&layer);
    let mut members = Members::layout(&Index { entries });
    members.0.extend(blobs.0);
    members
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_image_comes_back_with_its_id_from_every_format() {
    let here = Fixture::new();
    let id = here.import(&gzip(&layer()), "a:1");
    let archive = here.path("a.tar");
    let directory = here.path("layout");
    for (layout, destination) in [
        (Layout::Docker, Destination::File(archive.clone())),
        (Layout::Oci, Destination::File(archive)),
        (Layout::Oci, Destination::Directory(directory)),
    ] {
        let manifest = here.save("a", layout, &destination).unwrap();
        let there = Fixture::new();
        let path = match &destination {
            Destination::File(path) | Destination::Directory(path) => path,
            Destination::Stdout => unreachable!(),
        };
        let opened = Archive::open(&there.session, path).unwrap();
        let loaded = load(&there.transfer(), &opened, None).unwrap();
        assert_eq!(loaded[0].id, id);
        let found = there.store.find("a:1").unwrap();
        assert_eq!(found.id, id);
        // It is the very manifest, so saving it again makes the same.
        assert_eq!(found.manifest, Some(manifest));
        let view = there.store.view(&there.stack("a:1")).unwrap();
        assert!(view.lookup(b"dir/file").unwrap().is_some());
    }
}

#[test]
fn equal_images_make_equal_archives() {
    let write = || {
        let here = Fixture::new();
        here.import(&layer(), "a:1");
        here.import(&layer(), "a:2");
        let file = here.path("a.tar");
        here.save("a", Layout::Docker, &Destination::File(file.clone()))
            .unwrap();
        fs::read(file).unwrap()
    };
    assert!(write() == write());
}

#[test]
fn a_name_without_a_tag_stands_for_all_its_tags() {
    let here = Fixture::new();
    let id = here.import(&layer(), "a:1");
    here.store.tag(&"a:2".parse().unwrap(), &id, None).unwrap();
    here.store
        .tag(&"b/a:3".parse().unwrap(), &id, None)
        .unwrap();
    let names = |text: &str| {
        let selected = select(&here.store, &[text.to_owned()]).unwrap();
        let names = selected[0].names.iter().map(Reference::familiar);
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("a"), ["a:1", "a:2"]);
    assert_eq!(names("a:2"), ["a:2"]);
    assert!(names(id.short()).is_empty());
    assert!(select(&here.store, &["c".to_owned()]).is_err());
}

#[test]
fn old_archives_of_docker_load_in_any_order_and_through_links() {
    let layer = layer();
    let top = tar(&[("new", b"x")]);
    let config = config(&[&layer, &top, &layer]);
    let name = format!("{}.json", Digest::of(&config).hex());
    let layers = ["a/layer.tar", "b/layer.tar", "c/layer.tar"];
    let manifest = docker_manifest(&name, "\"me/app:1\"", &layers);
    let mut archive = link("c/layer.tar", "../a/layer.tar", tar::EntryType::Symlink);
    archive.extend(tar(&[
        ("b/layer.tar", &gzip(&top)),
        ("manifest.json", &manifest),
        ("./a/layer.tar", &layer),
        (&name, &config),
    ]));
    for archive in [archive.clone(), gzip(&archive)] {
        let here = Fixture::new();
        let loaded = here.load(&archive).unwrap();
        assert_eq!(loaded[0].id, Digest::of(&config));
        assert_eq!(loaded[0].names[0].familiar(), "me/app:1");
        assert_eq!(here.stack("me/app:1").layers().len(), 3);
        // Layers leave the store compressed, whatever they came as.
        let file = here.path("again.tar");
        here.save("me/app", Layout::Oci, &Destination::File(file.clone()))
            .unwrap();
        let there = Fixture::new();
        let again = there.load(&fs::read(file).unwrap()).unwrap();
        assert_eq!(again[0].id, loaded[0].id);
        let known = there.store.compressed(&DiffId(Digest::of(&layer)));
        assert_eq!(known[0].descriptor.media_type, media_type::OCI_LAYER_GZIP);
    }
}

#[test]
fn links_that_lead_nowhere_lead_to_nothing() {
    let layer = layer();
    let config = config(&[&layer]);
    let manifest = docker_manifest("config", "", &["l"]);
    for target in ["l", "../../etc/passwd", "/etc/passwd", "absent"] {
        let mut archive = link("l", target, tar::EntryType::Symlink);
        archive.extend(tar(&[("manifest.json", &manifest), ("config", &config)]));
        let error = Fixture::new().refuse(&archive);
        assert_eq!(error, "l is not in the archive", "{target}");
    }
}

#[test]
fn a_layer_that_is_not_what_its_config_says_is_refused() {
    let layer = layer();
    let config = config(&[&tar(&[("other", b"")])]);
    for layer in [layer.clone(), gzip(&layer)] {
        let manifest = docker_manifest("config", "\"a:1\"", &["l"]);
        let archive = tar(&[
            ("manifest.json", &manifest),
            ("config", &config),
            ("l", &layer),
        ]);
        let error = Fixture::new().refuse(&archive);
        assert!(
            error.contains("diff id") || error.contains("wrong digest"),
            "{error}"
        );
    }
    let mut members = layout(&[("linux", Some("a:1"))]);
    let (_, blob) = members.0.last_mut().unwrap();
    *blob.last_mut().unwrap() = 1;
    let error = Fixture::new().refuse(&members.tar());
    assert!(error.contains("wrong digest"), "{error}");
}

#[test]
fn documents_that_are_not_what_their_digests_say_are_refused() {
    let layer = layer();
    let config = config(&[&layer]);
    let name = format!("{}.json", Digest::of(b"other").hex());
    let manifest = docker_manifest(&name, "", &["l"]);
    let archive = tar(&[
        ("manifest.json", &manifest),
        (&name, &config),
        ("l", &layer),
    ]);
    assert!(Fixture::new().refuse(&archive).contains("is damaged"));
    for blob in [2, 3] {
        let mut members = layout(&[("linux", None)]);
        members.0[blob].1.push(b' ');
        assert!(Fixture::new().refuse(&members.tar()).contains("is damaged"));
    }
}

#[test]
fn a_truncated_archive_is_refused_wherever_it_ends() {
    let whole = layout(&[("linux", Some("a:1"))]).tar();
    let here = Fixture::new();
    for end in (0..whole.len() - 1024).step_by(500) {
        here.refuse(&whole[..end]);
    }
    let compressed = gzip(&whole);
    for end in (1..compressed.len()).step_by(97) {
        here.refuse(&compressed[..end]);
    }
    assert!(here.load(&whole).is_ok());
}

#[test]
fn what_is_no_archive_of_images_is_told_apart() {
    let here = Fixture::new();
    assert!(here.refuse(b"").contains("no archive of images"));
    assert!(here.refuse(&layer()).contains("no archive of images"));
    assert!(here.refuse(&[7; 2000]).contains("not a tar archive"));
    let old = tar(&[("repositories", b"{}")]);
    assert!(here.refuse(&old).contains("before 1.10"));
    let empty = tar(&[("manifest.json", b"[]")]);
    assert!(here.refuse(&empty).contains("no archive of images"));
    let broken = tar(&[("manifest.json", b"[")]);
    assert!(
        here.refuse(&broken)
            .contains("manifest.json in the archive is malformed")
    );
    let future = tar(&[
        ("index.json", b"{}"),
        ("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#),
    ]);
    assert!(here.refuse(&future).contains("unknown version"));
}

#[test]
fn more_than_an_honest_archive_has_is_refused() {
    let here = Fixture::new();
    let big = tar(&[("manifest.json", &vec![b' '; (8 << 20) + 1])]);
    assert!(here.refuse(&big).contains("8388609 bytes"));
    let layer = layer();
    let config = config(&[&layer]);
    let manifest = docker_manifest("c", "", &["l"; 600]);
    let layers = tar(&[("manifest.json", &manifest), ("c", &config), ("l", &layer)]);
    assert!(here.refuse(&layers).contains("512 layers"));
    let manifest = docker_manifest("c", "", &["l", "l"]);
    let layers = tar(&[("manifest.json", &manifest), ("c", &config), ("l", &layer)]);
    assert!(here.refuse(&layers).contains("names 1 layers"));
}

#[test]
fn an_archive_can_not_give_names_that_promise_a_digest() {
    let pinned = format!("docker.io/library/debian@{}", Digest::of(b"the real one"));
    let here = Fixture::new();
    let loaded = here
        .load(&layout(&[("linux", Some(&pinned))]).tar())
        .unwrap();
    assert!(loaded[0].names.is_empty());
    assert!(here.store.references().unwrap().is_empty());
}

#[test]
fn an_index_gives_the_image_for_the_platform() {
    let members = layout(&[
        ("linux/s390x", Some("a:1")),
        ("linux", Some("a:1")),
        ("unknown/unknown", Some("a:1")),
    ]);
    let here = Fixture::new();
    let loaded = here.load(&members.tar()).unwrap();
    assert_eq!(loaded.len(), 1);
    let platform = |name| here.store.find(name).unwrap().config.platform();
    assert!(platform("a:1").matches(&Platform::host()));
    let archive = Archive::open(&here.session, &here.path("input")).unwrap();
    let wanted = "linux/s390x".parse().unwrap();
    load(&here.transfer(), &archive, Some(&wanted)).unwrap();
    assert_eq!(platform("a:1"), wanted);
    let wanted = "linux/riscv64".parse().unwrap();
    let error = load(&here.transfer(), &archive, Some(&wanted)).unwrap_err();
    assert!(error.hint().unwrap().contains("--platform=linux/s390x"));
}

#[test]
fn a_nested_index_is_followed_and_an_endless_one_is_not() {
    let members = layout(&[("linux", None)]);
    let Some((_, inner)) = members.0.iter().find(|(name, _)| name == "index.json") else {
        unreachable!()
    };
    let outer = |inner: &[u8]| Index {
        entries: vec![IndexEntry {
            descriptor: Descriptor::of(media_type::OCI_INDEX, inner),
            ..entry(b"", None, Some("a:1"))
        }],
    };
    let mut nested = Members::layout(&outer(inner));
    nested.blob(inner);
    nested.0.extend(members.0[2..].iter().cloned());
    let here = Fixture::new();
    here.load(&nested.tar()).unwrap();
    assert!(here.store.find("a:1").is_ok());

    let mut deep = Members::default();
    let mut top = inner.clone();
    for _ in 0..6 {
        deep.blob(&top);
        top = outer(&top).to_bytes();
    }
    let mut archive = Members::layout(&outer(&top));
    archive.blob(&top);
    archive.0.extend(deep.0);
    archive.0.extend(members.0[2..].iter().cloned());
    assert!(Fixture::new().refuse(&archive.tar()).contains("too deeply"));
}

#[test]
fn a_layout_directory_can_not_point_outside_or_hold_up_the_reader() {
    use nix::sys::stat::Mode;
    let members = layout(&[("linux", None)]);
    for hostile in ["link", "pipe"] {
        let here = Fixture::new();
        let directory = here.path("layout");
        members.write(&directory);
        let (name, content) = members.0.last().unwrap();
        let blob = directory.join(name);
        fs::remove_file(&blob).unwrap();
        if hostile == "link" {
            fs::write(here.path("outside"), content).unwrap();
            std::os::unix::fs::symlink("../../../outside", &blob).unwrap();
        } else {
            nix::unistd::mkfifo(&blob, Mode::S_IRWXU).unwrap();
        }
        let archive = Archive::open(&here.session, &directory).unwrap();
        assert!(load(&here.transfer(), &archive, None).is_err(), "{hostile}");
        assert!(here.store.images().unwrap().is_empty());
    }
}

#[test]
fn an_error_leaves_the_destination_as_it_was() {
    let here = Fixture::new();
    here.import(&layer(), "a:1");
    let diff_id = here.stack("a:1").layers()[0].meta.diff_id.clone();
    let out = here.path("out");
    fs::create_dir(&out).unwrap();
    let file = Destination::File(out.join("a.tar"));
    fs::write(out.join("a.tar"), "precious").unwrap();
    here.save(
        "a",
        Layout::Oci,
        &Destination::Directory(here.path("first")),
    )
    .unwrap();
    // The blob has its size and other bytes.
    let blob = here.store.compressed(&diff_id)[0].descriptor.clone();
    let damaged = vec![0; usize::try_from(blob.size).unwrap()];
    fs::write(here.store.blob_path(&blob.digest), damaged).unwrap();
    let error = here.save("a", Layout::Docker, &file).unwrap_err();
    assert!(error.to_string().contains("wrong digest"), "{error}");
    assert_eq!(fs::read(out.join("a.tar")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    let directory = here.path("new");
    let destination = Destination::Directory(directory.clone());
    assert!(here.save("a", Layout::Oci, &destination).is_err());
    assert!(!directory.exists());
}

#[test]
fn a_layout_takes_further_images_and_another_directory_none() {
    let here = Fixture::new();
    let one = here.import(&layer(), "a:1");
    let two = here.import(&tar(&[("b", b"")]), "b:1");
    let directory = here.path("layout");
    let destination = Destination::Directory(directory.clone());
    for name in ["a:1", "b:1", "a:1"] {
        here.save(name, Layout::Oci, &destination).unwrap();
    }
    let there = Fixture::new();
    let archive = Archive::open(&there.session, &directory).unwrap();
    let loaded = load(&there.transfer(), &archive, None).unwrap();
    let ids: Vec<_> = loaded.into_iter().map(|image| image.id).collect();
    assert_eq!(ids, [two, one]);
    fs::remove_file(directory.join("oci-layout")).unwrap();
    let error = here.save("a", Layout::Oci, &destination).unwrap_err();
    assert!(matches!(error, ArchiveError::NotALayout(_)));
}

#[test]
fn a_root_file_system_becomes_files_and_follows_no_link() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let here = Fixture::new();
    let mut archive = link("link", "/etc/passwd", tar::EntryType::Symlink);
    let mut file = member_header("dir/tool", 4);
    file.extend(b"tool");
    file.resize(1024, 0);
    // The mode is the fourth part of the header: 4755.
    let mut header = tar::Header::from_byte_slice(&file[..512]).clone();
    header.set_mode(0o4755);
    header.set_mtime(1000);
    header.set_cksum();
    file[..512].copy_from_slice(header.as_bytes());
    archive.extend(file);
    archive.extend(link("dir/twin", "dir/tool", tar::EntryType::Link));
    archive.extend(tar(&[
        ("etc/conf", b"new"),
        ("now-file", b"f"),
        ("now-dir/x", b"d"),
    ]));
    here.import(&archive, "a:1");

    let outside = here.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("conf"), "old").unwrap();
    let out = here.path("out");
    fs::create_dir_all(out.join("now-file/deep")).unwrap();
    fs::write(out.join("now-dir"), "").unwrap();
    fs::write(out.join("mine"), "kept").unwrap();
    std::os::unix::fs::symlink(&outside, out.join("etc")).unwrap();
    std::os::unix::fs::symlink(outside.join("conf"), out.join("link")).unwrap();
    for _ in 0..2 {
        let warnings = write_rootfs_dir(&here.store, &here.stack("a:1"), &out).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(fs::read(outside.join("conf")).unwrap(), b"old");
        assert_eq!(fs::read(out.join("etc/conf")).unwrap(), b"new");
        assert_eq!(fs::read(out.join("mine")).unwrap(), b"kept");
        assert_eq!(fs::read(out.join("now-file")).unwrap(), b"f");
        assert_eq!(fs::read(out.join("now-dir/x")).unwrap(), b"d");
        let target = fs::read_link(out.join("link")).unwrap();
        assert_eq!(target, Path::new("/etc/passwd"));
        let tool = fs::metadata(out.join("dir/tool")).unwrap();
        assert_eq!(tool.permissions().mode() & 0o7777, 0o755);
        assert_eq!((tool.mtime(), tool.nlink()), (1000, 2));
    }
}

#[test]
fn a_root_file_system_becomes_one_tar_without_deletions() {
    let here = Fixture::new();
    let lower = tar(&[("dir/", b""), ("dir/gone", b"1"), ("dir/kept", b"2")]);
    let mut upper = tar(&[("dir/.wh.gone", b""), ("x", b"3")]);
    upper.truncate(upper.len() - 1024);
    upper.extend(link("y", "x", tar::EntryType::Link));
    let config = config(&[&lower, &upper]);
    let manifest = docker_manifest("c", "\"a:1\"", &["1", "2"]);
    let archive = tar(&[
        ("manifest.json", &manifest),
        ("c", &config),
        ("1", &lower),
        ("2", &upper),
    ]);
    here.load(&archive).unwrap();
    let mut out = Vec::new();
    write_rootfs_tar(&here.store, &here.stack("a:1"), &mut out).unwrap();
    let mut archive = tar::Archive::new(&out[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        (path, entry.header().entry_type())
    });
    let regular = tar::EntryType::Regular;
    let expected = [
        ("dir/", tar::EntryType::Directory),
        ("dir/kept", regular),
        ("x", regular),
        ("y", tar::EntryType::Link),
    ];
    let expected: Vec<_> = expected.map(|(path, kind)| (path.to_owned(), kind)).into();
    assert_eq!(entries.collect::<Vec<_>>(), expected);
}
