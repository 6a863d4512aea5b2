//! What a container is made with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image::Digest;

/// A container's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name, which no other container has.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Its image.
    pub image: Digest,
    /// The image as it was named.
    pub image_name: String,
    /// The form of its files: they are never read under another.
    pub form: String,
    /// What it runs, and with what.
    pub settings: ContainerSettings,
}

impl ContainerRecord {
    /// Returns the id cut to the twelve digits that people are shown.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// What a container runs, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSettings {
    /// The fixed head of the command line.
    pub entrypoint: Vec<String>,
    /// The rest of it.
    pub command: Vec<String>,
    /// Variables; HOME, HOSTNAME and TERM are added at the start where they are missing.
    pub env: Vec<String>,
    /// Where the command starts.
    pub working_dir: String,
    /// Who runs it, as it was given.
    pub user: String,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
    /// The host name.
    pub hostname: String,
    /// Whether it has no network but a loopback.
    pub no_network: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether it has standard input.
    pub open_stdin: bool,
    /// Whether it goes when it has ended.
    pub remove: bool,
    /// Whether its root can't be written.
    pub read_only: bool,
    /// Labels, by key: the image's and its own.
    pub labels: BTreeMap<String, String>,
    /// What is mounted.
    pub mounts: Vec<ContainerMount>,
    /// Names for /etc/hosts.
    pub hosts: Vec<(String, std::net::IpAddr)>,
    /// Name servers, in place of the host's.
    pub dns: Vec<std::net::IpAddr>,
    /// Search domains, in place of the host's.
    pub dns_search: Vec<String>,
    /// Options of the resolver, in place of the host's.
    pub dns_options: Vec<String>,
    /// The size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// Resource limits: resource, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Capabilities that it does not have.
    pub cap_drop: Vec<String>,
    /// The signal that asks it to end.
    pub stop_signal: String,
    /// How many seconds it has then, before it is killed.
    pub stop_timeout: Option<u64>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMount {
    /// What.
    pub source: MountSource,
    /// Where, absolute.
    pub target: String,
    /// Whether it can't be written.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// A file or directory of the user's.
    Bind(PathBuf),
    /// Memory.
    Tmpfs {
        /// How many bytes.
        size: Option<u64>,
        /// Permission bits.
        mode: u32,
        /// Whether programs in it can be executed.
        exec: bool,
    },
}
