//! Sets of capabilities as bit masks, and the set that a step gets by default.
//!
//! Names are those of capabilities(7), as the OCI runtime spec writes them (`CAP_CHOWN`).
//! Nothing here changes a process: the child of the sandbox applies a mask that is ready.

use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::sync::LazyLock;

use caps::Capability;
use serde::Deserialize;

/// A capability that the kernel does not know under that name.
#[derive(Debug, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(String);

impl UnknownCapability {
    /// Returns the remedy to show below the message.
    pub fn hint(&self) -> Option<String> {
        let canonical = caps::to_canonical(&self.0);
        Some(match canonical.parse::<Capability>() {
            Ok(_) => format!("write it as {canonical}"),
            Err(_) => "names are those of capabilities(7), such as CAP_NET_ADMIN".to_owned(),
        })
    }
}

/// A set of capabilities: bit `n` stands for the capability with number `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// The set without any capability.
    pub const EMPTY: CapabilitySet = CapabilitySet(0);

    /// Returns the set that a step has by default: the same 14 as under Docker.
    pub fn default_set() -> CapabilitySet {
        static DEFAULT: LazyLock<CapabilitySet> = LazyLock::new(|| {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct File {
                default: Vec<String>,
            }
            let file: File = serde_json::from_str(include_str!("../resources/capabilities.json"))
                .expect("a test holds that the embedded file parses");
            CapabilitySet::from_names(&file.default)
                .expect("a test holds that the embedded names are known")
        });
        *DEFAULT
    }

    /// Returns the set of the named capabilities.
    pub fn from_names<S: AsRef<str>>(
        names: impl IntoIterator<Item = S>,
    ) -> Result<CapabilitySet, UnknownCapability> {
        names
            .into_iter()
            .try_fold(Self::EMPTY, |set, name| Ok(set.with(parse(name.as_ref())?)))
    }

    /// Returns the set with these bits, as in the `Cap…` lines of /proc/PID/status.
    pub const fn from_bits(bits: u64) -> CapabilitySet {
        CapabilitySet(bits)
    }

    /// Returns the bits of the set.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the low and the high word, as version 3 of capset(2) takes them.
    pub const fn words(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
    }

    /// Returns the set with `capability` added.
    pub fn with(self, capability: Capability) -> CapabilitySet {
        CapabilitySet(self.0 | capability.bitmask())
    }

    /// Returns what is in this set but not in `other`.
    pub const fn without(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 & !other.0)
    }

    /// Tells whether `capability` is in the set.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & capability.bitmask() != 0
    }

    /// Tells whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the numbers of the capabilities up to `last` (/proc/sys/kernel/cap_last_cap)
    /// that are not in the set: those to drop from the bounding set.
    pub fn missing_up_to(self, last: u8) -> impl Iterator<Item = u8> {
        (0..=last.min(63)).filter(move |n| self.0 & (1 << n) == 0)
    }
}

/// Parses the name of one capability, in capitals and with its prefix.
pub(crate) fn parse(name: &str) -> Result<Capability, UnknownCapability> {
    name.parse().map_err(|_| UnknownCapability(name.to_owned()))
}

impl BitOr for CapabilitySet {
    type Output = CapabilitySet;

    fn bitor(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 | other.0)
    }
}

impl BitAnd for CapabilitySet {
    type Output = CapabilitySet;

    fn bitand(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 & other.0)
    }
}

/// Writes the mask as /proc/PID/status does: 16 hexadecimal digits.
impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_set_is_that_of_docker() {
        // What `docker run debian grep CapBnd /proc/self/status` prints.
        assert_eq!(CapabilitySet::default_set().to_string(), "00000000a80425fb");
        assert!(!CapabilitySet::default_set().contains(Capability::CAP_SYS_ADMIN));
    }

    #[test]
    fn words_split_at_bit_32() {
        let set = CapabilitySet::from_names(["CAP_CHOWN", "CAP_BPF"]).unwrap();
        assert_eq!(set.words(), [1, 1 << (39 - 32)]);
        assert_eq!(CapabilitySet::from_bits(set.bits()), set);
    }

    #[test]
    fn set_arithmetic_adds_removes_and_intersects() {
        let default = CapabilitySet::default_set();
        let admin = CapabilitySet::EMPTY.with(Capability::CAP_SYS_ADMIN);
        assert_eq!((default | admin).without(admin), default);
        assert_eq!((default | admin) & admin, admin);
        assert!((default & admin).is_empty());
    }

    #[test]
    fn missing_ones_are_the_complement_up_to_the_kernels_last() {
        let missing: Vec<u8> = CapabilitySet::default_set().missing_up_to(40).collect();
        assert_eq!(missing.len(), 41 - 14);
        assert!(missing.contains(&21) && !missing.contains(&0));
        assert_eq!(CapabilitySet::EMPTY.missing_up_to(255).count(), 64);
    }

    #[test]
    fn unknown_name_is_an_error_that_says_how_to_write_it() {
        let error = CapabilitySet::from_names(["sys_admin"]).unwrap_err();
        assert_eq!(error.to_string(), "unknown capability \"sys_admin\"");
        assert_eq!(error.hint().unwrap(), "write it as CAP_SYS_ADMIN");
        let error = CapabilitySet::from_names(["CAP_FLY"]).unwrap_err();
        assert!(error.hint().unwrap().contains("capabilities(7)"));
    }
}
