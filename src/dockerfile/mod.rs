//! Dockerfiles: text to syntax tree to stages. Pure, no I/O.
//!
//! [`parse`] reads a file into a [`Dockerfile`] whose words are unexpanded and know where
//! they stand. [`Dockerfile::plan`] resolves what FROM and `--from` mean and which stages a
//! target needs. While the build goes through a stage, a [`Scope`] holds its variables and
//! expands its words.
//!
//! The language is that of BuildKit's frontend, see
//! <https://docs.docker.com/reference/dockerfile/>.

pub mod check;
mod chmod;
mod diagnostic;
mod duration;
mod expand;
mod flags;
mod glob;
mod heredoc;
mod instruction;
mod lexer;
mod metadata;
mod mount;
mod parser;
mod plan;
mod ports;
mod scope;
mod source;
pub(crate) mod suggest;
mod user_spec;
mod words;

pub use chmod::{Chmod, ChmodError, Clause};
pub use diagnostic::{Diagnostic, Diagnostics, excerpt};
pub use duration::{DurationError, parse_duration};
pub use expand::{ExpandError, Lookup, Word};
pub use glob::GlobError;
pub use heredoc::Heredoc;
pub use instruction::{
    AddFiles, ArgItem, Command, CopyFiles, Dockerfile, Files, From, Instruction, InstructionKind,
    Invocation, KeyValue, Network, OnBuild, Run, Security, SourceArg, Stage,
};
pub use metadata::{MetadataError, apply_metadata, join_path};
pub use mount::{Mount, MountError, MountKind, MountSpec, Sharing};
pub use parser::{parse, parse_for, parse_onbuild_trigger};
pub use plan::{BaseRef, Plan, PlannedStage, context_name};
pub use ports::{PortError, SignalError, parse_ports, parse_signal};
pub use scope::Scope;
pub use source::{Source, Span};
pub use user_spec::{Id, UserSpec, UserSpecError};
