//! `kiln build --explain`: why a step runs, or that it was done before.

mod support;

use support::{Kiln, Registry};

/// Returns what is said of the steps of a build, by the order of the steps.
fn said(kiln: &Kiln, options: &[&str], dockerfile: &str, files: &[(&str, &str)]) -> Vec<String> {
    let options: Vec<&str> = ["--explain"].iter().chain(options).copied().collect();
    let output = kiln.build_with(&options, dockerfile, files).ok();
    let log = output.stderr();
    let said = log.lines().filter_map(|line| {
        let (_, text) = line.strip_prefix('#')?.split_once(' ')?;
        let (_, text) = text.split_once(' ')?;
        let is_reason = text.starts_with("runs, since") || text.starts_with("was done before");
        is_reason.then(|| text.split(", at 2").next().unwrap().to_owned())
    });
    said.collect()
}

#[test]
fn reasons_name_the_first_thing_that_differs() {
    let kiln = Kiln::new();
    let base = Registry::shared().busybox();
    let dockerfile = |command: &str, level: &str| {
        format!(
            "FROM {base}\nARG LEVEL={level}\nWORKDIR /w\nCOPY src /src\nRUN {command}\n\
             RUN date +%N > /last\n"
        )
    };
    let first = dockerfile("echo 1 > /1", "a");
    let files = &[("src/a", "a"), ("src/b", "b")];
    let new = "runs, since it has not been built here before";
    assert_eq!(said(&kiln, &[], &first, files), [new, new, new, new]);
    let before = "was done before with the same inputs";
    assert_eq!(
        said(&kiln, &[], &first, files),
        [before, before, before, before]
    );

    let again = "runs, since what it stands on was built anew: COPY src /src".to_owned();
    let changed = &[("src/a", "another"), ("src/c", "c")];
    std::fs::remove_file(kiln.sandbox().join("context/src/b")).unwrap();
    let changes = "src/a changed, src/c is new, src/b is gone";
    assert_eq!(
        said(&kiln, &[], &first, changed),
        [before, &format!("runs, since {changes}"), &again, &again]
    );

    let last = |reasons: Vec<String>| reasons[2].clone();
    let variable = dockerfile("echo 1 > /1", "b");
    assert_eq!(
        last(said(&kiln, &[], &variable, changed)),
        "runs, since variable LEVEL changed"
    );
    let command = dockerfile("echo 2 > /1", "b");
    assert_eq!(
        last(said(&kiln, &[], &command, changed)),
        "runs, since another instruction stands here; it was: RUN echo 1 > /1"
    );
    assert_eq!(
        last(said(&kiln, &["--no-cache"], &command, changed)),
        "runs, since the cache is passed over"
    );
}

#[test]
fn nothing_is_said_unless_asked_for() {
    let kiln = Kiln::new();
    let output = kiln.build("FROM scratch\nCOPY x /\n", &[("x", "")]).ok();
    assert!(!output.stderr().contains("runs, since"), "{output}");
}
