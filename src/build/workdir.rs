//! WORKDIR: a directory that exists from then on.

use super::Build;
use super::error::{Step, Trouble};
use super::stage::{Outcome, State};
use crate::dockerfile::{Word, join_path};
use crate::sandbox;

impl Build<'_> {
    pub(super) fn workdir_step(&self, state: &mut State, word: &Word) -> Step<Outcome> {
        let path = state.scope.expand(word)?;
        // One that expands to nothing is the directory as it is.
        let path = join_path(&state.config.config.working_dir, &path);
        let created_by = format!("WORKDIR {path}");
        state.config.config.working_dir = path.clone();
        let found = state.view.resolve(path.as_bytes(), true)?;
        match &found.node {
            Some(node) if node.stat.is_dir() => {
                let (created, cached) = self.recall_metadata(state, &created_by)?;
                return Ok(Outcome {
                    created_by,
                    layer: None,
                    cached,
                    created: Some(created),
                });
            }
            Some(_) => {
                return Err(Trouble::new(format!(
                    "WORKDIR {path}: there is something in the image that is no directory"
                )));
            }
            None => {}
        }
        let identity = sandbox::lookup_user(&state.view, &state.config.config.user)?;
        let (uid, gid) = (identity.user.uid, identity.user.gid);
        let mut key = self.key("workdir");
        key.chain(state.stack.chain_id())
            .text(&path)
            .number(uid.into())
            .number(gid.into());
        let key = key.finish();
        if let Some(outcome) = self.recall(state, &key, &created_by)? {
            return Ok(outcome);
        }
        let layer = self.write_layer(state, &state.view, |writer| {
            writer.ensure_dir(path.as_bytes(), 0o755, uid, gid)?;
            Ok(())
        })?;
        self.record(&key, &layer)?;
        Ok(Outcome::made(created_by, layer))
    }
}
