//! Debian's buildah as an oracle: what it builds from a Dockerfile is what kiln should build.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Image, Output, Sandbox, run};

/// Rootless buildah with storage of its own below a sandbox.
pub struct Buildah<'a> {
    sandbox: &'a Sandbox,
}

impl<'a> Buildah<'a> {
    /// Returns buildah with empty storage.
    pub fn new(sandbox: &'a Sandbox) -> Self {
        for directory in ["buildah/home", "buildah/run", "buildah/tmp"] {
            sandbox.directory(directory, &[]);
        }
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        fs::write(sandbox.join("buildah/policy.json"), policy).unwrap();
        Self { sandbox }
    }

    /// Runs a command of buildah.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        let own = |name: &str| self.sandbox.join("buildah").join(name);
        let mut command = Command::new("buildah");
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", own("home"))
            .env("XDG_RUNTIME_DIR", own("run"))
            .env("TMPDIR", own("tmp"))
            .env("LANG", "C.UTF-8")
            .current_dir(self.sandbox.path())
            // vfs: overlay would leak its user.overlay.* xattrs into the layers.
            .args(["--storage-driver", "vfs", "--root"])
            .arg(own("root"))
            .arg("--runroot")
            .arg(own("run"))
            .args(arguments);
        run(&mut command, Duration::from_secs(600))
    }

    /// Builds a context directory with the Dockerfile in it, and reads the image.
    pub fn build(&self, context: &Path, options: &[&str]) -> Image {
        self.build_as("oracle", context, options)
    }

    /// Builds as [`Buildah::build`] does, under a name: builds at the same time need two.
    pub fn build_as(&self, name: &str, context: &Path, options: &[&str]) -> Image {
        let policy = self.sandbox.join("buildah/policy.json");
        let head = [
            "bud",
            "--isolation",
            "chroot",
            // OCI's own config has no health check, shell and triggers: this form keeps them.
            "--format",
            "docker",
            "--tls-verify=false",
            "-t",
            name,
        ];
        let head = head.iter().chain(&["--signature-policy"]).map(OsStr::new);
        let options = options.iter().map(OsStr::new);
        self.run(
            head.chain([policy.as_os_str()])
                .chain(options)
                .chain([context.as_os_str()]),
        )
        .ok();
        let directory = tempfile::tempdir_in(self.sandbox.path()).unwrap();
        let target = format!("dir:{}", directory.path().display());
        self.run([
            OsStr::new("push"),
            "--disable-compression".as_ref(),
            "--signature-policy".as_ref(),
            policy.as_os_str(),
            name.as_ref(),
            target.as_ref(),
        ])
        .ok();
        Image::open(directory.path())
    }
}
