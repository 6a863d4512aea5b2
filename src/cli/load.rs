//! `kiln load`.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use super::session::{self, Workshop};
use super::{Result, output_line};
use crate::archive::{self, Archive, ArchiveError};
use crate::ui;

/// Arguments of `kiln load`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Read this archive or layout directory, and not standard input
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Which image of a multi-platform one, as in linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let platform = match &arguments.platform {
        Some(text) => Some(session::platform(Some(text))?),
        None => None,
    };
    let input = arguments.input.as_ref();
    let input = input.filter(|path| path.as_os_str() != "-");
    if input.is_none() && std::io::stdin().is_terminal() {
        return Err(ArchiveError::Terminal("read an archive from").into());
    }
    let workshop = Workshop::enter(root)?;
    let archive = match input {
        Some(path) => Archive::open(&workshop.session, path)?,
        None => {
            let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
            Archive::read(&workshop.session, File::from(stdin))?
        }
    };
    let loaded = workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
        archive::load(transfer, &archive, platform.as_ref())
    })?;
    for image in loaded {
        if image.names.is_empty() {
            output_line(&format!("Loaded image ID: {}", image.id))?;
        }
        for name in &image.names {
            output_line(&format!("Loaded image: {}", name.familiar()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
