//! The syntax tree: stages and their instructions, unexpanded.

use crate::image::Healthcheck;

use super::heredoc::{Heredoc, parse_opening};
use super::{Mount, Span, Word};

/// A parsed Dockerfile.
#[derive(Clone, Debug, PartialEq)]
pub struct Dockerfile {
    /// The escape character: backslash, or a back-tick by directive.
    pub escape: char,
    /// The value of the `syntax` directive. It is never fetched.
    pub syntax: Option<String>,
    /// The value of the `check` directive.
    pub check: Option<String>,
    /// The ARG instructions before the first FROM.
    pub global_args: Vec<Instruction>,
    /// The stages, at least one.
    pub stages: Vec<Stage>,
    /// Empty lines within instructions, which are skipped.
    pub empty_continuations: Vec<super::Span>,
}

/// One FROM and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Its place in the file, from 0.
    pub index: usize,
    /// Its name in lower case.
    pub name: Option<String>,
    /// The FROM line.
    pub from: From,
    /// What follows.
    pub instructions: Vec<Instruction>,
    /// From FROM to the end of the last instruction.
    pub span: Span,
}

impl Stage {
    /// Returns the name that people know the stage by: its own, or `stage-N`.
    pub fn display_name(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("stage-{}", self.index),
        }
    }

    /// Returns the triggers that this stage leaves to those built from it.
    pub fn triggers(&self) -> impl Iterator<Item = &OnBuild> {
        self.instructions.iter().filter_map(|i| match &i.kind {
            InstructionKind::OnBuild(trigger) => Some(trigger),
            _ => None,
        })
    }
}

/// A FROM line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// The image or stage, with variables of the global scope.
    pub base: Word,
    /// `--platform`, with variables of the global scope.
    pub platform: Option<Word>,
    /// The name behind AS, in lower case.
    pub name: Option<String>,
    /// The whole line.
    pub span: Span,
    /// The text of the line.
    pub raw: String,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// From its name to the end of its last line, heredocs included.
    pub span: Span,
    /// Its text: continuation lines joined, comments dropped, without heredoc bodies.
    pub raw: String,
    /// What it says.
    pub kind: InstructionKind,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq)]
pub enum InstructionKind {
    /// Copies files, downloads and extracts.
    Add(AddFiles),
    /// Declares build arguments.
    Arg(Vec<ArgItem>),
    /// Sets the default command.
    Cmd(Command),
    /// Copies files.
    Copy(CopyFiles),
    /// Sets the fixed head of the command line.
    Entrypoint(Command),
    /// Sets environment variables.
    Env(Vec<KeyValue>),
    /// Names ports; each word may become several, see [`Word::expand_words`].
    Expose(Vec<Word>),
    /// Begins a stage; found in [`Stage::from`] and never among a stage's instructions.
    From(From),
    /// Says how to find out whether a container works.
    Healthcheck(Healthcheck),
    /// Sets labels.
    Label(Vec<KeyValue>),
    /// Names the author.
    Maintainer(String),
    /// Leaves an instruction to images built from this one.
    OnBuild(OnBuild),
    /// Runs a command.
    Run(Run),
    /// Sets the shell of shell forms.
    Shell(Vec<String>),
    /// Sets the signal that stops a container, see [`super::parse_signal`].
    StopSignal(Word),
    /// Sets the user, see [`super::UserSpec`].
    User(Word),
    /// Names volumes.
    Volume(Vec<Word>),
    /// Sets the working directory.
    Workdir(Word),
}

impl InstructionKind {
    /// Returns the instruction's name in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            InstructionKind::Add(_) => "ADD",
            InstructionKind::Arg(_) => "ARG",
            InstructionKind::Cmd(_) => "CMD",
            InstructionKind::Copy(_) => "COPY",
            InstructionKind::Entrypoint(_) => "ENTRYPOINT",
            InstructionKind::Env(_) => "ENV",
            InstructionKind::Expose(_) => "EXPOSE",
            InstructionKind::From(_) => "FROM",
            InstructionKind::Healthcheck(_) => "HEALTHCHECK",
            InstructionKind::Label(_) => "LABEL",
            InstructionKind::Maintainer(_) => "MAINTAINER",
            InstructionKind::OnBuild(_) => "ONBUILD",
            InstructionKind::Run(_) => "RUN",
            InstructionKind::Shell(_) => "SHELL",
            InstructionKind::StopSignal(_) => "STOPSIGNAL",
            InstructionKind::User(_) => "USER",
            InstructionKind::Volume(_) => "VOLUME",
            InstructionKind::Workdir(_) => "WORKDIR",
        }
    }
}

/// One name of an ARG, which is not expanded, and its default, which is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgItem {
    /// The name.
    pub name: String,
    /// The default; `ARG X=` has an empty one.
    pub default: Option<Word>,
    /// Where both stand.
    pub span: Span,
}

/// One pair of ENV or LABEL; both parts are expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The name.
    pub name: Word,
    /// The value.
    pub value: Word,
    /// Whether it is the old form, `ENV NAME the whole rest`.
    pub legacy: bool,
}

/// A command line in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The text for the shell.
    Shell(String),
    /// Program and arguments, from a JSON array.
    Exec(Vec<String>),
}

/// A RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Option<Network>,
    /// `--security`.
    pub security: Option<Security>,
    /// `--device`, in order, as written.
    pub devices: Vec<Word>,
    /// The command; its heredocs are not part of the text, see [`Run::invocation`].
    pub command: Command,
    /// The documents that the command opens.
    pub heredocs: Vec<Heredoc>,
}

/// What a RUN really executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// A text for the shell; the shell sees heredocs as they stand in the file.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
    /// A sole heredoc with `#!`: an executable file of that name and content.
    Script {
        /// The delimiter.
        name: String,
        /// The document.
        content: String,
    },
}

impl Run {
    /// Returns what is executed, with heredocs resolved: a sole heredoc is the script
    /// itself, anything else is rebuilt as the shell expects it. Nothing is expanded.
    pub fn invocation(&self) -> Invocation {
        let text = match &self.command {
            Command::Exec(arguments) => return Invocation::Exec(arguments.clone()),
            Command::Shell(text) => text,
        };
        match (self.script(), self.heredocs.as_slice()) {
            (Some(script), _) => {
                let content = script.content();
                match content.starts_with("#!") {
                    true => Invocation::Script {
                        name: script.name.clone(),
                        content,
                    },
                    false => Invocation::Shell(content),
                }
            }
            (None, []) => Invocation::Shell(text.clone()),
            (None, several) => Invocation::Shell(with_heredocs(text, several)),
        }
    }

    /// Returns the document that is itself what is executed.
    fn script(&self) -> Option<&Heredoc> {
        match (&self.command, self.heredocs.as_slice()) {
            (Command::Shell(text), [only]) if parse_opening(text).is_some() => Some(only),
            _ => None,
        }
    }

    /// Returns what tells one `RUN <<EOF` from the next, as docker shows it: the first line,
    /// with dots where there are more.
    pub fn script_summary(&self) -> Option<String> {
        let content = self.script()?.content();
        let mut lines = content.trim().lines();
        let first = lines.next().unwrap_or_default();
        let more = if lines.next().is_some() { "..." } else { "" };
        Some(format!("{first}{more}"))
    }
}

/// Returns a command line with its documents behind it, as a shell reads them.
pub(super) fn with_heredocs(text: &str, heredocs: &[Heredoc]) -> String {
    let mut out = text.to_owned();
    for heredoc in heredocs {
        out.push('\n');
        out.push_str(&heredoc.body);
        out.push_str(&heredoc.name);
    }
    out
}

/// The network of a RUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// What the build has.
    Default,
    /// A loopback only.
    None,
    /// The host's.
    Host,
}

/// The confinement of a RUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// As usual.
    Sandbox,
    /// All privileges.
    Insecure,
}

/// What COPY and ADD have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// What is copied, in order.
    pub sources: Vec<SourceArg>,
    /// Where to.
    pub destination: Word,
    /// `--chown`, see [`super::UserSpec`].
    pub chown: Option<Word>,
    /// `--chmod`, see [`super::Chmod`].
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--exclude`, in order: patterns as in .dockerignore.
    pub excludes: Vec<Word>,
}

/// One source of COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceArg {
    /// A path, a pattern, or for ADD a URL or git reference.
    Path(Word),
    /// A document within the Dockerfile.
    Heredoc(Heredoc),
}

/// A COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFiles {
    /// What goes where.
    pub files: Files,
    /// `--from`: a stage, its number, a context or an image; never expanded.
    pub from: Option<Word>,
    /// `--parents`.
    pub parents: bool,
}

/// An ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddFiles {
    /// What goes where.
    pub files: Files,
    /// `--checksum`.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// An ONBUILD.
#[derive(Clone, Debug, PartialEq)]
pub struct OnBuild {
    /// The trigger's text, heredocs included, as the image config keeps it.
    pub raw: String,
    /// The trigger.
    pub instruction: Box<Instruction>,
}
