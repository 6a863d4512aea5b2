//! What is mounted into a container: the user's files, and memory.

use std::os::fd::OwnedFd;

use kiln_runtime::sys::mount::{Attributes, set_attributes};
use kiln_runtime::{Create, Mount};
use std::os::fd::AsFd;

use super::{ContainerError, Result};
use crate::sandbox::{self, MountPoint, SandboxError};
use crate::store::{ContainerMount, MountSource, Store};

/// What is mounted, in order, and where.
pub(super) struct Mounts {
    pub(super) mounts: Vec<Mount>,
    pub(super) points: Vec<MountPoint>,
    /// Whether files of the user are among it.
    pub(super) has_binds: bool,
}

impl Mounts {
    /// Opens what a container has.
    pub(super) fn open(store: &Store, wanted: &[ContainerMount]) -> Result<Mounts> {
        let mut opened = Mounts {
            mounts: Vec::new(),
            points: Vec::new(),
            has_binds: false,
        };
        let mut wanted: Vec<&ContainerMount> = wanted.iter().collect();
        // What is mounted below something else comes after it.
        wanted.sort_by_key(|mount| mount.target.split('/').filter(|c| !c.is_empty()).count());
        for mount in wanted {
            let (source, is_directory) = match &mount.source {
                MountSource::Bind(path) => {
                    opened.has_binds = true;
                    let failed = |source| ContainerError::Mount {
                        path: path.display().to_string(),
                        source,
                    };
                    let is_directory = std::fs::metadata(path).map_err(failed)?.is_dir();
                    let source = match is_directory {
                        true => kiln_runtime::mount_directory(path),
                        false => kiln_runtime::mount_file(path, false),
                    };
                    let source = source.map_err(SandboxError::from)?;
                    sandbox::make_harmless(&source)?;
                    (source, is_directory)
                }
                MountSource::Tmpfs { size, mode, exec } => {
                    (tmpfs(store, *size, *mode, *exec)?, true)
                }
            };
            if mount.read_only {
                sandbox::make_read_only(&source)?;
            }
            let target = mount.target.trim_matches('/').as_bytes().to_vec();
            opened.points.push(MountPoint {
                path: target.clone(),
                is_directory,
            });
            opened.mounts.push(Mount {
                target,
                source,
                // Within an earlier mount.
                create: match is_directory {
                    true => Create::Directory,
                    false => Create::File,
                },
            });
        }
        Ok(opened)
    }
}

fn tmpfs(store: &Store, size: Option<u64>, mode: u32, exec: bool) -> Result<OwnedFd> {
    let root = store.form().ownership.to_stored(0).unwrap_or(0);
    let mount = kiln_runtime::mount_tmpfs(size, mode, (root, root)).map_err(SandboxError::from)?;
    let attributes = match exec {
        true => Attributes::NOSUID_NODEV,
        false => Attributes::NOSUID_NODEV_NOEXEC,
    };
    set_attributes(mount.as_fd(), attributes, false)
        .map_err(|errno| SandboxError::from(kiln_runtime::Error::call("mount_setattr", errno)))?;
    Ok(mount)
}
