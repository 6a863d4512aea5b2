//! `RUN --mount` of type secret and ssh: what a step gets, and that nothing of it stays.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::{Kiln, Output, Registry};

const SECRET: &str = "s3cr3t-8f1b2c-do-not-keep";

fn base() -> String {
    Registry::shared().busybox()
}

#[track_caller]
fn build(kiln: &Kiln, options: &[&str], instructions: &str) -> Output {
    let dockerfile = format!("FROM {}\n{instructions}\n", base());
    kiln.build_with(options, &dockerfile, &[])
}

/// Tells whether a file of the store has the text.
fn is_in_store(kiln: &Kiln, text: &str) -> bool {
    // The store belongs to subordinate ids in part.
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--map-auto", "grep", "-raFl", "--", text]);
    command.arg(kiln.store());
    let output = support::run(&mut command, Duration::from_secs(60));
    match output.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("{output}"),
    }
}

fn secret_file(kiln: &Kiln) -> String {
    let path = kiln.sandbox().join("token");
    fs::write(&path, SECRET).unwrap();
    path.to_str().unwrap().to_owned()
}

/// SEMANTICS 34, SEMANTICS 35, SEMANTICS 36
#[test]
fn secret_is_a_file_for_one_step_and_stays_nowhere() {
    let kiln = Kiln::new();
    let option = format!("id=token,src={}", secret_file(&kiln));
    build(
        &kiln,
        &["--secret", &option],
        "RUN --mount=type=secret,id=token stat -c '%a %u:%g' /run/secrets/token > /looks; \
           wc -c < /run/secrets/token > /size; touch /run/secrets/token 2> /error; ls /run/secrets > /names; true\n\
         RUN ls -A /run > /after; echo what-is-no-secret > /public",
    )
    .ok();
    let image = kiln.image("test");
    assert_eq!(image.text("/looks"), "400 0:0\n");
    assert_eq!(image.text("/size").trim(), SECRET.len().to_string());
    assert_eq!(image.text("/names"), "token\n");
    assert_eq!(image.text("/after"), "");
    assert!(image.tree.get("/run/secrets").is_none());
    assert!(!image.config.to_string().contains(SECRET));
    assert!(is_in_store(&kiln, "what-is-no-secret"));
    assert!(!is_in_store(&kiln, SECRET));
}

/// SEMANTICS 34
#[test]
fn secret_has_the_target_mode_and_owner_that_are_asked_for() {
    let kiln = Kiln::new();
    let option = format!("id=token,src={}", secret_file(&kiln));
    build(
        &kiln,
        &["--secret", &option],
        "WORKDIR /w\n\
         RUN --mount=type=secret,id=token,target=/etc/deep/key,mode=0440,uid=1000,gid=7 stat -c '%a %u:%g' /etc/deep/key > /looks\n\
         RUN --mount=type=secret,id=token,target=relative wc -c < relative > /relative\n\
         RUN --mount=type=secret,target=/x/token wc -c < /x/token > /by-target\n\
         RUN --mount=type=secret,source=token,target=/y wc -c < /y > /by-source\n\
         RUN mkdir -m 777 /out\n\
         USER app\n\
         RUN --mount=type=secret,id=token cat /run/secrets/token 2> /out/denied; \
             true\n\
         RUN --mount=type=secret,id=token,uid=1000 wc -c < /run/secrets/token > /out/allowed",
    )
    .ok();
    let image = kiln.image("test");
    let size = SECRET.len().to_string();
    assert_eq!(image.text("/looks"), "440 1000:7\n");
    for path in ["/relative", "/by-target", "/by-source", "/out/allowed"] {
        assert_eq!(image.text(path).trim(), size, "{path}");
    }
    assert!(image.text("/out/denied").contains("Permission denied"));
    assert!(image.tree.get("/etc/deep").is_none());
}

/// SEMANTICS 34
#[test]
fn secret_as_a_variable_is_no_file_unless_it_has_a_target() {
    let kiln = Kiln::new().env("TOKEN", SECRET).env("OTHER", "other-value");
    let output = build(
        &kiln,
        &["--secret", "id=TOKEN", "--secret", "id=b,env=OTHER"],
        "ENV NAME=old\n\
         RUN --mount=type=secret,id=TOKEN,env=NAME echo ${#NAME} > /length; ls -A /run > /run.txt; true\n\
         RUN --mount=type=secret,id=b,env=NAME,target=/f echo $NAME > /value; wc -c < /f > /file\n\
         RUN echo $NAME > /after",
    )
    .ok();
    let image = kiln.image("test");
    assert_eq!(image.text("/length").trim(), SECRET.len().to_string());
    assert_eq!(image.text("/run.txt"), "");
    assert_eq!(image.text("/value"), "other-value\n");
    assert_eq!(image.text("/file").trim(), "11");
    assert_eq!(image.text("/after"), "old\n");
    assert!(!output.stderr().contains(SECRET));
    assert!(!is_in_store(&kiln, SECRET));
}

#[test]
fn required_secret_that_was_not_given_is_an_error_that_names_the_flag() {
    let kiln = Kiln::new();
    let run = "RUN --mount=type=secret,id=token,required true";
    let output = build(&kiln, &[], run);
    let output = output.fails_with("error: the secret \"token\" is required, and was not given");
    let hint = "hint: give it with --secret id=token,src=FILE or --secret id=token,env=VARIABLE";
    assert!(output.stderr().contains(hint), "{output}");
    build(&kiln, &["--secret", "id=tokne,env=HOME"], run)
        .fails_with("a secret \"tokne\" was given: does the mount mean that?");
    build(&kiln, &["--secret", "id=token,env=NOT_SET"], run)
        .fails_with("the secret \"token\" is required, and its variable NOT_SET is not set");
    build(&kiln, &["--secret", "id=token,src=/no/such/file"], run).fails_with(
        "cannot read the secret \"token\" from /no/such/file: No such file or directory",
    );
}

#[test]
fn secret_that_is_not_required_is_not_there() {
    let kiln = Kiln::new();
    build(
        &kiln,
        &[],
        "RUN --mount=type=secret,id=a --mount=type=secret,id=b,env=B [ ! -e /run/secrets ] && [ -z \"${B+set}\" ]",
    )
    .ok();
}

/// SEMANTICS 35
#[test]
fn value_of_a_secret_is_not_in_the_key() {
    let kiln = Kiln::new();
    let run = "RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size";
    let option = format!("id=token,src={}", secret_file(&kiln));
    build(&kiln, &["--secret", &option], run).ok();
    fs::write(kiln.sandbox().join("token"), "another value").unwrap();
    let output = build(&kiln, &["--secret", &option], run).ok();
    assert!(output.stderr().contains("#2 CACHED"), "{output}");
    // Nor is it asked for where nothing runs.
    let output = build(&kiln, &[], run).ok();
    assert!(output.stderr().contains("#2 CACHED"), "{output}");
}

#[test]
fn secret_of_a_failed_step_stays_nowhere() {
    let kiln = Kiln::new();
    let option = format!("id=token,src={}", secret_file(&kiln));
    let run = "RUN --mount=type=secret,id=token,required,env=T [ -n \"$T\" ] && exit 3";
    let output = build(&kiln, &["--secret", &option], run).fails();
    assert!(!output.stderr().contains(SECRET), "{output}");
    assert!(!is_in_store(&kiln, SECRET));
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let kiln = Kiln::new();
    for (flag, value, error) in [
        (
            "--secret",
            "src=x",
            "error: invalid --secret \"src=x\": it has no id",
        ),
        (
            "--secret",
            "id=a,from=x",
            "error: invalid --secret \"id=a,from=x\": unknown key \"from\"",
        ),
        ("--ssh", "=x", "error: invalid --ssh \"=x\": it has no id"),
    ] {
        build(&kiln, &[flag, value], "RUN true").fails_with(error);
    }
}

// ---- ssh ----

/// An agent of a test, with one key.
struct Agent {
    socket: PathBuf,
    pid: i32,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }
}

fn tool(kiln: &Kiln, program: &str, args: &[&str], socket: Option<&Path>) -> Output {
    let mut command = Command::new(program);
    command.args(args).env("HOME", kiln.sandbox().join("home"));
    if let Some(socket) = socket {
        command.env("SSH_AUTH_SOCK", socket);
    }
    support::run(&mut command, Duration::from_secs(20)).ok()
}

fn key(kiln: &Kiln, name: &str) -> String {
    let path = kiln.sandbox().join(name);
    let path = path.to_str().unwrap();
    tool(
        kiln,
        "ssh-keygen",
        &["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path],
        None,
    );
    path.to_owned()
}

fn agent(kiln: &Kiln) -> Agent {
    let socket = kiln.sandbox().join("agent");
    let started = tool(
        kiln,
        "ssh-agent",
        &["-s", "-a", socket.to_str().unwrap()],
        None,
    );
    let text = started.stdout();
    let (_, after) = text.split_once("SSH_AGENT_PID=").unwrap();
    let pid = after.split(';').next().unwrap().parse().unwrap();
    let agent = Agent { socket, pid };
    let key = key(kiln, "key-of-the-agent");
    tool(kiln, "ssh-add", &["-q", &key], Some(&agent.socket));
    agent
}

/// Returns a kiln with a context that has ssh's programs and their libraries.
fn kiln_with_programs() -> Kiln {
    let kiln = Kiln::new();
    let root = kiln.sandbox().directory("context/root", &[]);
    for program in ["ssh-add", "ssh-keygen"] {
        let path = format!("/usr/bin/{program}");
        let libraries = support::run(Command::new("ldd").arg(&path), Duration::from_secs(20));
        let libraries = libraries.stdout();
        let words = libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for file in words.chain([path.as_str()]) {
            let copy = root.join(&file[1..]);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            if !copy.exists() {
                fs::copy(file, copy).unwrap();
            }
        }
    }
    kiln
}

const PROGRAMS: &str = "COPY root/ /";

/// SEMANTICS 34
#[test]
fn agent_lists_and_signs_for_a_step_and_does_nothing_else() {
    support::require!(
        support::has_program("ssh-agent"),
        "ssh-agent is not installed"
    );
    let kiln = kiln_with_programs();
    let agent = agent(&kiln);
    let kiln = kiln.env("SSH_AUTH_SOCK", &agent.socket);
    build(
        &kiln,
        &["--ssh", "default"],
        &format!(
            "{PROGRAMS}\nRUN --mount=type=ssh stat -c '%a %u:%g %F' $SSH_AUTH_SOCK > /looks; echo $SSH_AUTH_SOCK > /where; \
               ssh-add -L > /list && ssh-add -L > /key.pub && echo data > /data && \
               ssh-keygen -q -Y sign -f /key.pub -n test /data && \
               ssh-keygen -q -t ed25519 -N '' -f /tmp/k && ! ssh-add -q /tmp/k && ! ssh-add -q -D && ! ssh-add -q -x < /dev/null\n\
             RUN echo \"[$SSH_AUTH_SOCK]\" > /after; ls -A /run >> /after; true"
        ),
    )
    .ok();
    let image = kiln.image("test");
    assert_eq!(image.text("/looks"), "600 0:0 socket\n");
    assert_eq!(image.text("/where"), "/run/buildkit/ssh_agent.0\n");
    assert!(image.text("/list").trim().ends_with("key-of-the-agent"));
    assert!(
        image
            .text("/data.sig")
            .starts_with("-----BEGIN SSH SIGNATURE-----")
    );
    assert_eq!(image.text("/after"), "[]\n");
    // The agent has what it had.
    let left = tool(&kiln, "ssh-add", &["-L"], Some(&agent.socket));
    assert_eq!(left.stdout(), image.text("/list"));
}

#[test]
fn keys_are_used_by_an_agent_that_ends_with_the_build() {
    support::require!(
        support::has_program("ssh-agent"),
        "ssh-agent is not installed"
    );
    let kiln = kiln_with_programs();
    let (one, two) = (key(&kiln, "one"), key(&kiln, "two"));
    build(
        &kiln,
        &["--ssh", &format!("deploy={one},{two}")],
        &format!(
            "{PROGRAMS}\nRUN --mount=type=ssh,id=deploy,required,target=/agent,mode=0666,uid=7 ssh-add -L > /list; \
             stat -c '%a %u' /agent > /looks; echo $SSH_AUTH_SOCK >> /looks"
        ),
    )
    .ok();
    let image = kiln.image("test");
    let list = image.text("/list");
    let names: Vec<_> = list
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(image.text("/looks"), "666 7\n/agent\n");
    assert!(image.tree.get("/agent").is_none());
    let private = fs::read_to_string(&one).unwrap();
    assert!(!is_in_store(&kiln, private.lines().nth(2).unwrap()));
    // Its socket lay below the store.
    let store = kiln.store();
    support::assert_no_process_with(store.to_str().unwrap(), Duration::from_secs(5));
}

#[test]
fn agent_that_was_not_given_is_an_error_where_it_is_required() {
    let kiln = Kiln::new();
    let run = "RUN --mount=type=ssh,required true";
    let output = build(&kiln, &[], run);
    let output =
        output.fails_with("error: the SSH agent \"default\" is required, and was not given");
    let hint = "hint: give it with --ssh default (the agent of SSH_AUTH_SOCK) or --ssh default=KEY";
    assert!(output.stderr().contains(hint), "{output}");
    build(&kiln, &["--ssh", "default"], run)
        .fails_with("--ssh default means the agent of SSH_AUTH_SOCK, which is not set");
    build(&kiln, &["--ssh", "default=/no/such/key"], run)
        .fails_with("cannot open --ssh default=/no/such/key: No such file or directory");
    build(
        &kiln,
        &[],
        "RUN --mount=type=ssh [ -z \"$SSH_AUTH_SOCK\" ] && [ ! -e /run/buildkit ]",
    )
    .ok();
}

#[test]
fn key_that_can_not_be_used_is_an_error_in_the_words_of_ssh() {
    support::require!(
        support::has_program("ssh-agent"),
        "ssh-agent is not installed"
    );
    let kiln = Kiln::new();
    let path = kiln.sandbox().join("broken");
    fs::write(&path, "no key\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let option = format!("default={}", path.display());
    build(&kiln, &["--ssh", &option], "RUN --mount=type=ssh true")
        .fails_with(&format!("cannot use the key --ssh {option}: "));
}

#[test]
fn step_ends_although_the_agent_never_answers() {
    support::require!(
        support::has_program("ssh-agent"),
        "ssh-agent is not installed"
    );
    let kiln = kiln_with_programs();
    let socket = kiln.sandbox().join("silent");
    let _listener = UnixListener::bind(&socket).unwrap();
    let option = format!("default={}", socket.display());
    build(
        &kiln,
        &["--ssh", &option],
        &format!("{PROGRAMS}\nRUN --mount=type=ssh ssh-add -L & sleep 0.5"),
    )
    .ok();
}

#[test]
fn a_step_that_fails_without_what_was_not_given_says_so() {
    let kiln = Kiln::new();
    let hints = [
        (
            "secret,id=token",
            "the secret \"token\" was not given, which the step may need: \
             --secret id=token,src=FILE or --secret id=token,env=VARIABLE",
        ),
        (
            "ssh",
            "the SSH agent \"default\" was not given, which the step may need: \
             --ssh default (the agent of SSH_AUTH_SOCK) or --ssh default=KEY",
        ),
    ];
    for (mount, hint) in hints {
        let step = |command: &str| format!("RUN --mount=type={mount} {command}");
        let hint = format!("\nhint: {hint}\n");
        build(&kiln, &[], &step("exit 3")).fails_with(&hint);
        let output = build(&kiln, &[], &step("true")).ok();
        assert!(!output.stderr().contains("hint:"), "{output}");
    }
}
