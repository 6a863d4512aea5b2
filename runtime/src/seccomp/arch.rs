//! Architectures and their system call numbers.

/// An architecture as a seccomp filter tells them apart: one table of numbers each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Arm,
}

// From <linux/audit.h>.
const LITTLE_ENDIAN: u32 = 0x4000_0000;
const BITS_64: u32 = 0x8000_0000;

/// The calls of 32-bit ARM that are not in its table: <asm/unistd.h> gives them a range
/// of its own. libc makes them for code that it wrote and for thread-local data.
const ARM_PRIVATE: [(u32, &str); 3] = [
    (0xf_0001, "breakpoint"),
    (0xf_0002, "cacheflush"),
    (0xf_0005, "set_tls"),
];

impl Arch {
    /// All architectures, for checks that are not about one.
    pub(super) const ALL: [Arch; 4] = [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm];

    /// Returns the architecture of this process, where there is a table for it.
    pub fn native() -> Option<Arch> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Arch::X86_64)
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            Some(Arch::Aarch64)
        } else {
            None
        }
    }

    /// Returns the other architecture whose programs run on the same kernel.
    pub(super) fn compat(self) -> Option<Arch> {
        match self {
            Arch::X86_64 => Some(Arch::X86),
            Arch::Aarch64 => Some(Arch::Arm),
            Arch::X86 | Arch::Arm => None,
        }
    }

    /// Returns the value of `seccomp_data.arch` (`AUDIT_ARCH_…`).
    pub(super) fn audit(self) -> u32 {
        match self {
            Arch::X86_64 => u32::from(libc::EM_X86_64) | BITS_64 | LITTLE_ENDIAN,
            Arch::X86 => u32::from(libc::EM_386) | LITTLE_ENDIAN,
            Arch::Aarch64 => u32::from(libc::EM_AARCH64) | BITS_64 | LITTLE_ENDIAN,
            Arch::Arm => u32::from(libc::EM_ARM) | LITTLE_ENDIAN,
        }
    }

    /// Returns the bits of an argument that the kernel looks at.
    pub(super) fn word(self) -> u64 {
        match self {
            Arch::X86_64 | Arch::Aarch64 => u64::MAX,
            Arch::X86 | Arch::Arm => u64::from(u32::MAX),
        }
    }

    /// Returns the number and name of each system call, in the order of numbers.
    pub(super) fn calls(self) -> Vec<(u32, &'static str)> {
        // Not Sysno::iter(): it leaves out the last one.
        macro_rules! table {
            ($arch:ident) => {
                (0..=syscalls::$arch::Sysno::last().id() as u32)
                    .filter_map(|number| {
                        let call = syscalls::$arch::Sysno::new(number as usize)?;
                        Some((number, call.name()))
                    })
                    .collect::<Vec<_>>()
            };
        }
        match self {
            Arch::X86_64 => table!(x86_64),
            Arch::X86 => table!(x86),
            Arch::Aarch64 => {
                let mut calls = table!(aarch64);
                for (_, name) in &mut calls {
                    // The tables disagree about the name of one call.
                    if *name == "fstatat" {
                        *name = "newfstatat";
                    }
                }
                calls
            }
            Arch::Arm => {
                let mut calls = table!(arm);
                calls.extend(ARM_PRIVATE);
                calls
            }
        }
    }

    /// Tells whether a number counts when the newest known call is looked for.
    pub(super) fn is_in_sequence(self, number: u32) -> bool {
        self != Arch::Arm || number < ARM_PRIVATE[0].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(arch: Arch, wanted: &str) -> Option<u32> {
        let calls = arch.calls();
        calls.iter().find(|(_, name)| *name == wanted).map(|c| c.0)
    }

    #[test]
    fn tables_are_sorted_and_complete_at_both_ends() {
        for arch in Arch::ALL {
            let calls = arch.calls();
            assert!(calls.is_sorted_by(|a, b| a.0 < b.0), "{arch:?}");
            assert!(number(arch, "file_setattr").is_some(), "{arch:?}");
        }
        assert_eq!(number(Arch::X86_64, "read"), Some(0));
        assert_eq!(number(Arch::X86, "socketcall"), Some(102));
        assert_eq!(number(Arch::Arm, "set_tls"), Some(0xf_0005));
    }

    #[test]
    fn aarch64_knows_the_call_behind_stat() {
        assert_eq!(number(Arch::Aarch64, "newfstatat"), Some(79));
    }

    #[test]
    fn table_of_this_machine_agrees_with_libc() {
        let native = Arch::native().expect("tests run on x86_64 or aarch64");
        for (name, expected) in [
            ("openat", libc::SYS_openat),
            ("clone3", libc::SYS_clone3),
            ("newfstatat", libc::SYS_newfstatat),
            ("mseal", libc::SYS_mseal),
        ] {
            assert_eq!(number(native, name), Some(expected as u32), "{name}");
        }
    }
}
