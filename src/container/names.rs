//! Names for containers that get none: an adjective and something of a pottery.

const ADJECTIVES: [&str; 64] = [
    "agile", "amber", "ample", "azure", "balmy", "bold", "brave", "breezy", "bright", "brisk",
    "calm", "candid", "cheery", "clever", "cosy", "crisp", "daring", "deft", "eager", "early",
    "earnest", "fair", "fancy", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden",
    "grand", "happy", "hardy", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid",
    "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "proud",
    "quick", "quiet", "rapid", "serene", "silver", "snug", "sober", "spry", "steady", "sunny",
    "tidy", "vivid", "warm", "witty",
];

const NOUNS: [&str; 64] = [
    "amphora",
    "anvil",
    "apron",
    "ash",
    "basin",
    "batten",
    "beaker",
    "bellows",
    "biscuit",
    "bottle",
    "bowl",
    "brick",
    "brush",
    "burner",
    "celadon",
    "chamber",
    "chimney",
    "clay",
    "cobalt",
    "cone",
    "crock",
    "crucible",
    "cup",
    "damper",
    "dish",
    "ember",
    "ewer",
    "firebox",
    "flagon",
    "flask",
    "flint",
    "flue",
    "furnace",
    "glaze",
    "goblet",
    "grog",
    "handle",
    "hearth",
    "jar",
    "jug",
    "kaolin",
    "lid",
    "lustre",
    "mortar",
    "mosaic",
    "mug",
    "pestle",
    "pitcher",
    "plate",
    "platter",
    "porcelain",
    "pot",
    "saggar",
    "saucer",
    "shard",
    "slip",
    "spout",
    "stoneware",
    "teapot",
    "tile",
    "trivet",
    "urn",
    "vase",
    "wheel",
];

/// Returns names in the order of chance, the later ones with a number.
pub(super) fn random() -> impl Iterator<Item = String> {
    let mut random = RandomBits::default();
    (0..200u32).map(move |attempt| {
        let adjective = ADJECTIVES[random.next() as usize % ADJECTIVES.len()];
        let noun = NOUNS[random.next() as usize % NOUNS.len()];
        match attempt {
            0..20 => format!("{adjective}_{noun}"),
            _ => format!("{adjective}_{noun}{}", random.next() % 100),
        }
    })
}

/// Numbers that nobody needs to be unable to guess: they come of the standard library's keys.
#[derive(Default)]
struct RandomBits {
    state: std::hash::RandomState,
    count: u64,
}

impl RandomBits {
    fn next(&mut self) -> u64 {
        use std::hash::BuildHasher as _;
        self.count += 1;
        self.state.hash_one(self.count)
    }
}

/// Tells whether a name can be given: as docker has it.
pub(super) fn is_valid(name: &str) -> bool {
    let name = name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    name.len() > 1
        && plain(&name[0])
        && name
            .iter()
            .all(|b| plain(b) || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_valid_and_differ() {
        let names: std::collections::BTreeSet<String> = random().collect();
        assert!(names.iter().all(|name| is_valid(name)));
        assert!(names.len() > 150, "{names:?}");
    }

    #[test]
    fn names_are_what_docker_takes() {
        for name in ["ab", "a_b.c-9", "0x"] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "a", "_ab", "a b", "ä1", "a/b"] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
