//! From logical lines to instructions.

mod plain;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::chmod::Chmod;
use super::flags::{Flags, Kind};
use super::heredoc::{self, Heredoc, Opening};
use super::instruction::{
    AddFiles, Command, CopyFiles, Dockerfile, Files, Instruction, InstructionKind, Network,
    OnBuild, Run, Security, SourceArg, Stage, with_heredocs,
};
use super::lexer::{INSTRUCTIONS, Lexer, Slice, unknown_frontend, unknown_instruction};
use super::mount::{ALIAS_HINT, Mount};
use super::suggest::did_you_mean;
use super::user_spec::UserSpec;
use super::{Diagnostic, Diagnostics, Source, Span, Word, words};

/// After this many errors the rest is more likely noise than news.
const MAX_ERRORS: usize = 20;

/// An instruction that could not be parsed; the finding is already noted.
struct Failed;

/// Parses a Dockerfile. All errors of the file are reported together.
pub fn parse(source: &Source) -> Result<Dockerfile, Diagnostics> {
    parse_for(source, None)
}

/// Parses a Dockerfile; `frontend` counts instead of its `syntax` directive, as the build
/// argument BUILDKIT_SYNTAX gives it.
pub fn parse_for(source: &Source, frontend: Option<&str>) -> Result<Dockerfile, Diagnostics> {
    let mut parser = Parser::new(source, frontend);
    let mut global_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut empty = true;
    while let Some(line) = parser.lexer.logical() {
        empty = false;
        let parsed = parser.instruction(line.slice());
        if parser.unterminated || parser.errors.len() >= MAX_ERRORS {
            break;
        }
        let Ok(instruction) = parsed else { continue };
        match (instruction.kind, stages.last_mut()) {
            (InstructionKind::From(from), _) => stages.push(Stage {
                index: stages.len(),
                name: from.name.clone(),
                span: instruction.span,
                from,
                instructions: Vec::new(),
            }),
            (kind, Some(stage)) => {
                stage.span = stage.span.to(instruction.span);
                stage.instructions.push(Instruction {
                    kind,
                    ..instruction
                });
            }
            (kind @ InstructionKind::Arg(_), None) => global_args.push(Instruction {
                kind,
                ..instruction
            }),
            // Where an earlier line is broken, that may have been the FROM.
            (kind, None) if parser.errors.is_empty() => {
                let message = format!("{} before the first FROM", kind.name());
                parser.errors.push(
                    Diagnostic::new(instruction.span, message)
                        .hinted("a Dockerfile starts with FROM; only ARG may stand before it"),
                );
            }
            (_, None) => {}
        }
    }
    if parser.errors.is_empty() && stages.is_empty() {
        let message = match empty {
            true => "file with no instructions",
            false => "no stages to build",
        };
        parser.errors.push(
            Diagnostic::new(Span::default(), message).hinted("a Dockerfile starts with FROM"),
        );
    }
    if !parser.errors.is_empty() {
        // The plan is never made, so that nobody else would report these.
        let none = BTreeMap::new();
        let parsed = stages.iter().flat_map(|stage| &stage.instructions);
        for instruction in global_args.iter().chain(parsed) {
            let found = words::check(instruction, parser.escape, &none);
            parser.errors.extend(found);
        }
        parser.errors.sort_by_key(|error| error.span);
        if parser.errors.len() >= MAX_ERRORS {
            parser.errors.truncate(MAX_ERRORS);
            let message = format!("these are the first {MAX_ERRORS} errors: there may be more");
            parser
                .errors
                .push(Diagnostic::new(Span::default(), message));
        }
        return Err(Diagnostics(parser.errors));
    }
    Ok(Dockerfile {
        empty_continuations: parser.lexer.empty_continuations,
        escape: parser.escape,
        syntax: parser.syntax,
        check: parser.check,
        global_args,
        stages,
    })
}

/// Parses a trigger out of an image config. Spans of findings refer to `text`.
pub fn parse_onbuild_trigger(text: &str) -> Result<Instruction, Diagnostics> {
    let source = Source::new("ONBUILD trigger", text);
    let mut parser = Parser::new(&source, None);
    let Some(line) = parser.lexer.logical() else {
        return Err(Diagnostic::new(Span::default(), "an ONBUILD trigger is empty").into());
    };
    let parsed = parser.trigger(line.slice());
    if let Some(more) = parser.lexer.logical() {
        let message = "an ONBUILD trigger must be a single instruction";
        let finding = Diagnostic::new(more.slice().span(), message);
        parser.errors.push(finding);
    }
    match parsed {
        Ok(instruction) if parser.errors.is_empty() => Ok(instruction),
        _ => Err(Diagnostics(parser.errors)),
    }
}

struct Parser<'s> {
    lexer: Lexer<'s>,
    escape: char,
    syntax: Option<String>,
    check: Option<String>,
    errors: Vec<Diagnostic>,
    /// A heredoc has swallowed the rest of the file.
    unterminated: bool,
}

impl<'s> Parser<'s> {
    fn new(source: &'s Source, frontend: Option<&str>) -> Parser<'s> {
        let (lexer, mut directives, mut errors) = Lexer::new(source);
        let given = frontend.map(|image| (image, Span::default()));
        let named = directives.syntax.as_ref();
        let named = named.map(|(image, span)| (image.as_str(), *span));
        if let Some((image, span)) = given.or(named) {
            errors.extend(unknown_frontend(image, span));
        }
        errors.sort_by_key(|error| error.span);
        Parser {
            lexer,
            escape: directives.escape.unwrap_or('\\'),
            syntax: directives.syntax.take().map(|(image, _)| image),
            check: directives.check,
            errors,
            unterminated: false,
        }
    }

    fn fail<T>(&mut self, finding: Diagnostic) -> Result<T, Failed> {
        self.errors.push(finding);
        Err(Failed)
    }

    fn instruction(&mut self, line: Slice<'_>) -> Result<Instruction, Failed> {
        let (word, rest) = line.split_first();
        let name = word.text().to_ascii_uppercase();
        let Some(name) = INSTRUCTIONS.into_iter().find(|known| *known == name) else {
            // A mistyped RUN may have a document, which is no list of instructions.
            let openings = heredoc::openings(line.text());
            let before = self.lexer.position();
            let found_all = openings
                .iter()
                .all(|(o, ..)| self.lexer.heredoc_body(&o.name, o.strip_tabs).is_some());
            if !found_all {
                self.lexer.rewind(before);
            }
            return self.fail(unknown_instruction(word));
        };
        if let Some(at) = line.text().find('\0') {
            let message = "a NUL character can't stand in an instruction";
            return self.fail(Diagnostic::new(line.part(at, at + 1).span(), message));
        }
        let errors_before = self.errors.len();
        let (flags, args) = Flags::split(rest, self.escape);
        let kind = match name {
            "RUN" => self.run(line, &flags, args),
            "COPY" | "ADD" => self.copy_or_add(name, line, &flags, args),
            "ONBUILD" => self.onbuild(line, &flags, args),
            _ => {
                self.check_flags(name, &flags, known_flags(name));
                self.plain(name, line, &flags, args)
            }
        };
        let mut span = line.span();
        if let Ok(kind) = &kind
            && !heredocs_of(kind).is_empty()
        {
            span.end = self.lexer.last_end();
        }
        match kind {
            Ok(kind) if self.errors.len() == errors_before => Ok(Instruction {
                span,
                raw: line.text().to_owned(),
                kind,
            }),
            _ => Err(Failed),
        }
    }

    fn check_flags(&mut self, name: &str, flags: &Flags, known: &[(&str, Kind)]) {
        self.errors.extend(flags.check(name, known));
    }

    /// Reads a JSON array of strings; nothing where it isn't one, which makes it a shell form.
    fn json(&mut self, args: Slice<'_>) -> Result<Option<Vec<String>>, Failed> {
        if !args.text().starts_with('[') {
            return Ok(None);
        }
        let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(args.text()) else {
            return Ok(None);
        };
        let strings = values.into_iter().map(|value| match value {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        });
        match strings.collect::<Option<Vec<String>>>() {
            Some(strings) => Ok(Some(strings)),
            None => self.fail(
                Diagnostic::new(args.span(), "a JSON array here must hold strings only")
                    .hinted("put each element into double quotes"),
            ),
        }
    }

    fn command(&mut self, args: Slice<'_>) -> Result<Command, Failed> {
        Ok(match self.json(args)? {
            Some(arguments) => Command::Exec(arguments),
            None => Command::Shell(args.text().to_owned()),
        })
    }

    /// Reads a JSON array, or words between blanks.
    fn list(&mut self, args: Slice<'_>) -> Result<(Vec<Word>, bool), Failed> {
        Ok(match self.json(args)? {
            Some(strings) => {
                let span = args.span();
                let words = strings.into_iter().map(|text| Word { text, span });
                (words.collect(), true)
            }
            None => (args.split_blanks().into_iter().map(word).collect(), false),
        })
    }

    fn run(
        &mut self,
        line: Slice<'_>,
        flags: &Flags,
        args: Slice<'_>,
    ) -> Result<InstructionKind, Failed> {
        let command = self.command(args);
        // Documents are read first: they must not be taken for instructions.
        let mut heredocs = Vec::new();
        if !matches!(command, Ok(Command::Exec(_)) | Err(_)) {
            for (opening, start, end) in heredoc::openings(args.text()) {
                heredocs.push(self.heredoc(opening, args.part(start, end).span())?);
            }
        }
        self.check_flags("RUN", flags, known_flags("RUN"));
        let command = command?;
        if matches!(&command, Command::Exec(arguments) if arguments.is_empty()) {
            return self.fail(Diagnostic::new(line.span(), "RUN [] runs nothing"));
        }
        let mut mounts = Vec::new();
        for value in flags.texts("mount") {
            match Mount::parse(&value, value.span) {
                Ok(mount) => mounts.push(mount),
                Err(error) => self.errors.push(error.at(value.span)),
            }
        }
        let network = [
            ("default", Network::Default),
            ("none", Network::None),
            ("host", Network::Host),
        ];
        let security = [
            ("sandbox", Security::Sandbox),
            ("insecure", Security::Insecure),
        ];
        Ok(InstructionKind::Run(Run {
            mounts,
            network: self.one_of(flags, "network", &network)?,
            security: self.one_of(flags, "security", &security)?,
            devices: flags.texts("device"),
            command,
            heredocs,
        }))
    }

    fn one_of<T: Copy>(
        &mut self,
        flags: &Flags,
        name: &str,
        values: &[(&str, T)],
    ) -> Result<Option<T>, Failed> {
        let Some(word) = flags.text(name) else {
            return Ok(None);
        };
        if let Some((_, value)) = values.iter().find(|(text, _)| *text == word.text) {
            return Ok(Some(*value));
        }
        let names: Vec<&str> = values.iter().map(|(text, _)| *text).collect();
        let hint = did_you_mean(&word.text, names.iter().copied())
            .unwrap_or_else(|| format!("it can be {}", names.join(", ")));
        let finding = Diagnostic::new(word.span, format!("invalid --{name}: {:?}", word.text));
        self.fail(finding.hinted(hint))
    }

    fn copy_or_add(
        &mut self,
        name: &str,
        line: Slice<'_>,
        flags: &Flags,
        args: Slice<'_>,
    ) -> Result<InstructionKind, Failed> {
        let (words, json) = self.list(args)?;
        let mut sources = Vec::new();
        for word in words {
            let opening = match json {
                true => None,
                false => heredoc::parse_opening(&word.text),
            };
            sources.push(match opening {
                Some(opening) => SourceArg::Heredoc(self.heredoc(opening, word.span)?),
                None => SourceArg::Path(word),
            });
        }
        self.check_flags(name, flags, known_flags(name));
        let destination = match sources.pop() {
            Some(SourceArg::Path(word)) if !sources.is_empty() => word,
            Some(SourceArg::Heredoc(document)) => {
                let message = format!("a heredoc can't be the destination of {name}");
                return self.fail(Diagnostic::new(document.span, message));
            }
            _ => {
                return self.fail(
                    Diagnostic::new(
                        line.span(),
                        format!("{name} needs at least one source and a destination"),
                    )
                    .hinted(format!("write {name} source… destination")),
                );
            }
        };
        let bare = sources.iter().find_map(|source| match source {
            SourceArg::Path(word) if !json && matches!(word.text.as_str(), "<<" | "<<-") => {
                Some(word.span)
            }
            _ => None,
        });
        if let Some(span) = bare {
            let finding = Diagnostic::new(span, "<< without a delimiter");
            return self.fail(finding.hinted("no blank may stand between << and the delimiter"));
        }
        let files = Files {
            sources,
            destination,
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.switch("link").unwrap_or(false),
            excludes: flags.texts("exclude"),
        };
        self.check_owner_and_mode(&files);
        if name == "ADD" {
            let checksum = flags.text("checksum");
            if let Some(word) = &checksum
                && files.sources.len() != 1
            {
                let message = "--checksum needs a single source";
                self.errors.push(Diagnostic::new(word.span, message));
            }
            return Ok(InstructionKind::Add(AddFiles {
                files,
                checksum,
                keep_git_dir: flags.switch("keep-git-dir"),
                unpack: flags.switch("unpack"),
            }));
        }
        let from = flags.text("from");
        if let Some(word) = &from
            && word.has_variables()
        {
            self.errors
                .push(Diagnostic::new(word.span, "--from can't hold variables").hinted(ALIAS_HINT));
        }
        Ok(InstructionKind::Copy(CopyFiles {
            files,
            from,
            parents: flags.switch("parents").unwrap_or(false),
        }))
    }

    fn check_owner_and_mode(&mut self, files: &Files) {
        if let Some(word) = files.chown.as_ref().filter(|word| is_literal(word))
            && let Err(error) = UserSpec::parse(&word.text)
        {
            let finding = Diagnostic::new(word.span, error.to_string());
            self.errors.push(finding.maybe_hinted(error.hint()));
        }
        if let Some(word) = files.chmod.as_ref().filter(|word| is_literal(word))
            && let Err(error) = Chmod::parse(&word.text)
        {
            let finding = Diagnostic::new(word.span, error.to_string());
            self.errors.push(finding.maybe_hinted(error.hint()));
        }
    }

    fn heredoc(&mut self, opening: Opening, span: Span) -> Result<Heredoc, Failed> {
        match self.lexer.heredoc_body(&opening.name, opening.strip_tabs) {
            Some(body) => Ok(Heredoc {
                name: opening.name,
                expands: opening.expands,
                strip_tabs: opening.strip_tabs,
                body: body.to_owned(),
                span,
            }),
            None => {
                self.unterminated = true;
                let name = opening.name;
                self.fail(
                    Diagnostic::new(span, "unterminated heredoc")
                        .hinted(format!("it ends with a line that is just {name}")),
                )
            }
        }
    }

    fn onbuild(
        &mut self,
        line: Slice<'_>,
        flags: &Flags,
        args: Slice<'_>,
    ) -> Result<InstructionKind, Failed> {
        self.check_flags("ONBUILD", flags, &[]);
        if args.text().is_empty() {
            let message = "ONBUILD needs an instruction";
            return self.fail(Diagnostic::new(line.span(), message));
        }
        let instruction = self.trigger(args)?;
        Ok(InstructionKind::OnBuild(OnBuild {
            raw: with_heredocs(args.text(), heredocs_of(&instruction.kind).as_slice()),
            instruction: Box::new(instruction),
        }))
    }

    /// Parses what stands behind ONBUILD.
    fn trigger(&mut self, args: Slice<'_>) -> Result<Instruction, Failed> {
        let (word, _) = args.split_first();
        let name = word.text().to_ascii_uppercase();
        if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            let message = format!("{name} can't be an ONBUILD trigger");
            return self.fail(Diagnostic::new(word.span(), message));
        }
        self.instruction(args)
    }
}

fn word(slice: Slice<'_>) -> Word {
    Word {
        text: slice.text().to_owned(),
        span: slice.span(),
    }
}

/// Tells whether expansion can't change the word, so that it may be checked at once.
fn is_literal(word: &Word) -> bool {
    !word.text.contains(['$', '\\', '`', '"', '\''])
}

fn heredocs_of(kind: &InstructionKind) -> Vec<Heredoc> {
    let in_files = |files: &Files| {
        let documents = files.sources.iter().filter_map(|source| match source {
            SourceArg::Heredoc(document) => Some(document.clone()),
            SourceArg::Path(_) => None,
        });
        documents.collect()
    };
    match kind {
        InstructionKind::Run(run) => run.heredocs.clone(),
        InstructionKind::Copy(copy) => in_files(&copy.files),
        InstructionKind::Add(add) => in_files(&add.files),
        InstructionKind::OnBuild(trigger) => heredocs_of(&trigger.instruction.kind),
        _ => Vec::new(),
    }
}

fn known_flags(instruction: &str) -> &'static [(&'static str, Kind)] {
    match instruction {
        "RUN" => &[
            ("mount", Kind::Texts),
            ("network", Kind::Text),
            ("security", Kind::Text),
            ("device", Kind::Texts),
        ],
        "COPY" => &[
            ("from", Kind::Text),
            ("chown", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("parents", Kind::Bool),
            ("exclude", Kind::Texts),
        ],
        "ADD" => &[
            ("chown", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("exclude", Kind::Texts),
            ("checksum", Kind::Text),
            ("keep-git-dir", Kind::Bool),
            ("unpack", Kind::Bool),
        ],
        "FROM" => &[("platform", Kind::Text)],
        "HEALTHCHECK" => &[
            ("interval", Kind::Text),
            ("timeout", Kind::Text),
            ("start-period", Kind::Text),
            ("start-interval", Kind::Text),
            ("retries", Kind::Text),
        ],
        _ => &[],
    }
}
