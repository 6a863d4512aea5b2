//! Where mounts lie: below which other mount, and which mount points are missing.

use crate::build::error::{Step, Trouble};
use crate::layer::{LayerError, Node, View, escape};

/// A mount in its place.
#[derive(Debug)]
pub(super) struct Placed {
    /// Which of the mounts that were given.
    pub(super) index: usize,
    /// Where, from the root, without a slash before it. Links of the image are resolved.
    pub(super) path: Vec<u8>,
    /// The position, in this order, of the mount that it is below.
    pub(super) parent: Option<usize>,
    /// What the image has there; nothing below another mount.
    pub(super) node: Option<Node>,
}

impl Placed {
    /// Returns the path below a mount that this is within.
    pub(super) fn below<'p>(&'p self, parent: &Placed) -> &'p [u8] {
        &self.path[(parent.path.len() + 1).min(self.path.len())..]
    }
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.len() > directory.len() && path.starts_with(directory) && path[directory.len()] == b'/'
}

/// Puts mounts in the order in which they are made, parents first; of those at one place, the
/// last one given is on top. `targets` are absolute and clean.
pub(super) fn lay_out(view: &View, targets: &[(usize, &str)]) -> Step<Vec<Placed>> {
    let mut sorted: Vec<(usize, &[u8])> = targets
        .iter()
        .map(|(index, target)| (*index, &target.as_bytes()[1..]))
        .collect();
    sorted.sort_by(|(_, a), (_, b)| a.split(|c| *c == b'/').cmp(b.split(|c| *c == b'/')));
    let mut placed: Vec<Placed> = Vec::new();
    for (at, &(index, target)) in sorted.iter().enumerate() {
        // A link of the image that another mount covers is not followed.
        let above = (0..at).rev().find(|&i| is_below(target, sorted[i].1));
        let (path, node) = match above {
            Some(above) => {
                let mut path = placed[above].path.clone();
                path.extend_from_slice(&target[sorted[above].1.len()..]);
                (path, None)
            }
            None => match view.resolve(target, true) {
                Ok(found) => (found.path, found.node),
                Err(LayerError::ThroughFile(file)) => {
                    return Err(Trouble::new(format!(
                        "cannot mount at \"/{}\": in the image, /{file} is a file",
                        escape(target)
                    )));
                }
                Err(error) => return Err(error.into()),
            },
        };
        let parent = (0..at).rev().find(|&i| is_below(&path, &placed[i].path));
        placed.push(Placed {
            index,
            path,
            node: node.filter(|_| parent.is_none()),
            parent,
        });
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(targets: &[&str]) -> Vec<(usize, String, Option<usize>)> {
        let targets: Vec<(usize, &str)> = targets.iter().copied().enumerate().collect();
        lay_out(&View::new(Vec::new()), &targets)
            .unwrap()
            .into_iter()
            .map(|p| (p.index, String::from_utf8(p.path).unwrap(), p.parent))
            .collect()
    }

    #[test]
    fn parents_come_first_and_siblings_are_none() {
        assert_eq!(
            laid_out(&["/a/b/c", "/a-b", "/a", "/a/b"]),
            [
                (2, "a".to_owned(), None),
                (3, "a/b".to_owned(), Some(0)),
                (0, "a/b/c".to_owned(), Some(1)),
                (1, "a-b".to_owned(), None),
            ]
        );
    }

    #[test]
    fn mounts_at_one_place_keep_their_order() {
        assert_eq!(
            laid_out(&["/b", "/a", "/b"]),
            [
                (1, "a".to_owned(), None),
                (0, "b".to_owned(), None),
                (2, "b".to_owned(), None),
            ]
        );
    }
}
