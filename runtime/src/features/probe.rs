//! Trying each feature, in processes that are forked for it.

use std::fs;
use std::io::{PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::overlay::{Scratch, failed, try_overlay};
use super::{Feature, Probed, State};
use crate::builder::{Builder, disabled, find_maps};
use crate::capability::CapabilitySet;
use crate::error::Error;
use crate::host::HostHelper;
use crate::overlay::{OverlayKind, mount_directory};
use crate::seccomp::Policy;
use crate::spec::{Network, Spec, User};
use crate::sys::process::{self, Fork};

/// Forks, calls `function` in the child, and returns what it returned there.
pub(super) fn in_child<T: Serialize + DeserializeOwned>(
    function: impl FnOnce() -> T,
) -> Result<T, Error> {
    let gone = |e: std::io::Error| {
        Error::call(
            "pipe()",
            Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)),
        )
    };
    let (mut reader, mut writer): (PipeReader, _) = std::io::pipe().map_err(gone)?;
    let child = match process::fork_single_threaded() {
        Err(Errno::EBUSY) => return Err(Error::Threads),
        Err(errno) => return Err(Error::call("fork()", errno)),
        Ok(Fork::Parent(pid)) => pid,
        Ok(Fork::Child) => {
            drop(reader);
            // A panic must not go on in the caller's frames: there are two of them now.
            let result = catch_unwind(AssertUnwindSafe(function));
            if let Ok(value) = result
                && let Ok(bytes) = serde_json::to_vec(&value)
            {
                let _ = writer.write_all(&bytes);
            }
            process::exit_now(0)
        }
    };
    drop(writer);
    let mut bytes = Vec::new();
    let read = reader.read_to_end(&mut bytes);
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None);
    read.map_err(gone)?;
    serde_json::from_slice(&bytes).map_err(|_| Error::call("probe", Errno::ECHILD))
}

/// Tries one system call in a child, since it changes the process.
fn try_in_child(function: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    match in_child(|| function().map_err(|errno| errno as i32)) {
        Ok(result) => result.map_err(Errno::from_raw),
        Err(Error::Call { errno, .. }) => Err(errno),
        Err(_) => Err(Errno::EBUSY),
    }
}

/// Tries everything. Ends within the builder's namespace and with threads: for a process
/// that is forked for it.
pub(super) fn all(directory: &Path) -> Vec<Probed> {
    // Outside of the builder's namespace …
    let user_namespaces = user_namespaces();
    let subordinate_ids = subordinate_ids();
    let seccomp = seccomp();
    let clone3 = clone3();
    let landlock = landlock();
    let cgroups = cgroups();
    let reflinks = reflinks(directory);
    // … and within.
    let untried = |why: &str| State::missing(why, "");
    let within = match Builder::enter() {
        Err(error) => {
            let id_maps = match &error {
                Error::UserNamespacesForbidden(_) | Error::SubordinateIds(_) => {
                    untried("not tried: it needs what is missing above")
                }
                error => State::of_error(error, "install the package uidmap"),
            };
            let rest = "not tried: the builder's namespace can't be entered";
            Within {
                id_maps,
                sandbox: untried(rest),
                fresh_proc: untried(rest),
                net_namespace: untried(rest),
                kernel_overlay: untried(rest),
                fuse_overlay: untried(rest),
                nodes: untried(rest),
                xattrs: untried(rest),
            }
        }
        Ok(builder) => within(&builder, directory),
    };
    [
        (Feature::UserNamespaces, user_namespaces),
        (Feature::SubordinateIds, subordinate_ids),
        (Feature::IdMaps, within.id_maps),
        (Feature::Sandbox, within.sandbox),
        (Feature::FreshProc, within.fresh_proc),
        (Feature::NetNamespace, within.net_namespace),
        (Feature::Seccomp, seccomp),
        (Feature::KernelOverlay, within.kernel_overlay),
        (Feature::FuseOverlay, within.fuse_overlay),
        (Feature::Clone3, clone3),
        (Feature::Landlock, landlock),
        (Feature::Cgroups, cgroups),
        (Feature::WhiteoutNodes, within.nodes),
        (Feature::WhiteoutXattrs, within.xattrs),
        (Feature::Reflinks, reflinks),
    ]
    .into_iter()
    .map(|(feature, state)| Probed { feature, state })
    .collect()
}

fn user_namespaces() -> State {
    let result = if disabled("userns") {
        Err(Errno::EPERM)
    } else {
        try_in_child(|| unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS))
    };
    match result {
        Ok(()) => State::works(""),
        Err(errno) => State::of_error(&Error::UserNamespacesForbidden(errno), ""),
    }
}

fn subordinate_ids() -> State {
    let maps = HostHelper::start().and_then(|host| find_maps(&host));
    match maps {
        Ok((uids, gids)) => {
            let (uids, gids) = (uids.subordinate(), gids.subordinate());
            State::works(match uids.min(gids) {
                65_536.. => format!("{uids} uids, {gids} gids"),
                _ => format!("{uids} uids, {gids} gids: images with higher ids need 65536"),
            })
        }
        Err(error) => State::of_error(&error, "see subuid(5)"),
    }
}

fn seccomp() -> State {
    let program = match Policy::default_policy().compile(CapabilitySet::default_set()) {
        Ok(program) => program,
        Err(error) => return State::missing(&error, error.hint().unwrap_or_default()),
    };
    let result = try_in_child(|| {
        nix::sys::prctl::set_no_new_privs()?;
        crate::sys::seccomp::install(program.as_slice())
    });
    match result {
        Ok(()) => State::works(format!("{} instructions", program.as_slice().len())),
        Err(errno) => State::missing(
            format!("seccomp(SECCOMP_SET_MODE_FILTER): {}", errno.desc()),
            "the kernel needs CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn clone3() -> State {
    let result = if disabled("clone3") {
        Err(Errno::ENOSYS)
    } else {
        process::try_clone3()
    };
    match result {
        Ok(()) => State::works(""),
        Err(errno) => State::missing(
            format!("clone3: {}", errno.desc()),
            "nothing to do: kiln takes clone(2)",
        ),
    }
}

fn landlock() -> State {
    let abi = if disabled("landlock") {
        0
    } else {
        process::landlock_abi()
    };
    let remedy = "build with --network none, or use Linux 6.12 or later with landlock in the \
                  list of security modules (lsm=… on the kernel's command line): without it, a \
                  RUN on the host's network can connect to abstract unix sockets of the host, and \
                  a container with -v can do so under your own uid, which it has for your files: \
                  give that --network none";
    match abi {
        0 => State::missing("this kernel has no Landlock, or it is off", remedy),
        1..6 => State::missing(
            format!("Landlock has ABI {abi}; scopes came with 6"),
            remedy,
        ),
        _ if process::landlock_scope_ruleset(true).is_err() => {
            State::missing("landlock_create_ruleset(scoped) is refused", remedy)
        }
        _ => State::works(format!("ABI {abi}")),
    }
}

/// Tries to make a child of the process's own cgroup.
fn cgroups() -> State {
    let remedy = "start kiln in a delegated cgroup: systemd-run --user --scope -p Delegate=yes \
                  kiln …; without one, limits of memory and processes are rlimits";
    let own = match own_cgroup() {
        Some(own) => own,
        None => return State::missing("no cgroup v2 hierarchy is mounted", remedy),
    };
    let child = own.join(format!("kiln-trial-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&child) {
        return State::missing(failed("mkdir", &child)(error), remedy);
    }
    let _ = fs::remove_dir(&child);
    let controllers = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    let lacks = |name: &&str| !controllers.split_whitespace().any(|c| c == *name);
    let missing: Vec<&str> = ["memory", "pids", "cpu"]
        .into_iter()
        .filter(lacks)
        .collect();
    if missing.is_empty() {
        State::works(own.display().to_string())
    } else {
        State::missing(
            format!(
                "{} has no controllers {}",
                own.display(),
                missing.join(", ")
            ),
            remedy,
        )
    }
}

/// Returns the directory of this process's cgroup in the v2 hierarchy.
fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        (fs.split(' ').next()? == "cgroup2").then_some(point)
    })?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(path))
}

fn reflinks(directory: &Path) -> State {
    let attempt = || -> Result<(), Error> {
        let scratch = Scratch::new(directory)?;
        let (from, to) = (scratch.0.join("from"), scratch.0.join("to"));
        fs::write(&from, [0; 4096]).map_err(failed("write", &from))?;
        let source = fs::File::open(&from).map_err(failed("open", &from))?;
        let copy = fs::File::create(&to).map_err(failed("open", &to))?;
        process::reflink(source.as_fd(), copy.as_fd()).map_err(|e| Error::call("ioctl(FICLONE)", e))
    };
    match attempt() {
        Ok(()) => State::works(""),
        Err(error) => State::of_error(
            &error,
            "nothing to do: copies are copies; btrfs and xfs (with reflink=1) can share them",
        ),
    }
}

/// The states of what is tried within the builder's namespace.
struct Within {
    id_maps: State,
    sandbox: State,
    fresh_proc: State,
    net_namespace: State,
    kernel_overlay: State,
    fuse_overlay: State,
    nodes: State,
    xattrs: State,
}

fn within(builder: &Builder, directory: &Path) -> Within {
    let (uids, gids) = builder.maps();
    let id_maps = State::works(format!(
        "{} and {} ranges mapped",
        uids.entries().len(),
        gids.entries().len()
    ));
    // This starts no thread, and the rest may.
    let (nodes, xattrs) = whiteouts(directory);
    let kernel_overlay = overlay(
        builder,
        directory,
        OverlayKind::Kernel,
        "Linux 5.11 or later lets ordinary users mount it, on ext4, xfs, btrfs or (6.6) tmpfs; \
         within a container the store needs a volume. Choose the place with --root or \
         KILN_ROOT. Without it, kiln takes fuse-overlayfs",
    );
    let fuse_overlay = overlay(
        builder,
        directory,
        OverlayKind::Fuse,
        "install the package fuse-overlayfs; /dev/fuse must be there (modprobe fuse) and open \
         to your user (chmod 666 /dev/fuse)",
    );
    let (sandbox, fresh_proc, net_namespace) = sandboxes(builder, directory);
    Within {
        id_maps,
        sandbox,
        fresh_proc,
        net_namespace,
        kernel_overlay,
        fuse_overlay,
        nodes,
        xattrs,
    }
}

fn overlay(builder: &Builder, directory: &Path, kind: OverlayKind, remedy: &str) -> State {
    if kind == OverlayKind::Fuse
        && let Err(error) = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
    {
        return State::missing(failed("open", Path::new("/dev/fuse"))(error), remedy);
    }
    match try_overlay(builder, directory, kind) {
        Ok(Ok(())) => State::works(""),
        Ok(Err(error @ Error::MissingProgram { .. })) => State::of_error(&error, remedy),
        Ok(Err(error)) | Err(error) => State::missing(error, remedy),
    }
}

/// Tries both kinds of whiteouts: as a node, and as an attribute.
fn whiteouts(directory: &Path) -> (State, State) {
    let remedy = "nothing to do where the other kind of whiteouts works; else keep the store on \
                  ext4, xfs, btrfs or tmpfs";
    let scratch = match Scratch::new(directory) {
        Ok(scratch) => scratch,
        Err(error) => {
            let state = State::of_error(&error, "see that the store can be written");
            return (state.clone(), state);
        }
    };
    let state = |call: &str, result: Result<(), Errno>| match result {
        Ok(()) => State::works(""),
        Err(errno) => State::missing(format!("{call}: {}", errno.desc()), remedy),
    };
    let node = scratch.0.join("node");
    let result = mknod(&node, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0));
    let nodes = state("mknod(c 0 0)", result);
    let file = scratch.0.join("file");
    let result = fs::File::create(&file)
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
        .and_then(|file| process::set_xattr(file.as_fd(), c"user.overlay.whiteout", b""));
    (nodes, state("fsetxattr(user.overlay.whiteout)", result))
}

/// Starts a step whose command is not there: who gets as far as to miss it had all the rest.
fn try_sandbox(builder: &Builder, directory: &Path, network: Network) -> Result<(), Error> {
    let scratch = Scratch::new(directory)?;
    // The step's root owns nothing here: it needs to be let in, whatever the umask is.
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755))
        .map_err(failed("chmod", &scratch.0))?;
    for name in ["proc", "sys", "dev"] {
        let path = scratch.0.join(name);
        fs::create_dir(&path).map_err(failed("mkdir", &path))?;
    }
    let null = || {
        let path = Path::new("/dev/null");
        let file = fs::OpenOptions::new().read(true).write(true).open(path);
        file.map(Into::into).map_err(failed("open", path))
    };
    let capabilities = CapabilitySet::default_set();
    let spec = Spec {
        root: mount_directory(&scratch.0)?,
        args: vec![b"/trial".to_vec()],
        env: Vec::new(),
        cwd: b"/".to_vec(),
        user: User::default(),
        network,
        hostname: "trial".to_owned(),
        mounts: Vec::new(),
        capabilities,
        seccomp: Some(Policy::default_policy().compile(capabilities)?),
        maps_caller: false,
        rlimits: Vec::new(),
        shm_size: None,
        stdio: [null()?, null()?, null()?].into(),
    };
    match builder.spawn(spec) {
        Err(Error::Exec {
            errno: Errno::ENOENT,
            ..
        }) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Error::call("execve(/trial)", Errno::EEXIST)),
    }
}

/// Returns the states of the sandbox, of its /proc and of its network.
fn sandboxes(builder: &Builder, directory: &Path) -> (State, State, State) {
    let remedy = "within a container, its seccomp profile must allow mount, pivot_root and \
                  clone with new namespaces";
    let net_remedy = "RUN --network none does not work; as root: \
                      sysctl -w user.max_net_namespaces=65536";
    let is_proc =
        |error: &Error| matches!(error, Error::Call { call, .. } if call.starts_with("mount(proc"));
    match try_sandbox(builder, directory, Network::Host) {
        Ok(()) => {
            let net = match try_sandbox(builder, directory, Network::None) {
                Ok(()) => State::works(""),
                Err(error) => State::missing(error, net_remedy),
            };
            (State::works(""), State::works(""), net)
        }
        Err(error) => {
            let untried = State::missing("not tried: no sandbox starts", "");
            let state = State::of_error(&error, remedy);
            let proc = if is_proc(&error) {
                state.clone()
            } else {
                untried.clone()
            };
            (state, proc, untried)
        }
    }
}
