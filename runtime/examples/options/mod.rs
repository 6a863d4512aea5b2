//! The options that the examples share.

use std::error::Error;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use kiln_runtime::capability::CapabilitySet;
use kiln_runtime::seccomp::Policy;
use kiln_runtime::{Network, Spec, User};

/// What the command line says, up to the first word that is no option.
pub struct Options {
    cwd: Vec<u8>,
    user: User,
    network: Network,
    nofile: Option<u64>,
    rest: std::vec::IntoIter<OsString>,
}

impl Options {
    /// Parses `[--cwd DIR] [--user UID:GID[,GID…]] [--host-network] [--nofile N]`.
    pub fn parse() -> Result<Options, Box<dyn Error>> {
        let mut options = Options {
            cwd: b"/".to_vec(),
            user: User::default(),
            network: Network::None,
            nofile: None,
            rest: std::env::args_os().skip(1).collect::<Vec<_>>().into_iter(),
        };
        while let Some(option) = options
            .rest
            .as_slice()
            .first()
            .and_then(|word| word.to_str())
            .and_then(|word| word.strip_prefix("--"))
            .map(str::to_owned)
        {
            options.rest.next();
            match option.as_str() {
                "cwd" => options.cwd = options.next("a directory")?.into_vec(),
                "user" => options.user = user(&options.next("a user")?.to_string_lossy())?,
                "host-network" => options.network = Network::Host,
                "nofile" => {
                    options.nofile = Some(options.next("a number")?.to_string_lossy().parse()?);
                }
                other => return Err(format!("unknown option --{other}").into()),
            }
        }
        Ok(options)
    }

    fn next(&mut self, what: &str) -> Result<OsString, Box<dyn Error>> {
        self.rest
            .next()
            .ok_or_else(|| format!("expected {what}").into())
    }

    /// Returns the next word as a path.
    pub fn path(&mut self, what: &str) -> Result<PathBuf, Box<dyn Error>> {
        self.next(what).map(PathBuf::from)
    }

    /// Returns the sandbox: what is left of the command line runs in `root`.
    pub fn spec(self, root: OwnedFd) -> Result<Spec, Box<dyn Error>> {
        let capabilities = CapabilitySet::default_set();
        let nofile = |n| (nix::libc::RLIMIT_NOFILE, n, n);
        Ok(Spec {
            root,
            args: self.rest.map(OsStringExt::into_vec).collect(),
            env: vec![
                b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_vec(),
            ],
            cwd: self.cwd,
            user: self.user,
            network: self.network,
            hostname: "sandbox".to_owned(),
            mounts: Vec::new(),
            capabilities,
            seccomp: Some(Policy::default_policy().compile(capabilities)?),
            maps_caller: false,
            rlimits: self.nofile.map(nofile).into_iter().collect(),
            shm_size: None,
            stdio: [
                std::io::stdin().as_fd().try_clone_to_owned()?,
                std::io::stdout().as_fd().try_clone_to_owned()?,
                std::io::stderr().as_fd().try_clone_to_owned()?,
            ]
            .into(),
        })
    }
}

/// Parses `UID:GID[,GID…]`.
fn user(text: &str) -> Result<User, Box<dyn Error>> {
    let (uid, gids) = text.split_once(':').ok_or("expected UID:GID")?;
    let mut gids = gids.split(',').map(str::parse);
    Ok(User {
        uid: uid.parse()?,
        gid: gids.next().ok_or("expected a gid")??,
        groups: gids.collect::<Result<_, _>>()?,
    })
}

/// Writes an error as kiln does, with its hint below.
pub fn report(error: &(dyn Error + 'static)) -> std::process::ExitCode {
    use std::io::Write;
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "error: {error}");
    let hint = error
        .downcast_ref::<kiln_runtime::Error>()
        .and_then(kiln_runtime::Error::hint);
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "hint: {hint}");
    }
    std::process::ExitCode::from(125)
}
