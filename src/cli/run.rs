//! `kiln run`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Result;
use super::attach::{self, Attachment};
use super::container::settings::SettingsArguments;
use super::detach::{self, Detached};
use super::session::Workshop;
use super::start;

/// Arguments of `kiln run`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// Run it in the background, and print the container's id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    settings: SettingsArguments,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let settings = &arguments.settings;
    let attachment = Attachment {
        stdin: settings.interactive,
        terminal: settings.tty,
    };
    if arguments.detach {
        return detach::run(|detached| {
            create_and_start(settings, root, attachment, Some(detached))
        });
    }
    attachment.check()?;
    create_and_start(settings, root, attachment, None)
}

fn create_and_start(
    settings: &SettingsArguments,
    root: Option<PathBuf>,
    attachment: Attachment,
    detached: Option<Detached>,
) -> Result<ExitCode> {
    attach::expect_signals();
    let prepare = || {
        let workshop = Workshop::enter(root)?;
        let made = settings.create(&workshop)?;
        Ok((workshop, made))
    };
    let (workshop, (container, lock)) = prepare().map_err(start::kiln_failed)?;
    start::carry_out(workshop, &container, Some(lock), attachment, detached)
}
