//! The programs are run on an interpreter and compared with the policy read naively.

use caps::Capability;
use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
use libc::{BPF_W, seccomp_data, sock_filter};

use super::*;

const KERNEL: KernelVersion = KernelVersion(6, 1);
const LD: u32 = BPF_LD | BPF_W | BPF_ABS;
const AND: u32 = BPF_ALU | BPF_AND | BPF_K;
const JA: u32 = BPF_JMP | BPF_JA;
const JEQ: u32 = BPF_JMP | BPF_JEQ | BPF_K;
const JGE: u32 = BPF_JMP | BPF_JGE | BPF_K;
const RET: u32 = BPF_RET | BPF_K;

/// Runs a program as the kernel would. Returns its value and the instructions it took.
fn run(program: &[sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> (u32, usize) {
    let mut words = vec![nr, arch, 0, 0];
    words.extend(
        args.iter()
            .flat_map(|arg| [*arg as u32, (*arg >> 32) as u32]),
    );
    assert_eq!(words.len() * 4, size_of::<seccomp_data>());
    let (mut accumulator, mut pc, mut steps) = (0, 0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[pc];
        let choose = |condition| usize::from(if condition { jt } else { jf });
        steps += 1;
        pc += 1;
        match u32::from(code) {
            LD => accumulator = words[k as usize / 4],
            AND => accumulator &= k,
            JA => pc += k as usize,
            JEQ => pc += choose(accumulator == k),
            JGE => pc += choose(accumulator >= k),
            RET => return (k, steps),
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// Decides as the documentation of `Policy` says, rule by rule.
struct Naive<'p> {
    policy: &'p Policy,
    arch: Arch,
    rules: HashMap<u32, Vec<&'p Rule>>,
    newest: u32,
}

impl<'p> Naive<'p> {
    fn new(policy: &'p Policy, arch: Arch) -> Naive<'p> {
        let mut rules: HashMap<u32, Vec<&Rule>> = HashMap::new();
        for (number, name) in arch.calls() {
            for rule in &policy.rules {
                if rule.syscalls.iter().any(|n| n == name) {
                    rules.entry(number).or_default().push(rule);
                }
            }
        }
        let newest = rules.keys().filter(|n| **n < 0xf_0000).max().copied();
        Naive {
            policy,
            arch,
            rules,
            newest: newest.unwrap(),
        }
    }

    fn decide(&self, capabilities: CapabilitySet, nr: u32, args: [u64; 6]) -> u32 {
        let holds = |condition: &Condition| {
            let arg = args[usize::from(condition.arg)] & self.arch.word() & condition.mask;
            condition.values.contains(&arg) == condition.within
        };
        let mut rules = self.rules.get(&nr).into_iter().flatten();
        let rule = rules
            .find(|rule| rule.applies(capabilities, KERNEL) && rule.conditions.iter().all(holds));
        let action = match rule {
            Some(rule) => rule.action,
            None if nr > self.newest => self.policy.beyond_newest,
            None => self.policy.default,
        };
        action.value()
    }
}

fn capability_sets() -> Vec<CapabilitySet> {
    let default = CapabilitySet::default_set();
    let mut sets = vec![
        CapabilitySet::EMPTY,
        default,
        CapabilitySet::from_bits(u64::MAX),
    ];
    sets.extend((0..=40).map(|bit| default | CapabilitySet::from_bits(1 << bit)));
    sets
}

fn default_program(native: Arch) -> Code {
    let policy = Policy::default_policy();
    compile(policy, native, KERNEL, CapabilitySet::default_set()).unwrap()
}

fn number(arch: Arch, name: &str) -> u32 {
    let calls = arch.calls();
    calls.iter().find(|call| call.1 == name).unwrap().0
}

fn action(native: Arch, arch: Arch, name: &str, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(
        &default_program(native),
        arch.audit(),
        number(arch, name),
        all,
    )
    .0
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

#[test]
fn program_decides_as_the_policy_for_every_number_and_capability() {
    let policy = Policy::default_policy();
    for native in [Arch::X86_64, Arch::Aarch64] {
        let readers = [native, native.compat().unwrap()].map(|arch| Naive::new(policy, arch));
        for capabilities in capability_sets() {
            let program = compile(policy, native, KERNEL, capabilities).unwrap();
            for naive in &readers {
                let arch = naive.arch;
                let edges = [0x3fff_ffff, 0x4000_0000, 0x4000_0001, u32::MAX];
                for nr in (0..600).chain(0xf_0000..0xf_0008).chain(edges) {
                    assert_eq!(
                        run(&program, arch.audit(), nr, [0; 6]).0,
                        naive.decide(capabilities, nr, [0; 6]),
                        "{arch:?} {nr} {capabilities}"
                    );
                }
            }
        }
    }
}

#[test]
fn program_decides_as_the_policy_for_interesting_arguments() {
    let policy = Policy::default_policy();
    let conditional: Vec<&str> = policy
        .rules
        .iter()
        .filter(|rule| !rule.conditions.is_empty())
        .flat_map(|rule| rule.syscalls.iter().map(String::as_str))
        .collect();
    assert_eq!(conditional, ["socket", "personality", "clone"]);
    let mut values: Vec<u64> = (0..64).map(|bit| 1 << bit).collect();
    values.extend(0..64);
    values.extend([
        0x2_0008,
        0x7e02_0000,
        0xffff_ffff,
        u64::MAX,
        libc::SIGCHLD as u64,
    ]);
    values.extend((36..44).map(|family| family | 1 << 32));
    for native in [Arch::X86_64, Arch::Aarch64] {
        let readers = [native, native.compat().unwrap()].map(|arch| Naive::new(policy, arch));
        for capabilities in capability_sets() {
            let program = compile(policy, native, KERNEL, capabilities).unwrap();
            for naive in &readers {
                let arch = naive.arch;
                for name in &conditional {
                    let nr = number(arch, name);
                    for value in &values {
                        let args = [*value, u64::MAX, 0, 0, 0, 0];
                        assert_eq!(
                            run(&program, arch.audit(), nr, args).0,
                            naive.decide(capabilities, nr, args),
                            "{arch:?} {name} {value:#x} {capabilities}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn conditions_of_every_shape_compile_to_what_they_say() {
    let values = [
        0,
        1,
        2,
        3,
        0x1_0000_0000,
        0x1_0000_0001,
        0x8000_0000_0000_0001,
        u64::MAX,
    ];
    for when in [
        r#"{"arg": 1, "in": ["0x1"]}"#,
        r#"{"arg": 1, "in": ["0x1", "0x100000001", "0x0"]}"#,
        r#"{"arg": 1, "in": ["0x100000000"]}"#,
        r#"{"arg": 1, "not_in": ["0x1"]}"#,
        r#"{"arg": 1, "not_in": ["0x1", "0x100000001"]}"#,
        r#"{"arg": 1, "not_in": ["0x100000001"]}"#,
        r#"{"arg": 1, "bits": 32, "in": ["0x1", "0x2"]}"#,
        r#"{"arg": 1, "bits": 32, "not_in": ["0x1", "0x2"]}"#,
        r#"{"arg": 1, "clear": "0x8000000000000001"}"#,
        r#"{"arg": 1, "clear": "0x2"}, {"arg": 5, "not_in": ["0x3", "0x2"]}, {"arg": 0, "in": ["0x1", "0x0"]}"#,
    ] {
        let json = format!(
            r#"{{"default": "EPERM", "beyond_newest": "ENOSYS", "rules": [
                {{"syscalls": ["read"], "when": [{when}]}},
                {{"syscalls": ["read"], "action": "ENOSYS", "when": [{{"arg": 2, "in": ["0x3"]}}]}},
                {{"syscalls": ["write"]}}]}}"#
        );
        let policy = Policy::parse(&json).unwrap();
        let caps = CapabilitySet::EMPTY;
        let program = compile(&policy, Arch::X86_64, KERNEL, caps).unwrap();
        for arch in [Arch::X86_64, Arch::X86] {
            let naive = Naive::new(&policy, arch);
            let nr = number(arch, "read");
            for first in values {
                for second in values {
                    for last in values {
                        let args = [first, second, last, 0, 0, last];
                        assert_eq!(
                            run(&program, arch.audit(), nr, args).0,
                            naive.decide(caps, nr, args),
                            "{arch:?} {when} {args:x?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn namespaces_need_sys_admin_and_threads_do_not() {
    for native in [Arch::X86_64, Arch::Aarch64] {
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SETTLS) as u64;
        assert_eq!(action(native, native, "clone", &[thread]), ALLOW);
        assert_eq!(
            action(native, native, "clone", &[thread | 0x1000_0000]),
            EPERM
        );
        assert_eq!(action(native, native, "clone3", &[]), ENOSYS);
        for denied in [
            "unshare",
            "setns",
            "mount",
            "umount2",
            "bpf",
            "io_uring_setup",
            "keyctl",
        ] {
            assert_eq!(action(native, native, denied, &[]), EPERM, "{denied}");
        }
        let admin = CapabilitySet::EMPTY.with(Capability::CAP_SYS_ADMIN);
        let program = compile(Policy::default_policy(), native, KERNEL, admin).unwrap();
        for allowed in [
            "clone", "clone3", "unshare", "setns", "mount", "umount2", "bpf",
        ] {
            let nr = number(native, allowed);
            assert_eq!(
                run(&program, native.audit(), nr, [u64::MAX; 6]).0,
                ALLOW,
                "{allowed}"
            );
        }
    }
}

#[test]
fn bits_above_an_int_do_not_hide_a_denied_value() {
    let vsock = libc::AF_VSOCK as u64;
    assert_eq!(
        action(Arch::X86_64, Arch::X86_64, "socket", &[1 << 32 | vsock]),
        EPERM
    );
    assert_eq!(
        action(Arch::X86_64, Arch::X86, "socket", &[1 << 32 | vsock]),
        EPERM
    );
    let newuser = libc::CLONE_NEWUSER as u64;
    assert_eq!(
        action(Arch::X86_64, Arch::X86, "clone", &[1 << 32 | newuser]),
        EPERM
    );
}

#[test]
fn tracing_is_off_before_kernel_4_8() {
    let policy = Policy::default_policy();
    for (kernel, expected) in [(KernelVersion(4, 7), EPERM), (KernelVersion(4, 8), ALLOW)] {
        let caps = CapabilitySet::default_set();
        let program = compile(policy, Arch::X86_64, kernel, caps).unwrap();
        let nr = number(Arch::X86_64, "ptrace");
        assert_eq!(run(&program, Arch::X86_64.audit(), nr, [0; 6]).0, expected);
    }
}

#[test]
fn foreign_architectures_and_x32_do_not_exist() {
    let program = default_program(Arch::X86_64);
    assert_eq!(run(&program, Arch::Aarch64.audit(), 63, [0; 6]).0, ENOSYS);
    assert_eq!(
        run(&program, Arch::X86_64.audit(), 0x4000_0000, [0; 6]).0,
        ENOSYS
    );
}

#[test]
fn calls_newer_than_the_policy_say_enosys_and_gaps_eperm() {
    let program = default_program(Arch::X86_64);
    let answer = |nr| run(&program, Arch::X86_64.audit(), nr, [0; 6]).0;
    assert_eq!(answer(number(Arch::X86_64, "removexattrat")), ALLOW);
    assert_eq!(answer(number(Arch::X86_64, "removexattrat") + 1), ENOSYS);
    assert_eq!(answer(400), EPERM);
}

#[test]
fn programs_are_short_and_common_calls_cheap() {
    for native in [Arch::X86_64, Arch::Aarch64] {
        let program = default_program(native);
        assert!(program.len() < 600, "{native:?}: {}", program.len());
        for name in [
            "read",
            "openat",
            "newfstatat",
            "mmap",
            "futex",
            "clone",
            "close",
        ] {
            let (value, steps) = run(&program, native.audit(), number(native, name), [0; 6]);
            assert_eq!(value, ALLOW);
            assert!(steps <= 16, "{native:?} {name}: {steps}");
        }
    }
}

#[test]
fn branches_longer_than_a_conditional_jump_reach_their_target() {
    for length in [254, 255, 256, 300] {
        let mut then = vec![load(0); length];
        then.push(ret(Action::Allow));
        let mut code = vec![load(0)];
        code.extend(branch(
            libc::BPF_JEQ,
            7,
            then,
            vec![ret(Action::NotPermitted)],
        ));
        assert_eq!(run(&code, 0, 7, [0; 6]).0, ALLOW, "{length}");
        assert_eq!(run(&code, 0, 8, [0; 6]).0, EPERM, "{length}");
    }
}

#[test]
fn oversized_policies_are_errors() {
    let list = |count: u64| {
        let values: Vec<String> = (0..count).map(|n| format!("\"{n:#x}\"")).collect();
        format!(r#"[{{"arg": 0, "in": [{}]}}]"#, values.join(","))
    };
    let json = |rules: &str| {
        format!(r#"{{"default": "EPERM", "beyond_newest": "ENOSYS", "rules": [{rules}]}}"#)
    };
    let compile = |json: &str| {
        let policy = Policy::parse(json).unwrap();
        compile(&policy, Arch::X86_64, KERNEL, CapabilitySet::EMPTY).map(drop)
    };
    let wide = format!(r#"{{"syscalls": ["read"], "when": {}}}"#, list(300));
    assert!(matches!(
        compile(&json(&wide)),
        Err(SeccompError::TooManyValues)
    ));
    // Every second call, so that no two share their code.
    let calls = Arch::X86_64.calls();
    let names: Vec<String> = calls
        .iter()
        .step_by(2)
        .map(|c| format!("{:?}", c.1))
        .collect();
    let (names, when) = (names.join(","), list(60));
    let long = format!(r#"{{"syscalls": [{names}], "when": {when}}}"#);
    assert!(matches!(compile(&json(&long)), Err(SeccompError::TooLong(n)) if n > 4096));
}
