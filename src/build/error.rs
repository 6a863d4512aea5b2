//! Why a build fails, and where in the Dockerfile.

use std::path::PathBuf;
use std::sync::Arc;

use kiln_runtime::Exit;

use crate::context::ContextError;
use crate::dockerfile::{Diagnostic, Diagnostics, Source, Span};
use crate::event::StepOutcome;
use crate::fetch::FetchError;
use crate::store::StoreError;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The context or the Dockerfile can't be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The Dockerfile is wrong, or one of its instructions can't be carried out.
    #[error("{diagnostics}")]
    Dockerfile {
        /// What is wrong, and where.
        diagnostics: Diagnostics,
        /// The text that it is in.
        source_text: Arc<Source>,
    },
    /// Something from elsewhere.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// One stream for two things.
    #[error("the build context and the Dockerfile can't both come from standard input")]
    StdinTwice,
    /// A Dockerfile as context, and another by `-f`.
    #[error("{place} is a Dockerfile, and -f names another one")]
    TwoDockerfiles {
        /// What was given as context.
        place: String,
    },
    /// A compressed stream of something else.
    #[error("{place} is compressed, and no tar archive")]
    NoArchive {
        /// What was given as context.
        place: String,
    },
    /// Something for a browser.
    #[error("{url} is a web page, and neither an archive nor a Dockerfile")]
    WebPage {
        /// What was given as context.
        url: String,
    },
    /// A context that would have to be fetched or unpacked, for checks alone.
    #[error("a Dockerfile is checked in a directory or from standard input, not in {place}")]
    CheckElsewhere {
        /// What was given as context.
        place: String,
    },
    /// Checks found something, and the file makes that an error.
    #[error("checks found something, and error=true makes that an error: {0}")]
    Checks(String),
    /// A command failed.
    #[error("step failed: {}", .0.step)]
    Run(Box<RunFailure>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was stopped from outside.
    #[error("the build was canceled")]
    Canceled,
}

impl BuildError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            BuildError::Context(error) => error.hint(),
            BuildError::Dockerfile { diagnostics, .. } => diagnostics.hint(),
            BuildError::Store(error) => error.hint(),
            BuildError::Fetch(error) => error.hint(),
            BuildError::WebPage { url } => Some(format!(
                "a git repository is named with its ending: {}.git",
                url.trim_end_matches('/')
            )),
            BuildError::StdinTwice => Some(
                "give the directory as context and the Dockerfile as -f -, or put the Dockerfile \
                 into the archive"
                    .to_owned(),
            ),
            BuildError::TwoDockerfiles { .. } => {
                Some("leave -f away, or give a directory or an archive as context".to_owned())
            }
            BuildError::CheckElsewhere { .. } => {
                Some("get it first, and name the directory".to_owned())
            }
            BuildError::Checks(_) => Some("kiln build --check shows where".to_owned()),
            _ => None,
        }
    }
}

/// A RUN whose command failed.
#[derive(Debug)]
pub struct RunFailure {
    /// The name of the step.
    pub step: String,
    /// The Dockerfile.
    pub source: Arc<Source>,
    /// The instruction in it.
    pub span: Span,
    /// The command line.
    pub command: Vec<String>,
    /// How it ended.
    pub exit: Exit,
    /// The end of its output.
    pub output: Vec<u8>,
    /// The file with all of its output.
    pub log: Option<PathBuf>,
    /// What may have been the reason, and what to do.
    pub hint: Option<String>,
}

/// Why one instruction could not be carried out; the caller knows where it stands.
#[derive(Debug)]
pub(super) enum Trouble {
    /// For people.
    Message {
        text: String,
        hint: Option<String>,
        /// The words that it is about, where it is not all of the instruction.
        span: Option<Span>,
    },
    /// A command that failed.
    Run(Box<RunFailure>),
    /// The build is ending for another reason.
    Canceled,
}

/// The result of one instruction.
pub(super) type Step<T> = Result<T, Trouble>;

impl Trouble {
    pub(super) fn new(text: impl Into<String>) -> Trouble {
        Trouble::maybe_hinted(text, None)
    }

    pub(super) fn hinted(text: impl Into<String>, hint: impl Into<String>) -> Trouble {
        Trouble::maybe_hinted(text, Some(hint.into()))
    }

    pub(super) fn maybe_hinted(text: impl Into<String>, hint: Option<String>) -> Trouble {
        Trouble::Message {
            text: text.into(),
            hint,
            span: None,
        }
    }

    /// Says which words of the instruction it is about.
    pub(super) fn about(mut self, words: Span) -> Trouble {
        if let Trouble::Message { span, .. } = &mut self {
            span.get_or_insert(words);
        }
        self
    }

    fn of(error: &dyn std::error::Error, hint: Option<String>) -> Trouble {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.contains(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        Trouble::maybe_hinted(text, hint)
    }

    /// Adds that an image was looked for because no stage has its name, where the name looks
    /// like that of a stage.
    pub(super) fn with_stage_hint(self, name: &str) -> Trouble {
        match self {
            Trouble::Message { text, hint, span } if !name.contains(['/', ':', '@', '.']) => {
                Trouble::Message {
                    text: format!("no stage is named {name}, and as an image: {text}"),
                    hint,
                    span,
                }
            }
            other => other,
        }
    }

    /// Returns the error of the build that this is at a place of the Dockerfile.
    pub(super) fn at(self, source: &Arc<Source>, span: Span) -> BuildError {
        match self {
            Trouble::Message {
                text,
                hint,
                span: words,
            } => BuildError::Dockerfile {
                diagnostics: Diagnostics::from(
                    Diagnostic::new(words.unwrap_or(span), text).maybe_hinted(hint),
                ),
                source_text: source.clone(),
            },
            Trouble::Run(failure) => BuildError::Run(failure),
            Trouble::Canceled => BuildError::Canceled,
        }
    }

    /// Returns how a step ends that has this trouble.
    pub(super) fn outcome(&self) -> (StepOutcome, Option<String>) {
        match self {
            Trouble::Canceled => (StepOutcome::Canceled, None),
            trouble => (StepOutcome::Failed, Some(trouble.summary())),
        }
    }

    /// Returns one line for the progress.
    fn summary(&self) -> String {
        match self {
            Trouble::Message { text, .. } => text.clone(),
            Trouble::Run(failure) => match failure.exit {
                Exit::Code(code) => format!("exit code: {code}"),
                Exit::Signal(signal) => format!("killed by signal {signal}"),
            },
            Trouble::Canceled => "canceled".to_owned(),
        }
    }
}

macro_rules! troubles {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Trouble {
            fn from(error: $error) -> Trouble {
                Trouble::of(&error, error.hint())
            }
        })*
    };
}

troubles!(
    BuildError,
    FetchError,
    crate::archive::ArchiveError,
    crate::context::ContextError,
    crate::fetch::LocationError,
    crate::dockerfile::ExpandError,
    crate::dockerfile::MetadataError,
    crate::dockerfile::MountError,
    crate::layer::LayerError,
    crate::registry::SetupError,
    crate::sandbox::SandboxError,
    crate::sandbox::UserError,
    crate::store::StoreError,
    crate::transfer::TransferError,
    kiln_runtime::Error,
);
