//! `kiln login`.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use super::connection::Trust;
use super::session::{self, OnTheSpot};
use super::{CliError, Result, ask, output_line};
use crate::registry::{Credential, Credentials, Kept, Reason};
use crate::ui;

/// No password is longer, in bytes.
const LONGEST_PASSWORD: u64 = 1 << 20;

/// What is asked for on the terminal, and what to do without one.
const ASKED: &str = "the user name and password";
const HINT: &str = "give them with --username and --password-stdin";

/// Arguments of `kiln login`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The registry, as in registry.example:5000
    #[arg(default_value = "docker.io")]
    registry: String,
    /// The user; asked for if not given
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// The password: others may see it in the list of processes
    #[arg(short, long)]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Keep the credentials in this file
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let registry = registry_of(&arguments.registry)?;
    let given = given_password(arguments)?;
    let paths = session::credential_paths(arguments.authfile.clone());
    if arguments.username.is_none() && given.is_none() {
        let known = Credentials::load(&paths)?.with_helpers(std::sync::Arc::new(OnTheSpot));
        if known.get(registry, "")?.is_some() {
            ui::say("Authenticating with existing credentials...\n");
            match session::client(&arguments.trust, known)?.ping(registry) {
                Ok(()) => {
                    output_line("Login Succeeded")?;
                    return Ok(ExitCode::SUCCESS);
                }
                Err(error) if !is_refusal(error.reason()) => return Err(error.into()),
                Err(_) => ui::say("The registry refuses them.\n"),
            }
        }
    }
    let username = match &arguments.username {
        Some(username) => username.clone(),
        None => ask::line("Username: ", ASKED, HINT)?,
    };
    let password = match given {
        Some(password) => password,
        None => ask::password("Password: ", ASKED, HINT)?,
    };
    for (name, value) in [("user name", &username), ("password", &password)] {
        if value.is_empty() {
            return Err(CliError::message(format!("the {name} is empty")));
        }
    }
    let credential = Credential::Basic {
        username: username.clone(),
        password: password.clone(),
    };
    let credentials = Credentials::anonymous().with(registry, credential);
    session::client(&arguments.trust, credentials)?
        .ping(registry)
        .map_err(|error| {
            if is_refusal(error.reason()) {
                CliError::from(error).hinted(
                    "check the user name and the password; some registries want an access token \
                     in its place. Nothing was stored",
                )
            } else {
                error.into()
            }
        })?;
    match paths.log_in(&OnTheSpot, registry, &username, &password)? {
        Kept::Helper(_) => {}
        Kept::File(path) => ui::say(&format!(
            "warning: the password is stored unencrypted in {}\n\
             hint: name a credential helper there (credsStore), and log in again\n",
            path.display()
        )),
    }
    output_line("Login Succeeded")?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the name of the registry that a user means, who may have copied a URL.
pub(super) fn registry_of(text: &str) -> Result<&str> {
    let bare = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let host = bare.split('/').next().unwrap_or_default();
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || !host.chars().all(is_host) {
        return Err(
            CliError::message(format!("{text:?} is no name of a registry"))
                .hinted("write HOST or HOST:PORT, as in registry.example:5000"),
        );
    }
    Ok(match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    })
}

fn is_refusal(reason: &Reason) -> bool {
    matches!(reason, Reason::Unauthorized { .. } | Reason::Denied(_))
}

/// Returns the password of the command line or of standard input.
fn given_password(arguments: &Arguments) -> Result<Option<String>> {
    if arguments.password_stdin {
        if arguments.password.is_some() {
            return Err(CliError::message(
                "--password and --password-stdin are mutually exclusive",
            ));
        }
        if arguments.username.is_none() {
            return Err(CliError::message(
                "the --password-stdin option requires --username to be set",
            ));
        }
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .take(LONGEST_PASSWORD)
            .read_to_string(&mut text)?;
        // What `echo` and editors add is no part of it.
        return Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()));
    }
    if arguments.password.is_some() {
        ui::say(
            "warning: others can see --password in the list of processes and in the shell's \
             history\nhint: use --password-stdin\n",
        );
    }
    Ok(arguments.password.clone())
}
