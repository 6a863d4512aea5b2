//! A container becomes an image.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::Result;
use crate::archive::apply_change;
use crate::image::{Algorithm, DiffId, Digest, HistoryEntry, ImageConfig, Reference};
use crate::layer::{
    ApplyMode, ApplyOptions, Diff, Digester, LayerDir, LayerMeta, Limits, UpperKind, View, apply,
    diff, write_tar,
};
use crate::store::{Container, Session, Store};

/// What the image is to be.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// Instructions for the config, as in a Dockerfile.
    pub changes: Vec<String>,
    /// The comment in the history.
    pub message: String,
    /// Who made it.
    pub author: String,
    /// Its name.
    pub name: Option<Reference>,
}

/// Makes an image of a container, and returns its id.
///
/// # Errors
/// A change can't be made; a tree can't be read; disk full, and the like.
pub fn commit(
    store: &Store,
    session: &Session,
    container: &Container,
    options: &CommitOptions,
) -> Result<Digest> {
    let (mut stack, below, _) = store.container_views(container)?;
    let mut config = config_of(store.config(&container.record.image)?, container);
    for change in &options.changes {
        apply_change(&mut config, change)?;
    }
    let upper = store.container_changes(container)?;
    let changes = diff(&upper, &below, UpperKind::Overlay)?;
    let is_empty = changes.empty;
    if !is_empty {
        let (staged, meta) = layer(store, session, &below, upper, &changes)?;
        config.rootfs.diff_ids.push(meta.diff_id.clone());
        let layer = store.publish_layer(stack.chain_id(), &staged, meta)?;
        stack.push(layer);
    }
    let created = jiff::Timestamp::now().to_string();
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    config.created = Some(created.clone());
    config.author = given(&options.author).or(config.author);
    config.history.push(HistoryEntry {
        created: Some(created),
        created_by: given(&container.record.settings.command.join(" ")),
        author: given(&options.author),
        comment: given(&options.message),
        empty_layer: is_empty,
        ..HistoryEntry::default()
    });
    let id = store.write_document(&config.to_bytes())?;
    store.sync(stack.layers())?;
    store.publish_image(&id, &stack)?;
    if let Some(name) = &options.name {
        store.tag(name, &id, None)?;
    }
    Ok(id)
}

/// Returns the image's config with what the container runs, as docker does it.
fn config_of(mut image: ImageConfig, container: &Container) -> ImageConfig {
    let settings = &container.record.settings;
    let config = &mut image.config;
    let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    config.entrypoint = list(&settings.entrypoint);
    config.cmd = list(&settings.command);
    config.env = settings.env.clone();
    config.user = settings.user.clone();
    config.labels = settings.labels.clone();
    if !(config.working_dir.is_empty() && settings.working_dir == "/") {
        config.working_dir = settings.working_dir.clone();
    }
    image
}

/// Makes a copy of what was changed, which never changes again.
fn layer(
    store: &Store,
    session: &Session,
    below: &View,
    upper: LayerDir,
    changes: &Diff,
) -> Result<(PathBuf, LayerMeta)> {
    let staged = session.directory()?;
    let fs = staged.join("fs");
    std::fs::create_dir(&fs)?;
    let directory = File::open(&fs)?;
    let upper = upper
        .with_overrides(changes.overrides.clone())
        .with_own_root(!changes.omit.root);
    let (reader, writer) = io::pipe()?;
    let options = ApplyOptions {
        ownership: store.form().ownership,
        lower: below,
        mode: ApplyMode::Layer,
        limits: Limits {
            entries: u64::MAX,
            bytes: u64::MAX,
        },
    };
    let (written, applied) = std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut writer = writer;
            write_tar(&upper, &changes.omit, &mut writer)
        });
        let applied = apply(&mut io::BufReader::new(reader), directory.as_fd(), &options);
        (writing.join(), applied)
    });
    // Where extracting failed, writing did too, for want of a reader.
    let applied = applied?;
    written.map_err(|_| io::Error::other("the layer could not be written"))??;
    let mut meta = LayerMeta {
        diff_id: DiffId(Digest::of(b"")),
        content_id: None,
        omit: applied.omit,
        overrides: applied.overrides,
        self_contained: applied.self_contained,
        size: 0,
        entries: 0,
    };
    let mut digester = Digester::new(Algorithm::Sha256);
    let tree = store.layer_dir(&fs, &meta)?;
    let stats = write_tar(&tree, &meta.omit, &mut digester)?;
    meta.diff_id = DiffId(digester.finish()?);
    meta.content_id = Some(stats.content_id);
    (meta.size, meta.entries) = (stats.size_bytes, stats.entries);
    Ok((staged, meta))
}
