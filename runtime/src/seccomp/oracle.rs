//! The default policy beside Podman's, where containers-common is installed.
//!
//! Podman's is not the model (Docker's is) and is wider: it lets the kernel's own checks
//! guard namespaces and mounts. Each call on which the two differ stands below with its
//! reason, so that a call which slips into or out of our policy shows up.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use caps::Capability;
use serde_json::Value;

use super::policy::Action;
use super::{Arch, KernelVersion, Policy};
use crate::capability::CapabilitySet;

const REFERENCE: &str = "/usr/share/containers/seccomp.json";

/// What we allow and Podman's policy, at least as old as Debian 12's, does not.
const WIDER: [(&str, &str); 5] = [
    (
        "calls of Linux 5.16 to 6.13 that the file is too old for; as harmless as their kin",
        "futex_waitv cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue \
         statmount listmount mseal setxattrat getxattrat listxattrat removexattrat",
    ),
    (
        "returns from a probe that an administrator set; the kernel exempts it since 6.14",
        "uretprobe",
    ),
    (
        "reads what io_getevents reads, which both allow",
        "io_pgetevents io_pgetevents_time64",
    ),
    (
        "moves memory to a pipe; Docker has always allowed it",
        "vmsplice",
    ),
    (
        "newer calls that Docker gives to CAP_SYS_ADMIN or CAP_SYS_NICE",
        "quotactl_fd lsm_get_self_attr lsm_set_self_attr lsm_list_modules \
         set_mempolicy_home_node",
    ),
];

/// What Podman's policy allows, or allows with more arguments, and we do not.
const NARROWER: [(&str, &str); 8] = [
    (
        "namespaces and mounts: a step needs none, and they open most of the kernel's holes",
        "clone clone3 unshare setns mount mount_setattr move_mount open_tree fsopen fsconfig \
         fsmount fspick umount umount2 pivot_root",
    ),
    ("keyrings are not namespaced by container", "keyctl"),
    (
        "kernel crypto and the hypervisor are not reached by sockets",
        "socket",
    ),
    (
        "only with the capability that the kernel asks for as well",
        "reboot syslog pidfd_getfd",
    ),
    (
        "placement of memory, only with CAP_SYS_NICE",
        "get_mempolicy set_mempolicy mbind",
    ),
    (
        "signals and directories as before Linux 2.2; libc uses their rt_ and 64 forms",
        "signal sigaction sigpending sigsuspend readdir",
    ),
    (
        "names of no call, or of one that never was",
        "syscall timerfd",
    ),
    (
        "newer than the policy, or of no use in a step: libc and tools do without",
        "open_tree_attr file_getattr file_setattr uprobe",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    Denied,
    Conditional,
    Allowed,
}

/// Returns who may make each call that the reference names.
fn theirs(reference: &Value, capabilities: CapabilitySet) -> BTreeMap<String, Access> {
    let strings = |value: &Value| -> Vec<String> {
        let array = value.as_array().into_iter().flatten();
        array.map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let mut access = BTreeMap::new();
    for rule in reference["syscalls"].as_array().unwrap() {
        let has = |name: String| capabilities.contains(name.parse().unwrap());
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let arches = strings(&includes["arches"]);
        let applies = strings(&includes["caps"]).into_iter().all(has)
            && !strings(&excludes["caps"]).into_iter().any(has)
            && (arches.is_empty() || arches.contains(&"amd64".to_owned()));
        if !applies {
            continue;
        }
        let conditional = rule["args"].as_array().is_some_and(|args| !args.is_empty());
        let granted = match (rule["action"].as_str().unwrap(), conditional) {
            ("SCMP_ACT_ALLOW", false) => Access::Allowed,
            ("SCMP_ACT_ALLOW", true) => Access::Conditional,
            _ => Access::Denied,
        };
        for name in strings(&rule["names"]) {
            let entry = access.entry(name).or_insert(Access::Denied);
            *entry = granted.max(*entry);
        }
    }
    access
}

/// Returns who may make a call under the default policy.
fn ours(name: &str, capabilities: CapabilitySet) -> Access {
    let rules = Policy::default_policy().rules.iter();
    let mut rules = rules.filter(|rule| {
        rule.syscalls.iter().any(|n| n == name) && rule.applies(capabilities, KernelVersion(6, 1))
    });
    match rules.next() {
        Some(rule) if rule.action != Action::Allow => Access::Denied,
        Some(rule) if rule.conditions.is_empty() => Access::Allowed,
        Some(_) => Access::Conditional,
        None => Access::Denied,
    }
}

#[test]
fn differences_to_podmans_policy_are_the_known_ones() {
    let text = match fs::read_to_string(REFERENCE) {
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        text => text.unwrap(),
    };
    let reference: Value = serde_json::from_str(&text).unwrap();
    let known = |list: &[(&str, &str)], name: &str| {
        let mut names = list.iter().flat_map(|(_, names)| names.split_whitespace());
        names.any(|n| n == name)
    };
    let default = CapabilitySet::default_set();
    let mut unexplained = Vec::new();
    for capabilities in [default, default.with(Capability::CAP_SYS_ADMIN)] {
        let mut theirs = theirs(&reference, capabilities);
        for name in [Arch::X86_64, Arch::X86].into_iter().flat_map(Arch::calls) {
            theirs.entry(name.1.to_owned()).or_insert(Access::Denied);
        }
        for (name, theirs) in theirs {
            let ours = ours(&name, capabilities);
            let explained = ours == theirs
                || ours > theirs && known(&WIDER, &name)
                || ours < theirs && known(&NARROWER, &name);
            if !explained {
                unexplained.push(format!("{name}: {theirs:?} there, {ours:?} here"));
            }
        }
    }
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}
