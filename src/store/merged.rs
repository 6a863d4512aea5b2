//! Merged trees: many layers as one, for stacks that are too deep to be mounted well.

use std::fs;
use std::path::{Path, PathBuf};

use super::layers::boot_id;
use super::uses::{Claim, Kind};
use super::{IoContext, Result, Store};
use crate::image::ChainId;

fn merged_name(chain_id: &ChainId) -> String {
    format!("{}-{}", chain_id.0.hex(), boot_id())
}

impl Store {
    /// Where the merged tree of a stack is. It counts in this boot only, since it is never
    /// waited for that it lies on the disk.
    fn merged_path(&self, chain_id: &ChainId) -> PathBuf {
        let forms = self.dir("merged").join(&self.form().name);
        forms.join(merged_name(chain_id))
    }

    /// Returns the tree of all layers up to `chain_id`, where it was merged before.
    pub fn merged(&self, chain_id: &ChainId) -> Option<PathBuf> {
        self.uses(Kind::Merged, &merged_name(chain_id));
        Some(self.merged_path(chain_id).join("fs")).filter(|tree| tree.is_dir())
    }

    /// Publishes a merged tree: `staged` is a directory of a session with the tree in `fs`.
    /// Where another process was first, its tree is returned.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn publish_merged(&self, chain_id: &ChainId, staged: &Path) -> Result<PathBuf> {
        self.uses(Kind::Merged, &merged_name(chain_id));
        let place = self.merged_path(chain_id);
        let forms = place.parent().unwrap_or(&place);
        fs::create_dir_all(forms).at("cannot create", forms)?;
        match fs::rename(staged, &place) {
            Err(_) if place.is_dir() => self.trash(staged)?,
            other => other.at("cannot publish", &place)?,
        }
        Ok(place.join("fs"))
    }

    /// Moves all merged trees to the trash that nobody uses: they are made again.
    pub(super) fn remove_merged(&self, claim: &Claim) -> Result<()> {
        for form in super::files::names(&self.dir("merged"))? {
            let form = self.dir("merged").join(form);
            for name in super::files::names(&form)? {
                if claim.take(Kind::Merged, &name) {
                    self.trash(&form.join(name))?;
                }
            }
        }
        Ok(())
    }
}
