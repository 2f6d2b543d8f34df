//! The root of a container that has the host's mount namespace: it lies over the bundle's directory, with all that is mounted
//! in it, until the container is deleted.

use std::ffi::CString;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;

use pyrt_container::compile::Compiled;
use pyrt_container::plan::{FIRST_OPENED, Op, Part, Plan};
use pyrt_container::spec::{NamespaceKind, Spec};
use pyrt_container::sys;

use crate::annals::Record;
use crate::container::open;
use crate::error::{Error, Result};

/// The mount that a plan leaves where others see it, if there can be one.
pub fn of(spec: &Spec<'_>, compiled: &Compiled) -> Option<u64> {
    if spec.linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Mount) {
        return None;
    }
    let plan = Plan::parse(&compiled.bytes).ok()?;
    let root = plan.ops(Part::Child).find_map(|op| match op {
        Op::EnterRoot { root, .. } => Some(root),
        _ => None,
    })?;
    let opened = compiled.descriptors.get(usize::from(root.0 - FIRST_OPENED.0))?;
    sys::mount_id(opened.as_raw_fd()).ok()
}

/// Takes it away, if it is there.
pub fn remove(record: &Record) -> Result<()> {
    let Some(mount) = record.root_mount else { return Ok(()) };
    // The whole bundle may be gone.
    let Ok(place) = open(&record.rootfs, libc::O_PATH | libc::O_NOFOLLOW) else { return Ok(()) };
    if sys::mount_id(place.as_raw_fd()) != Ok(mount) {
        return Ok(());
    }
    let path = CString::new(record.rootfs.as_os_str().as_bytes()).unwrap_or_default();
    sys::detach(&path).map_err(|errno| Error::call(&format!("unmounting {}", record.rootfs.display()), errno))
}
