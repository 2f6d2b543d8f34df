//! Owner, mode, extended attributes and times of what was just made, in the order that the kernel's rules ask for:
//! a new owner clears set-id bits and capabilities, and writing does too, so that those come after both.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use super::directories::{Directories, Directory, Me, timestamps};
use crate::error::{Error, Result};
use crate::sys;
use crate::tar::{Entry, Xattr};

/// Name spaces of overlayfs, whose attributes redirect and hide: only a whiteout may make one. The last is how XFS
/// shows its ACLs.
const FORGED: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"trusted.SGI_"];
const CAPABILITY: &[u8] = b"security.capability";
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Whether an attribute of that name belongs into a layer. Labels of the host's security modules are not the image's to
/// choose.
pub(super) fn is_allowed(name: &[u8]) -> bool {
    let is_plain = name.starts_with(b"user.") || name.starts_with(b"trusted.");
    let is_special = [CAPABILITY, ACCESS_ACL, DEFAULT_ACL].contains(&name);
    (is_plain || is_special) && !FORGED.iter().any(|forged| name.starts_with(forged)) && !name.contains(&0)
}

/// Gives entries what their headers say of them.
pub(super) struct Metadata {
    pub(super) me: Me,
    /// Files are made with exactly the mode that is asked for.
    pub(super) own_umask: bool,
    pub(super) dropped_xattrs: u64,
}

impl Metadata {
    /// A file that was just made in `parent` and written.
    pub(super) fn file(&mut self, entry: &Entry, parent: &Directory, fd: &OwnedFd) -> Result<()> {
        let path = &entry.path;
        let is_given = parent.gives(self.me, entry.uid, entry.gid);
        if !is_given {
            chown(fd, entry)?;
        }
        // Set-id bits do not survive a chown, and are not everybody's to set while making a file.
        if entry.mode & 0o7000 != 0 || !self.own_umask {
            rustix::fs::fchmod(fd, mode(entry)).map_err(Error::system("set the mode of", path))?;
        }
        self.xattrs(entry, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))?;
        rustix::fs::futimens(fd, &timestamps(entry.mtime)).map_err(Error::system("set the times of", path))
    }

    /// A directory, new or one that an earlier entry made.
    pub(super) fn directory(
        &mut self,
        entry: &Entry,
        directory: &Directory,
        all: &mut Directories,
        is_new: bool,
    ) -> Result<()> {
        let fd = directory.fd();
        chown(fd, entry)?;
        rustix::fs::fchmod(fd, mode(entry)).map_err(Error::system("set the mode of", &entry.path))?;
        if !is_new {
            drop_xattrs(directory).map_err(Error::system("remove the attributes of", &entry.path))?;
        }
        // The default ACL waits until no more files are made, lest they inherit it.
        let acl = entry.xattrs.iter().rev().find(|xattr| xattr.name == DEFAULT_ACL);
        if acl.is_some() {
            all.expect_default_acls();
        }
        directory.set_default_acl(acl.map(|xattr| xattr.value.clone()));
        self.xattrs(entry, |name, value| match name {
            DEFAULT_ACL => Ok(()),
            _ => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
        })?;
        directory.set_owner(self.me, entry.gid, entry.mode);
        directory.set_mtime(entry.mtime);
        Ok(())
    }

    /// A symbolic link, device or pipe that was just made as `name` in `parent`.
    pub(super) fn other(&mut self, entry: &Entry, parent: &Directory, name: &[u8], has_mode: bool) -> Result<()> {
        let (at, path) = (parent.fd(), &entry.path);
        if !parent.gives(self.me, entry.uid, entry.gid) {
            let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            rustix::fs::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::system("set the owner of", path))?;
        }
        let needs_mode = has_mode && (entry.mode & 0o7000 != 0 || !self.own_umask);
        if needs_mode || !entry.xattrs.is_empty() {
            let fd = sys::open_path(at, name).map_err(Error::system("open", path))?;
            let by_descriptor = sys::by_descriptor(&fd);
            if needs_mode {
                rustix::fs::chmod(&by_descriptor, mode(entry)).map_err(Error::system("set the mode of", path))?;
            }
            self.xattrs(entry, |name, value| rustix::fs::setxattr(&by_descriptor, name, value, XattrFlags::empty()))?;
        }
        rustix::fs::utimensat(at, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::system("set the times of", path))
    }

    /// Sets the attributes that an image may set, capabilities last; counts the others.
    fn xattrs(&mut self, entry: &Entry, set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>) -> Result<()> {
        let (last, first): (Vec<_>, Vec<_>) = entry.xattrs.iter().partition(|xattr| xattr.name == CAPABILITY);
        for Xattr { name, value } in first.into_iter().chain(last) {
            if !is_allowed(name) {
                self.dropped_xattrs += 1;
                continue;
            }
            match set(name, value) {
                Ok(()) => {}
                // A file system without such attributes; or user.* on what is neither file nor directory.
                Err(Errno::OPNOTSUPP | Errno::PERM) if name != CAPABILITY => self.dropped_xattrs += 1,
                Err(error) => return Err(Error::system("set an extended attribute of", &entry.path)(error)),
            }
        }
        Ok(())
    }
}

/// Takes off what an earlier entry for the same directory has set, but not the mark of a whiteout.
fn drop_xattrs(directory: &Directory) -> rustix::io::Result<()> {
    let mut names = vec![0; 65536];
    let length = match rustix::fs::flistxattr(directory.fd(), &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error),
    };
    for name in names[..length].split(|&byte| byte == 0).filter(|name| is_allowed(name)) {
        rustix::fs::fremovexattr(directory.fd(), name)?;
    }
    Ok(())
}

fn chown(fd: impl AsFd, entry: &Entry) -> Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
        .map_err(Error::system("set the owner of", &entry.path))
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}
