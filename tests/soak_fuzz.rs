//! Mutated layers: nothing panics, hangs or leaves its directory. Long, so `ci/soak` runs it; the
//! seed is printed. Dockerfiles and ignore files are fuzzed by coverage, see `tests/fuzz/run`.

mod support;

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use kiln::layer::{ApplyMode, ApplyOptions, Limits, Ownership, View, apply};

use support::{Sandbox, say, soak_only};

/// How long each target is fuzzed.
const TIME: Duration = Duration::from_secs(20);

/// Marsaglia's xorshift: the same seed, the same inputs.
struct Random(u64);

impl Random {
    fn seeded(target: &str) -> Random {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = since.unwrap().as_nanos() as u64 | 1;
        say(&format!("{target}: seed {seed}"));
        Random(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// Flips, inserts, removes and repeats a few pieces.
    fn mutate(&mut self, input: &[u8], dictionary: &[&[u8]]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..1 + self.below(8) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                1 => {
                    let word = dictionary[self.below(dictionary.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
                2 => {
                    let end = (at + self.below(16)).min(bytes.len());
                    bytes.drain(at..end);
                }
                3 => {
                    let end = (at + self.below(64)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }
}

/// Runs `case` on mutations of `seeds` for a while. No case may take a second.
fn fuzz(target: &str, seeds: &[Vec<u8>], dictionary: &[&[u8]], mut case: impl FnMut(&[u8])) {
    let mut random = Random::seeded(target);
    let start = Instant::now();
    let mut count = 0u64;
    while start.elapsed() < TIME {
        let seed = random.below(seeds.len());
        let input = random.mutate(&seeds[seed], dictionary);
        let began = Instant::now();
        case(&input);
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "slow: {:?}",
            String::from_utf8_lossy(&input)
        );
        count += 1;
    }
    say(&format!("{target}: {count} inputs"));
    assert!(count > 100, "{count}");
}

#[test]
fn mutated_layers_are_extracted_or_refused_and_stay_within_their_directory() {
    soak_only!();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link) in [
        ("dir/", tar::EntryType::Directory, ""),
        ("dir/file", tar::EntryType::Regular, ""),
        ("dir/link", tar::EntryType::Symlink, "../../outside"),
        ("dir/hard", tar::EntryType::Link, "dir/file"),
        ("dir/link/x", tar::EntryType::Regular, ""),
        ("dir/.wh.gone", tar::EntryType::Regular, ""),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(0);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        builder
            .append_data(&mut header, name, std::io::empty())
            .unwrap();
    }
    let seeds = [builder.into_inner().unwrap()];
    let words: [&[u8]; 6] = [
        b"../",
        b"/",
        b"\0",
        b"30 path=../../x\n",
        b"777",
        b".wh..wh..opq",
    ];
    let sandbox = Sandbox::new();
    let view = View::new(Vec::new());
    fuzz("layer", &seeds, &words, |input| {
        let outer = sandbox.directory("outer", &[]);
        let inner = outer.join("inner");
        std::fs::create_dir(&inner).unwrap();
        let directory = File::open(&inner).unwrap();
        let options = ApplyOptions {
            ownership: Ownership::Single,
            lower: &view,
            mode: ApplyMode::Layer,
            limits: Limits {
                entries: 1000,
                bytes: 1 << 20,
            },
        };
        let _ = apply(&mut &input[..], directory.as_fd(), &options);
        let around: Vec<_> = std::fs::read_dir(&outer).unwrap().collect();
        assert_eq!(around.len(), 1, "something left the directory");
        std::fs::remove_dir_all(&outer).unwrap();
    });
}
