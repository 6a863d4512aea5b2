//! Where the sources of COPY and ADD come from: a directory, seen through its ignore file.

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

use crate::layer::{LayerDir, View};

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
            ContextError::Dockerfile { near, .. } => Some(match near.as_slice() {
                [] => "name it with -f FILE".to_owned(),
                names => format!("did you mean {}? Name it with -f FILE", names.join(" or ")),
            }),
            ContextError::Rule(error) => error.hint(),
            ContextError::NotText { .. } => {
                Some("save the file as UTF-8, which is what an editor does by default".to_owned())
            }
            _ => None,
        }
    }
}

/// A directory to build from.
pub struct Context {
    view: View,
    ignore: IgnoreFile,
    name: String,
    cache: OnceLock<StatCache>,
}

impl Context {
    /// Opens a directory. The ignore file is that of the Dockerfile, else the directory's own:
    /// `<Dockerfile>.dockerignore`, `.dockerignore`, `.containerignore`.
    ///
    /// # Errors
    /// See [`ContextError`].
    pub fn open(directory: &Path, dockerfile: &Path) -> Result<Context, ContextError> {
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
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        let candidates = [
            PathBuf::from(own),
            directory.join(".dockerignore"),
            directory.join(".containerignore"),
        ];
        let mut ignore = None;
        for path in &candidates {
            match read_bounded(path) {
                Ok(text) => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    ignore = Some(IgnoreFile::parse(&text, &name)?);
                    break;
                }
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
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
            name,
            cache: OnceLock::new(),
        })
    }

    /// Returns what is known of the files' contents. `load` brings what earlier builds knew
    /// from the place of this name.
    pub fn stat_cache(&self, load: impl FnOnce(&str) -> Option<Vec<u8>>) -> &StatCache {
        self.cache.get_or_init(|| {
            let known = load(&self.name).and_then(StatCache::decode);
            known.unwrap_or_default()
        })
    }

    /// Returns the name under which the contents of this directory's files are remembered.
    pub fn cache_name(&self) -> &str {
        &self.name
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

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Without waiting, should it be a named pipe.
    let file = File::options()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(io::Error::other(format!(
            "it has more than {FILE_LIMIT} bytes"
        )));
    }
    Ok(bytes)
}

/// Returns where the Dockerfile is: what `-f` says, else `Dockerfile` or `Containerfile` in the
/// context.
pub fn find_dockerfile(context: &Path, given: Option<&Path>) -> PathBuf {
    match given {
        Some(path) => path.to_owned(),
        None => {
            let dockerfile = context.join("Dockerfile");
            let containerfile = context.join("Containerfile");
            if !dockerfile.exists() && containerfile.exists() {
                containerfile
            } else {
                dockerfile
            }
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
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
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
