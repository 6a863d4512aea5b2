//! Which overlay a build takes.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::builder::Builder;
use crate::error::Error;
use crate::overlay::{Layers, Overlay, OverlayKind, Upper};

/// Which overlay to take, and why not the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayChoice {
    /// Who merges the layers.
    pub kind: OverlayKind,
    /// Why the kernel's overlay is not taken: to be said once.
    pub reason: Option<String>,
}

/// A choice as it is remembered: it holds for one boot and one file system.
#[derive(Serialize, Deserialize)]
struct Remembered {
    boot_id: String,
    device: u64,
    #[serde(flatten)]
    choice: OverlayChoice,
}

/// Chooses the overlay for layers below `directory`: what `KILN_OVERLAY` says (`kernel` or
/// `fuse`), else the kernel's where a trial of it works there, else fuse-overlayfs. What came
/// of the trial is kept in the file `remembered` for the time of this boot.
///
/// # Errors
/// [`Error::Call`] where the trial can't be made in `directory`; [`Error::OverlaySetting`].
pub fn overlay_kind(
    builder: &Builder,
    directory: &Path,
    remembered: &Path,
) -> Result<OverlayChoice, Error> {
    if let Ok(setting) = std::env::var("KILN_OVERLAY") {
        return match setting.as_str() {
            "kernel" => Ok(OverlayChoice {
                kind: OverlayKind::Kernel,
                reason: None,
            }),
            "fuse" => Ok(OverlayChoice {
                kind: OverlayKind::Fuse,
                reason: Some("KILN_OVERLAY=fuse".to_owned()),
            }),
            _ => Err(Error::OverlaySetting(setting)),
        };
    }
    let boot_id = super::boot_id();
    let device = fs::metadata(directory).map_or(0, |m| m.dev());
    // What is switched off for a test must not be remembered.
    let remember = !boot_id.is_empty() && !crate::builder::disabled("overlay");
    if remember
        && let Ok(text) = fs::read(remembered)
        && let Ok(known) = serde_json::from_slice::<Remembered>(&text)
        && known.boot_id == boot_id
        && known.device == device
    {
        return Ok(known.choice);
    }
    let choice = match try_overlay(builder, directory, OverlayKind::Kernel)? {
        Ok(()) => OverlayChoice {
            kind: OverlayKind::Kernel,
            reason: None,
        },
        Err(error) => OverlayChoice {
            kind: OverlayKind::Fuse,
            reason: Some(error.to_string()),
        },
    };
    if remember {
        let known = Remembered {
            boot_id,
            device,
            choice: choice.clone(),
        };
        // Without it, the next build tries again.
        let _ = write_whole(remembered, &serde_json::to_vec(&known).unwrap_or_default());
    }
    Ok(choice)
}

/// Writes a file so that others see all of it or nothing.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

/// Tries an overlay of tiny directories below `directory`: removes a directory of the lower
/// one and makes it anew, which takes whiteouts and the opaque mark. The inner result is that
/// of the overlay.
pub(super) fn try_overlay(
    builder: &Builder,
    directory: &Path,
    kind: OverlayKind,
) -> Result<Result<(), Error>, Error> {
    let scratch = Scratch::new(directory)?;
    let [lower, upper, work, mnt] = ["lower", "upper", "work", "mnt"].map(|n| scratch.0.join(n));
    for path in [&lower, &upper, &work, &mnt, &lower.join("directory")] {
        fs::create_dir(path).map_err(failed("mkdir", path))?;
    }
    let file = lower.join("directory/file");
    fs::write(&file, "lower").map_err(failed("write", &file))?;
    let layers = Layers {
        lowers: &[lower],
        upper: Some(Upper {
            changes: &upper,
            work: &work,
            volatile: true,
        }),
        scratch: &mnt,
    };
    Ok(Overlay::mount(builder, &layers, kind).and_then(|overlay| {
        let root = overlay.root()?;
        let merged = PathBuf::from(format!("/proc/self/fd/{}/directory", root.as_raw_fd()));
        let within = |call: &'static str| failed(call, Path::new("the overlay"));
        fs::remove_file(merged.join("file")).map_err(within("unlink"))?;
        fs::remove_dir(&merged).map_err(within("rmdir"))?;
        fs::create_dir(&merged).map_err(within("mkdir"))?;
        let left = fs::read_dir(&merged).map_err(within("readdir"))?.count();
        drop(root);
        overlay.finish();
        match left {
            0 => Ok(()),
            _ => Err(Error::call("readdir(the overlay)", Errno::ENOTEMPTY)),
        }
    }))
}

/// Returns a function that makes an error of the kernel's answer to a call on `path`.
pub(super) fn failed(call: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let call = format!("{call}({})", path.display());
    move |e| Error::call(call, Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
}

/// A directory for a trial, removed at the end.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(directory: &Path) -> Result<Scratch, Error> {
        let name = |n: u32| directory.join(format!(".trial-{}-{n}", std::process::id()));
        for number in 0..1000 {
            let path = name(number);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch(path)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed("mkdir", &path)(e)),
            }
        }
        Err(Error::call(
            format!("mkdir({})", name(0).display()),
            Errno::EEXIST,
        ))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The kernel's own directory below the work directory has mode 0.
        let inner = self.0.join("work/work");
        let _ = fs::set_permissions(inner, fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}
