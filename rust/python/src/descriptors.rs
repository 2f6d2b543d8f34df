//! Descriptors that Python passes in: theirs stay theirs.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use pyo3::prelude::*;

use crate::errors::host_error;

/// A descriptor of our own for what `fd` refers to; also the proof that it is one.
pub fn duplicate(fd: RawFd) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(pyo3::exceptions::PyValueError::new_err(format!("{fd} is no descriptor")));
    }
    // SAFETY: not negative; if it is closed, fcntl(2) says EBADF and nothing was borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 3)
        .map_err(|errno| host_error(&format!("using descriptor {fd}"), &errno.into()))
}
