//! `RUN <<EOF` in all its forms.

mod support;

use support::{Kiln, Registry};

fn base() -> String {
    Registry::shared().busybox()
}

/// SEMANTICS 13, SEMANTICS 14
#[test]
fn sole_document_is_given_to_the_shell_and_never_expanded_by_the_builder() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox(
        "ENV V=env\nRUN <<EOF\nV=shell\necho $V \"${V:-x}\" \\\\ > /out\necho '$V' >> /out\nEOF\n\
         RUN <<'EOF'\nV=shell\necho $V >> /out\nEOF\n\
         SHELL [\"/bin/sh\", \"-ec\"]\nRUN <<EOF\ncase $- in *e*) echo e >> /out ;; esac\nEOF\n\
         RUN <<-EOF\n\t\techo tabs >> /out\n\tEOF",
    );
    assert_eq!(image.text("/out"), "shell shell \\\n$V\nshell\ne\ntabs\n");
}

#[test]
fn step_of_a_script_is_shown_with_its_first_line() {
    let kiln = Kiln::new();
    let shown = kiln.build_on_busybox("RUN <<EOF\n\n  true one\ntrue two\nEOF\nRUN <<'EOF'\ntrue\nEOF\nRUN cat <<EOF\nfile\nEOF",
    )
    .ok()
    .stderr();
    for name in [
        "[2/4] RUN <<EOF (true one...)\n",
        "[3/4] RUN <<'EOF' (true)\n",
        "[4/4] RUN cat <<EOF\n",
    ] {
        assert!(shown.contains(name), "{shown}");
    }
}

/// SEMANTICS 14
#[test]
fn document_with_an_interpreter_is_executed_by_it_and_not_by_the_shell() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox(
        "SHELL [\"/no/such/shell\"]\n\
         RUN <<EOF\n#!/bin/sh -u\necho $0 $- > /out\nls -ln $0 > /looks\nEOF\n\
         RUN <<AWK\n#!/bin/awk -f\nBEGIN { print 6 * 7 > \"/answer\" }\nAWK\n\
         RUN <<-EOF\n\t#!/bin/sh\n\techo tabs > /tabs\n\tEOF\n\
         USER app\n\
         RUN <<EOF\n#!/bin/sh\nid -u > /tmp/user\nEOF",
    );
    assert_eq!(image.text("/out"), "/dev/pipes/EOF u\n");
    assert!(image.text("/looks").starts_with("-rwxr-xr-x"));
    assert_eq!(image.text("/answer"), "42\n");
    assert_eq!(image.text("/tabs"), "tabs\n");
    assert_eq!(image.text("/tmp/user"), "1000\n");
    assert!(image.tree.get("/dev/pipes").is_none());
    let names: Vec<_> = image.layers.iter().skip(1).flatten().collect();
    assert_eq!(
        names,
        ["looks", "out", "answer", "tabs", "tmp/", "tmp/user"]
            .iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn document_with_an_interpreter_is_part_of_the_key() {
    let kiln = Kiln::new();
    let run = |text: &str| format!("RUN <<EOF\n#!/bin/sh\necho {text} > /out\nEOF");
    kiln.build_on_busybox(&run("one")).ok();
    let output = kiln.build_on_busybox(&run("one")).ok();
    assert!(output.stderr().contains("#2 CACHED"), "{output}");
    assert_eq!(kiln.built_on_busybox(&run("two")).text("/out"), "two\n");
}

#[test]
fn interpreter_that_is_not_there_is_named() {
    let kiln = Kiln::new();
    let output =
        kiln.build_on_busybox("RUN <<EOF\n#!/usr/bin/env-of-nobody python3\nprint(1)\nEOF");
    let output = output.fails_with(
        "error: the script begins with \"#!/usr/bin/env-of-nobody python3\", which the image does not have",
    );
    let hint = "hint: install that program in an earlier step, or name one that is there; \
                without a #! line the text is given to the shell";
    assert!(output.stderr().contains(hint), "{output}");
}

#[test]
fn script_with_mounts_sees_them() {
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {}\nRUN --mount=type=bind,target=/src --mount=type=tmpfs,target=/dev/shm/t <<EOF\n#!/bin/sh\ncat /src/f > /out\nEOF\n",
        base()
    );
    kiln.build(&dockerfile, &[("f", "file\n")]).ok();
    assert_eq!(kiln.image("test").text("/out"), "file\n");
}

/// SEMANTICS 14
#[test]
fn documents_beside_other_words_are_rebuilt_for_the_shell() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox(
        "ENV V=env\n\
         RUN <<EOF cat > /first\n#!/bin/sh\nexpanded by the shell: $V\nEOF\n\
         RUN cat <<'EOF' > /quoted\nnot expanded: $V\nEOF\n\
         RUN cat <<ONE - <<TWO > /two\none\nONE\ntwo\nTWO\n\
         RUN 3<<A 4<<B cat /proc/self/fd/3 /proc/self/fd/4 > /descriptors\na\nA\nb\nB\n\
         RUN cat > /tabs <<-EOF\n\t\ta\n\tEOF\n\
         RUN <<EOF sh && echo after >> /piped\necho in the pipe > /piped\nEOF",
    );
    assert_eq!(
        image.text("/first"),
        "#!/bin/sh\nexpanded by the shell: env\n"
    );
    assert_eq!(image.text("/quoted"), "not expanded: $V\n");
    assert_eq!(image.text("/two"), "two\n");
    assert_eq!(image.text("/descriptors"), "a\nb\n");
    assert_eq!(image.text("/tabs"), "a\n");
    assert_eq!(image.text("/piped"), "in the pipe\nafter\n");
}

#[test]
fn document_for_another_shell_is_given_to_that() {
    let kiln = Kiln::new();
    let image = kiln.built_on_busybox(
        "SHELL [\"/bin/busybox\", \"awk\"]\nRUN <<EOF\nBEGIN { print \"awk\" > \"/out\" }\nEOF",
    );
    assert_eq!(image.text("/out"), "awk\n");
}

#[test]
fn failing_line_of_a_document_fails_the_step_as_the_shell_decides() {
    let kiln = Kiln::new();
    kiln.build_on_busybox("RUN <<EOF\nfalse\ntrue\nEOF").ok();
    kiln.build_on_busybox("RUN <<EOF\nset -e\nfalse\ntrue\nEOF")
        .fails_with("exit code: 1");
    kiln.build_on_busybox("RUN <<EOF\n#!/bin/sh\nexit 7\nEOF")
        .fails_with("exit code: 7");
}
