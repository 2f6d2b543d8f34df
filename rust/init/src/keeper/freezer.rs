//! The freezer of cgroup version 1, in which nothing dies: SIGKILL waits there until the process is thawed.
//!
//! An engine makes the group when a container is paused, and thaws it. Here is what a keeper does whose container has
//! to end without an engine. It happens to few and is in nobody's way, so it looks around and allocates.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pyrt_container::host::Cgroups;

/// How long a group may stay busy after its last process has ended.
const PATIENCE: Duration = Duration::from_secs(5);
/// Digits of the ids after which pyrt names its groups.
const ID: usize = 64;

/// The group of a container that was paused.
pub struct Freezer(PathBuf);

impl Freezer {
    /// Lets the processes of the group go on in which `pid` is; `None` if that is none of pyrt's.
    pub fn thaw(pid: i32) -> Option<Self> {
        let place = place_of(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)?;
        let cgroups = Cgroups::read(&fs::read_to_string("/proc/self/mountinfo").ok()?);
        let mount = cgroups.v1.iter().find(|hierarchy| hierarchy.controls("freezer"))?.mount.clone();
        let folder = PathBuf::from(mount + &place);
        fs::write(folder.join("freezer.state"), "THAWED").ok()?;
        Some(Self(folder))
    }

    /// Removes the group, once the container has ended.
    pub fn remove(self) {
        let deadline = Instant::now() + PATIENCE;
        // A task leaves its cgroup a moment after it was reaped.
        while fs::remove_dir(&self.0).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The path in the freezer's hierarchy, from a file as in cgroups(7): "4:freezer:/pyrt/<id>".
fn place_of(lines: &str) -> Option<String> {
    let place = lines.lines().find_map(|line| {
        let (controllers, place) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "freezer").then_some(place)
    })?;
    let name = place.rsplit('/').next()?;
    (name.len() == ID && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| place.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_with_an_id_are_ours() {
        let ours = format!("/pyrt/{}", "0123456789abcdef".repeat(4));
        assert_eq!(place_of(&format!("5:pids:/x\n4:freezer:{ours}\n0::/\n")), Some(ours));
        assert_eq!(place_of("4:freezer:/\n"), None);
        assert_eq!(place_of("4:freezer:/somebody/else\n"), None);
        assert_eq!(place_of("0::/\n"), None);
    }
}
