//! The freezer of cgroup version 1, in which nothing dies: SIGKILL waits there until the process is thawed.
//!
//! An engine makes the group when a container is paused, and thaws it. Here is what a keeper does whose container has
//! to end without an engine. It happens to few and is in nobody's way, so it looks around and allocates. A keeper's
//! mount namespace has no cgroups in it: the hierarchy is mounted anew, where no path leads to.

use std::ffi::CString;
use std::fs;
use std::time::{Duration, Instant};

use pyrt_container::sys::{self, Errno, Fd};

/// How long a group may stay busy after its last process has ended.
const PATIENCE: Duration = Duration::from_secs(5);
/// Digits of the ids after which pyrt names its groups.
const ID: usize = 64;

/// The group of a container that was paused.
pub struct Freezer {
    root: Fd,
    place: CString,
}

impl Freezer {
    /// Lets the processes of the group go on in which `pid` is; `None` if that is none of pyrt's.
    pub fn thaw(pid: i32) -> Option<Self> {
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let (controllers, place) = group_of(&lines)?;
        let root = mount(controllers).ok()?;
        let freezer = Self { root, place: CString::new(place).ok()? };
        let state = CString::new(format!("{place}/freezer.state")).ok()?;
        sys::write_at(root, &state, b"THAWED").ok()?;
        Some(freezer)
    }

    /// Removes the group, once the container has ended.
    pub fn remove(self) {
        let deadline = Instant::now() + PATIENCE;
        // A task leaves its cgroup a moment after it was reaped.
        while sys::unlinkat(self.root, &self.place, libc::AT_REMOVEDIR) == Err(Errno(libc::EBUSY)) {
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The hierarchy that has just these controllers.
fn mount(controllers: &str) -> sys::Result<Fd> {
    let context = sys::fsopen(c"cgroup")?;
    let mounted = controllers
        .split(',')
        .try_for_each(|name| sys::fsconfig_flag(context, &CString::new(name).map_err(|_| Errno(libc::EINVAL))?))
        .and_then(|()| sys::fsconfig_create(context))
        .and_then(|()| sys::fsmount(context, 0));
    sys::close(context);
    mounted
}

/// Controllers and path in the freezer's hierarchy, from a file as in cgroups(7): "4:freezer:/pyrt/<id>".
fn group_of(lines: &str) -> Option<(&str, &str)> {
    let (controllers, place) = lines
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .find(|(controllers, _)| controllers.split(',').any(|name| name == "freezer"))?;
    let name = place.rsplit('/').next()?;
    let is_ours = name.len() == ID && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours.then_some((controllers, place.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_with_an_id_are_ours() {
        let ours = format!("pyrt/{}", "0123456789abcdef".repeat(4));
        let lines = format!("5:pids:/x\n4:freezer:/{ours}\n0::/\n");
        assert_eq!(group_of(&lines), Some(("freezer", ours.as_str())));
        assert_eq!(group_of("4:freezer:/\n"), None);
        assert_eq!(group_of("4:freezer:/somebody/else\n"), None);
        assert_eq!(group_of("0::/\n"), None);
    }
}
