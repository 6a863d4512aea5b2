//! WORKDIR: a directory that exists from then on.

use super::error::{Step, Trouble};
use super::pipeline::Made;
use super::recall::Recalled;
use super::stage::{Outcome, State};
use super::{Build, Running};
use crate::dockerfile::{Word, join_path};
use crate::layer::UpperKind;
use crate::sandbox;

impl Build<'_> {
    pub(super) fn workdir_step(
        &self,
        state: &mut State,
        word: &Word,
        step: &Running,
    ) -> Step<Outcome> {
        let path = state.scope.expand(word)?;
        // One that expands to nothing is the directory as it is.
        let path = join_path(&state.config.config.working_dir, &path);
        let created_by = format!("WORKDIR {path}");
        state.config.config.working_dir = path.clone();
        let found = state.view.resolve(path.as_bytes(), true)?;
        match &found.node {
            Some(node) if node.stat.is_dir() => {
                return Ok(Outcome::nothing(created_by));
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
        let keys = self
            .key("workdir")
            .part("the directory")
            .text(&path)
            .part("the user")
            .number(uid.into())
            .number(gid.into())
            .finish()
            .into();
        let turn = match self.recall(state, &keys, &created_by, None, step)? {
            Recalled::Hit(outcome) => return Ok(outcome),
            Recalled::Miss(turn) => turn,
        };
        let (staged, overrides) = self.write_tree(&state.view, |writer| {
            writer.ensure_dir(path.as_bytes(), 0o755, uid, gid)?;
            Ok(())
        })?;
        let made = Made {
            staged,
            kind: UpperKind::Overlay,
            overrides,
            stream: None,
            keys,
            is_sound: true,
            lock: turn.lock,
        };
        Ok(Outcome::made(created_by, made))
    }
}
