//! Sources of ADD that are elsewhere: URLs and git repositories. They are told by what they
//! hold now, and brought only where no record has that.

use super::contexts::fetcher;
use super::copy::{Adding, Item};
use super::error::{Step, Trouble};
use super::key::Key;
use super::{Build, Running};
use crate::fetch::{Commit, Fetched, GitLocation, Location, name_of_url};
use crate::image::Digest;
use crate::registry::shown_url;

/// A source that is not here yet, and what tells it from others.
pub(super) enum Remote {
    /// A file behind a URL.
    Url {
        url: String,
        /// What it has to be; nothing is asked before it is needed.
        pinned: Option<Digest>,
        /// What it was, where it is not pinned.
        fetched: Option<Fetched>,
        unpack: bool,
    },
    /// A tree of a repository.
    Repository {
        location: GitLocation,
        commit: Commit,
        keep_git_dir: bool,
    },
}

impl Remote {
    /// Adds to a key all that a copy depends on: not the time.
    pub(super) fn hash(&self, key: &mut Key) {
        match self {
            Remote::Url {
                url,
                pinned,
                fetched,
                unpack,
            } => {
                let digest = pinned.as_ref().or(fetched.as_ref().map(|f| &f.digest));
                key.text("url")
                    .bytes(&name_of_url(url))
                    .text(&digest.map(ToString::to_string).unwrap_or_default())
                    .number((*unpack).into());
            }
            Remote::Repository {
                location,
                commit,
                keep_git_dir,
            } => {
                key.text("repository")
                    .text(&commit.id)
                    .text(&location.subdir)
                    .number(location.skip_submodules.into())
                    .number((*keep_git_dir).into());
                // All else is in the commit; of these, the configuration that is kept speaks,
                // and relative submodules depend on where the repository is.
                key.text(&shown_url(&location.remote));
            }
        }
    }
}

impl Build<'_> {
    /// Finds out what a source is, where it is elsewhere.
    pub(super) fn remote(
        &self,
        text: &str,
        adding: Option<&Adding>,
        step: &Running,
    ) -> Step<Option<Remote>> {
        let location = Location::of_source(text)?;
        if matches!(location, Location::Path(_)) {
            return match adding.and_then(|adding| adding.checksum.as_ref()) {
                Some(_) => Err(Trouble::hinted(
                    format!("--checksum is for URLs and git repositories, and {text:?} is a path"),
                    "leave it away: files of the build context are known by their content",
                )),
                None => Ok(None),
            };
        }
        let shown = shown_url(text);
        let Some(adding) = adding else {
            return Err(Trouble::hinted(
                format!("COPY can't fetch {shown}"),
                "use ADD, which takes URLs and git repositories",
            ));
        };
        let fetcher = fetcher(self.shop, step);
        match location {
            Location::Path(_) => Ok(None),
            Location::Url(url) => {
                let pinned = match &adding.checksum {
                    Some(text) => Some(text.parse::<Digest>().map_err(|_| {
                        Trouble::hinted(
                            format!("invalid checksum {text:?}"),
                            "a checksum is sha256: and 64 hexadecimal digits, as sha256sum has them",
                        )
                    })?),
                    None => None,
                };
                let fetched = match &pinned {
                    Some(_) => None,
                    None => Some(fetcher.url(&url, None)?),
                };
                Ok(Some(Remote::Url {
                    url,
                    pinned,
                    fetched,
                    unpack: adding.unpack,
                }))
            }
            Location::Git(mut location) => {
                let differ = |one: &str, other: &str| {
                    Trouble::new(format!("{shown} says {one}, and the instruction {other}"))
                };
                if let Some(checksum) = &adding.checksum {
                    match &location.checksum {
                        Some(own) if own != checksum => return Err(differ(own, checksum)),
                        _ => location.checksum = Some(checksum.clone()),
                    }
                }
                let keep_git_dir = match (location.keep_git_dir, adding.keep_git_dir) {
                    (Some(own), Some(given)) if own != given => {
                        let say = |keep: bool| format!("keep-git-dir={keep}");
                        return Err(differ(&say(own), &say(given)));
                    }
                    (own, given) => own.or(given).unwrap_or(false),
                };
                let commit = fetcher.git_commit(&location)?;
                Ok(Some(Remote::Repository {
                    location,
                    commit,
                    keep_git_dir,
                }))
            }
        }
    }

    /// Brings a source here.
    pub(super) fn bring(&self, remote: &Remote, step: &Running) -> Step<Item<'static>> {
        let fetcher = fetcher(self.shop, step);
        match remote {
            Remote::Url {
                url,
                pinned,
                fetched,
                unpack,
            } => {
                let fetched = match fetched {
                    Some(fetched) => fetched.clone(),
                    None => fetcher.url(url, pinned.as_ref())?,
                };
                Ok(Item::Url {
                    name: name_of_url(url),
                    file: fetcher.open(url, &fetched)?,
                    modified: fetched.modified,
                    unpack: *unpack,
                })
            }
            Remote::Repository {
                location,
                commit,
                keep_git_dir,
            } => {
                let view = fetcher.git_tree(location, commit, *keep_git_dir)?;
                Ok(Item::Repository(view))
            }
        }
    }
}
