//! Which checks are on: `# check=skip=A,B;error=true`, at the top of a file or above one of its
//! instructions. See <https://docs.docker.com/reference/dockerfile/#check>.

use std::collections::BTreeSet;

use super::catalog::{ALL, Check};
use crate::dockerfile::suggest::closest;

/// Which checks are on, and what their findings mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Those that are off.
    pub skip: Selection,
    /// Those that are on although they are experimental.
    pub experimental: Selection,
    /// Whether a finding is an error.
    pub error: bool,
}

/// Names of checks, or all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    all: bool,
    names: BTreeSet<String>,
}

impl Selection {
    fn parse(text: &str) -> Selection {
        match text.trim() {
            "all" => Selection {
                all: true,
                names: BTreeSet::new(),
            },
            list => Selection {
                all: false,
                names: list.split(',').map(|name| name.trim().to_owned()).collect(),
            },
        }
    }

    fn has(&self, check: &Check) -> bool {
        self.all || self.names.contains(check.name)
    }

    fn extend(&mut self, other: Selection) {
        self.all |= other.all;
        self.names.extend(other.names);
    }
}

/// A `check` directive that can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// No such option, or one without a value.
    #[error("invalid check option {0:?}")]
    Option(String),
    /// `error` is neither true nor false.
    #[error("invalid value {0:?} of the check option error")]
    Bool(String),
}

impl ConfigError {
    /// Returns what it may look like.
    pub fn hint(&self) -> Option<String> {
        Some(
            match self {
                ConfigError::Option(_) => {
                    "write check=skip=NAME,NAME;error=true;experimental=NAME; skip and \
                     experimental take all too"
                }
                ConfigError::Bool(_) => "it can be true or false",
            }
            .to_owned(),
        )
    }
}

impl Config {
    /// Reads `skip=…;error=…;experimental=…`.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for option in text.split(';') {
            let invalid = || ConfigError::Option(option.trim().chars().take(100).collect());
            let (key, value) = option.split_once('=').ok_or_else(invalid)?;
            match key.trim() {
                "skip" => config.skip = Selection::parse(value),
                "experimental" => config.experimental = Selection::parse(value),
                "error" => {
                    config.error = match value.trim() {
                        "true" | "True" | "TRUE" | "t" | "T" | "1" => true,
                        "false" | "False" | "FALSE" | "f" | "F" | "0" => false,
                        other => return Err(ConfigError::Bool(other.chars().take(100).collect())),
                    };
                }
                _ => return Err(invalid()),
            }
        }
        Ok(config)
    }

    /// Tells whether a check is on.
    pub fn has(&self, check: &Check) -> bool {
        !self.skip.has(check) && (!check.experimental || self.experimental.has(check))
    }

    /// Adds what the comments above an instruction say. One that can't be read means nothing.
    pub(super) fn with_comments(&self, comments: &[&str]) -> Config {
        let mut config = self.clone();
        for comment in comments {
            let Some((key, value)) = comment.split_once('=') else {
                continue;
            };
            if !key.trim().eq_ignore_ascii_case("check") {
                continue;
            }
            let value = value.trim();
            let value = value.split(' ').next().unwrap_or_default();
            if let Ok(more) = Config::parse(value) {
                config.skip.extend(more.skip);
                config.experimental.extend(more.experimental);
                return config;
            }
        }
        config
    }

    /// Returns the names that are no checks, each with the one that may have been meant.
    pub(super) fn unknown(&self) -> Vec<(&str, Option<&'static str>)> {
        let names = self.skip.names.iter().chain(&self.experimental.names);
        names
            .filter(|name| !name.is_empty() && Check::find(name).is_none())
            .map(|name| {
                let known = ALL.iter().map(|check| check.name);
                let exact = known.clone().find(|known| known.eq_ignore_ascii_case(name));
                (name.as_str(), exact.or_else(|| closest(name, known)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::*;
    use super::*;

    #[test]
    fn options_are_read_as_buildkit_reads_them() {
        let config = Config::parse("skip=JSONArgsRecommended, StageNameCasing;error=true").unwrap();
        assert!(config.error);
        assert!(!config.has(&JSON_ARGS_RECOMMENDED) && !config.has(&STAGE_NAME_CASING));
        assert!(config.has(&UNDEFINED_VAR));
        assert!(!config.has(&INVALID_DEFINITION_DESCRIPTION));
        let config = Config::parse("experimental=InvalidDefinitionDescription").unwrap();
        assert!(config.has(&INVALID_DEFINITION_DESCRIPTION) && !config.has(&FLOATING_BASE_IMAGE));
        let config = Config::parse("experimental=all;skip=all").unwrap();
        assert!(!config.has(&FLOATING_BASE_IMAGE) && !config.has(&UNDEFINED_VAR));
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        let cases = [
            ("skip", "invalid check option \"skip\""),
            ("skp=all", "invalid check option \"skp=all\""),
            (
                "error=maybe",
                "invalid value \"maybe\" of the check option error",
            ),
        ];
        for (text, message) in cases {
            let error = Config::parse(text).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn comments_add_to_what_is_skipped() {
        let config = Config::parse("skip=UndefinedVar").unwrap();
        let here = config.with_comments(&["why not", "check=skip=SudoAsRoot and why"]);
        assert!(!here.has(&SUDO_AS_ROOT) && !here.has(&UNDEFINED_VAR));
        assert!(here.has(&STAGE_NAME_CASING));
        assert_eq!(config.with_comments(&["check=rubbish"]), config);
    }

    #[test]
    fn names_that_are_no_checks_are_found() {
        let config = Config::parse("skip=sudoasroot,UndefinedVa,Xyz,UndefinedVar").unwrap();
        let expected = [
            ("UndefinedVa", Some("UndefinedVar")),
            ("Xyz", None),
            ("sudoasroot", Some("SudoAsRoot")),
        ];
        assert_eq!(config.unknown(), expected);
    }
}
