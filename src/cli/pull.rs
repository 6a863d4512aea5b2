//! `kiln pull`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::connection::Connection;
use super::session::{self, Workshop};
use super::{Result, output_line};
use crate::copy::{CopyError, Plan, RegistryOrigin, StoreGoal, Which, copy};
use crate::event::Verb;
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
    /// Download the images for all platforms, so that they can be pushed and copied together
    #[arg(long)]
    all_platforms: bool,
    /// Print the id only
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let platform = session::platform(arguments.platform.as_deref())?;
    let workshop = Workshop::enter(root)?;
    let client = arguments.connection.client(&workshop)?;
    let (reference, pulled) =
        workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
            let (reference, pulled) =
                transfer::pull_named(transfer, &client, &arguments.image, &platform)?;
            if arguments.all_platforms {
                // What the name stands for now may be another index.
                let origin = RegistryOrigin::new(&client, reference.with_digest(&pulled.digest));
                let plan = Plan::make(&origin, &Which::All)?;
                let goal = StoreGoal::new(transfer);
                copy(transfer, &plan, &origin, &goal, Verb::Pull)?;
                goal.note_layers(&plan)?;
            }
            Ok::<_, CopyError>((reference, pulled))
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
