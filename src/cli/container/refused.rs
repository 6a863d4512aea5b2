//! Flags of `docker run` that kiln can't carry out. Each is known by its name and refused with
//! what to do in its place: to leave it out silently would be worse.

use clap::{Arg, ArgAction, ArgMatches, Command, Error};

use crate::cli::CliError;

/// A flag: its name, a letter, whether it has a value, and what to do.
struct Flag {
    name: &'static str,
    short: Option<char>,
    has_value: bool,
    hint: &'static str,
}

const NO_CGROUPS: &str = "kiln limits neither memory nor processors; --ulimit limits each process";
const NO_RIGHTS: &str = "a container never gets more rights than your user has";
const NO_PORTS: &str = "the network is the host's: a port that is listened on is there already";
const NO_NETWORKS: &str = "there are --network host and --network none";
const NO_DAEMON: &str = "nobody is there to do that once kiln has ended";
const NO_VOLUMES: &str = "mount a directory: -v /PATH:/PATH";
const NO_INIT: &str = "the command is process 1; kiln passes signals on to it";

const fn value(name: &'static str, hint: &'static str) -> Flag {
    Flag {
        name,
        short: None,
        has_value: true,
        hint,
    }
}

const fn switch(name: &'static str, hint: &'static str) -> Flag {
    Flag {
        name,
        short: None,
        has_value: false,
        hint,
    }
}

const fn short(letter: char, flag: Flag) -> Flag {
    Flag {
        short: Some(letter),
        ..flag
    }
}

static FLAGS: &[Flag] = &[
    value("blkio-weight", NO_CGROUPS),
    value("cap-add", NO_RIGHTS),
    value("cgroup-parent", NO_CGROUPS),
    value("cgroupns", "a container has a cgroup namespace of its own"),
    value("cpu-period", NO_CGROUPS),
    value("cpu-quota", NO_CGROUPS),
    short('c', value("cpu-shares", NO_CGROUPS)),
    value("cpus", NO_CGROUPS),
    value("cpuset-cpus", "start kiln with taskset -c"),
    value("device", NO_RIGHTS),
    value("gpus", NO_RIGHTS),
    value("health-cmd", NO_DAEMON),
    switch("init", NO_INIT),
    value("ip", NO_NETWORKS),
    value("ipc", "a container has an IPC namespace of its own"),
    value("link", NO_NETWORKS),
    value(
        "log-opt",
        "`kiln logs` shows what a detached container wrote",
    ),
    short('m', value("memory", NO_CGROUPS)),
    value("memory-swap", NO_CGROUPS),
    value("network-alias", NO_NETWORKS),
    value("pid", "a container has a pid namespace of its own"),
    value("pids-limit", NO_CGROUPS),
    switch("privileged", NO_RIGHTS),
    short('p', value("publish", NO_PORTS)),
    short('P', switch("publish-all", NO_PORTS)),
    value("runtime", "kiln is the runtime"),
    value("security-opt", "every container has the default profile"),
    value("sysctl", NO_RIGHTS),
    value("userns", "a container has a user namespace of its own"),
    value("uts", "a container has a host name of its own: --hostname"),
    value("volume-driver", NO_VOLUMES),
    value("volumes-from", NO_VOLUMES),
];

/// The first flag of these that was given.
#[derive(Debug, Default)]
pub(in crate::cli) struct Refused(Option<&'static str>);

impl Refused {
    /// Returns an error where there is one.
    pub(in crate::cli) fn check(&self) -> Result<(), CliError> {
        let Some(flag) = self
            .0
            .and_then(|name| FLAGS.iter().find(|flag| flag.name == name))
        else {
            return Ok(());
        };
        let message = format!("--{} is not possible", flag.name);
        Err(CliError::message(message).hinted(flag.hint))
    }
}

impl clap::Args for Refused {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(|flag| {
            let arg = Arg::new(flag.name).long(flag.name).hide(true);
            let arg = match flag.short {
                Some(letter) => arg.short(letter),
                None => arg,
            };
            match flag.has_value {
                true => arg.action(ArgAction::Append),
                false => arg.action(ArgAction::SetTrue),
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Refused::augment_args(command)
    }
}

impl clap::FromArgMatches for Refused {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Refused, Error> {
        let given = |flag: &&Flag| match flag.has_value {
            true => matches.contains_id(flag.name),
            false => matches.get_flag(flag.name),
        };
        Ok(Refused(FLAGS.iter().find(given).map(|flag| flag.name)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Refused::from_arg_matches(matches)?;
        Ok(())
    }
}
