//! The files of a container, reached from outside of it: by descriptors, with the container's root for /.
//!
//! What is in there is an enemy's: directories are exchanged for links while somebody copies (CVE-2018-15664). So a
//! path is walked by the kernel alone, which never leaves the root, and what it found is used by its descriptor.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::sys::{self, Errno, resolve};

const NOSUID: u64 = 0x02;
const NODEV: u64 = 0x04;
const NOEXEC: u64 = 0x08;
const RDONLY: u64 = 0x01;

/// Opens `path` with `root` for /, also in absolute links and "..", and through no magic link.
pub fn open_in_root(root: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> sys::Result<OwnedFd> {
    sys::openat2(root.as_raw_fd(), path, flags, mode, resolve::IN_ROOT | resolve::NO_MAGICLINKS).map(owned)
}

/// The root file system of a container that does not run, mounted where no path leads to: it is gone with its
/// descriptor. Owners are as the container has them. `lowers` come topmost first; without an upper directory (one that
/// holds `upper` and `work`) it is read-only.
pub fn mount_layers(lowers: &[&Path], upper: Option<&Path>) -> sys::Result<OwnedFd> {
    // What is looked at from here is not run.
    let attributes = NOSUID | NODEV | NOEXEC;
    if let ([only], None) = (lowers, upper) {
        // Overlayfs wants two.
        let mount = owned(sys::clone_tree(libc::AT_FDCWD, &text(only)?, false)?);
        sys::set_mount_attributes(mount.as_raw_fd(), attributes | RDONLY, 0, libc::MS_PRIVATE, false)?;
        return Ok(mount);
    }
    let context = owned(sys::fsopen(c"overlay")?);
    let set = |key: &CStr, path: &Path| sys::fsconfig_string(context.as_raw_fd(), key, &text(path)?);
    lowers.iter().try_for_each(|lower| set(c"lowerdir+", lower))?;
    if let Some(upper) = upper {
        set(c"upperdir", &upper.join("upper"))?;
        set(c"workdir", &upper.join("work"))?;
    }
    sys::fsconfig_create(context.as_raw_fd())?;
    let attributes = if upper.is_none() { attributes | RDONLY } else { attributes };
    sys::fsmount(context.as_raw_fd(), attributes).map(owned)
}

fn owned(fd: sys::Fd) -> OwnedFd {
    // SAFETY: the kernel has just returned it, and nobody else has seen it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn text(path: &Path) -> sys::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno(libc::EINVAL))
}
