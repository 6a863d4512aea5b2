//! The build context and the named ones: what the command line says, opened.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::context_source::{ContextSource, NamedSource, STDIN};
use super::error::{BuildError, Step, Trouble};
use super::{Options, Running, Workshop};
use crate::archive::{self, Archive};
use crate::context::{self, Context};
use crate::dockerfile::Source;
use crate::event::{Event, StepId, StepOutcome};
use crate::fetch::{FetchError, Fetcher, GitLocation, Location, begins_archive};
use crate::image::{ImageConfig, Platform};
use crate::layer::{Compression, LayerError, View};
use crate::registry::shown_url;
use crate::store::Stack;
use crate::transfer::Transfer;

/// As many bytes tell an archive.
const BLOCK: u64 = 512;

/// Numbers the steps that come before those of the stages.
#[derive(Default)]
pub(super) struct Steps(Cell<u32>);

impl Steps {
    /// Returns the number of the next step.
    pub(super) fn next(&self) -> u32 {
        self.0.get() + 1
    }

    /// Runs a step, and reports it.
    fn run<T>(
        &self,
        shop: &Workshop<'_>,
        name: &str,
        action: impl FnOnce(&Running) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let id = StepId(self.next());
        self.0.set(id.0);
        let running = Running {
            id,
            name: format!("[internal] {name}"),
            started: Instant::now(),
        };
        shop.reporter.report(Event::StepStarted {
            step: id,
            name: running.name.clone(),
        });
        let result = action(&running);
        let (outcome, detail) = match &result {
            Ok(_) => (StepOutcome::Done, None),
            Err(error) => (StepOutcome::Failed, Some(error.to_string())),
        };
        shop.reporter.report(Event::StepFinished {
            step: id,
            outcome,
            elapsed: running.started.elapsed(),
            detail,
        });
        result
    }
}

/// What a build begins with.
pub(super) struct Opened {
    pub(super) context: Context,
    pub(super) dockerfile: Source,
}

/// Opens the build context and reads the Dockerfile.
pub(super) fn open(
    shop: &Workshop<'_>,
    options: &Options,
    steps: &Steps,
) -> Result<Opened, BuildError> {
    let given = options.dockerfile.as_deref();
    let from_stdin = given == Some(Path::new(STDIN));
    // A Dockerfile that is elsewhere goes with any context, as one from standard input does.
    let remote_dockerfile = match given.and_then(Path::to_str).map(Location::of_source) {
        Some(Ok(Location::Url(url))) => Some(steps.run(
            shop,
            &format!("load Dockerfile from {}", shown_url(&url)),
            |step| {
                let fetched = fetcher(shop, step).url(&url, None)?;
                let file = fetcher(shop, step).open(&url, &fetched)?;
                let text = context::read_dockerfile_from(file, &shown_url(&url))?;
                Ok(Source::new("Dockerfile", text))
            },
        )?),
        _ => None,
    };
    let opening = Opening {
        shop,
        keep_git_dir: options
            .build_args
            .get("BUILDKIT_CONTEXT_KEEP_GIT_DIR")
            .is_some_and(|value| {
                matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
            }),
    };
    let found = match &options.context {
        ContextSource::Stdin if from_stdin => return Err(BuildError::StdinTwice),
        ContextSource::Stdin => {
            let stdin = std::io::stdin();
            steps.run(shop, "load build context from standard input", |step| {
                opening.stream(step, "standard input", stdin)
            })?
        }
        ContextSource::At(Location::Path(path)) if !is_archive_file(Path::new(path)) => {
            return in_directory(Path::new(path), options, remote_dockerfile);
        }
        ContextSource::At(Location::Path(path)) => {
            let error = |source| {
                BuildError::Context(context::ContextError::Directory {
                    path: PathBuf::from(path),
                    source,
                })
            };
            let file = File::open(path).map_err(error)?;
            steps.run(shop, &format!("load build context from {path}"), |step| {
                opening.stream(step, path, file)
            })?
        }
        ContextSource::At(location) => {
            let place = place_of(location);
            steps.run(shop, &format!("load build context from {place}"), |step| {
                opening.remote(step, location)
            })?
        }
    };
    let place = match &options.context {
        ContextSource::Stdin => "the archive on standard input".to_owned(),
        ContextSource::At(Location::Path(path)) => path.clone(),
        ContextSource::At(location) => place_of(location),
    };
    let (context, lone) = match found {
        Found::Tree(view) => (Context::of_tree(view), None),
        Found::Dockerfile(text) => (Context::none(), Some(text)),
    };
    let dockerfile = match (lone, given, remote_dockerfile) {
        (Some(_), Some(_), _) => return Err(BuildError::TwoDockerfiles { place }),
        (Some(text), None, _) => Source::new("Dockerfile", text),
        (None, _, Some(dockerfile)) => dockerfile,
        (None, Some(_), None) if from_stdin => stdin_dockerfile()?,
        (None, given, None) => {
            let given = given.map(|path| path.to_string_lossy());
            let (path, text) = context.dockerfile(given.as_deref(), &place)?;
            Source::new(base_name(&path), text)
        }
    };
    Ok(Opened {
        context,
        dockerfile,
    })
}

/// Opens what can be opened without a store: a directory, or a Dockerfile on standard input.
pub(super) fn open_in_place(options: &Options) -> Result<Opened, BuildError> {
    let from_stdin = options.dockerfile.as_deref() == Some(Path::new(STDIN));
    let elsewhere = |place| Err(BuildError::CheckElsewhere { place });
    match &options.context {
        ContextSource::At(Location::Path(path)) if is_archive_file(Path::new(path)) => {
            elsewhere(path.clone())
        }
        // A Dockerfile, with the directory that it lies in.
        ContextSource::At(Location::Path(path))
            if options.dockerfile.is_none() && Path::new(path).is_file() =>
        {
            let dockerfile = Path::new(path);
            let directory = match dockerfile.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let options = Options {
                dockerfile: Some(dockerfile.to_owned()),
                ..options.clone()
            };
            in_directory(directory, &options, None)
        }
        ContextSource::At(Location::Path(path)) => in_directory(Path::new(path), options, None),
        ContextSource::At(location) => elsewhere(place_of(location)),
        ContextSource::Stdin if from_stdin => Err(BuildError::StdinTwice),
        ContextSource::Stdin => Ok(Opened {
            context: Context::none(),
            dockerfile: stdin_dockerfile()?,
        }),
    }
}

fn in_directory(
    directory: &Path,
    options: &Options,
    remote: Option<Source>,
) -> Result<Opened, BuildError> {
    let (given, ignore) = (options.dockerfile.as_deref(), options.ignorefile.as_deref());
    let elsewhere = match remote {
        None if given == Some(Path::new(STDIN)) => Some(stdin_dockerfile()?),
        remote => remote,
    };
    if let Some(dockerfile) = elsewhere {
        return Ok(Opened {
            context: Context::open(directory, None, ignore)?,
            dockerfile,
        });
    }
    let path = context::find_dockerfile(directory, given);
    // The context first: without it, that there is no Dockerfile in it says little.
    let context = Context::open(directory, Some(&path), ignore)?;
    let text = context::read_dockerfile(&path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(Opened {
        context,
        dockerfile: Source::new(name, text),
    })
}

fn stdin_dockerfile() -> Result<Source, BuildError> {
    let text = context::read_dockerfile_from(std::io::stdin().lock(), "standard input")?;
    Ok(Source::new("Dockerfile", text))
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn place_of(location: &Location) -> String {
    match location {
        Location::Path(path) => path.clone(),
        Location::Url(url) => shown_url(url),
        Location::Git(git) => {
            let mut place = shown_url(&git.remote);
            if !(git.reference.is_empty() && git.subdir.is_empty()) {
                place.push('#');
                place.push_str(&git.reference);
            }
            if !git.subdir.is_empty() {
                place.push(':');
                place.push_str(&git.subdir);
            }
            place
        }
    }
}

/// Tells whether a path is that of an archive, rather than of a directory or of a Dockerfile
/// that somebody forgot the -f for.
fn is_archive_file(path: &Path) -> bool {
    if !std::fs::metadata(path).is_ok_and(|file| file.is_file()) {
        return false;
    }
    let mut block = Vec::new();
    File::open(path)
        .and_then(Compression::decode)
        .and_then(|(_, reader)| reader.take(BLOCK).read_to_end(&mut block))
        .is_ok_and(|_| begins_archive(&block))
}

/// What a stream turned out to be.
enum Found {
    Tree(View),
    Dockerfile(String),
}

/// Brings contexts from elsewhere.
struct Opening<'a> {
    shop: &'a Workshop<'a>,
    keep_git_dir: bool,
}

impl Opening<'_> {
    fn remote(&self, step: &Running, location: &Location) -> Result<Found, BuildError> {
        let fetcher = fetcher(self.shop, step);
        match location {
            Location::Git(git) => {
                let view = git_tree(&fetcher, git, self.keep_git_dir)?;
                Ok(Found::Tree(view))
            }
            Location::Url(url) => {
                let fetched = fetcher.url(url, None)?;
                let file = fetcher.open(url, &fetched)?;
                match self.stream(step, &shown_url(url), file)? {
                    // What forges answer where a repository is named without its `.git`.
                    Found::Dockerfile(text) if text.trim_start().starts_with('<') => {
                        Err(BuildError::WebPage {
                            url: shown_url(url),
                        })
                    }
                    found => Ok(found),
                }
            }
            Location::Path(path) => Err(BuildError::Context(context::ContextError::Directory {
                path: PathBuf::from(path),
                source: std::io::ErrorKind::NotADirectory.into(),
            })),
        }
    }

    /// Reads an archive, compressed or not, or else a Dockerfile.
    fn stream(
        &self,
        step: &Running,
        name: &str,
        reader: impl Read + Send,
    ) -> Result<Found, BuildError> {
        let unreadable = |source| FetchError::Archive {
            name: name.to_owned(),
            source: LayerError::Read(source),
        };
        let (compression, mut reader) = Compression::decode(reader).map_err(unreadable)?;
        let mut block = Vec::new();
        (&mut reader)
            .take(BLOCK)
            .read_to_end(&mut block)
            .map_err(unreadable)?;
        let is_archive = begins_archive(&block);
        let mut whole = std::io::Cursor::new(block).chain(reader);
        if is_archive {
            let view = fetcher(self.shop, step).extract(name, &mut whole)?;
            return Ok(Found::Tree(view));
        }
        if compression != Compression::None {
            return Err(BuildError::NoArchive {
                place: name.to_owned(),
            });
        }
        let text = context::read_dockerfile_from(whole, name)?;
        Ok(Found::Dockerfile(text))
    }
}

/// Returns what fetches for a step.
pub(super) fn fetcher<'a>(shop: &'a Workshop<'a>, step: &Running) -> Fetcher<'a> {
    Fetcher {
        transfer: Transfer {
            store: shop.store,
            session: shop.session,
            reporter: &shop.reporter,
            step: Some(step.id),
        },
        host: shop.host,
        web: &shop.web,
        authorizations: &shop.authorizations,
    }
}

fn git_tree(
    fetcher: &Fetcher<'_>,
    location: &GitLocation,
    keep_git_dir: bool,
) -> Result<View, FetchError> {
    let commit = fetcher.git_commit(location)?;
    let keep = location.keep_git_dir.unwrap_or(keep_git_dir);
    fetcher.git_tree(location, &commit, keep)
}

/// The named contexts, each opened when it is used first.
#[derive(Default)]
pub(super) struct NamedContexts(Mutex<BTreeMap<String, Arc<Context>>>);

/// What stands for a name.
pub(super) enum Named {
    /// An image.
    Image {
        config: Box<ImageConfig>,
        stack: Stack,
        cached: bool,
    },
    /// Nothing at all: `docker-image://scratch`.
    Scratch,
    /// Files.
    Files(Arc<Context>),
}

impl super::Build<'_> {
    /// Returns what a named context stands for.
    pub(super) fn named_context(
        &self,
        name: &str,
        platform: &Platform,
        step: &Running,
    ) -> Step<Named> {
        let unknown = || Trouble::new(format!("there is no build context {name:?}"));
        match self.options.contexts.get(name).ok_or_else(unknown)? {
            NamedSource::Image(None) => Ok(Named::Scratch),
            NamedSource::Image(Some(image)) => {
                let (config, stack, cached) = self.base_image(image, platform, step)?;
                let config = Box::new(config);
                Ok(Named::Image {
                    config,
                    stack,
                    cached,
                })
            }
            NamedSource::Layout { path, image } => {
                let transfer = fetcher(self.shop, step).transfer;
                let archive = Archive::open(self.shop.session, path)?;
                let (config, stack) =
                    archive::load_base(&transfer, &archive, image.as_deref(), platform)?;
                let config = Box::new(config);
                Ok(Named::Image {
                    config,
                    stack,
                    cached: false,
                })
            }
            NamedSource::At(location) => {
                // Held while it is opened: nobody else would have to do it again.
                let mut open = self.named.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(context) = open.get(name) {
                    return Ok(Named::Files(context.clone()));
                }
                let context = Arc::new(self.open_named(location, step)?);
                open.insert(name.to_owned(), context.clone());
                Ok(Named::Files(context))
            }
        }
    }

    fn open_named(&self, location: &Location, step: &Running) -> Step<Context> {
        let opening = Opening {
            shop: self.shop,
            keep_git_dir: false,
        };
        let found = match location {
            Location::Path(path) if is_archive_file(Path::new(path)) => {
                let file = File::open(path).map_err(LayerError::Read)?;
                opening.stream(step, path, file)
            }
            Location::Path(path) => return Ok(Context::open(Path::new(path), None, None)?),
            location => opening.remote(step, location),
        };
        match found? {
            Found::Tree(view) => Ok(Context::of_tree(view)),
            Found::Dockerfile(_) => Err(Trouble::hinted(
                format!("{} is no archive", place_of(location)),
                "a build context behind a URL is a tar, plain or compressed; single files are \
                 fetched with ADD",
            )),
        }
    }
}
