//! What a container is made with: mounts, limits, names; and the flags that are refused.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use support::Kiln;

fn shell(kiln: &Kiln, options: &[&str], image: &str, script: &str) -> support::Output {
    let command = [image, "sh", "-c", script];
    kiln.run(["run", "--rm"].iter().chain(options).chain(&command))
}

#[test]
fn files_of_the_user_are_shown_and_written() {
    let (kiln, image) = Kiln::with_busybox();
    let here = kiln.sandbox().directory("data", &[("file", "mine\n")]);
    // Private to the user: root in the container may use it all the same.
    fs::set_permissions(&here, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let bind = format!("{}:/mnt/data", here.display());
    let script = "cat /mnt/data/file; echo more >> /mnt/data/file; echo new > /mnt/data/new; \
                  stat -c '%u' /mnt/data/file /mnt/data/new";
    let output = shell(&kiln, &["-v", &bind], &image, script).ok();
    assert_eq!(output.stdout(), "mine\n65536\n0\n");
    assert_eq!(
        fs::read_to_string(here.join("file")).unwrap(),
        "mine\nmore\n"
    );
    let user = nix::unistd::geteuid().as_raw();
    assert_eq!(fs::metadata(here.join("file")).unwrap().uid(), user);
    // What it makes there belongs to its own root.
    assert_ne!(fs::metadata(here.join("new")).unwrap().uid(), user);
    let read_only = format!("{bind}:ro");
    let output = shell(
        &kiln,
        &["-v", &read_only],
        &image,
        "echo x > /mnt/data/file",
    )
    .fails();
    assert_eq!(
        output.stderr(),
        "sh: can't create /mnt/data/file: Read-only file system\n"
    );
    let file = format!(
        "type=bind,source={}/file,target=/etc/motd,readonly",
        here.display()
    );
    let output = shell(&kiln, &["--mount", &file], &image, "cat /etc/motd").ok();
    assert_eq!(output.stdout(), "mine\nmore\n");
    // Without any, the id of the user is not in the container.
    let output = shell(&kiln, &[], &image, "cat /proc/self/uid_map | wc -l").ok();
    assert_eq!(output.stdout(), "1\n");
    kiln.run(["unshare", "rm", "-r", here.to_str().unwrap()])
        .ok();
}

#[test]
fn source_that_is_missing_is_made_by_v_and_refused_by_mount() {
    let (kiln, image) = Kiln::with_busybox();
    let here = kiln.sandbox().path().to_owned();
    shell(&kiln, &["-v", "./made:/made"], &image, "true").ok();
    assert!(here.join("made").is_dir());
    let missing = format!("type=bind,src={}/missing,dst=/m", here.display());
    assert_eq!(
        shell(&kiln, &["--mount", &missing], &image, "true")
            .fails()
            .stderr(),
        format!(
            "error: cannot mount {}/missing: No such file or directory (os error 2)\n\
             hint: it must exist\n",
            here.display()
        )
    );
    assert_eq!(
        shell(&kiln, &["-v", "data:/data"], &image, "true")
            .fails()
            .stderr(),
        "error: invalid -v \"data:/data\": kiln has no volumes: the source is a path, \
         which begins with / or .\n"
    );
}

#[test]
fn mounts_are_no_changes_and_are_there_again_at_the_next_start() {
    let (kiln, image) = Kiln::with_busybox();
    kiln.sandbox().directory("data", &[("file", "mine\n")]);
    let options = [
        "--name",
        "one",
        "-v",
        "./data:/deep/in/data",
        "--tmpfs",
        "/mem:size=1m,mode=700",
    ];
    let script = "cat /deep/in/data/file; echo x > /mem/x; ls /mem; stat -c %a /mem";
    let command = [image.as_str(), "sh", "-c", script];
    let output = kiln
        .run(["run"].iter().chain(&options).chain(&command))
        .ok();
    assert_eq!(output.stdout(), "mine\nx\n700\n");
    assert_eq!(kiln.run(["diff", "one"]).ok().stdout(), "");
    let again = kiln.run(["start", "-a", "one"]).ok();
    assert_eq!(again.stdout(), "mine\nx\n700\n");
}

#[test]
fn root_that_is_read_only_has_writable_mounts() {
    let (kiln, image) = Kiln::with_busybox();
    let script = "echo x > /x; echo x > /tmp/x && cat /tmp/x; echo x > /dev/shm/x && echo shm";
    let output = shell(&kiln, &["--read-only", "--tmpfs", "/tmp"], &image, script).ok();
    assert_eq!(
        (output.stdout().as_str(), output.stderr().as_str()),
        ("x\nshm\n", "sh: can't create /x: Read-only file system\n")
    );
}

#[test]
fn limits_names_groups_and_capabilities_are_as_asked_for() {
    let (kiln, image) = Kiln::with_busybox();
    let options = [
        "--ulimit",
        "nofile=100:200",
        "--add-host",
        "db:192.0.2.7",
        "--dns",
        "192.0.2.53",
        "--group-add",
        "2000",
        "--shm-size",
        "1m",
        "--cap-drop",
        "CHOWN",
        "-h",
        "box",
    ];
    let script = "ulimit -n; grep -w db /etc/hosts; cat /etc/resolv.conf | grep -c 192.0.2.53; id -G; \
                  df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; hostname; \
                  chown 5 /tmp 2>/dev/null || echo no";
    let output = shell(&kiln, &options, &image, script).ok();
    assert_eq!(
        output.stdout(),
        "100\n192.0.2.7\tdb\n1\n0 2000\n1024\nbox\nno\n"
    );
    fs::write(
        kiln.sandbox().path().join("env"),
        "# c\nA=1\nB=x y\nUNSET\n",
    )
    .unwrap();
    let output = shell(
        &kiln,
        &["--env-file", "env", "-e", "A=2"],
        &image,
        "echo $A $B $UNSET",
    );
    assert_eq!(output.ok().stdout(), "2 x y\n");
}

#[test]
fn id_is_written_to_a_file_that_must_not_exist() {
    let (kiln, image) = Kiln::with_busybox();
    let create = [
        "create",
        "--cidfile",
        "id",
        "-l",
        "a=b",
        "--name",
        "one",
        &image,
    ];
    let id = kiln.run(create).ok().line();
    assert_eq!(
        fs::read_to_string(kiln.sandbox().path().join("id")).unwrap(),
        id
    );
    let again = ["create", "--cidfile", "id", "--name", "two", &image];
    assert_eq!(
        kiln.run(again).fails().stderr(),
        "error: the file for the container's id is there already: id\n\
         hint: remove it, or name another with --cidfile\n"
    );
    let shown = kiln.run([
        "inspect",
        "-f",
        "{{.Name}} {{.Config.Labels.a}} {{.State.Status}}",
        "one",
    ]);
    assert_eq!(shown.ok().stdout(), "/one b created\n");
}

#[test]
fn flags_that_can_t_be_carried_out_are_refused_by_name() {
    let (kiln, image) = Kiln::with_busybox();
    for (flags, error) in [
        (
            &["-p", "80:80"][..],
            "error: --publish is not possible\n\
             hint: the network is the host's: a port that is listened on is there already\n",
        ),
        (
            &["--privileged"],
            "error: --privileged is not possible\n\
             hint: a container never gets more rights than your user has\n",
        ),
        (
            &["-m", "1g"],
            "error: --memory is not possible\n\
             hint: kiln limits neither memory nor processors; --ulimit limits each process\n",
        ),
        (
            &["--init"],
            "error: --init is not possible\n\
             hint: the command is process 1; kiln passes signals on to it\n",
        ),
    ] {
        let refused = kiln.run(["run"].iter().chain(flags).chain(&[image.as_str(), "true"]));
        assert_eq!(
            (refused.code(), refused.stderr().as_str()),
            (Some(125), error)
        );
    }
    assert_eq!(
        kiln.run(["run", "--restart", "always", &image]).code(),
        Some(2)
    );
    assert_eq!(
        kiln.run(["run", "--pull", "never", "nosuch"]).code(),
        Some(125)
    );
}
