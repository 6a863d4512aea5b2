//! The examples of `tests/realistic` that need neither a network nor a large base image;
//! `tests/soak_realistic.rs` has the others.

mod support;

use serde_json::json;
use support::{Realistic, Registry};

fn busybox() -> String {
    Registry::shared().busybox()
}

#[test]
fn base_with_triggers_and_its_child() {
    let app = Realistic::new("onbuild/app", "onbuild-base").arg("MODE", "test");
    app.sibling("onbuild/base", &["-t", "onbuild-base"], &busybox());
    app.build();
    assert_eq!(
        app.says(&[]),
        "installed for test:\naardvark\nzebra\nrunning in test\n"
    );
    let config = app.config();
    assert_eq!(config["WorkingDir"], "/usr/src/app");
    assert!(
        config["Env"]
            .as_array()
            .unwrap()
            .contains(&json!("MODE=test"))
    );
    assert!(config["OnBuild"].is_null(), "{config}");
}

#[test]
fn linked_copies_stay_when_what_lies_below_changes() {
    let site = Realistic::new("copy-link", &busybox());
    site.build();
    let says = |release: &str| {
        format!("{release}\n<p>index</p>\na{{}}\nb{{}}\none();\ntwo();\n1000:1000 js/all.js\n")
    };
    assert_eq!(site.says(&[]), says("1"));
    let next = site.once(&["--build-arg", "RELEASE=2"]).ok();
    assert_eq!(site.says(&[]), says("2"));
    let log = next.stderr();
    let ran: Vec<&str> = log.lines().filter(|l| l.contains(" DONE ")).collect();
    assert_eq!(ran.len(), 2, "only the step of the release ran\n{next}");
}

#[test]
fn base_and_labels_by_build_arguments() {
    let base = busybox();
    let (registry, _) = base.split_once('/').unwrap();
    let matrix = |options: &[&str]| {
        Realistic::new("matrix", "")
            .options(&["--build-arg", &format!("REGISTRY={registry}")])
            .options(options)
    };
    let missing = matrix(&[]).once(&[]).fails();
    assert!(
        missing
            .stderr()
            .contains("error: VERSION: must be given: --build-arg VERSION=…\n"),
        "{missing}"
    );
    let release = matrix(&[
        "--build-arg",
        "VERSION=1.2.3",
        "--build-arg",
        "REVISION=abc-dirty",
    ])
    .warns(&["JSONArgsRecommended"]);
    release.build();
    assert_eq!(release.says(&[]), "1.2.3\n1.2.3\n");
    assert_eq!(
        release.config()["Labels"],
        json!({
            "description": "A label of two lines",
            "maintainer": "Jane Doe <jane@example.org>",
            "major": "1",
            "org.opencontainers.image.base.name": "busybox:latest",
            "org.opencontainers.image.revision": "abc-dirty",
            "org.opencontainers.image.version": "1.2.3",
            "short revision": "abc",
        })
    );
}

#[test]
fn scheduler_with_an_entry_point() {
    let cron = Realistic::new("cron", &busybox());
    cron.build();
    assert_eq!(
        cron.says(&["sh", "-c", "crontab -l; job"]),
        "* * * * * /usr/local/bin/job >> /var/log/job.log 2>&1\njob ran as root\n"
    );
    assert_eq!(cron.config()["StopSignal"], "9");
}

#[test]
fn services_of_one_repository_with_an_ignore_file() {
    let repository = Realistic::new("monorepo", &busybox()).warns(&["JSONArgsRecommended"]);
    repository.build();
    assert_eq!(
        repository.says(&[]),
        "== services/api\napi code\nshared one\nshared two\n\
         == services/web\nweb code\nshared one\nshared two\n\
         core\nhtml\njson\nnever\n\
         ./packages/shared/needs.txt\n./packages/shared/src/1\n./packages/shared/src/2\n\
         ./packages/unused/needs.txt\n\
         ./services/api/code\n./services/api/needs.txt\n\
         ./services/web/code\n./services/web/needs.txt\n./tools/build\n"
    );
}
