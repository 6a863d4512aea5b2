//! What a step asks for, compiled to a plan: the operations that make its sandbox, in order.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::statfs::{FsType, fstatfs};

use crate::builder::disabled;
use crate::capability::CapabilitySet;
use crate::error::Error;
use crate::plan::{Exec, Op, Plan};
use crate::seccomp::Program;
use crate::spec::{Addition, Create, Network, Spec, Stdio, User};
use crate::sys::mount::{self, Attributes};
use crate::sys::process;

/// The size of /dev/shm that docker gives a container, in bytes.
const SHM_SIZE: u64 = 64 << 20;

/// Devices of the host that a step has, beside the links and file systems below /dev.
/// The OCI default: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices>.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links below /dev, as the OCI runtime spec asks for.
const DEV_LINKS: [(&std::ffi::CStr, &str); 6] = [
    (c"/proc/self/fd", "fd"),
    (c"/proc/self/fd/0", "stdin"),
    (c"/proc/self/fd/1", "stdout"),
    (c"/proc/self/fd/2", "stderr"),
    (c"pts/ptmx", "ptmx"),
    (c"/proc/kcore", "core"),
];

/// Paths that a step sees as empty: they tell about the host, or act on it.
const MASKED: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// Paths that a step may read but not write.
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

/// Descriptors that the plan names by number, kept open until the child has executed.
#[derive(Default)]
pub(crate) struct Kept(Vec<OwnedFd>);

impl Kept {
    /// Keeps a descriptor, with a number above those of standard input, output and error.
    pub(crate) fn keep(&mut self, fd: OwnedFd) -> Result<RawFd, Error> {
        let fd = if fd.as_raw_fd() > 2 {
            fd
        } else {
            let copy = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(3))
                .map_err(|e| Error::call("fcntl(F_DUPFD_CLOEXEC)", e))?;
            process::own(copy)
        };
        let raw = fd.as_raw_fd();
        self.0.push(fd);
        Ok(raw)
    }
}

fn c(bytes: impl Into<Vec<u8>>, what: &'static str) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| Error::NulByte(what))
}

fn open_path(path: &str) -> Result<OwnedFd, Error> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| Error::call(format!("open({path}, O_PATH)"), e))
}

fn clone_host(path: &str, recursive: bool) -> Result<OwnedFd, Error> {
    let fd = open_path(path)?;
    mount::clone_tree(fd.as_fd(), c"", recursive)
        .map_err(|e| Error::call(format!("open_tree({path}, OPEN_TREE_CLONE)"), e))
}

/// Lets any user open a pipe anew, as `/dev/stdout` does: it belongs to the caller, who is
/// nobody to the step. Only who has the pipe already finds it (in /proc/self/fd).
fn let_all_open(fd: &OwnedFd) {
    const PIPEFS_MAGIC: FsType = FsType(0x5049_5045);
    if fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == PIPEFS_MAGIC) {
        // A pipe of somebody else can still be read and written as it is.
        let _ = fchmod(fd, Mode::from_bits_truncate(0o666));
    }
}

/// Returns what gives a command its first three descriptors. A terminal is opened where /dev is.
fn stdio(stdio: Stdio, owner: u32, kept: &mut Kept) -> Result<Op, Error> {
    Ok(match stdio {
        Stdio::Given(fds) => {
            let mut kept_fds = [0; 3];
            for (slot, fd) in kept_fds.iter_mut().zip(fds) {
                let_all_open(&fd);
                *slot = kept.keep(fd)?;
            }
            Op::Stdio(kept_fds)
        }
        Stdio::Terminal(size) => Op::Terminal { owner, size },
    })
}

/// Compiles the sandbox of a step, which has so many ids, and its command.
///
/// # Errors
/// A device of the host can't be had; a string has a NUL byte.
pub(crate) fn compile(spec: Spec, ids: u32, kept: &mut Kept) -> Result<Plan, Error> {
    let root = kept.keep(spec.root)?;
    let stdio = stdio(spec.stdio, spec.user.uid, kept)?;
    let fs = |fstype, options: &[(&str, &str)], attributes, target: &str| -> Result<Op, Error> {
        let option = |(key, value): &(&str, &str)| {
            let value = match *value {
                "" => None,
                value => Some(c(value, "mount option")?),
            };
            Ok((c(*key, "mount option")?, value))
        };
        Ok(Op::Mount {
            fstype,
            options: options.iter().map(option).collect::<Result<_, Error>>()?,
            attributes,
            target: c(target, "mount target")?,
            optional: false,
        })
    };
    let own_network = spec.network == Network::None;
    let strict = Attributes::NOSUID_NODEV_NOEXEC;

    let mut ops = vec![
        Op::AwaitIdMaps,
        Op::BecomeRoot,
        Op::DieWithBuilder,
        Op::NewSession,
        Op::ResetSignals,
        Op::Umask(0),
        Op::MakeMountsPrivate,
        Op::AttachRoot,
        fs(c"proc", &[], strict, "proc")?,
        fs(
            c"tmpfs",
            &[("mode", "755"), ("size", "65536k")],
            Attributes::NOSUID,
            "dev",
        )?,
        Op::Enter(c("dev", "path")?),
    ];
    let mut null = -1;
    for device in DEVICES {
        let source = kept.keep(clone_host(&format!("/dev/{device}"), false)?)?;
        if device == "null" {
            null = source;
        }
        ops.push(Op::CreateFile(c(device, "path")?, 0o666));
        ops.push(Op::Attach {
            mount: source,
            target: c(device, "path")?,
        });
    }
    for (to, at) in DEV_LINKS {
        ops.push(Op::Symlink {
            to,
            at: c(at, "path")?,
        });
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)] {
        ops.push(Op::CreateDir(c(name, "path")?, mode));
    }
    ops.push(fs(
        c"devpts",
        // 5 is tty, where there are that many ids.
        &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")][..if ids > 5 { 3 } else { 2 }],
        Attributes::NOSUID_NOEXEC,
        "pts",
    )?);
    let shm_size = spec.shm_size.unwrap_or(SHM_SIZE).to_string();
    ops.push(fs(
        c"tmpfs",
        &[("mode", "1777"), ("size", &shm_size)],
        strict,
        "shm",
    )?);
    ops.push(Op::Mount {
        fstype: c"mqueue",
        options: Vec::new(),
        attributes: strict,
        target: c("mqueue", "path")?,
        // Kernels may lack it.
        optional: true,
    });
    ops.push(Op::Enter(CString::default()));
    if own_network {
        ops.push(fs(c"sysfs", &[], strict.and(Attributes::READ_ONLY), "sys")?);
        ops.push(Op::LoopbackUp);
    } else {
        // A new sysfs needs a net namespace of one's own: show the host's, read-only.
        let sys = clone_host("/sys", true)?;
        mount::set_attributes(sys.as_fd(), Attributes::READ_ONLY, true)
            .map_err(|e| Error::call("mount_setattr(/sys, MOUNT_ATTR_RDONLY, AT_RECURSIVE)", e))?;
        ops.push(Op::Attach {
            mount: kept.keep(sys)?,
            target: c("sys", "path")?,
        });
    }
    // The step's own cgroup namespace, where the host has cgroup v2.
    ops.push(Op::Mount {
        fstype: c"cgroup2",
        options: Vec::new(),
        attributes: strict.and(Attributes::READ_ONLY),
        target: c("sys/fs/cgroup", "path")?,
        optional: true,
    });
    for mount in spec.mounts {
        let components = mount.target.split(|b| *b == b'/').filter(|c| !c.is_empty());
        let components: Vec<&[u8]> = components.collect();
        let made = match mount.create {
            Create::Never => 0,
            Create::Directory | Create::File => components.len(),
        };
        for index in 0..made {
            let parent = match &components[..index] {
                [] => b".".to_vec(),
                parents => parents.join(&b'/'),
            };
            ops.push(Op::Ensure {
                parent: c(parent, "mount target")?,
                name: c(components[index], "mount target")?,
                directory: index + 1 < made || mount.create == Create::Directory,
            });
        }
        ops.push(Op::Attach {
            mount: kept.keep(mount.source)?,
            target: c(components.join(&b'/'), "mount target")?,
        });
    }
    for path in MASKED {
        ops.push(Op::Mask {
            target: c(path, "path")?,
            null,
        });
    }
    for path in READ_ONLY {
        ops.push(Op::MakeReadOnly(c(path, "path")?));
    }
    ops.push(Op::PivotRoot);
    // Again: what has been attached may still receive mounts from the host.
    ops.push(Op::MakeMountsPrivate);
    ops.push(Op::SetHostname(c(spec.hostname, "host name")?));
    ops.push(stdio);
    let confined = Confined {
        rlimits: spec.rlimits,
        shares_network: !own_network,
        is_added: false,
        capabilities: spec.capabilities,
        seccomp: spec.seccomp,
        user: spec.user,
        cwd: spec.cwd,
    };
    confined.compile(&mut ops, kept)?;
    let exec = exec(spec.args, spec.env)?;
    Ok(Plan { ops, exec, root })
}

/// Compiles a command for a sandbox that is there.
///
/// # Errors
/// As for [`compile`].
pub(crate) fn compile_addition(
    addition: Addition,
    shares_network: bool,
    kept: &mut Kept,
) -> Result<Plan, Error> {
    let mut ops = vec![
        Op::BecomeRoot,
        Op::DieWithBuilder,
        Op::NewSession,
        Op::ResetSignals,
        stdio(addition.stdio, addition.user.uid, kept)?,
    ];
    let confined = Confined {
        rlimits: addition.rlimits,
        shares_network,
        is_added: true,
        capabilities: addition.capabilities,
        seccomp: addition.seccomp,
        user: addition.user,
        cwd: addition.cwd,
    };
    confined.compile(&mut ops, kept)?;
    Ok(Plan {
        ops,
        exec: exec(addition.args, addition.env)?,
        root: -1,
    })
}

/// What a command may no longer do when it begins.
struct Confined {
    rlimits: Vec<(u32, u64, u64)>,
    shares_network: bool,
    /// Whether it is not the first command of its sandbox. A Landlock domain can't be joined:
    /// were its signals to end at its own, it could not send any to the others.
    is_added: bool,
    capabilities: CapabilitySet,
    seccomp: Option<Program>,
    user: User,
    cwd: Vec<u8>,
}

impl Confined {
    /// Adds what comes last before the command, in a sandbox that is complete.
    fn compile(self, ops: &mut Vec<Op>, kept: &mut Kept) -> Result<(), Error> {
        for (resource, soft, hard) in self.rlimits {
            ops.push(Op::SetRlimit(resource, soft, hard));
        }
        ops.push(Op::Umask(0o022));
        if self.shares_network && !disabled("landlock") {
            // Abstract sockets belong to the net namespace, which this step shares with the host.
            if let Ok(ruleset) = process::landlock_scope_ruleset(!self.is_added) {
                ops.push(Op::RestrictScope(kept.keep(ruleset)?));
            }
        }
        ops.push(Op::CloseDescriptors);
        if self.seccomp.is_none() {
            // Nothing else keeps it from the caller's keys.
            ops.push(Op::NewKeyring);
        }
        ops.push(Op::LimitBoundingSet(self.capabilities.bits()));
        if let Some(program) = self.seccomp {
            // While there is CAP_SYS_ADMIN: no_new_privs would take setuid programs away.
            ops.push(Op::Seccomp(program));
        }
        let user = self.user;
        let is_root = user.uid == 0;
        ops.push(Op::BecomeUser(user.uid, user.gid, user.groups));
        // Another user has lost its capabilities by the change.
        if is_root {
            ops.push(Op::SetCapabilities(self.capabilities.bits()));
        }
        ops.push(Op::Chdir(c(self.cwd, "working directory")?));
        // Again: the change of ids has cleared the death signal.
        ops.push(Op::DieWithBuilder);
        Ok(())
    }
}

fn exec(args: Vec<Vec<u8>>, env: Vec<Vec<u8>>) -> Result<Exec, Error> {
    let path = env.iter().find_map(|e| e.strip_prefix(b"PATH="));
    Ok(Exec {
        candidates: candidates(
            args.first().map_or(&[][..], |a| a),
            path.unwrap_or(b"/bin:/usr/bin"),
        )?,
        args: strings(args, "command")?,
        env: strings(env, "environment")?,
    })
}

fn strings(list: Vec<Vec<u8>>, what: &'static str) -> Result<Vec<CString>, Error> {
    list.into_iter().map(|bytes| c(bytes, what)).collect()
}

/// Returns the paths at which a program may be, as execvp(3) looks for it.
fn candidates(program: &[u8], path: &[u8]) -> Result<Vec<CString>, Error> {
    if program.contains(&b'/') {
        return Ok(vec![c(program, "command")?]);
    }
    if program.is_empty() {
        return Ok(Vec::new());
    }
    let join = |dir: &[u8]| {
        let dir = if dir.is_empty() { b"." } else { dir };
        c([dir, b"/", program].concat(), "command")
    };
    path.split(|b| *b == b':').map(join).collect()
}
