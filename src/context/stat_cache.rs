//! What is known of the contents of files that have not changed since they were read last, as
//! git's index knows it: by what stat(2) says of them.
//!
//! A file that is written to after it was read, within the clock's grain, looks unchanged. So
//! what was changed shortly before it was read is not remembered ("racy git",
//! <https://git-scm.com/docs/racy-git>).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::layer::{Stat, Timestamp};

/// The first bytes of a file. The format is part of the store: another one is another word.
const MAGIC: &[u8; 16] = b"kiln stat cache1";
/// The length of a record: device, inode, size, mtime, ctime, hash.
const RECORD: usize = 8 * 3 + 12 * 2 + 32;
const CHECKSUM: usize = 32;
/// How much older than the reading a change has to be, in seconds: file systems with the
/// coarsest times count in steps of two.
const GRAIN: i64 = 2;

/// The hash of a file's content.
pub type ContentHash = [u8; 32];

/// What tells one state of a file from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

impl Identity {
    /// Returns the identity of a file as stat(2) shows it.
    pub fn of(stat: &Stat) -> Identity {
        Identity {
            dev: stat.dev,
            ino: stat.ino,
            size: stat.size,
            mtime: stat.mtime,
            ctime: stat.ctime,
        }
    }

    /// Tells whether a change after `now` would show.
    fn is_settled(&self, now: Timestamp) -> bool {
        let limit = now.seconds - GRAIN;
        self.mtime.seconds < limit && self.ctime.seconds < limit
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.dev, self.ino, self.size] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for time in [self.mtime, self.ctime] {
            out.extend_from_slice(&time.seconds.to_be_bytes());
            out.extend_from_slice(&time.nanoseconds.to_be_bytes());
        }
    }
}

/// What earlier builds knew, and what this one has found out.
#[derive(Debug, Default)]
pub struct StatCache {
    /// Records, sorted.
    known: Vec<u8>,
    learned: Mutex<HashMap<Identity, ContentHash>>,
}

impl StatCache {
    /// Reads a cache. A damaged one is none.
    pub fn decode(mut bytes: Vec<u8>) -> Option<StatCache> {
        let records = bytes.strip_prefix(MAGIC)?.get(CHECKSUM..)?;
        let checksum = &bytes[MAGIC.len()..][..CHECKSUM];
        if records.len() % RECORD != 0 || blake3::hash(records).as_bytes() != checksum {
            return None;
        }
        bytes.drain(..MAGIC.len() + CHECKSUM);
        Some(StatCache {
            known: bytes,
            learned: Mutex::default(),
        })
    }

    /// Returns the hash of a file in a state that was seen before.
    pub fn get(&self, identity: &Identity) -> Option<ContentHash> {
        let mut wanted = Vec::with_capacity(RECORD);
        identity.encode(&mut wanted);
        let (mut low, mut high) = (0, self.known.len() / RECORD);
        while low < high {
            let middle = low.midpoint(high);
            let record = &self.known[middle * RECORD..][..RECORD];
            let (key, hash) = record.split_at(RECORD - 32);
            match key.cmp(&wanted[..]) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return hash.try_into().ok(),
            }
        }
        self.learned().get(identity).copied()
    }

    fn learned(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, ContentHash>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the hashes of files that were read at `now` or later. Returns whether any of
    /// them is worth remembering.
    pub fn learn(
        &self,
        found: impl IntoIterator<Item = (Identity, ContentHash)>,
        now: Timestamp,
    ) -> bool {
        let mut learned = self.learned();
        let before = learned.len();
        learned.extend(found.into_iter().filter(|(id, _)| id.is_settled(now)));
        learned.len() > before
    }

    /// Returns the cache as bytes. Of a file that was seen in several states the last one
    /// counts.
    pub fn encode(&self) -> Vec<u8> {
        let learned = self.learned();
        let mut records: Vec<[u8; RECORD]> = Vec::new();
        let mut inodes = std::collections::HashSet::new();
        for (identity, hash) in learned.iter() {
            let mut record = Vec::with_capacity(RECORD);
            identity.encode(&mut record);
            record.extend_from_slice(hash);
            records.extend(<[u8; RECORD]>::try_from(record));
            inodes.insert((identity.dev, identity.ino));
        }
        for record in self.known.chunks_exact(RECORD) {
            let number = |at: usize| {
                let bytes = record[at..at + 8].try_into().unwrap_or_default();
                u64::from_be_bytes(bytes)
            };
            if !inodes.contains(&(number(0), number(8))) {
                records.extend(<[u8; RECORD]>::try_from(record));
            }
        }
        records.sort_unstable();
        let records = records.concat();
        let checksum = blake3::hash(&records);
        [MAGIC, checksum.as_bytes().as_slice(), &records].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn identity(ino: u64) -> Identity {
        Identity {
            dev: 1,
            ino,
            size: 5,
            mtime: Timestamp::from_seconds(NOW - 100),
            ctime: Timestamp::from_seconds(NOW - 90),
        }
    }

    fn learn(cache: &StatCache, found: &[(Identity, ContentHash)]) -> bool {
        cache.learn(found.iter().copied(), Timestamp::from_seconds(NOW))
    }

    fn reopened(cache: &StatCache) -> StatCache {
        StatCache::decode(cache.encode()).unwrap()
    }

    #[test]
    fn what_was_learned_is_known_in_the_next_build() {
        let cache = StatCache::default();
        let found: Vec<_> = (0..1000u64)
            .map(|ino| (identity(ino * 7919 % 1000), [(ino % 251) as u8; 32]))
            .collect();
        assert!(learn(&cache, &found));
        assert!(!learn(&cache, &found));
        let cache = reopened(&cache);
        for (identity, hash) in found {
            assert_eq!(cache.get(&identity), Some(hash));
        }
        assert_eq!(cache.get(&identity(1000)), None);
    }

    #[test]
    fn a_change_of_anything_is_another_file() {
        let cache = StatCache::default();
        learn(&cache, &[(identity(1), [7; 32])]);
        let cache = reopened(&cache);
        let changed = |change: fn(&mut Identity)| {
            let mut identity = identity(1);
            change(&mut identity);
            cache.get(&identity)
        };
        assert_eq!(changed(|_| {}), Some([7; 32]));
        assert_eq!(changed(|id| id.dev = 2), None);
        assert_eq!(changed(|id| id.ino = 2), None);
        assert_eq!(changed(|id| id.size = 6), None);
        assert_eq!(changed(|id| id.mtime.nanoseconds += 1), None);
        assert_eq!(changed(|id| id.ctime.nanoseconds += 1), None);
        assert_eq!(changed(|id| id.ctime.seconds += 1), None);
    }

    #[test]
    fn what_changed_just_before_it_was_read_is_not_remembered() {
        for change in [
            |id: &mut Identity| id.mtime.seconds = NOW,
            |id: &mut Identity| id.ctime.seconds = NOW - 1,
            |id: &mut Identity| id.ctime.seconds = NOW - GRAIN,
            |id: &mut Identity| id.mtime.seconds = NOW + 1000,
        ] {
            let cache = StatCache::default();
            let mut racy = identity(1);
            change(&mut racy);
            assert!(!learn(&cache, &[(racy, [7; 32])]));
            assert_eq!(reopened(&cache).get(&racy), None);
        }
        let cache = StatCache::default();
        let mut settled = identity(1);
        settled.ctime.seconds = NOW - GRAIN - 1;
        assert!(learn(&cache, &[(settled, [7; 32])]));
    }

    #[test]
    fn the_last_state_of_a_file_replaces_the_one_before_and_others_stay() {
        let cache = StatCache::default();
        learn(&cache, &[(identity(1), [1; 32]), (identity(2), [2; 32])]);
        let cache = reopened(&cache);
        let mut later = identity(1);
        later.ctime.seconds += 10;
        learn(&cache, &[(later, [3; 32])]);
        let cache = reopened(&cache);
        assert_eq!(cache.get(&identity(1)), None);
        assert_eq!(cache.get(&later), Some([3; 32]));
        assert_eq!(cache.get(&identity(2)), Some([2; 32]));
    }

    #[test]
    fn a_damaged_cache_is_none() {
        let cache = StatCache::default();
        learn(&cache, &[(identity(1), [1; 32]), (identity(2), [2; 32])]);
        let bytes = cache.encode();
        assert!(StatCache::decode(bytes.clone()).is_some());
        for at in [0, 20, MAGIC.len() + CHECKSUM + 3, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(StatCache::decode(damaged).is_none(), "{at}");
        }
        for length in [0, 10, MAGIC.len() + CHECKSUM + 1, bytes.len() - 1] {
            assert!(StatCache::decode(bytes[..length].to_vec()).is_none());
        }
    }
}
