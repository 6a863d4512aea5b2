//! `kiln copy`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::connection::{Connection, DigestFile, Side, contradiction};
use super::packing::RepackingFlags;
use super::place::Place;
use super::session::{self, Workshop};
use super::{Result, output_line};
use crate::copy::{Changes, Plan, Which};
use crate::ui;

/// Arguments of `kiln copy`.
#[derive(clap::Args)]
#[command(after_help = PLACES)]
pub(super) struct Arguments {
    /// Where the image is
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where it goes
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// Copy all images of an index, and the index itself
    #[arg(short, long)]
    all: bool,
    /// Which image of an index, as in linux/arm64 [default: that of this machine]
    #[arg(long, conflicts_with = "all")]
    platform: Option<String>,
    /// What of an index
    #[arg(long, value_parser = ["system", "all"], conflicts_with = "all", hide = true)]
    multi_arch: Option<String>,
    #[command(flatten)]
    packing: RepackingFlags,
    /// Digests stay anyway
    #[arg(long, hide = true, conflicts_with = "compression")]
    preserve_digests: bool,
    /// Say nothing but the digest
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ui::Mode::Auto)]
    progress: ui::Mode,
    #[command(flatten)]
    digestfile: DigestFile,
    #[command(flatten)]
    connection: Connection,
    /// Who you are at the registry of the source, for this command only
    #[arg(long, value_name = "USER[:PASSWORD]")]
    src_creds: Option<String>,
    /// Who you are at the registry of the destination
    #[arg(long, value_name = "USER[:PASSWORD]")]
    dest_creds: Option<String>,
    /// Credentials of the source
    #[arg(long, value_name = "FILE", hide = true)]
    src_authfile: Option<PathBuf>,
    /// Credentials of the destination
    #[arg(long, value_name = "FILE", hide = true)]
    dest_authfile: Option<PathBuf>,
    /// Certificates of the source
    #[arg(long, value_name = "DIR", hide = true)]
    src_cert_dir: Option<PathBuf>,
    /// Certificates of the destination
    #[arg(long, value_name = "DIR", hide = true)]
    dest_cert_dir: Option<PathBuf>,
    /// Whether certificates of the source are checked
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide = true)]
    src_tls_verify: Option<bool>,
    /// Whether certificates of the destination are checked
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide = true)]
    dest_tls_verify: Option<bool>,
}

const PLACES: &str = "\
Places:
  NAME, docker://NAME          a registry
  store:NAME                   kiln's store
  oci:DIR[:REF]                a directory with an OCI layout
  oci-archive:FILE[:REF]       an archive of one
  docker-archive:FILE[:NAME]   an archive for docker";

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let source = Place::parse(&arguments.source)?;
    let destination = Place::parse(&arguments.destination)?;
    let all = arguments.all || arguments.multi_arch.as_deref() == Some("all");
    if all && arguments.platform.is_some() {
        return Err(contradiction(
            "--multi-arch=all and --platform ask for different things",
            "leave one of them out",
        ));
    }
    let packing = arguments.packing.packing()?;
    if let (Some(_), Place::Registry(name)) = (packing.asked_for(), &destination)
        && name.digest().is_some()
    {
        return Err(contradiction(
            "an image that is compressed anew has another digest than its name says",
            "leave the digest out of the destination, or --compression",
        ));
    }
    let platform = session::platform(arguments.platform.as_deref())?;
    let which = match all {
        true => Which::All,
        false => Which::Platform(platform.clone()),
    };
    arguments.digestfile.probe()?;
    let workshop = Workshop::enter(root)?;
    let connection = &arguments.connection;
    let from = Side {
        connection,
        creds: ("--src-creds", arguments.src_creds.as_deref()),
        tls_verify: arguments.src_tls_verify,
        cert_dir: arguments.src_cert_dir.as_ref(),
        authfile: arguments.src_authfile.as_ref(),
    };
    let to = Side {
        connection,
        creds: ("--dest-creds", arguments.dest_creds.as_deref()),
        tls_verify: arguments.dest_tls_verify,
        cert_dir: arguments.dest_cert_dir.as_ref(),
        authfile: arguments.dest_authfile.as_ref(),
    };
    let from = from.client(&workshop, source.in_registry())?;
    let to = to.client(&workshop, destination.in_registry())?;
    let whole = all || arguments.platform.is_some();
    let digest = workshop.transfer(arguments.quiet, arguments.progress, |transfer| {
        let origin = source.origin(transfer, &from, whole, &packing)?;
        let mut plan = Plan::make(origin.as_ref(), &which)?;
        let changes = Changes {
            compressor: packing.asked_for(),
            ..Changes::default()
        };
        plan.change(origin.as_ref(), changes)?;
        destination.take(transfer, &to, &plan, origin.as_ref(), &platform)
    })?;
    arguments.digestfile.write(&digest)?;
    match arguments.quiet {
        true => output_line(&digest.to_string())?,
        false => output_line(&format!("Digest: {digest}"))?,
    }
    Ok(ExitCode::SUCCESS)
}
