//! `kiln cp` into a container that runs, and out of it: what its processes see, and nothing
//! beyond, whatever they do meanwhile.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Kiln, wait_until};

/// Returns kiln and the container `bg` of busybox, which runs a script until it is told to end.
fn running(options: &[&str], script: &str) -> Kiln {
    let (kiln, image) = Kiln::with_busybox();
    let script = format!("{script}; echo up; exec sleep 600");
    let command = [&image[..], "sh", "-c", &script];
    let head = ["run", "-d", "--name", "bg"];
    kiln.run(head.iter().chain(options).chain(&command)).ok();
    wait_until("the start", || {
        kiln.run(["logs", "bg"]).ok().stdout().ends_with("up\n")
    });
    kiln
}

/// Runs a script in the container.
fn inside(kiln: &Kiln, script: &str) -> String {
    let output = kiln.run(["exec", "bg", "sh", "-c", script]);
    output.ok().stdout()
}

#[test]
fn files_go_in_and_out_and_the_container_its_diff_and_its_image_have_them() {
    let kiln = running(&[], "echo live > /f");
    let here = kiln.sandbox();
    here.directory("d", &[("x", "x\n"), ("sub/y", "y\n")]);
    here.directory("f", &[("file", "file\n")]);
    for (from, to) in [
        ("d", "bg:/new"),
        ("d", "bg:/tmp"),
        ("d/.", "bg:/home"),
        ("f/file", "bg:/other"),
        ("f/file", "bg:/tmp/"),
        ("f/file", "bg:home/app/../z"),
        ("bg:/f", "out"),
    ] {
        let copied = kiln.run(["cp", from, to]).ok();
        let said = format!("Successfully copied to {to}\n");
        assert_eq!(copied.stderr(), said, "{from}");
    }
    assert_eq!(fs::read_to_string(here.join("out")).unwrap(), "live\n");
    let script = "cd /; cat new/x new/sub/y tmp/d/x home/x home/sub/y other tmp/file home/z; \
                  stat -c %u:%g new other home/z";
    let expected = "x\ny\nx\nx\ny\nfile\nfile\nfile\n0:0\n0:0\n0:0\n";
    assert_eq!(inside(&kiln, script), expected);
    // What a file replaces is replaced.
    here.directory("f", &[("file", "second\n")]);
    kiln.run(["cp", "-q", "f/file", "bg:/other"]).ok();
    assert_eq!(inside(&kiln, "cat /other"), "second\n");
    let diff = kiln.run(["diff", "bg"]).ok().stdout();
    assert!(diff.contains("A /new/sub/y\n"), "{diff}");
    kiln.run(["commit", "bg", "image"]).ok();
    let output = kiln.run(["run", "--rm", "image", "sh", "-c", script]).ok();
    assert_eq!(output.stdout(), expected.replacen("file\n", "second\n", 1));
    for (from, to, error) in [
        (
            "f/file",
            "bg:/no/such",
            "error: could not find the file /no in container bg\n",
        ),
        (
            "d",
            "bg:/etc/passwd",
            "error: cannot copy a directory to the file /etc/passwd\n",
        ),
        (
            "-",
            "bg:/etc/passwd",
            "error: the destination bg:/etc/passwd must be a directory\n",
        ),
        (
            "bg:/nosuch",
            "out",
            "error: could not find the file /nosuch in container bg\n",
        ),
        (
            "f/file",
            "bg:/proc/file",
            "error: openat(\"proc/file\"): No such file or directory (os error 2)\n",
        ),
    ] {
        let failed = kiln.run(["cp", from, to]).fails();
        assert_eq!(failed.stderr(), error, "{from} {to}");
    }
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn volumes_memory_and_devices_are_those_of_the_container() {
    let (kiln, image) = Kiln::with_busybox();
    let here = kiln.sandbox();
    let volume = here.directory("volume", &[("mine", "mine\n")]);
    let fixed = here.directory("fixed", &[]);
    here.directory("f", &[("file", "file\n")]);
    let mounts = [
        format!("{}:/volume", volume.display()),
        format!("{}:/fixed:ro", fixed.display()),
    ];
    let options = ["-v", &mounts[0], "-v", &mounts[1], "--tmpfs", "/memory"];
    let script = "echo m > /memory/m; echo s > /dev/shm/s; echo up; exec sleep 600";
    let head = ["run", "-d", "--name", "bg"];
    let command = [&image[..], "sh", "-c", script];
    kiln.run(head.iter().chain(&options).chain(&command)).ok();
    wait_until("the start", || {
        kiln.run(["logs", "bg"]).ok().stdout() == "up\n"
    });
    for place in ["/volume/", "/memory/", "/dev/shm/", "/dev/"] {
        kiln.run(["cp", "f/file", &format!("bg:{place}")]).ok();
    }
    let script = "cat /volume/file /memory/file /dev/shm/file /dev/file; \
                  stat -c %u:%g /memory/file /dev/shm/file";
    let expected = "file\nfile\nfile\nfile\n0:0\n0:0\n";
    assert_eq!(inside(&kiln, script), expected);
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "file\n");
    for (from, content) in [
        ("bg:/volume/mine", "mine\n"),
        ("bg:/memory/m", "m\n"),
        ("bg:/dev/shm/s", "s\n"),
    ] {
        kiln.run(["cp", from, "out"]).ok();
        assert_eq!(fs::read_to_string(here.join("out")).unwrap(), content);
    }
    assert_eq!(
        kiln.run(["cp", "f/file", "bg:/fixed/"]).fails().stderr(),
        "error: openat(\"fixed/file\"): Read-only file system (os error 30)\n"
    );
    assert_eq!(fs::read_dir(&fixed).unwrap().count(), 0);
    // The whole of it: what the sandbox mounts is not among the files.
    kiln.run(["cp", "bg:/", "all"]).ok();
    assert_eq!(
        fs::read_to_string(here.join("all/memory/m")).unwrap(),
        "m\n"
    );
    for name in ["proc", "sys", "dev"] {
        let listed = fs::read_dir(here.join("all").join(name)).unwrap();
        assert_eq!(listed.count(), 0, "{name}");
    }
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn owners_modes_times_and_attributes_are_kept_as_asked_for() {
    let kiln = running(&[], "mkdir /data; echo x > /data/x; chown 7:8 /data/x");
    let here = kiln.sandbox();
    let own = here.directory("own", &[("file", "file\n")]).join("file");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o640)).unwrap();
    let attribute = Command::new("setfattr")
        .args(["-n", "user.note", "-v", "kept"])
        .arg(&own)
        .status();
    assert!(attribute.unwrap().success());
    let meta = fs::metadata(&own).unwrap();
    let own = format!("{}:{} 640 {}\n", meta.uid(), meta.gid(), meta.mtime());
    kiln.run(["cp", "own/file", "bg:/root/plain"]).ok();
    kiln.run(["cp", "-a", "own/file", "bg:/root/kept"]).ok();
    kiln.run(["stop", "-t", "0", "bg"]).ok();
    // One that doesn't run does the same.
    kiln.run(["cp", "-a", "own/file", "bg:/root/still"]).ok();
    kiln.run(["commit", "bg", "image"]).ok();
    let script = "cd /root; stat -c '%u:%g %a %Y' plain kept still";
    let output = kiln.run(["run", "--rm", "image", "sh", "-c", script]).ok();
    let roots = format!("0:0 640 {}\n", meta.mtime());
    assert_eq!(output.stdout(), [&roots[..], &own, &own].concat());
    let image = kiln.image("image");
    for name in ["/root/plain", "/root/kept", "/root/still"] {
        let value = image.tree.file(name).xattrs.get(&b"user.note"[..]).cloned();
        assert_eq!(value.as_deref(), Some(&b"kept"[..]), "{name}");
    }
}

#[test]
fn archives_go_through_with_the_owners_that_they_name() {
    let kiln = running(
        &[],
        "mkdir /data; echo x > /data/x; chown 7:8 /data/x; ln /data/x /data/y; ln -s /etc /data/l",
    );
    let out = kiln.sandbox().join("out.tar");
    let file = fs::File::create(&out).unwrap();
    let status = kiln.command(["cp", "bg:/data", "-"]).stdout(file).status();
    assert!(status.unwrap().success());
    let input = fs::read(&out).unwrap();
    kiln.run_with_input(["cp", "-", "bg:/tmp"], &input).ok();
    assert_eq!(
        inside(&kiln, "cd /tmp/data; stat -c '%n %u:%g %h' x y; readlink l"),
        "x 7:8 2\ny 7:8 2\n/etc\n"
    );
    // A link is followed where that is asked for, within the container.
    kiln.run(["cp", "-L", "bg:/data/l", "etc"]).ok();
    assert!(kiln.sandbox().join("etc/passwd").exists());
    let failed = kiln.run_with_input(["cp", "-", "bg:/tmp"], &input[..600]);
    assert_eq!(
        failed.fails().stderr(),
        "error: truncated tar stream: it ends within a header\n\
         hint: fetch or make the archive again: its end is missing\n"
    );
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn container_that_has_no_rights_and_another_user_gets_files_all_the_same() {
    let kiln = running(
        &["--cap-drop", "all", "-u", "app", "--network", "none"],
        ":",
    );
    kiln.sandbox().directory("f", &[("file", "file\n")]);
    kiln.run(["cp", "f/file", "bg:/root/"]).ok();
    let output = kiln.run(["exec", "-u", "0", "bg", "cat", "/root/file"]);
    assert_eq!(output.ok().stdout(), "file\n");
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn nothing_in_the_container_sees_the_process_that_writes_its_files() {
    // Whoever shows up beside the processes of the container is noted.
    let script = "while :; do for p in /proc/[0-9]*; do \
                  case $(cat $p/comm 2> /dev/null) in kiln*) echo seen >> /seen;; esac; \
                  done; done & echo begun > /begun";
    let kiln = running(&[], script);
    let mut command = kiln.command(["cp", "-q", "-", "bg:/tmp"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // It waits for more, long enough to be found.
    thread::sleep(Duration::from_millis(500));
    drop(child.stdin.take());
    child.wait().unwrap();
    kiln.run(["cp", "bg:/begun", "begun"]).ok();
    assert_eq!(
        kiln.run(["cp", "bg:/seen", "seen"]).fails().stderr(),
        "error: could not find the file /seen in container bg\n"
    );
    // A command that joins it is seen.
    let script = "cd /tmp; printf '#!/bin/sh\nsleep 1\n' > kilned; chmod 755 kilned; ./kilned";
    inside(&kiln, script);
    kiln.run(["cp", "bg:/seen", "seen"]).ok();
    kiln.run(["rm", "-f", "bg"]).ok();
}

#[test]
fn links_that_are_swapped_while_it_is_copied_lead_to_no_file_of_the_host() {
    let (kiln, image) = Kiln::with_busybox();
    let here = kiln.sandbox();
    let secret = here.directory("secret", &[("file", "of the host\n")]);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o777)).unwrap();
    let path = secret.display();
    // A directory, a link out of the container to the host's, and back, in a loop; and the same
    // for a file, and for a pipe that blocks who opens it.
    let script = format!(
        "mkdir -p /swap/real /swap/file.d; ln -s {path} /swap/out; echo inner > /swap/real/file; \
         mkfifo /swap/pipe; \
         while :; do mv -T /swap/real /swap/dir; mv -T /swap/dir /swap/real; \
         mv -T /swap/out /swap/dir; mv -T /swap/dir /swap/out; done & \
         while :; do echo f > /swap/name; ln -sf {path}/file /swap/l; mv /swap/l /swap/name; \
         mv /swap/pipe /swap/name; mv /swap/name /swap/pipe; done 2> /dev/null & \
         echo up; exec sleep 600"
    );
    kiln.run(["run", "-d", "--name", "bg", &image, "sh", "-c", &script])
        .ok();
    wait_until("the start", || {
        kiln.run(["logs", "bg"]).ok().stdout() == "up\n"
    });
    here.directory("d", &[("file", "of cp\n"), ("sub/deep/file", "of cp\n")]);
    symlink("/etc/passwd", here.join("d/link")).unwrap();
    let mode = |path: &std::path::Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    let (before, file_mode) = (mode(&secret), mode(&secret.join("file")));
    let kinds = inside(
        &kiln,
        "for i in $(seq 2000); do stat -c %F /swap/dir /swap/name; done 2> /dev/null | grep -v empty | sort -u",
    );
    assert_eq!(kinds, "directory\nfifo\nregular file\nsymbolic link\n");
    let (mut went, begun) = (0, Instant::now());
    while begun.elapsed() < Duration::from_secs(6) {
        for arguments in [
            ["cp", "d/.", "bg:/swap/dir"],
            ["cp", "d/file", "bg:/swap/dir/file"],
            ["cp", "d/file", "bg:/swap/name"],
            ["cp", "bg:/swap", "got"],
            ["cp", "bg:/swap/name", "one"],
        ] {
            // What it finds is a matter of luck.
            went += usize::from(kiln.run(arguments).code() == Some(0));
        }
        let _ = fs::remove_dir_all(here.join("got"));
        // A link comes out as one, and whoever writes there next writes where it leads.
        let _ = fs::remove_file(here.join("one"));
    }
    assert!(went > 0);
    let names: Vec<_> = fs::read_dir(&secret)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["file"]);
    let content = fs::read_to_string(secret.join("file")).unwrap();
    assert_eq!(content, "of the host\n");
    assert_eq!(
        (before, file_mode),
        (mode(&secret), mode(&secret.join("file")))
    );
    kiln.run(["rm", "-f", "bg"]).ok();
}
