//! What this machine has: kernel, rights, cgroup hierarchies.
//!
//! Looked up once a process. A plan is compiled against it, so that the executor has no branches on it.

use std::borrow::Cow;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use crate::compile::{Error, Result, open_path};

/// Linux's version, as far as features depend on it.
pub type Version = (u32, u32);

/// mount_setattr(2) of propagation and idmaps, openat2(2), clone3(2), the new mount API: all are there since.
pub const OLDEST_KERNEL: Version = (5, 19);
/// Layers are given to overlayfs one by one (`lowerdir+`), so that their number is not limited by the length of a text.
pub const OVERLAY_BY_DESCRIPTOR: Version = (6, 7);

/// One mounted cgroup hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    /// What it controls ("memory", "cpu").
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: String,
    /// Its root there, O_PATH.
    pub root: OwnedFd,
}

impl Hierarchy {
    /// The last part of its mount point, which is also its name inside ("cpu,cpuacct").
    pub fn name(&self) -> &str {
        self.mount.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it has this controller.
    pub fn controls(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// How controllers are spread over versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Nothing is mounted.
    None,
    /// Version 1 alone.
    V1,
    /// Controllers on version 1, and a version 2 hierarchy beside them.
    Hybrid,
    /// Version 2 alone.
    V2,
}

impl Layout {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

/// The mounted hierarchies.
#[derive(Debug, Default)]
pub struct Cgroups {
    /// Version 1, one or more controllers each.
    pub v1: Vec<Hierarchy>,
    /// Version 2.
    pub v2: Option<Hierarchy>,
}

impl Cgroups {
    /// Which kind of machine this is.
    pub fn layout(&self) -> Layout {
        match (self.v1.is_empty(), &self.v2) {
            (true, None) => Layout::None,
            (true, Some(_)) => Layout::V2,
            (false, None) => Layout::V1,
            (false, Some(_)) => Layout::Hybrid,
        }
    }

    /// Reads a mountinfo file (proc_pid_mountinfo(5)); hierarchies that can't be opened are not there.
    pub fn read(mountinfo: &str) -> Self {
        let mut cgroups = Self::default();
        for line in mountinfo.lines() {
            let Some((place, filesystem)) = line.split_once(" - ") else { continue };
            let Some(mount) = place.split(' ').nth(4).map(|mount| unescape(mount).into_owned()) else { continue };
            let mut fields = filesystem.split(' ');
            match (fields.next(), fields.nth(1)) {
                (Some("cgroup"), Some(options)) => cgroups.add_v1(mount, options),
                (Some("cgroup2"), _) if cgroups.v2.is_none() => cgroups.v2 = open_v2(mount),
                _ => {}
            }
        }
        cgroups
    }

    fn add_v1(&mut self, mount: String, options: &str) {
        const NO_CONTROLLERS: [&str; 6] = ["rw", "ro", "xattr", "noprefix", "clone_children", "none"];
        let controllers: Vec<String> = options
            .split(',')
            .filter(|word| !word.contains('=') && !NO_CONTROLLERS.contains(word))
            .map(str::to_owned)
            .collect();
        let Some(first) = controllers.first() else { return };
        if self.v1.iter().any(|known| known.controls(first)) {
            return;
        }
        if let Ok(root) = open_path(&mount) {
            self.v1.push(Hierarchy { controllers, mount, root });
        }
    }
}

fn open_v2(mount: String) -> Option<Hierarchy> {
    let root = open_path(&mount).ok()?;
    let controllers = std::fs::read_to_string(format!("{mount}/cgroup.controllers")).unwrap_or_default();
    let controllers = controllers.split_whitespace().map(str::to_owned).collect();
    Some(Hierarchy { controllers, mount, root })
}

/// Space, tab, newline and backslash are octal in mountinfo.
fn unescape(field: &str) -> Cow<'_, str> {
    const CODES: [(&str, &str); 4] = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    if !field.contains('\\') {
        return Cow::Borrowed(field);
    }
    Cow::Owned(CODES.iter().fold(field.to_owned(), |text, (code, letter)| text.replace(code, letter)))
}

/// This machine.
#[derive(Debug)]
pub struct Host {
    /// The kernel's version.
    pub kernel: Version,
    /// The same as the kernel prints it.
    pub release: String,
    /// Whether this process may make mounts and namespaces with the host's rights.
    pub privileged: bool,
    /// Capabilities that this process may use: no container without a user namespace of its own gets more.
    pub capabilities: u64,
    /// The mounted cgroup hierarchies.
    pub cgroups: Cgroups,
    /// Whether memory limits can cover swap.
    pub swap_accounting: bool,
    /// Device number of /dev's file system, whose kind statfs(2) does not tell from a tmpfs.
    pub devtmpfs: Option<u64>,
    /// What is mounted where.
    pub mounts: MountTable,
}

/// This process's mountinfo, read again only when the kernel says that it has changed: with a few dozen mounts reading
/// it costs as much as all the rest of a plan.
#[derive(Debug, Default)]
pub struct MountTable(Mutex<Option<(File, String)>>);

impl MountTable {
    /// Hands the text to `look`; an unreadable table is empty.
    fn with<T>(&self, look: impl FnOnce(&str) -> T) -> T {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.as_ref().is_none_or(|(file, _)| has_changed(file)) {
            *table = read_mounts();
        }
        look(table.as_ref().map_or("", |(_, text)| text))
    }
}

/// proc_pid_mounts(5): a change of the mount namespace makes the file exceptional.
fn has_changed(file: &File) -> bool {
    let mut entry = [libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLPRI, revents: 0 }];
    !matches!(crate::sys::poll(&mut entry, 0), Ok(0))
}

fn read_mounts() -> Option<(File, String)> {
    let mut file = File::open("/proc/self/mountinfo").ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    Some((file, text))
}

/// statfs(2) magic numbers of file systems without FS_ALLOW_IDMAP (linux/magic.h): procfs, sysfs, cgroup, cgroup2,
/// devpts, nsfs, mqueue, overlayfs, NFS, 9P, debugfs, tracefs, securityfs, bpf, configfs, ramfs, CIFS, SMB2, autofs.
const NOT_IDMAPPED: [i64; 19] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6e73_6673,
    0x1980_0202,
    0x794c_7630,
    0x6969,
    0x0102_1997,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x6265_6570,
    0x8584_58f6,
    0xff53_4d42,
    0xfe53_4d42,
    0x0187,
];
/// Names of file systems with FS_ALLOW_IDMAP that people mount below what they bind.
const IDMAPPED: [&str; 9] = ["ext4", "ext3", "ext2", "xfs", "btrfs", "tmpfs", "f2fs", "vfat", "squashfs"];

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
        let capabilities = parse_capabilities(&read("/proc/self/status")?);
        let swap_accounting = swap_accounting(&cgroups);
        let privileged = capabilities & SYS_ADMIN != 0;
        Ok(Self {
            kernel,
            release,
            privileged,
            capabilities,
            cgroups,
            swap_accounting,
            devtmpfs,
            mounts: MountTable::default(),
        })
    }

    /// Whether the file system at an open place (its statfs(2) `magic` is known) can be shown through an idmap.
    pub(crate) fn can_idmap(&self, place: &OwnedFd, magic: i64) -> bool {
        let device = || crate::sys::stat_at(place.as_raw_fd(), c"").ok().map(|stat| stat.st_dev);
        !NOT_IDMAPPED.contains(&magic) && (self.devtmpfs.is_none() || self.devtmpfs != device())
    }

    /// The same for all that is mounted below it in this mount namespace; false if nothing is.
    pub(crate) fn can_idmap_below(&self, place: &OwnedFd) -> bool {
        let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())) else { return false };
        let path = path.to_string_lossy();
        self.mounts.with(|mountinfo| {
            let kinds: Vec<&str> = mounted_below(mountinfo, &path).collect();
            !kinds.is_empty() && kinds.iter().all(|kind| IDMAPPED.contains(kind))
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

/// Kinds of the file systems that are mounted below `path`.
fn mounted_below<'a>(mountinfo: &'a str, path: &'a str) -> impl Iterator<Item = &'a str> {
    let path = path.trim_end_matches('/');
    mountinfo.lines().filter_map(move |line| {
        let mount = unescape(line.split(' ').nth(4)?);
        let is_below = mount.strip_prefix(path).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'));
        line.split_once(" - ").and_then(|(_, filesystem)| filesystem.split(' ').next()).filter(|_| is_below)
    })
}

fn find_devtmpfs(mountinfo: &str) -> Option<u64> {
    mountinfo.lines().find_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let (major, minor) = place.split(' ').nth(2)?.split_once(':')?;
        let number = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
        filesystem.starts_with("devtmpfs ").then_some(number)
    })
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::host("", format!("{path}: {error}")).hint("pyrt needs /proc"))
}

fn parse_version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn parse_capabilities(status: &str) -> u64 {
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    permitted.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
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

    #[test]
    fn layouts_are_told_apart() {
        let v1 = "32 31 0:29 / / rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                  36 31 0:33 / / rw - cgroup cgroup rw,devices\n\
                  40 31 0:37 / / rw,relatime - cgroup cgroup rw,xattr,name=systemd\n";
        let v2 = "41 31 0:38 / / rw,relatime shared:1 - cgroup2 cgroup2 rw,nsdelegate\n";
        let (one, two) = (Cgroups::read(v1), Cgroups::read(v2));
        assert_eq!((one.layout(), two.layout()), (Layout::V1, Layout::V2));
        assert_eq!(Cgroups::read(&format!("{v1}{v2}")).layout(), Layout::Hybrid);
        assert_eq!(Cgroups::read("22 27 0:21 / /proc rw - proc proc rw").layout(), Layout::None);
        let controllers: Vec<_> = one.v1.iter().map(|hierarchy| hierarchy.controllers.clone()).collect();
        assert_eq!(controllers, [vec!["cpu", "cpuacct"], vec!["devices"]]);
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }

    #[test]
    fn only_what_lies_below_is_below() {
        let mountinfo = "1 0 8:1 / / rw - ext4 /dev/x rw\n2 1 8:2 / /srv/data rw - xfs /dev/y rw\n\
                         3 2 0:5 / /srv/data/tmp rw - tmpfs t rw\n4 1 0:6 / /srv/database rw - nfs h:/ rw";
        let below = |path| mounted_below(mountinfo, path).collect::<Vec<_>>();
        assert_eq!(below("/srv/data"), ["tmpfs"]);
        assert_eq!(below("/srv"), ["xfs", "tmpfs", "nfs"]);
        assert_eq!(below("/"), ["xfs", "tmpfs", "nfs"]);
        assert_eq!(below("/srv/data/tmp"), [""; 0]);
    }

    #[test]
    fn capabilities_are_read() {
        assert_eq!(parse_capabilities("Name:\tx\nCapPrm:\t000001ffffffffff\n"), (1 << 41) - 1);
        assert_eq!(parse_capabilities(""), 0);
    }
}
