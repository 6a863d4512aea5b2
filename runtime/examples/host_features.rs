//! Prints what this host allows, as JSON: `cargo run -p kiln-runtime --example host_features --
//! DIRECTORY`. With `overlay` before the directory, just the overlay that a build there takes.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

use kiln_runtime::{Builder, HostFeatures, overlay_kind};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let json = match args.as_slice() {
        [directory] => serde_json::to_string_pretty(&HostFeatures::probe(directory)?)?,
        [_, directory] => {
            let builder = Builder::enter()?;
            let remembered = directory.join("overlay.json");
            serde_json::to_string_pretty(&overlay_kind(&builder, directory, &remembered)?)?
        }
        _ => return Err("usage: host_features [overlay] DIRECTORY".into()),
    };
    writeln!(std::io::stdout(), "{json}")?;
    Ok(())
}
