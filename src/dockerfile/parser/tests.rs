use super::super::instruction::Invocation;
use super::*;

fn file(text: &str) -> Dockerfile {
    let source = Source::new("Dockerfile", text);
    parse(&source).unwrap_or_else(|errors| panic!("{}", errors.render(&source)))
}

fn errors(text: &str) -> Vec<Diagnostic> {
    match parse(&Source::new("Dockerfile", text)) {
        Err(errors) => errors.0,
        Ok(file) => panic!("{text:?} is accepted: {file:?}"),
    }
}

/// Returns what the only instruction behind `FROM x` says.
fn one(line: &str) -> InstructionKind {
    let mut file = file(&format!("FROM x\n{line}"));
    let mut instructions = std::mem::take(&mut file.stages[0].instructions);
    assert_eq!(instructions.len(), 1, "{line}");
    instructions.remove(0).kind
}

fn refused(line: &str) -> Diagnostic {
    let mut found = errors(&format!("FROM x\n{line}"));
    assert_eq!(found.len(), 1, "{line}: {found:?}");
    found.remove(0)
}

fn run(line: &str) -> Run {
    match one(line) {
        InstructionKind::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn copy(line: &str) -> CopyFiles {
    match one(line) {
        InstructionKind::Copy(copy) => copy,
        other => panic!("{other:?}"),
    }
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.text.as_str()).collect()
}

fn documents(files: &Files) -> Vec<&Heredoc> {
    let documents = files.sources.iter().filter_map(|source| match source {
        SourceArg::Heredoc(document) => Some(document),
        SourceArg::Path(_) => None,
    });
    documents.collect()
}

#[test]
fn every_instruction_is_known_in_any_case() {
    let text = r#"FROM x
ADD a b
arg A
CMD a
Copy a b
ENTRYPOINT ["a"]
ENV A=1
EXPOSE 80
HEALTHCHECK NONE
LABEL a=b
MAINTAINER a b
ONBUILD RUN a
RUN a
SHELL ["a"]
STOPSIGNAL 9
USER a
VOLUME /a
WORKDIR /a
"#;
    let file = file(text);
    let mut names: Vec<&str> = file.stages[0]
        .instructions
        .iter()
        .map(|i| i.kind.name())
        .collect();
    names.push("FROM");
    names.sort();
    assert_eq!(names, INSTRUCTIONS);
}

/// SEMANTICS 10
#[test]
fn files_without_stages_are_refused() {
    let cases = [
        ("", "file with no instructions"),
        ("\n# a comment\n", "file with no instructions"),
        ("ARG A=1\n", "no stages to build"),
        ("ARG A\nRUN a\nFROM x\nRUN b", "RUN before the first FROM"),
    ];
    for (text, expected) in cases {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{text:?}");
        assert_eq!(found[0].message, expected, "{text:?}");
    }
    assert_eq!(file("ARG A=1 B\nFROM x").global_args.len(), 1);
}

#[test]
fn all_errors_of_a_file_are_reported_together() {
    let found = errors("FROM x\nRNU a\nCOPY a\nEXPOSE a\nCOPY --form=b --chmod=9 c d\nRUN ok");
    let messages: Vec<&str> = found.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "unknown instruction: RNU",
            "COPY needs at least one source and a destination",
            "invalid port \"a\": expected a number from 0 to 65535",
            "unknown flag for COPY: --form",
            "invalid mode \"9\"",
        ]
    );
    assert_eq!(found[0].hint.as_deref(), Some("did you mean RUN?"));
    assert_eq!(found[3].hint.as_deref(), Some("did you mean --from?"));
    // A mistyped FROM does not make errors of all that follows.
    assert_eq!(errors("FORM x\nRUN a\nCOPY a b").len(), 1);
}

#[test]
fn no_more_than_twenty_errors_are_shown_and_that_is_said() {
    let found = errors(&"FOO\n".repeat(1000));
    assert_eq!(found.len(), MAX_ERRORS + 1);
    assert_eq!(
        found[MAX_ERRORS].message,
        "these are the first 20 errors: there may be more"
    );
    assert_eq!(
        errors(&"FOO\n".repeat(MAX_ERRORS - 1)).len(),
        MAX_ERRORS - 1
    );
}

#[test]
fn quotes_around_blanks_in_a_path_are_one_error_that_shows_the_array() {
    for (line, name) in [
        ("COPY \"a b\" \"c d/\"", "COPY"),
        ("ADD 'a b' c", "ADD"),
        ("VOLUME \"/a b\"", "VOLUME"),
    ] {
        let file = format!("FROM x\nNOPE\n{line}");
        let found = errors(&file);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            found[1].hint.as_deref().unwrap(),
            format!(
                "quotes don't hold a path with blanks together, an array does: \
                 {name} [\"a b\", \"c\"]"
            )
        );
    }
}

#[test]
fn an_unknown_instruction_takes_its_document_along() {
    assert_eq!(errors("FROM x\nRNU <<EOF\na b\nc d\nEOF\nRUN a").len(), 1);
    assert_eq!(errors("FROM x\nRNU <<EOF\nFOO\nBAR").len(), 3);
}

/// SEMANTICS 5
#[test]
fn an_unknown_flag_is_an_error_for_every_instruction() {
    for name in INSTRUCTIONS {
        let found = errors(&format!("FROM x\n{name} --bogus=1 a b"));
        let told = found.iter().any(|e| e.message.contains("--bogus"));
        assert!(told, "{name}: {found:?}");
    }
}

/// SEMANTICS 6
#[test]
fn json_or_shell_form() {
    let exec = |words: &[&str]| Command::Exec(words.iter().map(|w| w.to_string()).collect());
    let shell = |text: &str| Command::Shell(text.to_owned());
    let cases = [
        (r#"["a", "b c"]"#, exec(&["a", "b c"])),
        (r#"[ "a\n\u00e9" ]  "#, exec(&["a\né"])),
        ("[]", exec(&[])),
        ("['a']", shell("['a']")),
        (r#"["a", ]"#, shell(r#"["a", ]"#)),
        (r#"["a"] b"#, shell(r#"["a"] b"#)),
        ("[ -d /x ] && y", shell("[ -d /x ] && y")),
        ("a  \"b\"  $c", shell("a  \"b\"  $c")),
        ("", shell("")),
    ];
    for (text, expected) in cases {
        assert_eq!(
            one(&format!("CMD {text}")),
            InstructionKind::Cmd(expected.clone())
        );
        assert_eq!(
            one(&format!("ENTRYPOINT {text}")),
            InstructionKind::Entrypoint(expected)
        );
    }
    for text in ["[1]", "[\"a\", null]", "[[\"a\"]]"] {
        let finding = refused(&format!("CMD {text}"));
        assert!(finding.message.contains("strings only"), "{text}");
    }
}

/// SEMANTICS 37
#[test]
fn run_may_be_empty_but_not_an_empty_array() {
    assert_eq!(run("RUN").command, Command::Shell(String::new()));
    assert!(refused("RUN []").message.contains("RUN []"));
}

/// SEMANTICS 6
#[test]
fn shell_needs_an_array() {
    assert_eq!(
        one(r#"SHELL ["/bin/bash", "-c"]"#),
        InstructionKind::Shell(vec!["/bin/bash".into(), "-c".into()])
    );
    for text in ["SHELL /bin/bash -c", "SHELL []", "SHELL", "SHELL [\"a\"] b"] {
        assert!(refused(text).message.contains("SHELL needs"), "{text}");
    }
}

/// SEMANTICS 7
#[test]
fn env_and_label_in_both_forms() {
    let cases: [(&str, &[(&str, &str)]); 7] = [
        ("ONE TWO= THREE=world", &[("ONE", "TWO= THREE=world")]),
        ("A  b  c ", &[("A", "b  c")]),
        (
            "A=1 B=\"2 3\" C=4\\ 5",
            &[("A", "1"), ("B", "\"2 3\""), ("C", "4\\ 5")],
        ),
        ("A=", &[("A", "")]),
        ("A=b=c", &[("A", "b=c")]),
        ("A='x y'$B", &[("A", "'x y'$B")]),
        ("a.b-c=\\\n  d", &[("a.b-c", ""), ("", "")]),
    ];
    for (text, expected) in &cases[..6] {
        for name in ["ENV", "LABEL"] {
            let pairs = match one(&format!("{name} {text}")) {
                InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs,
                other => panic!("{other:?}"),
            };
            let found: Vec<(&str, &str)> = pairs
                .iter()
                .map(|pair| (pair.name.text.as_str(), pair.value.text.as_str()))
                .collect();
            assert_eq!(found, *expected, "{name} {text}");
            assert_eq!(
                pairs[0].legacy,
                !text.split(' ').next().unwrap().contains('=')
            );
        }
    }
    for text in ["", "A", "=b", "A=1 B", "A=1 =2", cases[6].0] {
        refused(&format!("ENV {text}"));
    }
}

#[test]
fn arg_takes_several_names_with_or_without_default() {
    let InstructionKind::Arg(items) = one("ARG A B= C=\"d e\" D=$A") else {
        panic!()
    };
    let found: Vec<(&str, Option<&str>)> = items
        .iter()
        .map(|item| {
            let default = item.default.as_ref();
            (item.name.as_str(), default.map(|word| word.text.as_str()))
        })
        .collect();
    assert_eq!(
        found,
        [
            ("A", None),
            ("B", Some("")),
            ("C", Some("\"d e\"")),
            ("D", Some("$A"))
        ]
    );
    refused("ARG");
    refused("ARG =x");
}

/// SEMANTICS 9
#[test]
fn stage_names_are_lower_cased_and_checked() {
    let found = file("FROM --platform=$P image:$TAG AS Build-1_2.x");
    let from = &found.stages[0].from;
    assert_eq!(found.stages[0].name.as_deref(), Some("build-1_2.x"));
    assert_eq!(from.base.text, "image:$TAG");
    assert_eq!(from.platform.as_ref().unwrap().text, "$P");
    for text in [
        "FROM x AS 1a",
        "FROM x AS a/b",
        "FROM x AS é",
        "FROM x AS",
        "FROM x y",
        "FROM x IS y",
        "FROM",
    ] {
        assert_eq!(errors(text).len(), 1, "{text}");
    }
}

/// SEMANTICS 2
#[test]
fn another_frontend_is_refused_wherever_it_is_named() {
    let found = errors("# syntax=example.com/my/front:1 arg\nFROM x");
    assert_eq!(
        found[0].message,
        "this file is written for another frontend, example.com/my/front:1"
    );
    assert_eq!(errors("#!x\n# syntax=example.com/front\nFROM x").len(), 1);
    let with = |text: &str, frontend: &str| {
        parse_for(&Source::new("Dockerfile", text), Some(frontend)).map_err(|found| found.0.len())
    };
    assert!(with("# syntax=example.com/front\nFROM x", "docker/dockerfile:1").is_ok());
    assert_eq!(with("FROM x", "example.com/front"), Err(1));
}

/// A check warns of these, see ReservedStageName, and the build goes on.
/// SEMANTICS 9
#[test]
fn reserved_stage_names_are_accepted() {
    let found = file("FROM x AS Scratch\nFROM y AS context");
    assert_eq!(found.stages[0].name.as_deref(), Some("scratch"));
    assert_eq!(found.stages[1].name.as_deref(), Some("context"));
}

#[test]
fn spans_cover_instructions_and_words() {
    let text = "FROM x\nRUN a \\\n # no\n  b\nCOPY --from=y c \\\n d\n";
    let file = file(text);
    let at = |span: Span| &text[span.start..span.end];
    let stage = &file.stages[0];
    assert_eq!(at(stage.span), text.trim_end());
    assert_eq!(at(stage.instructions[0].span), "RUN a \\\n # no\n  b");
    assert_eq!(stage.instructions[0].raw, "RUN a   b");
    let InstructionKind::Copy(copy) = &stage.instructions[1].kind else {
        panic!()
    };
    assert_eq!(at(copy.from.as_ref().unwrap().span), "y");
    assert_eq!(at(copy.files.destination.span), "d");
}

#[test]
fn flags_of_copy_and_add() {
    let copy = copy(
        "COPY --from=a --chown=$U:g --chmod=u+x --link --parents=true --exclude=*.o \
         --exclude=!b s1 s2 d/",
    );
    assert_eq!(copy.from.unwrap().text, "a");
    assert!(copy.parents && copy.files.link);
    assert_eq!(copy.files.chown.unwrap().text, "$U:g");
    assert_eq!(texts(&copy.files.excludes), ["*.o", "!b"]);
    assert_eq!(copy.files.sources.len(), 2);
    let InstructionKind::Add(add) =
        one("ADD --checksum=sha256:$X --keep-git-dir --unpack=false [\"a b\", \"c\"]")
    else {
        panic!()
    };
    assert_eq!((add.keep_git_dir, add.unpack), (Some(true), Some(false)));
    assert_eq!(add.files.destination.text, "c");
    assert!(!add.files.link);
    for line in [
        "COPY --from=$X a b",
        "COPY --chown=a:b:c a b",
        "COPY --chmod=10000 a b",
        "COPY --chmod=rwx a b",
        "COPY --checksum=x a b",
        "COPY --link=maybe a b",
        "ADD --from=x a b",
        "ADD --checksum=x a b c",
        "COPY a",
        "COPY [\"a\"]",
        "COPY",
    ] {
        refused(line);
    }
    let hint = refused("COPY --from=$X a b").hint.unwrap();
    assert!(hint.contains("AS alias"), "{hint}");
}

#[test]
fn flags_of_run() {
    let run = run(
        "RUN --mount=type=cache,target=/c --mount=type=secret,id=$ID --network=none \
                   --security=insecure --device=vendor.com/x=y make --jobs",
    );
    assert_eq!(run.mounts.len(), 2);
    assert_eq!(run.network, Some(Network::None));
    assert_eq!(run.security, Some(Security::Insecure));
    assert_eq!(run.devices.len(), 1);
    assert_eq!(run.command, Command::Shell("make --jobs".into()));
    for line in [
        "RUN --mount=type=cahce,target=/x a",
        "RUN --mount a",
        "RUN --mount=from=$X,target=/a a",
        "RUN --network=nonne a",
        "RUN --security=x a",
    ] {
        refused(line);
    }
    let hint = refused("RUN --network=nonne a").hint;
    assert_eq!(hint.as_deref(), Some("did you mean none?"));
}

/// SEMANTICS 14
#[test]
fn a_sole_heredoc_is_the_script() {
    let cases = [
        (
            "RUN <<EOF\na\n\n# b \\\nc\nEOF",
            Invocation::Shell("a\n\n# b \\\nc\n".into()),
        ),
        ("RUN <<-EOF\n\ta\n\tEOF", Invocation::Shell("a\n".into())),
        ("RUN << EOF\n$a\nEOF", Invocation::Shell("$a\n".into())),
        ("RUN <<EOF\nEOF", Invocation::Shell(String::new())),
        (
            "RUN <<'X'\n#!/usr/bin/env python\nprint()\nX",
            Invocation::Script {
                name: "X".into(),
                content: "#!/usr/bin/env python\nprint()\n".into(),
            },
        ),
        (
            "RUN cat <<EOF > /x\n$a\nEOF",
            Invocation::Shell("cat <<EOF > /x\n$a\nEOF".into()),
        ),
        (
            "RUN <<A cat && <<-'B' cat\n\ta\nA\n\tb\n\tB",
            Invocation::Shell("<<A cat && <<-'B' cat\n\ta\nA\n\tb\nB".into()),
        ),
        ("RUN cat <<<x", Invocation::Shell("cat <<<x".into())),
        (
            r#"RUN ["a", "<<EOF"]"#,
            Invocation::Exec(vec!["a".into(), "<<EOF".into()]),
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(run(line).invocation(), expected, "{line}");
    }
}

/// SEMANTICS 11, SEMANTICS 12
#[test]
fn heredocs_of_copy() {
    let found = copy("COPY --chmod=600 <<A <<-'B' c /d/\n$x \\\n\nA\n\t\"y\"\n\tB\n");
    let found = documents(&found.files)
        .into_iter()
        .cloned()
        .collect::<Vec<_>>();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].name.as_str(), found[0].expands), ("A", true));
    assert_eq!(found[0].body, "$x \\\n\n");
    assert_eq!((found[1].expands, found[1].strip_tabs), (false, true));
    assert_eq!(found[1].content(), "\"y\"\n");
    let empty = copy("COPY <<EOF /x\nEOF");
    assert_eq!(documents(&empty.files)[0].content(), "");
    let json = copy("COPY [\"<<EOF\", \"/x\"]");
    assert!(documents(&json.files).is_empty());
    let same = copy("COPY <<A <<A /d/\n1\nA\n2\nA");
    let bodies: Vec<&str> = documents(&same.files)
        .iter()
        .map(|d| d.body.as_str())
        .collect();
    assert_eq!(bodies, ["1\n", "2\n"]);
}

/// SEMANTICS 11
#[test]
fn wrong_heredocs() {
    let finding = refused("COPY a <<EOF\nx\nEOF");
    assert_eq!(
        finding.message,
        "a heredoc can't be the destination of COPY"
    );
    let text = "FROM x\nRUN cat <<EOF\nRUN a\nFOO\n";
    let found = errors(text);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, "unterminated heredoc");
    assert_eq!(&text[found[0].span.start..found[0].span.end], "<<EOF");
    let source = Source::new("D", text);
    assert_eq!(source.line_of(found[0].span.start), 2);
    assert!(
        refused("COPY << EOF /x")
            .message
            .contains("without a delimiter")
    );
}

#[test]
fn windows_line_endings_stay_in_documents_only() {
    let run = run("RUN <<EOF\r\na\r\nEOF\r\n");
    assert_eq!(run.invocation(), Invocation::Shell("a\r\n".into()));
}

/// SEMANTICS 58
#[test]
fn lists_of_volumes_and_ports() {
    let InstructionKind::Volume(words) = one("VOLUME /a $b") else {
        panic!()
    };
    assert_eq!(texts(&words), ["/a", "$b"]);
    let InstructionKind::Volume(words) = one("VOLUME [\"/a b\", \" /c \"]") else {
        panic!()
    };
    assert_eq!(texts(&words), ["/a b", "/c"]);
    let InstructionKind::Expose(words) = one("EXPOSE 80 $PORTS 1-2/UDP") else {
        panic!()
    };
    assert_eq!(texts(&words), ["80", "$PORTS", "1-2/UDP"]);
    for line in [
        "VOLUME",
        "VOLUME []",
        "VOLUME [\"\"]",
        "EXPOSE",
        "EXPOSE 80/x",
    ] {
        refused(line);
    }
}

#[test]
fn arguments_that_are_one_word() {
    let InstructionKind::Workdir(word) = one("WORKDIR  /a b/$c ") else {
        panic!()
    };
    assert_eq!(word.text, "/a b/$c");
    assert_eq!(
        one("MAINTAINER Jane \"J\" Doe"),
        InstructionKind::Maintainer("Jane \"J\" Doe".into())
    );
    assert!(matches!(
        one("STOPSIGNAL $S"),
        InstructionKind::StopSignal(_)
    ));
    assert_eq!(
        refused("STOPSIGNAL SIGTREM").hint.as_deref(),
        Some("did you mean SIGTERM?")
    );
    for name in ["WORKDIR", "USER", "STOPSIGNAL", "MAINTAINER"] {
        refused(name);
    }
}

/// SEMANTICS 56
#[test]
fn healthchecks() {
    let check = |line: &str| match one(line) {
        InstructionKind::Healthcheck(check) => check,
        other => panic!("{other:?}"),
    };
    assert_eq!(check("HEALTHCHECK none").test, ["NONE"]);
    let found = check(
        "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0s --start-interval=1ms \
         --retries=3 CMD curl  localhost",
    );
    assert_eq!(found.test, ["CMD-SHELL", "curl  localhost"]);
    assert_eq!(
        (
            found.interval,
            found.timeout,
            found.start_interval,
            found.retries
        ),
        (90_000_000_000, 500_000_000, 1_000_000, 3)
    );
    assert_eq!(
        check("HEALTHCHECK CMD [\"a\", \"b\"]").test,
        ["CMD", "a", "b"]
    );
    for line in [
        "HEALTHCHECK",
        "HEALTHCHECK NONE x",
        "HEALTHCHECK CMD",
        "HEALTHCHECK CMD []",
        "HEALTHCHECK curl x",
        "HEALTHCHECK --interval=5 CMD a",
        "HEALTHCHECK --interval=999us CMD a",
        "HEALTHCHECK --timeout=-1s CMD a",
        "HEALTHCHECK --retries=-1 CMD a",
        "HEALTHCHECK --interval=1s --interval=2s CMD a",
    ] {
        refused(line);
    }
}

/// SEMANTICS 11, SEMANTICS 30
#[test]
fn onbuild_keeps_the_text_of_its_trigger() {
    let found = file("FROM x\nOnbuild  COPY <<A --from=y <<B /d/\n$a\nA\nb\nB\nRUN c");
    let trigger = found.stages[0].triggers().next().unwrap();
    assert_eq!(trigger.raw, "COPY <<A --from=y <<B /d/\n$a\nA\nb\nB");
    assert_eq!(found.stages[0].instructions.len(), 2);
    let again = parse_onbuild_trigger(&trigger.raw).unwrap();
    assert_eq!(again.kind.name(), "COPY");
    let InstructionKind::Copy(copy) = again.kind else {
        panic!()
    };
    assert_eq!(documents(&copy.files).len(), 2);
    for line in [
        "ONBUILD",
        "ONBUILD ONBUILD RUN a",
        "ONBUILD from x",
        "ONBUILD MAINTAINER x",
        "ONBUILD FOO",
        "ONBUILD COPY a",
    ] {
        refused(line);
    }
}

#[test]
fn triggers_of_an_image_are_single_instructions() {
    assert_eq!(
        parse_onbuild_trigger("RUN a \\\n b").unwrap().raw,
        "RUN a  b"
    );
    for text in ["", "RUN a\nRUN b", "FROM x", "ONBUILD RUN a", "FOO"] {
        assert!(parse_onbuild_trigger(text).is_err(), "{text:?}");
    }
}

#[test]
fn the_escape_directive_rules_words_and_continuations() {
    let file = file("# escape=`\nFROM x\nENV A=a` b `\n  B=C:\\x\\\nRUN a`\nb");
    assert_eq!(file.escape, '`');
    let InstructionKind::Env(pairs) = &file.stages[0].instructions[0].kind else {
        panic!()
    };
    assert_eq!(pairs[0].value.text, "a` b");
    assert_eq!(pairs[1].value.text, "C:\\x\\");
    assert_eq!(file.stages[0].instructions[1].raw, "RUN ab");
}

#[test]
fn empty_continuations_are_noted() {
    let file = file("FROM x\nRUN a \\\n\n  b\n");
    assert_eq!(file.empty_continuations, [Span::new(15, 16)]);
}

/// Builds texts out of the pieces that mean something, the same ones in every run.
#[test]
fn no_input_makes_the_parser_panic() {
    let pieces = [
        "FROM ",
        "x",
        " AS ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "CMD ",
        "ARG ",
        "EXPOSE ",
        "VOLUME ",
        "SHELL ",
        "--mount=",
        "--from=",
        "--chmod=",
        "--",
        "type=cache,",
        "<<",
        "<<-",
        "EOF",
        "\n",
        "\n",
        "\r\n",
        "\\",
        "\\\n",
        "\"",
        "'",
        "`",
        "$",
        "${",
        "}",
        ":-",
        "//",
        "/",
        "#",
        "=",
        "[",
        "]",
        "[\"a\"]",
        " ",
        "\t",
        "é",
        "\u{feff}",
        "\u{a0}",
        "# escape=`\n",
        "1",
        "-",
        ",",
        "😀",
        "\u{2028}",
        "\0",
    ];
    let mut state = 1_u64;
    let mut next = move |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let env = |name: &str| (name.len() == 1).then(|| "a b".to_owned());
    let mut parsed = 0;
    for _ in 0..20_000 {
        let mut text = String::from(["", "FROM x\n", "FROM x AS x\n"][next(3)]);
        for _ in 0..next(25) {
            text.push_str(pieces[next(pieces.len())]);
        }
        let source = Source::new("D", text.clone());
        let spans: Vec<Span> = match parse(&source) {
            Err(errors) => {
                assert!(!errors.0.is_empty(), "{text:?}");
                errors.render(&source);
                errors.0.iter().map(|e| e.span).collect()
            }
            Ok(file) => {
                parsed += 1;
                if let Err(errors) = file.plan(None, &Default::default(), &Default::default()) {
                    errors.render(&source);
                }
                let all = file.stages.iter().flat_map(|stage| &stage.instructions);
                all.map(|i| i.span).collect()
            }
        };
        for span in spans {
            assert!(
                source.text.get(span.start..span.end).is_some(),
                "{text:?} {span:?}"
            );
        }
        let word = Word {
            text,
            span: Span::default(),
        };
        let _ = word.expand(&env, '\\');
        let _ = word.expand_words(&env, '`');
        let _ = parse_onbuild_trigger(&word.text);
    }
    assert!(parsed > 1000, "{parsed}");
}

/// SEMANTICS 8
#[test]
fn many_lines_and_words_take_no_quadratic_time() {
    let many = 100_000;
    let texts = [
        format!("FROM x\nRUN a{}", " \\\n b".repeat(many)),
        format!("FROM x\nRUN a{} \\\nb", " \\\n# c\n".repeat(many)),
        format!("FROM x\nCOPY{} /x/", " \\\n a".repeat(many)),
        format!("FROM x\nENV{}", " \\\n A=1".repeat(many)),
        format!("FROM x\nRUN <<E\n{}E", "x\n".repeat(many)),
        format!("FROM x\n{}", "RUN x\n".repeat(many)),
        format!("FROM x\n{}", "COPY <<E /x\nE\n".repeat(many)),
        format!("FROM x\nCOPY {} /x/", "--exclude=a ".repeat(many)),
        format!("FROM x\nUSER {}", "\"a\"$B".repeat(many)),
    ];
    for text in texts {
        let start = std::time::Instant::now();
        let found = parse(&Source::new("Dockerfile", text.as_str()));
        assert!(start.elapsed().as_secs() < 10, "{:.40}", text);
        drop(found);
    }
}

#[test]
fn a_nul_character_is_refused_where_it_would_count() {
    let found = errors("FROM x\nENV A=a\0b");
    assert_eq!(
        found[0].message,
        "a NUL character can't stand in an instruction"
    );
    assert_eq!(found[0].span.start, 14);
    assert!(parse(&Source::new("D", "# \0\nFROM x")).is_ok());
}
