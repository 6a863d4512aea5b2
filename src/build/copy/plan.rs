//! The short way: what is copied is planned, and then written in one pass.

use super::{Item, Job, join};
use crate::build::error::Step;
use crate::build::sources::{Entry, Selected};
use crate::layer::{Assembly, Attributes, Content, FileKind, Plan, Timestamp, View};

impl Job<'_> {
    /// Plans the layer. Returns nothing where it has to be written entry by entry.
    pub(super) fn plan(&self, below: &View, now: Timestamp) -> Step<Option<Plan<'_>>> {
        let mut assembly = Assembly::new(below, now);
        for item in &self.items {
            match item {
                Item::Document { name, content } => {
                    let target = self.place(&mut assembly, name.as_bytes())?;
                    let mut attributes = Attributes {
                        mode: 0o644,
                        ..Attributes::default()
                    };
                    self.target.adjust(&mut attributes, false);
                    let content = Content::Bytes(content.as_bytes());
                    assembly.put(target, FileKind::File, attributes, content)?;
                }
                Item::Tree(selected) if selected.top().stat.is_dir() => {
                    let destination = self.target.destination.as_bytes();
                    let target = assembly.ensure_dir(destination, &self.target.created())?;
                    for entry in &selected.entries[1..] {
                        let path = join(&target, &entry.path);
                        self.plan_entry(&mut assembly, selected, entry, path, &target)?;
                    }
                }
                Item::Tree(selected) => {
                    if self.target.extract
                        && selected.top().stat.is_file()
                        && self.is_archive(selected)?
                    {
                        return Ok(None);
                    }
                    let target = self.place(&mut assembly, &selected.name)?;
                    let entry = &selected.entries[0];
                    self.plan_entry(&mut assembly, selected, entry, target, b"")?;
                }
                Item::Remote(_) | Item::Url { .. } | Item::Repository(_) => return Ok(None),
            }
        }
        Ok(assembly.plan()?)
    }

    /// Returns where a single file goes.
    fn place(&self, assembly: &mut Assembly<'_, '_>, name: &[u8]) -> Step<Vec<u8>> {
        let destination = self.target.destination.as_bytes();
        if self.target.into_directory {
            let directory = assembly.ensure_dir(destination, &self.target.created())?;
            return Ok(join(&directory, name));
        }
        let slash = destination.iter().rposition(|b| *b == b'/');
        let parent = &destination[..slash.unwrap_or_default()];
        assembly.ensure_dir(parent, &self.target.created())?;
        Ok(assembly.resolve(destination)?)
    }

    fn plan_entry<'s>(
        &'s self,
        assembly: &mut Assembly<'_, 's>,
        selected: &'s Selected<'s>,
        entry: &'s Entry,
        path: Vec<u8>,
        target: &[u8],
    ) -> Step<()> {
        let (tree, node) = (&selected.tree, &entry.node);
        let kind = node.stat.kind;
        let attributes = self.attributes(tree, entry)?;
        let content = match (kind, entry.link_to, entry.content) {
            // A socket means nothing without the process behind it.
            (FileKind::Socket, ..) => return Ok(()),
            (_, Some(first), _) => Content::HardLink(join(target, &selected.entries[first].path)),
            (FileKind::File, _, Some(hash)) => Content::File {
                view: tree.view(),
                node,
                hash,
            },
            (FileKind::Symlink, ..) => Content::Symlink(tree.view().read_link(node)?),
            (FileKind::Directory, ..) if entry.is_parent => {
                return Ok(assembly.merge_dir(path, attributes)?);
            }
            _ => Content::Directory,
        };
        Ok(assembly.put(path, kind, attributes, content)?)
    }
}
