//! ADD of what is elsewhere: URLs and git repositories.

mod support;

use std::fs;

use support::{Kiln, Kind, Page, Repository, WebServer, tar_of};

const MODIFIED: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
const MODIFIED_TIME: u64 = 1_445_412_480;
/// The time of the commits of [`Repository`].
const COMMITTED: u64 = 981_173_106;

/// The sha256 of `content`.
const CONTENT: &str = "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";

/// SEMANTICS 52
#[test]
fn a_url_is_a_file_named_by_its_path_private_and_as_old_as_the_server_says() {
    let kiln = Kiln::new();
    let server = WebServer::start();
    server.put(
        "/a/b%20c.txt",
        Page::new("content").header("Last-Modified", MODIFIED),
    );
    server.put("/", Page::new("root"));
    let (named, bare) = (server.url("/a/b%20c.txt?x=1"), server.url("/"));
    kiln.build(
        &format!(
            "FROM scratch\nADD {named} /d/\nADD {named} /file\nADD {bare} /d/\n\
             ADD --chown=3:4 --chmod=755 {named} /e/\n"
        ),
        &[],
    )
    .ok();
    let image = kiln.image("test");
    for path in ["/d/b c.txt", "/file"] {
        let node = image.tree.file(path);
        assert_eq!(node.content(), b"content");
        assert_eq!((node.uid, node.gid, node.mode), (0, 0, 0o600), "{path}");
        assert_eq!(node.mtime, MODIFIED_TIME);
    }
    let unnamed = image.tree.file("/d/__unnamed__");
    assert_eq!((unnamed.content(), unnamed.mtime), (&b"root"[..], 0));
    let owned = image.tree.file("/e/b c.txt");
    assert_eq!((owned.uid, owned.gid, owned.mode), (3, 4, 0o755));
}

/// SEMANTICS 52
#[test]
fn what_is_still_valid_is_asked_for_and_not_downloaded_again() {
    for header in ["ETag", "Last-Modified"] {
        let kiln = Kiln::new();
        let server = WebServer::start();
        let page = |text: &str, value: &str| Page::new(text).header(header, value);
        let (old, new) = match header {
            "ETag" => ("\"1\"", "\"2\""),
            _ => (MODIFIED, "Thu, 22 Oct 2015 07:28:00 GMT"),
        };
        server.put("/x", page("one", old));
        let dockerfile = format!("FROM scratch\nADD {} /x\n", server.url("/x"));
        kiln.build(&dockerfile, &[]).ok();
        assert_eq!(server.take_log(), ["GET /x 200"]);
        let again = kiln.build(&dockerfile, &[]).ok();
        assert!(again.stderr().contains("#2 CACHED"), "{again}");
        assert_eq!(server.take_log(), ["GET /x 304"]);
        // The same content under another validator is no change.
        server.put("/x", page("one", new));
        let again = kiln.build(&dockerfile, &[]).ok();
        assert!(again.stderr().contains("#2 CACHED"), "{again}");
        assert_eq!(server.take_log(), ["GET /x 200"]);
        server.put("/x", page("two", "\"3\""));
        kiln.build(&dockerfile, &[]).ok();
        assert_eq!(kiln.image("test").tree.file("/x").content(), b"two");
    }
}

#[test]
fn a_body_that_came_before_is_taken_for_another_step() {
    let kiln = Kiln::new();
    let server = WebServer::start();
    server.put("/x", Page::new("content").header("ETag", "\"1\""));
    let url = server.url("/x");
    kiln.build(&format!("FROM scratch\nADD {url} /x\n"), &[])
        .ok();
    server.take_log();
    kiln.build(&format!("FROM scratch\nADD {url} /y\n"), &[])
        .ok();
    assert_eq!(server.take_log(), ["GET /x 304"]);
    assert_eq!(kiln.image("test").tree.file("/y").content(), b"content");
    // It outlives a collection, as the records of steps do.
    kiln.run(["rmi", "test"]).ok();
    kiln.build(&format!("FROM scratch\nADD {url} /z\n"), &[])
        .ok();
    assert_eq!(server.take_log(), ["GET /x 304"]);
}

#[test]
fn a_body_that_a_crash_has_damaged_is_fetched_again() {
    let kiln = Kiln::new();
    let server = WebServer::start();
    server.put("/x", Page::new("content").header("ETag", "\"1\""));
    let url = server.url("/x");
    kiln.build(&format!("FROM scratch\nADD {url} /x\n"), &[])
        .ok();
    let blob = CONTENT.replace("sha256:", "blobs/sha256/");
    fs::write(kiln.store().join(blob), "nothing").unwrap();
    kiln.build(&format!("FROM scratch\nADD {url} /y\n"), &[])
        .ok();
    assert_eq!(kiln.image("test").tree.file("/y").content(), b"content");
    assert_eq!(
        server.take_log(),
        ["GET /x 200", "GET /x 304", "GET /x 200"]
    );
}

#[test]
fn a_checksum_spares_the_question() {
    let kiln = Kiln::new();
    let server = WebServer::start();
    server.put("/x", Page::new("content"));
    let url = server.url("/x");
    let dockerfile = format!("FROM scratch\nARG SUM\nADD --checksum=$SUM {url} /x\n");
    let sum = format!("SUM={CONTENT}");
    let options = ["--build-arg", &sum];
    kiln.build_with(&options, &dockerfile, &[]).ok();
    assert_eq!(server.take_log(), ["GET /x 200"]);
    kiln.build_with(&options, &dockerfile, &[]).ok();
    let other = dockerfile.replace("/x\n", "/y\n");
    kiln.build_with(&options, &other, &[]).ok();
    assert_eq!(server.take_log(), Vec::<String>::new());
}

#[test]
fn a_wrong_checksum_fails_and_keeps_nothing() {
    let kiln = Kiln::new();
    let server = WebServer::start();
    server.put("/x", Page::new("other"));
    let url = server.url("/x");
    let output = kiln
        .build(
            &format!("FROM scratch\nADD --checksum={CONTENT} {url} /x\n"),
            &[],
        )
        .fails();
    let expected = format!(
        "error: {url} has the checksum \
         sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, and {CONTENT} \
         was asked for\n"
    );
    assert!(output.stderr().contains(&expected), "{output}");
    let blobs = fs::read_dir(kiln.store().join("blobs/sha256")).unwrap();
    assert_eq!(blobs.count(), 0);
    for (flag, source, text) in [
        (
            "--checksum=sha256:12",
            url.as_str(),
            "error: invalid checksum \"sha256:12\"\n",
        ),
        (
            CONTENT,
            "x",
            "error: --checksum is for URLs and git repositories, and \"x\" is a path\n",
        ),
    ] {
        let flag = match flag.strip_prefix("--") {
            Some(_) => flag.to_owned(),
            None => format!("--checksum={flag}"),
        };
        kiln.build(
            &format!("FROM scratch\nADD {flag} {source} /x\n"),
            &[("x", "")],
        )
        .fails_with(text);
    }
}

#[test]
fn an_archive_behind_a_url_is_extracted_only_with_unpack() {
    let kiln = Kiln::new();
    let server = WebServer::start();
    let tar = tar_of(&[("f", "in the archive")]);
    server.put("/a.tar", Page::new(tar.clone()));
    server.put("/text", Page::new("text"));
    let (archive, text) = (server.url("/a.tar"), server.url("/text"));
    kiln.build(
        &format!(
            "FROM scratch\nADD {archive} /packed/\nADD --unpack {archive} {text} /unpacked/\n\
             ADD local {archive} {text} <<doc /mixed/\ndocument\ndoc\n"
        ),
        &[("local", "local")],
    )
    .ok();
    let tree = kiln.image("test").tree;
    assert_eq!(tree.file("/packed/a.tar").content(), tar);
    assert_eq!(tree.file("/unpacked/f").content(), b"in the archive");
    assert_eq!(tree.file("/unpacked/text").content(), b"text");
    assert_eq!(tree.file("/mixed/local").content(), b"local");
    assert_eq!(tree.file("/mixed/a.tar").content(), tar);
    assert_eq!(tree.file("/mixed/doc").content(), b"document\n");
}

#[test]
fn connections_that_break_are_tried_again_and_redirects_followed() {
    let kiln = Kiln::new();
    let server = WebServer::start();
    let body = "0123456789".repeat(20_000);
    server.put("/big", Page::new(body.clone()).cut(70_000, 2));
    server.put("/moved", Page::status(302).header("Location", "/big"));
    kiln.build(
        &format!("FROM scratch\nADD {} /d/\n", server.url("/moved")),
        &[],
    )
    .ok();
    let image = kiln.image("test");
    assert_eq!(image.tree.file("/d/moved").content(), body.as_bytes());
    assert_eq!(server.take_log().len(), 6);
}

#[test]
fn what_a_server_refuses_is_told_with_the_url_and_a_hint() {
    let kiln = Kiln::new();
    let server = WebServer::start();
    let url = server.url("/nothing");
    let output = kiln
        .build(&format!("FROM scratch\nADD {url} /x\n"), &[])
        .fails();
    let caret = "^".repeat(url.len());
    assert!(
        output.stderr().ends_with(&format!(
            "error: cannot fetch {url}: the server answered 404 Not Found\n --> Dockerfile:2:5\n  \
             |\n2 | ADD {url} /x\n  |     {caret}\nhint: check the spelling: the server has nothing \
             there\n"
        )),
        "{output}"
    );
    server.put("/secret", Page::status(401));
    let url = server.url("/secret").replace("//", "//me:hunter2@");
    let given = format!("U={url}");
    let output = kiln
        .build_with(
            &["--build-arg", &given],
            "FROM scratch\nARG U\nADD $U /x\n",
            &[],
        )
        .fails_with("/secret: the server answered 401 Unauthorized\n");
    assert!(!output.stderr().contains("hunter2"), "{output}");
}

/// SEMANTICS 52
#[test]
fn copy_never_fetches() {
    let kiln = Kiln::new();
    for source in [
        "https://h.example/x",
        "https://h.example/x.git",
        "git@h.example:x",
    ] {
        kiln.build(&format!("FROM scratch\nCOPY {source} /x\n"), &[])
            .fails_with(&format!("error: COPY can't fetch {source}\n"))
            .fails_with("hint: use ADD, which takes URLs and git repositories\n");
    }
}

/// A server with one repository: two commits, a branch, an annotated tag and a pull request.
struct Forge {
    server: WebServer,
    repository: Repository,
    first: String,
    second: String,
}

impl Forge {
    fn new(kiln: &Kiln) -> Self {
        let root = kiln.sandbox().directory("forge", &[]);
        let repository = Repository::new(&root.join("a.git"));
        fs::create_dir(repository.path().join("bin")).unwrap();
        let script = repository.path().join("bin/run");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("bin/run", repository.path().join("link")).unwrap();
        let first = repository.commit(&[("file", "one"), ("sub/dir/x", "x")]);
        repository.git(&["tag", "-a", "v1", "-m", "tag"]);
        repository.git(&["update-ref", "refs/pull/7/head", "HEAD"]);
        repository.git(&["branch", "old"]);
        let second = repository.commit(&[("file", "two")]);
        let server = WebServer::start();
        server.serve_git(&root);
        Self {
            server,
            repository,
            first,
            second,
        }
    }

    fn url(&self) -> String {
        self.server.url("/git/a.git")
    }
}

/// SEMANTICS 52
#[test]
fn a_repository_is_its_files_with_plain_modes_and_without_its_history() {
    let kiln = Kiln::new();
    let forge = Forge::new(&kiln);
    kiln.build(&format!("FROM scratch\nADD {} /r\n", forge.url()), &[])
        .ok();
    let tree = kiln.image("test").tree;
    let expected = [
        ("/r/file", Kind::File, 0o644),
        ("/r/bin", Kind::Directory, 0o755),
        ("/r/bin/run", Kind::File, 0o755),
        ("/r/link", Kind::Symlink, 0o777),
    ];
    for (path, kind, mode) in expected {
        let node = tree.file(path);
        assert_eq!((node.kind, node.mode), (kind, mode), "{path}");
        assert_eq!(
            (node.uid, node.gid, node.mtime),
            (0, 0, COMMITTED),
            "{path}"
        );
    }
    assert_eq!(tree.file("/r/file").content(), b"two");
    assert!(tree.get("/r/.git").is_none());
    // The commit is the key: the second build asks for it, and fetches nothing.
    forge.server.take_log();
    let again = kiln
        .build(&format!("FROM scratch\nADD {} /r\n", forge.url()), &[])
        .ok();
    assert!(again.stderr().contains("#2 CACHED"), "{again}");
    let log = forge.server.take_log();
    assert!(!log.is_empty() && log.len() <= 2, "{log:?}");
}

#[test]
fn branches_tags_commits_pull_requests_and_directories_are_found() {
    let kiln = Kiln::new();
    let forge = Forge::new(&kiln);
    let url = forge.url();
    let first = &forge.first;
    let sources = [
        format!("{url}#old"),
        format!("{url}#v1"),
        format!("{url}#refs/tags/v1"),
        format!("{url}#refs/pull/7/head"),
        format!("{url}#{first}"),
        format!("{url}?branch=old"),
        format!("{url}?tag=v1&checksum={}", &first[..10]),
    ];
    let mut dockerfile = "FROM scratch\n".to_owned();
    for (index, source) in sources.iter().enumerate() {
        dockerfile.push_str(&format!("ADD {source} /{index}\n"));
    }
    dockerfile.push_str(&format!("ADD {url}#main:sub/dir /sub\n"));
    dockerfile.push_str(&format!("ADD --exclude=bin {url}?subdir=/../ /all\n"));
    kiln.build(&dockerfile, &[]).ok();
    let tree = kiln.image("test").tree;
    for (index, source) in sources.iter().enumerate() {
        let node = tree.file(&format!("/{index}/file"));
        assert_eq!(node.content(), b"one", "{source}");
    }
    assert_eq!(tree.file("/sub/x").content(), b"x");
    assert_eq!(tree.file("/all/file").content(), b"two");
    assert!(tree.get("/all/bin").is_none());
}

#[test]
fn the_history_stays_where_it_is_asked_for() {
    let kiln = Kiln::new();
    let forge = Forge::new(&kiln);
    let source = forge.url().replace("//", "//me:hunter2@");
    kiln.build(
        &format!("FROM scratch\nADD --keep-git-dir=true {source}#v1 /r\n"),
        &[],
    )
    .ok();
    let tree = kiln.image("test").tree;
    let head = tree.file("/r/.git/HEAD").content().to_owned();
    assert_eq!(head, format!("{}\n", forge.first).as_bytes());
    let config = String::from_utf8(tree.file("/r/.git/config").content().to_owned()).unwrap();
    assert!(config.contains(&forge.url()), "{config}");
    assert!(!config.contains("hunter2"), "{config}");
    assert!(tree.get("/r/.git/refs/tags/v1").is_some());
    assert!(tree.get("/r/.git/hooks").is_none());
}

#[test]
fn a_checksum_of_a_repository_is_its_commit_or_tag() {
    let kiln = Kiln::new();
    let forge = Forge::new(&kiln);
    let (url, first, second) = (forge.url(), &forge.first, &forge.second);
    let tag = forge.repository.git(&["rev-parse", "v1"]);
    for checksum in [first.as_str(), &first[..12], &tag] {
        kiln.build(
            &format!("FROM scratch\nADD --checksum={checksum} {url}#v1 /r\n"),
            &[],
        )
        .ok();
    }
    kiln.build(
        &format!("FROM scratch\nADD --checksum={first} {url}#main /r\n"),
        &[],
    )
    .fails_with(&format!(
        "error: cannot fetch the git repository {url}: main is commit {second}, and {first} was \
         asked for\n"
    ));
}

#[test]
fn submodules_are_fetched_from_where_they_say_relative_to_their_repository() {
    let kiln = Kiln::new();
    let forge = Forge::new(&kiln);
    let root = forge.repository.path().parent().unwrap();
    let library = Repository::new(&root.join("lib.git"));
    let commit = library.commit(&[("l", "library")]);
    let modules = "[submodule \"lib\"]\n\tpath = dir/lib\n\turl = ../lib.git\n\tupdate = !false\n";
    fs::write(forge.repository.path().join(".gitmodules"), modules).unwrap();
    let link = format!("160000,{commit},dir/lib");
    forge.repository.git(&["add", ".gitmodules"]);
    forge
        .repository
        .git(&["update-index", "--add", "--cacheinfo", &link]);
    forge.repository.git(&["commit", "-qm", "submodule"]);
    let url = forge.url();
    kiln.build(
        &format!("FROM scratch\nADD {url} /with\nADD {url}?submodules=false /without\n"),
        &[],
    )
    .ok();
    let tree = kiln.image("test").tree;
    assert_eq!(tree.file("/with/dir/lib/l").content(), b"library");
    assert!(tree.get("/with/dir/lib/.git").is_none());
    assert_eq!(tree.file("/without/dir/lib").kind, Kind::Directory);
    assert!(tree.get("/without/dir/lib/l").is_none());

    // One that would read what lies on this machine is refused.
    let modules = format!(
        "[submodule \"lib\"]\n\tpath = dir/lib\n\turl = file://{}\n",
        library.path().display()
    );
    fs::write(forge.repository.path().join(".gitmodules"), modules).unwrap();
    forge.repository.git(&["add", ".gitmodules"]);
    forge.repository.git(&["commit", "-qm", "local"]);
    kiln.build(&format!("FROM scratch\nADD {url} /r\n"), &[])
        .fails_with(&format!(
            "error: cannot fetch the git repository {url}: its submodule \"dir/lib\" has the URL \
             \"file://{}\"\n",
            library.path().display()
        ));
}

#[test]
fn no_hook_filter_or_foreign_setting_runs_for_a_repository() {
    let kiln = Kiln::new();
    let forge = Forge::new(&kiln);
    forge.repository.commit(&[(
        ".gitattributes",
        "* filter=evil text eol=crlf\nfile -text\n",
    )]);
    let marker = kiln.sandbox().join("ran");
    let hooks = kiln.sandbox().directory("hooks", &[]);
    let hook = hooks.join("post-checkout");
    fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = format!(
        "[core]\n\thooksPath = {}\n[filter \"evil\"]\n\tsmudge = touch {}\n\trequired = true\n",
        hooks.display(),
        marker.display()
    );
    fs::write(kiln.sandbox().join("home/.gitconfig"), config).unwrap();
    // A kiln that runs in a hook has these in its environment.
    let kiln = kiln
        .env("GIT_DIR", "/nonexistent")
        .env("GIT_INDEX_FILE", "/nonexistent");
    kiln.build(&format!("FROM scratch\nADD {} /r\n", forge.url()), &[])
        .ok();
    assert_eq!(kiln.image("test").tree.file("/r/file").content(), b"two");
    assert!(!marker.exists());
}

#[test]
fn what_a_repository_does_not_have_is_told() {
    let kiln = Kiln::new();
    let forge = Forge::new(&kiln);
    let url = forge.url();
    let missing = "0123456789012345678901234567890123456789";
    let short = &forge.second[..12];
    for (source, text) in [
        (
            format!("{url}#nope"),
            format!("error: cannot fetch the git repository {url}: it has no branch or tag nope\n"),
        ),
        (
            format!("{url}#{missing}"),
            format!("error: cannot fetch the git repository {url}: it has no commit {missing}\n"),
        ),
        (
            format!("{url}#main:file"),
            format!(
                "error: cannot fetch the git repository {url}: \"file\" is no directory in commit \
                 {short}: Not a directory\n"
            ),
        ),
        (
            format!("{url}#--upload-pack=x"),
            format!(
                "error: invalid git URL \"{url}#--upload-pack=x\": \"--upload-pack=x\" is no ref\n"
            ),
        ),
        (
            forge.server.url("/git/b.git"),
            format!(
                "error: cannot fetch the git repository {0}: repository '{0}/' not found\n",
                forge.server.url("/git/b.git")
            ),
        ),
    ] {
        kiln.build(&format!("FROM scratch\nADD {source} /r\n"), &[])
            .fails_with(&text);
    }
}

#[test]
fn secrets_open_private_urls() {
    let (kiln, server) = (Kiln::new(), WebServer::start());
    server.put("/x", Page::new("content"));
    server.require("Bearer tok3n");
    let url = server.url("/x");
    let dockerfile = format!("FROM scratch\nADD {url} /x\n");
    kiln.build(&dockerfile, &[])
        .fails_with(&format!(
            "error: cannot fetch {url}: the server answered 401 Unauthorized\n"
        ))
        .fails_with(
            "hint: the server wants to know who asks: give a token with --secret \
             id=HTTP_AUTH_TOKEN_HOST,env=VARIABLE\n",
        );
    let token = kiln.sandbox().join("token");
    fs::write(&token, "tok3n\n").unwrap();
    let host = url.split('/').nth(2).unwrap();
    let secret = |id: &str| format!("id={id},src={}", token.display());
    // That of another server is not sent.
    server.take_log();
    let other = secret("HTTP_AUTH_TOKEN_127.0.0.1:1");
    kiln.build_with(&["--secret", &other], &dockerfile, &[])
        .fails_with("answered 401");
    assert_eq!(server.take_log(), ["GET /x refused without a word"]);
    let own = secret(&format!("HTTP_AUTH_TOKEN_{host}"));
    kiln.build_with(&["--secret", &own], &dockerfile, &[]).ok();
    assert_eq!(kiln.image("test").tree.file("/x").content(), b"content");
    // As the whole header; and never to where the server leads.
    let elsewhere = WebServer::start();
    elsewhere.put("/y", Page::new("y"));
    server.put(
        "/y",
        Page::status(302).header("Location", &elsewhere.url("/y")),
    );
    fs::write(&token, "Bearer tok3n").unwrap();
    let own = secret(&format!("HTTP_AUTH_HEADER_{host}"));
    let dockerfile = format!("FROM scratch\nADD {} /y\n", server.url("/y"));
    kiln.build_with(&["--secret", &own], &dockerfile, &[]).ok();
    elsewhere.require("Bearer tok3n");
    kiln.build_with(&["--no-cache", "--secret", &own], &dockerfile, &[])
        .fails_with("answered 401");
    assert_eq!(
        elsewhere.take_log(),
        ["GET /y 200", "GET /y refused without a word"]
    );
}

#[test]
fn secrets_open_private_repositories_and_no_others() {
    let kiln = Kiln::new();
    let forge = Forge::new(&kiln);
    // x-access-token:tok3n
    forge.server.require("Basic eC1hY2Nlc3MtdG9rZW46dG9rM24=");
    let url = forge.url();
    let dockerfile = format!("FROM scratch\nADD {url} /r\n");
    kiln.build(&dockerfile, &[])
        .fails_with("a token is given with --secret id=GIT_AUTH_TOKEN,env=VARIABLE\n");
    let kiln = kiln.env("TOKEN", "tok3n");
    let token = ["--secret", "id=GIT_AUTH_TOKEN,env=TOKEN"];
    kiln.build_with(&token, &dockerfile, &[]).ok();
    assert_eq!(kiln.image("test").tree.file("/r/file").content(), b"two");
    let context = [&["build", "-t", "test"][..], &token, &[&url]].concat();
    // The repository has no Dockerfile: so far one comes with its token.
    kiln.run(&context).fails_with("Dockerfile");

    // A submodule on another server gets no token that is not for it.
    let other = WebServer::start();
    let root = kiln.sandbox().directory("other", &[]);
    let library = Repository::new(&root.join("lib.git"));
    let commit = library.commit(&[("lib", "lib")]);
    other.serve_git(&root);
    other.require("nobody can say this");
    let modules = format!(
        "[submodule \"lib\"]\n\tpath = lib\n\turl = {}\n",
        other.url("/git/lib.git")
    );
    fs::write(forge.repository.path().join(".gitmodules"), modules).unwrap();
    let link = format!("160000,{commit},lib");
    forge.repository.git(&["add", ".gitmodules"]);
    forge
        .repository
        .git(&["update-index", "--add", "--cacheinfo", &link]);
    forge.repository.git(&["commit", "-qm", "submodule"]);
    kiln.build_with(&token, &dockerfile, &[])
        .fails_with("cannot fetch the git repository");
    let log = other.take_log();
    assert!(!log.is_empty());
    for line in log {
        assert!(line.ends_with("refused without a word"), "{line}");
    }
    // What can't be sent is told before anything begins.
    let kiln = kiln.env("LINES", "a\nb");
    kiln.run(["build", "--secret", "id=GIT_AUTH_TOKEN,env=LINES", "."])
        .fails_with(
            "error: cannot send the secret \"GIT_AUTH_TOKEN\" to a server: it has more than one \
             line, or control characters\n",
        );
}
