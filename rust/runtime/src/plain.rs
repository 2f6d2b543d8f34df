//! A plain user's containers, without an engine: the command makes the container's user namespace itself and goes into
//! it. There it has root's rights, and all that comes is as if an engine had made that namespace and had called it
//! inside.
//!
//! It is entered in this very process, whose memory stays the machine's: a container's root, who has the same rights in
//! there, can't trace it (ptrace(2), "Ptrace access mode checking", 5). More than one id takes the two setuid programs
//! of shadow, for which /etc/subuid and /etc/subgid count, and they have to be called from outside:
//!
//! ```text
//! command                        helper                        newuidmap, newgidmap
//!   | ---------- clone3 ----------> |                             .
//!   |  unshare(user, mount)         |                             .
//!   | ------ maps are missing ----> | --------- execve ---------> | writes /proc/COMMAND/{uid,gid}_map
//!   | <----- none, or an error ---- |                             .
//! ```

use std::ffi::CStr;
use std::os::fd::AsRawFd;
use std::process::Command;

use pyrt_container::compile::{self, UserNamespace};
use pyrt_container::host::Host;
use pyrt_container::spec::{Process, Spec};
use pyrt_container::sys::{self, Errno, Fd, Side};

use crate::error::{Error, Result};
use crate::process;

/// CAP_SYS_ADMIN.
const SYS_ADMIN: u64 = 1 << 21;
/// A sentence of newuidmap's fits.
const LONGEST: usize = 1024;

/// Whether this process has no more rights than its user.
pub fn is_plain(uid: u32) -> bool {
    uid != 0 && sys::permitted_capabilities().is_ok_and(|held| held & SYS_ADMIN == 0)
}

/// Goes into the user namespace that config.json asks for, and a mount namespace of its own below it.
pub fn enter(spec: &Spec<'_>) -> Result<()> {
    take_score(spec.process.as_ref())?;
    match compile::user_namespace(spec)? {
        None => {
            let error = Error::new("linux.namespaces: a plain user has no rights without a user namespace");
            Err(error.hint("pyrt-runtime spec --rootless writes a config.json that has one"))
        }
        Some(UserNamespace::Joined(path)) => {
            let joined = crate::container::open(path.as_ref(), libc::O_RDONLY)?;
            sys::setns(joined.as_raw_fd(), libc::CLONE_NEWUSER as u64)
                .and_then(|()| sys::unshare(libc::CLONE_NEWNS as u64))
                .map_err(|errno| Error::call(&format!("joining the user namespace {path}"), errno))
        }
        Some(UserNamespace::New { uids, gids }) => make(&uids, &gids),
    }
}

/// Goes where the container of this process is, to begin another in it.
pub fn join(pid: i32, process: &Process<'_>) -> Result<()> {
    take_score(Some(process))?;
    let joined = process::open(pid).and_then(|first| sys::setns(first.as_raw_fd(), libc::CLONE_NEWUSER as u64));
    joined.map_err(|errno| match errno {
        // Until it executes the container's command it is not to be seen into.
        Errno(libc::EPERM) => Error::call("joining the container's user namespace", errno)
            .hint("a plain user's container has to be started first"),
        errno => Error::call("joining the container's user namespace", errno),
    })
}

/// What the kernel ends first is taken on here, to be inherited: from within, this process's files below /proc are
/// nobody's. What it refuses (a lower one) is refused once more, with a warning, by the step that sets it.
fn take_score(process: Option<&Process<'_>>) -> Result<()> {
    if let Some(score) = process.and_then(|process| process.oom_score_adj) {
        dumpable(true)?;
        let _ = sys::write_at(libc::AT_FDCWD, c"/proc/self/oom_score_adj", score.to_string().as_bytes());
        dumpable(false)?;
    }
    Ok(())
}

fn make(uids: &str, gids: &str) -> Result<()> {
    // What is not dumpable has files below /proc that are root's, and newuidmap looks whose they are.
    dumpable(true)?;
    let made = make_mapped(uids, gids);
    dumpable(false)?;
    made
}

fn dumpable(on: bool) -> Result<()> {
    sys::prctl(libc::PR_SET_DUMPABLE, u64::from(on), 0).map_err(|errno| Error::call("PR_SET_DUMPABLE", errno))
}

fn make_mapped(uids: &str, gids: &str) -> Result<()> {
    let failed = |errno| Error::call("making a user namespace", errno);
    // SAFETY: both take nothing and can't fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let (own_uid, own_gid) = (is_own(uids, uid), is_own(gids, gid));
    let tools = [("newuidmap", uids, own_uid), ("newgidmap", gids, own_gid)];
    let needed: Vec<(&str, &str)> = tools.into_iter().filter(|tool| !tool.2).map(|tool| (tool.0, tool.1)).collect();
    let helper = Helper::begin(&needed)?;
    let both = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64;
    sys::unshare(both).map_err(|errno| match errno.0 {
        libc::ENOSPC | libc::EPERM => failed(errno).hint("user.max_user_namespaces or AppArmor may forbid it to users"),
        _ => failed(errno),
    })?;
    helper.ask()?;
    if own_uid {
        write(c"/proc/self/uid_map", uids)?;
    }
    if own_gid {
        // user_namespaces(7): whoever maps but its own group gives up leaving those that it has.
        write(c"/proc/self/setgroups", "deny")?;
        write(c"/proc/self/gid_map", gids)?;
    }
    Ok(())
}

/// Whether a map is one that the kernel lets everybody write: the own id, and it alone.
fn is_own(map: &str, id: u32) -> bool {
    let fields: Vec<&str> = map.split_whitespace().collect();
    matches!(fields[..], [_, host, "1"] if host == id.to_string())
}

fn write(path: &CStr, text: &str) -> Result<()> {
    sys::write_at(libc::AT_FDCWD, path, text.as_bytes())
        .map_err(|errno| Error::call(&format!("writing {}", path.to_string_lossy()), errno))
}

/// A process that stays outside; none if nothing is to be done there.
struct Helper(Option<(i32, Fd)>);

impl Helper {
    fn begin(tools: &[(&str, &str)]) -> Result<Self> {
        let failed = |errno| Error::call("making a user namespace", errno);
        if tools.is_empty() {
            return Ok(Self(None));
        }
        let command = sys::pid();
        let [ours, theirs] = sys::packet_pair().map_err(failed)?;
        match sys::clone(0, None).map_err(failed)? {
            Side::Child => {
                sys::close(ours);
                Self::serve(theirs, command, tools)
            }
            Side::Parent { pid, pidfd } => {
                [theirs, pidfd].into_iter().for_each(sys::close);
                Ok(Self(Some((pid, ours))))
            }
        }
    }

    /// Waits for the command, which may end without a word.
    fn serve(socket: Fd, command: i32, tools: &[(&str, &str)]) -> ! {
        let asked = sys::receive_packet(socket, &mut [0], &mut []);
        if asked.is_ok_and(|(length, _)| length > 0) {
            let said = tools.iter().find_map(|(tool, map)| call(tool, command, map).err()).unwrap_or_default();
            let said = &said.as_bytes()[..said.len().min(LONGEST)];
            // An empty message would be the end of all.
            let _ = sys::send_packet(socket, &[b"!", said].concat(), &[]);
        }
        sys::exit(0)
    }

    /// Has the maps written.
    fn ask(self) -> Result<()> {
        let Self(Some((pid, socket))) = self else { return Ok(()) };
        let mut said = [0; 1 + LONGEST];
        let heard = sys::send_packet(socket, b"!", &[]).and_then(|()| sys::receive_packet(socket, &mut said, &mut []));
        sys::close(socket);
        let _ = sys::wait(pid, true);
        match heard.map_err(|errno| Error::call("waiting for newuidmap", errno))?.0 {
            0 => Err(Error::new("newuidmap: whoever was to call it has ended")),
            1 => Ok(()),
            length => Err(Error::new(String::from_utf8_lossy(&said[1..length]))
                .hint("/etc/subuid and /etc/subgid say what a user may map; the package is called uidmap")),
        }
    }
}

fn call(tool: &str, pid: i32, map: &str) -> std::result::Result<(), String> {
    let field = if tool == "newuidmap" { "linux.uidMappings" } else { "linux.gidMappings" };
    let called = Command::new(tool).arg(pid.to_string()).args(map.split_whitespace()).output();
    match called {
        Err(error) => Err(format!("{field}: calling {tool}: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{field}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// The group that a plain user's container gets on version 2, if its config.json names none or one relative to that:
/// beside our own. In our own there are processes, and such a group passes no controllers on (cgroups(7), "no internal
/// processes").
pub fn own_group(path: Option<&str>, id: &str, host: &Host) -> Option<String> {
    use pyrt_container::host::{Layout, read_file};
    let relative = match path.unwrap_or_default() {
        "" => id,
        path if path.starts_with('/') || path.contains(':') => return None,
        path => path,
    };
    if host.cgroups.layout() != Layout::V2 {
        return None;
    }
    let groups = read_file("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let beside = own.rsplit_once('/').map_or("", |(parent, _)| parent);
    Some(format!("{beside}/{relative}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_id_alone_needs_no_help() {
        assert!(is_own("0 1000 1\n", 1000));
        for map in ["0 1000 2\n", "0 1001 1\n", "0 1000 1\n1 100000 65536\n"] {
            assert!(!is_own(map, 1000), "{map}");
        }
    }
}
