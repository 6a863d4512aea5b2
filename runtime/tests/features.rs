//! The probe of the host, and what a build chooses by.

mod support;

use std::process::Command;

use support::{directory, entries, example, features, require, run, sandbox, sandboxes_work};

fn state<'a>(features: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let mut features = features["features"].as_array().unwrap().iter();
    features.find(|f| f["feature"] == name).unwrap()
}

#[test]
fn missing_feature_has_reason_and_remedy() {
    let probed = features(&[("KILN_DISABLE", "overlay,clone3,landlock,userns")]);
    for feature in probed["features"].as_array().unwrap() {
        if feature["state"] != "works" {
            assert_ne!(feature["reason"], "", "{feature}");
            let untried = feature["reason"].as_str().unwrap().starts_with("not tried");
            assert_eq!(feature["remedy"] == "", untried, "{feature}");
        }
    }
    for name in [
        "user-namespaces",
        "sandbox",
        "clone3",
        "landlock",
        "kernel-overlay",
    ] {
        assert_eq!(state(&probed, name)["state"], "missing", "{name}");
    }
    let hint = state(&probed, "user-namespaces")["remedy"]
        .as_str()
        .unwrap();
    assert!(
        hint.contains("sysctl") && hint.contains("AppArmor"),
        "{hint}"
    );
}

#[test]
fn probe_of_the_overlay_follows_the_switch() {
    if !sandboxes_work() || !require("kernel-overlay") {
        return;
    }
    let probed = features(&[("KILN_DISABLE", "overlay")]);
    assert_eq!(state(&probed, "kernel-overlay")["state"], "missing");
    assert_eq!(state(&probed, "sandbox")["state"], "works");
}

#[test]
fn overlay_is_chosen_by_trial_and_remembered() {
    if !sandboxes_work() || !require("kernel-overlay") {
        return;
    }
    let store = directory();
    let choose = |variable: (&str, &str)| {
        let mut command = Command::new(example("host_features"));
        command.arg("overlay").arg(store.path());
        let said = run(command.env(variable.0, variable.1)).ok();
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    let choice = choose(("KILN_DISABLE", "overlay"));
    assert_eq!(choice["kind"], "fuse");
    assert!(
        choice["reason"].as_str().unwrap().contains("overlay"),
        "{choice}"
    );
    assert_eq!(entries(store.path()), [""; 0], "a switch is not remembered");

    assert_eq!(choose(("LANG", "C"))["kind"], "kernel");
    assert_eq!(entries(store.path()), ["overlay.json"]);
    let file = store.path().join("overlay.json");
    let text = std::fs::read_to_string(&file).unwrap();
    // What is remembered is believed in this boot …
    std::fs::write(&file, text.replace("kernel", "fuse")).unwrap();
    assert_eq!(choose(("LANG", "C"))["kind"], "fuse");
    assert_eq!(choose(("KILN_OVERLAY", "kernel"))["kind"], "kernel");
    // … and in no other; nor is nonsense.
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = text
        .replace("kernel", "fuse")
        .replace(boot_id.trim(), "another");
    for text in [other.as_str(), "{", ""] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(choose(("LANG", "C"))["kind"], "kernel");
    }
}

#[test]
fn user_namespaces_that_are_forbidden_are_explained() {
    let mut command = sandbox(["/", "true"]);
    run(command.env("KILN_DISABLE", "userns")).fails_with(&[
        "user namespaces are not available",
        "hint: ",
        "sysctl",
    ]);
}
