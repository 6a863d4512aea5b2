//! `kiln import`.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use super::session::{self, Workshop};
use super::{CliError, Result, output_line};
use crate::archive::{self, ArchiveError, ImportOptions};
use crate::image::Reference;
use crate::ui;

/// Arguments of `kiln import`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Apply an instruction of a Dockerfile to the image, such as "CMD /bin/sh"
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// The comment in the image's history
    #[arg(short, long, value_name = "TEXT", default_value = "Imported from -")]
    message: String,
    /// The image's platform, as in linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// A tar of a root file system, compressed or not; - is standard input
    file: PathBuf,
    /// The image's name
    name: Option<String>,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let text = arguments.file.to_string_lossy();
    if text.starts_with("http://") || text.starts_with("https://") {
        let error = CliError::message("kiln import takes files only, no URL");
        return Err(error.hinted(format!("download it: curl -L '{text}' | kiln import -")));
    }
    let is_stdin = text == "-";
    if is_stdin && std::io::stdin().is_terminal() {
        return Err(ArchiveError::Terminal("read an archive from").into());
    }
    let options = ImportOptions {
        changes: arguments.change.clone(),
        message: arguments.message.clone(),
        platform: session::platform(arguments.platform.as_deref())?,
        created: jiff::Timestamp::now().to_string(),
        name: match &arguments.name {
            Some(name) => Some(name.parse::<Reference>()?),
            None => None,
        },
    };
    let file = if is_stdin {
        File::from(std::io::stdin().as_fd().try_clone_to_owned()?)
    } else {
        File::open(&arguments.file)
            .map_err(|error| CliError::message(format!("cannot read {text}: {error}")))?
    };
    let workshop = Workshop::enter(root)?;
    // It shows no progress: how much there is, only the end of the tar tells.
    let id = workshop.transfer(true, ui::Mode::Quiet, |transfer| {
        archive::import(transfer, file, &options)
    })?;
    output_line(&id.to_string())?;
    Ok(ExitCode::SUCCESS)
}
