//! What the checks are called, why they are there, and what to write instead.

mod buildkit;
mod own;

pub use buildkit::*;
pub use own::*;

/// Where the explanations of BuildKit's checks are.
const DOCUMENTATION: &str = "https://docs.docker.com/go/dockerfile/rule/";

/// A check: its name, and what to tell about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// The name, as `skip=` takes it.
    pub name: &'static str,
    /// What it finds, in one line.
    pub summary: &'static str,
    /// Whose check it is.
    pub origin: Origin,
    /// Whether it is off unless `experimental=` names it.
    pub experimental: bool,
    /// Why it matters.
    pub why: &'static str,
    /// A part of a Dockerfile in which it finds something.
    pub bad: &'static str,
    /// The same without the finding.
    pub good: &'static str,
}

/// Where a check comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// One of BuildKit's, with the name of its page in Docker's documentation.
    BuildKit(Option<&'static str>),
    /// One of kiln's own.
    Kiln,
}

impl Check {
    /// Returns the address of the explanation, where there is one.
    pub fn url(&self) -> Option<String> {
        match self.origin {
            Origin::BuildKit(Some(page)) => Some(format!("{DOCUMENTATION}{page}/")),
            _ => None,
        }
    }

    /// Tells whether other builders don't know it.
    pub fn is_own(&self) -> bool {
        self.origin == Origin::Kiln
    }

    /// Returns the check of a name.
    pub fn find(name: &str) -> Option<&'static Check> {
        ALL.iter().copied().find(|check| check.name == name)
    }
}

/// All checks: BuildKit's, then kiln's, each by name.
pub static ALL: &[&Check] = &[
    &CONSISTENT_INSTRUCTION_CASING,
    &COPY_IGNORED_FILE,
    &DUPLICATE_STAGE_NAME,
    &EXPOSE_INVALID_FORMAT,
    &EXPOSE_PROTO_CASING,
    &FROM_AS_CASING,
    &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    &INVALID_BASE_IMAGE_PLATFORM,
    &INVALID_DEFAULT_ARG_IN_FROM,
    &INVALID_DEFINITION_DESCRIPTION,
    &JSON_ARGS_RECOMMENDED,
    &LEGACY_KEY_VALUE_FORMAT,
    &MAINTAINER_DEPRECATED,
    &MULTIPLE_INSTRUCTIONS_DISALLOWED,
    &NO_EMPTY_CONTINUATION,
    &REDUNDANT_TARGET_PLATFORM,
    &RESERVED_STAGE_NAME,
    &SECRETS_USED_IN_ARG_OR_ENV,
    &STAGE_NAME_CASING,
    &UNDEFINED_ARG_IN_FROM,
    &UNDEFINED_VAR,
    &WORKDIR_RELATIVE_PATH,
    &ADD_WITHOUT_NEED,
    &ARG_NOT_IN_STAGE,
    &BROKEN_JSON_FORM,
    &FLOATING_BASE_IMAGE,
    &HEREDOC_IGNORES_ERRORS,
    &MISTYPED_STAGE_NAME,
    &OWNERSHIP_DOUBLES_LAYER,
    &PACKAGE_LISTS_LEFT,
    &PACKAGE_LISTS_STALE,
    &SHELL_STATE_LOST,
    &SUDO_AS_ROOT,
    &UNKNOWN_CHECK_NAME,
    &USERADD_FILLS_LASTLOG,
    &VARIABLE_IN_EXEC_FORM,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sorted_within_their_origin() {
        for own in [false, true] {
            let names: Vec<&str> = ALL
                .iter()
                .filter(|check| check.is_own() == own)
                .map(|check| check.name)
                .collect();
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(names, sorted);
        }
        assert_eq!(ALL.iter().filter(|check| !check.is_own()).count(), 22);
    }

    #[test]
    fn every_check_says_why_with_a_bad_and_a_good_example() {
        for check in ALL {
            for text in [check.summary, check.why, check.bad, check.good] {
                assert!(!text.trim().is_empty(), "{}", check.name);
                assert_eq!(text.trim(), text, "{}", check.name);
            }
            assert!(!check.summary.ends_with('.'), "{}", check.name);
            assert!(check.why.ends_with('.'), "{}", check.name);
        }
    }

    #[test]
    fn buildkits_checks_have_their_page() {
        assert_eq!(
            JSON_ARGS_RECOMMENDED.url().as_deref(),
            Some("https://docs.docker.com/go/dockerfile/rule/json-args-recommended/")
        );
        assert_eq!(SUDO_AS_ROOT.url(), None);
        assert!(Check::find("SudoAsRoot").is_some());
        assert!(Check::find("sudoasroot").is_none());
    }
}
