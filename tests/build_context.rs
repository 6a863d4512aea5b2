//! Build contexts: standard input, archives, repositories, URLs; named ones.

mod support;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use support::{
    FaultyRegistry, Image, Kiln, Kind, Output, Page, Registry, Repository, WebServer, tar_of,
};

/// Builds with a context and an input, as the image `test`.
fn build_from(kiln: &Kiln, arguments: &[&str], input: &[u8]) -> Output {
    let head = ["build", "-t", "test", "--progress", "plain"];
    kiln.run_with_input(head.iter().chain(arguments), input)
}

#[track_caller]
fn built(kiln: &Kiln, arguments: &[&str]) -> Image {
    build_from(kiln, arguments, b"").ok();
    kiln.image("test")
}

fn compressed(tool: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

const COPY_A: &str = "FROM scratch\nCOPY a /\n";

#[test]
fn a_dockerfile_on_standard_input_is_built_without_a_context() {
    let kiln = Kiln::new();
    let dockerfile = b"FROM scratch\nCOPY <<f /\nheredoc\nf\n";
    build_from(&kiln, &["-"], dockerfile).ok();
    assert_eq!(kiln.image("test").tree.file("/f").content(), b"heredoc\n");
    let output = build_from(&kiln, &["-"], COPY_A.as_bytes()).fails();
    assert!(
        output.stderr().ends_with(
            "error: there is no build context to take \"a\" from\n --> Dockerfile:2:6\n  |\n2 | \
             COPY a /\n  |      ^\nhint: the Dockerfile came alone: give a directory too, as in \
             `kiln build -f - .`\n"
        ),
        "{output}"
    );
    // A pattern that could match nothing is no excuse, nor is the whole of nothing.
    for source in [".", "*"] {
        let dockerfile = format!("FROM scratch\nCOPY {source} /\n");
        build_from(&kiln, &["-"], dockerfile.as_bytes())
            .fails_with("error: there is no build context");
    }
}

#[test]
fn an_archive_on_standard_input_is_a_context_however_it_is_compressed() {
    let kiln = Kiln::new();
    let tar = tar_of(&[("Dockerfile", COPY_A), ("a", "from the archive")]);
    for bytes in [
        tar.clone(),
        compressed("gzip", &tar),
        compressed("bzip2", &tar),
        compressed("xz", &tar),
        compressed("zstd", &tar),
    ] {
        build_from(&kiln, &["-"], &bytes).ok();
        let image = kiln.image("test");
        assert_eq!(image.tree.file("/a").content(), b"from the archive");
    }
    fs::write(kiln.sandbox().join("context.tgz"), compressed("gzip", &tar)).unwrap();
    let image = built(&kiln, &["context.tgz"]);
    assert_eq!(image.tree.file("/a").content(), b"from the archive");
    build_from(&kiln, &["-"], &compressed("gzip", b"text"))
        .fails_with("error: standard input is compressed, and no tar archive\n");
    build_from(&kiln, &["-"], &tar[..700]).fails_with("error: cannot extract standard input: ");
}

#[test]
fn the_dockerfile_of_an_archive_is_named_from_its_root() {
    let kiln = Kiln::new();
    let tar = tar_of(&[("sub/My.Dockerfile", COPY_A), ("a", "a")]);
    for name in ["sub/My.Dockerfile", "./sub/My.Dockerfile"] {
        build_from(&kiln, &["-f", name, "-"], &tar).ok();
    }
    let output = build_from(&kiln, &["-f", "sub/Dockerfile", "-"], &tar).fails();
    assert!(
        output.stderr().ends_with(
            "error: \"sub/Dockerfile\" is not in the archive on standard input: no such file\n\
             hint: did you mean My.Dockerfile? Name it with -f FILE\n"
        ),
        "{output}"
    );
    let tar = tar_of(&[("Containerfile", COPY_A), ("a", "a")]);
    build_from(&kiln, &["-"], &tar).ok();
    build_from(&kiln, &["-f", "x", "-"], COPY_A.as_bytes())
        .fails_with("is a Dockerfile, and -f names another one\n");
}

#[test]
fn a_dockerfile_on_standard_input_takes_any_context() {
    let kiln = Kiln::new();
    let files = [
        ("a", "local"),
        ("Dockerfile", "nonsense"),
        (".dockerignore", "b\n"),
        ("b", ""),
    ];
    kiln.sandbox().directory("context", &files);
    build_from(&kiln, &["-f", "-", "context"], COPY_A.as_bytes()).ok();
    assert_eq!(kiln.image("test").tree.file("/a").content(), b"local");
    build_from(&kiln, &["-f", "-", "context"], b"FROM scratch\nCOPY b /\n")
        .fails_with("error: \"b\" is excluded by .dockerignore\n");
    let output = build_from(&kiln, &["-f", "-", "-"], COPY_A.as_bytes()).fails();
    assert_eq!(
        output.stderr(),
        "error: the build context and the Dockerfile can't both come from standard input\n\
         hint: give the directory as context and the Dockerfile as -f -, or put the Dockerfile \
         into the archive\n"
    );
}

/// SEMANTICS 54
#[test]
fn ignore_files_count_in_directories_alone_and_those_of_the_dockerfile_first() {
    let kiln = Kiln::new();
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        (".dockerignore", "b\n"),
        ("a", ""),
        ("b", ""),
    ];
    build_from(&kiln, &["-"], &tar_of(&files)).ok();
    assert!(kiln.image("test").tree.get("/b").is_some());
    kiln.sandbox().directory("context", &files);
    assert!(built(&kiln, &["context"]).tree.get("/b").is_none());
    // Beside a Dockerfile that lies elsewhere.
    kiln.sandbox().directory(
        "elsewhere",
        &[("D", "FROM scratch\nCOPY . /\n"), ("D.dockerignore", "a\n")],
    );
    let tree = built(&kiln, &["-f", "elsewhere/D", "context"]).tree;
    assert!(tree.get("/a").is_none() && tree.get("/b").is_some());
}

#[test]
fn an_archive_can_not_reach_out_of_its_tree() {
    let kiln = Kiln::new();
    let secret = kiln.sandbox().join("secret");
    fs::write(&secret, "secret").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut link = |name: &str, target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    };
    link("Dockerfile", secret.to_str().unwrap());
    link("up", "../../../../..");
    let tar = builder.into_inner().unwrap();
    build_from(&kiln, &["-"], &tar)
        .fails_with("error: \"Dockerfile\" is not in the archive on standard input");
}

#[test]
fn a_repository_is_a_context_with_ref_and_directory() {
    let kiln = Kiln::new();
    let root = kiln.sandbox().directory("forge", &[]);
    let repository = Repository::new(&root.join("a.git"));
    repository.commit(&[
        ("Dockerfile", COPY_A),
        ("a", "one"),
        (".dockerignore", "a\n"),
        ("sub/Dockerfile", COPY_A),
        ("sub/a", "below"),
    ]);
    repository.git(&["tag", "v1"]);
    repository.commit(&[("a", "two"), ("Other", "FROM scratch\nCOPY . /\n")]);
    let server = WebServer::start();
    server.serve_git(&root);
    let local = format!("file://{}", repository.path().display());
    for url in [server.url("/git/a.git"), local] {
        let content = |arguments: &[&str]| {
            let image = built(&kiln, arguments);
            String::from_utf8(image.tree.file("/a").content().to_owned()).unwrap()
        };
        assert_eq!(content(&[&url]), "two");
        assert_eq!(content(&[&format!("{url}#v1")]), "one");
        assert_eq!(content(&[&format!("{url}#v1:sub")]), "below");
        assert_eq!(content(&[&format!("{url}?ref=v1&subdir=sub")]), "below");
        let other = built(&kiln, &["-f", "Other", &url]);
        assert!(other.tree.get("/.git").is_none());
        let keep = [
            "--build-arg",
            "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1",
            "-f",
            "Other",
            &url,
        ];
        assert!(built(&kiln, &keep).tree.get("/.git/HEAD").is_some());
        // Not of the file system where a Dockerfile says so.
        let dockerfile = format!("FROM scratch\nADD {url} /r/\n");
        let output = build_from(&kiln, &["-"], dockerfile.as_bytes());
        match url.starts_with("file:") {
            true => drop(output.fails_with("error: there is no build context")),
            false => drop(output.ok()),
        }
    }
}

#[test]
fn a_url_is_a_context_if_it_is_an_archive_or_a_dockerfile() {
    let kiln = Kiln::new();
    let server = WebServer::start();
    let tar = tar_of(&[("Dockerfile", COPY_A), ("a", "remote")]);
    let archive = Page::new(compressed("gzip", &tar)).header("ETag", "\"1\"");
    server.put("/context.tgz", archive);
    server.put("/Dockerfile", Page::new("FROM scratch\nLABEL a=b\n"));
    let url = server.url("/context.tgz");
    assert_eq!(built(&kiln, &[&url]).tree.file("/a").content(), b"remote");
    built(&kiln, &[&url]);
    assert_eq!(
        server.take_log(),
        ["GET /context.tgz 200", "GET /context.tgz 304"]
    );
    let image = built(&kiln, &[&server.url("/Dockerfile")]);
    assert_eq!(image.setting("Labels")["a"], "b");
    kiln.sandbox().directory("context", &[("a", "local")]);
    server.put("/D", Page::new(COPY_A));
    let image = built(&kiln, &["-f", &server.url("/D"), "context"]);
    assert_eq!(image.tree.file("/a").content(), b"local");
    let image = built(&kiln, &["-f", &server.url("/D"), &url]);
    assert_eq!(image.tree.file("/a").content(), b"remote");
    server.put("/me/repo", Page::new("\n<!DOCTYPE html>"));
    let page = server.url("/me/repo");
    let output = build_from(&kiln, &[&page], b"").fails();
    assert!(
        output.stderr().ends_with(&format!(
            "error: {page} is a web page, and neither an archive nor a Dockerfile\n\
             hint: a git repository is named with its ending: {page}.git\n"
        )),
        "{output}"
    );
    let missing = server.url("/nothing");
    let output = build_from(&kiln, &[&missing], b"").fails();
    assert!(
        output.stderr().ends_with(&format!(
            "error: cannot fetch {missing}: the server answered 404 Not Found\n\
             hint: check the spelling: the server has nothing there\n"
        )),
        "{output}"
    );
}

/// SEMANTICS 28, 54
#[test]
fn a_named_directory_stands_for_stages_and_images_and_has_its_own_ignore_file() {
    let kiln = Kiln::new();
    kiln.sandbox().directory(
        "other",
        &[
            (".dockerignore", "hidden\n"),
            ("a", "named"),
            ("hidden", ""),
        ],
    );
    let context = kiln.sandbox().directory("context", &[("a", "context")]);
    let build = |dockerfile: &str, named: &str| {
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        built(&kiln, &["--build-context", named, "context"])
    };
    let tree = build(
        "FROM scratch\nCOPY --from=files . /d/\nCOPY a /\n",
        "files=other",
    )
    .tree;
    assert_eq!(tree.file("/d/a").content(), b"named");
    assert!(tree.get("/d/hidden").is_none());
    assert_eq!(tree.file("/a").content(), b"context");
    // For a stage, which is then not built; names have no case.
    let replaced =
        "FROM no.example/none AS Files\nRUN false\nFROM scratch\nCOPY --from=files a /\n";
    let tree = build(replaced, "FILES=other").tree;
    assert_eq!(tree.file("/a").content(), b"named");
    let by_number = replaced.replace("--from=files", "--from=0");
    let tree = build(&by_number, "files=other").tree;
    assert_eq!(tree.file("/a").content(), b"named");
    // For an image, by any of its names.
    let image = "FROM scratch\nCOPY --from=docker.io/library/files:latest a /\n";
    assert_eq!(
        build(image, "files=other").tree.file("/a").content(),
        b"named"
    );
    // As a base: the files are all that there is.
    let base = build("FROM files\nLABEL x=y\n", "files=other");
    assert_eq!(base.tree.file("/a").content(), b"named");
    assert!(base.tree.get("/hidden").is_none());
    let node = base.tree.file("/a");
    assert_eq!((node.uid, node.gid, node.kind), (0, 0, Kind::File));
    let again = build_from(&kiln, &["--build-context", "files=other", "context"], b"").ok();
    let id = again.stderr();
    let second = build_from(&kiln, &["--build-context", "files=other", "context"], b"").ok();
    let exported = |text: &str| text.lines().last().map(str::to_owned);
    assert_eq!(exported(&id), exported(&second.stderr()));
}

#[test]
fn named_archives_repositories_and_urls_are_trees_too() {
    let kiln = Kiln::new();
    let root = kiln.sandbox().directory("forge", &[]);
    Repository::new(&root.join("r.git")).commit(&[("f", "repository")]);
    let server = WebServer::start();
    server.serve_git(&root);
    let tar = tar_of(&[("f", "archive")]);
    server.put("/a.tar", Page::new(tar.clone()));
    server.put("/text", Page::new("text"));
    fs::write(kiln.sandbox().join("a.tar"), &tar).unwrap();
    kiln.sandbox().directory(
        "context",
        &[("Dockerfile", "FROM scratch\nCOPY --from=x f /\n")],
    );
    for (value, content) in [
        (server.url("/git/r.git"), "repository"),
        (server.url("/a.tar"), "archive"),
        ("a.tar".to_owned(), "archive"),
    ] {
        let named = format!("x={value}");
        let image = built(&kiln, &["--build-context", &named, "context"]);
        assert_eq!(image.tree.file("/f").content(), content.as_bytes());
    }
    let url = server.url("/text");
    let named = format!("x={url}");
    build_from(&kiln, &["--build-context", &named, "context"], b"")
        .fails_with(&format!("error: {url} is no archive\n"));
}

#[test]
fn named_images_come_from_the_store_registries_and_layouts() {
    let kiln = Kiln::new();
    let registry = FaultyRegistry::start();
    registry.image("v1", &[("f", "registry")]);
    kiln.sandbox().directory(
        "context",
        &[(
            "Dockerfile",
            "FROM base:1 AS b\nFROM b\nCOPY --from=base:1 f /copied\n",
        )],
    );
    let from = |value: &str| {
        built(
            &kiln,
            &["--build-context", &format!("base:1={value}"), "context"],
        )
    };
    let image = from(&format!("docker-image://{}", registry.reference("v1")));
    assert_eq!(image.tree.file("/f").content(), b"registry");
    assert_eq!(image.tree.file("/copied").content(), b"registry");
    assert_eq!(image.setting("Cmd")[0], "sh");

    kiln.run(["tag", "test", "kept:v2"]).ok();
    kiln.run(["save", "--format", "oci-dir", "-o", "layout", "kept:v2"])
        .ok();
    let index = fs::read(kiln.sandbox().join("layout/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    for place in [
        "layout".to_owned(),
        "layout:v2".to_owned(),
        format!("layout@{digest}"),
        format!("{}:v2", kiln.sandbox().join("layout").display()),
    ] {
        let image = from(&format!("oci-layout://{place}"));
        assert_eq!(image.tree.file("/f").content(), b"registry", "{place}");
    }
    let named = "base:1=oci-layout://layout:v3";
    let output = build_from(&kiln, &["--build-context", named, "context"], b"").fails();
    assert!(
        output
            .stderr()
            .contains("error: the layout has no image v3\n"),
        "{output}"
    );
    // Nothing at all is an image as well.
    kiln.sandbox().directory(
        "context",
        &[("Dockerfile", "FROM base:1\nCOPY Dockerfile /\n")],
    );
    let image = from("docker-image://scratch");
    assert_eq!(
        image
            .tree
            .paths()
            .filter(|path| path.contains("Docker"))
            .count(),
        1
    );
}

#[test]
fn a_step_mounts_the_files_of_a_named_directory() {
    let kiln = Kiln::new();
    let files = [
        (".dockerignore", "hidden\n"),
        ("a", "named"),
        ("hidden", ""),
    ];
    kiln.sandbox().directory("other", &files);
    let dockerfile = format!(
        "FROM {}\nRUN --mount=from=files,target=/m test ! -e /m/hidden && cp /m/a /out\n",
        Registry::shared().busybox()
    );
    let context = kiln.sandbox().directory("context", &[("a", "context")]);
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let image = built(&kiln, &["--build-context", "files=other", "context"]);
    assert_eq!(image.tree.file("/out").content(), b"named");
}

#[test]
fn named_contexts_that_mean_nothing_are_refused() {
    let kiln = Kiln::new();
    for (text, error) in [
        (
            "x",
            "error: invalid build context \"x\": it is NAME=VALUE\n",
        ),
        (
            "x=target:base",
            "error: the build context \"target:base\" is a target of a bake file, which kiln does \
             not read\n",
        ),
    ] {
        build_from(&kiln, &["--build-context", text, "."], b"").fails_with(error);
    }
    kiln.sandbox().directory(
        "context",
        &[("Dockerfile", "FROM scratch\nCOPY --from=x f /\n")],
    );
    build_from(&kiln, &["--build-context", "x=nowhere", "context"], b"")
        .fails_with("error: cannot open the build context nowhere: No such file");
}
