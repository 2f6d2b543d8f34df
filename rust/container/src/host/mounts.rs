//! What is mounted where, and which file systems can be shown through an idmap.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use super::Version;

/// This process's mountinfo, read again only when the kernel says that it has changed: with a few dozen mounts reading
/// it costs as much as all the rest of a plan.
#[derive(Debug, Default)]
pub struct MountTable(Mutex<Option<(File, String)>>);

impl MountTable {
    /// Hands the text to `look`; an unreadable table is empty.
    pub(super) fn with<T>(&self, look: impl FnOnce(&str) -> T) -> T {
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
    let mut text = String::with_capacity(16 << 10);
    file.read_to_string(&mut text).ok()?;
    Some((file, text))
}

/// statfs(2) magic numbers of file systems without FS_ALLOW_IDMAP (linux/magic.h): procfs, sysfs, cgroup, cgroup2,
/// devpts, nsfs, mqueue, overlayfs, NFS, 9P, debugfs, tracefs, securityfs, bpf, configfs, ramfs, CIFS, SMB2, autofs.
pub(super) const NOT_IDMAPPED: [i64; 19] = [
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
/// Names of file systems with FS_ALLOW_IDMAP that people mount below what they bind, and since when they have it; 5.19
/// stands for all before.
pub(super) const IDMAPPED: [(&str, Version); 9] = [
    ("ext4", (5, 19)),
    ("ext3", (5, 19)),
    ("ext2", (5, 19)),
    ("xfs", (5, 19)),
    ("btrfs", (5, 19)),
    ("f2fs", (5, 19)),
    ("vfat", (5, 19)),
    ("squashfs", (6, 2)),
    ("tmpfs", (6, 3)),
];

/// Since when a file system of this magic number can be idmapped, if it was not always so: tmpfs, squashfs, fuse.
pub(super) fn idmapped_since(magic: i64) -> Option<Version> {
    match magic {
        0x0102_1994 => Some((6, 3)),
        0x7371_7368 => Some((6, 2)),
        0x6573_5546 => Some((6, 12)),
        _ => None,
    }
}

/// Space, tab, newline and backslash are octal in mountinfo.
pub(super) fn unescape(field: &str) -> Cow<'_, str> {
    const CODES: [(&str, &str); 4] = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    if !field.contains('\\') {
        return Cow::Borrowed(field);
    }
    Cow::Owned(CODES.iter().fold(field.to_owned(), |text, (code, letter)| text.replace(code, letter)))
}

/// Kinds of the file systems that are mounted below `path`.
pub(super) fn mounted_below<'a>(mountinfo: &'a str, path: &'a str) -> impl Iterator<Item = &'a str> {
    let path = path.trim_end_matches('/');
    mountinfo.lines().filter_map(move |line| {
        let mount = unescape(line.split(' ').nth(4)?);
        let is_below = mount.strip_prefix(path).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'));
        line.split_once(" - ").and_then(|(_, filesystem)| filesystem.split(' ').next()).filter(|_| is_below)
    })
}

/// Device number of the first devtmpfs.
pub(super) fn find_devtmpfs(mountinfo: &str) -> Option<u64> {
    mountinfo.lines().find_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let (major, minor) = place.split(' ').nth(2)?.split_once(':')?;
        let number = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
        filesystem.starts_with("devtmpfs ").then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
