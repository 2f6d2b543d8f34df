//! Want of memory in a container, as it happens.
//!
//! Version 1 counts it up in an eventfd (Documentation/admin-guide/cgroup-v1/memory.rst, 9 and 10), version 2 says that
//! the file with the counters has changed (cgroup-v2.rst, "memory.events").

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Error as IoError, Read as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::annals::Cgroup;
use crate::cgroups::{self, is_v2, keyed};
use crate::error::{Error, Result};

/// Looks at one group.
#[derive(Debug)]
pub struct Watch {
    group: PathBuf,
    /// Readable when something has happened.
    changes: File,
    /// Version 2: processes that were killed so far.
    kills: Option<u64>,
}

const CONTROL: &str = "memory.oom_control";
const EVENTS: &str = "memory.events";

impl Watch {
    /// `None` where nobody counts a container's memory.
    pub fn begin(groups: &[Cgroup]) -> Result<Option<Self>> {
        let Some(group) = cgroups::of(groups, "memory") else { return Ok(None) };
        let watch = if is_v2(group) { Self::of_v2(group) } else { Self::of_v1(group) };
        watch.map(Some).map_err(|error| Error::file("watching", group, &error))
    }

    fn of_v1(group: &Path) -> std::io::Result<Self> {
        // SAFETY: eventfd(2) takes two numbers and returns a new descriptor.
        let counter = unsafe { new(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }?;
        let control = File::open(group.join(CONTROL))?;
        let line = format!("{} {}", counter.as_raw_fd(), control.as_raw_fd());
        fs::write(group.join("cgroup.event_control"), line)?;
        Ok(Self { group: group.to_owned(), changes: counter, kills: None })
    }

    fn of_v2(group: &Path) -> std::io::Result<Self> {
        // SAFETY: inotify_init1(2) takes a number and returns a new descriptor.
        let changes = unsafe { new(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK)) }?;
        let path = CString::new(group.join(EVENTS).as_os_str().as_bytes())?;
        // SAFETY: the path is a C string.
        if unsafe { libc::inotify_add_watch(changes.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) } < 0 {
            return Err(IoError::last_os_error());
        }
        let kills = Some(keyed(group, EVENTS, "oom_kill").unwrap_or(0));
        Ok(Self { group: group.to_owned(), changes, kills })
    }

    /// For poll(2).
    pub fn as_raw_fd(&self) -> RawFd {
        self.changes.as_raw_fd()
    }

    /// Whether memory was wanting since the last look; the end of the group is a change as well.
    pub fn look(&mut self) -> bool {
        let has_changed = self.changes.read(&mut [0; 4096]).is_ok_and(|length| length > 0);
        let Some(before) = self.kills else { return has_changed && self.group.join(CONTROL).exists() };
        let kills = keyed(&self.group, EVENTS, "oom_kill").unwrap_or(before);
        self.kills = Some(kills);
        kills > before
    }
}

/// # Safety
/// What a call has just returned that makes descriptors.
unsafe fn new(fd: RawFd) -> std::io::Result<File> {
    // SAFETY: said above.
    if fd < 0 { Err(IoError::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into()) }
}
