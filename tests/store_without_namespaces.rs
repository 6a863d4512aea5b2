//! Where user namespaces are forbidden, what needs one says so, and the rest works.

mod support;

use support::{Kiln, Registry};

#[test]
fn forbidden_namespaces_are_an_error_with_remedies_and_commands_that_need_none_work() {
    let (kiln, base) = (Kiln::new(), Registry::shared().busybox());
    let dockerfile = format!("FROM {base}\nRUN true\n");
    kiln.build(&dockerfile, &[]).ok();
    let kiln = kiln.env("KILN_DISABLE", "userns");
    let expected = "error: user namespaces are not available: \
         unshare(CLONE_NEWUSER|CLONE_NEWNS): Operation not permitted\n\
         hint: this system forbids unprivileged user namespaces. As root, one of:\n";
    let output = kiln.build(&dockerfile, &[]).fails();
    assert_eq!(output.code(), Some(1));
    assert!(output.stderr().starts_with(expected), "{output}");
    for remedy in [
        "sysctl -w kernel.unprivileged_userns_clone=1",
        "AppArmor",
        "seccomp profile",
    ] {
        assert!(output.stderr().contains(remedy), "{output}");
    }
    let output = kiln.run(["run", "test"]).fails();
    assert_eq!(output.code(), Some(125));
    assert!(output.stderr().starts_with(expected), "{output}");

    kiln.run(["tag", "test", "other"]).ok();
    let images = kiln.run(["images"]).ok().stdout();
    assert!(images.contains("other"), "{images}");
    kiln.run(["inspect", "other"]).ok();
    kiln.run(["history", "other"]).ok();
    kiln.run(["version"]).ok();
    kiln.run(["build", "--help"]).ok();
}
