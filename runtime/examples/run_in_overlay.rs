//! Runs a command in a sandbox whose root is an overlay:
//! `cargo run -p kiln-runtime --example run_in_overlay -- [OPTION…] kernel|fuse STATE LOWER[:LOWER…]
//! COMMAND [ARGUMENT…]`. Changes are below `STATE/upper`, which must not be there yet.

use std::error::Error;
use std::fs::create_dir;
use std::path::PathBuf;
use std::process::ExitCode;

use kiln_runtime::{Builder, Layers, Overlay, OverlayKind, Upper};

mod options;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| options::report(&*error))
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut options = options::Options::parse()?;
    let kind = match options.path("kernel or fuse")?.to_str() {
        Some("kernel") => OverlayKind::Kernel,
        Some("fuse") => OverlayKind::Fuse,
        _ => return Err("expected kernel or fuse".into()),
    };
    let state = options.path("a directory for changes")?;
    let lowers = options.path("lower directories, top first")?;
    let lowers: Vec<PathBuf> = std::env::split_paths(&lowers).collect();
    // Before any thread is started.
    let builder = Builder::enter()?;
    let [upper, work, scratch] = ["upper", "work", "scratch"].map(|name| state.join(name));
    for directory in [&upper, &work, &scratch] {
        create_dir(directory)?;
    }
    // The step's root is id 1 of the builder: it shall own its root directory.
    nix::unistd::chown(&upper, Some(1.into()), Some(1.into()))?;
    let layers = Layers {
        lowers: &lowers,
        upper: Some(Upper {
            changes: &upper,
            work: &work,
            volatile: true,
        }),
        scratch: &scratch,
    };
    let overlay = Overlay::mount(&builder, &layers, kind)?;
    let spec = options.spec(overlay.root()?)?;
    let exit = builder.spawn(spec)?.wait()?;
    overlay.finish();
    Ok(ExitCode::from(exit.code() as u8))
}
