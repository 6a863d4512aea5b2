//! RUN: what a command sees, how it ends, and what it leaves in the layer.

mod support;

use support::{Kiln, Registry};

fn base() -> String {
    Registry::shared().busybox()
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// SEMANTICS 37, SEMANTICS 72
#[test]
fn environment_is_that_of_the_dockerfile_and_nothing_else() {
    let kiln = Kiln::new().env("CALLER", "leaks").env("ARGUMENT", "leaks");
    let image = kiln.built_on_busybox("ARG GIVEN=1\nARG EMPTY=\nARG UNSET\nENV SET=\"a b\"\nRUN cat /proc/$$/environ > /env; true",
    );
    let text = image.text("/env").replace('\0', "\n");
    assert_eq!(
        sorted_lines(&text),
        ["EMPTY=", "GIVEN=1", "HOME=/root", PATH, "SET=a b"]
    );
}

/// SEMANTICS 72
#[test]
fn process_inherits_nothing_of_the_caller() {
    let kiln = Kiln::new();
    let script = "umask > /umask; grep -E '^Sig(Ign|Blk|Cgt)' /proc/self/status > /signals; \
                  readlink /proc/self/fd/0 > /stdin; ls /proc/self/fd > /fds; cat > /read; \
                  cat /proc/self/oom_score_adj > /oom; nice > /nice; hostname > /hostname";
    let mut command = std::process::Command::new("sh");
    // A caller with an odd umask, ignored signals, and a descriptor too many.
    let context = kiln.sandbox().directory("context", &[]);
    let dockerfile = format!("FROM {}\nRUN {script}\n", base());
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let inner = kiln.command(["build", "-t", "test", "--progress", "plain"]);
    command
        .env_clear()
        .envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .arg("-c")
        .arg("umask 0077; trap '' INT HUP PIPE; exec 7</etc/passwd; exec \"$@\"")
        .arg("sh")
        .arg(inner.get_program())
        .args(inner.get_args())
        .arg(&context);
    support::run(&mut command, std::time::Duration::from_secs(60)).ok();
    let image = kiln.image("test");
    assert_eq!(image.text("/umask"), "0022\n");
    for line in image.text("/signals").lines() {
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
    assert_eq!(image.text("/stdin"), "/dev/null\n");
    assert_eq!(image.text("/read"), "");
    // 3 is ls's own.
    assert_eq!(image.text("/fds"), "0\n1\n2\n3\n");
    assert_eq!(image.text("/hostname"), "kiln\n");
}

/// SEMANTICS 26, SEMANTICS 37
#[test]
fn proxy_arguments_reach_the_command_in_both_spellings_and_leave_no_trace() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nRUN env > /env\n", base());
    let options = ["--build-arg", "https_proxy=http://proxy.invalid:1"];
    kiln.build_with(&options, &dockerfile, &[]).ok();
    let image = kiln.image("test");
    let env = image.text("/env");
    for name in ["https_proxy", "HTTPS_PROXY"] {
        assert!(
            env.lines()
                .any(|l| l == format!("{name}=http://proxy.invalid:1")),
            "{env}"
        );
    }
    assert!(!image.config.to_string().contains("proxy.invalid"));
}

/// SEMANTICS 33
#[test]
fn users_by_name_and_number_have_their_groups() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox(
        "RUN printf 'one:x:77:app\\ntwo:x:78:nobody,app\\n' >> /etc/group && mkdir -m 777 /out\n\
         USER app\nRUN id > /out/name; echo $HOME > /out/home\n\
         USER app:two\nRUN id > /out/group\n\
         USER 1000\nRUN id > /out/number\n\
         USER 4321\nRUN id > /out/unknown; echo $HOME > /out/home-of-unknown\n\
         USER 4321:9\nRUN id > /out/both\n\
         USER 0\nRUN id > /out/root; echo $HOME > /out/home-of-root",
    );
    let id = |name: &str| image.text(&format!("/out/{name}")).trim().to_owned();
    assert_eq!(
        id("name"),
        "uid=1000(app) gid=1000(app) groups=77(one),78(two),1000(app),2000(extra)"
    );
    assert_eq!(id("group"), "uid=1000(app) gid=78(two) groups=78(two)");
    assert_eq!(
        id("number"),
        "uid=1000(app) gid=1000(app) groups=77(one),78(two),1000(app),2000(extra)"
    );
    assert_eq!(id("unknown"), "uid=4321 gid=0(root) groups=0(root)");
    assert_eq!(id("both"), "uid=4321 gid=9 groups=9");
    assert_eq!(id("home"), "/home/app");
    assert_eq!(id("home-of-unknown"), "/");
    assert_eq!(id("home-of-root"), "/root");
    let node = image.tree.file("/out/both");
    assert_eq!((node.uid, node.gid), (4321, 9));
}

/// SEMANTICS 13
#[test]
fn document_of_a_run_is_expanded_by_its_shell_alone() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox(
        "ARG A=arg\nRUN <<EOF\necho '$A' \"$A\" ${A#a} > /script\nEOF\n\
         RUN cat > /quoted <<'EOF'\n$A\nEOF\nRUN cat > /plain <<EOF\n$A \\$A\nEOF\n",
    );
    assert_eq!(image.text("/script"), "$A arg rg\n");
    assert_eq!(image.text("/quoted"), "$A\n");
    assert_eq!(image.text("/plain"), "arg $A\n");
}

/// SEMANTICS 37
#[test]
fn build_argument_names_the_host() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nRUN hostname > /name\n", base());
    kiln.build_with(
        &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=elsewhere"],
        &dockerfile,
        &[],
    )
    .ok();
    assert_eq!(kiln.image("test").text("/name"), "elsewhere\n");
    kiln.build(&dockerfile, &[]).ok();
    assert_eq!(kiln.image("test").text("/name"), "kiln\n");
}

/// SEMANTICS 32
#[test]
fn env_home_wins_over_passwd() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox("ENV HOME=/elsewhere\nRUN echo $HOME > /home.txt");
    assert_eq!(image.text("/home.txt"), "/elsewhere\n");
}

#[test]
fn command_runs_in_the_working_directory() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox("RUN pwd > /pwd0\nWORKDIR /a\nWORKDIR b/c\nRUN pwd > /pwd1\nENV D=/e\nWORKDIR $D/f\nRUN pwd > here",
    );
    assert_eq!(image.text("/pwd0"), "/\n");
    assert_eq!(image.text("/pwd1"), "/a/b/c\n");
    assert_eq!(image.text("/e/f/here"), "/e/f\n");
}

#[test]
fn working_directory_that_was_removed_is_made_again() {
    let kiln = Kiln::new();
    let output = kiln.build_on_busybox("WORKDIR /gone\nRUN cd / && rmdir /gone\nRUN pwd > /pwd");
    // As the reference does: the working directory is made for the command.
    output.ok();
    let image = kiln.image("test");
    assert_eq!(image.text("/pwd"), "/gone\n");
}

/// SEMANTICS 32
#[test]
fn shell_form_uses_shell_and_exec_form_none() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox("ENTRYPOINT [\"/bin/false\"]\nENV V=value\nRUN echo $V > /one\n\
         RUN [\"/bin/touch\", \"/$V\"]\nRUN [\"touch\", \"/by path\"]\n\
         SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $0 $- > /two; true\nRUN echo a | \\\n  # comment\n  cat > /three\n\
         RUN <<EOF\necho four > /four\necho $V >> /four\nEOF\n",
    );
    assert_eq!(image.text("/one"), "value\n");
    assert!(image.tree.get("/$V").is_some());
    assert!(image.tree.get("/by path").is_some());
    assert!(image.text("/two").contains('e'));
    assert_eq!(image.text("/three"), "a\n");
    assert_eq!(image.text("/four"), "four\nvalue\n");
    assert_eq!(
        image.setting("Shell"),
        &serde_json::json!(["/bin/sh", "-ec"])
    );
}

/// SEMANTICS 37
#[test]
fn network_none_has_a_loopback_that_is_up_and_nothing_else() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox("RUN --network=none ls /sys/class/net > /none; cat /sys/class/net/lo/flags > /flags; cat /proc/net/route > /route\n\
         RUN --network=none (echo hi | nc -l -p 8080 &) ; sleep 0.3; nc -w 2 127.0.0.1 8080 > /got\n\
         RUN --network=host ls /sys/class/net > /host",
    );
    let none = image.text("/none");
    // sysfs may be the host's; the table of routes is the namespace's own in any case.
    assert!(none == "lo\n" || none == image.text("/host"), "{none}");
    assert_eq!(image.text("/route").lines().count(), 1);
    assert_eq!(image.text("/got"), "hi\n");
}

#[test]
fn network_option_counts_for_all_runs_but_those_that_say_otherwise() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\nRUN readlink /proc/self/ns/net > /a\nRUN --network=host readlink /proc/self/ns/net > /b\n",
        base()
    );
    kiln.build_with(&["--network", "none"], &dockerfile, &[])
        .ok();
    let image = kiln.image("test");
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let host = format!("{}\n", host.display());
    assert_ne!(image.text("/a"), host);
    assert_eq!(image.text("/b"), host);
}

/// SEMANTICS 36
#[test]
fn mount_points_leave_nothing_in_an_image_that_has_none() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {} AS from\nFROM scratch\nCOPY --from=from /bin/busybox /busybox\nRUN [\"/busybox\", \"touch\", \"/x\"]\n\
         RUN [\"/busybox\", \"true\"]\n",
        base()
    );
    kiln.build(&dockerfile, &[]).ok();
    let image = kiln.image("test");
    assert_eq!(image.tree.paths().collect::<Vec<_>>(), ["/busybox", "/x"]);
    assert!(image.top().is_empty(), "{:?}", image.layers);
}

#[test]
fn run_that_changes_nothing_makes_an_empty_layer() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox("RUN ls -la / /etc /proc /sys /dev > /dev/null; echo x > /dev/null; cat /etc/hosts /etc/resolv.conf > /dev/null",
    );
    assert!(image.top().is_empty(), "{:?}", image.top());
}

/// SEMANTICS 36
#[test]
fn etc_is_not_changed_by_the_files_that_are_mounted_there() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {} AS from\nFROM scratch\nCOPY --from=from /bin/busybox /busybox\nCOPY d /\n\
         RUN [\"/busybox\", \"stat\", \"-c\", \"%Y\", \"/etc\"]\n",
        base()
    );
    let context = kiln.sandbox().directory("context", &[("d/etc/keep", "")]);
    let etc = std::fs::File::open(context.join("d/etc")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    etc.set_modified(old).unwrap();
    let output = kiln.build(&dockerfile, &[]).ok();
    assert!(output.stderr().contains(" 1000000000\n"), "{output}");
    let image = kiln.image("test");
    assert!(image.top().is_empty(), "{:?}", image.top());
    assert_eq!(image.tree.file("/etc").mtime, 1_000_000_000);
    assert!(image.tree.get("/etc/hosts").is_none());
    assert!(image.tree.get("/etc/resolv.conf").is_none());
}

#[test]
fn what_a_step_writes_beside_mounted_files_is_kept() {
    let kiln = Kiln::new();
    let image =
        kiln.built_on_busybox("RUN echo x > /etc/new && echo y > /dev/shm/gone && echo z > /tmp/t");
    let names: Vec<_> = image.top();
    assert_eq!(names, ["etc", "etc/new", "tmp", "tmp/t"]);
}

#[test]
fn exit_codes_and_signals_are_reported() {
    let kiln = Kiln::new();
    for (command, ending) in [
        ("exit 3", "exit code: 3"),
        ("no-such-command", "exit code: 127 (command not found)"),
        ("touch /x; /x", "exit code: 126 (command can't be executed)"),
        (
            "sh -c 'kill -SEGV $$'; exit $?",
            "exit code: 139 (128 + SIGSEGV)",
        ),
    ] {
        let output = kiln
            .build_on_busybox(&format!("RUN {command}"))
            .fails_with(&format!("\n  {ending}\n"));
        assert_eq!(output.code(), Some(1), "{output}");
    }
}

#[test]
fn failing_run_is_reported_with_its_place_its_command_and_its_output() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\n\nRUN echo fine\nRUN echo out && \\\n    echo err >&2 && \\\n    exit 7\nRUN never\n",
        base()
    );
    let output = kiln.build(&dockerfile, &[]).fails();
    let stderr = output.stderr();
    let (_, report) = stderr.split_once("error: ").unwrap();
    let (report, log) = report.split_once("  full log: ").unwrap();
    let mut lines: Vec<_> = report.lines().collect();
    // Two pipes: whose line comes first is not given.
    let length = lines.len();
    lines[length - 2..].sort_unstable();
    assert_eq!(
        lines.join("\n"),
        "\
step failed: [3/4] RUN echo out &&     echo err >&2 &&     exit 7
  Dockerfile:4
    2 |
    3 | RUN echo fine
>   4 | RUN echo out && \\
>   5 |     echo err >&2 && \\
>   6 |     exit 7
    7 | RUN never
  command: /bin/sh -c 'echo out &&     echo err >&2 &&     exit 7'
  exit code: 7
  output:
    err
    out"
    );
    let log = std::fs::read_to_string(log.trim()).unwrap();
    assert_eq!(sorted_lines(&log), ["err", "out"]);
}

#[test]
fn missing_shell_and_program_are_explained() {
    let kiln = Kiln::new();
    let cases = [
        (
            "FROM scratch\nRUN echo\n".to_owned(),
            "error: exec /bin/sh: no such file: FROM scratch has no shell and no programs\n",
            "hint: COPY what you need into the image, and use the exec form: RUN [\"/program\"]\n",
        ),
        (
            format!("FROM {}\nRUN [\"nothing\"]\n", base()),
            "error: exec nothing: no such file in the image\n",
            "hint: is it installed, and in the PATH of the image?\n",
        ),
        (
            format!("FROM {}\nSHELL [\"/bin/bash\", \"-c\"]\nRUN echo\n", base()),
            "error: exec /bin/bash: no such file in the image\n",
            "hint: the image has no such shell: name one with SHELL, or use the exec form: RUN [\"program\", \"argument\"]\n",
        ),
        (
            format!(
                "FROM {}\nRUN printf '#!/no/interpreter\\n' > /s && chmod 755 /s\nRUN [\"/s\"]\n",
                base()
            ),
            "error: exec \"/s\": its interpreter is not in the image\n",
            "hint: see the first line of a script (#!), or for a program `readelf -l` on its own machine: it names the loader that the image needs\n",
        ),
        (
            format!("FROM {}\nRUN [\"/etc/passwd\"]\n", base()),
            "error: exec \"/etc/passwd\": permission denied (is it executable?)\n",
            "hint: make it executable with RUN chmod +x, or COPY --chmod=755; its directories must let the user pass\n",
        ),
    ];
    for (dockerfile, error, hint) in cases {
        let output = kiln.build(&dockerfile, &[]).fails();
        let stderr = output.stderr();
        assert!(stderr.contains(error), "{error:?} was expected\n{stderr}");
        assert!(stderr.contains(hint), "{hint:?} was expected\n{stderr}");
    }
}

#[test]
fn unknown_user_is_an_error_of_the_run() {
    let kiln = Kiln::new();
    let output = kiln
        .build_on_busybox("USER ghost\nRUN true")
        .fails_with("no user \"ghost\" in the image's /etc/passwd");
    assert!(output.stderr().contains("Dockerfile:3"), "{output}");
}

#[test]
fn background_process_ends_with_its_step() {
    let kiln = Kiln::new();
    let started = std::time::Instant::now();
    let image = kiln.built_on_busybox("RUN (sleep 60; echo late > /late) & echo done > /done");
    assert!(started.elapsed().as_secs() < 30);
    assert_eq!(image.text("/done"), "done\n");
    assert!(image.tree.get("/late").is_none());
}

#[test]
fn output_without_an_end_of_line_and_binary_output_do_no_harm() {
    let kiln = Kiln::new();
    let output = kiln
        .build_on_busybox("RUN printf 'no end'; printf '\\033[2J\\377\\000' >&2")
        .ok();
    assert!(output.stderr().contains(" no end\n"), "{output}");
    assert!(!output.stderr().contains('\u{1b}'), "{output}");
}

/// SEMANTICS 37
#[test]
fn empty_run_is_refused_in_exec_form() {
    let kiln = Kiln::new();
    kiln.build_on_busybox("RUN []").fails_with("RUN");
}

#[test]
fn step_has_the_callers_limit_of_open_files_though_kiln_raises_its_own() {
    let kiln = Kiln::new();
    let limits = "ulimit -Sn; ulimit -Hn";
    let dockerfile = format!("FROM {}\nRUN ({limits}) > /limits\n", base());
    kiln.build(&dockerfile, &[]).ok();
    let own = std::process::Command::new("sh")
        .args(["-c", limits])
        .output()
        .unwrap();
    assert_eq!(
        kiln.image("test").tree.file("/limits").content(),
        own.stdout
    );
}

/// SEMANTICS 71
#[test]
fn layer_with_a_huge_sparse_file_warns() {
    let kiln = Kiln::new();
    let output = kiln
        .build_on_busybox("RUN truncate -s 1280M /var/log-of-logins")
        .ok();
    assert!(
        output.stderr().contains(
            "warning: a layer has 1.2 GiB of zeros in sparse files, which a registry gets in full\n\
             hint: with huge user ids, useradd makes such files: give it --no-log-init\n"
        ),
        "{output}"
    );
}
