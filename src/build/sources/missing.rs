//! What people are told of a source that is not there.

use std::collections::VecDeque;

use super::{Tree, join};
use crate::build::error::Trouble;
use crate::dockerfile::suggest;

/// How many names are compared with one that is missing: a hint may not take long.
const LOOKED_AT: usize = 5000;

impl Tree<'_> {
    /// Says why a path is not there.
    pub(super) fn explain_missing(&self, text: &str, path: &[u8]) -> Trouble {
        if let (Some(ignore), Ok(Some(node))) = (self.ignore, self.find(path)) {
            // By its own name, or by that of what a link leads to.
            let paths = [path, &node.path];
            let rule = paths.into_iter().find_map(|path| {
                let decision = ignore.decide(path);
                Some((path, decision.rule.filter(|_| decision.excluded)?))
            });
            if let Some((path, rule)) = rule {
                return Trouble::hinted(
                    format!("{text:?} is excluded by {}", ignore.name),
                    format!(
                        "{}:{} says {:?}; add a line \"!{}\" behind it to have the file",
                        ignore.name,
                        rule.line,
                        rule.text,
                        String::from_utf8_lossy(path)
                    ),
                );
            }
        }
        if let Ok(Some(node)) = self.find(path)
            && node.path != path
        {
            let real = String::from_utf8_lossy(&node.path);
            return Trouble::hinted(
                format!(
                    "{text:?} is reached through a symbolic link, which --parents does not follow"
                ),
                format!("name where it leads: {real:?}"),
            );
        }
        let message = format!(
            "{text:?} is not in {}: no such file or directory",
            self.place
        );
        if self.is_link(path) {
            let hint = format!("it is a symbolic link to what is not in {}", self.place);
            return Trouble::hinted(message, hint);
        }
        match self.nearest(path) {
            Some(near) => {
                let near = String::from_utf8_lossy(&near);
                Trouble::hinted(message, format!("did you mean {near:?}?"))
            }
            None => match self.elsewhere(path) {
                Some(found) => {
                    let found = String::from_utf8_lossy(&found);
                    Trouble::hinted(
                        message,
                        format!(
                            "there is {found:?}: paths start at the top of {}",
                            self.place
                        ),
                    )
                }
                None => Trouble::new(message),
            },
        }
    }

    /// Returns where the name of a missing path is instead, nearest to the top.
    fn elsewhere(&self, path: &[u8]) -> Option<Vec<u8>> {
        let wanted = path.rsplit(|b| *b == b'/').next()?;
        let mut directories = VecDeque::from([Vec::new()]);
        let mut looked_at = 0;
        while let Some(directory) = directories.pop_front() {
            for entry in self.view.read_dir(&directory).unwrap_or_default() {
                looked_at += 1;
                if looked_at > LOOKED_AT {
                    return None;
                }
                let path = join(&directory, &entry.name);
                if self.excluded(&path) {
                    continue;
                }
                if entry.name == wanted {
                    return Some(path);
                }
                if entry.node.stat.is_dir() {
                    directories.push_back(path);
                }
            }
        }
        None
    }

    /// Returns the existing path that differs from a missing one in one component by little.
    fn nearest(&self, path: &[u8]) -> Option<Vec<u8>> {
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        let exists = |path: &[u8]| self.find(path).is_ok_and(|node| node.is_some());
        let missing = (1..=parts.len()).find(|&end| !exists(&parts[..end].join(&b'/')))?;
        let (above, wanted) = (parts[..missing - 1].join(&b'/'), parts[missing - 1]);
        let names: Vec<String> = self
            .view
            .read_dir(&above)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|entry| String::from_utf8(entry.name).ok())
            .filter(|name| !self.excluded(&join(&above, name.as_bytes())))
            .collect();
        let wanted = String::from_utf8_lossy(wanted);
        let near = suggest::closest(&wanted, names.iter().map(String::as_str))?;
        let near = parts[missing..]
            .iter()
            .fold(join(&above, near.as_bytes()), |path, part| {
                join(&path, part)
            });
        exists(&near).then_some(near)
    }
}
