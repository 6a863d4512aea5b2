//! `kiln save`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use super::packing::PackingFlags;
use super::session::Workshop;
use super::{CliError, Result};
use crate::archive::{self, Destination, Layout};
use crate::ui;

/// Arguments of `kiln save`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Write to this file, or directory for oci-dir, and not to standard output
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// What is written
    #[arg(long, value_enum, default_value_t = Format::DockerArchive)]
    format: Format,
    #[command(flatten)]
    packing: PackingFlags,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    /// The images: names or ids; a name without a tag stands for all its tags
    #[arg(required = true)]
    images: Vec<String>,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An archive for docker, podman and all that read OCI layouts
    DockerArchive,
    /// An archive of an OCI layout
    OciArchive,
    /// A directory with an OCI layout; images are added to one that is there
    OciDir,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let output = arguments.output.clone();
    let output = output.filter(|path| path.as_os_str() != "-");
    let (layout, destination) = match (arguments.format, output) {
        (Format::OciDir, Some(path)) => (Layout::Oci, Destination::Directory(path)),
        (Format::OciDir, None) => {
            let error = CliError::message("a directory can't go to standard output");
            return Err(error.hinted("name it: -o DIR"));
        }
        (format, output) => {
            let layout = match format {
                Format::DockerArchive => Layout::Docker,
                _ => Layout::Oci,
            };
            (
                layout,
                output.map_or(Destination::Stdout, Destination::File),
            )
        }
    };
    let packing = arguments.packing.packing()?;
    let workshop = Workshop::enter(root)?;
    let images = archive::select(&workshop.store, &arguments.images)?;
    workshop.transfer(false, arguments.progress, |transfer| {
        archive::write_images(transfer, &images, layout, &destination, &packing)
    })?;
    Ok(ExitCode::SUCCESS)
}
