//! The walk through a source.

use std::collections::HashMap;

use super::{Entry, Tree, join};
use crate::build::error::Step;
use crate::context::ignore::{Decision, IgnoreFile, Include};
use crate::layer::Node;

/// A walk that collects entries.
pub(super) struct Gathering<'t, 'a> {
    pub(super) tree: Tree<'a>,
    pub(super) excludes: &'t IgnoreFile,
    pub(super) include: Option<&'t Include>,
    pub(super) entries: Vec<Entry>,
    pub(super) inodes: HashMap<(u64, u64), usize>,
}

impl<'t, 'a: 't> Gathering<'t, 'a> {
    pub(super) fn push(&mut self, path: Vec<u8>, node: Node, is_parent: bool) {
        let stat = &node.stat;
        let link_to = if stat.nlink > 1 && !stat.is_dir() {
            let index = self.entries.len();
            let first = *self.inodes.entry((stat.dev, stat.ino)).or_insert(index);
            (first != index).then_some(first)
        } else {
            None
        };
        self.entries.push(Entry {
            path,
            node,
            link_to,
            is_parent,
            content: None,
            has_xattrs: true,
        });
    }

    /// Collects a directory and what is in it. Returns whether any of it takes part.
    /// `included` says whether it is, or lies below, what `--parents` asks for.
    pub(super) fn directory(
        &mut self,
        real: &[u8],
        path: &[u8],
        node: Node,
        ignored: Option<Decision<'t>>,
        excluded: Decision<'t>,
        included: bool,
    ) -> Step<bool> {
        let allowed = !ignored.as_ref().is_some_and(|d| d.excluded) && !excluded.excluded;
        if !allowed && !self.may_come_back(real, path, ignored.as_ref(), &excluded) {
            return Ok(false);
        }
        // The pivot of --parents is there whatever matches below it.
        let own = allowed && (included || path.is_empty());
        let place = self.entries.len();
        self.push(path.to_vec(), node, !included);
        let mut kept = own;
        for entry in self.tree.view.read_dir(real)? {
            let (real, path) = (join(real, &entry.name), join(path, &entry.name));
            let is_dir = entry.node.stat.is_dir();
            let included = included
                || match self.include {
                    Some(include) if include.matches(&path) => true,
                    Some(include) if is_dir && include.may_match_below(&path) => false,
                    _ => continue,
                };
            let ignored = match (self.tree.ignore, &ignored) {
                (Some(ignore), Some(parent)) => Some(ignore.decide_below(*parent, &real)),
                _ => None,
            };
            let excluded = self.excludes.decide_below(excluded, &path);
            if is_dir {
                kept |= self.directory(&real, &path, entry.node, ignored, excluded, included)?;
            } else if !ignored.is_some_and(|d| d.excluded) && !excluded.excluded {
                self.push(path, entry.node, false);
                kept = true;
            }
        }
        if !kept {
            self.entries.truncate(place);
        }
        Ok(kept)
    }

    pub(super) fn may_come_back(
        &self,
        real: &[u8],
        path: &[u8],
        ignored: Option<&Decision<'_>>,
        excluded: &Decision<'_>,
    ) -> bool {
        let ignored = ignored.is_some_and(|d| d.excluded);
        (!ignored
            || self
                .tree
                .ignore
                .is_some_and(|i| i.may_reinclude_below(real)))
            && (!excluded.excluded || self.excludes.may_reinclude_below(path))
    }
}
