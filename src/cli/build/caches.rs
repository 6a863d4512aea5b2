//! `--cache-from` and `--cache-to`.

use std::path::PathBuf;

use crate::archive::{CacheFrom, CacheTo};
use crate::build::CarriedTo;
use crate::cli::Result;
use crate::event::{Event, Reporter};

/// Returns the directories that steps are taken from.
pub(super) fn sources(texts: &[String]) -> Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for text in texts {
        if let CacheFrom::Local(directory) = CacheFrom::parse(text)? {
            directories.push(directory);
        }
    }
    Ok(directories)
}

/// Returns the directories that steps are kept in.
pub(super) fn destinations(texts: &[String]) -> Result<Vec<CarriedTo>> {
    let mut directories = Vec::new();
    for text in texts {
        if let CacheTo::Local {
            dest,
            all_stages,
            packing,
        } = CacheTo::parse(text)?
        {
            directories.push(CarriedTo {
                directory: dest,
                all_stages,
                packing,
            });
        }
    }
    Ok(directories)
}

/// Says of other places that they are passed over.
pub(super) fn note_elsewhere(from: &[String], to: &[String], reporter: &dyn Reporter) {
    let note = |flag: &str, kind: String, instead: &str| {
        let message = format!(
            "{flag} type={kind} has no effect: kiln keeps caches in its store and in \
             directories, {flag} type=local,{instead}=DIR"
        );
        reporter.report(Event::Info { message });
    };
    for text in from {
        if let Ok(CacheFrom::Elsewhere(kind)) = CacheFrom::parse(text) {
            note("--cache-from", kind, "src");
        }
    }
    for text in to {
        if let Ok(CacheTo::Elsewhere(kind)) = CacheTo::parse(text) {
            note("--cache-to", kind, "dest");
        }
    }
}
