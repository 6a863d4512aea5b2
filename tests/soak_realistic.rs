//! The examples of `tests/realistic`: Dockerfiles of the kinds that people write, built, run and
//! built again, with packages by apt, pip, npm and cargo within RUN. What is quick and needs no
//! network lies in `tests/build_realistic.rs`.

mod support;

use serde_json::json;
use support::{Realistic, Registry, soak_only, toolchain};

fn debian() -> String {
    Registry::shared().debian()
}

#[test]
fn express_by_npm_ci_with_a_lock_file() {
    soak_only!();
    let app = Realistic::new("node-express", &toolchain("node")).arg("VERSION", "1.0");
    app.build();
    assert_eq!(
        app.says(&["node", "server.js", "--once"]),
        "hello from express\n"
    );
    // Of the files beside the Dockerfile those that .dockerignore lets pass; no tools of developers.
    let listed = "ls -A; ls node_modules | grep -c -e '^express$' -e '^is-odd$'; id -un; stat -c %U . server.js";
    assert_eq!(
        app.says(&["sh", "-c", listed]),
        "README.md\nnode_modules\npackage-lock.json\npackage.json\nserver.js\n1\nnode\nnode\nnode\n"
    );
    let config = app.config();
    assert_eq!(config["User"], "node");
    assert_eq!(config["ExposedPorts"], json!({"3000/tcp": {}}));
    assert_eq!(config["Healthcheck"]["Interval"], 30_000_000_000_u64);
    assert_eq!(config["Healthcheck"]["Retries"], 3);
    assert_eq!(
        config["Labels"],
        json!({
            "org.opencontainers.image.title": "express-hello",
            "org.opencontainers.image.version": "1.0",
        })
    );
}

#[test]
fn flask_in_an_environment_of_its_own_in_two_stages() {
    soak_only!();
    let app = Realistic::new("python-flask", &toolchain("python"));
    app.build();
    assert_eq!(app.says(&["smoke"]), "hello from flask as app\n");
    let cached = [
        "run",
        "--rm",
        "--entrypoint",
        "sh",
        "test",
        "-c",
        "ls -A /root/.cache",
    ];
    assert!(
        app.kiln().run(cached).fails().stdout().is_empty(),
        "pip's cache is no part of it"
    );
}

#[test]
fn static_program_in_an_empty_image() {
    soak_only!();
    let hello = Realistic::new("static-c", &toolchain("gcc")).arg("VERSION", "1.2");
    hello.build();
    let platform = format!("linux-{}", support::host_architecture());
    assert_eq!(
        hello.says(&["a", "b"]),
        format!("hello 1.2-{platform} as 65532:65532 a b\n")
    );
    let image = hello.kiln().image("test");
    assert_eq!(image.layers, [["hello"]]);
}

#[test]
fn cargo_with_caches_of_registry_and_target() {
    soak_only!();
    let program = Realistic::new("rust-cargo", &toolchain("rust")).arg("RUNTIME", &debian());
    program.build();
    let counts = [
        "run",
        "--rm",
        "--entrypoint",
        "sh",
        "test",
        "-c",
        "echo one two three | wordcount",
    ];
    assert_eq!(program.kiln().run(counts).ok().stdout(), "3\n");
    // Compiled anew without its records, but with its caches: the dependency is there.
    let again = program.once(&["--no-cache-filter", "build"]).ok();
    assert!(!again.stderr().contains("Compiling itoa"), "{again}");
}

#[test]
fn site_behind_nginx() {
    soak_only!();
    let site = Realistic::new("nginx-site", &toolchain("nginx")).warns(&["NoEmptyContinuation"]);
    site.build();
    let page = "nginx && wget -q -O - http://127.0.0.1:8080/about && nginx -s quit";
    let answer = site.run(&["sh", "-c", page]).ok();
    assert!(
        answer
            .stdout()
            .contains("<!doctype html><title>about</title><pre>\nAbout nobody\n</pre>\n"),
        "{answer}"
    );
    // Its log is a link to /dev/stdout.
    assert!(
        answer.stdout().contains("\"GET /about HTTP/1.1\" 200"),
        "{answer}"
    );
    assert_eq!(
        site.config()["ExposedPorts"],
        json!({"80/tcp": {}, "8080/tcp": {}})
    );
}

#[test]
fn apt_with_locked_caches() {
    soak_only!();
    let tools = Realistic::new("apt-cache", &debian());
    tools.build();
    assert_eq!(tools.says(&["jq", "-n", "1+1"]), "2\n");
    // What is cached is no part of the image.
    let left = "ls /var/cache/apt /var/lib/apt/lists | grep -c -e deb -e bin -e Packages; tree --version | head -c 4";
    assert_eq!(tools.says(&["sh", "-c", left]), "0\ntree");
}

#[test]
fn documents_in_the_dockerfile() {
    soak_only!();
    let documents = Realistic::new("heredocs", &toolchain("python"));
    documents.build();
    assert_eq!(
        documents.says(&[]),
        "entry: cat /srv/made/shell /srv/made/python.json /srv/made/both /etc/app/app.conf /etc/app/raw.conf\n\
         hello from a heredoc\n\
         {\"cwd\": \"/\", \"dollar\": \"$HOME\"}\
         python, then cat\n\
         # configuration of hello from a heredoc\n\
         path = $PATH\n\
         as it is: ${GREETING}\n"
    );
}

#[test]
fn user_who_is_not_root() {
    soak_only!();
    let app = Realistic::new("non-root", &debian());
    app.build();
    assert_eq!(
        app.says(&[]),
        "app:app in /home/app/work, home /home/app\n\
         app:app 755 .\n\
         app:app 755 /var/lib/app/data\n\
         app:app 644 /var/lib/app/data/one\n\
         app:readers 644 /var/spool/app/here\n\
         app:app 755 /usr/local/bin/serve\n"
    );
    assert_eq!(app.config()["Volumes"], json!({"/var/lib/app": {}}));
}

#[test]
fn one_file_for_development_test_and_production() {
    soak_only!();
    let app = Realistic::new("multi-target", &toolchain("node"));
    let production = app.build();
    assert!(!production.stderr().contains("[test "), "{production}");
    assert_eq!(app.says(&[]), "7: odd\n");
    app.once(&["--target", "report"]).ok();
    let report = app.kiln().image("test");
    assert_eq!(report.tree.file("/report.txt").content(), b"4: even\n");
    app.once(&["--target", "DEVELOPMENT"]).ok();
    assert_eq!(app.says(&["node", "main.js", "2"]), "2: even\n");
}

#[test]
fn packages_from_indices_that_want_a_secret() {
    soak_only!();
    const TOKEN: &str = "a-token-of-the-tests";
    let app = Realistic::new("private-index", &toolchain("python"))
        .arg("NODE", &toolchain("node"))
        .env("NPM_TOKEN", TOKEN);
    let missing = app.once(&[]).fails();
    assert!(missing.stderr().contains("pip.conf"), "{missing}");
    let settings = app.kiln().sandbox().join("pip.conf");
    std::fs::write(&settings, format!("[global]\ntimeout = 77\n# {TOKEN}\n")).unwrap();
    let secret = format!("id=pip.conf,src={}", settings.display());
    let app = app.options(&[
        "--secret",
        &secret,
        "--secret",
        "id=npm_token,env=NPM_TOKEN",
    ]);
    let built = app.build();
    assert!(built.stderr().contains("global.timeout='77'"), "{built}");
    assert!(built.stderr().contains("token has 20 letters"), "{built}");
    assert_eq!(app.says(&[]), "six 1.16.0\n");
    // Neither the secret nor an empty file in its place.
    let image = app.kiln().image("test");
    assert!(image.tree.get("/etc/pip.conf").is_none());
    assert!(
        image
            .tree
            .get("/app/node_modules/is-number/package.json")
            .is_some()
    );
    assert!(!image.config.to_string().contains(TOKEN));
}

#[test]
fn shell_that_minds_failures_in_pipes() {
    soak_only!();
    let words = Realistic::new("bash-pipefail", &debian());
    words.build();
    assert_eq!(words.says(&[]), "3 three\n");
    let config = words.config();
    assert_eq!(
        config["Shell"],
        json!(["/bin/bash", "-o", "pipefail", "-c"])
    );
    assert_eq!(config["Cmd"][0], "/bin/bash");
}

#[test]
fn service_with_an_entry_point_that_gives_up_root() {
    soak_only!();
    let redis = Realistic::new("redis", &debian()).warns(&["ExposeProtoCasing"]);
    redis.build();
    let script = "docker-entrypoint.sh --port 0 --unixsocket /data/socket \
        --pidfile /data/pid --daemonize yes > /dev/null
        until redis-cli -s /data/socket ping; do sleep .1; done
        stat -c %U /proc/$(cat /data/pid); stat -c %U:%G /data/socket
        redis-cli -s /data/socket shutdown nosave";
    assert!(
        redis
            .says(&["sh", "-c", script])
            .ends_with("PONG\nredis\nredis:redis\n")
    );
    let config = redis.config();
    assert_eq!(
        config["ExposedPorts"],
        json!({"16379/tcp": {}, "6379/tcp": {}, "7000/tcp": {}, "7001/tcp": {}, "7002/tcp": {}})
    );
    assert_eq!(
        config["Healthcheck"]["Test"],
        json!(["CMD", "redis-cli", "ping"])
    );
    assert_eq!(config["Healthcheck"]["StartInterval"], 500_000_000);
    assert_eq!(config["StopSignal"], "SIGTERM");
}

#[test]
fn language_and_time_zone() {
    soak_only!();
    let german = Realistic::new("locale", &debian()).warns(&["JSONArgsRecommended"]);
    german.build();
    assert_eq!(german.says(&[]), "Dienstag 23:13 CET\n3,14\nGrüße!\n");
}

#[test]
fn tests_of_a_program_without_a_network() {
    soak_only!();
    let app = Realistic::new("ci-test", &toolchain("python"));
    let built = app.build();
    assert!(!built.stderr().contains("[test "), "{built}");
    assert_eq!(app.says(&[]), "16\n");
    app.once(&["--target", "report"]).ok();
    let report = app.kiln().image("test");
    let text = report.tree.file("/report.txt").content();
    assert!(
        text.ends_with(b"\nOK\n"),
        "{}",
        String::from_utf8_lossy(text)
    );
}

#[test]
fn php_and_perl_with_an_unpacked_archive() {
    soak_only!();
    let app = Realistic::new("php-perl", &toolchain("php"));
    app.build();
    assert_eq!(
        app.says(&["php", "public/index.php"]),
        "hello prod from php\n"
    );
    assert_eq!(app.says(&["report.pl"]), "report by www-data\n");
    let owners = app.says(&[
        "stat",
        "-c",
        "%U",
        "vendor/greeter/greet.php",
        "public",
        ".",
    ]);
    assert_eq!(owners, "www-data\nwww-data\nroot\n");
}

#[test]
fn make_with_a_cache_of_compiled_files() {
    soak_only!();
    let app = Realistic::new("cpp-ccache", &toolchain("gcc"))
        .arg("RUNTIME", &debian())
        .warns(&["JSONArgsRecommended"]);
    app.build();
    assert_eq!(app.says(&[]), "hello C++\n");
    let again = app.once(&["--no-cache"]).ok();
    let log = again.stderr();
    // Both files were compiled once and found once.
    let hits = log.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.windows(4).any(|w| w == ["Hits:", "2", "/", "4"])
    });
    assert!(hits, "{again}");
}

#[test]
fn program_with_its_libraries_in_an_empty_image() {
    soak_only!();
    let program = Realistic::new("from-scratch", &debian());
    program.build();
    assert!(program.says(&[]).ends_with("  debian_version\n"));
    let image = program.kiln().image("test");
    assert!(image.tree.file("/etc/ssl/certs/ca-certificates.crt").size > 1000);
    assert_eq!(image.tree.file("/home/app/debian_version").uid, 65532);
    assert_eq!(image.setting("Env").as_array().unwrap().len(), 2);
}
