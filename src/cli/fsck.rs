//! `kiln fsck`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::session::{self, Workshop};
use super::{Result, output};
use crate::store::Verified;
use crate::ui::text;

/// Arguments of `kiln fsck`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Take away what is damaged, so that it is fetched or built again
    #[arg(long)]
    repair: bool,
    /// Say nothing but what is damaged
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    // In the namespace: layers have files that only it can read.
    let mut workshop = Workshop::enter(root)?;
    workshop.release();
    let verified = workshop
        .store
        .fsck(&workshop.session, arguments.repair)?
        .ok_or_else(|| session::busy("nothing was verified"))?;
    output(&report(&verified, arguments))?;
    Ok(
        match verified.damages.iter().all(|damage| damage.repaired) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
    )
}

fn report(verified: &Verified, arguments: &Arguments) -> String {
    let mut lines = String::new();
    for damage in &verified.damages {
        let removed = if damage.repaired { " (removed)" } else { "" };
        let line = format!("{}: {}{removed}", damage.place, damage.problem);
        lines.push_str(&format!("{}\n", text::one_line(&line)));
    }
    if arguments.quiet {
        return lines;
    }
    let counts = [
        (verified.blobs, "blob"),
        (verified.layers, "layer"),
        (verified.images, "image"),
        (verified.references, "name"),
        (verified.records, "record"),
    ];
    let counts = counts.map(|(count, noun)| numbered(count, noun)).join(", ");
    let result = match verified.damages.len() {
        0 => "no damage".to_owned(),
        count => numbered(count, "damage"),
    };
    lines.push_str(&format!("Verified {counts}: {result}\n"));
    if !arguments.repair && !verified.damages.is_empty() {
        lines.push_str(
            "`kiln fsck --repair` removes what is damaged: pull or build it again then\n",
        );
    }
    lines
}

fn numbered(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
