//! The maps of a user namespace that somebody else has made. The kernel shows them through a process in it.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::compile::error::Error;
use crate::spec::IdMapping;

/// Both maps of the namespace, or of the process that `place` is a pidfd of; `None` if no process shows them.
pub(super) fn maps_of(place: &OwnedFd) -> Option<[Vec<IdMapping>; 2]> {
    let process = of_pidfd(place).or_else(|| somebody_in(place))?;
    let read = |name: &str| parse(&std::fs::read_to_string(format!("/proc/{process}/{name}")).ok()?);
    Some([read("uid_map")?, read("gid_map")?])
}

/// What to say if there is none.
pub(super) fn unknown() -> Error {
    let message = "missing, and no process is in the joined user namespace whose mappings could be read";
    Error::spec("linux.uidMappings", message)
}

fn of_pidfd(place: &OwnedFd) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", place.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

fn somebody_in(namespace: &OwnedFd) -> Option<u32> {
    let wanted = rustix::fs::fstat(namespace).ok()?;
    let is_there = |process: &u32| {
        let theirs = rustix::fs::stat(format!("/proc/{process}/ns/user"));
        theirs.is_ok_and(|theirs| (theirs.st_dev, theirs.st_ino) == (wanted.st_dev, wanted.st_ino))
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_there)
}

/// Lines of three numbers (user_namespaces(7)).
fn parse(text: &str) -> Option<Vec<IdMapping>> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        let mut number = || numbers.next().flatten();
        Some(IdMapping { container_id: number()?, host_id: number()?, size: number()? })
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_three_numbers() {
        let line = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        assert_eq!(
            parse("         0     100000      65536\n 65536 5 1\n").unwrap(),
            [line(0, 100_000, 65536), line(65536, 5, 1)]
        );
        assert_eq!(parse("0 1"), None);
    }
}
