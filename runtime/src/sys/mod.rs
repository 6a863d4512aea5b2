//! System calls that nix lacks, as safe functions. The only place with `unsafe`.
//!
//! Every function here is a thin shell over one call; what it means is decided above.

pub(crate) mod child;
pub mod file;
pub mod mount;
pub mod process;
pub mod seccomp;
pub mod terminal;

pub use nix::errno::Errno;

/// Turns the return value of a raw system call into a result.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(result)
    }
}
