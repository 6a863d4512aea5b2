//! Runs a command in a sandbox whose root is a directory:
//! `cargo run --example run_in_directory -- ROOT COMMAND [ARGUMENT…]`.
//!
//! The files of the directory keep their owners: those of the caller belong to no id that
//! the sandbox has.

use std::error::Error;
use std::os::fd::AsFd;
use std::process::ExitCode;

use kiln_runtime::capability::CapabilitySet;
use kiln_runtime::seccomp::Policy;
use kiln_runtime::{Builder, Network, Spec, User, mount_directory};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(|a| {
        use std::os::unix::ffi::OsStringExt;
        a.into_vec()
    });
    let root = args.next().ok_or("usage: run_in_directory ROOT COMMAND…")?;
    let root = {
        use std::os::unix::ffi::OsStringExt;
        std::path::PathBuf::from(std::ffi::OsString::from_vec(root))
    };
    // Before any thread is started.
    let builder = Builder::enter()?;
    let capabilities = CapabilitySet::default_set();
    let spec = Spec {
        root: mount_directory(&root)?,
        args: args.collect(),
        env: vec![b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_vec()],
        cwd: b"/".to_vec(),
        user: User::default(),
        network: Network::None,
        hostname: "sandbox".to_owned(),
        mounts: Vec::new(),
        capabilities,
        seccomp: Some(Policy::default_policy().compile(capabilities)?),
        rlimits: Vec::new(),
        stdio: [
            std::io::stdin().as_fd().try_clone_to_owned()?,
            std::io::stdout().as_fd().try_clone_to_owned()?,
            std::io::stderr().as_fd().try_clone_to_owned()?,
        ],
    };
    let exit = builder.spawn(spec)?.wait()?;
    Ok(ExitCode::from(exit.code() as u8))
}
