//! Roots: an overlay of layer directories, by the kernel or by fuse-overlayfs, or a plain
//! directory.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::builder::Builder;
use crate::error::Error;
use crate::sys::mount::{self, Attributes, FsContext};
use crate::sys::process;

/// Who merges the layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverlayKind {
    /// The kernel.
    #[default]
    Kernel,
    /// fuse-overlayfs, where the kernel refuses.
    Fuse,
}

/// The directories of an overlay.
pub struct Layers<'a> {
    /// What lies below, top first. At least one.
    pub lowers: &'a [PathBuf],
    /// Where changes go; none for a read-only overlay, which has two lowers at least.
    pub upper: Option<Upper<'a>>,
    /// An empty directory that fuse-overlayfs may be mounted on.
    pub scratch: &'a Path,
}

/// Where the changes of an overlay go.
#[derive(Clone, Copy)]
pub struct Upper<'a> {
    /// The changed tree.
    pub changes: &'a Path,
    /// An empty directory on the same file system.
    pub work: &'a Path,
    /// Whether nothing in it is ever synced: then the changes count only once they have been, or
    /// in this boot.
    pub volatile: bool,
}

impl Layers<'_> {
    /// Returns how errors name the overlay.
    fn describe(&self) -> String {
        let count = self.lowers.len();
        match &self.upper {
            Some(upper) => format!(
                "overlay of {count} lowers, upper {}",
                upper.changes.display()
            ),
            None => format!("overlay of {count} lowers"),
        }
    }
}

/// A mounted overlay.
pub struct Overlay {
    mount: OwnedFd,
    fuse: Option<Fuse>,
}

struct Fuse {
    child: Child,
    mountpoint: PathBuf,
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = umount2(&self.mountpoint, MntFlags::MNT_DETACH);
        // It ends when its last mount does: the step's are gone with the step.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Overlay {
    /// Mounts an overlay, attached nowhere yet.
    ///
    /// # Errors
    /// [`Error::Call`] with the kernel's own words; [`Error::Fuse`].
    pub fn mount(
        builder: &Builder,
        layers: &Layers<'_>,
        kind: OverlayKind,
    ) -> Result<Overlay, Error> {
        match kind {
            OverlayKind::Kernel => kernel(layers).map(|mount| Overlay { mount, fuse: None }),
            OverlayKind::Fuse => fuse(builder, layers),
        }
    }

    /// Returns the mount, for [`crate::Spec::root`]. It can be attached once.
    ///
    /// # Errors
    /// EMFILE.
    pub fn root(&self) -> Result<OwnedFd, Error> {
        self.mount.try_clone().map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EMFILE));
            Error::call("dup(overlay)", errno)
        })
    }

    /// Ends the overlay: with fuse-overlayfs, waits until all is written.
    pub fn finish(self) {
        drop(self.mount);
        drop(self.fuse);
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    open(
        path,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| Error::call(format!("open({}, O_PATH|O_DIRECTORY)", path.display()), e))
}

fn kernel(layers: &Layers<'_>) -> Result<OwnedFd, Error> {
    if crate::builder::disabled("overlay") {
        return Err(Error::call("fsopen(overlay)", Errno::ENODEV));
    }
    if crate::builder::disabled("fsmount") {
        return kernel_by_mount(layers);
    }
    let context = FsContext::open(c"overlay").map_err(|e| Error::call("fsopen(overlay)", e))?;
    let failed = |call: String| {
        let context = &context;
        move |errno| Error::Call {
            call,
            errno,
            detail: context.message(),
        }
    };
    // Options have at most 255 bytes, paths may have more: so they are named by descriptor.
    let set_dir = |key: &std::ffi::CStr, path: &Path| -> Result<OwnedFd, Error> {
        let fd = open_dir(path)?;
        let short = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let value = CString::new(short).map_err(|_| Error::NulByte("path"))?;
        let call = format!(
            "fsconfig(overlay, {}={})",
            key.to_string_lossy(),
            path.display()
        );
        context.set(key, Some(&value)).map_err(failed(call))?;
        Ok(fd)
    };
    for (index, lower) in layers.lowers.iter().enumerate() {
        match set_dir(c"lowerdir+", lower) {
            // Linux before 6.5 does not know the option.
            Err(Error::Call {
                errno: Errno::EINVAL,
                ..
            }) if index == 0 => return kernel_by_mount(layers),
            other => other?,
        };
    }
    let mut flags = vec![c"userxattr"];
    if let Some(upper) = &layers.upper {
        set_dir(c"upperdir", upper.changes)?;
        set_dir(c"workdir", upper.work)?;
        if upper.volatile {
            flags.push(c"volatile");
        }
    }
    for flag in flags {
        let call = format!("fsconfig(overlay, {})", flag.to_string_lossy());
        context.set(flag, None).map_err(failed(call))?;
    }
    let call = format!("fsmount({})", layers.describe());
    context.mount(Attributes::NONE).map_err(failed(call))
}

/// Mounts by mount(2), whose options have to fit into a page and split at colons and commas:
/// short links stand for the paths, relative to a directory that one thread is in.
fn kernel_by_mount(layers: &Layers<'_>) -> Result<OwnedFd, Error> {
    for lower in layers.lowers {
        open_dir(lower)?;
    }
    let io = |e: std::io::Error| {
        let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
        Error::call(format!("mkdir({}/…)", layers.scratch.display()), errno)
    };
    let (links, lowerdir, mountpoint) = short_names(layers).map_err(io)?;
    let options = match &layers.upper {
        Some(upper) => {
            let volatile = if upper.volatile { ",volatile" } else { "" };
            format!("lowerdir={lowerdir},upperdir=u,workdir=w,userxattr{volatile}")
        }
        None => format!("lowerdir={lowerdir},userxattr"),
    };
    let call = format!("mount({})", layers.describe());
    if options.len() > 4095 {
        return Err(Error::call(call, Errno::E2BIG));
    }
    let target = mountpoint.clone();
    let mounting = std::thread::spawn(move || {
        // A working directory of its own.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
        nix::unistd::chdir(&links)?;
        nix::mount::mount(
            Some("overlay"),
            &target,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
    });
    let mounted = mounting.join().unwrap_or(Err(Errno::ECHILD));
    mounted.map_err(|errno| Error::call(call, errno))?;
    let mount = mount_directory(&mountpoint);
    let _ = umount2(&mountpoint, MntFlags::MNT_DETACH);
    mount
}

/// Makes short links to the directories of an overlay: `u`, `w` and one per lower. Returns
/// the directory they are in, the lowers joined with colons, and a mount point.
fn short_names(layers: &Layers<'_>) -> std::io::Result<(PathBuf, String, PathBuf)> {
    let links = layers.scratch.join("links");
    let mountpoint = std::path::absolute(layers.scratch.join("merged"))?;
    for dir in [&links, &mountpoint] {
        std::fs::create_dir(dir)?;
    }
    let link = |name: &str, to: &Path| {
        let to = std::path::absolute(to)?;
        std::os::unix::fs::symlink(to, links.join(name))
    };
    let mut names = Vec::new();
    for (index, lower) in layers.lowers.iter().enumerate() {
        let name = index.to_string();
        link(&name, lower)?;
        names.push(name);
    }
    if let Some(upper) = &layers.upper {
        link("u", upper.changes)?;
        link("w", upper.work)?;
    }
    Ok((links, names.join(":"), mountpoint))
}

fn fuse(builder: &Builder, layers: &Layers<'_>) -> Result<Overlay, Error> {
    let trouble = |what: &str| {
        let what = what.to_owned();
        move |e: std::io::Error| Error::Fuse(format!("{what}: {e}"))
    };
    let (links, lowerdir, mountpoint) = short_names(layers).map_err(trouble("links"))?;
    let before = device_of(&mountpoint)?;
    // A file and not a pipe: nobody reads while it runs, and a full pipe would stop it.
    let log = layers.scratch.join("fuse-overlayfs.log");
    let stderr = std::fs::File::create(&log).map_err(trouble("log"))?;
    let options = match &layers.upper {
        Some(_) => format!("lowerdir={lowerdir},upperdir=u,workdir=w"),
        None => format!("lowerdir={lowerdir}"),
    };
    let mut command = Command::new("fuse-overlayfs");
    command
        .current_dir(&links)
        .arg("-f")
        .arg("-o")
        .arg(options)
        .arg(&mountpoint)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let spawned = builder
        .spawner()
        .run(move || process::die_with_parent(&mut command).spawn());
    let mut child = spawned.map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound {
            Error::MissingProgram {
                program: "fuse-overlayfs",
                package: "fuse-overlayfs",
            }
        } else {
            Error::Fuse(e.to_string())
        }
    })?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while device_of(&mountpoint)? == before {
        let ended = child.try_wait().map_err(trouble("wait"))?.is_some();
        if ended || Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let mut text = Vec::new();
            let _ = std::fs::File::open(&log).and_then(|f| f.take(4096).read_to_end(&mut text));
            let text = String::from_utf8_lossy(&text);
            return Err(Error::Fuse(text.trim().to_owned()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let fuse = Fuse {
        child,
        mountpoint: mountpoint.clone(),
    };
    let mount = mount_directory(&mountpoint)?;
    Ok(Overlay {
        mount,
        fuse: Some(fuse),
    })
}

fn device_of(path: &Path) -> Result<u64, Error> {
    nix::sys::stat::stat(path)
        .map(|s| s.st_dev)
        .map_err(|e| Error::call(format!("stat({})", path.display()), e))
}

/// Returns a mount of a directory as it is, attached nowhere, for [`crate::Spec::root`] or
/// [`crate::Mount::source`].
///
/// # Errors
/// [`Error::Call`]: no such directory.
pub fn mount_directory(path: &Path) -> Result<OwnedFd, Error> {
    let fd = open_dir(path)?;
    mount::clone_tree(fd.as_fd(), c"", true)
        .map_err(|e| Error::call(format!("open_tree({}, OPEN_TREE_CLONE)", path.display()), e))
}

/// Returns a mount of a file, attached nowhere, for [`crate::Mount::source`].
///
/// # Errors
/// [`Error::Call`]: no such file.
pub fn mount_file(path: &Path, read_only: bool) -> Result<OwnedFd, Error> {
    let fd = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| Error::call(format!("open({}, O_PATH)", path.display()), e))?;
    let mount = mount::clone_tree(fd.as_fd(), c"", false)
        .map_err(|e| Error::call(format!("open_tree({}, OPEN_TREE_CLONE)", path.display()), e))?;
    if read_only {
        mount::set_attributes(mount.as_fd(), Attributes::READ_ONLY, false)
            .map_err(|e| Error::call("mount_setattr(MOUNT_ATTR_RDONLY)", e))?;
    }
    Ok(mount)
}

/// Returns a new tmpfs, attached nowhere, for [`crate::Mount::source`]: with a limit in bytes,
/// or half of the memory. Owner and group of its root are ids of the builder.
///
/// # Errors
/// [`Error::Call`] with the kernel's own words.
pub fn mount_tmpfs(size: Option<u64>, mode: u32, (uid, gid): (u32, u32)) -> Result<OwnedFd, Error> {
    let context = FsContext::open(c"tmpfs").map_err(|e| Error::call("fsopen(tmpfs)", e))?;
    let options = [
        (c"mode", Some(format!("{mode:o}"))),
        (c"uid", Some(uid.to_string())),
        (c"gid", Some(gid.to_string())),
        (c"size", size.map(|size| size.to_string())),
    ];
    let failed = |call: String| {
        let context = &context;
        move |errno| Error::Call {
            call,
            errno,
            detail: context.message(),
        }
    };
    for (key, value) in options {
        let Some(value) = value else { continue };
        let call = format!("fsconfig(tmpfs, {}={value})", key.to_string_lossy());
        let value = CString::new(value).map_err(|_| Error::NulByte("mount option"))?;
        context.set(key, Some(&value)).map_err(failed(call))?;
    }
    context
        .mount(Attributes::NOSUID)
        .map_err(failed("fsmount(tmpfs)".to_owned()))
}
