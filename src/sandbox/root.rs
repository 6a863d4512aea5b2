//! A writable root over a stack of layers.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_runtime::{Layers, Network, Overlay, OverlayKind, Upper};

use super::{SandboxError, Surroundings};
use crate::layer::{Attributes, LayerError, LayerWriter, Ownership, UpperKind, View};
use crate::store::Session;

/// Mount points that every sandbox needs, and whether they are directories.
const MOUNT_POINTS: [(&str, bool); 5] = [
    ("proc", true),
    ("dev", true),
    ("sys", true),
    ("etc/resolv.conf", false),
    ("etc/hosts", false),
];

/// Somewhere to mount on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Where, from the root of the tree that it is in.
    pub path: Vec<u8>,
    /// Whether a directory is mounted there, else a file.
    pub is_directory: bool,
}

/// Writes a layer of mount points on top of a tree that lacks them, which repeats the
/// attributes of existing directories.
pub(super) fn write_mount_points(
    directory: &Path,
    view: &View,
    ownership: Ownership,
    points: &[MountPoint],
) -> Result<(), SandboxError> {
    let directory = File::open(directory)?;
    let mut writer = LayerWriter::new(directory.as_fd(), view, ownership)?.keep_times();
    for MountPoint { path, is_directory } in points {
        if *is_directory {
            writer.ensure_dir(path, 0o755, 0, 0)?;
        } else {
            let parent = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
            writer.ensure_dir(&path[..parent], 0o755, 0, 0)?;
            let attributes = Attributes {
                mode: 0o644,
                ..Attributes::default()
            };
            writer.put_file(path, &mut io::empty(), &attributes)?;
        }
    }
    writer.finish()?;
    Ok(())
}

/// A writable root: an overlay whose changes go to a directory of the session, or to one that
/// stays.
///
/// Mount points that the image lacks are in a layer of their own that lies between the image
/// and the changes, and repeats the attributes of existing directories. So nothing that
/// kiln makes for a mount can ever be seen in the changes.
pub struct Root {
    directory: PathBuf,
    session: Arc<Session>,
    ownership: Ownership,
    overlay: Option<Overlay>,
    kind: OverlayKind,
}

/// The changes that were made in a root.
pub struct Changes {
    /// A directory of the session with the changed tree in `fs`.
    pub staged: PathBuf,
    /// Whose forms of deletions the tree has.
    pub kind: UpperKind,
}

impl Root {
    pub(super) fn prepare(
        shop: &super::Sandboxes,
        trees: &[PathBuf],
        view: &View,
        cwd: &[u8],
        points: &[MountPoint],
    ) -> Result<Root, SandboxError> {
        let mut root = Root::begin(shop)?;
        for name in ["staged", "staged/fs", "work"] {
            fs::create_dir(root.directory.join(name))?;
        }
        let upper = root.directory.join("staged/fs");
        begin_changes(view, &upper, root.ownership, cwd)?;
        let work = root.directory.join("work");
        let upper = Upper {
            changes: &upper,
            work: &work,
            volatile: true,
        };
        root.overlay = Some(root.overlay(shop, trees, view, points, upper)?);
        Ok(root)
    }

    /// As [`Root::prepare`], with changes that were made earlier, which `view` shows, and that
    /// stay.
    pub(super) fn reopen(
        shop: &super::Sandboxes,
        trees: &[PathBuf],
        view: &View,
        points: &[MountPoint],
        upper: Upper<'_>,
    ) -> Result<Root, SandboxError> {
        let mut root = Root::begin(shop)?;
        root.overlay = Some(root.overlay(shop, trees, view, points, upper)?);
        Ok(root)
    }

    fn begin(shop: &super::Sandboxes) -> Result<Root, SandboxError> {
        let directory = shop.session.directory()?;
        fs::create_dir(directory.join("scratch"))?;
        Ok(Root {
            directory,
            session: shop.session.clone(),
            ownership: shop.store.form().ownership,
            overlay: None,
            kind: shop.overlay,
        })
    }

    fn overlay(
        &self,
        shop: &super::Sandboxes,
        trees: &[PathBuf],
        view: &View,
        points: &[MountPoint],
        upper: Upper<'_>,
    ) -> Result<Overlay, SandboxError> {
        let mut lowers: Vec<PathBuf> = Vec::new();
        if let Some(stubs) = self.make_mount_points(view, points)? {
            lowers.push(stubs);
        }
        // A layer may be there twice (all empty ones are the same), and overlayfs refuses that.
        // The topmost is enough: whatever a lower one would show, that one shows above it.
        let mut seen = BTreeSet::new();
        lowers.extend(
            trees
                .iter()
                .rev()
                .filter(|tree| seen.insert(*tree))
                .cloned(),
        );
        if lowers.is_empty() {
            // Of an empty image, whose mount points are all among the changes.
            let empty = self.directory.join("empty");
            fs::create_dir(&empty)?;
            lowers.push(empty);
        }
        let layers = Layers {
            lowers: &lowers,
            upper: Some(upper),
            scratch: &self.directory.join("scratch"),
        };
        Ok(Overlay::mount(&shop.builder, &layers, self.kind)?)
    }

    /// Returns the root of the tree, to be written to where no command runs in it.
    ///
    /// # Errors
    /// EMFILE.
    pub fn tree(&self) -> Result<OwnedFd, SandboxError> {
        self.mount()
    }

    /// Returns whose forms of deletions the changes have.
    pub fn kind(&self) -> UpperKind {
        match self.kind {
            OverlayKind::Kernel => UpperKind::Overlay,
            OverlayKind::Fuse => UpperKind::Fuse,
        }
    }

    /// Makes a layer of the mount points that the image lacks; nothing where it lacks none.
    fn make_mount_points(
        &self,
        view: &View,
        points: &[MountPoint],
    ) -> Result<Option<PathBuf>, SandboxError> {
        let mut missing = Vec::new();
        let own = MOUNT_POINTS.map(|(path, is_directory)| MountPoint {
            path: path.as_bytes().to_vec(),
            is_directory,
        });
        for point in own.iter().chain(points) {
            let resolved = view.resolve(&point.path, true)?;
            if resolved.node.is_none() {
                missing.push(MountPoint {
                    path: resolved.path,
                    is_directory: point.is_directory,
                });
            }
        }
        if missing.is_empty() {
            return Ok(None);
        }
        let stubs = self.directory.join("stubs");
        fs::create_dir(&stubs)?;
        write_mount_points(&stubs, view, self.ownership, &missing)?;
        Ok(Some(stubs))
    }

    pub(super) fn mount(&self) -> Result<OwnedFd, SandboxError> {
        match &self.overlay {
            Some(overlay) => Ok(overlay.root()?),
            None => Err(io::Error::other("the root is not mounted").into()),
        }
    }

    /// Writes the resolver's configuration of a sandbox.
    pub(super) fn resolv_conf(
        &self,
        network: Network,
        around: &Surroundings,
    ) -> Result<PathBuf, SandboxError> {
        let text = match network {
            // With the host's network, its resolvers are reachable, those on loopback too.
            Network::Host => fs::read("/etc/resolv.conf").unwrap_or_default(),
            Network::None => Vec::new(),
        };
        let text = around.resolv_conf(&String::from_utf8_lossy(&text));
        self.file("resolv.conf", text.as_bytes())
    }

    /// Writes the table of host names of a sandbox.
    pub(super) fn hosts(
        &self,
        hostname: &str,
        around: &Surroundings,
    ) -> Result<PathBuf, SandboxError> {
        let mut text = format!(
            "127.0.0.1\tlocalhost {hostname}\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             ff00::0\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\n\
             ff02::2\tip6-allrouters\n"
        );
        text.push_str(&around.hosts_lines());
        self.file("hosts", text.as_bytes())
    }

    /// Writes a file that the sandbox's root owns.
    fn file(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, SandboxError> {
        let path = self.directory.join(name);
        let mut file = File::create(&path)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        if let Some(id) = self.ownership.to_stored(0) {
            std::os::unix::fs::fchown(&file, Some(id), Some(id))?;
        }
        Ok(path)
    }

    /// Ends the overlay and returns the changes. All processes of the sandbox must have ended.
    ///
    /// # Errors
    /// A directory can't be moved.
    pub fn into_changes(mut self) -> Result<Changes, SandboxError> {
        if let Some(overlay) = self.overlay.take() {
            overlay.finish();
        }
        let staged = self.session.directory()?;
        fs::remove_dir(&staged)?;
        fs::rename(self.directory.join("staged"), &staged)?;
        // Little is left; a failed step's changes, which may be many, go by way of the trash.
        let _ = fs::remove_dir_all(&self.directory);
        Ok(Changes {
            staged,
            kind: self.kind(),
        })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Some(overlay) = self.overlay.take() {
            overlay.finish();
        }
        self.session.discard(&self.directory);
    }
}

/// Gives an empty directory, which is to hold the changes, what must be there from the start:
/// the attributes of the root, since the overlay shows those of its upper one, and the working
/// directory where the image lacks it.
pub(super) fn begin_changes(
    view: &View,
    path: &Path,
    ownership: Ownership,
    cwd: &[u8],
) -> Result<(), SandboxError> {
    let directory = File::open(path)?;
    let mut writer = LayerWriter::new(directory.as_fd(), view, ownership)?;
    match writer.ensure_dir(cwd, 0o755, 0, 0) {
        Err(LayerError::NotADirectory(_)) => {
            let shown = String::from_utf8_lossy(cwd).into_owned();
            return Err(SandboxError::WorkingDirectory(shown));
        }
        other => other?,
    };
    writer.finish()?;
    Ok(())
}
