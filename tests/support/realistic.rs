//! The Dockerfiles of `tests/realistic`, built and run as the people would who write such ones.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{Kiln, Output, Registry, Sandbox, say};

/// A directory of `tests/realistic`, about to be built in a store of its own.
pub struct Realistic {
    kiln: Kiln,
    directory: PathBuf,
    options: Vec<String>,
    warnings: BTreeSet<String>,
}

impl Realistic {
    /// Returns the example of the given name, to be built on the given base image, or on
    /// what its own arguments say.
    pub fn new(name: &str, base: &str) -> Self {
        Self {
            // On the disk: some are large.
            kiln: Kiln::within(Sandbox::on_disk()).limit(Duration::from_secs(900)),
            directory: Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/realistic")
                .join(name),
            options: match base {
                "" => Vec::new(),
                base => vec!["--build-arg".to_owned(), format!("BASE={base}")],
            },
            warnings: BTreeSet::new(),
        }
    }

    /// Gives a build argument.
    pub fn arg(self, name: &str, value: &str) -> Self {
        self.options(&["--build-arg", &format!("{name}={value}")])
    }

    /// Adds arguments of `kiln build`.
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&o| o.to_owned()));
        self
    }

    /// Names the checks that warn; no other may.
    pub fn warns(mut self, checks: &[&str]) -> Self {
        self.warnings = checks.iter().map(|&check| check.to_owned()).collect();
        self
    }

    /// Sets a variable for kiln.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.kiln = self.kiln.env(name, value);
        self
    }

    /// Returns kiln, with the store in which all is built.
    pub fn kiln(&self) -> &Kiln {
        &self.kiln
    }

    /// Builds it twice, says how long that took, and returns what the first time said. The second
    /// time must take all from records and make the same image.
    pub fn build(&self) -> Output {
        let first = self.once(&[]).ok();
        let id = self.id();
        let again = self.once(&[]).ok();
        let warnings: BTreeSet<String> = warnings(&first.stderr()).collect();
        assert_eq!(warnings, self.warnings, "{first}");
        let log = again.stderr();
        let done: Vec<&str> = log.lines().filter(|l| l.contains(" DONE ")).collect();
        assert_eq!(done.len(), 1, "only the export is no record\n{again}");
        assert!(log.contains(" CACHED"), "{again}");
        assert_eq!(self.id(), id, "{first}{again}");
        say(&format!(
            "| {:<16} | built in {:>6.2} s | again in {:>4.2} s |",
            self.directory.file_name().unwrap().display(),
            first.elapsed.as_secs_f64(),
            again.elapsed.as_secs_f64(),
        ));
        first
    }

    /// Builds another example into the same store, with the given arguments.
    pub fn sibling(&self, name: &str, options: &[&str], base: &str) -> Output {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/realistic");
        let base = format!("BASE={base}");
        let directory = root.join(name);
        let head = ["build", "--build-arg", &base].map(OsStr::new);
        let options = options.iter().map(OsStr::new);
        self.kiln
            .run(
                head.into_iter()
                    .chain(options)
                    .chain([directory.as_os_str()]),
            )
            .ok()
    }

    /// Builds it once as the image `test`, with further arguments.
    pub fn once(&self, options: &[&str]) -> Output {
        let head = ["build", "-t", "test", "--progress", "plain"].map(OsStr::new);
        let options = self
            .options
            .iter()
            .map(OsStr::new)
            .chain(options.iter().map(OsStr::new));
        self.kiln.run(
            head.into_iter()
                .chain(options)
                .chain([self.directory.as_os_str()]),
        )
    }

    /// Runs a command in the image, with a loopback of its own and no other network.
    pub fn run(&self, command: &[&str]) -> Output {
        let head = ["run", "--rm", "--network", "none", "test"];
        self.kiln.run(head.iter().chain(command))
    }

    /// Returns what the image's own command says.
    pub fn says(&self, command: &[&str]) -> String {
        self.run(command).ok().stdout()
    }

    /// Returns the image's configuration as `kiln inspect` shows it.
    pub fn config(&self) -> Value {
        let shown = self.kiln.run(["inspect", "test"]).ok().stdout();
        let images: Value = serde_json::from_str(&shown).unwrap();
        images[0]["Config"].clone()
    }

    fn id(&self) -> String {
        let listed = self.kiln.run(["images", "--no-trunc", "-q", "test"]);
        listed.ok().line()
    }
}

/// Returns the names of the checks that warned, or the text of other warnings.
fn warnings(log: &str) -> impl Iterator<Item = String> {
    log.lines().filter_map(|line| {
        let text = line.strip_prefix("warning: ")?;
        let check = text
            .rsplit_once(" (")
            .and_then(|(_, name)| name.strip_suffix(')'));
        Some(check.unwrap_or(text).to_owned())
    })
}

/// Returns the reference of an image with tools: a stage of `tests/realistic/bases`, built on the
/// first use in this process and pushed to the registry of the tests.
pub fn toolchain(name: &str) -> String {
    static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let registry = Registry::shared();
    let reference = registry.reference(&format!("toolchain/{name}:1"));
    // Held while it is built: two tests that want the same one wait for each other.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.insert(name.to_owned()) {
        let bases = Realistic::new("bases", &registry.debian());
        let output = bases.once(&["--target", name]).ok();
        say(&format!(
            "| {:<16} | built in {:>6.2} s |",
            format!("({name})"),
            output.elapsed.as_secs_f64()
        ));
        bases.kiln.run(["tag", "test", &reference]).ok();
        bases.kiln.run(["push", "-q", &reference]).ok();
    }
    reference
}
