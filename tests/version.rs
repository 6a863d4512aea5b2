//! `kiln version`.

mod support;

use serde_json::{Value, json};
use support::{Kiln, host_architecture};

#[test]
fn version_says_what_it_is_and_for_which_platform() {
    let kiln = Kiln::new();
    let version = env!("CARGO_PKG_VERSION");
    let platform = format!("linux/{}", host_architecture());
    assert_eq!(
        kiln.run(["version"]).ok().stdout(),
        format!("kiln {version} ({platform})\n")
    );
    let json: Value =
        serde_json::from_str(&kiln.run(["version", "--format", "json"]).ok().stdout()).unwrap();
    assert_eq!(json, json!({"Version": version, "Platform": platform}));
    for flag in ["--version", "-V"] {
        assert_eq!(kiln.run([flag]).ok().stdout(), format!("kiln {version}\n"));
    }
    assert!(
        !kiln.store().exists(),
        "no store is needed, and none is made"
    );
}
