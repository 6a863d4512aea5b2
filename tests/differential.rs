//! kiln against others that know the same languages: Dockerfiles against the `parse-dockerfile`
//! crate, expansion against `/bin/sh`, ignore files against a naive matcher. The inputs are
//! generated from a fixed seed; each difference that is accepted has a name and a reason.

mod support;

#[path = "fuzz/src/naive.rs"]
mod naive;

use std::process::Command;

use kiln::context::ignore::IgnoreFile;
use kiln::dockerfile::{
    self, Dockerfile, Files, Heredoc, InstructionKind, Source, SourceArg, Span, Word,
};

/// Marsaglia's xorshift: the same seed, the same inputs.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn pick<'a>(&mut self, options: &[&'a str]) -> &'a str {
        options[self.below(options.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// Joins up to `most` picks.
    fn some(&mut self, most: usize, options: &[&str], separator: &str) -> String {
        let count = 1 + self.below(most);
        let picked: Vec<&str> = (0..count).map(|_| self.pick(options)).collect();
        picked.join(separator)
    }
}

// ---- Dockerfiles

/// What both parsers tell of an instruction.
#[derive(Debug, PartialEq)]
struct Facts {
    name: String,
    start: usize,
    flags: Vec<String>,
    words: Vec<String>,
    documents: Vec<(bool, String)>,
}

/// Writes a Dockerfile of a few stages.
fn generate(random: &mut Random) -> String {
    let escape = match random.chance(5) {
        true => '`',
        false => '\\',
    };
    let mut text = String::new();
    if random.chance(4) {
        text.push_str("# syntax=docker/dockerfile:1\n");
    }
    if escape == '`' {
        text.push_str("# escape=`\n");
    }
    if random.chance(2) {
        text.push_str("ARG VERSION=1 OTHER\n");
    }
    for stage in 0..1 + random.below(3) {
        let flag = random.pick(&["", "", "--platform=linux/amd64 "]);
        let image = random.pick(&["debian:12", "scratch", "a.example/b/c:${VERSION}", "$OTHER"]);
        text.push_str(&format!(
            "{} {flag}{image}",
            random.pick(&["FROM", "from", "From"])
        ));
        if random.chance(2) {
            text.push_str(&format!(" {} stage-{stage}", random.pick(&["AS", "as"])));
        }
        text.push('\n');
        for _ in 0..random.below(9) {
            instruction(random, escape, &mut text);
        }
    }
    text
}

const NAMES: &[&str] = &[
    "a",
    "b.txt",
    "dir/",
    "/usr/local/bin",
    "$VERSION",
    "x*y?",
    "${A:-b}",
    "z--",
];

fn instruction(random: &mut Random, escape: char, text: &mut String) {
    match random.below(8) {
        0 => text.push('\n'),
        1 => text.push_str("  # a comment\n"),
        _ => {}
    }
    let commands = &[
        "echo hi",
        "make -j4 && make install",
        "a | b || c",
        "test \"x y\" = 'z'",
        "[ -e /x ]",
        "x='a # b'",
        "printf '%s' \"$HOME\"",
        "cat <x",
        "echo $((1+2))",
    ];
    let exec = &[r#"["a"]"#, r#"["a", "b c"]"#, r#"[ "x" , "\u0041\n" ]"#];
    let flags_of_copy = &[
        "--chown=1:2",
        "--chmod=755",
        "--from=debian:12",
        "--link",
        "--chown=\"$U\"",
        "--parents",
        "--exclude=*.o",
    ];
    let pairs = &[
        "A=1",
        "B=\"two words\"",
        "C='x'",
        "D=a\\ b",
        "E=",
        "F=$A$B",
        "G=\"a=b\"",
    ];
    let mut line = match random.below(19) {
        0 => format!("RUN {}", random.some(3, commands, " && ")),
        1 => format!("RUN {}", random.pick(exec)),
        2 => format!(
            "RUN {} {}",
            random.pick(&[
                "--mount=type=cache,target=/c",
                "--network=none",
                "--mount=target=/x --security=sandbox"
            ]),
            random.pick(commands)
        ),
        3 => format!(
            "{} {} {}",
            random.pick(&["COPY", "copy"]),
            random.some(3, &NAMES[..7], " "),
            random.pick(&NAMES[..7])
        ),
        4 => format!(
            "COPY {} {} /dest/",
            random.pick(flags_of_copy),
            random.some(2, NAMES, " ")
        ),
        5 => format!("COPY [\"a b\", \"c\", \"{}\"]", random.pick(&["/x", "y/"])),
        6 => format!(
            "ADD --checksum=sha256:{} https://example.org/x.tar /x",
            "0".repeat(64)
        ),
        7 => format!("ENV {}", random.some(4, pairs, " ")),
        8 => format!("ENV NAME {}", random.pick(commands)),
        9 => format!("LABEL {}", random.some(4, pairs, "  ")),
        10 => format!(
            "ARG {}",
            random.some(3, &["A", "B=1", "C=\"x y\"", "D=$B"], " ")
        ),
        11 => format!(
            "EXPOSE {}",
            random.some(3, &["80", "53/udp", "8000-8010", "$PORT"], " ")
        ),
        12 => format!(
            "VOLUME {}",
            random.pick(&["/a", "/a /b", "[\"/a b\", \"/c\"]"])
        ),
        13 => format!(
            "{} {}",
            random.pick(&["USER", "WORKDIR"]),
            random.pick(&["app", "$U", "1:2", "/a b"])
        ),
        14 => format!(
            "{} {}",
            random.pick(&["CMD", "ENTRYPOINT"]),
            random.pick(commands)
        ),
        15 => format!(
            "{} {}",
            random.pick(&["CMD", "ENTRYPOINT", "SHELL"]),
            random.pick(exec)
        ),
        16 => format!(
            "HEALTHCHECK {}",
            random.pick(&[
                "NONE",
                "--interval=5s --retries=3 CMD x y",
                "CMD [\"x\"]",
                "--timeout=1m CMD test -e /x"
            ])
        ),
        17 => format!(
            "ONBUILD {}",
            random.pick(&["RUN make", "COPY . /x", "ENV A=1", "WORKDIR /y"])
        ),
        _ => random
            .pick(&[
                "STOPSIGNAL SIGTERM",
                "MAINTAINER Me <me@example.org>",
                "STOPSIGNAL 9",
            ])
            .to_owned(),
    };
    line = line.replace("a\\ b", &format!("a{escape} b"));
    if random.chance(3) {
        // Somewhere between two words that no quotes enclose the line goes on below.
        let blanks: Vec<usize> = line.match_indices(" && ").map(|(at, _)| at).collect();
        if let Some(at) = blanks.first() {
            let between = random.pick(&["", "# in between\n", "    # indented\n"]);
            line.replace_range(*at..*at + 1, &format!(" {escape}\n{between}  "));
        }
    }
    text.push_str(random.pick(&["", "", "  ", "\t"]));
    text.push_str(&line);
    text.push_str(random.pick(&["\n", "\n", "  \n", "\r\n"]));
    // first-word: the crate knows a document only where it is the first argument of RUN.
    if random.chance(6) {
        text.push_str(random.pick(&[
            "RUN <<EOF\necho one\n  echo $TWO\nEOF\n",
            "RUN <<'END' cat > /x\n\ttext\nEND\n",
            "COPY <<EOF /file\n$A\nEOF\n",
            "COPY <<\"EOF\" /file\n# no comment\n\nEOF\n",
            "RUN <<-EOF\n\t\tone\n\ttwo\n\tEOF\n",
        ]));
    }
}

/// Drops what joins lines, and makes runs of blanks one.
fn plain(text: &str, escape: char) -> String {
    let mut joined = String::new();
    for (number, line) in text.lines().enumerate() {
        if number > 0 && line.trim_start().starts_with('#') {
            continue;
        }
        let end = line.trim_end();
        joined.push_str(end.strip_suffix(escape).unwrap_or(end));
    }
    joined.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn documents(files: &Files) -> Vec<(bool, String)> {
    let documents = files.sources.iter().filter_map(|source| match source {
        SourceArg::Heredoc(document) => Some(as_fact(document)),
        SourceArg::Path(_) => None,
    });
    documents.collect()
}

fn as_fact(document: &Heredoc) -> (bool, String) {
    (document.expands, document.content())
}

fn of_files(files: &Files, flags: &mut Vec<String>) -> Vec<String> {
    let mut flag = |name: &str, word: &Option<Word>| {
        flags.extend(word.iter().map(|w| format!("{name}={}", w.text)));
    };
    flag("chown", &files.chown);
    flag("chmod", &files.chmod);
    flags.extend(files.link.then(|| "link".to_owned()));
    flags.extend(files.excludes.iter().map(|w| format!("exclude={}", w.text)));
    let paths = files.sources.iter().filter_map(|source| match source {
        SourceArg::Path(word) => Some(word.text.clone()),
        SourceArg::Heredoc(_) => None,
    });
    paths.chain([files.destination.text.clone()]).collect()
}

fn of_command(command: &dockerfile::Command) -> Vec<String> {
    match command {
        dockerfile::Command::Shell(text) => vec![plain(text, '\0')],
        dockerfile::Command::Exec(words) => words.clone(),
    }
}

/// Returns what kiln says of a kind of instruction: flags, words, documents.
fn of_kind(kind: &InstructionKind) -> (Vec<String>, Vec<String>, Vec<(bool, String)>) {
    let mut flags = Vec::new();
    let mut here = Vec::new();
    let one = |word: &Word| vec![word.text.clone()];
    let all = |words: &[Word]| words.iter().map(|w| w.text.clone()).collect::<Vec<_>>();
    let words = match kind {
        InstructionKind::Add(add) => {
            flags.extend(add.checksum.iter().map(|w| format!("checksum={}", w.text)));
            here = documents(&add.files);
            of_files(&add.files, &mut flags)
        }
        InstructionKind::Copy(copy) => {
            flags.extend(copy.from.iter().map(|w| format!("from={}", w.text)));
            flags.extend(copy.parents.then(|| "parents".to_owned()));
            here = documents(&copy.files);
            of_files(&copy.files, &mut flags)
        }
        InstructionKind::Arg(items) => {
            let item = |item: &dockerfile::ArgItem| match &item.default {
                Some(word) => format!("{}={}", item.name, word.text),
                None => item.name.clone(),
            };
            vec![items.iter().map(item).collect::<Vec<_>>().join(" ")]
        }
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            let pair = |pair: &dockerfile::KeyValue| {
                let between = if pair.legacy { " " } else { "=" };
                format!("{}{between}{}", pair.name.text, pair.value.text)
            };
            vec![pairs.iter().map(pair).collect::<Vec<_>>().join(" ")]
        }
        InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => of_command(command),
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => all(words),
        InstructionKind::Healthcheck(check) => {
            for (name, value) in [("interval", check.interval), ("timeout", check.timeout)] {
                flags.extend((value != 0).then(|| format!("{name}={}s", value / 1_000_000_000)));
            }
            flags.extend((check.retries != 0).then(|| format!("retries={}", check.retries)));
            match check.test.split_first() {
                Some((kind, rest)) if kind != "NONE" => rest.to_vec(),
                _ => vec!["NONE".to_owned()],
            }
        }
        InstructionKind::Maintainer(author) => vec![author.clone()],
        InstructionKind::OnBuild(trigger) => {
            let (_, words, _) = of_kind(&trigger.instruction.kind);
            [vec![trigger.instruction.kind.name().to_owned()], words].concat()
        }
        InstructionKind::Run(run) => {
            flags.extend(run.mounts.iter().map(|_| "mount".to_owned()));
            flags.extend(run.network.map(|_| "network".to_owned()));
            flags.extend(run.security.map(|_| "security".to_owned()));
            here = run.heredocs.iter().map(as_fact).collect();
            of_command(&run.command)
        }
        InstructionKind::Shell(words) => words.clone(),
        InstructionKind::StopSignal(word)
        | InstructionKind::User(word)
        | InstructionKind::Workdir(word) => one(word),
        InstructionKind::From(_) => Vec::new(),
    };
    flags.sort();
    (flags, words, here)
}

fn facts_of_kiln(file: &Dockerfile) -> Vec<Facts> {
    let fact = |kind: &InstructionKind, span: Span| {
        let (flags, words, documents) = of_kind(kind);
        let name = kind.name().to_owned();
        let start = span.start;
        Facts {
            name,
            start,
            flags,
            words,
            documents,
        }
    };
    let mut facts: Vec<Facts> = file
        .global_args
        .iter()
        .map(|i| fact(&i.kind, i.span))
        .collect();
    for stage in &file.stages {
        let from = &stage.from;
        let platform = from.platform.iter().map(|w| format!("platform={}", w.text));
        facts.push(Facts {
            name: "FROM".to_owned(),
            start: from.span.start,
            flags: platform.collect(),
            words: [from.base.text.clone()]
                .into_iter()
                .chain(stage.name.clone())
                .collect(),
            documents: Vec::new(),
        });
        facts.extend(stage.instructions.iter().map(|i| fact(&i.kind, i.span)));
    }
    facts
}

/// Returns what the other parser says of an instruction.
fn fact_of_other(instruction: &parse_dockerfile::Instruction<'_>, escape: char) -> Facts {
    use parse_dockerfile::{Command, HealthcheckArguments, Instruction as I, JsonOrStringArray};
    let text = |s: &parse_dockerfile::UnescapedString<'_>| s.value.to_string();
    let line = |s: &parse_dockerfile::UnescapedString<'_>| vec![plain(&s.value, escape)];
    let command = |command: &Command<'_>| match command {
        Command::Exec(words) => words.value.iter().map(text).collect(),
        Command::Shell(line) => vec![plain(line.value, escape)],
        _ => unreachable!(),
    };
    let flags = |flags: &[parse_dockerfile::Flag<'_>], name_only: bool| {
        let flag = |flag: &parse_dockerfile::Flag<'_>| match &flag.value {
            Some(value) if !name_only => format!("{}={}", flag.name.value, value.value),
            _ => flag.name.value.to_string(),
        };
        let mut flags: Vec<String> = flags.iter().map(flag).collect();
        flags.sort();
        flags
    };
    let document = |d: &parse_dockerfile::HereDoc<'_>| (d.expand, d.value.to_string());
    let sources = |sources: &[parse_dockerfile::Source<'_>],
                   dest: &parse_dockerfile::UnescapedString<'_>| {
        let mut words = Vec::new();
        let mut documents = Vec::new();
        for source in sources {
            match source {
                parse_dockerfile::Source::Path(path) => words.push(text(path)),
                parse_dockerfile::Source::HereDoc(here) => documents.push(document(here)),
                _ => unreachable!(),
            }
        }
        words.push(text(dest));
        (words, documents)
    };
    let (name, span, flags, (words, documents)) = match instruction {
        I::Add(i) => (
            "ADD",
            &i.add,
            flags(&i.options, false),
            sources(&i.src, &i.dest),
        ),
        I::Copy(i) => (
            "COPY",
            &i.copy,
            flags(&i.options, false),
            sources(&i.src, &i.dest),
        ),
        I::Arg(i) => ("ARG", &i.arg, vec![], (line(&i.arguments), vec![])),
        I::Env(i) => ("ENV", &i.env, vec![], (line(&i.arguments), vec![])),
        I::Label(i) => ("LABEL", &i.label, vec![], (line(&i.arguments), vec![])),
        I::Cmd(i) => ("CMD", &i.cmd, vec![], (command(&i.arguments), vec![])),
        I::Entrypoint(i) => (
            "ENTRYPOINT",
            &i.entrypoint,
            vec![],
            (command(&i.arguments), vec![]),
        ),
        I::Expose(i) => (
            "EXPOSE",
            &i.expose,
            vec![],
            (i.arguments.iter().map(text).collect(), vec![]),
        ),
        I::From(i) => {
            let name = i.as_.iter().map(|(_, name)| name.value.to_lowercase());
            let words = [text(&i.image)].into_iter().chain(name).collect();
            ("FROM", &i.from, flags(&i.options, false), (words, vec![]))
        }
        I::Healthcheck(i) => {
            let words = match &i.arguments {
                HealthcheckArguments::Cmd { arguments, .. } => command(arguments),
                _ => vec!["NONE".to_owned()],
            };
            (
                "HEALTHCHECK",
                &i.healthcheck,
                flags(&i.options, false),
                (words, vec![]),
            )
        }
        I::Maintainer(i) => ("MAINTAINER", &i.maintainer, vec![], (line(&i.name), vec![])),
        I::Onbuild(i) => {
            let inner = fact_of_other(&i.instruction, escape);
            let words = [vec![inner.name], inner.words].concat();
            ("ONBUILD", &i.onbuild, vec![], (words, vec![]))
        }
        I::Run(i) => {
            let documents = i.here_docs.iter().map(document).collect();
            (
                "RUN",
                &i.run,
                flags(&i.options, true),
                (command(&i.arguments), documents),
            )
        }
        I::Shell(i) => (
            "SHELL",
            &i.shell,
            vec![],
            (i.arguments.iter().map(text).collect(), vec![]),
        ),
        I::Stopsignal(i) => (
            "STOPSIGNAL",
            &i.stopsignal,
            vec![],
            (line(&i.arguments), vec![]),
        ),
        I::User(i) => ("USER", &i.user, vec![], (line(&i.arguments), vec![])),
        I::Volume(i) => {
            let words = match &i.arguments {
                JsonOrStringArray::Json(words) => words.value.iter().map(text).collect(),
                JsonOrStringArray::String(words) => words.iter().map(text).collect(),
            };
            ("VOLUME", &i.volume, vec![], (words, vec![]))
        }
        I::Workdir(i) => ("WORKDIR", &i.workdir, vec![], (line(&i.arguments), vec![])),
        _ => unreachable!(),
    };
    Facts {
        name: name.to_owned(),
        start: span.span.start,
        flags,
        words,
        documents,
    }
}

/// Drops from both what they are known to see differently.
fn without_accepted_differences(facts: &mut Facts) {
    match facts.name.as_str() {
        // quotes-in-flags: BuildKit removes quotes and escapes from flags when it parses them,
        // the crate leaves that to who uses the value.
        "COPY" | "ADD" => {
            for flag in &mut facts.flags {
                flag.retain(|c| c != '"');
            }
        }
        // one-minute: the crate keeps durations as text.
        "HEALTHCHECK" => {
            for flag in &mut facts.flags {
                if flag == "timeout=1m" {
                    *flag = "timeout=60s".to_owned();
                }
            }
        }
        _ => {}
    }
    // words-and-blanks: the crate has one text for all arguments of ARG, ENV and the like; both
    // are compared with single blanks between their words.
    for word in &mut facts.words {
        *word = word.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    // escapes-in-texts: the crate removes them from what it calls an unescaped string.
    for word in &mut facts.words {
        word.retain(|c| c != '\\' && c != '`');
    }
    // documents-in-commands: kiln keeps the line that opens documents as the command, the crate
    // a part of it.
    if !facts.documents.is_empty() && facts.name == "RUN" {
        facts.words.clear();
    }
}

#[test]
fn dockerfiles_are_read_as_by_another_parser() {
    let mut random = Random(0x5eed_0001);
    let mut instructions = 0;
    for number in 0..600 {
        let text = generate(&mut random);
        let escape = if text.contains("# escape=`") {
            '`'
        } else {
            '\\'
        };
        let source = Source::new("Dockerfile", text.clone());
        let ours = dockerfile::parse(&source);
        let ours = ours.unwrap_or_else(|e| panic!("{number}: {}\n{text}", e.render(&source)));
        let theirs = parse_dockerfile::parse(&text);
        let theirs = theirs.unwrap_or_else(|e| panic!("{number}: {e}\n{text}"));
        let mut ours = facts_of_kiln(&ours);
        let mut theirs: Vec<Facts> = theirs
            .instructions
            .iter()
            .map(|instruction| fact_of_other(instruction, escape))
            .collect();
        assert_eq!(ours.len(), theirs.len(), "{number}\n{text}");
        for (one, other) in ours.iter_mut().zip(&mut theirs) {
            without_accepted_differences(one);
            without_accepted_differences(other);
            assert_eq!(one, other, "{number}\n{text}");
            instructions += 1;
        }
    }
    assert!(instructions > 3000, "{instructions}");
}

// ---- expansion

/// Writes a word that kiln and a shell expand alike.
fn word(random: &mut Random, depth: usize) -> String {
    let names = &["SET", "EMPTY", "UNSET", "PATH_LIKE", "_x1"];
    let literals = &["a", "b.c", "/", ":", "x-y", "½", "=", ","];
    let patterns = &[
        "a*", "*", "?", "*/", "/*", "b", "*b*", "x", "", "?b", "*.tar", ".*",
    ];
    match random.below(if depth > 2 { 4 } else { 9 }) {
        0 | 1 => random.pick(literals).to_owned(),
        2 => format!("${}", random.pick(names)) + random.pick(&["/", ".", "-", "\"\"", ""]),
        3 => format!("${{{}}}", random.pick(names)),
        4 => {
            let operator = random.pick(&[":-", "-", ":+", "+"]);
            let inner = words(random, depth + 1);
            format!("${{{}{operator}{inner}}}", random.pick(names))
        }
        5 => {
            let operator = random.pick(&["#", "##", "%", "%%"]);
            format!(
                "${{{}{operator}{}}}",
                random.pick(names),
                random.pick(patterns)
            )
        }
        6 => format!("'{}'", random.pick(&["", "$SET", "a b", "\\", "\"", "${"])),
        7 => format!(
            "\"{}\"",
            random.some(
                4,
                &[
                    "a b",
                    "$SET",
                    "${EMPTY:-w}",
                    "\\$",
                    "\\\"",
                    "\\\\",
                    "\\x",
                    "'",
                    "${SET%c}"
                ],
                ""
            )
        ),
        _ => format!("\\{}", random.pick(&["$", "\"", "'", "\\", "x", " "])),
    }
}

fn words(random: &mut Random, depth: usize) -> String {
    (0..1 + random.below(3))
        .map(|_| word(random, depth))
        .collect()
}

/// SEMANTICS 17, SEMANTICS 18
#[test]
fn words_expand_as_in_a_shell() {
    let variables = [
        ("SET", "abc"),
        ("EMPTY", ""),
        ("PATH_LIKE", "/a/b.tar/b.tar"),
        ("_x1", "bab"),
    ];
    let lookup = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let mut random = Random(0x5eed_0002);
    let generated: Vec<String> = (0..2000).map(|_| words(&mut random, 0)).collect();
    // Letters beyond ASCII are left out behind names: the reference takes them for part of it.
    // An assignment is expanded without splitting and without looking for files.
    let lines = generated
        .iter()
        .map(|w| format!("x={w}; printf '%s\\0' \"$x\"\n"));
    let output = Command::new("/bin/sh")
        .args(["-c", &lines.collect::<String>()])
        .env_clear()
        .envs(variables)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<&str> = printed.split_terminator('\0').collect();
    assert_eq!(printed.len(), generated.len());
    for (text, expected) in generated.iter().zip(printed) {
        let word = Word {
            text: text.clone(),
            span: Span::default(),
        };
        assert_eq!(
            word.expand(&lookup, '\\').as_deref(),
            Ok(expected),
            "{text}"
        );
    }
}

// ---- ignore files

/// SEMANTICS 53
#[test]
fn ignore_files_decide_as_a_naive_matcher_does() {
    let names = ["a", "b", "ab", ".a", "a.b", "é", "*", "x"];
    let mut paths: Vec<String> = names.map(str::to_owned).to_vec();
    for depth in 1..4 {
        let longer = paths.iter().filter(|p| p.matches('/').count() == depth - 1);
        let longer: Vec<String> = longer
            .flat_map(|p| {
                names[..3 + depth % 3]
                    .iter()
                    .map(move |name| format!("{p}/{name}"))
            })
            .collect();
        paths.extend(longer);
    }
    let pieces = &[
        "a", "b", "ab", "*", "**", "?", ".", "/", "/", "[ab]", "[^a]", "[a-c]", "\\*", "..", "é",
        "x", "**/", "/**",
    ];
    let mut random = Random(0x5eed_0003);
    let (mut excluded, mut kept) = (0, 0);
    for _ in 0..500 {
        let mut rules = String::new();
        for _ in 0..1 + random.below(5) {
            rules.push_str(random.pick(&["", "", "", "!", "! ", " ", "/", "# "]));
            rules.push_str(&random.some(5, pieces, ""));
            rules.push_str(random.pick(&["\n", "\n", " \n", "\r\n"]));
        }
        let file = IgnoreFile::parse(rules.as_bytes(), "rules").unwrap();
        for path in &paths {
            let found = file.decide(path.as_bytes()).excluded;
            assert_eq!(found, naive::excluded(&rules, path), "{rules:?} {path}");
            match found {
                true => excluded += 1,
                false => kept += 1,
            }
            // A subtree that is not walked must have nothing in it.
            let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
            for parent in parents.filter(|_| !found) {
                let parent = parent.as_bytes();
                let skipped = file.decide(parent).excluded && !file.may_reinclude_below(parent);
                assert!(!skipped, "{rules:?} {path}");
            }
        }
    }
    assert!(excluded > 10_000 && kept > 10_000, "{excluded} {kept}");
}
