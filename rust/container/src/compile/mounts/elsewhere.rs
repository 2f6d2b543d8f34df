//! Bind sources in the mount namespace of another process, named by its root: "/proc/PID/root/dev/shm".
//!
//! The kernel clones no mount of a foreign namespace: whoever does it has to be there. A thread of its own goes, and ends
//! there. The path is that process's own business and may hold symlinks, so it is walked below its root alone.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::compile::opened::{Failure, clone_tree, open, own};
use crate::sys::{self, Errno, resolve};

/// The process and the path below its root that a source names, if that is not where we are.
fn parse(source: &str) -> Option<(u32, &str)> {
    let (process, path) = source.strip_prefix("/proc/")?.split_once("/root/")?;
    let process: u32 = process.parse().ok()?;
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    (namespace(&process.to_string())? != namespace("self")?).then_some((process, path))
}

/// A detached clone of what the source names; `None` if it is in no other namespace.
pub(super) fn clone_of(source: &str, recursive: bool) -> Option<Result<OwnedFd, Failure>> {
    let (process, path) = parse(source)?;
    let walk = || {
        let root = open(&format!("/proc/{process}/root"), libc::O_PATH | libc::O_DIRECTORY)?;
        let namespace = open(&format!("/proc/{process}/ns/mnt"), libc::O_RDONLY)?;
        let path = CString::new(path).map_err(|_| Failure(Errno(libc::EINVAL)))?;
        let flags = resolve::IN_ROOT | resolve::NO_MAGICLINKS;
        // setns(2) wants a file system context that nobody shares.
        sys::unshare(libc::CLONE_FS as u64)
            .and_then(|()| sys::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS as u64))
            .and_then(|()| sys::openat2(root.as_raw_fd(), &path, libc::O_PATH, 0, flags))
            .map_err(Failure)
            .and_then(|place| clone_tree(&own(place), recursive))
    };
    let walked = std::thread::scope(|scope| scope.spawn(walk).join());
    Some(walked.unwrap_or(Err(Failure(Errno(libc::EIO)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_no_matter_of_going_elsewhere() {
        assert_eq!(parse("/dev/shm"), None);
        assert_eq!(parse("/proc/self/root/dev/shm"), None);
        assert_eq!(parse(&format!("/proc/{}/root/dev/shm", std::process::id())), None);
    }
}
