//! Cache keys: a hash of all that a step is given. What lies below it is asked for apart.

use crate::image::ChainId;

/// Part of every key. Changing it forgets all records: it changes with what a step makes of
/// the same inputs, and with the form of keys.
const VERSION: &str = "kiln-step-2";

/// Collects what a step is given. Fields are named and have their length before them, so that
/// no two inputs look the same.
pub(super) struct Key {
    whole: blake3::Hasher,
    /// The parts so far, and the one that is being added to: they tell what changed.
    parts: Vec<(String, String)>,
    part: (String, blake3::Hasher),
}

impl Key {
    /// Starts the key of a kind of step.
    pub(super) fn new(kind: &str) -> Key {
        let mut key = Key::empty();
        key.text(VERSION);
        key.text(kind);
        key
    }

    /// Starts a key that stays what it is whatever becomes of steps, for what outlives them.
    pub(super) fn lasting(kind: &str) -> Key {
        let mut key = Key::empty();
        key.text(kind);
        key
    }

    fn empty() -> Key {
        Key {
            whole: blake3::Hasher::new(),
            parts: Vec::new(),
            part: ("kiln itself".to_owned(), blake3::Hasher::new()),
        }
    }

    /// Begins a part of the key, by the name that people are told it by.
    pub(super) fn part(&mut self, name: impl Into<String>) -> &mut Key {
        let (name, hasher) =
            std::mem::replace(&mut self.part, (name.into(), blake3::Hasher::new()));
        self.parts
            .push((name, hasher.finalize().to_hex()[..16].to_owned()));
        self
    }

    fn update(&mut self, bytes: &[u8]) {
        self.whole.update(bytes);
        self.part.1.update(bytes);
    }

    /// Adds bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Key {
        self.update(&(bytes.len() as u64).to_le_bytes());
        self.update(bytes);
        self
    }

    /// Adds text.
    pub(super) fn text(&mut self, text: &str) -> &mut Key {
        self.bytes(text.as_bytes())
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Key {
        self.update(&number.to_le_bytes());
        self
    }

    /// Adds a list of texts.
    pub(super) fn list<T: AsRef<[u8]>>(&mut self, list: impl IntoIterator<Item = T>) -> &mut Key {
        let items: Vec<T> = list.into_iter().collect();
        self.number(items.len() as u64);
        for item in items {
            self.bytes(item.as_ref());
        }
        self
    }

    /// Adds the layers of another tree that the step sees.
    pub(super) fn chain(&mut self, chain_id: Option<&ChainId>) -> &mut Key {
        match chain_id {
            Some(chain_id) => self.text(&chain_id.to_string()),
            None => self.text("scratch"),
        }
    }

    /// Returns the key of a step that stands on what lies below it.
    pub(super) fn finish(&mut self) -> Inputs {
        self.part("");
        Inputs {
            hash: self.whole.finalize().to_hex().to_string(),
            linked: false,
            parts: std::mem::take(&mut self.parts),
        }
    }

    /// Returns the key of a step that does not: its layer is the same on top of anything.
    pub(super) fn finish_linked(&mut self) -> Inputs {
        Inputs {
            linked: true,
            ..self.finish()
        }
    }
}

/// The inputs of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inputs {
    /// The hash of them.
    pub(super) hash: String,
    /// Whether what lies below does not matter.
    pub(super) linked: bool,
    /// Hashes of the parts of them, by name.
    pub(super) parts: Vec<(String, String)>,
}

impl Inputs {
    /// Returns what of the layers below a record depends on.
    pub(super) fn below<'a>(&self, chain_id: Option<&'a ChainId>) -> Option<&'a ChainId> {
        chain_id.filter(|_| !self.linked)
    }
}

/// What a step is known by.
pub(super) struct Keys {
    /// What its inputs hold.
    pub(super) content: Inputs,
    /// The layers that its inputs are from, where they are in some: where that is known,
    /// nothing in them need be read.
    pub(super) layers: Option<Inputs>,
}

impl From<Inputs> for Keys {
    fn from(content: Inputs) -> Keys {
        Keys {
            content,
            layers: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = |items: &[&str]| Key::new("x").list(items).finish();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_ne!(
            Key::new("a").text("b").finish(),
            Key::new("ab").text("").finish()
        );
        assert_eq!(key(&["a"]), key(&["a"]));
    }
}
