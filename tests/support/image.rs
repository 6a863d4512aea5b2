//! Reads an image: an independent witness, which shares no code with kiln.
//!
//! An OCI layout (a directory or an archive) is read blob by blob, each verified; its layers are
//! applied to a map of paths in memory, so that owners, devices and xattrs of any kind can be
//! compared without the right to make them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::layer_tar::sha256;
use super::tree::Tree;

/// An image as its files say it.
pub struct Image {
    /// The image config.
    pub config: Value,
    /// The manifest.
    pub manifest: Value,
    /// The digest of the config, which is the image id.
    pub id: String,
    /// The names in each layer's tar, in order, as they are written there.
    pub layers: Vec<Vec<String>>,
    /// The root file system.
    pub tree: Tree,
}

impl Image {
    /// Returns the content of a file as text.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        String::from_utf8_lossy(self.tree.file(path).content()).into_owned()
    }

    /// Returns the paths below a directory, sorted.
    pub fn below(&self, directory: &str) -> Vec<String> {
        let prefix = format!("{directory}/");
        let paths = self.tree.paths();
        let below = paths.filter_map(|path| path.strip_prefix(&prefix).map(str::to_owned));
        let mut below: Vec<_> = below.collect();
        below.sort();
        below
    }

    /// Returns the names in the topmost layer, without slashes at their ends.
    pub fn top(&self) -> Vec<&str> {
        let names = self.layers.last().unwrap().iter();
        names.map(|name| name.trim_end_matches('/')).collect()
    }

    /// Reads the only image of an OCI layout: a directory, or a tar of one; or of a directory as
    /// skopeo's `dir:` writes it.
    pub fn open(path: &Path) -> Self {
        let blobs = Blobs::open(path);
        let manifest = if let Blobs::Flat(_) = blobs {
            blobs.json("manifest.json")
        } else {
            let index = blobs.json("index.json");
            let mut manifest = blobs.verified_json(only_manifest(&index));
            if manifest.get("manifests").is_some() {
                manifest = blobs.verified_json(only_manifest(&manifest));
            }
            manifest
        };
        let config = blobs.verified_json(&manifest["config"]);
        let id = manifest["config"]["digest"].as_str().unwrap().to_owned();

        let mut tree = Tree::default();
        let mut layers = Vec::new();
        let descriptors = manifest["layers"].as_array().unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!(
            descriptors.len(),
            diff_ids.len(),
            "layers of the manifest and of the config"
        );
        for (descriptor, diff_id) in descriptors.iter().zip(diff_ids) {
            let media_type = descriptor["mediaType"].as_str().unwrap();
            let tar = decompress(media_type, blobs.verified(descriptor));
            assert_eq!(
                diff_id.as_str().unwrap(),
                format!("sha256:{}", sha256(&tar)),
                "DiffId"
            );
            layers.push(tree.apply(tar.as_slice()));
        }
        Self {
            config,
            manifest,
            id,
            layers,
            tree,
        }
    }

    /// Returns the part of the config that containers see, such as `Env`.
    pub fn setting(&self, name: &str) -> &Value {
        &self.config["config"][name]
    }
}

fn only_manifest(index: &Value) -> &Value {
    match index["manifests"].as_array().unwrap().as_slice() {
        [one] => one,
        several => panic!("one manifest was expected: {several:#?}"),
    }
}

fn decompress(media_type: &str, blob: Vec<u8>) -> Vec<u8> {
    let mut tar = Vec::new();
    if media_type.ends_with("+gzip") || media_type.ends_with(".gzip") {
        flate2::read::MultiGzDecoder::new(blob.as_slice())
            .read_to_end(&mut tar)
            .unwrap();
    } else if media_type.ends_with("+zstd") {
        zstd::stream::copy_decode(blob.as_slice(), &mut tar).unwrap();
    } else {
        assert!(
            media_type.ends_with("tar"),
            "unknown layer type {media_type}"
        );
        tar = blob;
    }
    tar
}

/// The files of an OCI layout, or of its like.
enum Blobs {
    Directory(PathBuf),
    /// All in one directory, named by their digests.
    Flat(PathBuf),
    Archive(BTreeMap<String, Vec<u8>>),
}

impl Blobs {
    fn open(path: &Path) -> Self {
        if path.is_dir() {
            return if path.join("index.json").exists() {
                Self::Directory(path.to_owned())
            } else {
                Self::Flat(path.to_owned())
            };
        }
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(File::open(path).unwrap())
            .entries()
            .unwrap()
        {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name.trim_start_matches("./").to_owned(), content);
        }
        Self::Archive(files)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        match self {
            Self::Directory(path) | Self::Flat(path) => {
                fs::read(path.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
            }
            Self::Archive(files) => files
                .get(name)
                .unwrap_or_else(|| panic!("no {name} in the archive"))
                .clone(),
        }
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    fn verified(&self, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blob = match self {
            Self::Flat(_) => self.read(hex),
            _ => self.read(&format!("blobs/sha256/{hex}")),
        };
        assert_eq!(sha256(&blob), hex, "digest of a blob");
        assert_eq!(
            Some(blob.len() as u64),
            descriptor["size"].as_u64(),
            "size of {digest}"
        );
        blob
    }

    fn verified_json(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&self.verified(descriptor)).unwrap()
    }
}
