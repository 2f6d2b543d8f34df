//! The instruction `syscall` as a function: what the command, which has no C library, and the code between clone and exec,
//! which may not use its `errno`, have in common.

#![no_std]

use core::ffi::{c_int, c_long};
use core::fmt;

/// A descriptor that somebody else owns.
pub type Fd = c_int;

/// The kernel's error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub c_int);

/// What every call here returns.
pub type Result<T> = core::result::Result<T, Errno>;

impl Errno {
    /// Not now.
    pub const AGAIN: Self = Self(libc::EAGAIN);
    /// A signal came first.
    pub const INTR: Self = Self(libc::EINTR);
    /// Not for this kind of descriptor.
    pub const INVAL: Self = Self(libc::EINVAL);
    /// What a terminal says that nobody has open any more.
    pub const IO: Self = Self(libc::EIO);
    /// Nobody reads.
    pub const PIPE: Self = Self(libc::EPIPE);
    /// The other side has closed without reading all.
    pub const CONNRESET: Self = Self(libc::ECONNRESET);
    /// Nobody listens.
    pub const CONNREFUSED: Self = Self(libc::ECONNREFUSED);
    /// No such name.
    pub const NOENT: Self = Self(libc::ENOENT);
    /// A part of the path is no folder.
    pub const NOTDIR: Self = Self(libc::ENOTDIR);
    /// No right to it.
    pub const ACCES: Self = Self(libc::EACCES);
    /// Not for this user.
    pub const PERM: Self = Self(libc::EPERM);
    /// Longer than a name may be.
    pub const NAMETOOLONG: Self = Self(libc::ENAMETOOLONG);
}

/// The C library's words, for what the client's user can meet.
impl fmt::Display for Errno {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            libc::EPERM => "Operation not permitted",
            libc::ENOENT => "No such file or directory",
            libc::EINTR => "Interrupted system call",
            libc::EIO => "Input/output error",
            libc::ENXIO => "No such device or address",
            libc::E2BIG => "Argument list too long",
            libc::ENOEXEC => "Exec format error",
            libc::EBADF => "Bad file descriptor",
            libc::EAGAIN => "Resource temporarily unavailable",
            libc::ENOMEM => "Cannot allocate memory",
            libc::EACCES => "Permission denied",
            libc::EEXIST => "File exists",
            libc::ENODEV => "No such device",
            libc::ENOTDIR => "Not a directory",
            libc::EISDIR => "Is a directory",
            libc::EINVAL => "Invalid argument",
            libc::ENFILE => "Too many open files in system",
            libc::EMFILE => "Too many open files",
            libc::ETXTBSY => "Text file busy",
            libc::EFBIG => "File too large",
            libc::ENOSPC => "No space left on device",
            libc::EROFS => "Read-only file system",
            libc::EPIPE => "Broken pipe",
            libc::ENAMETOOLONG => "File name too long",
            libc::ENOSYS => "Function not implemented",
            libc::ELOOP => "Too many levels of symbolic links",
            libc::EPROTOTYPE => "Protocol wrong type for socket",
            libc::EAFNOSUPPORT => "Address family not supported by protocol",
            libc::ECONNRESET => "Connection reset by peer",
            libc::ENOBUFS => "No buffer space available",
            libc::ECONNREFUSED => "Connection refused",
            libc::ESTALE => "Stale file handle",
            libc::EDQUOT => "Disk quota exceeded",
            libc::ETOOMANYREFS => "Too many references: cannot splice",
            other => return write!(out, "error {other}"),
        };
        out.write_str(words)
    }
}

/// An argument as the register takes it.
pub trait Word {
    /// All of it.
    fn word(self) -> usize;
}

macro_rules! words {
    ($($kind:ty),*) => {$(
        impl Word for $kind {
            fn word(self) -> usize {
                self as usize
            }
        }
    )*};
}

words!(i32, u32, u64, usize);

impl<T> Word for *const T {
    fn word(self) -> usize {
        self as usize
    }
}

impl<T> Word for *mut T {
    fn word(self) -> usize {
        self as usize
    }
}

/// The instruction itself: `errno` of a C library is one place in memory, which keeper and child may share.
///
/// # Safety
/// As the call asks for.
#[inline]
pub unsafe fn system_call<const N: usize>(number: c_long, given: [usize; N]) -> Result<usize> {
    let mut words = [0; 6];
    words[..N].copy_from_slice(&given);
    let result: isize;
    // SAFETY: the registers that x86-64 says, of which the kernel changes three.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") words[0],
            in("rsi") words[1],
            in("rdx") words[2],
            in("r10") words[3],
            in("r8") words[4],
            in("r9") words[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    // The last page of addresses stands for errors: mmap(2) returns what would be negative as a number.
    if (-4095..0).contains(&result) { Err(Errno(-result as c_int)) } else { Ok(result as usize) }
}

/// Of a call that returns nothing but success.
pub fn nothing(result: Result<usize>) -> Result<()> {
    result.map(|_| ())
}
