//! `kiln pull`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::connection::{Access, contradiction};
use super::session::{self, Workshop};
use super::{CliError, Result, output_line};
use crate::copy::{CopyError, Plan, RegistryOrigin, StoreGoal, Which, copy};
use crate::event::Verb;
use crate::image::{Platform, Reference};
use crate::registry::{Client, Reason};
use crate::transfer::{self, Pulled, Transfer, TransferError};
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
    /// Download all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print the id only
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    if arguments.all_tags && Reference::has_selector(&arguments.image) {
        return Err(contradiction(
            "tag can't be used with --all-tags/-a",
            "write the name without a tag",
        ));
    }
    let platform = session::platform(arguments.platform.as_deref())?;
    let workshop = Workshop::enter(root)?;
    let client = arguments
        .access
        .client_of(&workshop, [arguments.image.as_str()])?;
    let pull = Pull {
        arguments,
        workshop: &workshop,
        client: &client,
        platform: &platform,
    };
    match arguments.all_tags {
        true => pull.all_tags(),
        false => pull.one(),
    }
}

struct Pull<'a> {
    arguments: &'a Arguments,
    workshop: &'a Workshop,
    client: &'a Client,
    platform: &'a Platform,
}

impl Pull<'_> {
    /// Pulls what a name stands for.
    fn image(
        &self,
        transfer: &Transfer<'_>,
        name: &str,
    ) -> std::result::Result<(Reference, Pulled), CopyError> {
        let (reference, pulled) = transfer::pull_named(transfer, self.client, name, self.platform)?;
        if self.arguments.all_platforms {
            // What the name stands for now may be another index.
            let origin = RegistryOrigin::new(self.client, reference.with_digest(&pulled.digest));
            let plan = Plan::make(&origin, &Which::All)?;
            let goal = StoreGoal::new(transfer);
            copy(transfer, &plan, &origin, &goal, Verb::Pull)?;
            goal.note_layers(&plan)?;
        }
        Ok((reference, pulled))
    }

    fn one(&self) -> Result<ExitCode> {
        let Arguments {
            image,
            quiet,
            progress,
            ..
        } = self.arguments;
        let (reference, pulled) = self
            .workshop
            .transfer(*quiet, *progress, |transfer| self.image(transfer, image))?;
        if *quiet {
            output_line(&pulled.id.to_string())?;
        } else {
            output_line(&format!("Digest: {}", pulled.digest))?;
            self.say_status(pulled.unchanged, &reference.familiar())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Pulls all tags of a repository. One that can't be used is told, and the others come.
    fn all_tags(&self) -> Result<ExitCode> {
        let Arguments {
            image,
            quiet,
            progress,
            ..
        } = self.arguments;
        let names = transfer::tags_named(self.client, image)?;
        let Some(first) = names.first() else {
            return Err(CliError::message(format!("{image} has no tags")));
        };
        let repository = first.familiar_repository();
        let (mut unchanged, mut code) = (true, ExitCode::SUCCESS);
        for name in &names {
            if !*quiet {
                let tag = name.tag().unwrap_or_default();
                output_line(&format!("{tag}: Pulling from {}", name.repository()))?;
            }
            let text = name.to_string();
            let pulled = self.workshop.transfer(*quiet, *progress, |transfer| {
                Ok::<_, CopyError>(self.image(transfer, &text))
            });
            match pulled? {
                Ok((_, pulled)) if *quiet => output_line(&pulled.id.to_string())?,
                Ok((_, pulled)) => {
                    unchanged &= pulled.unchanged;
                    output_line(&format!("Digest: {}", pulled.digest))?;
                }
                Err(error) if is_of_the_tag(&error) => {
                    let hint = error.hint();
                    let text = format!("{}: {error}", name.familiar());
                    let error = CliError::message(text);
                    match hint {
                        Some(hint) => error.hinted(hint).show(),
                        None => error.show(),
                    }
                    code = ExitCode::FAILURE;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !*quiet {
            self.say_status(unchanged, &repository)?;
        }
        Ok(code)
    }

    fn say_status(&self, unchanged: bool, name: &str) -> Result<()> {
        let status = if unchanged {
            "Image is up to date for"
        } else {
            "Downloaded newer image for"
        };
        output_line(&format!("Status: {status} {name}"))
    }
}

/// Tells whether what is wrong is this tag's: repositories keep signatures and images for other
/// platforms too.
fn is_of_the_tag(error: &CopyError) -> bool {
    match error {
        CopyError::Registry(error) | CopyError::Transfer(TransferError::Registry(error)) => {
            matches!(
                error.reason(),
                Reason::NotFound
                    | Reason::TagNotFound { .. }
                    | Reason::NoPlatform { .. }
                    | Reason::Manifest(_)
            )
        }
        CopyError::Transfer(error) => matches!(
            error,
            TransferError::Config(_)
                | TransferError::Layer { .. }
                | TransferError::WrongDiffId { .. }
        ),
        _ => false,
    }
}
