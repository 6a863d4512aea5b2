//! What `--help` says, and what a wrong command line gets.

mod support;

use std::process::Command;
use std::time::Duration;

use support::Kiln;

#[test]
fn help_lists_the_commands_and_exit_codes() {
    let kiln = Kiln::new();
    let mut help = kiln.command(["--help"]);
    help.env("COLUMNS", "100");
    let output = support::run(&mut help, Duration::from_secs(10)).ok();
    assert_eq!(
        output.stdout(),
        "\
Build container images from Dockerfiles, without root and without a daemon

Usage: kiln [OPTIONS] <COMMAND>

Commands:
  build      Build an image from a Dockerfile
  check      Look for likely mistakes in a Dockerfile, or explain one
  commit     Make an image of a container
  container  Docker's longer names: container ls, rm, inspect, prune …
  copy       Copy an image between registries, layouts, archives and the store, as it is
  cp         Copy files into a container, or out of one
  create     Make a container, and don't start it
  diff       Show what a container has changed
  doctor     Say what this machine allows, and what would help
  du         Show what takes how much of the disk
  exec       Run another command in a container that runs
  export     Write the files of a container as a tar
  fsck       Verify all blobs, layers, names and records of the store
  history    Show the history of an image
  image      Docker's longer names: image ls, rm, inspect, history, prune …
  images     List images
  import     Make an image from a tar of a root file system
  inspect    Show images and containers as JSON
  kill       Send a signal to containers
  load       Load images from an archive or a layout
  login      Log in to a registry
  logout     Log out from a registry
  logs       Show what a container wrote in the background
  manifest   Put images for several platforms together as one: create, add, push …
  pause      Stop all processes of containers for a while
  prune      Remove what is not needed: stopped containers, dangling images, build cache, leftovers
  ps         List containers
  pull       Download an image from a registry
  push       Upload an image to a registry
  rename     Give a container another name
  rm         Remove containers
  rmi        Remove images
  run        Run a command in a new container
  save       Save images to an archive or a layout
  start      Start containers
  stop       Stop containers
  system     The whole store: system df, prune, reset
  tag        Give an image another name
  unpause    Let the processes of paused containers go on
  unshare    Run a command, or a shell, where the files of the store have their ids
  version    Show the version
  wait       Wait for the end of containers

Options:
      --root <DIR>  The directory of images, layers and the build cache [default:
                    $XDG_DATA_HOME/kiln, else ~/.local/share/kiln] [env: KILN_ROOT]
  -h, --help        Print help
  -V, --version     Print version

Exit codes:
  0    it worked
  1    it failed: the message says what, where, and what to do
  2    the command line is wrong
  125  `run`: kiln itself failed      126  the command can't be executed
  127  the command is not in the image
  130  interrupted (143: by SIGTERM)
  N    `run` otherwise ends with the exit code of the command; `build` with 1
"
    );
    assert_eq!(output.stderr(), "");
}

#[test]
fn every_command_says_what_it_takes_with_the_global_options_last() {
    let kiln = Kiln::new();
    for command in [
        "build",
        "builder",
        "check",
        "commit",
        "container",
        "copy",
        "cp",
        "create",
        "diff",
        "doctor",
        "du",
        "exec",
        "export",
        "fsck",
        "history",
        "image",
        "images",
        "import",
        "inspect",
        "kill",
        "load",
        "logs",
        "manifest",
        "prune",
        "ps",
        "pull",
        "push",
        "rename",
        "rm",
        "rmi",
        "run",
        "save",
        "start",
        "stop",
        "system",
        "tag",
        "unshare",
        "version",
        "wait",
    ] {
        let text = kiln.run([command, "--help"]).ok().stdout();
        assert!(
            text.contains(&format!("\nUsage: kiln {command} ")),
            "{text}"
        );
        let root = text.find("--root <DIR>").unwrap();
        assert!(!text[root..].contains("\n  -q"), "{text}");
        assert!(!text[root..].contains("\n      --progress"), "{text}");
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 100, "a line of {widest} columns\n{text}");
    }
}

#[test]
fn wrong_command_lines_end_with_2_and_say_what_is_meant() {
    let kiln = Kiln::new();
    let run = |arguments: &[&str]| {
        let output = kiln.run(arguments).fails();
        assert_eq!((output.code(), output.stdout()), (Some(2), String::new()));
        output.stderr()
    };
    // Nothing at all, which is no mistake to be scolded for, gets the help.
    let mut bare = Command::new(env!("CARGO_BIN_EXE_kiln"));
    let output = support::run(bare.env_clear(), Duration::from_secs(10)).fails();
    assert_eq!(output.code(), Some(2));
    assert!(
        output
            .stderr()
            .starts_with("Build container images from Dockerfiles"),
        "{output}"
    );
    assert!(run(&["biuld"]).contains("similar subcommands exist: 'builder', 'build'"));
    assert!(run(&["build", "--tagg", "x", "."]).contains("similar argument exists: '--tag'"));
    assert!(run(&["pull"]).contains("<IMAGE>"));
    assert!(
        run(&["build", "--progress", "fancy", "."])
            .contains("possible values: auto, plain, tty, quiet")
    );
    assert!(!kiln.store().exists());
}
