//! What the keeper does with the cgroups of its container after the end: read them, empty them, remove them.
//!
//! The names of version 1 and 2 are tried side by side, because a host may have both.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use crate::sys::{self, Errno, Fd};

/// A directory that `CgroupCreate` made.
#[derive(Debug)]
pub(super) struct Created {
    pub parent: Fd,
    pub name: std::ffi::CString,
    pub directory: Fd,
}

/// What the cgroups of a container have counted; 0 where nothing counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Tasks that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// Largest memory use, bytes.
    pub memory_peak: u64,
    /// Processor time, microseconds.
    pub cpu_usec: u64,
    /// Forks that the pids limit refused.
    pub pids_refused: u64,
}

fn read_file(directory: Fd, name: &CStr, buffer: &mut [u8; 4096]) -> Option<usize> {
    let fd = sys::openat(directory, name, libc::O_RDONLY | libc::O_NOFOLLOW, 0).ok()?;
    let length = sys::read(fd, buffer).ok();
    sys::close(fd);
    length
}

/// The number after `key` in a file of `key number` lines, or the only number of a file if `key` is "".
fn number(directory: Fd, name: &CStr, key: &str) -> Option<u64> {
    let mut buffer = [0; 4096];
    let length = read_file(directory, name, &mut buffer)?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    text.lines().find_map(|line| match (key, line.split_once(' ')) {
        ("", None) => line.trim().parse().ok(),
        (_, Some((name, value))) if name == key => value.trim().parse().ok(),
        _ => None,
    })
}

pub(super) fn read_accounts(cgroups: &[Created]) -> Accounts {
    let mut accounts = Accounts::default();
    for Created { directory, .. } in cgroups {
        let of = |name: &CStr, key: &str| number(*directory, name, key);
        // memory.oom_control: oom_kill since Linux 4.13 (Documentation/admin-guide/cgroup-v1/memory.rst, 10).
        let kills = of(c"memory.events", "oom_kill").or_else(|| of(c"memory.oom_control", "oom_kill"));
        let peak = of(c"memory.peak", "").or_else(|| of(c"memory.max_usage_in_bytes", ""));
        let cpu = of(c"cpu.stat", "usage_usec").or_else(|| of(c"cpuacct.usage", "").map(|nanos| nanos / 1000));
        let refused = of(c"pids.events", "max");
        accounts.oom_kills = accounts.oom_kills.max(kills.unwrap_or(0));
        accounts.memory_peak = accounts.memory_peak.max(peak.unwrap_or(0));
        accounts.cpu_usec = accounts.cpu_usec.max(cpu.unwrap_or(0));
        accounts.pids_refused = accounts.pids_refused.max(refused.unwrap_or(0));
    }
    accounts
}

/// How long a cgroup may stay busy after its last process was killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Removes the directories. What still lives in them is killed first, which happens where a container
/// shares the host's pid namespace: elsewhere the end of PID 1 has ended all.
pub(super) fn remove(cgroups: &[Created]) {
    let deadline = Instant::now() + PATIENCE;
    for created in cgroups.iter().rev() {
        while let Err(Errno(libc::EBUSY)) = sys::unlinkat(created.parent, &created.name, libc::AT_REMOVEDIR) {
            if Instant::now() > deadline {
                break;
            }
            kill_all(created.directory);
            // A killed task leaves its cgroup a moment after it was reaped.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn kill_all(directory: Fd) {
    if sys::write_at(directory, c"cgroup.kill", b"1").is_ok() {
        return;
    }
    let mut buffer = [0; 4096];
    let Some(length) = read_file(directory, c"cgroup.procs", &mut buffer) else { return };
    // A number cut off by the buffer's end would be somebody else's: only whole lines count.
    let whole = buffer[..length].iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
    for pid in String::from_utf8_lossy(&buffer[..whole]).lines().filter_map(|line| line.parse().ok()) {
        // 0 stands for a process outside our pid namespace, and would mean our own group to kill(2).
        if pid > 0 {
            let _ = sys::kill(pid, libc::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn directory(files: &[(&str, &str)]) -> (std::path::PathBuf, std::fs::File) {
        let path = std::env::temp_dir().join(format!("pyrt-accounts-{}-{}", std::process::id(), files.len()));
        std::fs::create_dir(&path).unwrap();
        for (name, content) in files {
            std::fs::write(path.join(name), content).unwrap();
        }
        (path.clone(), std::fs::File::open(path).unwrap())
    }

    #[test]
    fn both_versions_are_read() {
        let version_1 = [
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("memory.max_usage_in_bytes", "4096\n"),
            ("cpuacct.usage", "5000\n"),
            ("pids.events", "max 7\n"),
        ];
        let version_2 = [
            ("memory.events", "low 0\noom 1\noom_kill 2\n"),
            ("memory.peak", "4096\n"),
            ("cpu.stat", "usage_usec 5\nuser_usec 3\n"),
        ];
        for (files, refused) in [(&version_1[..], 7), (&version_2[..], 0)] {
            let (path, folder) = directory(files);
            let created = Created { parent: -1, name: c"box".into(), directory: folder.as_raw_fd() };
            let expected = Accounts { oom_kills: 2, memory_peak: 4096, cpu_usec: 5, pids_refused: refused };
            assert_eq!(read_accounts(&[created]), expected);
            std::fs::remove_dir_all(path).unwrap();
        }
    }
}
