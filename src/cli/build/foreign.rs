//! Flags of other builders that kiln has no use for. Scripts pass them, so that they are known:
//! one is accepted and said to do nothing, or refused with what to do in its place.
//! `docs/build-flags.md` lists them all.

use clap::{Arg, ArgAction, ArgMatches, Command, Error};

use super::super::{CliError, Result};
use crate::event::{Event, Reporter};

/// A flag of another builder.
struct Flag {
    name: &'static str,
    short: Option<char>,
    takes: Takes,
    then: Then,
}

/// Whether a flag has a value.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    /// `--flag`, `--flag=true`, `--flag=false`.
    Switch,
    /// `--flag value`.
    Value,
}

/// What becomes of a flag.
enum Then {
    /// It is accepted, and this is said.
    Note(&'static str),
    /// It is an error, with this hint.
    Refuse(&'static str),
}

use Takes::{Switch, Value};
use Then::{Note, Refuse};

const fn flag(name: &'static str, takes: Takes, then: Then) -> Flag {
    Flag {
        name,
        short: None,
        takes,
        then,
    }
}

const NO_CGROUPS: &str = "steps have no limits of memory or cpu";
const NO_ATTESTATIONS: &str = "kiln makes no attestations";
const ALWAYS_COMPRESSED: &str =
    "layers are compressed when they leave the store: -o type=image,push=true,compression=zstd";
const NO_MORE_RIGHTS: &str = "a step never gets more rights than your user has";
const SBOM_TOOL: &str = "make the SBOM of the finished image with a tool of its own";

/// All of them, by name.
static FLAGS: &[Flag] = &[
    flag(
        "all-platforms",
        Switch,
        Refuse("name them all: --platform linux/amd64,linux/arm64"),
    ),
    flag(
        "allow",
        Value,
        Note("steps may use the network anyway, and nothing gives them more rights"),
    ),
    flag(
        "annotation",
        Value,
        Refuse("use --label: labels are in the config of the image, where every tool sees them"),
    ),
    flag("attest", Value, Note(NO_ATTESTATIONS)),
    flag("builder", Value, Note("kiln is the only builder")),
    flag("cap-add", Value, Refuse(NO_MORE_RIGHTS)),
    flag(
        "cap-drop",
        Value,
        Refuse("drop them in the step: RUN setpriv --bounding-set …"),
    ),
    flag("cgroup-parent", Value, Note(NO_CGROUPS)),
    flag(
        "cgroupns",
        Value,
        Note("each step has a cgroup namespace of its own"),
    ),
    flag(
        "compat-volumes",
        Switch,
        Note("what is written below a VOLUME stays in the image"),
    ),
    flag("compress", Switch, Note("the context is not sent anywhere")),
    flag("compression-format", Value, Note(ALWAYS_COMPRESSED)),
    flag("compression-level", Value, Note(ALWAYS_COMPRESSED)),
    flag(
        "cpp-flag",
        Value,
        Refuse("run the preprocessor first: cpp -P Containerfile.in > Containerfile"),
    ),
    flag("cpu-period", Value, Note(NO_CGROUPS)),
    flag("cpu-quota", Value, Note(NO_CGROUPS)),
    Flag {
        name: "cpu-shares",
        short: Some('c'),
        takes: Value,
        then: Note(NO_CGROUPS),
    },
    flag(
        "cpuset-cpus",
        Value,
        Note("start kiln with taskset: steps inherit it"),
    ),
    flag(
        "cpuset-mems",
        Value,
        Note("start kiln with numactl: steps inherit it"),
    ),
    flag(
        "created-annotation",
        Switch,
        Note("kiln writes no annotations"),
    ),
    flag(
        "creds",
        Value,
        Refuse("log in with kiln login, or name a file with --authfile"),
    ),
    flag("cw", Value, Refuse("kiln makes no confidential workloads")),
    Flag {
        name: "debug",
        short: Some('D'),
        takes: Switch,
        then: Note("use --progress=plain to see everything"),
    },
    flag(
        "decryption-key",
        Value,
        Refuse("kiln doesn't read encrypted images: decrypt the base first, with skopeo copy"),
    ),
    flag("device", Value, Refuse("steps see no devices of the host")),
    flag("disable-compression", Switch, Note(ALWAYS_COMPRESSED)),
    flag(
        "disable-content-trust",
        Switch,
        Note("kiln verifies digests, and no signatures"),
    ),
    flag("force-compression", Switch, Note(ALWAYS_COMPRESSED)),
    flag(
        "force-rm",
        Switch,
        Note("there are no intermediate containers"),
    ),
    flag(
        "format",
        Value,
        Note("images are OCI's, which docker reads too"),
    ),
    flag(
        "from",
        Value,
        Refuse("write ARG BASE=… and FROM $BASE into the Dockerfile, and give --build-arg BASE=…"),
    ),
    flag(
        "group-add",
        Value,
        Refuse("a step has the groups that the image gives its user"),
    ),
    flag("hooks-dir", Value, Refuse("kiln runs no OCI hooks")),
    flag(
        "identity-label",
        Switch,
        Note("kiln adds no label of its own"),
    ),
    flag(
        "inherit-annotations",
        Switch,
        Note("annotations of the base image are not taken over"),
    ),
    flag(
        "inherit-labels",
        Switch,
        Note("labels of the base image are kept; --unsetlabel removes one"),
    ),
    flag(
        "ipc",
        Value,
        Refuse("each step has an IPC namespace of its own"),
    ),
    flag(
        "isolation",
        Value,
        Note("steps run rootless in namespaces of their own"),
    ),
    flag(
        "layer-label",
        Value,
        Refuse("use --label: the image has them, not its layers"),
    ),
    flag(
        "layers",
        Switch,
        Note("each step is a layer, and is cached"),
    ),
    flag("load", Switch, Note("the image is in the store anyway")),
    flag(
        "logfile",
        Value,
        Refuse("progress goes to standard error: write 2>FILE"),
    ),
    flag("logsplit", Switch, Note("there is no log file")),
    Flag {
        name: "memory",
        short: Some('m'),
        takes: Value,
        then: Note(NO_CGROUPS),
    },
    flag("memory-swap", Value, Note(NO_CGROUPS)),
    flag(
        "mount",
        Value,
        Refuse("write RUN --mount=… into the Dockerfile"),
    ),
    flag(
        "no-hostname",
        Switch,
        Note("no /etc/hostname is mounted anyway"),
    ),
    flag(
        "no-hosts",
        Switch,
        Refuse("/etc/hosts of a step is never part of the image; add names with --add-host"),
    ),
    flag(
        "omit-history",
        Switch,
        Refuse("the history of an image is part of it"),
    ),
    flag("os-feature", Value, Refuse("it is of use on Windows only")),
    flag("os-version", Value, Refuse("it is of use on Windows only")),
    flag(
        "pid",
        Value,
        Refuse("each step has a pid namespace of its own"),
    ),
    flag("policy", Value, Refuse("kiln has no policies")),
    flag("provenance", Value, Note(NO_ATTESTATIONS)),
    flag("resource", Value, Note(NO_CGROUPS)),
    flag("retry", Value, Note("transfers are tried again anyway")),
    flag(
        "retry-delay",
        Value,
        Note("transfers are tried again anyway"),
    ),
    flag(
        "rewrite-timestamp",
        Switch,
        Note("with --source-date-epoch that is always done"),
    ),
    flag("rm", Switch, Note("there are no intermediate containers")),
    flag("runtime", Value, Note("kiln starts steps itself")),
    flag("runtime-flag", Value, Note("kiln starts steps itself")),
    flag(
        "save-stages",
        Switch,
        Note("all stages stay in the cache; name one with --target to have its image"),
    ),
    flag("sbom", Value, Note(NO_ATTESTATIONS)),
    flag("sbom-image-output", Value, Refuse(SBOM_TOOL)),
    flag("sbom-image-purl-output", Value, Refuse(SBOM_TOOL)),
    flag("sbom-merge-strategy", Value, Refuse(SBOM_TOOL)),
    flag("sbom-output", Value, Refuse(SBOM_TOOL)),
    flag("sbom-purl-output", Value, Refuse(SBOM_TOOL)),
    flag("sbom-scanner-command", Value, Refuse(SBOM_TOOL)),
    flag("sbom-scanner-image", Value, Refuse(SBOM_TOOL)),
    flag(
        "security-opt",
        Value,
        Note("steps keep kiln's seccomp filter and have no SELinux label of their own"),
    ),
    flag(
        "sign-by",
        Value,
        Refuse("sign the image in the registry, with a tool such as cosign"),
    ),
    flag(
        "skip-unused-stages",
        Switch,
        Note("stages that the target doesn't need are never built"),
    ),
    flag("source-policy-file", Value, Refuse("kiln has no policies")),
    flag(
        "squash",
        Switch,
        Refuse(
            "end the Dockerfile with a stage FROM scratch and COPY --from=… / /: that is one layer",
        ),
    ),
    flag(
        "stage-labels",
        Switch,
        Note("labels are those of the target"),
    ),
    flag(
        "stdin",
        Switch,
        Refuse("a step reads nothing from outside: give a file with COPY or RUN --mount=type=bind"),
    ),
    flag("stream", Switch, Note("the context is not sent anywhere")),
    flag(
        "unsetannotation",
        Value,
        Note("annotations of the base image are not taken over"),
    ),
    flag(
        "userns",
        Value,
        Note("steps have user namespaces of their own"),
    ),
    flag(
        "userns-gid-map",
        Value,
        Refuse("the ids are those of /etc/subgid"),
    ),
    flag(
        "userns-gid-map-group",
        Value,
        Refuse("the ids are those of /etc/subgid"),
    ),
    flag(
        "userns-uid-map",
        Value,
        Refuse("the ids are those of /etc/subuid"),
    ),
    flag(
        "userns-uid-map-user",
        Value,
        Refuse("the ids are those of /etc/subuid"),
    ),
    flag(
        "uts",
        Value,
        Refuse("each step has a UTS namespace of its own"),
    ),
    Flag {
        name: "volume",
        short: Some('v'),
        takes: Value,
        then: Refuse("write RUN --mount=type=bind or type=cache into the Dockerfile"),
    },
];

/// The flags of other builders that were given.
#[derive(Clone, Default)]
pub(super) struct Foreign {
    given: Vec<&'static str>,
}

impl Foreign {
    fn flags(&self) -> impl Iterator<Item = &'static Flag> {
        let given = self.given.clone();
        FLAGS.iter().filter(move |flag| given.contains(&flag.name))
    }

    /// Refuses what can't be done.
    pub(super) fn refuse(&self) -> Result<()> {
        for flag in self.flags() {
            if let Refuse(hint) = flag.then {
                let message = format!("kiln build does not have --{}", flag.name);
                return Err(CliError::message(message).hinted(hint).with_code(2));
            }
        }
        Ok(())
    }

    /// Says what was accepted and does nothing.
    pub(super) fn note(&self, reporter: &dyn Reporter) {
        for flag in self.flags() {
            if let Note(why) = flag.then {
                let message = format!("--{} has no effect: {why}", flag.name);
                reporter.report(Event::Info { message });
            }
        }
    }
}

impl clap::FromArgMatches for Foreign {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Foreign, Error> {
        let is_given = |flag: &&Flag| {
            let values = matches.get_many::<String>(flag.name);
            // `--provenance=false` asks for what holds anyway.
            values.is_some_and(|mut values| values.any(|value| value != "false"))
        };
        let given = FLAGS.iter().filter(is_given).map(|flag| flag.name);
        Ok(Foreign {
            given: given.collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), Error> {
        *self = Foreign::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Foreign {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, flag| {
            let mut arg = Arg::new(flag.name)
                .long(flag.name)
                .action(ArgAction::Append)
                .hide(true);
            if let Some(short) = flag.short {
                arg = arg.short(short);
            }
            if flag.takes == Switch {
                arg = arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true");
            }
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Foreign::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_sorted_and_say_something() {
        let names: Vec<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
        for flag in FLAGS {
            let (Note(text) | Refuse(text)) = flag.then;
            assert!(!text.is_empty() && !text.ends_with('.'), "{}", flag.name);
        }
    }
}
