//! Processes of the host, told apart by when they were started: a process id alone may be somebody else's by now.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};

use pyrt_container::host::read_file;
use pyrt_container::sys::Errno;

/// What /proc/PID/stat says (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighted {
    /// One letter: Z and X are dead.
    pub state: u8,
    /// Clock ticks after boot.
    pub start_time: u64,
}

/// Looks at a process; `None` if there is none.
pub fn look(pid: i32) -> Option<Sighted> {
    let stat = read_file(&format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Sighted { state, start_time })
}

/// Whether the process that was started then is alive.
pub fn is_alive(pid: i32, start_time: u64) -> bool {
    pid > 0 && look(pid).is_some_and(|seen| seen.start_time == start_time && !matches!(seen.state, b'Z' | b'X'))
}

/// A pidfd of a process of this thread group's pid namespace.
pub fn open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open(2) takes two numbers and returns a new descriptor, which is owned here.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd as i32)),
            _ => Err(Errno(*libc::__errno_location())),
        }
    }
}

/// All that this process has begun, and that those have begun (proc_pid_task_children(5)).
pub fn descendants() -> Vec<i32> {
    let mut found = children("self");
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children(&pid.to_string()));
        next += 1;
    }
    found
}

fn children(process: &str) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()).collect()
}

/// What a process has read so far (proc_pid_io(5)); nothing of one that is gone.
pub fn bytes_read(pid: i32) -> u64 {
    let io = read_file(&format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap_or(0)
}
