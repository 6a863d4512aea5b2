use std::os::unix::fs::{MetadataExt as _, symlink};

use super::*;
use crate::layer::acl;
use crate::layer::stat::Timestamp;
use crate::layer::testing::{TestLayer, TestTar, content, names, ownership, stack};
use crate::layer::{Omit, Stat, Xattrs, write_tar};

fn tar() -> TestTar {
    TestTar::new()
}

fn view(layer: &TestLayer, applied: &Applied) -> View {
    View::new(vec![layer.layer_of(applied)])
}

fn stat(view: &View, path: &str) -> Stat {
    view.lookup(path.as_bytes()).unwrap().expect(path).stat
}

fn xattrs(view: &View, path: &str) -> Xattrs {
    let node = view.lookup(path.as_bytes()).unwrap().unwrap();
    view.xattrs(&node).unwrap()
}

// ---- Attacks ----

#[test]
fn dot_dot_names_are_refused_by_name() {
    for name in ["../evil", "a/../../evil", "/../evil"] {
        let error = tar().file(name, "x").refused();
        assert!(
            error.contains(name) && error.contains("leaves the root"),
            "{error}"
        );
    }
}

#[test]
fn absolute_names_land_in_the_root() {
    let (layer, applied) = tar().file("/etc/evil", "x").apply();
    assert_eq!(content(&view(&layer, &applied), "etc/evil").unwrap(), "x");
}

#[test]
fn absolute_symlink_parent_stays_in_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let (layer, applied) = tar().symlink("door", target).file("door/evil", "x").apply();
    assert!(!outside.path().join("evil").exists());
    let inside = format!("{}/evil", target.trim_start_matches('/'));
    assert_eq!(content(&view(&layer, &applied), &inside).unwrap(), "x");
}

#[test]
fn climbing_symlink_parent_stays_in_the_root() {
    let (layer, applied) = tar()
        .symlink("door", "../../../../../../../../tmp/kiln-climb")
        .file("door/evil", "x")
        .apply();
    assert!(!std::path::Path::new("/tmp/kiln-climb").exists());
    assert_eq!(
        content(&view(&layer, &applied), "tmp/kiln-climb/evil").unwrap(),
        "x"
    );
}

#[test]
fn file_entry_replaces_a_symlink_and_does_not_write_through_it() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let (layer, _) = tar()
        .symlink("door", outside.path().to_str().unwrap())
        .file("door", "evil")
        .apply();
    assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
    assert!(
        std::fs::symlink_metadata(layer.path("door"))
            .unwrap()
            .is_file()
    );
}

#[test]
fn directory_entry_does_not_change_what_a_symlink_points_to() {
    let outside = tempfile::tempdir().unwrap();
    let before = std::fs::metadata(outside.path()).unwrap().mode();
    let (layer, _) = tar()
        .symlink("door", outside.path().to_str().unwrap())
        .with(b'5', b"door/", b"", b"", |a| a.mode = 0o777)
        .apply();
    assert_eq!(std::fs::metadata(outside.path()).unwrap().mode(), before);
    assert!(
        std::fs::symlink_metadata(layer.path("door"))
            .unwrap()
            .is_dir()
    );
}

#[test]
fn hard_link_to_the_host_is_refused() {
    for target in ["/etc/passwd", "etc/passwd", "../../etc/passwd"] {
        let error = tar().hardlink("stolen", target).refused();
        assert!(
            error.contains("stolen") && error.contains(target),
            "{error}"
        );
    }
}

#[test]
fn hard_link_through_a_symlink_stays_in_the_root() {
    let error = tar()
        .symlink("door", "/etc")
        .hardlink("stolen", "door/passwd")
        .refused();
    assert!(
        error.contains("neither in the archive nor in the layers below"),
        "{error}"
    );
}

#[test]
fn symlink_loop_among_parents_is_an_error() {
    let error = tar()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", "")
        .refused();
    assert!(error.contains("too many levels"), "{error}");
}

#[test]
fn newline_in_a_pax_value_smuggles_in_no_link_target() {
    let (layer, applied) = tar()
        .pax(&[("SCHILY.xattr.user.a", b"x\n21 path=etc/smuggled\n")])
        .file("file", "x")
        .apply();
    let view = view(&layer, &applied);
    assert_eq!(names(&view, ""), ["file"]);
    assert_eq!(
        xattrs(&view, "file")[&b"user.a"[..]],
        b"x\n21 path=etc/smuggled\n"
    );
}

/// SEMANTICS 66
#[test]
fn private_attributes_are_not_applied() {
    let (layer, applied) = tar()
        .with(b'5', b"d/", b"", b"", |a| {
            for name in [
                "user.overlay.opaque",
                "trusted.overlay.opaque",
                "user.kiln.stat",
                "user.containers.override_stat",
                "user.fuseoverlayfs.opaque",
                "security.selinux",
            ] {
                a.xattrs.insert(name.into(), b"y".to_vec());
            }
            a.xattrs.insert(b"user.kept".to_vec(), b"1".to_vec());
        })
        .apply();
    let file = kiln_runtime::sys::file::list_xattrs(layer.fd(), b"d").unwrap();
    assert!(!file.iter().any(|name| name.starts_with(b"user.overlay")));
    assert_eq!(
        xattrs(&view(&layer, &applied), "d"),
        Xattrs::from([(b"user.kept".to_vec(), b"1".to_vec())])
    );
}

#[test]
fn character_device_0_0_is_no_whiteout() {
    let (_below, lower) = stack(vec![tar().file("victim", "x")]);
    let data = tar().pax(&[]).0;
    let mut header = tar::Header::new_ustar();
    header.set_path("victim").unwrap();
    header.as_mut_bytes()[156] = b'3';
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mtime(0);
    header.set_device_major(0).unwrap();
    header.set_device_minor(0).unwrap();
    header.set_cksum();
    let tar = TestTar([data, header.as_bytes().to_vec()].concat());
    let (layer, applied) = tar.apply_on(&lower);
    let mut view = lower.clone();
    view.push(layer.layer_of(&applied.unwrap()));
    assert_eq!(stat(&view, "victim").kind, FileKind::CharDevice);
}

#[test]
fn whiteout_of_dot_dot_is_refused() {
    for name in ["a/.wh...", "a/.wh..", "a/.wh."] {
        assert!(
            tar().file(name, "").refused().contains("no file can have"),
            "{name}"
        );
    }
}

#[test]
fn names_longer_than_the_file_system_are_refused() {
    assert!(tar().file(&"x".repeat(256), "").refused().contains("255"));
    assert!(
        tar()
            .file(&"d/".repeat(2100), "")
            .refused()
            .contains("4095")
    );
}

#[test]
fn deep_nesting_that_is_replaced_takes_no_stack() {
    let deep = "d/".repeat(1000);
    let (layer, applied) = tar()
        .file(&format!("{deep}f"), "x")
        .file("d", "now a file")
        .apply();
    assert_eq!(content(&view(&layer, &applied), "d").unwrap(), "now a file");
}

#[test]
fn oversized_extended_header_is_refused() {
    let error = tar()
        .extended(b'x', &vec![b'0'; (1 << 20) + 1])
        .file("f", "")
        .refused();
    assert!(error.contains("larger than 1 MiB"), "{error}");
}

#[test]
fn limits_hold() {
    let layer = TestLayer::new();
    let view = View::default();
    let apply_with = |limits| {
        let options = ApplyOptions {
            ownership: ownership(),
            lower: &view,
            mode: ApplyMode::Layer,
            limits,
        };
        let archive = tar().file("a", "12345").file("b", "12345").end();
        apply(&mut &archive[..], layer.fd(), &options)
    };
    let bytes = apply_with(Limits {
        entries: 9,
        bytes: 9,
    })
    .unwrap_err();
    assert!(bytes.to_string().contains("9 bytes"), "{bytes}");
    let entries = apply_with(Limits {
        entries: 1,
        bytes: 99,
    })
    .unwrap_err();
    assert!(entries.to_string().contains("1 entries"), "{entries}");
}

#[test]
fn truncation_anywhere_within_an_entry_is_named() {
    let archive = tar()
        .pax(&[("path", b"long")])
        .file("f", &"x".repeat(700))
        .end();
    for length in [100, 512, 600, 1024, 1100, 1536, 1800, 2100] {
        let layer = TestLayer::new();
        let options = ApplyOptions {
            ownership: ownership(),
            lower: &View::default(),
            mode: ApplyMode::Layer,
            limits: Limits::default(),
        };
        let error = apply(&mut &archive[..length], layer.fd(), &options).unwrap_err();
        assert!(
            matches!(error, LayerError::Truncated { .. }),
            "{length}: {error}"
        );
        assert!(error.hint().is_some());
    }
}

#[test]
fn what_is_no_tar_is_refused() {
    let layer = TestLayer::new();
    let options = ApplyOptions {
        ownership: ownership(),
        lower: &View::default(),
        mode: ApplyMode::Layer,
        limits: Limits::default(),
    };
    let error = apply(&mut &[b'x'; 2048][..], layer.fd(), &options).unwrap_err();
    assert!(error.to_string().contains("not a tar archive"), "{error}");
}

#[test]
fn owner_that_chown_takes_for_none_is_refused() {
    let error = tar().pax(&[("uid", b"4294967295")]).file("f", "").refused();
    assert!(error.contains("out of range"), "{error}");
}

// ---- Dialects ----

#[test]
fn gnu_and_pax_long_names_are_taken() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let (layer, applied) = tar()
        .extended(b'L', format!("{long}\0").as_bytes())
        .file("short", "gnu")
        .pax(&[("path", b"caf\xe9")])
        .file("short", "pax")
        .apply();
    let view = view(&layer, &applied);
    assert_eq!(content(&view, &long).unwrap(), "gnu");
    assert!(view.lookup(b"caf\xe9").unwrap().is_some());
    assert!(view.lookup(b"short").unwrap().is_none());
}

#[test]
fn pax_numbers_override_and_global_headers_are_tolerated() {
    let (layer, applied) = tar()
        .extended(b'g', b"19 comment=0123abc\n")
        .pax(&[("uid", b"70000"), ("gid", b"12"), ("mtime", b"7.25")])
        .file("f", "x")
        .apply();
    let stat = stat(&view(&layer, &applied), "f");
    assert_eq!((stat.uid, stat.gid), (70000, 12));
    let expected = Timestamp {
        seconds: 7,
        nanoseconds: 250_000_000,
    };
    assert_eq!(stat.mtime, expected);
}

/// SEMANTICS 71
#[test]
fn sparse_files_of_every_pax_format_come_out_whole() {
    let expected = format!(
        "{}abc{}defg{}",
        "\0".repeat(1000),
        "\0".repeat(997),
        "\0".repeat(996)
    );
    let map_1_0 = format!("{:\0<512}abcdefg", "2\n1000\n3\n2000\n4\n");
    let (layer, applied) = tar()
        .pax(&[
            ("GNU.sparse.size", b"3000"),
            ("GNU.sparse.offset", b"1000"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"2000"),
            ("GNU.sparse.numbytes", b"4"),
        ])
        .file("format-0.0", "abcdefg")
        .pax(&[
            ("GNU.sparse.size", b"3000"),
            ("GNU.sparse.name", b"format-0.1"),
            ("GNU.sparse.map", b"1000,3,2000,4"),
        ])
        .file("x", "abcdefg")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"format-1.0"),
            ("GNU.sparse.realsize", b"3000"),
        ])
        .file("x", &map_1_0)
        .file("after", "x")
        .apply();
    let view = view(&layer, &applied);
    for format in ["format-0.0", "format-0.1", "format-1.0"] {
        assert!(content(&view, format).unwrap() == expected, "{format}");
    }
    assert_eq!(content(&view, "after").unwrap(), "x");
}

#[test]
fn runs_of_zeros_become_holes_and_the_content_stays() {
    let piece = HOLE;
    let (zeros, data) = ("\0".repeat(piece), "x".repeat(piece));
    for (name, text, most) in [
        ("zeros", zeros.repeat(8), 0),
        ("end", format!("{}x", zeros.repeat(8)), piece),
        ("begin", format!("x{}", zeros.repeat(8)), 2 * piece),
        ("middle", format!("{zeros}{zeros}{data}{zeros}"), piece),
        ("odd", format!("{data}{zeros}\0\0\0"), 2 * piece),
        ("small", "\0".repeat(100), 4096),
    ] {
        let (layer, applied) = tar().file("before", "a").file(name, &text).apply();
        assert!(
            content(&view(&layer, &applied), name).unwrap() == text,
            "{name}"
        );
        let taken = std::fs::metadata(layer.path(name)).unwrap().blocks() * 512;
        assert!(taken <= most as u64, "{name}: {taken}");
        assert_eq!(applied.size_bytes, text.len() as u64 + 1);
    }
}

#[test]
fn archive_of_gnu_tar_with_sparse_and_long_names_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(directory.path().join("sparse")).unwrap();
    for at in 0..40u64 {
        file.write_all_at(b"data", at * 1_000_000).unwrap();
    }
    file.set_len(50_000_000).unwrap();
    std::fs::write(directory.path().join("n".repeat(200)), "long").unwrap();
    symlink("t".repeat(200), directory.path().join("link")).unwrap();
    for format in ["gnu", "pax"] {
        let output = std::process::Command::new("tar")
            .args(["--sparse", "--format", format, "-C"])
            .arg(directory.path())
            .args(["-c", "."])
            .output()
            .unwrap();
        let layer = TestLayer::new();
        let options = ApplyOptions {
            ownership: ownership(),
            lower: &View::default(),
            mode: ApplyMode::Layer,
            limits: Limits::default(),
        };
        let applied = apply(&mut &output.stdout[..], layer.fd(), &options).unwrap();
        let view = view(&layer, &applied);
        assert_eq!(content(&view, &"n".repeat(200)).unwrap(), "long");
        let link = view.lookup(b"link").unwrap().unwrap();
        assert_eq!(view.read_link(&link).unwrap(), vec![b't'; 200]);
        let sparse = std::fs::read(layer.path("sparse")).unwrap();
        assert!(
            sparse == std::fs::read(directory.path().join("sparse")).unwrap(),
            "{format}"
        );
        assert!(std::fs::metadata(layer.path("sparse")).unwrap().blocks() * 512 < 1_000_000);
    }
}

// ---- Rules of layers ----

#[test]
fn symlinked_parent_within_the_layer_is_followed() {
    let (layer, applied) = tar()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .file("lib/x", "1")
        .apply();
    let view = view(&layer, &applied);
    assert_eq!(content(&view, "usr/lib/x").unwrap(), "1");
    assert!(applied.self_contained);
}

/// SEMANTICS 63
#[test]
fn parents_without_entry_take_the_attributes_from_below() {
    let (_below, lower) = stack(vec![tar().with(b'5', b"tmp/", b"", b"", |a| {
        a.mode = 0o1777;
        a.gid = 7;
        a.xattrs.insert(b"user.a".to_vec(), b"1".to_vec());
    })]);
    let (layer, applied) = tar().file("tmp/x/y", "").apply_on(&lower);
    let applied = applied.unwrap();
    assert!(!applied.self_contained);
    let mut view = lower.clone();
    view.push(layer.layer_of(&applied));
    let tmp = stat(&view, "tmp");
    assert_eq!(
        (tmp.mode, tmp.gid, tmp.mtime.seconds),
        (0o1777, 7, 1_000_000)
    );
    assert_eq!(xattrs(&view, "tmp")[&b"user.a"[..]], b"1");
    assert_eq!(stat(&view, "tmp/x").mode, 0o755);
}

#[test]
fn symlinked_parent_from_below_is_followed() {
    let (_below, lower) = stack(vec![tar().dir("usr/lib").symlink("lib", "usr/lib")]);
    let (layer, applied) = tar().file("lib/x", "1").apply_on(&lower);
    let mut view = lower.clone();
    view.push(layer.layer_of(&applied.unwrap()));
    assert!(stat(&view, "lib").is_symlink());
    assert_eq!(content(&view, "usr/lib/x").unwrap(), "1");
}

/// SEMANTICS 62
#[test]
fn whiteout_does_not_hide_sibling_in_same_layer() {
    let (_below, lower) = stack(vec![
        tar()
            .file("a", "old")
            .file("b", "old")
            .dir("d")
            .file("d/x", "old"),
    ]);
    for tar in [
        tar()
            .file("a", "new")
            .file(".wh.a", "")
            .file(".wh.b", "")
            .dir("d")
            .file("d/y", "")
            .file(".wh.d", ""),
        tar()
            .file(".wh.d", "")
            .file(".wh.b", "")
            .file(".wh.a", "")
            .file("a", "new")
            .dir("d")
            .file("d/y", ""),
    ] {
        let (layer, applied) = tar.apply_on(&lower);
        let mut view = lower.clone();
        view.push(layer.layer_of(&applied.unwrap()));
        assert_eq!(names(&view, ""), ["a", "d"]);
        assert_eq!(content(&view, "a").unwrap(), "new");
        assert_eq!(names(&view, "d"), ["y"]);
    }
}

/// SEMANTICS 62
#[test]
fn opaque_marker_counts_in_any_order_and_for_lower_layers_only() {
    let (_below, lower) = stack(vec![tar().dir("d").file("d/old", "")]);
    let (layer, applied) = tar()
        .dir("d")
        .file("d/new", "")
        .file("d/.wh..wh..opq", "")
        .file("d/.wh.old", "")
        .apply_on(&lower);
    let mut view = lower.clone();
    view.push(layer.layer_of(&applied.unwrap()));
    assert_eq!(names(&view, "d"), ["new"]);
    // Overlayfs would show a deletion in an opaque directory.
    assert!(std::fs::symlink_metadata(layer.path("d/old")).is_err());
}

/// SEMANTICS 63
#[test]
fn directory_over_directory_replaces_attributes_and_keeps_content() {
    let (layer, applied) = tar()
        .with(b'5', b"d/", b"", b"", |a| {
            a.mode = 0o700;
            a.xattrs.insert(b"user.a".to_vec(), b"1".to_vec());
        })
        .file("d/x", "1")
        .with(b'5', b"d/", b"", b"", |a| a.uid = 3)
        .apply();
    let view = view(&layer, &applied);
    assert_eq!((stat(&view, "d").mode, stat(&view, "d").uid), (0o755, 3));
    assert!(xattrs(&view, "d").is_empty());
    assert_eq!(content(&view, "d/x").unwrap(), "1");
}

/// SEMANTICS 63, SEMANTICS 64
#[test]
fn directory_file_and_directory_again_hides_what_was_below() {
    let (_below, lower) = stack(vec![tar().dir("d").file("d/old", "")]);
    let (layer, applied) = tar().dir("d").file("d", "file").dir("d").apply_on(&lower);
    let mut view = lower.clone();
    view.push(layer.layer_of(&applied.unwrap()));
    assert_eq!(names(&view, "d"), Vec::<String>::new());
}

#[test]
fn hard_link_to_a_lower_file_copies_it_up() {
    let (_below, lower) = stack(vec![tar().with(b'0', b"low", b"", b"data", |a| a.uid = 5)]);
    let (layer, applied) = tar().hardlink("new", "low").apply_on(&lower);
    let applied = applied.unwrap();
    assert!(!applied.self_contained);
    let mut view = lower.clone();
    view.push(layer.layer_of(&applied));
    assert_eq!(content(&view, "new").unwrap(), "data");
    assert_eq!(stat(&view, "new").uid, 5);
    assert_eq!(stat(&view, "new").ino, stat(&view, "low").ino);
}

#[test]
fn entry_below_a_file_is_an_error_that_names_both() {
    let error = tar().file("a", "").file("a/b", "").refused();
    assert!(
        error.contains("a/b") && error.contains("/a is in its way"),
        "{error}"
    );
}

/// SEMANTICS 68, SEMANTICS 69
#[test]
fn owners_modes_devices_and_attributes_come_back_truthfully() {
    let capability = [&[1u8, 0, 0, 2][..], &[0, 4, 0, 0], &[0; 12]].concat();
    let acl = acl::tests::sample(33, 70000);
    let (layer, applied) = tar()
        .with(b'0', b"suid", b"", b"x", |a| {
            a.mode = 0o6755;
            a.uid = 33;
            a.xattrs
                .insert(b"security.capability".to_vec(), capability.clone());
            a.xattrs.insert(b"user.a\xff".to_vec(), b"".to_vec());
        })
        .with(b'0', b"unreadable", b"", b"x", |a| a.mode = 0)
        .with(b'0', b"acl", b"", b"x", |a| {
            a.mode = 0o640;
            a.xattrs
                .insert(b"system.posix_acl_access".to_vec(), acl.clone());
        })
        .with(b'2', b"link", b"target", b"", |a| a.gid = 44)
        .with(b'6', b"fifo", b"", b"", |a| a.uid = 45)
        .with(b'4', b"disk", b"", b"", |a| a.mode = 0o660)
        .with(b'3', b"char", b"", b"", |a| a.gid = 70000)
        .apply();
    let view = view(&layer, &applied);
    let suid = stat(&view, "suid");
    assert_eq!(
        (suid.mode, suid.uid, suid.kind),
        (0o6755, 33, FileKind::File)
    );
    assert_eq!(
        xattrs(&view, "suid")[&b"security.capability"[..]],
        capability
    );
    assert_eq!(xattrs(&view, "suid")[&b"user.a\xff"[..]], b"");
    assert_eq!(stat(&view, "unreadable").mode, 0);
    assert_eq!(xattrs(&view, "acl")[&b"system.posix_acl_access"[..]], acl);
    assert_eq!(
        (stat(&view, "link").gid, stat(&view, "link").kind),
        (44, FileKind::Symlink)
    );
    assert_eq!(
        (stat(&view, "fifo").uid, stat(&view, "fifo").kind),
        (45, FileKind::Fifo)
    );
    let disk = stat(&view, "disk");
    assert_eq!((disk.kind, disk.mode), (FileKind::BlockDevice, 0o660));
    assert_eq!(disk.rdev, Device { major: 8, minor: 1 });
    let char_device = stat(&view, "char");
    assert_eq!(
        (char_device.kind, char_device.gid),
        (FileKind::CharDevice, 70000)
    );
    assert!(applied.lost_xattrs.is_empty(), "{:?}", applied.lost_xattrs);

    // And the stream that is made again says the same.
    let mut stream = Vec::new();
    write_tar(&layer.layer_of(&applied), &applied.omit, &mut stream).unwrap();
    let (again, second) = (TestLayer::new(), View::default());
    let options = ApplyOptions {
        ownership: ownership(),
        lower: &second,
        mode: ApplyMode::Layer,
        limits: Limits::default(),
    };
    let applied = apply(&mut &stream[..], again.fd(), &options).unwrap();
    let mut twice = Vec::new();
    write_tar(&again.layer_of(&applied), &applied.omit, &mut twice).unwrap();
    assert!(stream == twice, "the stream changed on its way");
}

#[test]
fn default_acl_of_a_directory_is_not_inherited_by_its_entries() {
    let (layer, applied) = tar()
        .with(b'5', b"d/", b"", b"", |a| {
            let acl = acl::tests::sample(33, 34);
            a.xattrs.insert(b"system.posix_acl_default".to_vec(), acl);
        })
        .file("d/x", "")
        .dir("d/e")
        .apply();
    let view = view(&layer, &applied);
    assert_eq!(xattrs(&view, "d").len(), 1);
    assert!(xattrs(&view, "d/x").is_empty());
    assert!(xattrs(&view, "d/e").is_empty());
    assert_eq!(stat(&view, "d/e").mode, 0o755);
}

#[test]
fn directory_times_outlast_their_entries() {
    let (layer, applied) = tar()
        .dir("d")
        .dir("d/e")
        .file("d/e/x", "")
        .file("d/x", "")
        .apply();
    let view = view(&layer, &applied);
    for path in ["d", "d/e"] {
        assert_eq!(
            stat(&view, path).mtime,
            Timestamp::from_seconds(1_000_000),
            "{path}"
        );
    }
}

#[test]
fn root_entry_sets_the_root_and_its_absence_leaves_the_one_below() {
    let (_layers, view) = stack(vec![
        tar().with(b'5', b"./", b"", b"", |a| (a.mode, a.gid) = (0o711, 9)),
        tar().file("x", ""),
    ]);
    let root = view.root().unwrap().stat;
    assert_eq!((root.mode, root.gid), (0o711, 9));
}

// ---- Archives ----

fn archive(dest: &str, owner: Option<(u32, u32)>) -> ApplyMode {
    ApplyMode::Archive {
        dest: dest.into(),
        owner,
    }
}

#[test]
fn archive_goes_below_its_destination_with_the_owner_asked_for() {
    let (_below, lower) = stack(vec![
        tar().with(b'5', b"opt/", b"", b"", |a| a.mode = 0o700),
    ]);
    let (layer, applied) = tar()
        .with(b'5', b"./", b"", b"", |a| a.mode = 0o777)
        .with(b'0', b"bin/x", b"", b"1", |a| a.uid = 99)
        .apply_as(archive("/opt", Some((5, 6))), &lower);
    let mut view = lower.clone();
    view.push(layer.layer_of(&applied.unwrap()));
    assert_eq!(stat(&view, "opt").mode, 0o700);
    let file = stat(&view, "opt/bin/x");
    assert_eq!((file.uid, file.gid), (5, 6));
}

#[test]
fn archive_with_a_deletion_is_a_clear_error() {
    let (_, result) = tar()
        .file("a/.wh.b", "")
        .apply_as(archive("", None), &View::default());
    let error = result.unwrap_err();
    assert!(matches!(error, LayerError::ReservedName(_)), "{error}");
}

#[test]
fn archive_that_leaves_its_destination_is_refused() {
    let (_, result) = tar()
        .file("../x", "")
        .apply_as(archive("opt/deep", None), &View::default());
    assert!(result.unwrap_err().to_string().contains("leaves the root"));
}

#[test]
fn stream_of_nothing_is_the_end_of_an_archive() {
    let layer = TestLayer::new();
    let applied = TestTar::new().apply().1;
    let mut stream = Vec::new();
    write_tar(
        &layer.layer(),
        &Omit {
            root: true,
            ..Omit::default()
        },
        &mut stream,
    )
    .unwrap();
    assert_eq!((stream, applied.entries), (vec![0; 1024], 0));
}
