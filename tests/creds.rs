//! `--creds`: a user and password for one command and one registry.

mod support;

use std::fs;
use std::path::Path;

use support::{Console, FaultyRegistry, Kiln, Registry};

/// A line of htpasswd for the password `sesame`.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";

/// `user:sesame`.
const AUTH: &str = "dXNlcjpzZXNhbWU=";

const CREDS: &str = "--creds=user:sesame";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns kiln with an image of the given name.
fn kiln_with_image(name: &str) -> Kiln {
    let (kiln, base) = (Kiln::new(), FaultyRegistry::start());
    base.image("1", &[("hello", "hello\n")]);
    kiln.run(["pull", &base.reference("1")]).ok();
    kiln.run(["tag", &base.reference("1"), name]).ok();
    kiln
}

#[test]
fn every_command_that_talks_to_one_registry_takes_them_and_keeps_none() {
    let registry = Registry::start_with_user(HTPASSWD);
    let (name, list) = (registry.reference("mine:1"), registry.reference("list:1"));
    let kiln = kiln_with_image(&name);
    kiln.run(["push", &name]).fails_with("unauthorized: 401");
    kiln.run(["push", CREDS, &name]).ok();
    kiln.run(["manifest", "create", &list, &name]).ok();
    kiln.run(["manifest", "push", CREDS, &list]).ok();
    let other = Kiln::new();
    other.run(["manifest", "inspect", &list]).fails();
    other.run(["manifest", "inspect", CREDS, &list]).ok();
    other.run(["manifest", "create", "there"]).ok();
    other.run(["manifest", "add", CREDS, "there", &name]).ok();
    other.run(["create", CREDS, &name, "x"]).ok();
    other.run(["pull", CREDS, &name]).ok();
    let layout = format!("oci:{}:1", text(&other.sandbox().join("layout")));
    other
        .run(["copy", "--src-creds=user:sesame", &name, &layout])
        .ok();
    let copy = registry.reference("copy:1");
    other
        .run(["copy", "--dest-creds=user:sesame", &layout, &copy])
        .ok();
    let both = [
        "copy",
        "--src-creds=user:sesame",
        "--dest-creds=user:sesame",
    ];
    let again = registry.reference("again:1");
    other.run([&both[..], &[&copy, &again]].concat()).ok();
    for kiln in [&kiln, &other] {
        assert!(!kiln.sandbox().join("home/.docker/config.json").exists());
        assert!(
            !kiln
                .sandbox()
                .join("home/.config/containers/auth.json")
                .exists()
        );
    }
}

#[test]
fn they_come_before_what_is_stored_and_a_wrong_password_is_told() {
    let registry = Registry::start_with_user(HTPASSWD);
    let name = registry.reference("mine:1");
    let kiln = kiln_with_image(&name);
    let address = registry.address();
    kiln.run_with_input(
        ["login", "-u", "user", "--password-stdin", address],
        b"sesame",
    )
    .ok();
    kiln.run(["push", &name]).ok();
    let output = kiln.run(["pull", "--creds", "user:wrong", &name]).fails();
    let expected = format!(
        "error: {address}/mine: manifest 1: unauthorized: 401 UNAUTHORIZED: authentication required\n\
         hint: the credentials may be old or wrong, or lack the right; log in: kiln login {address}\n"
    );
    assert_eq!(output.stderr(), expected);
}

#[test]
fn no_other_registry_gets_to_see_them() {
    let (from, to) = (FaultyRegistry::start(), FaultyRegistry::start());
    from.image("1", &[("hello", "hello\n")]);
    from.require(AUTH);
    let kiln = Kiln::new();
    let target = format!("{}/copy:1", to.address());
    to.require("b3RoZXI6b3RoZXI=");
    let arguments = [
        "copy",
        "--src-creds=user:sesame",
        &from.reference("1"),
        &target,
    ];
    kiln.run(arguments).fails_with("unauthorized: 401");
    assert_eq!(to.authorized(), [""; 0]);
    assert!(!from.authorized().is_empty());
}

#[test]
fn password_is_asked_for_on_the_terminal_and_not_shown() {
    let registry = Registry::start_with_user(HTPASSWD);
    let name = registry.reference("mine:1");
    let address = registry.address();
    let kiln = kiln_with_image(&name);
    let arguments = ["push", "--creds", "user", &name];
    let mut console = Console::start(&kiln.command(arguments));
    console.shows(&format!("Password of user at {address}: "));
    assert!(!console.is_cooked());
    console.types("sesame\n");
    assert!(console.ends().success(), "{}", console.shown());
    let shown = console.shown();
    assert!(shown.contains(": digest: sha256:"), "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");

    let output = kiln.run(arguments).fails();
    assert_eq!(
        output.stderr(),
        format!(
            "error: cannot ask for the password of user at {address}: \
             standard input is no terminal\n\
             hint: write --creds USER:PASSWORD, or log in: kiln login {address}\n"
        )
    );
}

#[test]
fn what_is_not_meant_for_one_registry_is_refused() {
    let (one, two) = ("a.example/x:1", "b.example/x:1");
    let kiln = kiln_with_image("here:1");
    kiln.run(["manifest", "create", "list"]).ok();
    let config = "unqualified-search-registries = [\"a.example\", \"b.example\"]\n";
    let searching = Kiln::new();
    searching
        .sandbox()
        .directory("home/.config/containers", &[("registries.conf", config)]);
    let several = "error: --creds is for one registry, and this may ask a.example and b.example\n\
                   hint: log in to each with kiln login, or write the registry before the name\n";
    for (kiln, arguments, text) in [
        (
            &kiln,
            &["manifest", "add", CREDS, "list", one, two][..],
            several,
        ),
        (&searching, &["pull", CREDS, "x"], several),
        (
            &kiln,
            &["copy", "--dest-creds=user:sesame", "store:here:1", "oci:x"],
            "error: --dest-creds is for a registry, and none is asked here\n\
             hint: leave --dest-creds out\n",
        ),
        (
            &kiln,
            &["pull", "--creds=:sesame", one],
            "error: --creds: the user name is empty\n\
             hint: write USER:PASSWORD, or USER to be asked for the password\n",
        ),
        (
            &kiln,
            &["pull", "--creds=user:", one],
            "error: --creds: the password is empty\n\
             hint: write USER:PASSWORD, or USER to be asked for the password\n",
        ),
    ] {
        let output = kiln.run(arguments).fails();
        assert_eq!(output.stderr(), text);
        assert_eq!(output.code(), Some(2));
    }
    assert!(fs::metadata("x").is_err());
}
