//! Where files come from: stages, images and named contexts.

use std::sync::Arc;

use super::contexts::Named;
use super::error::{Step, Trouble};
use super::stage::State;
use super::{Build, Running};
use crate::context::Context;
use crate::dockerfile::{BaseRef, Instruction, suggest};
use crate::image::ChainId;
use crate::layer::View;
use crate::store::{Stack, Store};

/// Where `--from` leads.
pub(super) enum Origin {
    /// The tree of a stage or an image, and the layers that it is made of.
    Layers {
        view: View,
        chain_id: Option<ChainId>,
    },
    /// A named context.
    Context(Arc<Context>),
}

impl Origin {
    fn nothing() -> Origin {
        Origin::Layers {
            view: View::new(Vec::new()),
            chain_id: None,
        }
    }

    fn layers(store: &Store, stack: &Stack) -> Step<Origin> {
        Ok(Origin::Layers {
            view: store.view(stack)?,
            chain_id: stack.chain_id().cloned(),
        })
    }
}

impl Build<'_> {
    /// Waits for the stages that an instruction takes files from.
    pub(super) fn wait_for_sources(&self, state: &State, instruction: &Instruction) -> Step<()> {
        for name in instruction.sources() {
            if let Some(BaseRef::Stage(index)) = state.planned.sources.get(&name) {
                self.finished(*index)?;
            }
        }
        Ok(())
    }

    /// Returns the files that `--from` names.
    pub(super) fn source_of(&self, state: &State, name: &str, step: &Running) -> Step<Origin> {
        let unknown = || Trouble::new(format!("there is no stage or image {name:?}"));
        match state.planned.sources.get(name).ok_or_else(unknown)? {
            BaseRef::Scratch => Ok(Origin::nothing()),
            BaseRef::Stage(index) => {
                let finished = self.finished(*index)?;
                Ok(Origin::Layers {
                    view: finished.view.clone(),
                    chain_id: finished.stack.chain_id().cloned(),
                })
            }
            BaseRef::Image(image) => {
                let based = self.base_image(image, &self.platform, step);
                let (_, stack, _) = based
                    .map_err(|trouble| self.suggest_stage(trouble.with_stage_hint(image), image))?;
                Origin::layers(self.shop.store, &stack)
            }
            BaseRef::Context(name) => match self.named_context(name, &self.platform, step)? {
                Named::Scratch => Ok(Origin::nothing()),
                Named::Image { stack, .. } => Origin::layers(self.shop.store, &stack),
                Named::Files(context) => Ok(Origin::Context(context)),
            },
        }
    }

    /// Asks, where an image can't be had, whether a stage was meant.
    pub(super) fn suggest_stage(&self, trouble: Trouble, name: &str) -> Trouble {
        let stages = self.file.stages.iter();
        let near = suggest::closest(name, stages.filter_map(|stage| stage.name.as_deref()));
        match (trouble, near) {
            (Trouble::Message { text, .. }, Some(near)) => {
                Trouble::hinted(text, format!("did you mean the stage {near}?"))
            }
            (trouble, _) => trouble,
        }
    }
}
