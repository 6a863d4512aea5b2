//! Bad input: a clear error with its place and a hint, an exit code, and nothing half-done left.

mod support;

use std::fs;

use serde_json::json;
use support::{FaultyRegistry, Kiln, Output, Registry, host_architecture, tar_of};

fn base() -> String {
    Registry::shared().busybox()
}

/// Panics unless a command failed and left no image, no file under way and no process.
#[track_caller]
fn assert_clean(kiln: &Kiln, output: &Output) {
    assert_eq!(output.code(), Some(1), "{output}");
    assert_eq!(output.stdout(), "", "{output}");
    assert_eq!(
        kiln.run(["images", "-q", "test"]).ok().stdout(),
        "",
        "{output}"
    );
    for directory in ["tmp", "trash"] {
        let left: Vec<_> = fs::read_dir(kiln.store().join(directory))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "{left:?}\n{output}");
    }
    let store = kiln.store();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(!line.contains(store.to_str().unwrap()), "{line}\n{output}");
    }
}

/// Builds, and compares the end of what is said, which is the error.
#[track_caller]
fn fails(kiln: &Kiln, options: &[&str], dockerfile: &str, expected: &str) {
    let output = kiln.build_with(options, dockerfile, &[("file.txt", ""), ("dir/x", "")]);
    let stderr = output.stderr();
    assert!(
        stderr.ends_with(&format!("\n{expected}")) || stderr == expected,
        "expected\n{expected}\n{output}"
    );
    assert_clean(kiln, &output);
}

/// SEMANTICS 5
#[test]
fn mistyped_instruction_and_flag() {
    let kiln = Kiln::new();
    fails(
        &kiln,
        &[],
        "FROM scratch\nCOYP a b\nRUN --netwrok=none x\n",
        "\
error: unknown instruction: COYP
 --> Dockerfile:2:1
  |
2 | COYP a b
  | ^^^^
hint: did you mean COPY?

error: unknown flag for RUN: --netwrok
 --> Dockerfile:3:5
  |
3 | RUN --netwrok=none x
  |     ^^^^^^^^^^^^^^
hint: did you mean --network?
",
    );
}

#[test]
fn unknown_stage() {
    let kiln = Kiln::new();
    fails(
        &kiln,
        &["--target", "bulider"],
        "FROM scratch AS builder\nFROM scratch AS final\n",
        "\
error: there is no stage \"bulider\"
 --> Dockerfile
hint: did you mean builder? The stages are builder, final
",
    );
    fails(
        &kiln,
        &[],
        "FROM scratch\nCOPY --from=2 /x /x\n",
        "\
error: there is no stage 2
 --> Dockerfile:2:13
  |
2 | COPY --from=2 /x /x
  |             ^
hint: stages are counted from 0; the last one is 0
",
    );
}

#[test]
fn mistyped_stage_that_is_no_image_either() {
    // No registry of the world is asked.
    let kiln = Kiln::new().env("HTTPS_PROXY", "http://127.0.0.1:1");
    let registry = Registry::shared().address();
    // A name with a registry, so that the test asks no other one.
    let dockerfile =
        format!("FROM scratch AS builder\nFROM scratch\nCOPY --from={registry}/bulder /x /x\n");
    let output = kiln.build(&dockerfile, &[]).fails();
    assert_clean(&kiln, &output);
    let output = kiln
        .build(
            "FROM scratch AS builder\nFROM scratch\nCOPY --from=bulder /x /x\n",
            &[],
        )
        .fails();
    let stderr = output.stderr();
    assert!(
        stderr.contains("\nerror: no stage is named bulder, and as an image: "),
        "{output}"
    );
    assert!(
        stderr.contains("\nhint: did you mean the stage builder?\n"),
        "{output}"
    );
    assert_clean(&kiln, &output);
}

/// SEMANTICS 28
#[test]
fn stage_from_itself_and_from_a_later_one() {
    let kiln = Kiln::new();
    fails(
        &kiln,
        &[],
        "FROM scratch AS a\nCOPY --from=a x y\n",
        "\
error: stage a can't copy or mount from itself
 --> Dockerfile:2:13
  |
2 | COPY --from=a x y
  |             ^
",
    );
    fails(
        &kiln,
        &[],
        "FROM scratch AS a\nCOPY --from=b x y\nFROM a AS b\n",
        "\
error: circular dependency: a needs b, which needs a
 --> Dockerfile:2:13
  |
2 | COPY --from=b x y
  |             ^
",
    );
    let output = kiln.build_with(
        &["--target", "a"],
        "FROM scratch AS a\nCOPY --from=b x y\nFROM scratch AS b\n",
        &[],
    );
    assert!(
        output
            .stderr()
            .contains("\nhint: move stage b before stage a\n"),
        "{output}"
    );
    assert_clean(&kiln, &output);
}

/// SEMANTICS 10
#[test]
fn empty_dockerfile() {
    let kiln = Kiln::new();
    fails(
        &kiln,
        &[],
        "# only a comment\n",
        "error: file with no instructions\n --> Dockerfile\nhint: a Dockerfile starts with FROM\n",
    );
    fails(
        &kiln,
        &[],
        "ARG X\n",
        "error: no stages to build\n --> Dockerfile\nhint: a Dockerfile starts with FROM\n",
    );
}

#[test]
fn missing_dockerfile() {
    let kiln = Kiln::new();
    let context = kiln
        .sandbox()
        .directory("context", &[("dockerfile.dev", "")]);
    let shown = context.display();
    let output = kiln.run(["build", context.to_str().unwrap()]);
    assert_eq!(
        output.stderr(),
        format!(
            "error: cannot read the Dockerfile {shown}/Dockerfile: No such file or directory (os error 2)\n\
             hint: did you mean dockerfile.dev? Name it with -f FILE\n"
        )
    );
    assert_clean(&kiln, &output);
    let output = kiln.run(["build", "-f", "elsewhere", context.to_str().unwrap()]);
    assert_eq!(
        output.stderr(),
        "error: cannot read the Dockerfile elsewhere: No such file or directory (os error 2)\n\
         hint: name it with -f FILE\n"
    );
}

#[test]
fn missing_context() {
    let kiln = Kiln::new();
    let output = kiln.run(["build", "nowhere"]);
    assert_eq!(
        output.stderr(),
        "error: cannot open the build context nowhere: No such file or directory (os error 2)\n\
         hint: the last argument is the directory to build from, such as `.`\n"
    );
    assert_clean(&kiln, &output);
    fs::write(kiln.sandbox().join("Dockerfile"), "FROM scratch\n").unwrap();
    let output = kiln.run(["build", "Dockerfile"]);
    assert_eq!(
        output.stderr(),
        "error: cannot open the build context Dockerfile: Not a directory (os error 20)\n\
         hint: the last argument is a directory; a Dockerfile is named with -f: kiln build -f Dockerfile .\n"
    );
}

#[test]
fn dockerfile_that_is_no_text() {
    let kiln = Kiln::new().limit(std::time::Duration::from_secs(20));
    let context = kiln.sandbox().directory("context", &[]);
    fs::write(context.join("Dockerfile"), b"FROM scratch\n\xff\xfe").unwrap();
    let output = kiln.run(["build", context.to_str().unwrap()]);
    let stderr = output.stderr();
    assert!(
        stderr.ends_with(
            "/Dockerfile: line 2 is not UTF-8 text\n\
             hint: save the file as UTF-8, which is what an editor does by default\n"
        ),
        "{output}"
    );
    assert_clean(&kiln, &output);
    let comment = b"FROM scratch\n# caf\xe9\nLABEL a=b\n";
    fs::write(context.join("Dockerfile"), comment).unwrap();
    kiln.run(["build", context.to_str().unwrap()]).ok();
    fs::remove_file(context.join("Dockerfile")).unwrap();
    nix::unistd::mkfifo(&context.join("Dockerfile"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = kiln.run(["build", context.to_str().unwrap()]);
    assert!(
        output.stderr().contains("it is not a regular file"),
        "{output}"
    );
    assert_clean(&kiln, &output);
}

#[test]
fn base_image_that_is_not_there() {
    let kiln = Kiln::new();
    let registry = Registry::shared();
    let (none, tag) = (registry.reference("none"), registry.busybox());
    for (name, message, hint) in [
        (&none, format!("{none}: manifest latest: "), "hint: "),
        (
            &format!("{tag}-none"),
            format!(
                "{}: manifest latest-none: no such tag\n",
                registry.reference("busybox")
            ),
            "hint: tags that exist: latest\n",
        ),
    ] {
        let output = kiln.build(&format!("FROM {name}\nRUN true\n"), &[]).fails();
        for part in [&*format!("error: {message}"), " --> Dockerfile:1:1\n", hint] {
            assert!(
                output.stderr().contains(part),
                "{part:?} was expected\n{output}"
            );
        }
        assert_clean(&kiln, &output);
    }
}

#[test]
fn registry_that_can_not_be_reached() {
    let kiln = Kiln::new();
    fails(
        &kiln,
        &[],
        "FROM 127.0.0.1:1/image\n",
        "\
error: 127.0.0.1:1/image: manifest latest: can't connect: Connection refused (os error 111)
 --> Dockerfile:1:1
  |
1 | FROM 127.0.0.1:1/image
  | ^^^^^^^^^^^^^^^^^^^^^^
hint: check the name and port, and that 127.0.0.1:1 can be reached from here (HTTP_PROXY, HTTPS_PROXY and NO_PROXY are respected)
",
    );
}

#[test]
fn source_that_is_not_there() {
    let kiln = Kiln::new();
    fails(
        &kiln,
        &[],
        "FROM scratch\nCOPY flie.txt /x\n",
        "\
error: \"flie.txt\" is not in the build context: no such file or directory
 --> Dockerfile:2:6
  |
2 | COPY flie.txt /x
  |      ^^^^^^^^
hint: did you mean \"file.txt\"?
",
    );
    fails(
        &kiln,
        &[],
        "FROM scratch AS a\nFROM scratch\nCOPY --from=a /x /x\n",
        "\
error: \"/x\" is not in the stage or image that --from names: no such file or directory
 --> Dockerfile:3:15
  |
3 | COPY --from=a /x /x
  |               ^^
",
    );
}

#[test]
fn near_names_are_looked_for_below_directories_too() {
    let kiln = Kiln::new();
    for (source, near) in [("dir/fiel", "dir/file"), ("dri/file", "dir/file")] {
        let output = kiln
            .build(
                &format!("FROM scratch\nCOPY {source} /x\n"),
                &[("dir/file", "")],
            )
            .fails();
        assert!(
            output
                .stderr()
                .contains(&format!("\nhint: did you mean \"{near}\"?\n")),
            "{output}"
        );
    }
}

#[test]
fn a_name_that_is_in_another_directory_is_found_there() {
    let kiln = Kiln::new();
    let files = [
        ("app/package.json", ""),
        ("app/deep/package.json", ""),
        ("secret/key.pem", ""),
        (".dockerignore", "secret"),
    ];
    let output = kiln
        .build("FROM scratch\nCOPY package.json /x\n", &files)
        .fails();
    assert!(
        output.stderr().ends_with(
            "\
error: \"package.json\" is not in the build context: no such file or directory
 --> Dockerfile:2:6
  |
2 | COPY package.json /x
  |      ^^^^^^^^^^^^
hint: there is \"app/package.json\": paths start at the top of the build context
"
        ),
        "{output}"
    );
    // What is excluded is no advice.
    let output = kiln
        .build("FROM scratch\nCOPY key.pem /x\n", &files)
        .fails();
    assert!(!output.stderr().contains("hint:"), "{output}");
}

#[test]
fn an_array_with_single_quotes_is_told_from_a_pattern() {
    let kiln = Kiln::new();
    let output = kiln
        .build("FROM scratch\nCOPY [\"a\", '/b']\n", &[("a", "")])
        .fails();
    let hint = "\nhint: an array has double quotes around each string: [\"a\", \"b\"]\n";
    assert!(output.stderr().contains(hint), "{output}");
}

#[test]
fn a_variable_too_long_for_linux_is_explained() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nENV L={}\nRUN true\n", base(), "x".repeat(200_000));
    kiln.build(&dockerfile, &[]).fails_with(
        "\nhint: Linux takes at most 128 KiB for a command or a variable: \
         put the text into a file, as COPY <<EOF does\n",
    );
}

#[test]
fn a_device_that_a_step_requires_is_refused() {
    let kiln = Kiln::new();
    let step = |flag: &str| format!("FROM {}\nRUN {flag} true\n", base());
    kiln.build(&step("--device=vendor.com/gpu=all"), &[]).ok();
    let output = kiln
        .build(&step("--device=vendor.com/gpu,required"), &[])
        .fails();
    assert!(
        output.stderr().contains(
            "error: RUN --device=vendor.com/gpu,required: steps see no devices of the host\n"
        ),
        "{output}"
    );
}

#[test]
fn all_errors_of_a_file_are_shown_and_nothing_is_begun() {
    let kiln = Kiln::new();
    let dockerfile = format!("FROM {}\nRUN touch /x\nADD\nEXPOSE x\nENV\n", base());
    let output = kiln.build(&dockerfile, &[]).fails();
    let stderr = output.stderr();
    assert!(stderr.matches("error: ").count() >= 2, "{output}");
    assert!(!stderr.contains("#1 "), "{output}");
    assert_clean(&kiln, &output);
}

#[test]
fn failure_leaves_the_image_of_that_name_as_it_was() {
    let kiln = Kiln::new();
    kiln.build(&format!("FROM {}\nRUN true\n", base()), &[])
        .ok();
    let before = kiln.run(["images", "--no-trunc"]).ok().stdout();
    kiln.build(
        &format!("FROM {}\nRUN echo other > /x\nRUN false\n", base()),
        &[],
    )
    .fails();
    assert_eq!(kiln.run(["images", "--no-trunc"]).ok().stdout(), before);
}

#[test]
fn failed_run_leaves_nothing() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\nRUN (sleep 100 &) ; mkdir -p /a/b && chmod 000 /a && exit 5\n",
        base()
    );
    let output = kiln.build(&dockerfile, &[]);
    assert_clean(&kiln, &output);
    assert!(output.stderr().contains("\n  exit code: 5\n"), "{output}");
}

#[test]
fn hostile_text_does_not_reach_the_terminal() {
    let kiln = Kiln::new();
    for dockerfile in [
        "FROM scratch\nCOPY \u{1b}[31mred /x\n",
        "FR\u{1b}]0;title\u{7}OM scratch\n",
        "FROM scratch\nLABEL a=\u{1b}[2J\nWORKDIR /\u{1b}[2J\n",
    ] {
        let output = kiln.build(dockerfile, &[]);
        assert!(!output.stderr().contains(['\u{1b}', '\u{7}']), "{output}");
    }
}

/// Files can be copied out of it: only a RUN would fail.
#[test]
fn a_base_image_of_another_platform_is_taken_with_a_warning() {
    let (registry, kiln) = (FaultyRegistry::start(), Kiln::new());
    registry.image_of("1", &tar_of(&[]), json!({"architecture": "s390x"}));
    let base = registry.reference("1");
    let dockerfile = format!("FROM {base}\n");
    let host = host_architecture();
    let pulled = format!("warning: {base} is an image for linux/s390x, not for linux/{host}\n");
    let output = kiln.build(&dockerfile, &[]).ok();
    assert!(output.stderr().contains(&pulled), "{output}");
    // From now on a check knows it.
    let known = format!(
        "warning: Dockerfile:1: the image {base} is for linux/s390x, and linux/{host} is built \
         (InvalidBaseImagePlatform)\n"
    );
    let output = kiln.build_with(&["--pull=never"], &dockerfile, &[]).ok();
    assert!(output.stderr().contains(&known), "{output}");
    let output = kiln
        .build(&format!("FROM --platform=linux/s390x {base}\n"), &[])
        .ok();
    assert!(
        output
            .stderr()
            .contains("(FromPlatformFlagConstDisallowed)"),
        "{output}"
    );
}

#[test]
fn a_capital_in_the_name_of_an_image_is_explained() {
    let output = Kiln::new().build("FROM Debian:13\n", &[]).fails();
    assert_eq!(
        output.stderr(),
        "error: invalid image reference \"Debian:13\": invalid reference format\n \
         --> Dockerfile:1:6\n  |\n1 | FROM Debian:13\n  |      ^^^^^^^^^\n\
         hint: repositories have no capitals in their names; tags may\n"
    );
}
