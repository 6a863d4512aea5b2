//! Cache keys: a hash of all that a step is given. What lies below it is asked for apart.

use crate::image::ChainId;

/// Part of every key. Changing it forgets all records: it changes with what a step makes of
/// the same inputs, and with the form of keys.
const VERSION: &str = "kiln-step-2";

/// Collects what a step is given. Fields are named and have their length before them, so that
/// no two inputs look the same.
pub(super) struct Key(blake3::Hasher);

impl Key {
    /// Starts the key of a kind of step.
    pub(super) fn new(kind: &str) -> Key {
        let mut key = Key(blake3::Hasher::new());
        key.text(VERSION);
        key.text(kind);
        key
    }

    /// Starts a key that stays what it is whatever becomes of steps, for what outlives them.
    pub(super) fn lasting(kind: &str) -> Key {
        let mut key = Key(blake3::Hasher::new());
        key.text(kind);
        key
    }

    /// Adds bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Key {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds text.
    pub(super) fn text(&mut self, text: &str) -> &mut Key {
        self.bytes(text.as_bytes())
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Key {
        self.0.update(&number.to_le_bytes());
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
    pub(super) fn finish(&self) -> Inputs {
        Inputs {
            hash: self.0.finalize().to_hex().to_string(),
            linked: false,
        }
    }

    /// Returns the key of a step that does not: its layer is the same on top of anything.
    pub(super) fn finish_linked(&self) -> Inputs {
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
