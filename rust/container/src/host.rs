//! What this machine has: kernel, rights, cgroup hierarchies.
//!
//! Looked up once a process. A plan is compiled against it, so that the executor has no branches on it.

mod cgroups;
mod features;
mod mounts;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::compile::{Error, Result, describe};
use crate::sys::Errno;

pub use cgroups::{Cgroups, Hierarchy, Layout};
pub use features::Features;
pub use mounts::MountTable;

use mounts::{IDMAPPED, NOT_IDMAPPED, find_devtmpfs, idmapped_since, mounted_below};

/// Linux's version, as far as features depend on it.
pub type Version = (u32, u32);

/// Overlayfs of idmapped layers, mount_setattr(2) of propagation and idmaps, openat2(2), clone3(2), the new mount API: all
/// are there since.
pub const OLDEST_KERNEL: Version = (5, 19);

/// This machine.
#[derive(Debug)]
pub struct Host {
    /// The kernel's version.
    pub kernel: Version,
    /// The same as the kernel prints it.
    pub release: String,
    /// What it can do that older ones can't.
    pub features: Features,
    /// Whether this process may make mounts and namespaces with the host's rights.
    pub privileged: bool,
    /// Capabilities that this process may use: no container without a user namespace of its own gets more.
    pub capabilities: u64,
    /// Whether this process is in a user namespace below the machine's: it may make mounts and namespaces, but no device
    /// nodes and, as a rule, no cgroups.
    pub nested: bool,
    /// Whether it is one in which nobody may set groups: a plain user has mapped but its own.
    pub denies_groups: bool,
    /// The mounted cgroup hierarchies.
    pub cgroups: Cgroups,
    /// Whether memory limits can cover swap.
    pub swap_accounting: bool,
    /// Device number of /dev's file system, whose kind statfs(2) does not tell from a tmpfs.
    pub devtmpfs: Option<u64>,
    /// Whether AppArmor is there and enabled.
    pub apparmor: bool,
    /// Whether SELinux is there and enabled.
    pub selinux: bool,
    /// What is mounted where.
    pub mounts: MountTable,
}

/// CAP_SYS_ADMIN.
const SYS_ADMIN: u64 = 1 << 21;

impl Host {
    /// Looks at this machine.
    pub fn probe() -> Result<Self> {
        let release = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let kernel = parse_version(&release)
            .ok_or_else(|| Error::host("", format!("the kernel calls itself {release}, which is no version")))?;
        let mountinfo = read("/proc/self/mountinfo")?;
        let cgroups = Cgroups::read(&mountinfo);
        let devtmpfs = find_devtmpfs(&mountinfo);
        let capabilities = crate::sys::permitted_capabilities()
            .map_err(|errno| Error::host("", format!("asking for the capabilities: {}", describe(errno))))?;
        let swap_accounting = swap_accounting(&cgroups);
        let nested = is_nested();
        let privileged = capabilities & SYS_ADMIN != 0;
        Ok(Self {
            features: Features::of(kernel),
            kernel,
            release,
            privileged,
            capabilities,
            denies_groups: nested && read("/proc/self/setgroups").is_ok_and(|word| word.trim() == "deny"),
            nested,
            cgroups,
            swap_accounting,
            devtmpfs,
            apparmor: read("/sys/module/apparmor/parameters/enabled").is_ok_and(|enabled| enabled.starts_with('Y')),
            // selinuxfs(5): mounted where SELinux is on.
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
            mounts: MountTable::default(),
        })
    }

    /// Whether the file system at an open place (its statfs(2) `magic` is known) can be shown through an idmap.
    pub(crate) fn can_idmap(&self, place: &OwnedFd, magic: i64) -> bool {
        let device = || crate::sys::stat_at(place.as_raw_fd(), c"").ok().map(|stat| stat.st_dev);
        let is_young = idmapped_since(magic).is_some_and(|since| self.kernel < since);
        !is_young && !NOT_IDMAPPED.contains(&magic) && (self.devtmpfs.is_none() || self.devtmpfs != device())
    }

    /// The same for all that is mounted below it in this mount namespace; false if nothing is.
    pub(crate) fn can_idmap_below(&self, place: &OwnedFd) -> bool {
        let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())) else { return false };
        let path = path.to_string_lossy();
        self.mounts.with(|mountinfo| {
            let kinds: Vec<&str> = mounted_below(mountinfo, &path).collect();
            let can_idmap = |kind: &&str| IDMAPPED.iter().any(|(name, since)| name == kind && self.kernel >= *since);
            !kinds.is_empty() && kinds.iter().all(can_idmap)
        })
    }

    /// Refuses a kernel that lacks what every container needs.
    pub(crate) fn check_kernel(&self, needed: Version, what: &str) -> Result<()> {
        if self.kernel >= needed {
            return Ok(());
        }
        let (major, minor) = needed;
        let message = format!("{what} needs Linux {major}.{minor}, this is {}", self.release);
        Err(Error::host("", message).hint("a newer kernel is the only way"))
    }
}

fn read(path: &str) -> Result<String> {
    read_file(path).map_err(|error| {
        let errno = Errno(error.raw_os_error().unwrap_or(0));
        Error::host("", format!("{path}: {}", describe(errno))).because(errno, path).hint("pyrt needs /proc")
    })
}

/// A file of procfs or the like, whose size nobody knows before: two calls read most of them.
pub fn read_file(path: &str) -> io::Result<String> {
    const MOST: usize = 4096;
    let mut text = String::with_capacity(MOST);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

fn parse_version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether this process is in a user namespace below the machine's, which maps all ids to themselves.
pub fn is_nested() -> bool {
    read("/proc/self/uid_map").is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
}

fn swap_accounting(cgroups: &Cgroups) -> bool {
    match cgroups.v1.iter().find(|hierarchy| hierarchy.controls("memory")) {
        Some(memory) => {
            let file = CString::new(format!("{}/memory.memsw.limit_in_bytes", memory.mount)).unwrap_or_default();
            crate::sys::openat(libc::AT_FDCWD, &file, libc::O_PATH, 0).map(crate::sys::close).is_ok()
        }
        // Version 2 has memory.swap.max wherever the kernel has swap.
        None => cgroups.v2.is_some() && std::path::Path::new("/proc/swaps").exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_whatever_a_distribution_appends() {
        assert_eq!(parse_version("6.18.44-fc-v769"), Some((6, 18)));
        assert_eq!(parse_version("5.10.0-34-amd64"), Some((5, 10)));
        assert_eq!(parse_version("6.1+"), Some((6, 1)));
        assert_eq!(parse_version("unknown"), None);
    }
}
