//! `kiln pull`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::session::{self, Workshop};
use super::{Result, output_line};
use crate::image::Reference;
use crate::transfer;
use crate::ui;

/// Arguments of `kiln pull`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The image, as in registry/repository:tag or …@sha256:…
    image: String,
    /// Which image of a multi-platform one, as in linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// Print the id only
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    /// Don't check certificates; use plain HTTP where HTTPS fails
    #[arg(long)]
    insecure: bool,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let reference: Reference = arguments.image.parse()?;
    let platform = session::platform(arguments.platform.as_deref())?;
    let workshop = Workshop::enter(root)?;
    let client = workshop.client(arguments.insecure)?;
    let any_platform = arguments.platform.is_some();
    let pulled = workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
        transfer::pull(transfer, &client, &reference, &platform, any_platform)
    })?;
    if arguments.quiet {
        output_line(&pulled.id.to_string())?;
    } else {
        output_line(&format!("Digest: {}", pulled.digest))?;
        let status = if pulled.unchanged {
            "Image is up to date for"
        } else {
            "Downloaded newer image for"
        };
        output_line(&format!("Status: {status} {}", reference.familiar()))?;
    }
    Ok(ExitCode::SUCCESS)
}
