//! Layer trees: extracted once, never changed, shared by all images.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::files::unique_name;
use super::uses::Kind;
use super::{IoContext, Result, Store};
use crate::image::{ChainId, Descriptor, DiffId};
use crate::layer::{LayerDir, LayerMeta, View};

/// A blob that holds a layer in some compression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressedBlob {
    /// Where it is.
    pub descriptor: Descriptor,
    /// `pulled`, or the compressor with its level and version.
    pub how: String,
}

/// `layer.json`: what the tree alone does not tell.
#[derive(Serialize, Deserialize)]
pub(super) struct LayerFile {
    #[serde(flatten)]
    pub(super) meta: LayerMeta,
    /// The boot in which it was written. Until the file `synced` lies beside it, the tree
    /// counts in that boot only: a power failure may have lost part of it.
    boot_id: String,
}

/// A layer tree of the store.
#[derive(Debug)]
pub struct Layer {
    /// Its directory, with `fs` and `layer.json`.
    pub(super) directory: PathBuf,
    /// What the tree alone does not tell.
    pub meta: LayerMeta,
}

impl Layer {
    /// Returns the tree's directory.
    pub fn fs(&self) -> PathBuf {
        self.directory.join("fs")
    }
}

/// A stack of layers, bottom first: a root file system.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    layers: Vec<Arc<Layer>>,
    chain_id: Option<ChainId>,
}

impl Stack {
    /// Returns the layers, bottom first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// Returns the chain id; nothing for an empty stack.
    pub fn chain_id(&self) -> Option<&ChainId> {
        self.chain_id.as_ref()
    }

    /// Returns the directories of the trees, bottom first.
    pub fn trees(&self) -> Vec<PathBuf> {
        self.layers.iter().map(|layer| layer.fs()).collect()
    }

    /// Returns the stack of the lowest `count` layers.
    pub fn bottom(&self, count: usize) -> Stack {
        let mut bottom = Stack::default();
        for layer in self.layers.iter().take(count) {
            bottom.push(layer.clone());
        }
        bottom
    }

    /// Puts a layer on top.
    pub fn push(&mut self, layer: Arc<Layer>) {
        let diff_id = &layer.meta.diff_id;
        self.chain_id = Some(ChainId::extend(self.chain_id.as_ref(), diff_id));
        self.layers.push(layer);
    }
}

/// The lock that trees are published and taken away under.
pub(super) const PUBLISHING: &str = "layers";

/// The lock that what is known of blobs is changed under.
pub(super) const COMPRESSED: &str = "compressed";

/// What the links of a layer lead to.
#[derive(Default)]
struct Found {
    whole: Option<Arc<Layer>>,
    /// Links and directories of trees that don't count.
    damaged: Vec<(PathBuf, PathBuf)>,
}

pub(crate) fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            // Without one, nothing that is not synced counts.
            .unwrap_or_else(|_| unique_name())
    })
}

impl Store {
    fn link(&self, below: Option<&ChainId>, diff_id: &DiffId, self_contained: bool) -> PathBuf {
        if self_contained {
            let directory = self.dir("diff").join(&self.form().name);
            directory.join(diff_id.0.hex())
        } else {
            let directory = self.dir("chain").join(&self.form().name);
            directory.join(ChainId::extend(below, diff_id).0.hex())
        }
    }

    /// Returns the tree of `diff_id` on top of `below`, where it is here and whole.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn layer(&self, below: Option<&ChainId>, diff_id: &DiffId) -> Result<Option<Arc<Layer>>> {
        let found = self.find_layer(below, diff_id);
        if found.damaged.is_empty() {
            return Ok(found.whole);
        }
        // Another process may be making it anew just now.
        let _publishing = self.lock(PUBLISHING)?;
        self.whole_layer(below, diff_id)
    }

    /// As [`Store::layer`]; the caller holds the lock.
    fn whole_layer(&self, below: Option<&ChainId>, diff_id: &DiffId) -> Result<Option<Arc<Layer>>> {
        let found = self.find_layer(below, diff_id);
        for (link, directory) in found.damaged {
            // Out of the way, to be made anew.
            super::files::remove_file(&link)?;
            self.trash(&directory)?;
        }
        Ok(found.whole)
    }

    fn find_layer(&self, below: Option<&ChainId>, diff_id: &DiffId) -> Found {
        let mut found = Found::default();
        for self_contained in [true, false] {
            let link = self.link(below, diff_id, self_contained);
            let Ok(target) = fs::read_link(&link) else {
                continue;
            };
            let id = target.file_name().unwrap_or_default();
            self.uses(Kind::Layer, &id.to_string_lossy());
            let directory = self.dir("layers").join(id);
            if let Ok(Some(file)) =
                super::files::read_json::<LayerFile>(&directory.join("layer.json"))
                && file.meta.diff_id == *diff_id
                && (file.boot_id == boot_id() || directory.join("synced").exists())
                && directory.join("fs").is_dir()
            {
                found.whole = Some(Arc::new(Layer {
                    directory,
                    meta: file.meta,
                }));
                break;
            }
            found.damaged.push((link, directory));
        }
        found
    }

    /// Returns the bytes of a layer's files, whatever form its tree has here; nothing where
    /// there is no tree.
    pub fn layer_size(&self, below: Option<&ChainId>, diff_id: &DiffId) -> Option<u64> {
        let chain_id = ChainId::extend(below, diff_id);
        let keys = [("diff", diff_id.0.hex()), ("chain", chain_id.0.hex())];
        keys.iter().find_map(|(kind, hex)| {
            let forms = super::files::names(&self.dir(kind)).ok()?;
            forms.iter().find_map(|form| {
                let link = self.dir(kind).join(form).join(hex);
                super::files::read_json::<LayerFile>(&link.join("layer.json"))
                    .ok()
                    .flatten()
                    .map(|file| file.meta.size)
            })
        })
    }

    /// Returns the bytes of the files of a tree in `layers/`.
    pub(super) fn layer_bytes(&self, directory: &Path) -> u64 {
        let file = super::files::read_json::<LayerFile>(&directory.join("layer.json"));
        match file {
            Ok(Some(file)) => file.meta.size,
            _ => super::inventory::tree_bytes(directory),
        }
    }

    /// Returns the bytes of each layer that has a tree; where it has several, of all of them.
    pub(super) fn layer_sizes(&self) -> Result<BTreeMap<DiffId, u64>> {
        let mut sizes = BTreeMap::new();
        for id in super::files::names(&self.dir("layers"))? {
            let path = self.dir("layers").join(id).join("layer.json");
            if let Ok(Some(file)) = super::files::read_json::<LayerFile>(&path) {
                *sizes.entry(file.meta.diff_id).or_default() += file.meta.size;
            }
        }
        Ok(sizes)
    }

    /// Returns the whole stack of `diff_ids`; nothing where a layer is missing.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn stack(&self, diff_ids: &[DiffId]) -> Result<Option<Stack>> {
        let mut stack = Stack::default();
        for diff_id in diff_ids {
            match self.layer(stack.chain_id(), diff_id)? {
                Some(layer) => stack.push(layer),
                None => return Ok(None),
            }
        }
        Ok(Some(stack))
    }

    /// Publishes a tree: `staged` is a directory of a session with the tree in `fs`. Where
    /// another process was first, its tree is returned, and this one goes with the session: a
    /// step may stand on it.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn publish_layer(
        &self,
        below: Option<&ChainId>,
        staged: &Path,
        meta: LayerMeta,
    ) -> Result<Arc<Layer>> {
        let _publishing = self.lock(PUBLISHING)?;
        if let Some(layer) = self.whole_layer(below, &meta.diff_id)? {
            return Ok(layer);
        }
        let link = self.link(below, &meta.diff_id, meta.self_contained);
        let file = LayerFile {
            meta,
            boot_id: boot_id().to_owned(),
        };
        super::files::write_json(&staged.join("layer.json"), &file)?;
        let id = unique_name();
        self.uses(Kind::Layer, &id);
        let directory = self.dir("layers").join(&id);
        fs::rename(staged, &directory).at("cannot publish", &directory)?;
        std::os::unix::fs::symlink(Path::new("../../layers").join(&id), &link)
            .at("cannot link", &link)?;
        Ok(Arc::new(Layer {
            directory,
            meta: file.meta,
        }))
    }

    /// Returns the merged view over a stack.
    ///
    /// # Errors
    /// A tree can't be opened.
    pub fn view(&self, stack: &Stack) -> Result<View> {
        let open = |layer: &Arc<Layer>| self.layer_dir(&layer.fs(), &layer.meta);
        let layers: Result<Vec<LayerDir>> = stack.layers.iter().map(open).collect();
        Ok(View::new(layers?))
    }

    /// Opens a layer tree.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn layer_dir(&self, fs: &Path, meta: &LayerMeta) -> Result<LayerDir> {
        let fd = nix::fcntl::open(
            fs,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .at("cannot open", fs)?;
        Ok(LayerDir::with_meta(fd, self.form().ownership, meta))
    }

    fn compressed_path(&self, diff_id: &DiffId) -> PathBuf {
        self.dir("compressed").join(diff_id.0.hex())
    }

    /// Returns the blobs that are known to hold a layer, whether they are here or not.
    pub fn recorded_blobs(&self, diff_id: &DiffId) -> Vec<CompressedBlob> {
        let path = self.compressed_path(diff_id);
        let blobs: Option<Vec<CompressedBlob>> = super::files::read_json(&path).ok().flatten();
        blobs.unwrap_or_default()
    }

    /// Returns the blobs that hold a layer and are here.
    pub fn compressed(&self, diff_id: &DiffId) -> Vec<CompressedBlob> {
        let mut blobs = self.recorded_blobs(diff_id);
        blobs.retain(|blob| {
            let digest = &blob.descriptor.digest;
            self.uses(Kind::Blob, digest.hex());
            let path = self.blob_path(digest);
            fs::metadata(path).is_ok_and(|m| m.len() == blob.descriptor.size)
        });
        blobs
    }

    /// Records that a blob holds a layer.
    ///
    /// # Errors
    /// Disk full, and the like.
    pub fn add_compressed(&self, diff_id: &DiffId, blob: CompressedBlob) -> Result<()> {
        let _lock = self.lock(COMPRESSED)?;
        let mut blobs = self.recorded_blobs(diff_id);
        blobs
            .retain(|b| b.how != blob.how || b.descriptor.media_type != blob.descriptor.media_type);
        blobs.push(blob);
        super::files::write_json(&self.compressed_path(diff_id), &blobs)
    }
}
