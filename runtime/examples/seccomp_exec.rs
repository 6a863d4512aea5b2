//! Runs a program below the default seccomp filter, and says what the filter cost:
//! `cargo run -p kiln-runtime --example seccomp_exec -- [--cap CAP_…]… program [argument]…`

use std::error::Error;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

use kiln_runtime::capability::CapabilitySet;
use kiln_runtime::{seccomp::Policy, sys};

fn main() -> ExitCode {
    let Err(error) = run();
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::FAILURE
}

/// Becomes the program; returns only where that failed.
fn run() -> Result<std::convert::Infallible, Box<dyn Error>> {
    let mut capabilities = CapabilitySet::default_set();
    let mut args = std::env::args_os().skip(1).peekable();
    while args.next_if(|arg| arg == "--cap").is_some() {
        let name = args.next().ok_or("--cap needs a name")?;
        let added = CapabilitySet::from_names([name.to_string_lossy()])?;
        capabilities = capabilities | added;
    }
    let program = args.next().ok_or("no program given")?;

    let start = Instant::now();
    let policy = Policy::default_policy();
    let parsed = start.elapsed();
    let filter = policy.compile(capabilities)?;
    let compiled = start.elapsed();
    nix::sys::prctl::set_no_new_privs()?;
    let before = Instant::now();
    sys::seccomp::install(filter.as_slice())?;
    writeln!(
        std::io::stderr(),
        "{} instructions: parsed in {parsed:?}, compiled in {:?}, installed in {:?}",
        filter.as_slice().len(),
        compiled - parsed,
        before.elapsed()
    )?;
    Err(Command::new(program).args(args).exec().into())
}
