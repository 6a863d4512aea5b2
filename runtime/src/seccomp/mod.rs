//! The seccomp filter of a step: a policy as data, compiled to BPF once per build.
//!
//! The default policy has the effect of Docker's: a list of what is allowed, parts of it
//! only with a capability; the rest fails with EPERM, and calls newer than the policy with
//! ENOSYS, as runc does. Two things differ on purpose: an argument that the kernel reads as
//! an int is compared as one, so that bits which it ignores can't hide a value; and the x32
//! calls of x86_64, which most kernels lack anyway, don't exist.
//!
//! As under Docker, 32-bit x86 programs may use socketcall(2), whose arguments no filter can
//! read: for them the families that socket(2) is denied are not out of reach.
//!
//! ```no_run
//! use kiln_runtime::capability::CapabilitySet;
//! use kiln_runtime::{seccomp::Policy, sys};
//!
//! let program = Policy::default_policy().compile(CapabilitySet::default_set())?;
//! // …then, in the child:
//! sys::seccomp::install(program.as_slice())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arch;
mod compiler;
#[cfg(test)]
mod oracle;
mod policy;

use std::sync::LazyLock;

pub use arch::Arch;
pub use policy::{KernelVersion, Policy};

use crate::capability::{CapabilitySet, UnknownCapability};

/// A policy that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The policy is not in the format of `resources/seccomp.json`.
    #[error("seccomp policy: {0}")]
    Format(#[from] serde_json::Error),
    /// No architecture has such a call.
    #[error("seccomp policy: unknown system call {0:?}")]
    UnknownSyscall(String),
    /// A rule asks for a capability that does not exist.
    #[error("seccomp policy: {0}")]
    UnknownCapability(#[from] UnknownCapability),
    /// A value of an argument is neither a number nor a known constant.
    #[error("seccomp policy: unknown value {0:?}")]
    UnknownValue(String),
    /// A rule asks for a kernel version that is none.
    #[error("seccomp policy: {0:?} is no kernel version")]
    Kernel(String),
    /// A condition on an argument makes no sense.
    #[error("seccomp policy: condition: {0}")]
    Condition(&'static str),
    /// A condition lists more values than a jump can cross.
    #[error("seccomp policy: a condition has too many values")]
    TooManyValues,
    /// The program is longer than the kernel takes.
    #[error("seccomp policy: its program has {0} instructions, and the kernel takes 4096")]
    TooLong(usize),
    /// There is no table of system calls for this machine.
    #[error("no seccomp policy for {}", std::env::consts::ARCH)]
    Architecture,
}

impl SeccompError {
    /// Returns the remedy to show below the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            SeccompError::UnknownCapability(error) => error.hint(),
            SeccompError::Architecture => {
                Some("steps are sandboxed on x86_64 and aarch64 (little-endian) only".to_owned())
            }
            _ => None,
        }
    }
}

/// A filter that is ready to be installed.
#[derive(Clone, Debug)]
pub struct Program(Vec<libc::sock_filter>);

impl Program {
    /// Returns the instructions, for [`crate::sys::seccomp::install`].
    pub fn as_slice(&self) -> &[libc::sock_filter] {
        &self.0
    }
}

impl Policy {
    /// Returns the policy that steps run under unless told otherwise.
    pub fn default_policy() -> &'static Policy {
        static DEFAULT: LazyLock<Policy> = LazyLock::new(|| {
            Policy::parse(include_str!("../../resources/seccomp.json"))
                .expect("tests hold that the embedded policy parses")
        });
        &DEFAULT
    }

    /// Compiles the policy for this machine and a step with these capabilities.
    pub fn compile(&self, capabilities: CapabilitySet) -> Result<Program, SeccompError> {
        let arch = Arch::native().ok_or(SeccompError::Architecture)?;
        self.compile_for(arch, KernelVersion::running(), capabilities)
    }

    /// Compiles the policy for a machine with the given architecture and kernel.
    pub fn compile_for(
        &self,
        arch: Arch,
        kernel: KernelVersion,
        capabilities: CapabilitySet,
    ) -> Result<Program, SeccompError> {
        compiler::compile(self, arch, kernel, capabilities).map(Program)
    }
}
