//! An image out of a tar of a root file system, as `docker import` makes it.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use super::{IoContext, Result, metadata};
use crate::image::{Algorithm, DiffId, Digest, HistoryEntry, ImageConfig, Platform, Reference};
use crate::layer::{
    ApplyMode, ApplyOptions, Digester, LayerError, LayerMeta, Limits, View, apply, decode_beside,
    write_tar,
};
use crate::store::Stack;
use crate::transfer::Transfer;

/// What an imported image is like.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Instructions for the config, as in a Dockerfile.
    pub changes: Vec<String>,
    /// The comment in the history.
    pub message: String,
    /// The image's platform.
    pub platform: Platform,
    /// When it is made, RFC 3339.
    pub created: String,
    /// Its name.
    pub name: Option<Reference>,
}

/// Makes an image of one layer out of a tar of a root file system, compressed or not, and
/// returns its id.
///
/// # Errors
/// See [`super::ArchiveError`]. Nothing is published then.
pub fn import(
    transfer: &Transfer<'_>,
    reader: impl Read + Send,
    options: &ImportOptions,
) -> Result<Digest> {
    let mut config = ImageConfig::scratch(&options.platform);
    for change in &options.changes {
        metadata::apply_change(&mut config, change)?;
    }
    let mut stack = Stack::default();
    let (staged, meta) = layer(transfer, reader)?;
    config.rootfs.diff_ids = vec![meta.diff_id.clone()];
    let store = transfer.store;
    stack.push(store.publish_layer(None, &staged, meta)?);
    config.created = Some(options.created.clone());
    config.history = vec![HistoryEntry {
        created: Some(options.created.clone()),
        comment: Some(options.message.clone()),
        ..HistoryEntry::default()
    }];
    let id = store.write_document(&config.to_bytes())?;
    store.sync(stack.layers())?;
    store.publish_image(&id, &stack)?;
    if let Some(name) = &options.name {
        store.tag(name, &id, None)?;
    }
    Ok(id)
}

/// Extracts a tar, and makes of it what the layer is from now on.
fn layer(
    transfer: &Transfer<'_>,
    reader: impl Read + Send,
) -> Result<(std::path::PathBuf, LayerMeta)> {
    let staged = transfer.session.directory()?;
    let fs = staged.join("fs");
    std::fs::create_dir(&fs).at("cannot create", &fs)?;
    let directory = File::open(&fs).at("cannot open", &fs)?;
    let options = ApplyOptions {
        ownership: transfer.store.form().ownership,
        lower: &View::new(Vec::new()),
        mode: ApplyMode::Archive {
            dest: Vec::new(),
            owner: None,
        },
        limits: Limits::default(),
    };
    let extract = |content: &mut dyn Read| apply(content, directory.as_fd(), &options);
    let applied = decode_beside(reader, extract).map_err(LayerError::Read)??;
    let mut meta = LayerMeta {
        diff_id: DiffId(Digest::of(b"")),
        content_id: None,
        omit: applied.omit,
        overrides: applied.overrides,
        self_contained: true,
        size: 0,
        entries: 0,
    };
    let mut digester = Digester::new(Algorithm::Sha256);
    let tree = transfer.store.layer_dir(&fs, &meta)?;
    let stats = write_tar(&tree, &meta.omit, &mut digester)?;
    meta.diff_id = DiffId(digester.finish().map_err(LayerError::Read)?);
    meta.content_id = Some(stats.content_id);
    (meta.size, meta.entries) = (stats.size_bytes, stats.entries);
    Ok((staged, meta))
}
