//! `kiln cp`.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kiln_runtime::Builder;
use kiln_runtime::subid::IdMap;

use super::session::{self, Workshop};
use super::{CliError, Result};
use crate::archive::{self, ArchiveError};
use crate::container::{self, ContainerError, Found, Inside, Target};
use crate::event::NullReporter;
use crate::layer::{Compression, LayerError, Owners, View, write_part_tar};
use crate::store::{Container, ContainerLock, Store};
use crate::ui;

/// Arguments of `kiln cp`.
#[derive(clap::Args)]
#[command(
    override_usage = "kiln cp [OPTIONS] CONTAINER:PATH PATH|-\n       kiln cp [OPTIONS] PATH|- CONTAINER:PATH"
)]
pub(super) struct Arguments {
    /// Keep the numbers of owner and group of what goes in, which is root's otherwise; what
    /// comes out is yours
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// From where: a path, CONTAINER:PATH, or - for a tar from standard input
    #[arg(value_name = "SOURCE")]
    source: String,
    /// To where: a path, CONTAINER:PATH, or - for a tar to standard output
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// A side of a copy.
enum Side<'a> {
    Local(&'a str),
    Container(&'a str, &'a str),
}

impl<'a> Side<'a> {
    /// Takes what stands before a colon for a container, unless it looks like a path.
    fn parse(text: &'a str) -> Side<'a> {
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['/', '.']) && !name.is_empty() => {
                Side::Container(name, path)
            }
            _ => Side::Local(text),
        }
    }
}

/// Tells whether a path means what is in a directory, and not that itself.
fn means_content(path: &str) -> bool {
    path == "." || path.ends_with("/.") || path.trim_matches('/').is_empty()
}

/// Returns the last component of a path.
fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

pub(super) fn run(arguments: &Arguments, root: Option<PathBuf>) -> Result<ExitCode> {
    let sides = (
        Side::parse(&arguments.source),
        Side::parse(&arguments.destination),
    );
    match sides {
        (Side::Container(name, path), Side::Local(to)) => {
            arguments.copy_out(&Place::enter(root, name)?, path, to)?;
        }
        (Side::Local(from), Side::Container(name, path)) => {
            arguments.copy_in(&Place::enter(root, name)?, from, path)?;
        }
        (Side::Container(..), Side::Container(..)) => {
            return Err(
                CliError::message("copying between containers is not supported")
                    .hinted("through a pipe: kiln cp FROM:PATH - | kiln cp - TO:PATH"),
            );
        }
        (Side::Local(_), Side::Local(_)) => {
            return Err(
                CliError::message("must specify at least one container source")
                    .hinted("one of the two is CONTAINER:PATH"),
            );
        }
    }
    if !arguments.quiet && arguments.destination != "-" {
        ui::say(&format!(
            "Successfully copied to {}\n",
            arguments.destination
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A container, and the way to its files.
enum Place {
    Still(Box<Workshop>, Container),
    Running(Store, Builder, Container, Inside),
}

impl Place {
    fn enter(root: Option<PathBuf>, name: &str) -> Result<Place> {
        let store = session::open_store(root.clone())?;
        let container = store.find_container(name)?;
        if !container.is_running() {
            return Ok(Place::Still(Box::new(Workshop::enter(root)?), container));
        }
        let (store, builder, inside) =
            session::join(store, &container, || Ok(Inside::enter(&container)?))?;
        Ok(Place::Running(store, builder, container, inside))
    }

    fn container(&self) -> &Container {
        match self {
            Place::Still(_, container) | Place::Running(_, _, container, _) => container,
        }
    }

    fn builder(&self) -> &Builder {
        match self {
            Place::Still(workshop, _) => &workshop.builder,
            Place::Running(_, builder, ..) => builder,
        }
    }

    /// Returns the files; one that doesn't run is not started as long as the lock is held.
    fn files(&self) -> Result<(Option<ContainerLock>, View)> {
        match self {
            Place::Still(workshop, container) => {
                let (lock, container) = super::container::read(&workshop.store, container)?;
                let (_, _, view) = workshop.store.container_views(&container)?;
                Ok((lock, view))
            }
            Place::Running(store, _, _, inside) => Ok((None, inside.view(store)?)),
        }
    }
}

impl Arguments {
    fn copy_out(&self, place: &Place, path: &str, to: &str) -> Result<()> {
        let (_reading, view) = place.files()?;
        let content = means_content(path);
        let follow = self.follow_link || content || path.ends_with('/');
        // The name is that of the link, also where what it leads to is copied.
        let name = last_name(path.trim_end_matches('/').as_bytes()).to_vec();
        let found = container::find(view, path.as_bytes(), follow)?;
        let node = found.existing(place.container())?;
        let is_dir = node.stat.is_dir();
        if (content || path.ends_with('/')) && !is_dir {
            return Err(CliError::message(format!("{path} is not a directory")));
        }
        let written = |error: LayerError| CliError::from(ContainerError::from(error));
        if to == "-" {
            if io::stdout().is_terminal() {
                return Err(ArchiveError::Terminal("write an archive to").into());
            }
            let name: &[u8] = if content { b"" } else { &name };
            let mut out = io::stdout().lock();
            write_part_tar(&found.view, node, name, &mut out).map_err(written)?;
            return Ok(());
        }
        let target = Path::new(to);
        let (directory, name) = match std::fs::metadata(target) {
            Ok(meta) if meta.is_dir() && content => (target.to_owned(), Vec::new()),
            Ok(meta) if meta.is_dir() => (target.to_owned(), name),
            Ok(_) if is_dir => {
                return Err(CliError::message(format!(
                    "cannot copy a directory to the file {to}"
                )));
            }
            Err(_) if is_dir => {
                std::fs::create_dir(target).map_err(|error| cannot_write(to, &error))?;
                (target.to_owned(), Vec::new())
            }
            Err(_) if to.ends_with('/') => return Err(no_directory(to)),
            Ok(_) | Err(_) => {
                // What a link leads to is written, as for any program.
                let real = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
                let parent = real
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new(".")).to_owned();
                let name = real.file_name().unwrap_or_default().as_bytes().to_vec();
                (parent, name)
            }
        };
        let warnings = archive::write_part_dir(&found.view, node, &directory, &name)?;
        for warning in warnings {
            ui::say(&format!("warning: {warning}\n"));
        }
        Ok(())
    }

    fn copy_in(&self, place: &Place, from: &str, path: &str) -> Result<()> {
        let (reading, view) = place.files()?;
        let found = container::find(view, path.as_bytes(), true)?;
        drop(reading);
        let sandboxes;
        let target = match place {
            Place::Still(workshop, container) => {
                sandboxes = workshop.sandboxes(&NullReporter)?;
                Target::Still(&sandboxes, container)
            }
            Place::Running(.., inside) => Target::Running(inside),
        };
        let container = place.container();
        let target_is_dir = found.node.as_ref().is_some_and(|node| node.stat.is_dir());
        if from == "-" {
            if !target_is_dir {
                return Err(CliError::message(format!(
                    "the destination {}:{path} must be a directory",
                    container.record.name
                )));
            }
            if io::stdin().is_terminal() {
                return Err(ArchiveError::Terminal("read an archive from").into());
            }
            let (_, mut archive) = Compression::decode(io::stdin())
                .map_err(|e| CliError::from(ContainerError::from(LayerError::Read(e))))?;
            target.extract(archive.as_mut(), &found.path)?;
            return Ok(());
        }
        let source = Source::open(from, self.follow_link)?;
        let (directory, name) = source.destination(container, &found, path)?;
        let owners = self.archive.then(|| {
            let (uids, gids) = place.builder().maps();
            let (uids, gids) = (uids.clone(), gids.clone());
            // Who has no id here is nobody in the container too.
            let host = |map: &IdMap, id| match id {
                NOBODY => NOBODY,
                id => map.to_host(id).unwrap_or(NOBODY),
            };
            Owners::new(move |uid, gid| (host(&uids, uid), host(&gids, gid)))
        });
        let source = container::Source {
            parent: source.parent,
            path: source.name,
            owners,
        };
        target.copy_in(source, &directory, &name)?;
        Ok(())
    }
}

/// What the kernel shows in place of an id without a mapping.
const NOBODY: u32 = 65534;

fn cannot_write(path: &str, error: &io::Error) -> CliError {
    CliError::message(format!("cannot write {path}: {error}"))
}

fn no_directory(path: &str) -> CliError {
    CliError::message(format!("the destination directory {path} must exist"))
}

/// A file or directory of the user's.
struct Source {
    /// The directory that it is in, or itself where its content is meant.
    parent: OwnedFd,
    /// Its name in that.
    name: Vec<u8>,
    /// The name that it gets in a directory.
    shown: Vec<u8>,
    is_dir: bool,
}

impl Source {
    fn open(from: &str, follow_link: bool) -> Result<Source> {
        let cannot_read =
            |error: io::Error| CliError::message(format!("cannot read {from}: {error}"));
        let content = means_content(from);
        let path = Path::new(from);
        let meta = match follow_link || content || from.ends_with('/') {
            true => std::fs::metadata(path),
            false => std::fs::symlink_metadata(path),
        };
        let is_dir = meta.map_err(cannot_read)?.is_dir();
        if (content || from.ends_with('/')) && !is_dir {
            return Err(CliError::message(format!("{from} is not a directory")));
        }
        let open = |path: &Path| File::open(path).map(OwnedFd::from).map_err(cannot_read);
        if content {
            return Ok(Source {
                parent: open(path)?,
                name: Vec::new(),
                shown: Vec::new(),
                is_dir,
            });
        }
        let shown = last_name(from.trim_end_matches('/').as_bytes()).to_vec();
        let real = match follow_link || from.ends_with('/') {
            true => std::fs::canonicalize(path).map_err(cannot_read)?,
            false => std::path::absolute(path).map_err(cannot_read)?,
        };
        // `..` and its like have no name of their own.
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(CliError::message(format!("{from} has no name"))
                .hinted(format!("copy what is in it: {from}/.")));
        };
        Ok(Source {
            parent: open(parent)?,
            name: name.as_bytes().to_vec(),
            shown,
            is_dir,
        })
    }

    /// Returns the directory in the container that it goes to, and its name there; none where
    /// its content goes there.
    fn destination(
        &self,
        container: &Container,
        found: &Found,
        path: &str,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        match &found.node {
            Some(node) if node.stat.is_dir() => Ok((found.path.clone(), self.shown.clone())),
            Some(_) if self.is_dir => Err(CliError::message(format!(
                "cannot copy a directory to the file {path}"
            ))),
            None if !self.is_dir && path.ends_with('/') => Err(no_directory(path)),
            _ => {
                let name = last_name(&found.path).to_vec();
                let length = found.path.len() - name.len();
                let parent = found.path[..length].to_vec();
                let above = container::find(found.view.clone(), &parent, true)?;
                above.existing(container)?;
                Ok((above.path, name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colon_separates_a_container_from_a_path_unless_it_stands_in_a_path() {
        let container = |text: &str| matches!(Side::parse(text), Side::Container(..));
        for text in ["a:/b", "a:b", "a:", "a:b:c"] {
            assert!(container(text), "{text}");
        }
        for text in ["a", "/a:b", "./a:b", "-", ":b"] {
            assert!(!container(text), "{text}");
        }
    }
}
