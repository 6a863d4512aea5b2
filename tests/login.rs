//! `kiln login` and `kiln logout`: what they ask, what they store, and what that is worth.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::{FaultyRegistry, Kiln, Registry};

/// A line of htpasswd for the password `sesame`.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";

/// `user:sesame`.
const AUTH: &str = "dXNlcjpzZXNhbWU=";

fn private_registry() -> Registry {
    Registry::start_with_user(HTPASSWD)
}

fn config_file(kiln: &Kiln) -> PathBuf {
    kiln.sandbox().join("home/.docker/config.json")
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn log_in(kiln: &Kiln, registry: &str, password: &str) -> support::Output {
    let arguments = ["login", "-u", "user", "--password-stdin", registry];
    kiln.run_with_input(arguments, password.as_bytes())
}

#[test]
fn push_is_refused_before_a_login_and_after_a_logout() {
    let registry = private_registry();
    let address = registry.address();
    let kiln = Kiln::new();
    let base = FaultyRegistry::start();
    base.image("1", &[("hello", "hello\n")]);
    let name = registry.reference("mine:1");
    kiln.run(["pull", &base.reference("1")]).ok();
    kiln.run(["tag", &base.reference("1"), &name]).ok();

    let refused = || {
        let output = kiln.run(["push", &name]).fails();
        let hint = format!(
            ": unauthorized: 401\n\
             hint: the repository is private or does not exist; log in: kiln login {address}\n"
        );
        assert!(output.stderr().ends_with(&hint), "{output}");
        assert_eq!(
            kiln.run(["pull", &name]).fails().stderr(),
            format!(
                "error: {name0}: manifest 1: unauthorized: 401 UNAUTHORIZED: authentication required\n\
                 hint: the repository is private or does not exist; log in: kiln login {address}\n",
                name0 = registry.reference("mine")
            )
        );
    };
    refused();
    let output = log_in(&kiln, address, "sesame\n").ok();
    assert_eq!(output.stdout(), "Login Succeeded\n");
    assert_eq!(
        output.stderr(),
        format!(
            "warning: the password is stored unencrypted in {}\n\
             hint: name a credential helper there (credsStore), and log in again\n",
            config_file(&kiln).display()
        )
    );
    kiln.run(["push", &name]).ok();
    kiln.run(["pull", &name]).ok();
    let output = kiln.run(["logout", address]).ok();
    assert_eq!(
        (output.stdout(), output.stderr()),
        (
            format!("Removing login credentials for {address}\n"),
            String::new()
        )
    );
    refused();
    assert_eq!(
        kiln.run(["logout", address]).ok().stdout(),
        format!("Not logged in to {address}\n")
    );
}

#[test]
fn login_keeps_what_else_stands_in_the_file_and_shuts_it_to_others() {
    let registry = private_registry();
    let kiln = Kiln::new();
    let text = json!({
        "HttpHeaders": {"X-Own": "1"},
        "auths": {"other.example": {"auth": "bWU6cHc=", "email": "me@other.example"}},
        "psFormat": "table"
    });
    kiln.sandbox()
        .directory("home/.docker", &[("real.json", &text.to_string())]);
    let real = kiln.sandbox().join("home/.docker/real.json");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink("real.json", config_file(&kiln)).unwrap();

    let url = format!("https://{}/v2/", registry.address());
    log_in(&kiln, &url, "sesame\r\n").ok();
    let mut expected = text.clone();
    expected["auths"][registry.address()] = json!({"auth": AUTH});
    assert_eq!(json_of(&real), expected);
    assert!(config_file(&kiln).is_symlink(), "the link is kept");
    assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let left = fs::read_dir(kiln.sandbox().join("home/.docker")).unwrap();
    assert_eq!(left.count(), 2, "nothing else is left");

    kiln.run(["logout", registry.address()]).ok();
    assert_eq!(json_of(&real), text);
    let output = kiln.run(["logout", "--all"]).ok();
    assert_eq!(
        output.stdout(),
        "Removed login credentials for all registries\n"
    );
    assert_eq!(json_of(&real)["auths"], json!({}));
    assert_eq!(json_of(&real)["psFormat"], "table");
}

#[test]
fn wrong_password_stores_nothing() {
    let registry = private_registry();
    let kiln = Kiln::new();
    let output = log_in(&kiln, registry.address(), "salami").fails();
    assert_eq!(
        (output.code(), output.stdout(), output.stderr()),
        (
            Some(1),
            String::new(),
            format!(
                "error: {}: unauthorized: 401 UNAUTHORIZED: authentication required\n\
                 hint: check the user name and the password; some registries want an access token \
                 in its place. Nothing was stored\n",
                registry.address()
            )
        )
    );
    assert!(!config_file(&kiln).exists());
}

#[test]
fn authfile_is_written_and_read_in_place_of_docker_s_config() {
    let registry = private_registry();
    let kiln = Kiln::new();
    let file = kiln.sandbox().join("new/auth.json");
    let file_text = file.to_str().unwrap();
    let arguments = ["login", "-u", "user", "-p", "sesame"];
    let output = kiln
        .run(
            arguments
                .into_iter()
                .chain(["--authfile", file_text, registry.address()]),
        )
        .ok();
    assert!(
        output.stderr().starts_with(
            "warning: others can see --password in the list of processes and in the shell's \
             history\nhint: use --password-stdin\n"
        ),
        "{output}"
    );
    assert!(!config_file(&kiln).exists());
    assert_eq!(
        json_of(&file),
        json!({"auths": {registry.address(): {"auth": AUTH}}})
    );
    // What docker's config has is another account, which has no rights here.
    let config = json!({"auths": {registry.address(): {"auth": "dXNlcjp3cm9uZw=="}}}).to_string();
    kiln.sandbox()
        .directory("home/.docker", &[("config.json", &config)]);
    let dockerfile = format!("FROM {}\n", registry.busybox());
    kiln.build_with(&["--authfile", file_text], &dockerfile, &[])
        .ok();
    kiln.run(["logout", "--authfile", file_text, registry.address()])
        .ok();
    assert_eq!(json_of(&file), json!({"auths": {}}));
    assert_eq!(fs::read_to_string(config_file(&kiln)).unwrap(), config);
}

/// Writes a credential helper that keeps what it is given in a file, and returns the `PATH`
/// that has it.
fn helper(kiln: &Kiln) -> String {
    let bin = kiln.sandbox().directory("bin", &[]);
    let script = "#!/bin/sh\n\
        kept=$HOME/kept\n\
        case $1 in\n\
        store) cat > $kept ;;\n\
        erase) rm $kept ;;\n\
        list) echo '{}' ;;\n\
        get) cat $kept 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;\n\
        esac\n";
    let program = bin.join("docker-credential-chest");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[test]
fn credential_helper_gets_the_password_and_the_file_only_a_mark() {
    let registry = private_registry();
    let address = registry.address();
    let kiln = Kiln::new();
    let kiln_path = helper(&kiln);
    let kiln = kiln.env("PATH", &kiln_path);
    kiln.sandbox().directory(
        "home/.docker",
        &[("config.json", r#"{"credsStore":"chest"}"#)],
    );
    let output = log_in(&kiln, address, "sesame").ok();
    assert_eq!(output.stderr(), "");
    assert_eq!(
        json_of(&config_file(&kiln)),
        json!({"credsStore": "chest", "auths": {address: {}}})
    );
    let kept = kiln.sandbox().join("home/kept");
    assert_eq!(
        json_of(&kept),
        json!({"ServerURL": address, "Username": "user", "Secret": "sesame"})
    );
    kiln.run(["pull", &registry.busybox()]).ok();
    // A second login without a name tries what is there.
    let output = kiln.run(["login", address]).ok();
    assert_eq!(
        (output.stdout().as_str(), output.stderr().as_str()),
        (
            "Login Succeeded\n",
            "Authenticating with existing credentials...\n"
        )
    );
    let output = kiln.run(["logout", address]).ok();
    assert_eq!(
        output.stdout(),
        format!("Removing login credentials for {address}\n")
    );
    assert!(!kept.exists());
    assert_eq!(
        json_of(&config_file(&kiln)),
        json!({"credsStore": "chest", "auths": {}})
    );
}

#[test]
fn helper_that_is_missing_is_named() {
    let registry = private_registry();
    let kiln = Kiln::new();
    kiln.sandbox().directory(
        "home/.docker",
        &[("config.json", r#"{"credsStore":"nosuch"}"#)],
    );
    let config = config_file(&kiln);
    assert_eq!(
        log_in(&kiln, registry.address(), "sesame").fails().stderr(),
        format!(
            "error: docker-credential-nosuch (named in {0}): No such file or directory (os error 2)\n\
             hint: install docker-credential-nosuch, or remove it from credsStore or credHelpers \
             in {0}\n",
            config.display()
        )
    );
}

#[test]
fn without_a_terminal_the_password_has_to_be_given() {
    let kiln = Kiln::new();
    assert_eq!(
        kiln.run(["login", "r.example"]).fails().stderr(),
        "error: cannot ask for the user name and password: standard input is no terminal\n\
         hint: give them with --username and --password-stdin\n"
    );
    assert_eq!(
        kiln.run(["login", "--password-stdin", "r.example"])
            .fails()
            .stderr(),
        "error: the --password-stdin option requires --username to be set\n"
    );
    assert_eq!(
        kiln.run(["login", "-p", "x", "--password-stdin", "r.example"])
            .fails()
            .stderr(),
        "error: --password and --password-stdin are mutually exclusive\n"
    );
    assert_eq!(
        kiln.run(["login", "-u", "me", "-p", "x", "r example"])
            .fails()
            .stderr(),
        "error: \"r example\" is no name of a registry\n\
         hint: write HOST or HOST:PORT, as in registry.example:5000\n"
    );
}

/// A command on a terminal of its own.
struct OnTerminal {
    child: Child,
    terminal: File,
    slave: OwnedFd,
    seen: String,
}

impl OnTerminal {
    fn start(mut command: Command) -> Self {
        let pair = openpty(None, None).unwrap();
        let slave = || Stdio::from(pair.slave.try_clone().unwrap());
        let command = command.stdin(slave()).stdout(slave()).stderr(slave());
        Self {
            child: command.spawn().unwrap(),
            terminal: File::from(pair.master),
            slave: pair.slave,
            seen: String::new(),
        }
    }

    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 256];
        while !self.seen.contains(text) {
            let count = self.terminal.read(&mut buffer).unwrap();
            self.seen += std::str::from_utf8(&buffer[..count]).unwrap();
        }
    }

    fn shows_what_is_typed(&self) -> bool {
        let flags = tcgetattr(&self.slave).unwrap().local_flags;
        flags.contains(LocalFlags::ECHO)
    }
}

#[test]
fn password_is_asked_for_on_the_terminal_and_not_shown() {
    let registry = private_registry();
    let kiln = Kiln::new();
    let mut login = OnTerminal::start(kiln.command(["login", registry.address()]));
    login.wait_for("Username: ");
    login.terminal.write_all(b"user\n").unwrap();
    login.wait_for("Password: ");
    login.terminal.write_all(b"sesame\n").unwrap();
    login.wait_for("Login Succeeded");
    assert!(login.child.wait().unwrap().success());
    assert!(login.seen.contains("Username: user\r\n"), "{}", login.seen);
    assert!(!login.seen.contains("sesame"), "{}", login.seen);
    assert!(login.shows_what_is_typed());
    assert_eq!(
        json_of(&config_file(&kiln))["auths"][registry.address()],
        json!({"auth": AUTH})
    );
}

#[test]
fn interrupt_at_the_password_leaves_a_terminal_that_shows_what_is_typed() {
    let kiln = Kiln::new();
    let mut login = OnTerminal::start(kiln.command(["login", "-u", "user", "r.example"]));
    login.wait_for("Password: ");
    assert!(!login.shows_what_is_typed());
    let pid = Pid::from_raw(login.child.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(login.child.wait().unwrap().code(), Some(130));
    assert!(login.shows_what_is_typed());
}
