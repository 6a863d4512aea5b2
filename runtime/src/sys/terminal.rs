//! Terminals: the one that a child gets in its sandbox, and the modes of the caller's.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::{Errno, check};
use crate::spec::WindowSize;

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

fn winsize(size: WindowSize) -> libc::winsize {
    libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Returns the size of a terminal.
///
/// # Errors
/// ENOTTY.
pub fn window_size(terminal: BorrowedFd<'_>) -> Result<WindowSize, Errno> {
    let mut size = winsize(WindowSize::default());
    // SAFETY: the call fills a struct winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }.into())?;
    Ok(WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Sets the size of a terminal, from either end.
///
/// # Errors
/// ENOTTY.
pub fn set_window_size(terminal: BorrowedFd<'_>, size: WindowSize) -> Result<(), Errno> {
    let size = winsize(size);
    // SAFETY: the call reads a struct winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into())?;
    Ok(())
}

/// How many bytes [`Modes`] has.
const MODES: usize = size_of::<libc::termios>();

/// The modes of a terminal, as bytes that another process of the same binary can set again.
pub type Modes = [u8; MODES];

fn bytes_of(termios: &libc::termios) -> Modes {
    let mut modes = [0; MODES];
    // SAFETY: both have that many bytes, and a struct termios has no padding that matters: the
    // value was zeroed before the kernel filled it.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(termios).cast(),
            modes.as_mut_ptr(),
            MODES,
        );
    }
    modes
}

fn termios_of(modes: &Modes) -> libc::termios {
    // SAFETY: a struct termios is integers only: every pattern of its bytes is valid.
    unsafe { std::ptr::read_unaligned(modes.as_ptr().cast()) }
}

/// Returns the modes of a terminal.
///
/// # Errors
/// ENOTTY.
pub fn modes(terminal: BorrowedFd<'_>) -> Result<Modes, Errno> {
    // SAFETY: a struct termios is plain data that the call fills.
    let termios = unsafe {
        let mut termios: libc::termios = std::mem::zeroed();
        check(libc::tcgetattr(terminal.as_raw_fd(), &raw mut termios).into())?;
        termios
    };
    Ok(bytes_of(&termios))
}

/// Returns the modes in which every byte passes as it is.
pub fn raw(modes: &Modes) -> Modes {
    let mut termios = termios_of(modes);
    // SAFETY: changes fields of a valid struct.
    unsafe { libc::cfmakeraw(&raw mut termios) };
    bytes_of(&termios)
}

/// Sets the modes of a terminal at once.
///
/// # Errors
/// ENOTTY, EIO.
pub fn set_modes(terminal: BorrowedFd<'_>, modes: &Modes) -> Result<(), Errno> {
    let termios = termios_of(modes);
    // SAFETY: reads a valid struct.
    let result =
        unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const termios) };
    check(result.into())?;
    Ok(())
}

/// In a child: opens a new terminal of the sandbox, takes it as the controlling one and as the
/// first three descriptors, and sends its other end through `sync`.
pub(super) fn take(sync: RawFd, owner: u32, size: WindowSize) -> Result<(), Errno> {
    let size = winsize(size);
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: NUL-terminated path; descriptors are this process's own; the ioctls read an int
    // and a struct winsize; statfs is plain data that the call fills.
    unsafe {
        let ptmx = super::child::open_real(c"/dev/pts/ptmx", flags)?;
        // In a container that runs, it may be anything.
        let mut fs: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(ptmx, &raw mut fs).into())?;
        if fs.f_type as i64 != DEVPTS_SUPER_MAGIC {
            return Err(Errno::ENOTTY);
        }
        let unlock: libc::c_int = 0;
        check(libc::ioctl(ptmx, libc::TIOCSPTLCK, &raw const unlock).into())?;
        let peer = check(libc::ioctl(ptmx, libc::TIOCGPTPEER, flags).into())? as RawFd;
        check(libc::ioctl(peer, libc::TIOCSWINSZ, &raw const size).into())?;
        check(libc::fchown(peer, owner, u32::MAX).into())?;
        check(libc::ioctl(peer, libc::TIOCSCTTY, 0).into())?;
        send(sync, ptmx)?;
        // The two are closed with all others a moment later.
        for fd in 0..3 {
            check(libc::dup2(peer, fd).into())?;
        }
    }
    Ok(())
}

/// Sends a descriptor with one byte.
fn send(socket: RawFd, fd: RawFd) -> Result<(), Errno> {
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    let mut byte = 0u8;
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: the message refers to values that outlive the call; the control buffer is aligned,
    // and large enough for one descriptor.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control.0).cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        std::ptr::write_unaligned(libc::CMSG_DATA(header).cast::<RawFd>(), fd);
        check(libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) as libc::c_long)?;
    }
    Ok(())
}
