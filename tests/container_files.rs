//! `kiln cp`, `commit`, `export` and `diff`: files in and out of containers.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use support::{Kiln, Registry};

/// Returns kiln and the container `cc` of busybox, which runs a script when it is started.
fn container(script: &str) -> Kiln {
    let kiln = Kiln::new();
    let image = Registry::shared().busybox();
    kiln.run(["pull", "-q", &image]).ok();
    kiln.run(["tag", &image, "base"]).ok();
    kiln.run(["create", "--name", "cc", "base", "sh", "-c", script])
        .ok();
    kiln
}

/// Runs a script on the container's files by way of an image of it.
fn within(kiln: &Kiln, script: &str) -> String {
    kiln.run(["commit", "cc", "copy"]).ok();
    kiln.run(["run", "--rm", "copy", "sh", "-c", script])
        .ok()
        .stdout()
}

#[test]
fn copies_go_where_docker_s_go() {
    let kiln = container("true");
    let here = kiln.sandbox();
    here.directory("d", &[("x", "x\n"), ("sub/y", "y\n")]);
    here.directory("f", &[("file", "file\n")]);
    for (from, to) in [
        ("d", "cc:/new"),        // a directory that is not there gets the content
        ("d", "cc:/tmp"),        // one that is there gets the directory
        ("d/.", "cc:/home"),     // or its content
        ("f/file", "cc:/other"), // a file gets the name
        ("f/file", "cc:/tmp/"),  // or goes into a directory
        ("f/file", "cc:home/app/../z"),
    ] {
        let copied = kiln.run(["cp", from, to]).ok();
        assert_eq!(
            copied.stderr(),
            format!("Successfully copied to {to}\n"),
            "{from}"
        );
    }
    let script = "cd /; cat new/x new/sub/y tmp/d/x home/x home/sub/y other tmp/file home/z; \
                  stat -c %u:%g new other home/z";
    assert_eq!(
        within(&kiln, script),
        "x\ny\nx\nx\ny\nfile\nfile\nfile\n0:0\n0:0\n0:0\n"
    );
    // What was there stays, and what a file replaces is replaced.
    here.directory("f", &[("file", "second\n")]);
    kiln.run(["cp", "-q", "f/file", "cc:/other"]).ok();
    assert_eq!(
        within(&kiln, "cat /other; ls /home"),
        "second\napp\nsub\nx\nz\n"
    );
    for (from, to, error) in [
        (
            "nosuch",
            "cc:/x",
            "error: cannot read nosuch: No such file or directory (os error 2)\n",
        ),
        (
            "f/file",
            "cc:/no/such",
            "error: could not find the file /no in container cc\n",
        ),
        (
            "f/file",
            "cc:/nosuch/",
            "error: the destination directory /nosuch/ must exist\n",
        ),
        (
            "d",
            "cc:/etc/passwd",
            "error: cannot copy a directory to the file /etc/passwd\n",
        ),
        (
            "cc:/nosuch",
            "out",
            "error: could not find the file /nosuch in container cc\n",
        ),
        (
            "cc:/etc",
            "f/file",
            "error: cannot copy a directory to the file f/file\n",
        ),
        (
            "cc:/etc/passwd/",
            "out",
            "error: /etc/passwd/ is not a directory\n",
        ),
        (
            "-",
            "cc:/etc/passwd",
            "error: the destination cc:/etc/passwd must be a directory\n",
        ),
        (
            "d",
            "e",
            "error: must specify at least one container source\nhint: one of the two is CONTAINER:PATH\n",
        ),
    ] {
        assert_eq!(
            kiln.run(["cp", from, to]).fails().stderr(),
            error,
            "{from} {to}"
        );
    }
}

#[test]
fn copies_out_belong_to_the_user_and_have_odd_names_and_links_as_they_are() {
    let script = "cd /root; printf 'a b' > \"$(printf 'od\\377d\\nname')\"; ln -s nowhere dangling; \
                  ln -s /etc/passwd absolute; mkdir sub; chown 5:6 sub; chmod 4755 sub; ln -s sub dir";
    let kiln = container(script);
    kiln.run(["start", "-a", "cc"]).ok();
    let here = kiln.sandbox().path().to_owned();
    kiln.run(["cp", "cc:/root", "out"]).ok();
    let mut names: Vec<Vec<u8>> = fs::read_dir(here.join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_encoded_bytes())
        .collect();
    names.sort();
    let expected: [&[u8]; 5] = [b"absolute", b"dangling", b"dir", b"od\xffd\nname", b"sub"];
    assert_eq!(names, expected);
    let link = |name: &str| fs::read_link(here.join("out").join(name)).unwrap();
    assert_eq!(link("dangling").to_str(), Some("nowhere"));
    assert_eq!(link("absolute").to_str(), Some("/etc/passwd"));
    // A link is copied as such, or what it leads to: within the container.
    kiln.run(["cp", "cc:/root/absolute", "link"]).ok();
    assert!(
        fs::symlink_metadata(here.join("link"))
            .unwrap()
            .is_symlink()
    );
    kiln.run(["cp", "-L", "cc:/root/absolute", "passwd"]).ok();
    let passwd = fs::read_to_string(here.join("passwd")).unwrap();
    assert!(passwd.contains("app:x:1000:") && passwd != fs::read_to_string("/etc/passwd").unwrap());
    let meta = fs::metadata(here.join("out/sub")).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(meta.uid(), nix::unistd::geteuid().as_raw());
    assert_eq!(meta.mode() & 0o7777, 0o755);
}

#[test]
fn links_of_a_container_lead_to_no_file_of_the_host() {
    let kiln =
        container("ln -s / /root/up; ln -s ../../../../../etc /root/back; ln -s /tmp/t /root/f");
    kiln.run(["start", "-a", "cc"]).ok();
    let here = kiln.sandbox();
    let secret = here.directory("secret", &[("file", "of the host\n")]);
    let path = secret.join("file");
    let through = format!("cc:/root/up{}", path.display());
    assert_eq!(
        kiln.run(["cp", &through, "out"]).fails().stderr(),
        format!(
            "error: could not find the file {} in container cc\n",
            path.display()
        )
    );
    // Written through the links of the container: what they lead to lies in the container.
    here.directory("f", &[("hostname", "mine\n")]);
    kiln.run(["cp", "f/hostname", "cc:/root/back/hostname"])
        .ok();
    kiln.run(["cp", "f/hostname", "cc:/root/up/tmp/"]).ok();
    assert_eq!(
        within(&kiln, "cat /etc/hostname /tmp/hostname"),
        "mine\nmine\n"
    );
    assert_ne!(
        fs::read_to_string("/etc/hostname").unwrap_or_default(),
        "mine\n"
    );
    // An archive that tries the same.
    let archive = here.path().join("evil.tar");
    fs::create_dir(here.path().join("e")).unwrap();
    symlink("/", here.path().join("e/up")).unwrap();
    fs::write(here.path().join("evil"), "evil\n").unwrap();
    let tar = |arguments: &[&str]| {
        let mut command = Command::new("tar");
        let status = command
            .current_dir(here.path())
            .arg("-f")
            .arg(&archive)
            .args(arguments);
        assert!(status.status().unwrap().success());
    };
    tar(&["-c", "-C", "e", "up"]);
    let name = format!("s,^evil$,up{}/evil,", secret.display());
    tar(&["-r", "--transform", &name, "evil"]);
    kiln.run_with_input(["cp", "-", "cc:/tmp"], &fs::read(&archive).unwrap())
        .ok();
    assert!(!secret.join("evil").exists());
    let written = format!("cc:{}/evil", secret.display());
    kiln.run(["cp", &written, "got"]).ok();
    assert_eq!(
        fs::read_to_string(here.path().join("got")).unwrap(),
        "evil\n"
    );
    // A link of the user's own in the way of what comes out is replaced, not followed.
    let target = here.directory("t", &[("victim", "safe\n")]);
    symlink(target.join("victim"), here.path().join("t/hostname")).unwrap();
    kiln.run(["cp", "cc:/etc/hostname", "t/"]).ok();
    assert_eq!(fs::read_to_string(target.join("victim")).unwrap(), "safe\n");
    assert_eq!(
        fs::read_to_string(target.join("hostname")).unwrap(),
        "mine\n"
    );
}

#[test]
fn archives_go_in_and_out_with_their_owners() {
    let kiln = container("mkdir /data; echo x > /data/x; chown 7:8 /data/x; ln /data/x /data/y");
    kiln.run(["start", "-a", "cc"]).ok();
    let out = kiln.sandbox().path().join("out.tar");
    let file = fs::File::create(&out).unwrap();
    let status = kiln.command(["cp", "cc:/data", "-"]).stdout(file).status();
    assert!(status.unwrap().success());
    let list = Command::new("tar").arg("-tvf").arg(&out).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let columns = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        [words[0], words[1], words[5..].join(" ").as_str()].join(" ")
    };
    let lines: Vec<String> = list.lines().map(columns).collect();
    assert_eq!(
        lines,
        [
            "drwxr-xr-x 0/0 data/",
            "-rw-r--r-- 7/8 data/x",
            "hrw-r--r-- 7/8 data/y link to data/x"
        ]
    );
    kiln.run_with_input(["cp", "-", "cc:/tmp"], &fs::read(&out).unwrap())
        .ok();
    assert_eq!(
        within(&kiln, "cd /tmp/data; stat -c '%n %u:%g %h' x y"),
        "x 7:8 2\ny 7:8 2\n"
    );
    kiln.run(["export", "-o", "all.tar", "cc"]).ok();
    let names = Command::new("tar")
        .args(["-tf", "all.tar"])
        .current_dir(kiln.sandbox().path())
        .output()
        .unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    for name in ["data/x", "tmp/data/y", "etc/passwd", "bin/busybox"] {
        assert!(names.lines().any(|line| line == name), "{name}\n{names}");
    }
}

#[test]
fn commit_makes_an_image_with_what_the_container_has() {
    let script = "rm -r /etc/group /home/app; mkdir /home/app; echo x > /home/app/new; \
                  mkdir /sticky; chmod 1777 /sticky; touch -d @1000000000 /old";
    let kiln = container(script);
    kiln.run(["start", "-a", "cc"]).ok();
    let arguments = [
        "commit",
        "-m",
        "by hand",
        "-a",
        "Me <me@example.com>",
        "--pause=false",
    ];
    let changes = [
        "-c",
        "ENV A=\"b c\"",
        "-c",
        "CMD [\"cat\", \"/home/app/new\"]",
    ];
    let names = ["-c", "LABEL l=1", "cc", "image:1"];
    let id = kiln
        .run(arguments.iter().chain(&changes).chain(&names))
        .ok()
        .line();
    let field = |format: &str| kiln.run(["inspect", "-f", format, "image:1"]).ok().line();
    assert_eq!(field("{{.Id}}"), id);
    assert_eq!(field("{{.Author}}"), "Me <me@example.com>");
    assert_eq!(field("{{.Comment}}"), "by hand");
    assert_eq!(field("{{json .Config.Cmd}}"), "[\"cat\",\"/home/app/new\"]");
    assert!(field("{{json .Config.Env}}").contains("\"A=b c\""));
    assert_eq!(field("{{.Config.Labels.l}}"), "1");
    assert_eq!(kiln.run(["run", "--rm", "image:1"]).ok().stdout(), "x\n");
    let script = "ls -A /home/app; ls /etc/group; stat -c %a /sticky; stat -c %Y /old";
    let output = kiln.run(["run", "--rm", "image:1", "sh", "-c", script]);
    assert_eq!(output.stdout(), "new\n1777\n1000000000\n");
    // The image has a layer more than its base, read by code that is not kiln's.
    let image = kiln.image("image:1");
    assert_eq!(image.tree.file("/home/app/new").content(), b"x\n");
    // What was not changed makes no layer.
    kiln.run(["create", "--name", "same", "base", "true"]).ok();
    kiln.run(["commit", "same", "same"]).ok();
    let layers = |name: &str| {
        let output = kiln.run(["image", "inspect", "-f", "{{json .RootFS.Layers}}", name]);
        output.ok().stdout()
    };
    assert_eq!(layers("same"), layers("base"));
    assert_eq!(
        kiln.run(["commit", "-c", "RUN true", "cc"])
            .fails()
            .stderr()
            .lines()
            .next(),
        Some("error: cannot apply the change \"RUN true\": RUN does not change the config alone")
    );
}

#[test]
fn containers_work_on_fuse_overlayfs_too() {
    support::require!(
        support::has_program("fuse-overlayfs"),
        "fuse-overlayfs is not installed"
    );
    let kiln = Kiln::new().env("KILN_DISABLE", "overlay");
    let image = Registry::shared().busybox();
    let script = "ls /etc/group; rm -rf /etc/group /home; mkdir /home; echo x >> /n; cat /n";
    let words = [&image, "sh", "-c", script];
    kiln.run(["run", "--name", "cc"].iter().copied().chain(words))
        .ok();
    let again = kiln.run(["start", "-a", "cc"]).ok();
    assert_eq!(again.stdout(), "x\nx\n");
    let diff = kiln.run(["diff", "cc"]).ok().stdout();
    assert_eq!(diff, "C /etc\nD /etc/group\nC /home\nD /home/app\nA /n\n");
    fs::write(kiln.sandbox().path().join("f"), "in\n").unwrap();
    kiln.run(["cp", "f", "cc:/f"]).ok();
    kiln.run(["commit", "cc", "image"]).ok();
    let output = kiln.run(["run", "--rm", "image", "sh", "-c", "cat /n /f; ls /home"]);
    assert_eq!(output.ok().stdout(), "x\nx\nin\n");
    // The kernel's overlay goes on where that one left off.
    let mut command = kiln.command(["start", "-a", "cc"]);
    let output = command.env_remove("KILN_DISABLE").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "x\nx\nx\n");
}
