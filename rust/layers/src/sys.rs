//! The system calls of this crate that are more than one line, and the state of the threads that make them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;

/// How directories are opened: for reading, so that their times and attributes can be set by the descriptor.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Opens the directory `name`, which is one part, in `parent`. A symbolic link there is ENOTDIR or ELOOP.
pub(crate) fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    openat(parent, name, DIRECTORY, Mode::empty())
}

/// Opens the directory at `path`, whose parts are real directories of one file system below `above`.
pub(crate) fn open_beneath(above: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(above, path, DIRECTORY, Mode::empty(), resolve)
}

/// Opens whatever `name` is, only to point at it.
pub(crate) fn open_path(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The name by which calls without a descriptor variant reach what a descriptor of [`open_path`] points at. The kernel
/// does not follow a link that the descriptor itself is.
pub(crate) fn by_descriptor(fd: impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Writes all of `bytes`.
pub(crate) fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_all_at(fd: impl AsFd, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&fd, bytes, offset) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives the calling thread a umask of its own, of 0, so that files are made with exactly the mode that is asked for.
/// False if it may not have one. Only for threads that end with the work.
pub(crate) fn own_umask() -> bool {
    // SAFETY: the thread's root, working directory and umask become private copies; no memory is concerned, and the
    // thread was made by this crate, so that nobody else's code runs in it.
    let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.is_ok();
    if unshared {
        rustix::process::umask(Mode::empty());
    }
    unshared
}

/// Keeps signals of the embedding program away from the calling thread, which has no handlers to serve.
pub(crate) fn block_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset fills the set before pthread_sigmask reads it; the old mask is not wanted.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// What lies under `name`, itself and not what it may point at.
pub(crate) fn stat(parent: BorrowedFd<'_>, name: &[u8]) -> Result<rustix::fs::Stat> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}
