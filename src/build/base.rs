//! What a stage stands on: scratch, an image of the store, or one that is pulled.

use super::error::{Step, Trouble};
use super::{Build, Pull, Running};
use crate::image::{ImageConfig, Platform};
use crate::store::{Stack, StoreError};
use crate::transfer::{self, Transfer, TransferError};

impl Build<'_> {
    /// Returns an image by name: from the store, else from its registry.
    pub(super) fn base_image(
        &self,
        name: &str,
        platform: &Platform,
        step: &Running,
    ) -> Step<(ImageConfig, Stack, bool)> {
        let store = self.shop.store;
        if self.options.pull != Pull::Always {
            let found = match store.find(name) {
                Ok(image) => Some(image),
                Err(StoreError::NoImage(_)) => None,
                Err(error) => return Err(error.into()),
            };
            // A check warns of what another pull would not change.
            if let Some(image) = found
                && (image.config.fits(platform) || image.is_for_one_platform())
                && let Some(stack) = store.stack(&image.config.rootfs.diff_ids)?
            {
                return Ok((image.config, stack, true));
            }
        }
        if self.options.pull == Pull::Never {
            return Err(Trouble::hinted(
                format!(
                    "{name} for {platform} is not in the store, and --pull=never forbids to pull it"
                ),
                format!("kiln pull {name}"),
            ));
        }
        let transfer = Transfer {
            store,
            session: self.shop.session,
            reporter: &self.shop.reporter,
            step: Some(step.id),
        };
        let pulled = transfer::pull_named(&transfer, self.client()?, name, platform);
        let (_, pulled) = pulled.map_err(|error| match &error {
            TransferError::Reference(_) => Trouble::new(error.to_string()),
            _ => error.into(),
        })?;
        Ok((pulled.config, pulled.stack, false))
    }
}
