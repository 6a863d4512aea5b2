//! Containers: what each was made with, how it ended last, and the locks that tell whether it
//! runs.
//!
//! ```text
//! containers/<id>/container.json   what it was made with
//! containers/<id>/status.json      when it was started, how it ended
//! containers/<id>/fs, work         what it has changed, as an overlay's upper directory
//! containers/<id>/log              what it wrote while nobody was attached
//! containers/<id>/lock             byte 0: it runs; byte 1: somebody uses its files; byte 2:
//!                                  somebody has its processes stopped for a while; once it is
//!                                  taken away, its exit code, for those who wait with it open
//! ```
//!
//! That a container runs is said by nothing but a lock, which the kernel takes from a process
//! that ends: a file could lie.

mod lock;
mod record;
mod status;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

pub use lock::{ContainerLock, Hold, Watched};
pub use record::{ContainerMount, ContainerRecord, ContainerSettings, MountSource};
pub use status::{ContainerProcess, ContainerState, ContainerStatus, process_ticks};

use lock::{ALL, range};

use super::{IoContext, Result, Store, StoreError, files};
use crate::image::Digest;
use crate::layer::{LayerDir, View};

/// The lock that containers are made, named and taken away under.
const CONTAINERS: &str = "containers";

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

impl Container {
    fn directory(&self) -> &Path {
        &self.directory
    }

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
        let state = ContainerState::of(&status, runs);
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
        Ok(LayerDir::new(fd, self.form().ownership).while_it_changes())
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
