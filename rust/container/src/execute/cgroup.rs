//! What the keeper does with the cgroups of its container after the end: read them, empty them, remove them.
//!
//! A host may have both versions, so each directory is looked at on its own.

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

/// Where a version keeps its figures: file and key.
struct Files {
    oom_kills: (&'static CStr, &'static str),
    memory_peak: (&'static CStr, &'static str),
    cpu: (&'static CStr, &'static str),
    /// What one microsecond is in that file.
    cpu_unit: u64,
}

const VERSION_2: Files = Files {
    oom_kills: (c"memory.events", "oom_kill"),
    memory_peak: (c"memory.peak", ""),
    cpu: (c"cpu.stat", "usage_usec"),
    cpu_unit: 1,
};

const VERSION_1: Files = Files {
    // Since Linux 4.13 (Documentation/admin-guide/cgroup-v1/memory.rst, 10).
    oom_kills: (c"memory.oom_control", "oom_kill"),
    memory_peak: (c"memory.max_usage_in_bytes", ""),
    cpu: (c"cpuacct.usage", ""),
    cpu_unit: 1000,
};

/// Each controller is in one hierarchy: what one of the directories has is not looked for in the others.
pub(super) fn read_accounts(cgroups: &[Created]) -> Accounts {
    let [mut oom_kills, mut memory_peak, mut cpu, mut refused] = [None; 4];
    for &Created { directory, .. } in cgroups {
        let look = |found: &mut Option<u64>, (name, key): (&CStr, &str)| {
            *found = found.or_else(|| number(directory, name, key));
        };
        let files = if sys::stat_at(directory, c"cgroup.controllers").is_ok() { VERSION_2 } else { VERSION_1 };
        look(&mut oom_kills, files.oom_kills);
        if oom_kills.is_some() {
            look(&mut memory_peak, files.memory_peak);
        }
        if cpu.is_none() {
            look(&mut cpu, files.cpu);
            cpu = cpu.map(|time| time / files.cpu_unit);
        }
        look(&mut refused, (c"pids.events", "max"));
    }
    let or_none = |count: Option<u64>| count.unwrap_or(0);
    Accounts {
        oom_kills: or_none(oom_kills),
        memory_peak: or_none(memory_peak),
        cpu_usec: or_none(cpu),
        pids_refused: or_none(refused),
    }
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
            ("cgroup.controllers", "memory pids\n"),
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
