//! The cgroups of a container that exists: who is in them, freezing, limits, removal.
//!
//! On version 1 each question has its hierarchy; on version 2 there is but one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pyrt_container::sys::{self, Errno};

use crate::annals::Cgroup;
use crate::error::{Error, Result};

/// How long a group may take to freeze, or stay busy after its last process was killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at it: the kernel tells of neither.
const PAUSE: Duration = Duration::from_millis(1);

/// The group that `controller` is asked about, if it is there.
pub fn of<'c>(cgroups: &'c [Cgroup], controller: &str) -> Option<&'c Path> {
    let here = |cgroup: &&Cgroup| cgroup.controllers.iter().any(|name| name == controller) || is_v2(&cgroup.path);
    cgroups.iter().find(here).map(|cgroup| cgroup.path.as_path()).filter(|path| path.is_dir())
}

/// Whether a group is one of version 2.
pub fn is_v2(group: &Path) -> bool {
    group.join("cgroup.events").exists()
}

/// Every process of the container, also those in groups that it has made.
pub fn processes(cgroups: &[Cgroup]) -> Vec<i32> {
    let mut pids = Vec::new();
    // All are in each hierarchy; one that is there tells them all.
    if let Some(group) = ["pids", "memory", "cpu"].iter().find_map(|controller| of(cgroups, controller)) {
        collect(group, &mut pids);
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Whether a process is in each of the groups.
pub fn hold(cgroups: &[Cgroup], pid: i32) -> bool {
    cgroups.iter().all(|cgroup| {
        let mut pids = Vec::new();
        collect(&cgroup.path, &mut pids);
        pids.contains(&pid)
    })
}

fn collect(group: &Path, pids: &mut Vec<i32>) {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0));
    below(group).iter().for_each(|child| collect(child, pids));
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Signals every process; those that are gone meanwhile are none.
pub fn signal(cgroups: &[Cgroup], signal: i32) -> Result<()> {
    for pid in processes(cgroups) {
        match sys::kill(pid, signal) {
            Ok(()) | Err(Errno(libc::ESRCH)) => {}
            Err(errno) => return Err(Error::call(&format!("signalling process {pid}"), errno)),
        }
    }
    Ok(())
}

/// Whether the container is frozen.
pub fn is_frozen(cgroups: &[Cgroup]) -> bool {
    let Some(group) = of(cgroups, "freezer") else { return false };
    if is_v2(group) {
        return fs::read_to_string(group.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1");
    }
    fs::read_to_string(group.join("freezer.state")).is_ok_and(|text| text.trim() != "THAWED")
}

/// Freezes or thaws, and waits until it is so.
pub fn freeze(cgroups: &[Cgroup], frozen: bool) -> Result<()> {
    let group =
        of(cgroups, "freezer").ok_or_else(|| Error::new("this container has no cgroup that could be frozen"))?;
    let (file, word, shown, done) = match (is_v2(group), frozen) {
        (true, true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
        (true, false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
        (false, true) => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
        (false, false) => ("freezer.state", "THAWED", "freezer.state", "THAWED"),
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Written again each time: version 1 may stay at FREEZING when processes fork meanwhile.
        let path = group.join(file);
        fs::write(&path, word).map_err(|error| Error::file("writing", &path, &error))?;
        let state = fs::read_to_string(group.join(shown)).unwrap_or_default();
        if state.lines().any(|line| line == done) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::new(format!("{}: not {word} after {} s", path.display(), PATIENCE.as_secs())));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Kills what is left in the groups and removes them.
pub fn remove(cgroups: &[Cgroup]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for Cgroup { path, .. } in cgroups {
        while let Err(error) = remove_tree(path) {
            if Instant::now() > deadline {
                return Err(Error::file("removing the cgroup", path, &error));
            }
            signal(cgroups, libc::SIGKILL)?;
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> io::Result<()> {
    // Most groups have none below them, and looking is dearer than trying.
    if remove_one(group).is_ok() {
        return Ok(());
    }
    for child in below(group) {
        remove_tree(&child)?;
    }
    remove_one(group)
}

fn remove_one(group: &Path) -> io::Result<()> {
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A number in a file of a group; "max" and what is not there are `None`.
pub fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

/// The number after `key` in a file of `key number` lines.
pub fn keyed(group: &Path, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(group.join(file)).ok()?;
    text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key)?.1.trim().parse().ok())
}
