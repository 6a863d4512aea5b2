//! Where the sources of COPY and ADD come from: a directory, seen through its ignore file, or
//! a tree that was brought from elsewhere, all of which takes part.

pub mod ignore;
pub mod pattern;
pub mod stat_cache;
mod text;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ignore::{IgnoreError, IgnoreFile};
use stat_cache::StatCache;
pub use text::{DecodeError, decode};

use crate::layer::{LayerDir, LayerError, View};

/// No Dockerfile and no ignore file is larger, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

/// Why a context can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The context is not there, or no directory.
    #[error("cannot open the build context {path}: {source}")]
    Directory {
        /// What was given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The Dockerfile is not there.
    #[error("cannot read the Dockerfile {path}: {source}")]
    Dockerfile {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: io::Error,
        /// Names in its directory that look like it.
        near: Vec<String>,
    },
    /// The Dockerfile is not in a context that came from elsewhere.
    #[error("{path:?} is not in {place}: no such file")]
    NotInTree {
        /// Where it was looked for.
        path: String,
        /// What the context is.
        place: String,
        /// Names in its directory that look like it.
        near: Vec<String>,
    },
    /// The Dockerfile in such a context can't be read.
    #[error("cannot read {path:?} in {place}: {source}")]
    InTree {
        /// Where it is.
        path: String,
        /// What the context is.
        place: String,
        /// Why not.
        source: LayerError,
    },
    /// The Dockerfile is no text.
    #[error("{path}: {source}")]
    NotText {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: DecodeError,
    },
    /// The ignore file can't be read.
    #[error("cannot read {path}: {source}")]
    Ignore {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The ignore file is wrong.
    #[error(transparent)]
    Rule(#[from] IgnoreError),
}

impl ContextError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ContextError::Directory { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("the last argument is the directory to build from, such as `.`".to_owned())
            }
            ContextError::Directory { path, source }
                if source.kind() == io::ErrorKind::NotADirectory =>
            {
                let path = path.display();
                Some(format!(
                    "the last argument is a directory; a Dockerfile is named with -f: kiln build -f {path} ."
                ))
            }
            ContextError::Dockerfile { near, .. } | ContextError::NotInTree { near, .. } => {
                Some(match near.as_slice() {
                    [] => "name it with -f FILE".to_owned(),
                    names => format!("did you mean {}? Name it with -f FILE", names.join(" or ")),
                })
            }
            ContextError::Rule(error) => error.hint(),
            ContextError::NotText { .. } => {
                Some("save the file as UTF-8, which is what an editor does by default".to_owned())
            }
            _ => None,
        }
    }
}

/// What is built from.
pub struct Context {
    view: View,
    ignore: IgnoreFile,
    /// Under which name the contents of the files are remembered; none for what is not here to stay.
    name: Option<String>,
    cache: OnceLock<StatCache>,
    exists: bool,
}

impl Context {
    /// Opens a directory. The ignore file is the one that is given, else that of the Dockerfile,
    /// else the directory's own: `<Dockerfile>.dockerignore`, `.dockerignore`,
    /// `.containerignore`.
    ///
    /// # Errors
    /// See [`ContextError`].
    pub fn open(
        directory: &Path,
        dockerfile: Option<&Path>,
        given: Option<&Path>,
    ) -> Result<Context, ContextError> {
        let error = |source| ContextError::Directory {
            path: directory.to_owned(),
            source,
        };
        let opened = nix::fcntl::open(
            directory,
            nix::fcntl::OFlag::O_RDONLY
                | nix::fcntl::OFlag::O_DIRECTORY
                | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
        .map_err(|errno| error(errno.into()))?;
        let place = nix::sys::stat::fstat(&opened).map_err(|errno| error(errno.into()))?;
        let name = format!("{:x}-{:x}", place.st_dev, place.st_ino);
        let own = dockerfile.map(|path| {
            let mut own = path.as_os_str().to_owned();
            own.push(".dockerignore");
            PathBuf::from(own)
        });
        let common = [".dockerignore", ".containerignore"].map(|name| directory.join(name));
        let candidates: Vec<PathBuf> = match given {
            Some(given) => vec![given.to_owned()],
            None => own.into_iter().chain(common).collect(),
        };
        let mut ignore = None;
        for path in &candidates {
            match read_bounded(path) {
                Ok(text) => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    ignore = Some(IgnoreFile::parse(&text, &name)?);
                    break;
                }
                Err(source) if source.kind() == io::ErrorKind::NotFound && given.is_none() => {}
                Err(source) => {
                    return Err(ContextError::Ignore {
                        path: path.clone(),
                        source,
                    });
                }
            }
        }
        let ignore = match ignore {
            Some(ignore) => ignore,
            None => IgnoreFile::parse(b"", ".dockerignore")?,
        };
        Ok(Context {
            view: View::new(vec![LayerDir::plain(opened)]),
            ignore,
            name: Some(name),
            cache: OnceLock::new(),
            exists: true,
        })
    }

    /// Returns a context that came from elsewhere: an archive, a repository. An ignore file in
    /// it does not count: who made it has chosen already.
    pub fn of_tree(view: View) -> Context {
        Context {
            view,
            ignore: IgnoreFile::default(),
            name: None,
            cache: OnceLock::new(),
            exists: true,
        }
    }

    /// Returns what there is where a Dockerfile came alone.
    pub fn none() -> Context {
        Context {
            exists: false,
            ..Context::of_tree(View::new(Vec::new()))
        }
    }

    /// Tells whether there is a context at all.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Reads a Dockerfile of a context that came from elsewhere, and returns its path there
    /// too. `place` is what the context is, for errors.
    ///
    /// # Errors
    /// It is not there, or no text.
    pub fn dockerfile(
        &self,
        given: Option<&str>,
        place: &str,
    ) -> Result<(String, String), ContextError> {
        let candidates = match given {
            Some(path) => vec![path],
            None => DOCKERFILES.to_vec(),
        };
        let in_tree = |path: &str, source| ContextError::InTree {
            path: path.to_owned(),
            place: place.to_owned(),
            source,
        };
        for path in &candidates {
            let found = match self.view.resolve(path.as_bytes(), true) {
                Ok(found) => found.node,
                Err(LayerError::ThroughFile(_)) => None,
                Err(error) => return Err(in_tree(path, error)),
            };
            let Some(node) = found else { continue };
            let read = |source| in_tree(path, LayerError::Read(source));
            if !node.stat.is_file() {
                return Err(read(io::Error::other("it is no regular file")));
            }
            let file = self
                .view
                .open_file(&node)
                .map_err(|error| in_tree(path, error))?;
            let text = text_of(bounded(file).map_err(read)?, Path::new(path))?;
            return Ok(((*path).to_owned(), text));
        }
        let path = candidates.first().copied().unwrap_or_default();
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let names = self.view.read_dir(directory.as_bytes()).unwrap_or_default();
        let names = names
            .into_iter()
            .filter_map(|entry| String::from_utf8(entry.name).ok());
        Err(ContextError::NotInTree {
            path: path.to_owned(),
            place: place.to_owned(),
            near: similar(names),
        })
    }

    /// Returns what is known of the files' contents, and under which name that is kept. `load`
    /// brings what earlier builds knew. Nothing is known of what comes anew in every build.
    pub fn stat_cache(
        &self,
        load: impl FnOnce(&str) -> Option<Vec<u8>>,
    ) -> Option<(&str, &StatCache)> {
        let name = self.name.as_deref()?;
        let cache = self.cache.get_or_init(|| {
            let known = load(name).and_then(StatCache::decode);
            known.unwrap_or_default()
        });
        Some((name, cache))
    }

    /// Returns the files.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns which of them do not take part.
    pub fn ignore(&self) -> &IgnoreFile {
        &self.ignore
    }
}

/// Where a Dockerfile is looked for, in this order.
const DOCKERFILES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Without waiting, should it be a named pipe.
    let file = File::options()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    bounded(file)
}

fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(io::Error::other(format!(
            "it has more than {FILE_LIMIT} bytes"
        )));
    }
    Ok(bytes)
}

/// Returns where the Dockerfile is: what `-f` says, else `Dockerfile`, `dockerfile` or
/// `Containerfile` in the context.
pub fn find_dockerfile(context: &Path, given: Option<&Path>) -> PathBuf {
    match given {
        Some(path) => path.to_owned(),
        None => {
            let mut paths = DOCKERFILES.iter().map(|name| context.join(name));
            let found = paths.find(|path| path.exists());
            found.unwrap_or_else(|| context.join(DOCKERFILES[0]))
        }
    }
}

/// Reads a Dockerfile.
///
/// # Errors
/// It is not there, or no text.
pub fn read_dockerfile(path: &Path) -> Result<String, ContextError> {
    let bytes = read_bounded(path).map_err(|source| ContextError::Dockerfile {
        path: path.to_owned(),
        near: if source.kind() == io::ErrorKind::NotFound {
            similar_names(path)
        } else {
            Vec::new()
        },
        source,
    })?;
    text_of(bytes, path)
}

/// Reads a Dockerfile to its end, from something that is called `name`.
///
/// # Errors
/// It can't be read, or is no text.
pub fn read_dockerfile_from(reader: impl Read, name: &str) -> Result<String, ContextError> {
    let path = Path::new(name);
    let bytes = bounded(reader).map_err(|source| ContextError::Dockerfile {
        path: path.to_owned(),
        near: Vec::new(),
        source,
    })?;
    text_of(bytes, path)
}

fn text_of(bytes: Vec<u8>, path: &Path) -> Result<String, ContextError> {
    decode(bytes).map_err(|source| ContextError::NotText {
        path: path.to_owned(),
        source,
    })
}

/// Returns names beside a missing Dockerfile that somebody may have meant.
fn similar_names(path: &Path) -> Vec<String> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.flatten();
    similar(names.filter_map(|entry| entry.file_name().into_string().ok()))
}

/// Returns the names that look like that of a Dockerfile.
fn similar(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names
        .filter(|name| {
            let lower = name.to_ascii_lowercase();
            (lower.contains("dockerfile") || lower.contains("containerfile"))
                && !lower.ends_with("ignore")
        })
        .collect();
    names.sort();
    names.truncate(3);
    names
}
