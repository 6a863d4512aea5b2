//! Why a step runs: what it is given, beside what it was given the last time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::key::Inputs;
use super::stage::{Outcome, State};
use super::{Build, Running};
use crate::event::{Event, Stream};

/// Of so many changed files the names are shown.
const SHOWN: usize = 10;

/// Of so many files the hashes are kept.
const MOST_FILES: usize = 200_000;

/// The part of a key that the files of a COPY make up.
pub(super) const FILES: &str = "files";

/// What a step was given when it ran last, as far as it takes to tell what is new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    /// The instruction as it is written.
    step: String,
    /// Hashes of the parts of its key, by their names, in order.
    parts: Vec<(String, String)>,
    /// Hashes of the files of a COPY.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
}

impl Trace {
    /// Returns what is new against the last time; nothing where all is the same.
    fn news(&self, last: &Trace) -> Option<String> {
        if self.step != last.step {
            return Some(format!(
                "another instruction stands here; it was: {}",
                last.step
            ));
        }
        let part = |trace: &Trace, name: &str| -> Option<String> {
            let found = trace.parts.iter().find(|(own, _)| own == name);
            found.map(|(_, hash)| hash.clone())
        };
        for (name, hash) in &self.parts {
            match part(last, name) {
                Some(old) if old == *hash => {}
                Some(_) if name == FILES => return Some(self.changed_files(last)),
                Some(_) => return Some(format!("{name} changed")),
                None => return Some(format!("{name} is new")),
            }
        }
        let gone = last
            .parts
            .iter()
            .find(|(name, _)| part(self, name).is_none());
        gone.map(|(name, _)| format!("{name} is gone"))
    }

    fn changed_files(&self, last: &Trace) -> String {
        let mut changes = Vec::new();
        for (path, hash) in &self.files {
            match last.files.get(path) {
                Some(old) if old == hash => {}
                Some(_) => changes.push(format!("{path} changed")),
                None => changes.push(format!("{path} is new")),
            }
        }
        let gone = last
            .files
            .keys()
            .filter(|path| !self.files.contains_key(*path));
        changes.extend(gone.map(|path| format!("{path} is gone")));
        let more = changes.len().saturating_sub(SHOWN);
        changes.truncate(SHOWN);
        if changes.is_empty() {
            changes.push("files changed".to_owned());
        }
        if more > 0 {
            changes.push(format!("and {more} more"));
        }
        changes.join(", ")
    }
}

impl Build<'_> {
    /// Keeps what a step is given that has no record, and says why it runs where that is asked
    /// for.
    pub(super) fn explain_miss(
        &self,
        state: &mut State,
        inputs: &Inputs,
        files: Option<&dyn Fn() -> Vec<(String, String)>>,
        step: &Running,
    ) {
        let store = self.shop.store;
        let place = state.place();
        let mut trace = Trace {
            step: step
                .name
                .split_once("] ")
                .map_or("", |(_, text)| text)
                .to_owned(),
            parts: inputs.parts.clone(),
            files: BTreeMap::new(),
        };
        if let Some(files) = files {
            let files = files();
            if files.len() <= MOST_FILES {
                trace.files = files.into_iter().collect();
            }
        }
        let last: Option<Trace> = store
            .trace(&place)
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if self.options.explain {
            let reason = match &last {
                _ if state.no_cache => "the cache is passed over".to_owned(),
                None => "it has not been built here before".to_owned(),
                Some(last) => match (trace.news(last), &state.first_miss) {
                    (Some(news), _) => news,
                    (None, Some(before)) => format!("what it stands on was built anew: {before}"),
                    (None, None) => "nothing changed, but its record does not count: the base \
                                     image is another one, the record was removed or is too old, \
                                     or the step failed"
                        .to_owned(),
                },
            };
            self.say(step, &format!("runs, since {reason}"));
        }
        if state.first_miss.is_none() {
            state.first_miss = Some(trace.step.clone());
        }
        if last.as_ref() != Some(&trace)
            && let Ok(bytes) = serde_json::to_vec(&trace)
        {
            // Without it, the next build can say less.
            let _ = store.write_trace(&place, &bytes);
        }
    }

    /// Says, where that is asked for, that a step was done before.
    pub(super) fn explain_hit(&self, outcome: &Outcome, step: &Running) {
        if let (true, Some(record)) = (self.options.explain, outcome.record()) {
            let when = record.created;
            self.say(
                step,
                &format!("was done before with the same inputs, at {when}"),
            );
        }
    }

    fn say(&self, step: &Running, text: &str) {
        self.shop.reporter.report(Event::StepOutput {
            step: step.id,
            stream: Stream::Stderr,
            data: format!("{text}\n").into_bytes(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(step: &str, parts: &[(&str, &str)], files: &[(&str, &str)]) -> Trace {
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = pairs.iter().map(|(a, b)| (a.to_string(), b.to_string()));
            owned.collect()
        };
        Trace {
            step: step.to_owned(),
            parts: own(parts),
            files: own(files).into_iter().collect(),
        }
    }

    #[test]
    fn first_part_that_differs_is_named() {
        let last = trace("RUN x", &[("the command", "1"), ("variable A", "1")], &[]);
        let news = |parts: &[(&str, &str)]| trace("RUN x", parts, &[]).news(&last);
        assert_eq!(news(&[("the command", "1"), ("variable A", "1")]), None);
        assert_eq!(
            news(&[("the command", "1"), ("variable A", "2")]).unwrap(),
            "variable A changed"
        );
        assert_eq!(
            news(&[
                ("the command", "1"),
                ("variable A", "1"),
                ("variable B", "")
            ])
            .unwrap(),
            "variable B is new"
        );
        assert_eq!(news(&[("the command", "1")]).unwrap(), "variable A is gone");
        assert_eq!(
            trace("RUN y", &[], &[]).news(&last).unwrap(),
            "another instruction stands here; it was: RUN x"
        );
    }

    #[test]
    fn changed_files_are_named_up_to_a_number() {
        let last = trace("COPY", &[(FILES, "1")], &[("a", "1"), ("b", "1")]);
        let now = trace("COPY", &[(FILES, "2")], &[("a", "2"), ("c", "1")]);
        assert_eq!(now.news(&last).unwrap(), "a changed, c is new, b is gone");
        let names: Vec<String> = (10..25).map(|n| n.to_string()).collect();
        let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        let many = trace("COPY", &[(FILES, "3")], &files);
        let news = many.news(&last).unwrap();
        assert!(news.starts_with("10 is new, 11 is new"), "{news}");
        assert!(news.ends_with("and 7 more"), "{news}");
    }
}
