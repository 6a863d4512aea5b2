//! Mounts become mounts: snapshots, caches, secrets, sockets.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use kiln_runtime::{Create, Mount};

use super::layout::{Placed, lay_out};
use super::{From, Mounts, Planned, Source};
use crate::build::error::{Step, Trouble};
use crate::build::key::Key;
use crate::build::stage::State;
use crate::build::{Build, Running, secret, ssh};
use crate::dockerfile::{MountKind, MountSpec, Sharing};
use crate::event::{Event, Stream};
use crate::sandbox::{Access, MountPoint, PrivateFiles, SandboxError, Sandboxes, Shown};
use crate::store::{Lock, MOUNTED, Snapshot};

/// How often a cache that is in use is asked for again.
const PATIENCE: Duration = Duration::from_millis(25);

/// A program that is mounted for one step: a heredoc that begins with `#!`.
pub(in crate::build) struct Script<'a> {
    /// Where, absolute.
    pub(in crate::build) target: &'a str,
    /// What it says.
    pub(in crate::build) content: &'a str,
}

/// What a step gets. It holds as long as this value.
pub(in crate::build) struct Prepared {
    /// Where in the root something is mounted on.
    pub(in crate::build) points: Vec<MountPoint>,
    /// What is mounted, in order.
    pub(in crate::build) mounts: Vec<Mount>,
    /// Variables of secrets, and of the agent.
    pub(in crate::build) env: Vec<(String, String)>,
    /// Whether what is mounted is what the key says: a file of the context may have changed.
    pub(in crate::build) stable: bool,
    /// What it can do without and was not given: what to do about it, should it fail.
    pub(in crate::build) not_given: Option<String>,
    /// What goes when the step has ended.
    pub(in crate::build) held: Held,
}

/// What must stay until the step has ended.
#[derive(Default)]
pub(in crate::build) struct Held {
    shown: Vec<Shown>,
    snapshots: Vec<Snapshot>,
    agents: Vec<ssh::Forwarding>,
    caches: BTreeMap<String, (PathBuf, Lock)>,
}

/// A mount whose target lies in the sandbox, and what comes there.
struct Ready {
    source: OwnedFd,
    is_directory: bool,
}

impl Build<'_> {
    /// Prepares the mounts of a step that is run.
    pub(in crate::build) fn prepare_mounts(
        &self,
        mounts: &Mounts<'_>,
        script: Option<&Script<'_>>,
        state: &State,
        sandboxes: &Sandboxes,
        step: &Running,
    ) -> Step<Prepared> {
        let mut prepared = Prepared {
            points: Vec::new(),
            mounts: Vec::new(),
            env: Vec::new(),
            stable: true,
            not_given: None,
            held: Held::default(),
        };
        let targets: Vec<(usize, &str)> = mounts
            .list
            .iter()
            .enumerate()
            .filter_map(|(index, mount)| Some((index, mount.target.as_deref()?)))
            .collect();
        let placed = lay_out(&state.view, &targets)?;
        mounts.check_parents(&placed)?;
        let mut work = Work {
            build: self,
            sandboxes,
            private: None,
            prepared: &mut prepared,
        };
        work.take_caches(&mounts.list, step)?;
        for planned in mounts.list.iter().filter(|mount| mount.target.is_none()) {
            work.secret(&planned.spec)?;
        }
        // Parents first; a mount that is not there, such as an optional secret, has no source.
        let mut sources = Vec::new();
        for (position, place) in placed.iter().enumerate() {
            let planned = &mounts.list[place.index];
            let within: Vec<MountPoint> = placed
                .iter()
                .filter(|other| other.parent == Some(position))
                .map(|other| MountPoint {
                    path: other.below(place).to_vec(),
                    is_directory: mounts.list[other.index].is_directory(),
                })
                .collect();
            sources.push(work.source(planned, place, within)?);
        }
        for (place, ready) in placed.iter().zip(sources) {
            let Some(ready) = ready else { continue };
            let planned = &mounts.list[place.index];
            let parent = place
                .parent
                .map(|parent| &mounts.list[placed[parent].index]);
            let create = work.mount_point(planned, place, parent, ready.is_directory)?;
            work.prepared.mounts.push(Mount {
                target: place.path.clone(),
                source: ready.source,
                create,
            });
        }
        if let Some(script) = script {
            let access = Access {
                mode: 0o755,
                uid: 0,
                gid: 0,
            };
            let source = work
                .private()?
                .file(script.content.as_bytes(), access, true)?;
            work.prepared.mounts.push(Mount {
                target: script.target.into(),
                source,
                create: Create::File,
            });
        }
        Ok(prepared)
    }
}

impl Mounts<'_> {
    /// Refuses mounts below a file.
    fn check_parents(&self, placed: &[Placed]) -> Step<()> {
        for place in placed {
            let parent = place.parent.map(|parent| &self.list[placed[parent].index]);
            if let Some(parent) = parent.filter(|parent| !parent.is_directory()) {
                return Err(Trouble::new(format!(
                    "cannot mount at {:?}: {} is a file",
                    self.list[place.index].target.as_deref().unwrap_or_default(),
                    parent.target.as_deref().unwrap_or_default()
                )));
            }
        }
        Ok(())
    }
}

impl Planned<'_> {
    fn is_directory(&self) -> bool {
        match self.spec.kind {
            MountKind::Bind => self.source.as_ref().is_some_and(|s| s.is_directory),
            MountKind::Cache | MountKind::Tmpfs => true,
            MountKind::Secret | MountKind::Ssh => false,
        }
    }

    /// Returns the name of a cache in the store: a cache that begins otherwise is another one,
    /// as in docker.
    fn cache_name(&self) -> String {
        let mut key = Key::lasting("cache mount");
        let spec = &self.spec;
        key.text(spec.id.as_deref().unwrap_or_default());
        for number in [spec.mode, spec.uid, spec.gid] {
            key.text(&format!("{number:?}"));
        }
        if let Some(Source {
            from: From::Layers(chain_id),
            path,
            ..
        }) = &self.source
        {
            key.chain(*chain_id).bytes(path);
        }
        key.finish().hash
    }
}

/// The preparation of one step.
struct Work<'w, 'b> {
    build: &'w Build<'b>,
    sandboxes: &'w Sandboxes,
    private: Option<PrivateFiles>,
    prepared: &'w mut Prepared,
}

impl Work<'_, '_> {
    fn private(&mut self) -> Result<&mut PrivateFiles, SandboxError> {
        let private = match self.private.take() {
            Some(private) => private,
            None => self.sandboxes.private_files()?,
        };
        Ok(self.private.insert(private))
    }

    /// Takes all caches of a step, in an order that is the same in every process: none waits
    /// for a cache of one that waits for one of its own.
    fn take_caches(&mut self, list: &[Planned<'_>], step: &Running) -> Step<()> {
        let mut wanted: BTreeMap<String, (&Planned<'_>, Sharing)> = BTreeMap::new();
        for planned in list {
            let sharing = planned.spec.sharing;
            if planned.spec.kind == MountKind::Cache {
                let entry = wanted.entry(planned.cache_name());
                let entry = entry.or_insert((planned, sharing));
                // One step may mount a cache twice.
                if sharing != Sharing::Shared && entry.1 != Sharing::Locked {
                    entry.1 = sharing;
                }
            }
        }
        for (name, (planned, sharing)) in wanted {
            let (slot, lock) = self.lock_cache(&name, planned, sharing, step)?;
            let tree = self.build.cache_tree(&slot, planned)?;
            self.prepared.held.caches.insert(name, (tree, lock));
        }
        Ok(())
    }

    /// Returns the name of the tree that is used, and the lock of it.
    fn lock_cache(
        &self,
        name: &str,
        planned: &Planned<'_>,
        sharing: Sharing,
        step: &Running,
    ) -> Step<(String, Lock)> {
        let store = self.build.shop.store;
        let try_lock = |slot: &str, alone: bool| store.try_lock_cache(slot, alone);
        if sharing == Sharing::Private {
            // The first that nobody uses.
            for number in 0u32.. {
                let slot = match number {
                    0 => name.to_owned(),
                    number => format!("{name}.{number}"),
                };
                if let Some(lock) = try_lock(&slot, true)? {
                    return Ok((slot, lock));
                }
            }
        }
        let mut told = false;
        loop {
            if let Some(lock) = try_lock(name, sharing != Sharing::Shared)? {
                return Ok((name.to_owned(), lock));
            }
            if !told {
                told = true;
                let id = planned.spec.id.as_deref().unwrap_or_default();
                self.build.shop.reporter.report(Event::StepOutput {
                    step: step.id,
                    stream: Stream::Stderr,
                    data: format!("waiting for the cache {id:?}: another step uses it\n").into(),
                });
            }
            self.build.check_canceled()?;
            std::thread::sleep(PATIENCE);
        }
    }

    /// Reads a secret and sets its variable.
    fn secret(&mut self, spec: &MountSpec) -> Step<Option<Vec<u8>>> {
        let id = spec.id.as_deref().unwrap_or_default();
        let secrets = &self.build.options.secrets;
        let Some(bytes) = secret::find(secrets, id, spec.required)? else {
            self.prepared.not_given = Some(format!(
                "the secret {id:?} was not given, which the step may need: \
                 --secret id={id},src=FILE or --secret id={id},env=VARIABLE"
            ));
            return Ok(None);
        };
        if let Some(name) = &spec.env {
            let name = if name.is_empty() { id } else { name };
            let unusable = || {
                let text = format!("the secret {id:?} can't be a variable: it is no text");
                Trouble::hinted(text, "mount it as a file: leave env out")
            };
            let text = String::from_utf8(bytes.clone()).map_err(|_| unusable())?;
            if text.contains('\0') {
                return Err(unusable());
            }
            self.prepared.env.push((name.to_owned(), text));
        }
        Ok(Some(bytes))
    }

    /// Returns what is mounted somewhere. `within` are the mounts below it.
    fn source(
        &mut self,
        planned: &Planned<'_>,
        place: &Placed,
        within: Vec<MountPoint>,
    ) -> Step<Option<Ready>> {
        let spec = &planned.spec;
        let access = |mode: u32| Access {
            mode: spec.mode.unwrap_or(mode),
            uid: spec.uid.unwrap_or(0),
            gid: spec.gid.unwrap_or(0),
        };
        let source = match spec.kind {
            MountKind::Bind => match &planned.source {
                Some(source) => self.bind(source, !spec.read_only, within)?,
                None => return Ok(None),
            },
            MountKind::Cache => {
                let Some((tree, _)) = self.prepared.held.caches.get(&planned.cache_name()) else {
                    return Ok(None);
                };
                let mount = kiln_runtime::mount_directory(tree)?;
                if spec.read_only {
                    crate::sandbox::make_read_only(&mount)?;
                }
                mount
            }
            MountKind::Tmpfs => {
                // A directory of the image keeps its looks.
                let stat = place.node.as_ref().map(|node| &node.stat);
                let (mode, uid, gid) = stat.map_or((0o1777, 0, 0), |s| (s.mode, s.uid, s.gid));
                let ownership = self.build.shop.store.form().ownership;
                let stored = |id: u32| ownership.to_stored(id).or(ownership.to_stored(0));
                let owner = (stored(uid).unwrap_or(0), stored(gid).unwrap_or(0));
                let mount =
                    kiln_runtime::mount_tmpfs(spec.size.filter(|size| *size > 0), mode, owner)?;
                if spec.read_only {
                    crate::sandbox::make_read_only(&mount)?;
                }
                mount
            }
            MountKind::Secret => {
                let Some(bytes) = self.secret(spec)? else {
                    return Ok(None);
                };
                self.private()?.file(&bytes, access(0o400), false)?
            }
            MountKind::Ssh => {
                let id = spec.id.as_deref().unwrap_or("default");
                let host = self.sandboxes.host();
                let given = &self.build.options.ssh;
                let session = self.build.shop.session;
                let Some(agent) = ssh::find(host, session, given, id, spec.required)? else {
                    self.prepared.not_given = Some(format!(
                        "the SSH agent {id:?} was not given, which the step may need: \
                         --ssh {id} (the agent of SSH_AUTH_SOCK) or --ssh {id}=KEY"
                    ));
                    return Ok(None);
                };
                let (listener, mount) = self.private()?.socket(access(0o600))?;
                let forwarding =
                    ssh::Forwarding::start(listener, agent).map_err(SandboxError::from)?;
                self.prepared.held.agents.push(forwarding);
                let is_first = |(name, _): &(String, String)| name == "SSH_AUTH_SOCK";
                if let Some(target) = &planned.target
                    && !self.prepared.env.iter().any(is_first)
                {
                    let variable = ("SSH_AUTH_SOCK".to_owned(), target.clone());
                    self.prepared.env.push(variable);
                }
                mount
            }
        };
        Ok(Some(Ready {
            source,
            is_directory: planned.is_directory(),
        }))
    }

    fn bind(
        &mut self,
        source: &Source<'_>,
        writable: bool,
        within: Vec<MountPoint>,
    ) -> Step<OwnedFd> {
        let snapshot;
        let (view, path) = match &source.from {
            From::Context(selected) => {
                let (made, stable) = self.build.snapshot(selected)?;
                self.prepared.stable &= stable;
                self.prepared.held.snapshots.push(made);
                snapshot = self.prepared.held.snapshots.last();
                match snapshot {
                    Some(snapshot) => (&snapshot.view, MOUNTED.as_bytes()),
                    None => return Err(Trouble::new("the snapshot of the context is gone")),
                }
            }
            From::Layers(_) => (source.tree.view(), &source.path[..]),
        };
        let mut missing = Vec::new();
        for point in within {
            let path = match path {
                b"" => point.path,
                path => [path, b"/", &point.path].concat(),
            };
            match view.lookup(&path)? {
                Some(node) if node.stat.is_dir() == point.is_directory => {}
                Some(_) => {
                    let shown = String::from_utf8_lossy(&path).into_owned();
                    return Err(kind_mismatch(&shown, point.is_directory));
                }
                None => missing.push(MountPoint { path, ..point }),
            }
        }
        let (mount, shown) = self.sandboxes.show(view, path, writable, &missing)?;
        self.prepared.held.shown.push(shown);
        Ok(mount)
    }

    /// Sees to it that there is something to mount on.
    fn mount_point(
        &mut self,
        planned: &Planned<'_>,
        place: &Placed,
        parent: Option<&Planned<'_>>,
        is_directory: bool,
    ) -> Step<Create> {
        let target = planned.target.as_deref().unwrap_or_default();
        let made = match is_directory {
            true => Create::Directory,
            false => Create::File,
        };
        match parent {
            // /dev is made anew for every step.
            None if place.path.starts_with(b"dev/") => Ok(made),
            None => match &place.node {
                Some(node) if node.stat.is_dir() != is_directory => {
                    Err(kind_mismatch(target, is_directory))
                }
                Some(_) => Ok(Create::Never),
                None => {
                    self.prepared.points.push(MountPoint {
                        path: place.path.clone(),
                        is_directory,
                    });
                    Ok(Create::Never)
                }
            },
            // The tree has been given its mount points.
            Some(parent) if parent.spec.kind == MountKind::Bind => Ok(Create::Never),
            Some(_) => Ok(made),
        }
    }
}

fn kind_mismatch(target: &str, is_directory: bool) -> Trouble {
    let (what, there) = match is_directory {
        true => ("directory", "file"),
        false => ("file", "directory"),
    };
    Trouble::hinted(
        format!("cannot mount a {what} at {target:?}: there is a {there}"),
        "choose another target",
    )
}
