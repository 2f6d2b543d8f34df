//! Waiting for a process of a container: signals go to it, its terminal is ours, its exit code is ours.

use std::os::fd::RawFd;

use pyrt_container::sys::{self, Ended};

use crate::console::{Raw, copy_size};
use crate::error::{Error, Result};

/// For whoever makes a process that runs at once: what is sent to us as soon as it is seen has to reach it. What is made
/// for a container has its own mask again.
pub fn block_signals() {
    sys::set_signal_mask(u64::MAX);
}

/// Signals are taken from a descriptor from here on.
pub fn hold_signals() -> Result<RawFd> {
    block_signals();
    // SAFETY: a full set is a value of `sigset_t`; signalfd(2) copies it.
    let fd = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC)
    };
    if fd < 0 { Err(Error::new("no descriptor for signals")) } else { Ok(fd) }
}

/// Waits for the child `pid`; returns the exit code as a shell has it.
pub fn attend(pid: i32, terminal: Option<RawFd>, signals: RawFd) -> Result<u8> {
    let _raw = terminal.and_then(|_| Raw::enter());
    if let Some(master) = terminal {
        copy_size(master);
    }
    // Before signals were held one may have been lost.
    if let Some(ended) = sys::wait(pid, false).map_err(|errno| Error::call("waiting for the container", errno))? {
        if let Some(master) = terminal {
            while pump(master, 1) {}
        }
        return Ok(exit_code(ended));
    }
    let readable = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut entries = [readable(signals), readable(terminal.unwrap_or(-1)), readable(terminal.map_or(-1, |_| 0))];
    loop {
        sys::poll(&mut entries, -1).map_err(|errno| Error::call("waiting for the container", errno))?;
        if entries[1].revents != 0 && !pump(entries[1].fd, 1) {
            entries[1].fd = -1;
        }
        if entries[2].revents != 0 && !pump(0, entries[1].fd) {
            entries[2].fd = -1;
        }
        if entries[0].revents != 0 {
            if let Some(ended) = take_signal(signals, pid, terminal)? {
                while terminal.is_some_and(|master| entries[1].fd >= 0 && pump(master, 1)) {}
                return Ok(exit_code(ended));
            }
        }
    }
}

/// Moves one piece; false at the end. A terminal whose other side is closed reads as EIO.
fn pump(from: RawFd, to: RawFd) -> bool {
    let mut piece = [0; 16 * 1024];
    let Ok(length @ 1..) = sys::read(from, &mut piece) else { return false };
    let mut rest = &piece[..length];
    while !rest.is_empty() {
        // SAFETY: a buffer of ours and its length.
        match unsafe { libc::write(to, rest.as_ptr().cast(), rest.len()) } {
            written @ 1.. => rest = &rest[written as usize..],
            _ => return false,
        }
    }
    true
}

fn take_signal(signals: RawFd, pid: i32, terminal: Option<RawFd>) -> Result<Option<Ended>> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    sys::read(signals, &mut info).map_err(|errno| Error::call("reading a signal", errno))?;
    let signal = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
    match (signal, terminal) {
        (libc::SIGCHLD, _) => sys::wait(pid, false).map_err(|errno| Error::call("waiting for the container", errno)),
        (libc::SIGWINCH, Some(master)) => {
            copy_size(master);
            Ok(None)
        }
        _ => {
            let _ = sys::kill(pid, signal);
            Ok(None)
        }
    }
}

fn exit_code(ended: Ended) -> u8 {
    let code = ended.code.unwrap_or_else(|| 128 + ended.signal.unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}
