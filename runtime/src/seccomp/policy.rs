//! The policy as data: which system calls are allowed, to whom, with which arguments.

use std::collections::HashSet;

use caps::Capability;
use serde::Deserialize;

use super::{Arch, SeccompError};
use crate::capability::{self, CapabilitySet};

/// A list of rules for system calls, and what happens to those without a rule.
///
/// The first rule that names a call, applies to the step and holds for the arguments
/// decides. `resources/seccomp.json` shows the format.
#[derive(Debug)]
pub struct Policy {
    /// What a call without a rule gets.
    pub(super) default: Action,
    /// What a call gets that is newer than any which the policy names, so that libc takes
    /// the older way instead of failing.
    pub(super) beyond_newest: Action,
    pub(super) rules: Vec<Rule>,
}

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Action {
    #[serde(rename = "allow")]
    Allow,
    #[serde(rename = "EPERM")]
    NotPermitted,
    #[serde(rename = "ENOSYS")]
    NotImplemented,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) syscalls: Vec<String>,
    pub(super) action: Action,
    guard: Guard,
    pub(super) conditions: Vec<Condition>,
}

/// The steps and kernels to which a rule applies.
#[derive(Debug, Default)]
struct Guard {
    with: CapabilitySet,
    without: CapabilitySet,
    since: KernelVersion,
}

/// A test of one argument: whether `argument & mask` is (`within`) or isn't one of `values`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) arg: u8,
    pub(super) mask: u64,
    pub(super) values: Vec<u64>,
    pub(super) within: bool,
}

/// The version of a kernel: major and minor number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32);

impl KernelVersion {
    /// Returns the version of the running kernel, or the oldest where it can't be read:
    /// rules that need a newer one then stay off.
    pub fn running() -> KernelVersion {
        nix::sys::utsname::uname()
            .ok()
            .and_then(|name| KernelVersion::parse(name.release().to_str()?))
            .unwrap_or_default()
    }

    /// Parses the start of a release such as `6.1.0-18-amd64`.
    pub fn parse(release: &str) -> Option<KernelVersion> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(KernelVersion(
            numbers.next()?.parse().ok()?,
            numbers.next()?.parse().ok()?,
        ))
    }
}

impl Rule {
    /// Tells whether the rule is there for steps with these capabilities on this kernel.
    pub(super) fn applies(&self, capabilities: CapabilitySet, kernel: KernelVersion) -> bool {
        let Guard {
            with,
            without,
            since,
        } = self.guard;
        capabilities & with == with && (capabilities & without).is_empty() && kernel >= since
    }
}

impl Policy {
    /// Parses a policy in the format of `resources/seccomp.json`.
    pub fn parse(json: &str) -> Result<Policy, SeccompError> {
        let file: File = serde_json::from_str(json)?;
        let known: HashSet<&str> = Arch::ALL
            .into_iter()
            .flat_map(|arch| arch.calls())
            .map(|(_, name)| name)
            .collect();
        let rules = file
            .rules
            .into_iter()
            .map(Rule::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        let mut names = rules.iter().flat_map(|rule| &rule.syscalls);
        match names.find(|name| !known.contains(name.as_str())) {
            Some(name) => Err(SeccompError::UnknownSyscall(name.clone())),
            None => Ok(Policy {
                default: file.default,
                beyond_newest: file.beyond_newest,
                rules,
            }),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Action,
    beyond_newest: Action,
    rules: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    /// A word for the reader.
    #[serde(default, rename = "why")]
    _why: String,
    #[serde(default = "allow")]
    action: Action,
    #[serde(default)]
    on: FileGuard,
    #[serde(default)]
    when: Vec<FileCondition>,
    syscalls: Vec<String>,
}

fn allow() -> Action {
    Action::Allow
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileGuard {
    capability: Option<String>,
    without: Option<String>,
    kernel: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCondition {
    arg: u8,
    /// How much of the argument the kernel reads: 32 for an int, 64 for a long. With 64
    /// for an int, a caller could hide a value behind bits that the kernel ignores.
    #[serde(default = "long")]
    bits: u8,
    r#in: Option<Vec<String>>,
    not_in: Option<Vec<String>>,
    clear: Option<String>,
}

fn long() -> u8 {
    64
}

impl TryFrom<FileRule> for Rule {
    type Error = SeccompError;

    fn try_from(rule: FileRule) -> Result<Rule, SeccompError> {
        let set = |name: Option<String>| -> Result<CapabilitySet, SeccompError> {
            let capability: Option<Capability> =
                name.as_deref().map(capability::parse).transpose()?;
            Ok(capability.map_or(CapabilitySet::EMPTY, |c| CapabilitySet::EMPTY.with(c)))
        };
        let since = match rule.on.kernel {
            Some(text) => KernelVersion::parse(&text).ok_or(SeccompError::Kernel(text))?,
            None => KernelVersion::default(),
        };
        Ok(Rule {
            syscalls: rule.syscalls,
            action: rule.action,
            guard: Guard {
                with: set(rule.on.capability)?,
                without: set(rule.on.without)?,
                since,
            },
            conditions: rule
                .when
                .into_iter()
                .map(Condition::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<FileCondition> for Condition {
    type Error = SeccompError;

    fn try_from(condition: FileCondition) -> Result<Condition, SeccompError> {
        let width = match condition.bits {
            32 => u64::from(u32::MAX),
            64 => u64::MAX,
            _ => return Err(SeccompError::Condition("bits must be 32 or 64")),
        };
        let parse = |texts: Vec<String>| -> Result<Vec<u64>, SeccompError> {
            texts.iter().map(|text| value(text)).collect()
        };
        let (mask, values, within) = match (condition.r#in, condition.not_in, condition.clear) {
            (Some(values), None, None) => (width, parse(values)?, true),
            (None, Some(values), None) => (width, parse(values)?, false),
            (None, None, Some(flags)) => (value(&flags)?, vec![0], true),
            _ => {
                return Err(SeccompError::Condition(
                    "needs one of \"in\", \"not_in\" and \"clear\"",
                ));
            }
        };
        if condition.arg >= 6 {
            return Err(SeccompError::Condition("arg must be 0 to 5"));
        }
        if values.is_empty() || values.iter().any(|value| value & !mask != 0) {
            return Err(SeccompError::Condition("no values, or beyond the bits"));
        }
        // On 32-bit architectures nothing would be left to test.
        if mask & u64::from(u32::MAX) == 0 || mask & !width != 0 {
            return Err(SeccompError::Condition("flags outside of the argument"));
        }
        Ok(Condition {
            arg: condition.arg,
            mask,
            values,
            within,
        })
    }
}

/// Parses a hexadecimal number or names of constants, joined by `|`.
fn value(text: &str) -> Result<u64, SeccompError> {
    text.split('|').try_fold(0, |bits, part| {
        let number = match part.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => constant(part),
        };
        let number = number.ok_or_else(|| SeccompError::UnknownValue(part.to_owned()))?;
        Ok(bits | number)
    })
}

/// Returns the value of a constant of the kernel's interface.
fn constant(name: &str) -> Option<u64> {
    let value = match name {
        "AF_ALG" => libc::AF_ALG,
        "AF_VSOCK" => libc::AF_VSOCK,
        "CLONE_NEWCGROUP" => libc::CLONE_NEWCGROUP,
        "CLONE_NEWIPC" => libc::CLONE_NEWIPC,
        "CLONE_NEWNET" => libc::CLONE_NEWNET,
        "CLONE_NEWNS" => libc::CLONE_NEWNS,
        "CLONE_NEWPID" => libc::CLONE_NEWPID,
        "CLONE_NEWUSER" => libc::CLONE_NEWUSER,
        "CLONE_NEWUTS" => libc::CLONE_NEWUTS,
        // From <linux/personality.h>.
        "PER_LINUX" => 0,
        "PER_LINUX32" => 8,
        "UNAME26" => libc::UNAME26,
        _ => return None,
    };
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy_with(rule: &str) -> Result<Policy, SeccompError> {
        Policy::parse(&format!(
            r#"{{"default": "EPERM", "beyond_newest": "ENOSYS", "rules": [{rule}]}}"#
        ))
    }

    #[test]
    fn misspelt_names_are_errors() {
        for (rule, message) in [
            (r#"{"syscalls": ["opennat"]}"#, "opennat"),
            (
                r#"{"syscalls": ["open"], "on": {"capability": "CAP_FLY"}}"#,
                "CAP_FLY",
            ),
            (
                r#"{"syscalls": ["open"], "when": [{"arg": 0, "in": ["AF_FLY"]}]}"#,
                "AF_FLY",
            ),
            (
                r#"{"syscalls": ["open"], "on": {"kernel": "new"}}"#,
                "\"new\"",
            ),
            (r#"{"syscalls": ["open"], "wen": []}"#, "wen"),
            (r#"{"syscalls": ["open"], "action": "kill"}"#, "kill"),
        ] {
            let error = policy_with(rule).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn conditions_that_make_no_sense_are_errors() {
        for condition in [
            r#"{"arg": 6, "in": ["0x1"]}"#,
            r#"{"arg": 0}"#,
            r#"{"arg": 0, "in": []}"#,
            r#"{"arg": 0, "in": ["0x1"], "clear": "0x1"}"#,
            r#"{"arg": 0, "bits": 16, "in": ["0x1"]}"#,
            r#"{"arg": 0, "bits": 32, "in": ["0x100000000"]}"#,
            r#"{"arg": 0, "bits": 32, "clear": "0x100000001"}"#,
            r#"{"arg": 0, "clear": "0x100000000"}"#,
        ] {
            let rule = format!(r#"{{"syscalls": ["open"], "when": [{condition}]}}"#);
            assert!(
                matches!(policy_with(&rule), Err(SeccompError::Condition(_))),
                "{condition}"
            );
        }
    }

    #[test]
    fn rules_apply_by_capability_and_kernel() {
        let policy = policy_with(
            r#"{"syscalls": ["mount"], "on": {"capability": "CAP_SYS_ADMIN", "kernel": "4.8"}},
               {"syscalls": ["clone3"], "on": {"without": "CAP_SYS_ADMIN"}}"#,
        )
        .unwrap();
        let admin = CapabilitySet::EMPTY.with(Capability::CAP_SYS_ADMIN);
        let [mount, clone3] = &policy.rules[..] else {
            panic!("two rules")
        };
        assert!(mount.applies(admin, KernelVersion(4, 8)));
        assert!(!mount.applies(admin, KernelVersion(4, 7)));
        assert!(!mount.applies(CapabilitySet::EMPTY, KernelVersion(6, 1)));
        assert!(clone3.applies(CapabilitySet::EMPTY, KernelVersion(6, 1)));
        assert!(!clone3.applies(admin, KernelVersion(6, 1)));
    }

    #[test]
    fn kernel_releases_of_distributions_parse() {
        for (release, version) in [
            ("6.1.0-18-amd64", Some(KernelVersion(6, 1))),
            ("5.15-rc3", Some(KernelVersion(5, 15))),
            ("6.18.44-fc-v669", Some(KernelVersion(6, 18))),
            ("linux", None),
            ("", None),
        ] {
            assert_eq!(KernelVersion::parse(release), version, "{release}");
        }
        assert!(KernelVersion(4, 10) > KernelVersion(4, 8));
    }

    #[test]
    fn no_call_is_named_twice_under_the_same_guard() {
        let mut seen = HashSet::new();
        for rule in &Policy::default_policy().rules {
            for name in &rule.syscalls {
                assert!(
                    seen.insert((name, format!("{:?}", rule.guard))),
                    "{name} has two rules"
                );
            }
        }
    }
}
