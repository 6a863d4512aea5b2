//! Containers: what each was made with, how it ended last, and the locks that tell whether it
//! runs.
//!
//! ```text
//! containers/<id>/container.json   what it was made with
//! containers/<id>/status.json      when it was started, how it ended
//! containers/<id>/fs, work         what it has changed, as an overlay's upper directory
//! containers/<id>/log              what it wrote while nobody was attached
//! containers/<id>/lock             byte 0: it runs; byte 1: somebody uses its files; once it is
//!                                  taken away, its exit code, for those who wait with it open
//! ```
//!
//! That a container runs is said by nothing but a lock, which the kernel takes from a process
//! that ends: a file could lie.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::{IoContext, Result, Store, StoreError, files};
use crate::image::Digest;
use crate::layer::{LayerDir, View};

/// The lock that containers are made, named and taken away under.
const CONTAINERS: &str = "containers";

/// A container's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name, which no other container has.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Its image.
    pub image: Digest,
    /// The image as it was named.
    pub image_name: String,
    /// The form of its files: they are never read under another.
    pub form: String,
    /// What it runs, and with what.
    pub settings: ContainerSettings,
}

impl ContainerRecord {
    /// Returns the id cut to the twelve digits that people are shown.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// What a container runs, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSettings {
    /// The fixed head of the command line.
    pub entrypoint: Vec<String>,
    /// The rest of it.
    pub command: Vec<String>,
    /// Variables; HOME, HOSTNAME and TERM are added at the start where they are missing.
    pub env: Vec<String>,
    /// Where the command starts.
    pub working_dir: String,
    /// Who runs it, as it was given.
    pub user: String,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
    /// The host name.
    pub hostname: String,
    /// Whether it has no network but a loopback.
    pub no_network: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether it has standard input.
    pub open_stdin: bool,
    /// Whether it goes when it has ended.
    pub remove: bool,
    /// Whether its root can't be written.
    pub read_only: bool,
    /// Labels, by key: the image's and its own.
    pub labels: BTreeMap<String, String>,
    /// What is mounted.
    pub mounts: Vec<ContainerMount>,
    /// Names for /etc/hosts.
    pub hosts: Vec<(String, std::net::IpAddr)>,
    /// Name servers, in place of the host's.
    pub dns: Vec<std::net::IpAddr>,
    /// Search domains, in place of the host's.
    pub dns_search: Vec<String>,
    /// Options of the resolver, in place of the host's.
    pub dns_options: Vec<String>,
    /// The size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// Resource limits: resource, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Capabilities that it does not have.
    pub cap_drop: Vec<String>,
    /// The signal that asks it to end.
    pub stop_signal: String,
    /// How many seconds it has then, before it is killed.
    pub stop_timeout: Option<u64>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMount {
    /// What.
    pub source: MountSource,
    /// Where, absolute.
    pub target: String,
    /// Whether it can't be written.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// A file or directory of the user's.
    Bind(PathBuf),
    /// Memory.
    Tmpfs {
        /// How many bytes.
        size: Option<u64>,
        /// Permission bits.
        mode: u32,
        /// Whether programs in it can be executed.
        exec: bool,
    },
}

/// How a container was started last, and how that ended. What a killed kiln can't have written
/// is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// When it was started.
    pub started: Option<String>,
    /// When it ended.
    pub finished: Option<String>,
    /// With which exit code.
    pub exit_code: Option<i32>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// Whether its output goes to its log.
    #[serde(default)]
    pub logged: bool,
    /// Whether fuse-overlayfs has written to its changes since they were put into the one form
    /// that all know.
    #[serde(default)]
    pub is_raw: bool,
    /// The processes of the last start.
    pub process: Option<ContainerProcess>,
}

/// The processes of a container that runs, or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerProcess {
    /// The kiln that runs it.
    pub kiln: i32,
    /// Its first process.
    pub pid: i32,
    /// When that began, in the kernel's ticks: pids are used again.
    pub ticks: u64,
    /// In which boot.
    pub boot_id: String,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It was never started.
    Created,
    /// It runs.
    Running,
    /// It has ended, with this exit code.
    Exited(i32),
}

impl ContainerState {
    /// Returns docker's name of it.
    pub fn name(self) -> &'static str {
        match self {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Exited(_) => "exited",
        }
    }
}

/// The exit code of what SIGKILL ended.
const KILLED: i32 = 137;

/// A container as it is found.
#[derive(Clone, Debug)]
pub struct Container {
    /// What it was made with.
    pub record: ContainerRecord,
    /// How it was started and ended last.
    pub status: ContainerStatus,
    /// Whether it runs.
    pub state: ContainerState,
    /// Its directory.
    directory: PathBuf,
}

/// A container's lock, which is looked at also when it has been taken away.
pub struct Watched(File);

impl Watched {
    /// Waits until the container doesn't run.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn wait(&self) -> std::io::Result<()> {
        let runs = range(libc::F_RDLCK, RUNS);
        loop {
            match fcntl(&self.0, FcntlArg::F_OFD_SETLKW(&runs)) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        // It was only to be waited for.
        let free = range(libc::F_UNLCK, RUNS);
        fcntl(&self.0, FcntlArg::F_OFD_SETLK(&free))?;
        Ok(())
    }

    /// Returns the exit code of a container that has been taken away since.
    pub fn exit_code(&self) -> Option<i32> {
        let mut code = [0u8; 4];
        self.0.read_exact_at(&mut code, 0).ok()?;
        Some(i32::from_ne_bytes(code))
    }
}

/// A hold on a container: released when dropped, or when the process ends.
pub struct ContainerLock(File);

/// What a hold is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// To run it, or to take it away: nobody else has any hold.
    Alone,
    /// To change its files while it doesn't run.
    Change,
    /// To read its files while nobody but itself changes them.
    Read,
}

/// Where the lock file says that a container runs, and that its files are in use.
const RUNS: (i64, i64) = (0, 1);
const FILES: (i64, i64) = (1, 1);
const ALL: (i64, i64) = (0, 2);

fn range(kind: i32, (start, length): (i64, i64)) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

impl Container {
    /// Returns the tree of its changes.
    pub fn changes(&self) -> PathBuf {
        self.directory.join("fs")
    }

    /// Returns the working directory of its overlay.
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Returns its log.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Opens its lock, to see how it ends even where it goes with its end.
    ///
    /// # Errors
    /// It has gone.
    pub fn watch(&self) -> Result<Watched> {
        self.lock_file().map(Watched)
    }

    /// Tells whether it runs.
    pub fn is_running(&self) -> bool {
        self.state == ContainerState::Running
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.directory.join("lock");
        File::options()
            .read(true)
            .write(true)
            .open(&path)
            .at("cannot open the lock", &path)
    }

    fn runs(directory: &Path) -> bool {
        let Ok(file) = File::open(directory.join("lock")) else {
            return false;
        };
        let mut found = range(libc::F_WRLCK, RUNS);
        match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)) {
            Ok(_) => i32::from(found.l_type) != libc::F_UNLCK,
            Err(_) => false,
        }
    }

    /// Returns the process that the container runs in, where the record of it is true.
    pub fn process(&self) -> Option<&ContainerProcess> {
        let process = self.status.process.as_ref()?;
        let same = process.boot_id == super::layers::boot_id()
            && process_ticks(process.pid) == Some(process.ticks);
        same.then_some(process)
    }

    /// Writes how it was started or ended. Only who has it alone may do so.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn write_status(&mut self, status: ContainerStatus) -> Result<()> {
        files::write_json(&self.directory.join("status.json"), &status)?;
        self.status = status;
        Ok(())
    }
}

/// Returns when a process began, in the kernel's ticks since boot; nothing where there is none.
pub fn process_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, with anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Returns 64 hexadecimal digits that no other container has.
fn new_id() -> Result<String> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 32];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .at("cannot read", source)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Store {
    /// Makes a container: `fill` puts what it starts with into its tree of changes. Its name is
    /// the one given, else one of `names` that no container has. Nobody starts it or takes it
    /// away as long as the lock is held.
    ///
    /// # Errors
    /// [`StoreError::NameInUse`]; disk full, and the like; what `fill` returns.
    pub fn create_container<E: From<StoreError>>(
        &self,
        session: &super::Session,
        mut record: ContainerRecord,
        names: impl Iterator<Item = String>,
        fill: impl FnOnce(&ContainerRecord, &Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<(Container, ContainerLock), E> {
        record.id = new_id()?;
        if record.settings.hostname.is_empty() {
            record.settings.hostname = record.short_id().to_owned();
        }
        let staged = session.directory()?;
        let changes = staged.join("fs");
        fs::create_dir(&changes).at("cannot create", &changes)?;
        fill(&record, &changes)?;
        let _naming = self.lock(CONTAINERS)?;
        let taken = self.containers()?;
        let owner = |name: &str| taken.iter().find(|other| other.record.name == name);
        if record.name.is_empty() {
            let free = names.into_iter().find(|name| owner(name).is_none());
            record.name = free.unwrap_or_else(|| record.short_id().to_owned());
        } else if let Some(other) = owner(&record.name) {
            return Err(StoreError::NameInUse {
                name: record.name,
                id: other.record.short_id().to_owned(),
            }
            .into());
        }
        let all = self.dir("containers");
        if !all.is_dir() {
            fs::create_dir_all(&all).at("cannot create", &all)?;
        }
        files::write_json(&staged.join("container.json"), &record)?;
        let lock = staged.join("lock");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&lock)
            .at("cannot create", &lock)?;
        fcntl(&file, FcntlArg::F_OFD_SETLK(&range(libc::F_WRLCK, ALL))).at("cannot lock", &lock)?;
        let directory = all.join(&record.id);
        fs::rename(&staged, &directory).at("cannot publish", &directory)?;
        let made = Container {
            record,
            status: ContainerStatus::default(),
            state: ContainerState::Created,
            directory,
        };
        Ok((made, ContainerLock(file)))
    }

    /// Returns all containers, the newest first. Damaged ones are left out.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut found: Vec<Container> = files::names(&self.dir("containers"))?
            .iter()
            .filter_map(|id| self.container_at(id).ok().flatten())
            .collect();
        found.sort_by(|a, b| {
            let key = |c: &Container| (c.record.created.clone(), c.record.id.clone());
            key(b).cmp(&key(a))
        });
        Ok(found)
    }

    pub(super) fn container_at(&self, id: &str) -> Result<Option<Container>> {
        let directory = self.dir("containers").join(id);
        let Some(record) = files::read_json::<ContainerRecord>(&directory.join("container.json"))?
        else {
            return Ok(None);
        };
        // The lock is looked at first: who ends writes its status before that goes.
        let runs = Container::runs(&directory);
        let status: ContainerStatus = files::read_json(&directory.join("status.json"))
            .ok()
            .flatten()
            .unwrap_or_default();
        let state = match (runs, &status.started) {
            (true, _) => ContainerState::Running,
            (false, None) => ContainerState::Created,
            (false, Some(_)) => ContainerState::Exited(status.exit_code.unwrap_or(KILLED)),
        };
        Ok(Some(Container {
            record,
            status,
            state,
            directory,
        }))
    }

    /// Finds a container by its name, its id, or the beginning of that.
    ///
    /// # Errors
    /// [`StoreError::NoContainer`], [`StoreError::AmbiguousContainer`].
    pub fn find_container(&self, name: &str) -> Result<Container> {
        // docker's names may begin with a slash.
        let plain = name.strip_prefix('/').unwrap_or(name);
        let mut all = self.containers()?;
        let exact = |c: &Container| c.record.name == plain || c.record.id == plain;
        if let Some(at) = all.iter().position(exact) {
            return Ok(all.swap_remove(at));
        }
        if plain.is_empty() {
            return Err(StoreError::NoContainer(name.to_owned()));
        }
        all.retain(|c| c.record.id.starts_with(plain));
        match all.len() {
            0 => Err(StoreError::NoContainer(name.to_owned())),
            1 => Ok(all.swap_remove(0)),
            _ => Err(StoreError::AmbiguousContainer(name.to_owned())),
        }
    }

    /// Takes a hold on a container, or returns nothing where it runs. Waits for those who use
    /// its files for a moment. With it comes the container as it is now.
    ///
    /// # Errors
    /// [`StoreError::NoContainer`] where it has gone meanwhile.
    pub fn hold_container(
        &self,
        container: &Container,
        hold: Hold,
    ) -> Result<Option<(ContainerLock, Container)>> {
        let gone = || StoreError::NoContainer(container.record.name.clone());
        let file = match container.lock_file() {
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(gone());
            }
            other => other?,
        };
        let path = &container.directory;
        let take = |kind, bytes, wait| {
            let range = range(kind, bytes);
            loop {
                let arg = match wait {
                    true => FcntlArg::F_OFD_SETLKW(&range),
                    false => FcntlArg::F_OFD_SETLK(&range),
                };
                match fcntl(&file, arg) {
                    Ok(_) => return Ok(true),
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN | Errno::EACCES) if !wait => return Ok(false),
                    Err(errno) => return Err(errno).at("cannot lock", path),
                }
            }
        };
        let taken = match hold {
            // Who runs it never waits for the byte of another who does.
            Hold::Alone => take(libc::F_WRLCK, RUNS, false)? && take(libc::F_WRLCK, ALL, true)?,
            Hold::Change => !Container::runs(path) && take(libc::F_WRLCK, FILES, true)?,
            Hold::Read => !Container::runs(path) && take(libc::F_RDLCK, FILES, true)?,
        };
        if !taken {
            return Ok(None);
        }
        // It may have gone, or been started, while this one waited.
        let mut now = self.container_at(&container.record.id)?.ok_or_else(gone)?;
        if hold == Hold::Alone {
            now.state = match &now.status.started {
                None => ContainerState::Created,
                Some(_) => ContainerState::Exited(now.status.exit_code.unwrap_or(KILLED)),
            };
        }
        Ok(Some((ContainerLock(file), now)))
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`StoreError::NameInUse`]; disk full, and the like.
    pub fn rename_container(&self, container: &Container, name: &str) -> Result<()> {
        let _naming = self.lock(CONTAINERS)?;
        let owner = self
            .containers()?
            .into_iter()
            .find(|other| other.record.name == name);
        if let Some(other) = owner {
            return Err(StoreError::NameInUse {
                name: name.to_owned(),
                id: other.record.short_id().to_owned(),
            });
        }
        let record = ContainerRecord {
            name: name.to_owned(),
            ..container.record.clone()
        };
        files::write_json(&container.directory.join("container.json"), &record)
    }

    /// Takes a container away, which the caller has alone.
    ///
    /// # Errors
    /// It can't be moved.
    pub fn remove_container(&self, container: &Container, alone: &ContainerLock) -> Result<()> {
        let _naming = self.lock(CONTAINERS)?;
        if let Some(code) = container.status.exit_code {
            let lock = container.directory.join("lock");
            let written = alone.0.write_all_at(&code.to_ne_bytes(), 0);
            written.at("cannot write", &lock)?;
        }
        self.trash(&container.directory)
    }

    /// Takes away what containers a killed kiln was to remove at their end.
    pub(super) fn sweep_containers(&self) -> Result<()> {
        for container in self.containers()? {
            if !container.record.settings.remove
                || !matches!(container.state, ContainerState::Exited(_))
            {
                continue;
            }
            if let Ok(Some((lock, container))) = self.hold_container(&container, Hold::Alone) {
                self.remove_container(&container, &lock)?;
            }
        }
        Ok(())
    }

    /// Returns the containers of an image, those that run first.
    pub(super) fn containers_of(&self, image: &Digest) -> Result<Vec<Container>> {
        let mut found = self.containers()?;
        found.retain(|container| container.record.image == *image);
        found.sort_by_key(|container| !container.is_running());
        Ok(found)
    }

    /// Returns the bytes of what a container has changed.
    pub fn container_bytes(&self, container: &Container) -> u64 {
        super::inventory::tree_bytes(&container.changes())
    }

    /// Returns what a container has changed, as the topmost layer of its view.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn container_changes(&self, container: &Container) -> Result<LayerDir> {
        let path = container.changes();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(&path, flags, Mode::empty()).at("cannot open", &path)?;
        Ok(LayerDir::new(fd, self.form().ownership))
    }

    /// Returns a container's image and its changes as one tree; first what lies below them.
    ///
    /// # Errors
    /// A layer of the image is missing, or a tree can't be opened.
    pub fn container_views(&self, container: &Container) -> Result<(super::Stack, View, View)> {
        let record = &container.record;
        if record.form != self.form().name {
            return Err(StoreError::Damaged {
                path: container.directory.clone(),
                reason: "its files have the ids of another map (has /etc/subuid changed?)"
                    .to_owned(),
            });
        }
        let config = self.config(&record.image)?;
        let stack =
            self.stack(&config.rootfs.diff_ids)?
                .ok_or_else(|| StoreError::LayersMissing {
                    image: record.image_name.clone(),
                    container: record.name.clone(),
                })?;
        let below = self.view(&stack)?;
        let mut view = below.clone();
        view.push(self.container_changes(container)?);
        Ok((stack, below, view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        (root, store)
    }

    fn make(store: &Store, name: &str) -> Result<Container> {
        let record = ContainerRecord {
            id: String::new(),
            name: name.to_owned(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            image: Digest::of(b"image"),
            image_name: "image".to_owned(),
            form: String::new(),
            settings: ContainerSettings::default(),
        };
        let names = ["first", "second"].map(str::to_owned).into_iter();
        store
            .create_container(&store.session(), record, names, |_, _| {
                Ok::<_, StoreError>(())
            })
            .map(|(made, _)| made)
    }

    #[test]
    fn names_are_unique_and_found_with_ids_and_their_beginnings() {
        let (_root, store) = store();
        let one = make(&store, "one").unwrap().record;
        let error = make(&store, "one").unwrap_err().to_string();
        let expected = format!(
            "the container name \"one\" is already in use by container {}",
            one.short_id()
        );
        assert_eq!(error, expected);
        assert_eq!(make(&store, "").unwrap().record.name, "first");
        assert_eq!(make(&store, "").unwrap().record.name, "second");
        let fourth = make(&store, "").unwrap().record;
        assert_eq!(fourth.name, fourth.short_id());
        for name in [&one.id, &one.id[..12], "one", "/one"] {
            assert_eq!(store.find_container(name).unwrap().record.id, one.id);
        }
        assert!(store.find_container("").is_err());
        assert_eq!(
            store.find_container("nosuch").unwrap_err().to_string(),
            "no such container: nosuch"
        );
    }

    #[test]
    fn container_runs_as_long_as_its_lock_is_held_whatever_its_files_say() {
        let (_root, store) = store();
        let made = make(&store, "one").unwrap();
        let state = || store.find_container("one").unwrap().state;
        assert_eq!(state(), ContainerState::Created);
        let (lock, mut held) = store.hold_container(&made, Hold::Alone).unwrap().unwrap();
        assert_eq!(held.state, ContainerState::Created);
        held.write_status(ContainerStatus {
            started: Some("2026-01-01T00:00:00Z".to_owned()),
            ..ContainerStatus::default()
        })
        .unwrap();
        assert_eq!(state(), ContainerState::Running);
        for hold in [Hold::Alone, Hold::Change, Hold::Read] {
            assert!(store.hold_container(&made, hold).unwrap().is_none());
        }
        drop(lock);
        assert_eq!(state(), ContainerState::Exited(137));
        let reading = store.hold_container(&made, Hold::Read).unwrap().unwrap();
        assert_eq!(state(), ContainerState::Exited(137));
        drop(reading);
        let (lock, held) = store.hold_container(&made, Hold::Alone).unwrap().unwrap();
        store.remove_container(&held, &lock).unwrap();
        assert!(store.hold_container(&made, Hold::Alone).is_err());
    }
}
