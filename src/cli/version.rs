//! `kiln version`.

use std::process::ExitCode;

use super::{Result, output_line};
use crate::image::Platform;

/// Arguments of `kiln version`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long, value_parser = ["json"])]
    format: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let platform = Platform::host().to_string();
    if arguments.format.is_some() {
        let json = serde_json::json!({ "Version": version, "Platform": platform });
        output_line(&json.to_string())?;
    } else {
        output_line(&format!("kiln {version} ({platform})"))?;
    }
    Ok(ExitCode::SUCCESS)
}
