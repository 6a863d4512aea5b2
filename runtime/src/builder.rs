//! The builder's namespace: entered once, before any thread. In it, the caller is id 0 and
//! the subordinate ids are 1 and up.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::error::Error;
use crate::host::{Begun, HostCommand, HostHelper};
use crate::spawner::Spawner;
use crate::subid::{IdKind, IdMap, Subids};
use crate::sys::process;

/// The builder's namespace, which this process is in. Starts steps.
#[derive(Clone)]
pub struct Builder {
    inner: Arc<Inner>,
}

struct Inner {
    host: HostHelper,
    uids: IdMap,
    gids: IdMap,
    /// The caller's limits of open files, which steps get back.
    open_files: (u64, u64),
    spawner: Spawner,
}

/// A wish to switch a feature of the kernel off, for tests of what kiln does without it:
/// `KILN_DISABLE=clone3,fsmount,landlock,overlay,userns`.
pub(crate) fn disabled(feature: &str) -> bool {
    std::env::var("KILN_DISABLE").is_ok_and(|list| list.split(',').any(|f| f.trim() == feature))
}

impl Builder {
    /// Enters the builder's namespace: a user namespace in which the caller is id 0 and its
    /// subordinate ids are 1 and up, and a mount namespace. A helper stays outside.
    ///
    /// # Errors
    /// [`Error::Threads`] in a process with threads; [`Error::UserNamespacesForbidden`],
    /// [`Error::SubordinateIds`], [`Error::MissingProgram`] or [`Error::IdMapRefused`] where
    /// the host does not allow it.
    pub fn enter() -> Result<Builder, Error> {
        if process::thread_count() != 1 {
            return Err(Error::Threads);
        }
        // Who ignores it can't wait for a child, and the disposition is inherited.
        process::stop_ignoring(Signal::SIGCHLD);
        let host = HostHelper::start()?;
        let open_files = raise_open_files();
        let (uids, gids) = find_maps(&host)?;
        if disabled("userns") {
            return Err(Error::UserNamespacesForbidden(Errno::EPERM));
        }
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
            .map_err(Error::UserNamespacesForbidden)?;
        // At once: each is the start of a process.
        let maps = [("newuidmap", &uids), ("newgidmap", &gids)];
        let begun = maps.map(|(program, map)| (program, write_map(&host, program, map)));
        for (program, begun) in begun {
            map_is_written(program, begun)?;
        }
        Ok(Builder {
            inner: Arc::new(Inner {
                host,
                uids,
                gids,
                open_files,
                spawner: Spawner::default(),
            }),
        })
    }

    /// Enters the builder's namespace of another process: the one that a step of it lies in, by
    /// the step's pid. A helper stays outside. So what one builder has started, another process
    /// of the same user can add to.
    ///
    /// # Errors
    /// [`Error::Threads`] in a process with threads; there is no such process, or it is none of
    /// this user's.
    pub fn join(pid: i32) -> Result<Builder, Error> {
        if process::thread_count() != 1 {
            return Err(Error::Threads);
        }
        process::stop_ignoring(Signal::SIGCHLD);
        let host = HostHelper::start()?;
        let open_files = raise_open_files();
        let (uids, gids) = find_maps(&host)?;
        let namespace = process::parent_user_namespace(pid).map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
            Error::call(format!("open(/proc/{pid}/ns/user)"), errno)
        })?;
        setns(&namespace, CloneFlags::CLONE_NEWUSER)
            .map_err(|errno| Error::call("setns(CLONE_NEWUSER)", errno))?;
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| Error::call("unshare(CLONE_NEWNS)", errno))?;
        Ok(Builder {
            inner: Arc::new(Inner {
                host,
                uids,
                gids,
                open_files,
                spawner: Spawner::default(),
            }),
        })
    }

    /// Returns the helper that executes programs outside the namespace.
    pub fn host(&self) -> &HostHelper {
        &self.inner.host
    }

    /// Returns how many ids a step has: 0 up to, but not including, this number.
    pub fn step_ids(&self) -> u32 {
        self.inner
            .uids
            .subordinate()
            .min(self.inner.gids.subordinate())
    }

    /// Returns the map of user ids and that of group ids.
    pub fn maps(&self) -> (&IdMap, &IdMap) {
        (&self.inner.uids, &self.inner.gids)
    }

    pub(crate) fn open_files(&self) -> (u64, u64) {
        self.inner.open_files
    }

    pub(crate) fn spawner(&self) -> &Spawner {
        &self.inner.spawner
    }
}

/// Lets this process have as many files open as it may, since it holds one for each layer, and
/// returns the limits that it had.
fn raise_open_files() -> (u64, u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    // Where that fails, very deep stacks do too, and say so.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    (soft, hard)
}

/// Finds out which ids the caller has.
pub(crate) fn find_maps(host: &HostHelper) -> Result<(IdMap, IdMap), Error> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let user = match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    };
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let ids = Subids::find(
        &user,
        uid.as_raw(),
        &read("/etc/subuid"),
        &read("/etc/subgid"),
        |command| {
            let output = host.run(command[0], &command[1..], b"").ok()?;
            (output.code == Some(0)).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        },
    )?;
    Ok((
        IdMap::builder(IdKind::Uid, uid.as_raw(), &ids.uids)?,
        IdMap::builder(IdKind::Gid, gid.as_raw(), &ids.gids)?,
    ))
}

/// Has a setuid program write an id map of this process.
fn write_map(host: &HostHelper, program: &str, map: &IdMap) -> io::Result<Begun> {
    let mut args = vec![std::process::id().to_string()];
    args.extend(map.to_args());
    host.begin(&HostCommand::new(program).args(args))
}

/// Waits for such a program.
fn map_is_written(program: &'static str, begun: io::Result<Begun>) -> Result<(), Error> {
    let output = begun.and_then(Begun::wait).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Error::MissingProgram {
                program,
                package: "uidmap",
            }
        } else {
            Error::HelperGone(error)
        }
    })?;
    if output.code == Some(0) {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::IdMapRefused { program, stderr })
}
