//! Installing a seccomp filter.

use std::ptr;

use nix::errno::Errno;

/// Installs a filter for the calling thread and for all that it starts, for good.
///
/// Needs CAP_SYS_ADMIN in the thread's user namespace, or no_new_privs; a step installs
/// it before it gives up its capabilities, so that setuid programs still work in it.
/// Async-signal-safe: allocates nothing and takes no lock, so it may run after a fork.
///
/// The filter asks for no speculation barriers (SPEC_ALLOW): those of Linux before 5.16
/// slow all code of a step down, and runc does without them too.
pub fn install(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    match set_mode_filter(&filter, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) {
        // The flag came with Linux 4.17. A filter that is refused is refused twice.
        Err(Errno::EINVAL) => set_mode_filter(&filter, 0),
        result => result,
    }
}

fn set_mode_filter(filter: &libc::sock_fprog, flags: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: `filter` points to as many instructions as it says, borrowed for the call;
    // the kernel only reads them, and copies and checks them before it uses them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            ptr::from_ref(filter),
        )
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::CapabilitySet;
    use crate::seccomp::Policy;

    /// Makes one system call in a thread of its own below the default filter.
    fn filtered(number: libc::c_long, args: [u64; 4]) -> Result<libc::c_long, Errno> {
        let program = Policy::default_policy()
            .compile(CapabilitySet::default_set())
            .unwrap();
        std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            install(program.as_slice()).unwrap();
            // SAFETY: the tests below pass no pointers, and only calls that fail or
            // change nothing.
            Errno::result(unsafe { libc::syscall(number, args[0], args[1], args[2], args[3]) })
        })
        .join()
        .unwrap()
    }

    #[test]
    fn kernel_refuses_an_empty_program() {
        assert_eq!(install(&[]), Err(Errno::EINVAL));
    }

    #[test]
    fn kernel_answers_as_the_policy_says() {
        assert!(filtered(libc::SYS_getpid, [0; 4]).is_ok());
        for denied in [
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_io_uring_setup,
            libc::SYS_bpf,
            libc::SYS_unshare,
            libc::SYS_mount,
            libc::SYS_pivot_root,
            libc::SYS_userfaultfd,
        ] {
            assert_eq!(filtered(denied, [0; 4]), Err(Errno::EPERM), "{denied}");
        }
        assert_eq!(filtered(libc::SYS_clone3, [0; 4]), Err(Errno::ENOSYS));
        assert_eq!(filtered(5000, [0; 4]), Err(Errno::ENOSYS));
    }

    #[test]
    fn kernel_compares_arguments_as_the_policy_says() {
        const ADDR_NO_RANDOMIZE: u64 = 0x0004_0000;
        assert!(filtered(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]).is_ok());
        assert_eq!(
            filtered(libc::SYS_personality, [ADDR_NO_RANDOMIZE, 0, 0, 0]),
            Err(Errno::EPERM)
        );
        let vsock = libc::AF_VSOCK as u64;
        let stream = libc::SOCK_STREAM as u64;
        assert_eq!(
            filtered(libc::SYS_socket, [vsock, stream, 0, 0]),
            Err(Errno::EPERM)
        );
        // The kernel reads an int: the upper half must not hide the family.
        assert_eq!(
            filtered(libc::SYS_socket, [vsock | 1 << 32, stream, 0, 0]),
            Err(Errno::EPERM)
        );
        let fd = filtered(libc::SYS_socket, [libc::AF_UNIX as u64, stream, 0, 0]);
        assert!(fd.is_ok());
        // SAFETY: the descriptor was made above and is known to nothing else.
        unsafe { libc::close(fd.unwrap() as i32) };
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn x32_calls_do_not_exist() {
        const X32: libc::c_long = 0x4000_0000;
        assert_eq!(filtered(X32 | libc::SYS_getpid, [0; 4]), Err(Errno::ENOSYS));
    }
}
