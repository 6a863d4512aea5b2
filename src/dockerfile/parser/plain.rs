//! Instructions that have neither heredocs nor other instructions within them: most of them
//! change the image config only.

use crate::image::Healthcheck;

use super::super::duration::parse_duration;
use super::super::instruction::{ArgItem, Command, From, InstructionKind, KeyValue};
use super::super::lexer::Slice;
use super::super::ports::{parse_ports, parse_signal};
use super::super::{Diagnostic, Word};
use super::{Failed, Flags, Parser, is_literal, word};

impl Parser<'_> {
    /// Parses the instructions that have neither heredocs nor others within them.
    pub(super) fn plain(
        &mut self,
        name: &str,
        line: Slice<'_>,
        flags: &Flags,
        args: Slice<'_>,
    ) -> Result<InstructionKind, Failed> {
        Ok(match name {
            "ARG" => InstructionKind::Arg(self.arg(line, args)?),
            "CMD" => InstructionKind::Cmd(self.command(args)?),
            "ENTRYPOINT" => InstructionKind::Entrypoint(self.command(args)?),
            "ENV" => InstructionKind::Env(self.pairs(name, line, args)?),
            "LABEL" => InstructionKind::Label(self.pairs(name, line, args)?),
            "EXPOSE" => InstructionKind::Expose(self.expose(line, args)?),
            "FROM" => InstructionKind::From(self.from(line, flags, args)?),
            "HEALTHCHECK" => InstructionKind::Healthcheck(self.healthcheck(line, flags, args)?),
            "MAINTAINER" => InstructionKind::Maintainer(self.whole(name, line, args)?.text),
            "SHELL" => InstructionKind::Shell(self.shell(args)?),
            "STOPSIGNAL" => {
                let word = self.whole(name, line, args)?;
                if is_literal(&word)
                    && let Err(error) = parse_signal(&word.text)
                {
                    let finding = Diagnostic::new(word.span, error.to_string());
                    return self.fail(finding.maybe_hinted(error.hint()));
                }
                InstructionKind::StopSignal(word)
            }
            "USER" => InstructionKind::User(self.whole(name, line, args)?),
            "VOLUME" => InstructionKind::Volume(self.volume(line, args)?),
            _ => InstructionKind::Workdir(self.whole(name, line, args)?),
        })
    }

    /// Takes all arguments as one word.
    fn whole(&mut self, name: &str, line: Slice<'_>, args: Slice<'_>) -> Result<Word, Failed> {
        if args.text().is_empty() {
            let message = format!("{name} needs exactly one argument");
            return self.fail(Diagnostic::new(line.span(), message));
        }
        Ok(word(args))
    }

    fn arg(&mut self, line: Slice<'_>, args: Slice<'_>) -> Result<Vec<ArgItem>, Failed> {
        let words = args.split_quoted(self.escape);
        if words.is_empty() {
            let message = "ARG needs at least one argument";
            return self.fail(Diagnostic::new(line.span(), message));
        }
        let mut items = Vec::new();
        for slice in words {
            let text = slice.text();
            let (name, default) = match text.find('=') {
                Some(at) => (&text[..at], Some(word(slice.from(at + 1)))),
                None => (text, None),
            };
            if name.is_empty() {
                let message = "a name in ARG can't be blank";
                return self.fail(Diagnostic::new(slice.span(), message));
            }
            items.push(ArgItem {
                name: name.to_owned(),
                default,
                span: slice.span(),
            });
        }
        Ok(items)
    }

    /// Reads `NAME=value …`, or the old form `NAME value`.
    fn pairs(
        &mut self,
        name: &str,
        line: Slice<'_>,
        args: Slice<'_>,
    ) -> Result<Vec<KeyValue>, Failed> {
        let words = args.split_quoted(self.escape);
        let Some(first) = words.first() else {
            let message = format!("{name} needs at least one argument");
            return self.fail(Diagnostic::new(line.span(), message));
        };
        if !first.text().contains('=') {
            let (key, value) = args.split_first();
            if value.text().is_empty() {
                return self.fail(
                    Diagnostic::new(line.span(), format!("{name} needs a name and a value"))
                        .hinted(format!("write {name} {}=value", key.text())),
                );
            }
            return Ok(vec![KeyValue {
                name: word(key),
                value: word(value),
                legacy: true,
            }]);
        }
        let mut pairs = Vec::new();
        for slice in words {
            let Some(at) = slice.text().find('=') else {
                return self.fail(
                    Diagnostic::new(slice.span(), format!("missing = in {:?}", slice.text()))
                        .hinted(format!(
                            "{name} takes name=value; quote a value that holds blanks"
                        )),
                );
            };
            if at == 0 {
                let message = format!("a name in {name} can't be blank");
                return self.fail(Diagnostic::new(slice.span(), message));
            }
            pairs.push(KeyValue {
                name: word(slice.part(0, at)),
                value: word(slice.from(at + 1)),
                legacy: false,
            });
        }
        Ok(pairs)
    }

    fn expose(&mut self, line: Slice<'_>, args: Slice<'_>) -> Result<Vec<Word>, Failed> {
        let words: Vec<Word> = args.split_blanks().into_iter().map(word).collect();
        if words.is_empty() {
            let message = "EXPOSE needs at least one argument";
            return self.fail(Diagnostic::new(line.span(), message));
        }
        for word in words.iter().filter(|word| is_literal(word)) {
            if let Err(error) = parse_ports(std::slice::from_ref(&word.text)) {
                let finding = Diagnostic::new(word.span, error.to_string());
                return self.fail(finding.maybe_hinted(error.hint()));
            }
        }
        Ok(words)
    }

    fn from(&mut self, line: Slice<'_>, flags: &Flags, args: Slice<'_>) -> Result<From, Failed> {
        let words = args.split_blanks();
        let (base, name) = match words.as_slice() {
            [base] => (*base, None),
            [base, keyword, name] if keyword.text().eq_ignore_ascii_case("as") => {
                (*base, Some(self.stage_name(*name)?))
            }
            _ => {
                return self.fail(
                    Diagnostic::new(line.span(), "FROM needs an image, or an image AS a name")
                        .hinted("write FROM image, or FROM image AS name"),
                );
            }
        };
        Ok(From {
            base: word(base),
            platform: flags.text("platform"),
            name,
            span: line.span(),
            raw: line.text().to_owned(),
        })
    }

    fn stage_name(&mut self, slice: Slice<'_>) -> Result<String, Failed> {
        let name = slice.text().to_lowercase();
        let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
        if !valid {
            return self.fail(
                Diagnostic::new(
                    slice.span(),
                    format!("invalid stage name {:?}", slice.text()),
                )
                .hinted("a name starts with a letter and holds letters, digits, - _ and ."),
            );
        }
        Ok(name)
    }

    fn healthcheck(
        &mut self,
        line: Slice<'_>,
        flags: &Flags,
        args: Slice<'_>,
    ) -> Result<Healthcheck, Failed> {
        let (kind, rest) = args.split_first();
        match kind.text().to_ascii_uppercase().as_str() {
            "NONE" if rest.text().is_empty() => {
                return Ok(Healthcheck {
                    test: vec!["NONE".to_owned()],
                    ..Healthcheck::default()
                });
            }
            "NONE" => {
                let message = "HEALTHCHECK NONE takes no arguments";
                return self.fail(Diagnostic::new(rest.span(), message));
            }
            "CMD" => {}
            "" => {
                let finding = Diagnostic::new(line.span(), "HEALTHCHECK needs an argument");
                return self.fail(finding.hinted("write HEALTHCHECK CMD command, or NONE"));
            }
            other => {
                let finding =
                    Diagnostic::new(kind.span(), format!("unknown kind of HEALTHCHECK: {other}"));
                return self.fail(finding.hinted("write HEALTHCHECK CMD command, or NONE"));
            }
        }
        let test = match self.command(rest)? {
            Command::Exec(arguments) if !arguments.is_empty() => {
                let mut test = vec!["CMD".to_owned()];
                test.extend(arguments);
                test
            }
            Command::Shell(text) if !text.is_empty() => vec!["CMD-SHELL".to_owned(), text],
            _ => {
                let message = "missing command after HEALTHCHECK CMD";
                return self.fail(Diagnostic::new(line.span(), message));
            }
        };
        Ok(Healthcheck {
            test,
            interval: self.interval(flags, "interval")?,
            timeout: self.interval(flags, "timeout")?,
            start_period: self.interval(flags, "start-period")?,
            start_interval: self.interval(flags, "start-interval")?,
            retries: self.retries(flags)?,
            ..Healthcheck::default()
        })
    }

    fn interval(&mut self, flags: &Flags, name: &str) -> Result<i64, Failed> {
        let Some(word) = flags.text(name) else {
            return Ok(0);
        };
        match parse_duration(&word.text) {
            Ok(nanoseconds) if nanoseconds == 0 || nanoseconds >= 1_000_000 => Ok(nanoseconds),
            Ok(_) => {
                let message = format!("--{name} can't be less than 1ms");
                self.fail(Diagnostic::new(word.span, message))
            }
            Err(error) => {
                let finding = Diagnostic::new(word.span, error.to_string());
                self.fail(finding.maybe_hinted(error.hint()))
            }
        }
    }

    fn retries(&mut self, flags: &Flags) -> Result<i64, Failed> {
        let Some(word) = flags.text("retries") else {
            return Ok(0);
        };
        match word.text.parse::<i32>() {
            Ok(number) if number >= 0 => Ok(number.into()),
            _ => {
                let message = format!("--retries must be a number, not {:?}", word.text);
                self.fail(Diagnostic::new(word.span, message))
            }
        }
    }

    fn shell(&mut self, args: Slice<'_>) -> Result<Vec<String>, Failed> {
        match self.json(args)? {
            Some(words) if !words.is_empty() => Ok(words),
            _ => self.fail(
                Diagnostic::new(
                    args.span(),
                    "SHELL needs a JSON array of at least one string",
                )
                .hinted("write SHELL [\"/bin/bash\", \"-c\"]"),
            ),
        }
    }

    fn volume(&mut self, line: Slice<'_>, args: Slice<'_>) -> Result<Vec<Word>, Failed> {
        let (mut words, _) = self.list(args)?;
        for word in &mut words {
            word.text = word.text.trim().to_owned();
        }
        if words.is_empty() || words.iter().any(|word| word.text.is_empty()) {
            let message = "VOLUME needs paths that aren't empty";
            return self.fail(Diagnostic::new(line.span(), message));
        }
        Ok(words)
    }
}
