//! Expansion that notes which variables it met, and what checks make of that.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::catalog::*;
use super::walk::Environment;
use super::{Place, Reporter};
use crate::dockerfile::suggest::closest;
use crate::dockerfile::{Heredoc, InstructionKind, Word};

/// The variables that an expansion met.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub(super) matched: BTreeSet<String>,
    pub(super) unmatched: BTreeSet<String>,
}

/// Expands by `lookup`, and notes what was looked up. An error is somebody else's to report:
/// the text is then empty.
pub(super) fn expand_noting<T: Default, E>(
    lookup: &dyn Fn(&str) -> Option<String>,
    expand: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> Result<T, E>,
) -> (T, Met) {
    let met = RefCell::new(Met::default());
    let noting = |name: &str| {
        let value = lookup(name);
        let mut met = met.borrow_mut();
        match value {
            Some(_) => met.matched.insert(name.to_owned()),
            None => met.unmatched.insert(name.to_owned()),
        };
        value
    };
    let result = expand(&noting).unwrap_or_default();
    (result, met.into_inner())
}

impl Reporter<'_> {
    /// Returns a word expanded, and reports variables that nothing sets.
    pub(super) fn expand(&mut self, env: &Environment, place: &Place, word: &Word) -> String {
        let escape = self.subject.file.escape;
        let lookup = |name: &str| env.scope.lookup(name);
        let (text, met) = expand_noting(&lookup, |lookup| word.expand(lookup, escape));
        self.undefined(env, place, &met);
        text
    }

    /// As [`Reporter::expand`], for a document.
    pub(super) fn expand_heredoc(&mut self, env: &Environment, place: &Place, heredoc: &Heredoc) {
        let lookup = |name: &str| env.scope.lookup(name);
        let (_, met) = expand_noting(&lookup, |lookup| heredoc.expand(lookup));
        self.undefined(env, place, &met);
    }

    pub(super) fn undefined(&mut self, env: &Environment, place: &Place, met: &Met) {
        for name in &met.unmatched {
            if env.declared.contains(name) || name.chars().all(|c| !c.is_alphanumeric()) {
                continue;
            }
            let hint = self.why_undefined(env, name);
            let known = env.scope.key_environment();
            let near = closest(name, known.iter().map(|(name, _)| name.as_str()));
            // The base image, which isn't at hand, may well set it.
            if !env.complete && hint.is_none() && near.is_none() {
                continue;
            }
            let mut message = format!("nothing sets the variable ${name}");
            if let Some(near) = near.filter(|_| hint.is_none()) {
                message.push_str(&format!(" (did you mean ${near}?)"));
            }
            self.report_at(&UNDEFINED_VAR, place, place.span, message, hint);
        }
    }

    /// Says what to do where an ARG exists that the stage doesn't see.
    pub(super) fn why_undefined(&self, env: &Environment, name: &str) -> Option<String> {
        if self.subject.predefined.contains_key(name) {
            return Some(format!(
                "{name} is predefined: a stage sees it after ARG {name}"
            ));
        }
        let is_global = self.subject.file.global_args.iter().any(|instruction| {
            matches!(&instruction.kind, InstructionKind::Arg(items)
                if items.iter().any(|item| item.name == name))
        });
        // A base image may set a variable of the same name, and often does.
        (is_global && env.complete).then(|| {
            format!("ARG {name} stands before the first FROM: a stage sees it after ARG {name}")
        })
    }

    /// Reports names that look like those of secrets.
    pub(super) fn secret(&mut self, place: &Place, instruction: &str, name: &str) {
        if is_secret(name) {
            let message =
                format!("{instruction} {name} looks like a secret, and stays in the image");
            let hint = "use RUN --mount=type=secret".to_owned();
            self.report_at(
                &SECRETS_USED_IN_ARG_OR_ENV,
                place,
                place.span,
                message,
                Some(hint),
            );
        }
    }
}

/// Parts of names that hold secrets, between underscores.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Parts of names that don't after all.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

fn is_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    let has = |parts: &[&str]| lower.split('_').any(|part| parts.contains(&part));
    has(&SECRET) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_a_part_of_the_name() {
        for name in [
            "API_KEY",
            "token",
            "GITHUB_TOKEN",
            "secret_MESSAGE",
            "DB_PASSWORD_X",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "KEYBOARD",
            "PUBLIC_KEY",
            "TOKEN_FILE",
            "AUTHOR",
            "SECRETS",
            "KEY_VERSION",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
