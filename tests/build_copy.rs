//! COPY: which files, where to, whose, with which modes and times.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use support::{Image, Kiln, Kind, Registry};

fn base() -> String {
    Registry::shared().busybox()
}

/// Builds instructions on the small base, and reads the image.
#[track_caller]
fn built(kiln: &Kiln, instructions: &str, files: &[(&str, &str)]) -> Image {
    kiln.build(&format!("FROM {}\n{instructions}", base()), files)
        .ok();
    kiln.image("test")
}

/// SEMANTICS 38
#[test]
fn source_directory_means_its_contents() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "COPY d /a\nCOPY d/ /b\nCOPY d/. /c\nCOPY ./d /d/\nCOPY /d /e/\nWORKDIR /w\nCOPY d .\n",
        &[("d/x", "x"), ("d/sub/y", "y")],
    );
    for directory in ["/a", "/b", "/c", "/d", "/e", "/w"] {
        assert_eq!(image.below(directory), ["sub", "sub/y", "x"]);
    }
}

/// SEMANTICS 38
#[test]
fn whole_context_goes_into_the_working_directory() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "WORKDIR /w\nCOPY . .\nCOPY . ./again\nCOPY ./ /root/\n",
        &[("x", "x"), ("d/y", "y")],
    );
    for directory in ["/w/again", "/root"] {
        assert_eq!(image.below(directory), ["Dockerfile", "d", "d/y", "x"]);
    }
    assert_eq!(image.tree.file("/w/d/y").content(), b"y");
}

/// SEMANTICS 39
#[test]
fn destination_is_a_directory_with_a_slash_or_where_one_is() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "COPY x /new\nCOPY x /dir/\nCOPY x /etc\nCOPY x y /two/\nWORKDIR /w\nCOPY x rel/name\n\
         COPY x .\nCOPY x ./slash/.\nCOPY y ../up\n",
        &[("x", "x"), ("y", "y")],
    );
    for path in [
        "/new",
        "/dir/x",
        "/etc/x",
        "/two/x",
        "/w/rel/name",
        "/w/x",
        "/w/slash/x",
    ] {
        assert_eq!(image.tree.file(path).content(), b"x", "{path}");
    }
    for path in ["/two/y", "/up"] {
        assert_eq!(image.tree.file(path).content(), b"y", "{path}");
    }
}

/// SEMANTICS 40
#[test]
fn sources_never_leave_the_context() {
    let kiln = Kiln::new();
    kiln.sandbox().directory("", &[("secret", "outside")]);
    let context = kiln.sandbox().directory("context", &[("x", "x")]);
    symlink("../../../../usr/..", context.join("up")).unwrap();
    symlink("/x", context.join("absolute")).unwrap();
    let image = built(
        &kiln,
        "COPY ../../x /clamped\nCOPY /x /rooted\nCOPY absolute /absolute\n",
        &[],
    );
    for path in ["/clamped", "/rooted", "/absolute"] {
        assert_eq!(image.tree.file(path).content(), b"x", "{path}");
    }
    for outside in ["../secret", "up/etc/passwd", "x/y"] {
        let dockerfile = format!("FROM scratch\nCOPY {outside} /outside\n");
        kiln.build(&dockerfile, &[])
            .fails_with("is not in the build context: no such file or directory\n");
    }
}

/// SEMANTICS 41
#[test]
fn wildcards_match_within_one_component() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "COPY *.txt /star/\nCOPY a?.[a-t]xt /class/\nCOPY */deep /deep/\nCOPY ** /recursive/\n\
         COPY no* /nothing/\nCOPY b* /file\nCOPY a* /made\nCOPY [[]x] /bracket\n\
         COPY nothing* b.txt /rest/\n",
        &[
            ("a1.txt", "1"),
            ("a2.txt", "2"),
            ("b.txt", "b"),
            ("d/deep", "deep"),
            ("d/e/deep", "deeper"),
            ("[x]", "bracket"),
        ],
    );
    assert_eq!(image.below("/star"), ["a1.txt", "a2.txt", "b.txt"]);
    assert_eq!(image.below("/class"), ["a1.txt", "a2.txt"]);
    assert_eq!(image.below("/deep"), ["deep"]);
    // `**` is no more than `*`: directories give their contents.
    assert_eq!(image.tree.file("/recursive/deep").content(), b"deep");
    assert!(image.tree.get("/recursive/d").is_none());
    assert!(image.tree.get("/nothing").is_none());
    // How many match decides whether a destination without slash is a file.
    assert_eq!(image.tree.file("/file").kind, Kind::File);
    assert_eq!(image.below("/made"), ["a1.txt", "a2.txt"]);
    assert_eq!(image.tree.file("/bracket").content(), b"bracket");
    assert_eq!(image.below("/rest"), ["b.txt"]);
}

/// SEMANTICS 42
#[test]
fn top_link_is_followed_and_nested_ones_are_copied() {
    let kiln = Kiln::new();
    let context = kiln
        .sandbox()
        .directory("context", &[("real/x", "x"), ("d/f", "f")]);
    symlink("real", context.join("to-directory")).unwrap();
    symlink("real/x", context.join("to-file")).unwrap();
    symlink("../real/x", context.join("d/nested")).unwrap();
    symlink("dangling", context.join("d/nowhere")).unwrap();
    let image = built(
        &kiln,
        "COPY to-directory /a\nCOPY to-file /b/\nCOPY d /c\nCOPY to-* /d/\nCOPY to-directory/x /e\n",
        &[],
    );
    assert_eq!(image.below("/a"), ["x"]);
    let file = image.tree.file("/b/to-file");
    assert_eq!((file.kind, file.content()), (Kind::File, &b"x"[..]));
    let link = image.tree.file("/c/nested");
    assert_eq!(
        (link.kind, &*link.target),
        (Kind::Symlink, &b"../real/x"[..])
    );
    assert_eq!(image.tree.file("/c/nowhere").target, b"dangling");
    assert_eq!(image.below("/d"), ["to-file", "x"]);
    assert_eq!(image.tree.file("/e").content(), b"x");
}

/// SEMANTICS 42
#[test]
fn links_of_the_destination_resolve_within_the_image() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "RUN mkdir -p /real/sub && ln -s /real /absolute && ln -s ../../../../real /up \
         && ln -s target /real/file\n\
         COPY x /absolute/sub/one\nCOPY x /up/sub/two\nCOPY d /absolute/\nCOPY x /real/file\n",
        &[("x", "x"), ("d/y", "y")],
    );
    assert_eq!(image.below("/real/sub"), ["one", "two"]);
    assert_eq!(image.tree.file("/real/y").content(), b"y");
    for link in ["/absolute", "/up"] {
        assert_eq!(image.tree.file(link).kind, Kind::Symlink, "{link}");
    }
}

/// SEMANTICS 43
#[test]
fn directory_and_other_files_do_not_replace_each_other() {
    let kiln = Kiln::new();
    let files = &[("x", "x"), ("d/etc/y", "y"), ("e/passwd/y", "y")];
    let cases = [
        // A directory onto a file.
        ("COPY d /etc/passwd", "/etc/passwd"),
        ("COPY d /etc/passwd/", "/etc/passwd"),
        ("COPY e /etc", "/etc/passwd"),
        // A file where a directory is, beneath another one.
        ("RUN mkdir -p /t/x\nCOPY x /t", "/t/x"),
        ("COPY x /etc/passwd/", "/etc/passwd"),
        // A directory onto a link.
        (
            "RUN mkdir /t && ln -s t /etcl && mkdir /q && ln -s /t /q/etc\nCOPY d /q",
            "/q/etc",
        ),
    ];
    for (instructions, path) in cases {
        let dockerfile = format!("FROM {}\n{instructions}\n", base());
        let output = kiln.build(&dockerfile, files).fails();
        let stderr = output.stderr();
        let wanted = format!("cannot copy to non-directory: {path}");
        let other = format!("cannot copy to directory: {path}");
        assert!(
            stderr.contains(&wanted) || stderr.contains(&other),
            "{instructions}: {wanted:?} was expected\n{stderr}"
        );
    }
}

#[test]
fn file_replaces_a_file_and_a_link() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "RUN mkdir /t && echo old > /t/x && ln -s /etc/passwd /t/link && mkdir /l && ln -s /etc/passwd /l/link\n\
         COPY x /t/\nCOPY link /l/\n",
        &[("x", "new"), ("link", "mine")],
    );
    assert_eq!(image.tree.file("/t/x").content(), b"new");
    let file = image.tree.file("/l/link");
    assert_eq!((file.kind, file.content()), (Kind::File, &b"mine"[..]));
    assert!(
        image
            .tree
            .file("/etc/passwd")
            .content()
            .starts_with(b"root:")
    );
}

/// SEMANTICS 44
#[test]
fn files_of_the_context_are_roots_whatever_the_user() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "USER app\nCOPY d /a\nCOPY d/x /b/c/\n",
        &[("d/x", "x"), ("d/sub/y", "y")],
    );
    for path in ["/a", "/a/x", "/a/sub", "/a/sub/y", "/b", "/b/c", "/b/c/x"] {
        let node = image.tree.file(path);
        assert_eq!((node.uid, node.gid), (0, 0), "{path}");
    }
}

/// SEMANTICS 44
#[test]
fn owners_in_another_stage_are_kept_but_for_the_top() {
    let kiln = Kiln::new();
    let base = base();
    let dockerfile = format!(
        "FROM {base} AS from\n\
         RUN mkdir -p /s/sub && echo x > /s/sub/x && chown -R 7:8 /s && chmod 0700 /s /s/sub && chmod 4711 /s/sub/x\n\
         FROM {base}\n\
         RUN mkdir /there && chown 5:6 /there && chmod 0711 /there\n\
         COPY --from=from /s /new\nCOPY --from=from /s /there\nCOPY --from=from /s/sub/x /file\n"
    );
    kiln.build(&dockerfile, &[]).ok();
    let image = kiln.image("test");
    let of = |path| {
        let node = image.tree.file(path);
        (node.uid, node.gid, node.mode)
    };
    // It is made like any parent: the top of the source gives its contents only.
    assert_eq!(of("/new"), (0, 0, 0o755));
    assert_eq!(of("/new/sub"), (7, 8, 0o700));
    assert_eq!(of("/new/sub/x"), (7, 8, 0o4711));
    assert_eq!(of("/there"), (5, 6, 0o711));
    assert_eq!(of("/there/sub"), (7, 8, 0o700));
    assert_eq!(of("/file"), (7, 8, 0o4711));
}

/// SEMANTICS 45
#[test]
fn chown_takes_names_and_numbers() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "ARG WHO=app\nRUN echo more:x:77: >> /etc/group && echo other:x:1234:77::/:/bin/sh >> /etc/passwd\n\
         COPY --chown=55 x /number\nCOPY --chown=55:66 x /both\nCOPY --chown=$WHO x /name\n\
         COPY --chown=other x /primary\nCOPY --chown=app:more x /explicit\nCOPY --chown=app:9 x /mixed\n\
         COPY --chown=:9 x /group\nCOPY --chown=other d /new/dir\n",
        &[("x", "x"), ("d/y", "y")],
    );
    let owners = [
        ("/number", (55, 55)),
        ("/both", (55, 66)),
        ("/name", (1000, 1000)),
        ("/primary", (1234, 77)),
        ("/explicit", (1000, 77)),
        ("/mixed", (1000, 9)),
        ("/group", (0, 9)),
        ("/new", (1234, 77)),
        ("/new/dir", (1234, 77)),
        ("/new/dir/y", (1234, 77)),
    ];
    for (path, owner) in owners {
        let node = image.tree.file(path);
        assert_eq!((node.uid, node.gid), owner, "{path}");
    }
}

/// SEMANTICS 45
#[test]
fn chown_to_an_unknown_name_is_an_error() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nCOPY --chown=nobody-here x /x\n", base());
    let output = kiln
        .build(&dockerfile, &[("x", "x")])
        .fails_with("no user \"nobody-here\" in the image's /etc/passwd");
    assert!(
        output
            .stderr()
            .contains("hint: create it when the image is built"),
        "{output}"
    );
    let dockerfile = format!("FROM {}\nCOPY --chown=0:no-group x /x\n", base());
    kiln.build(&dockerfile, &[])
        .fails_with("no group \"no-group\" in the image's /etc/group");
    // Numbers need no passwd, and names do.
    kiln.build("FROM scratch\nCOPY --chown=5:6 x /x\n", &[])
        .ok();
    kiln.build("FROM scratch\nCOPY --chown=app x /x\n", &[])
        .fails_with("no user \"app\"");
}

/// SEMANTICS 46
#[test]
fn chmod_is_octal_or_symbolic() {
    let kiln = Kiln::new();
    let context = kiln
        .sandbox()
        .directory("context", &[("x", "x"), ("d/y", "y")]);
    fs::set_permissions(context.join("x"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(context.join("d"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(context.join("d/y"), fs::Permissions::from_mode(0o600)).unwrap();
    let image = built(
        &kiln,
        "COPY --chmod=0711 x /parents/made/x\nCOPY --chmod=6755 x /suid\nCOPY --chmod=u+x,g-r,o=r x /symbolic/x\n\
         COPY --chmod=a+rX d /dir\nCOPY --chmod=777 d /all\nCOPY x /as/it/is\n",
        &[],
    );
    let modes = [
        ("/parents", 0o711),
        ("/parents/made", 0o711),
        ("/parents/made/x", 0o711),
        ("/suid", 0o6755),
        ("/symbolic", 0o755),
        ("/symbolic/x", 0o704),
        ("/dir", 0o755),
        ("/dir/y", 0o644),
        ("/all", 0o777),
        ("/all/y", 0o777),
        ("/as/it", 0o755),
        ("/as/it/is", 0o640),
    ];
    for (path, mode) in modes {
        assert_eq!(
            image.tree.file(path).mode,
            mode,
            "{path}: {:04o}",
            image.tree.file(path).mode
        );
    }
    for bad in ["10000", "99", "u+q", "rwx"] {
        let dockerfile = format!("FROM scratch\nCOPY --chmod={bad} x /x\n");
        let output = kiln.build(&dockerfile, &[]).fails();
        assert!(output.stderr().contains("--chmod"), "{bad}\n{output}");
    }
}

/// SEMANTICS 47
#[test]
fn files_keep_their_times_and_created_directories_get_the_present() {
    let kiln = Kiln::new();
    let context = kiln
        .sandbox()
        .directory("context", &[("d/x", "x"), ("d/sub/y", "y")]);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for name in ["d/x", "d/sub/y", "d/sub", "d"] {
        let file = fs::File::open(context.join(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    let before = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let image = built(&kiln, "COPY d /new/dir\n", &[]);
    for path in ["/new/dir/x", "/new/dir/sub", "/new/dir/sub/y"] {
        assert_eq!(image.tree.file(path).mtime, 1_000_000_000, "{path}");
    }
    for path in ["/new", "/new/dir"] {
        assert!(image.tree.file(path).mtime >= before, "{path}");
    }
}

/// SEMANTICS 47
#[test]
fn source_date_epoch_dates_created_directories() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nCOPY x /new/dir/\nWORKDIR /made\n", base());
    let options = &["--build-arg", "SOURCE_DATE_EPOCH=1234567890"];
    kiln.build_with(options, &dockerfile, &[("x", "x")]).ok();
    let image = kiln.image("test");
    for path in ["/new", "/new/dir", "/made"] {
        assert_eq!(image.tree.file(path).mtime, 1_234_567_890, "{path}");
    }
    assert_eq!(image.config["created"], "2009-02-13T23:31:30Z");
}

#[test]
fn layer_has_what_was_copied_and_its_parents_only() {
    let kiln = Kiln::new();
    let image = built(&kiln, "COPY x /etc/sub/x\n", &[("x", "x")]);
    assert_eq!(image.top(), ["etc", "etc/sub", "etc/sub/x"]);
}

/// SEMANTICS 50
#[test]
fn hard_links_stay_and_the_marks_of_a_workstation_do_not() {
    let kiln = Kiln::new();
    let context = kiln
        .sandbox()
        .directory("context", &[("d/a", "same"), ("d/z", "suid")]);
    fs::hard_link(context.join("d/a"), context.join("d/b")).unwrap();
    fs::set_permissions(context.join("d/z"), fs::Permissions::from_mode(0o6755)).unwrap();
    set_xattr(&context.join("d/z"), "user.note", "mine");
    let image = built(&kiln, "COPY d /d\nCOPY d/a d/b /e/\n", &[]);
    assert!(std::ptr::eq(
        image.tree.file("/d/a"),
        image.tree.file("/d/b")
    ));
    assert_eq!(image.tree.file("/d/z").mode, 0o6755);
    assert!(image.tree.file("/d/z").xattrs.is_empty());
    assert_eq!(image.tree.file("/e/b").content(), b"same");
}

/// SEMANTICS 50
#[test]
fn xattrs_of_another_stage_are_kept() {
    let kiln = Kiln::new();
    let base = Registry::shared().debian();
    let dockerfile = format!(
        "FROM {base} AS from\n\
         RUN echo x > /x && perl -e 'my ($f, $n, $v) = (\"/x\", \"user.note\", \"kept\"); syscall(188, $f, $n, $v, 4, 0) == 0 or die $!'\n\
         FROM scratch\nCOPY --from=from /x /x\n"
    );
    kiln.build(&dockerfile, &[]).ok();
    let image = kiln.image("test");
    let note = image.tree.file("/x").xattrs.get(&b"user.note"[..]);
    assert_eq!(note.map(Vec::as_slice), Some(&b"kept"[..]));
}

#[test]
fn fifo_and_empty_directory_are_copied_and_a_socket_is_not() {
    let kiln = Kiln::new();
    let context = kiln.sandbox().directory("context/d", &[]);
    fs::create_dir(context.join("empty")).unwrap();
    nix::unistd::mkfifo(&context.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(context.join("socket")).unwrap();
    let image = built(&kiln, "COPY d /d\n", &[]);
    assert_eq!(image.below("/d"), ["empty", "fifo"]);
    assert_eq!(image.tree.file("/d/fifo").kind, Kind::Fifo);
    assert_eq!(image.tree.file("/d/fifo").mode, 0o700);
}

/// SEMANTICS 15
#[test]
fn heredoc_is_a_file_of_the_layer() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "ENV WHO=world\nCOPY <<one <<-\"two\" x /d/\nhello $WHO\none\n\tliteral $WHO\n\ttwo\n\
         COPY --chown=5:6 --chmod=0600 <<EOF /file\nEOF\n",
        &[("x", "x")],
    );
    let one = image.tree.file("/d/one");
    assert_eq!((one.content(), one.mode), (&b"hello world\n"[..], 0o644));
    assert_eq!(image.tree.file("/d/two").content(), b"literal $WHO\n");
    assert_eq!(image.tree.file("/d/x").content(), b"x");
    let file = image.tree.file("/file");
    assert_eq!(
        (file.content(), file.uid, file.gid, file.mode),
        (&b""[..], 5, 6, 0o600)
    );
}

#[test]
fn names_that_mean_something_elsewhere_are_plain_here() {
    let kiln = Kiln::new();
    let image = built(
        &kiln,
        "COPY [\"with space\", \"/a b/\"]\nCOPY d /d\n",
        &[
            ("with space", "s"),
            ("d/-x", "dash"),
            ("d/\u{fc}\n", "newline"),
            ("d/$HOME", "dollar"),
        ],
    );
    assert_eq!(image.tree.file("/a b/with space").content(), b"s");
    assert_eq!(image.below("/d"), ["$HOME", "-x", "\u{fc}\n"]);
}

/// SEMANTICS 62
#[test]
fn file_named_like_a_whiteout_is_an_error() {
    let kiln = Kiln::new();
    let output = kiln
        .build("FROM scratch\nCOPY d /d\n", &[("d/.wh.x", "")])
        .fails();
    assert!(output.stderr().contains(".wh.x"), "{output}");
}

fn set_xattr(path: &Path, name: &str, value: &str) {
    let mut command = std::process::Command::new("setfattr");
    command.args(["-n", name, "-v", value]).arg(path);
    support::run(&mut command, Duration::from_secs(10)).ok();
}
