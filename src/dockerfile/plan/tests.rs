use super::super::{Source, parse, parse_onbuild_trigger};
use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    owned.collect()
}

fn plan_with(text: &str, target: &str, args: &[(&str, &str)]) -> Result<Plan, Diagnostics> {
    let file = parse(&Source::new("Dockerfile", text)).unwrap();
    let predefined = map(&[("TARGETARCH", "arm64"), ("BUILDPLATFORM", "linux/amd64")]);
    file.plan(Some(target), &map(args), &predefined)
}

fn plan(text: &str) -> Plan {
    plan_with(text, "", &[]).unwrap()
}

fn error(text: &str) -> Diagnostic {
    plan_with(text, "", &[]).unwrap_err().0.remove(0)
}

fn image_of(name: &str) -> BaseRef {
    BaseRef::Image(name.to_owned())
}

/// SEMANTICS 9, SEMANTICS 28
#[test]
fn unused_stages_are_left_out() {
    let text = "FROM a AS a\nFROM b AS b\nFROM a AS c\nCOPY --from=b / /\nFROM scratch\n\
                COPY --from=0 / /\nRUN --mount=target=/x,from=B true";
    assert_eq!(plan(text).order, [0, 1, 3]);
    assert_eq!(plan_with(text, "a", &[]).unwrap().order, [0]);
    assert_eq!(plan_with(text, "C", &[]).unwrap().order, [0, 1, 2]);
    assert_eq!(plan_with(text, "1", &[]).unwrap().order, [1]);
    let last = &plan(text).stages[3];
    assert_eq!(last.base, BaseRef::Scratch);
    assert_eq!(last.sources["0"], BaseRef::Stage(0));
    assert_eq!(last.sources["B"], BaseRef::Stage(1));
}

/// SEMANTICS 28
#[test]
fn names_are_stages_first_and_images_else() {
    let text = "FROM debian AS Debian\nFROM DEBIAN AS x\nCOPY --from=busybox:1 / /\n\
                COPY --from=scratch / /\nFROM 0";
    let plan = plan_with(text, "x", &[]).unwrap();
    assert_eq!(plan.stages[0].base, image_of("debian"));
    assert_eq!(plan.stages[1].base, BaseRef::Stage(0));
    assert_eq!(plan.stages[1].sources["busybox:1"], image_of("busybox:1"));
    assert_eq!(plan.stages[1].sources["scratch"], BaseRef::Scratch);
    // FROM has no numbers.
    assert_eq!(plan.stages[2].base, image_of("0"));
}

#[test]
fn a_named_context_stands_for_stages_and_images_of_its_name() {
    let text = "FROM debian AS Base\nCOPY --from=nowhere-yet:1 / /\nFROM base AS x\n\
                FROM docker.io/library/Alpine\nCOPY --from=BASE / /\nCOPY --from=0 / /\n\
                COPY --from=x / /";
    let file = parse(&Source::new("Dockerfile", text)).unwrap();
    let contexts = ["base", "alpine"].map(str::to_owned).into();
    let plan = |target| {
        let none = BTreeMap::new();
        let plan = file.plan_with_contexts(target, &none, &none, &contexts);
        plan.unwrap()
    };
    let context = |name: &str| BaseRef::Context(name.to_owned());
    let all = plan(None);
    assert_eq!(all.order, [0, 1, 2]);
    // Nothing of the stage counts any more, but its number still leads to it.
    assert!(all.stages[0].is_replaced && all.stages[0].sources.is_empty());
    assert_eq!(all.stages[0].base, context("base"));
    assert_eq!(all.stages[1].base, context("base"));
    assert_eq!(all.stages[2].base, context("alpine"));
    assert_eq!(all.stages[2].sources["BASE"], context("base"));
    assert_eq!(all.stages[2].sources["0"], BaseRef::Stage(0));
    assert_eq!(all.stages[2].sources["x"], BaseRef::Stage(1));
    assert_eq!(plan(Some("base")).order, [0]);
}

#[test]
fn names_of_contexts_are_those_of_images_as_people_write_them() {
    for (name, same) in [
        ("Alpine", "alpine"),
        ("alpine:latest", "alpine"),
        ("docker.io/library/alpine:3", "alpine:3"),
        ("r.example/a:latest", "r.example/a"),
        ("not a name", "not a name"),
    ] {
        assert_eq!(context_name(name), same);
    }
}

#[test]
fn a_stage_named_twice_means_the_nearest_before() {
    let plan = plan("FROM a AS x\nFROM b AS x\nFROM x\nFROM x AS x");
    assert_eq!(plan.stages[2].base, BaseRef::Stage(1));
    assert_eq!(plan.stages[3].base, BaseRef::Stage(1));
}

/// SEMANTICS 28
#[test]
fn later_stages_and_cycles_are_errors() {
    let cases = [
        (
            "FROM a AS x\nCOPY --from=b / /\nFROM a AS b\nFROM x",
            "stage b is defined after stage x",
        ),
        (
            "FROM a\nRUN --mount=target=/x,from=1 true\nFROM a\nCOPY --from=0 / /",
            "circular dependency: stage-0 needs stage-1, which needs stage-0",
        ),
        (
            "FROM a AS x\nCOPY --from=y / /\nFROM x AS y",
            "circular dependency: x needs y, which needs x",
        ),
        (
            "FROM a AS x\nCOPY --from=X / /",
            "stage x can't copy or mount from itself",
        ),
        ("FROM a\nCOPY --from=3 / /", "there is no stage 3"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text).message, expected, "{text}");
    }
    // What is not needed does no harm.
    assert_eq!(plan("FROM a\nCOPY --from=b / /\nFROM a AS b").order, [1]);
}

#[test]
fn unknown_targets_name_the_stages() {
    let text = "FROM a AS builder\nFROM b AS final";
    let error = plan_with(text, "bulider", &[]).unwrap_err().0.remove(0);
    assert_eq!(error.message, "there is no stage \"bulider\"");
    assert_eq!(
        error.hint.as_deref(),
        Some("did you mean builder? The stages are builder, final")
    );
    let error = plan_with("FROM a", "5", &[]).unwrap_err().0.remove(0);
    assert_eq!(
        error.hint.as_deref(),
        Some("no stage of the file has a name")
    );
}

/// SEMANTICS 22
#[test]
fn from_lines_see_global_args_only() {
    let text = "ARG NAME=debian TAG=1 FULL=$NAME:$TAG\nFROM ${FULL}-slim\nFROM x:$TARGETARCH";
    let bases: Vec<BaseRef> = plan(text).stages.into_iter().map(|s| s.base).collect();
    assert_eq!(bases, [image_of("debian:1-slim"), image_of("x:arm64")]);
    assert_eq!(plan("FROM a AS Last").globals["TARGETSTAGE"], "last");
    let given = plan_with(text, "", &[("TAG", "2"), ("TARGETARCH", "s390x")]).unwrap();
    assert_eq!(given.stages[0].base, image_of("debian:2-slim"));
    assert_eq!(given.stages[1].base, image_of("x:s390x"));
    assert_eq!(given.globals["FULL"], "debian:2");
    assert_eq!(given.globals["TARGETSTAGE"], "default");
    // A build argument counts for FROM only where it is declared.
    let undeclared = plan_with("FROM $BASE", "", &[("BASE", "x")]).unwrap_err();
    assert!(
        undeclared.0[0]
            .hint
            .as_ref()
            .unwrap()
            .contains("put ARG BASE there")
    );
}

#[test]
fn an_empty_base_says_why() {
    let cases = [
        ("FROM $BASE", "BASE is not declared: put ARG BASE=…"),
        ("ARG BASE\nFROM $BASE", "ARG BASE has no value"),
        ("FROM x\nARG BASE=y\nFROM $BASE", "put ARG BASE there"),
        ("ARG BAES=y\nFROM $BASE", "did you mean BAES?"),
        ("FROM debian:$TAG", "TAG is not declared"),
        ("FROM --platform=$P x", "P is not declared"),
    ];
    for (text, expected) in cases {
        let hint = error(text).hint.unwrap_or_default();
        assert!(hint.contains(expected), "{text}: {hint}");
    }
    let finding = error("FROM ${X:?unset}");
    assert_eq!(finding.message, "X: unset");
}

#[test]
fn broken_words_of_what_is_needed_are_reported_together() {
    let text = "FROM a AS unused\nENV A=${\nFROM b AS base\nONBUILD USER ${x\nENV B=${B\n\
                FROM base\nEXPOSE ${:}\nWORKDIR $OK";
    let file = parse(&Source::new("Dockerfile", text)).unwrap();
    let errors = file.plan(None, &map(&[]), &map(&[])).unwrap_err().0;
    let words: Vec<&str> = errors
        .iter()
        .map(|e| &text[e.span.start..e.span.end])
        .collect();
    assert_eq!(words, ["${x", "${B", "${:}"]);
    // One pass shows them beside what is wrong with the stages themselves.
    let errors = plan_with("ARG X=${\nARG Y=${\nFROM $X\nUSER ${", "", &[]).unwrap_err();
    assert_eq!(errors.0.len(), 3, "{errors:?}");
    let errors = plan_with("FROM a\nUSER ${\nCOPY --from=7 / /", "", &[]).unwrap_err();
    assert_eq!(errors.0.len(), 2, "{errors:?}");
    let errors = parse(&Source::new("D", "FROM a\nUSER ${\nFOO\n")).unwrap_err();
    assert_eq!(errors.0.len(), 2, "{errors:?}");
}

#[test]
fn platforms_are_expanded_and_checked() {
    let plan = plan("FROM --platform=$BUILDPLATFORM x");
    let platform = plan.stages[0].platform.as_ref().unwrap();
    assert_eq!(platform.architecture, "amd64");
    assert!(
        error("FROM --platform=no/such/thing/at/all x")
            .message
            .contains("platform")
    );
}

/// SEMANTICS 30
#[test]
fn triggers_of_a_stage_belong_to_its_child() {
    let text = "FROM a AS files\nFROM b AS parent\nONBUILD COPY --from=files / /\nFROM parent";
    let built = plan(text);
    assert_eq!(built.order, [0, 1, 2]);
    assert_eq!(built.stages[2].sources["files"], BaseRef::Stage(0));
    // The stage itself doesn't run its triggers.
    assert_eq!(plan_with(text, "parent", &[]).unwrap().order, [1]);
}

/// SEMANTICS 37
#[test]
fn triggers_of_an_image_may_need_further_stages() {
    let text = "FROM a AS files\nFROM b";
    let file = parse(&Source::new("Dockerfile", text)).unwrap();
    let mut plan = file.plan(None, &map(&[]), &map(&[])).unwrap();
    assert_eq!(plan.order, [1]);
    let trigger = parse_onbuild_trigger("COPY --from=files /a /a").unwrap();
    plan.adopt_triggers(&file, 1, &[trigger]).unwrap();
    assert_eq!(plan.order, [0, 1]);
    let trigger = parse_onbuild_trigger("COPY --from=7 /a /a").unwrap();
    let error = plan.adopt_triggers(&file, 1, &[trigger]).unwrap_err();
    assert_eq!(error.0[0].span, file.stages[1].from.span);
}

#[test]
fn build_args_that_nothing_declares_are_found() {
    let text = "ARG A\nFROM x\nARG B\nONBUILD ARG C\nFROM y\nARG D=1";
    let file = parse(&Source::new("Dockerfile", text)).unwrap();
    let given = [
        "A",
        "B",
        "C",
        "D",
        "E",
        "https_proxy",
        "TARGETOS",
        "BUILDKIT_X",
    ];
    let given = given.iter().map(|name| (name.to_string(), String::new()));
    let given: BTreeMap<_, _> = given.collect();
    let mut plan = file.plan(None, &given, &map(&[])).unwrap();
    assert_eq!(file.unused_build_args(&plan, &given), ["E"]);
    let trigger = parse_onbuild_trigger("ARG E").unwrap();
    plan.adopt_triggers(&file, 1, &[trigger]).unwrap();
    assert!(file.unused_build_args(&plan, &given).is_empty());
}
