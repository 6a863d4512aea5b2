//! `kiln doctor`: what this host allows, and what to do where something is missing.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use kiln_runtime::HostFeatures;
use kiln_runtime::features::{Rung, State};

use super::{CliError, Result};

/// Shows what this host allows, and how to allow more.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// How to print it.
    #[arg(long, value_parser = ["json"])]
    format: Option<String>,
}

/// Tries all features on the store, and prints what came of it. Must be called before any
/// thread is started.
pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let store = super::session::store_root(root)?;
    std::fs::create_dir_all(&store).map_err(|error| {
        CliError::message(format!(
            "cannot create the store {}: {error}",
            store.display()
        ))
        .hinted("choose another directory with --root or KILN_ROOT")
    })?;
    let host = HostFeatures::probe(&store).map_err(|error| {
        let hint = error.hint().unwrap_or_else(|| {
            format!(
                "{} must be a directory that you can write to",
                store.display()
            )
        });
        CliError::message(error.to_string()).hinted(hint)
    })?;
    let rung = host.rung();
    if arguments.format.is_some() {
        let mut value =
            serde_json::to_value(&host).map_err(|error| CliError::message(error.to_string()))?;
        value["rung"] = serde_json::json!(rung);
        super::output(&format!("{value:#}\n"))?;
    } else {
        super::output(&format!("store: {}\n{}", store.display(), table(&host)))?;
    }
    Ok(match rung {
        Rung::Full | Rung::Fuse => ExitCode::SUCCESS,
        Rung::None => ExitCode::FAILURE,
    })
}

/// Writes one line per feature, the remedy below each that is missing, and the rung.
fn table(host: &HostFeatures) -> String {
    let mut text = format!("kernel: {}\n\n", host.kernel);
    for probed in &host.features {
        let name = probed.feature.to_string();
        // Writing to a string does not fail.
        let _ = match &probed.state {
            State::Works { detail } => {
                writeln!(text, "✓ {}", format!("{name:<22}{detail}").trim_end())
            }
            State::Missing { reason, remedy } => {
                let mark = if probed.feature.is_optional() {
                    "-"
                } else {
                    "✗"
                };
                let _ = writeln!(text, "{mark} {name:<22}{reason}");
                for (index, line) in remedy.lines().enumerate() {
                    let arrow = if index == 0 { "→" } else { " " };
                    let _ = writeln!(text, "    {arrow} {line}");
                }
                Ok(())
            }
        };
    }
    let _ = writeln!(text, "\n{}", host.rung());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedy_stands_below_what_is_missing() {
        let host: HostFeatures = serde_json::from_value(serde_json::json!({
            "boot_id": "b",
            "kernel": "6.1.0",
            "features": [
                { "feature": "user-namespaces", "state": "works" },
                { "feature": "id-maps", "state": "missing", "reason": "newuidmap is not installed",
                  "remedy": "install the package uidmap" },
                { "feature": "landlock", "state": "works", "detail": "ABI 6" },
            ],
        }))
        .unwrap();
        assert_eq!(
            table(&host),
            "kernel: 6.1.0\n\n\
             ✓ user namespaces\n\
             ✗ newuidmap, newgidmap  newuidmap is not installed\n    → install the package uidmap\n\
             ✓ Landlock scopes       ABI 6\n\n\
             none: RUN does not work here; pull, push and builds without RUN do\n"
        );
    }
}
