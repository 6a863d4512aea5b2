//! From a policy to a BPF program.
//!
//! The program loads the architecture, then finds the call's number by binary search over
//! spans of numbers with the same outcome; neighbours share a span, so that some seventy
//! are left and a call costs about ten instructions. Where an outcome hangs on arguments,
//! the leaf goes on to compare them.
//!
//! Classic BPF only jumps forward, and its conditional jumps reach 255 instructions. Code
//! is therefore put together from the inside out, as pieces whose length is known.

use std::collections::HashMap;
use std::mem::offset_of;

use libc::{seccomp_data, sock_filter};

use super::policy::{Action, Condition, Rule};
use super::{Arch, KernelVersion, Policy, SeccompError};
use crate::capability::CapabilitySet;

/// The kernel's limit for one program (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// A piece of a program.
type Code = Vec<sock_filter>;

/// What happens to one system call: the first case whose conditions hold, else the rest.
#[derive(Clone, PartialEq, Eq)]
struct Outcome<'p> {
    cases: Vec<(&'p [Condition], Action)>,
    otherwise: Action,
}

/// Returns the program for `native` and for the architecture that runs beside it.
pub(super) fn compile(
    policy: &Policy,
    native: Arch,
    kernel: KernelVersion,
    capabilities: CapabilitySet,
) -> Result<Code, SeccompError> {
    let mut rules: HashMap<&str, Vec<(&Rule, bool)>> = HashMap::new();
    for rule in &policy.rules {
        let applies = rule.applies(capabilities, kernel);
        for name in &rule.syscalls {
            rules.entry(name).or_default().push((rule, applies));
        }
    }
    let mut dispatch = vec![ret(Action::NotImplemented)];
    for arch in native.compat().into_iter().chain([native]) {
        let mut section = vec![load(offset_of!(seccomp_data, nr))];
        let spans = spans(policy, &rules, arch);
        section.extend(search(&spans, arch)?);
        dispatch = branch(libc::BPF_JEQ, arch.audit(), section, dispatch);
    }
    let mut program = vec![load(offset_of!(seccomp_data, arch))];
    program.extend(dispatch);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(program.len()));
    }
    Ok(program)
}

/// Returns the numbers at which the outcome changes, from 0 on, each with the new outcome.
fn spans<'p>(
    policy: &'p Policy,
    rules: &HashMap<&str, Vec<(&'p Rule, bool)>>,
    arch: Arch,
) -> Vec<(u32, Outcome<'p>)> {
    let calls = arch.calls();
    let newest = calls
        .iter()
        .filter(|(number, name)| arch.is_in_sequence(*number) && rules.contains_key(name))
        .map(|(number, _)| *number)
        .max();
    let unruled = |number: u32| Outcome {
        cases: Vec::new(),
        otherwise: if Some(number) <= newest {
            policy.default
        } else {
            policy.beyond_newest
        },
    };
    let mut spans: Vec<(u32, Outcome)> = Vec::new();
    let mut push = |start: u32, outcome: Outcome<'p>| {
        if spans.last().is_none_or(|(_, last)| *last != outcome) {
            spans.push((start, outcome));
        }
    };
    let mut next = 0;
    for (number, name) in calls {
        if number > next {
            // The newest call stands in the table, so no gap lies on both sides of it.
            push(next, unruled(next));
        }
        let mut outcome = unruled(number);
        for (rule, _) in rules.get(name).into_iter().flatten().filter(|r| r.1) {
            if rule.conditions.is_empty() {
                outcome.otherwise = rule.action;
                break;
            }
            outcome.cases.push((&rule.conditions, rule.action));
        }
        push(number, outcome);
        next = number + 1;
    }
    push(next, unruled(next));
    spans
}

/// Returns code that finds the span of the number in the accumulator.
fn search(spans: &[(u32, Outcome)], arch: Arch) -> Result<Code, SeccompError> {
    match spans {
        [(_, outcome)] => decide(outcome, arch),
        _ => {
            let (low, high) = spans.split_at(spans.len() / 2);
            Ok(branch(
                libc::BPF_JGE,
                high[0].0,
                search(high, arch)?,
                search(low, arch)?,
            ))
        }
    }
}

/// Returns code that ends with the action for the arguments at hand.
fn decide(outcome: &Outcome, arch: Arch) -> Result<Code, SeccompError> {
    let mut code = Code::new();
    for (conditions, action) in &outcome.cases {
        let mut case = vec![ret(*action)];
        for condition in conditions.iter().rev() {
            let mut test = test(condition, arch, case.len())?;
            test.extend(case);
            case = test;
        }
        code.extend(case);
    }
    code.push(ret(outcome.otherwise));
    Ok(code)
}

/// Returns code that falls through where the condition holds, and else jumps over the
/// `skip` instructions that follow it.
fn test(condition: &Condition, arch: Arch, skip: usize) -> Result<Code, SeccompError> {
    // The upper half of an argument of a 32-bit call may hold anything: the kernel
    // ignores it, and so must the filter.
    let mask = condition.mask & arch.word();
    let values = condition.values.iter().filter(|v| *v & !mask == 0);
    let (found, exhausted) = match condition.within {
        true => (0, skip),
        false => (skip, 0),
    };
    let mut code = Code::new();
    for value in values.rev() {
        let miss = if code.is_empty() { exhausted } else { 0 };
        let mut compare = equals(condition.arg, mask, *value, code.len() + found, miss)?;
        compare.extend(code);
        code = compare;
    }
    if code.is_empty() && exhausted > 0 {
        code.push(always(exhausted));
    }
    Ok(code)
}

/// Returns code that compares `argument & mask` with `value`: word by word, since the
/// machine has 32 bits. It jumps over `found` or `miss` instructions after its end.
fn equals(arg: u8, mask: u64, value: u64, found: usize, miss: usize) -> Result<Code, SeccompError> {
    let offset = offset_of!(seccomp_data, args) + usize::from(arg) * size_of::<u64>();
    let (low, high) = (offset, offset + size_of::<u32>());
    let mut code = word(low, mask as u32);
    code.push(jump(libc::BPF_JEQ, value as u32, found, miss)?);
    if mask >> 32 != 0 {
        let mut both = word(high, (mask >> 32) as u32);
        both.push(jump(
            libc::BPF_JEQ,
            (value >> 32) as u32,
            0,
            code.len() + miss,
        )?);
        both.extend(code);
        code = both;
    }
    Ok(code)
}

/// Returns code that loads a word and masks it.
fn word(offset: usize, mask: u32) -> Code {
    let mut code = vec![load(offset)];
    if mask != u32::MAX {
        let and = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
        code.push(instruction(and, mask, 0, 0));
    }
    code
}

/// Returns code that goes to one of two pieces, neither of which runs past its end.
fn branch(comparison: u32, operand: u32, then: Code, otherwise: Code) -> Code {
    let jump_over_then = u8::try_from(then.len());
    let code = libc::BPF_JMP | comparison | libc::BPF_K;
    let mut branch = match jump_over_then {
        Ok(distance) => vec![instruction(code, operand, 0, distance)],
        // Too far for a conditional jump.
        Err(_) => vec![instruction(code, operand, 1, 0), always(then.len())],
    };
    branch.extend(then);
    branch.extend(otherwise);
    branch
}

fn jump(
    comparison: u32,
    operand: u32,
    if_true: usize,
    if_false: usize,
) -> Result<sock_filter, SeccompError> {
    let short = |n: usize| u8::try_from(n).map_err(|_| SeccompError::TooManyValues);
    let code = libc::BPF_JMP | comparison | libc::BPF_K;
    Ok(instruction(
        code,
        operand,
        short(if_true)?,
        short(if_false)?,
    ))
}

fn always(distance: usize) -> sock_filter {
    // A distance beyond 32 bits belongs to a program far beyond MAX_INSTRUCTIONS.
    instruction(libc::BPF_JMP | libc::BPF_JA, distance as u32, 0, 0)
}

fn load(offset: usize) -> sock_filter {
    let code = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    instruction(code, offset as u32, 0, 0)
}

fn ret(action: Action) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action.value(), 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // All codes of classic BPF fit into 16 bits.
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

impl Action {
    /// Returns the value that a filter gives back for the action.
    pub(super) fn value(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::NotPermitted => libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
            Action::NotImplemented => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        }
    }
}

#[cfg(test)]
mod tests;
