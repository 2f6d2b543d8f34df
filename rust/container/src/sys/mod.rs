//! The kernel, one function a system call, for code that runs between clone and exec.
//!
//! Nothing here allocates, locks or touches `errno`'s owner beyond the call itself, so all of it may be
//! used in a child that was cloned from a running process. Descriptors are plain numbers: their
//! owner is the slot table of [`crate::execute`].

pub use pyrt_syscall::{Errno, Fd, Result};

macro_rules! call {
    ($number:ident $(, $argument:expr)* $(,)?) => {{
        // SAFETY: the arguments are numbers, or pointers into memory that the caller borrows for the
        // length of the call, with the lengths that the kernel's documentation of this call asks for.
        unsafe { pyrt_syscall::system_call(libc::$number, [$(pyrt_syscall::Word::word($argument)),*]) }
    }};
}

mod files;
mod mounts;
mod processes;
mod sockets;

pub use files::*;
pub use mounts::*;
pub use processes::*;
pub use sockets::*;

fn descriptor(result: Result<usize>) -> Result<Fd> {
    result.map(|fd| fd as Fd)
}
