//! A tree with everything that a tar can hold, to be packed by real tools.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// A name that is no text.
pub const RAW_NAME: &[u8] = b"not \xff\xfe UTF-8 \n\x01";

/// A tree with everything that a tar can hold.
pub fn grow(root: &Path) {
    let file = |name: &str, content: &[u8]| fs::write(root.join(name), content).unwrap();
    let mode = |name: &str, mode: u32| fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    let xattr = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(root.join(name), key, value, XattrFlags::empty()).unwrap();
    };
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    file("usr/bin/tool", &[7; 300_000]);
    file("usr/bin/setuid", b"#!/bin/sh\n");
    file("empty file", b"");
    file("exactly a block", &[1; 512]);
    chown(root.join("usr/bin/setuid"), Some(1000), Some(50)).unwrap();
    mode("usr/bin/setuid", 0o6755);
    mode("empty", 0o1777);
    fs::create_dir(root.join("setgid")).unwrap();
    chown(root.join("setgid"), Some(0), Some(42)).unwrap();
    mode("setgid", 0o2775);
    file("setgid/inherits?", b"x");
    chown(root.join("setgid/inherits?"), Some(0), Some(0)).unwrap();
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/linked")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    lchown(root.join("dangling"), Some(33), Some(34)).unwrap();
    fs::write(root.join(OsStr::from_bytes(RAW_NAME)), "raw").unwrap();
    let node = |name: &str, kind: FileType, device: u64| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("pipe", FileType::Fifo, 0);
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("disk", FileType::BlockDevice, rustix::fs::makedev(259, 70_000));
    xattr("usr/bin/tool", "user.note", b"some\0bytes=\n");
    xattr("usr/bin/tool", "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    xattr("empty", "user.on a directory", b"1");
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    for (at, byte) in [(1 << 20, 1), (5 << 20, 2), (9 << 20, 3)] {
        sparse.write_all_at(&[byte; 4096], at).unwrap();
    }
    File::create(root.join("hole")).unwrap().set_len(1 << 20).unwrap();
    times(root);
}

/// Gives everything a time of its own, with nanoseconds.
pub fn times(root: &Path) {
    let mut paths: Vec<_> = walk(root);
    paths.reverse();
    for (number, path) in paths.iter().enumerate() {
        let time = Timespec { tv_sec: 1_500_000_000 + number as i64, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn walk(path: &Path) -> Vec<std::path::PathBuf> {
    let mut paths = vec![path.to_owned()];
    if path.is_dir() && !path.is_symlink() {
        for child in fs::read_dir(path).unwrap() {
            paths.extend(walk(&child.unwrap().path()));
        }
    }
    paths
}

/// Names that need more than a ustar header has room for.
pub fn grow_long_names(root: &Path) {
    let deep = format!("{0}/{0}/{0}", "d".repeat(120));
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(format!("{deep}/{}", "f".repeat(255))), "long").unwrap();
    symlink("t".repeat(300), root.join("long target")).unwrap();
    let (first, second) = (root.join(format!("{deep}/first")), root.join(format!("{deep}/second")));
    fs::write(&first, "x").unwrap();
    fs::hard_link(first, second).unwrap();
    times(root);
}
