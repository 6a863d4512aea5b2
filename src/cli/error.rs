//! Errors as a person gets to see them: the message, its causes, and what to do.

use std::error::Error;

use crate::build::{BuildError, RunFailure};
use crate::ui;

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, CliError>;

/// An error of a command.
#[derive(Debug)]
pub(crate) struct CliError {
    source: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
    /// Text that says it all already: shown in place of the message.
    rendered: Option<String>,
    code: u8,
}

/// A plain message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Message(String);

impl CliError {
    /// Returns an error with a message of its own.
    pub(crate) fn message(text: impl Into<String>) -> CliError {
        CliError {
            source: Box::new(Message(text.into())),
            hint: None,
            rendered: None,
            code: 1,
        }
    }

    /// Returns an error with a text that says it all already.
    pub(crate) fn rendered(text: String, source: impl Error + Send + Sync + 'static) -> CliError {
        CliError {
            rendered: Some(text),
            ..CliError::new(source, None)
        }
    }

    fn new(source: impl Error + Send + Sync + 'static, hint: Option<String>) -> CliError {
        CliError {
            source: Box::new(source),
            hint,
            rendered: None,
            code: 1,
        }
    }

    /// Adds what to do about it.
    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> CliError {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the exit code.
    pub(crate) fn with_code(mut self, code: u8) -> CliError {
        self.code = code;
        self
    }

    /// Returns the exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// Writes it to standard error.
    pub(crate) fn show(&self) {
        match &self.rendered {
            Some(text) => ui::say(text),
            None => ui::say(&ui::diagnostics::render_error(
                self.source.as_ref(),
                self.hint.as_deref(),
                ui::colour(),
            )),
        }
    }
}

macro_rules! hinted {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> CliError {
                let hint = error.hint();
                CliError::new(error, hint)
            }
        })*
    };
}

macro_rules! plain {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> CliError {
                CliError::new(error, None)
            }
        })*
    };
}

hinted!(
    crate::build::GivenError,
    crate::build::SecretError,
    crate::archive::ArchiveError,
    crate::archive::CacheSpecError,
    crate::archive::OutputError,
    crate::build::NamedSourceError,
    crate::copy::CopyError,
    crate::container::ContainerError,
    crate::fetch::LocationError,
    crate::image::ReferenceError,
    crate::layer::CompressorError,
    crate::layer::LayerError,
    crate::registry::CredentialsError,
    crate::registry::RegistriesError,
    crate::registry::RegistryError,
    crate::registry::SetupError,
    crate::sandbox::SandboxError,
    crate::store::StoreError,
    crate::transfer::TransferError,
    crate::ui::template::TemplateError,
    kiln_runtime::Error,
);

plain!(
    crate::image::PlatformError,
    serde_json::Error,
    std::io::Error,
);

impl From<BuildError> for CliError {
    fn from(error: BuildError) -> CliError {
        let rendered = match &error {
            BuildError::Dockerfile {
                diagnostics,
                source_text,
            } => Some(diagnostics.render(source_text)),
            BuildError::Run(failure) => Some(render_failure(failure)),
            _ => None,
        };
        let hint = error.hint();
        CliError {
            rendered,
            ..CliError::new(error, hint)
        }
    }
}

/// Returns the report of a command that failed.
fn render_failure(failure: &RunFailure) -> String {
    let (first, last) = failure.source.lines_of(failure.span);
    let excerpt = ui::failure::excerpt(&failure.source.name, &failure.source.text, first..=last);
    let report = ui::failure::Failure {
        step: &failure.step,
        excerpt: &excerpt,
        command: &failure.command,
        exit: match failure.exit {
            kiln_runtime::Exit::Code(code) => ui::failure::Exit::Code(code),
            kiln_runtime::Exit::Signal(signal) => ui::failure::Exit::Signal(signal),
        },
        output: &failure.output,
        log: failure.log.as_deref(),
        hint: failure.hint.as_deref(),
    };
    report.render(ui::colour())
}
