//! Removal of whole trees by descriptors: no link is followed, no mount is crossed, no depth is too deep.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, RawDir, RenameFlags, SeekFrom};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::sys;

/// How deep the walk goes, a descriptor and a buffer a level. What lies deeper is first moved up to the top.
const LEVELS: usize = 64;
/// Directory entries are read in pieces of so many bytes.
const LISTING: usize = 16 << 10;

/// Removes `name`, whatever it is, from the directory `parent`. A name that is not there is as good as removed.
///
/// `name` is one part of a path. The tree should be nobody's any more: if somebody keeps adding to it, the removal
/// fails with "directory not empty"; if a file system is mounted in it, with "device or resource busy" or "invalid
/// cross-device link".
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(Error::system("remove", name.as_bytes())(Errno::INVAL)),
        name if name.contains(&b'/') => Err(Error::system("remove", name)(Errno::INVAL)),
        name => remove(parent, name),
    }
}

/// [`remove_tree`] for a name that is known to be one part.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => remove_directory(parent, name, None),
        Err(error) => Err(Error::system("remove", name)(error)),
    }
}

/// The directory at the top of the tree, which takes in what lies too deep.
struct Top<'fd> {
    fd: BorrowedFd<'fd>,
    moved: u64,
}

impl Top<'_> {
    /// Moves a directory to right below the top.
    fn take_in(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        loop {
            let new = format!(".moved-{}", self.moved);
            self.moved += 1;
            match rustix::fs::renameat_with(parent, name, self.fd, &new, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                done => return done,
            }
        }
    }
}

/// Removes the directory `name`. `above` is the top of the tree and the levels between, unless this is the top itself.
fn remove_directory(parent: BorrowedFd<'_>, name: &[u8], above: Option<(&mut Top<'_>, usize)>) -> Result<()> {
    let failed = || Error::system("remove the directory", name);
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(failed()(error)),
    }
    match above {
        Some((top, LEVELS)) => return top.take_in(parent, name).map_err(failed()),
        Some((top, level)) => {
            let fd = sys::open_beneath(parent, name).map_err(failed())?;
            empty(fd.as_fd(), top, level)?;
        }
        None => empty_directory(parent, name)?,
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(failed())
}

/// Removes all that is in the directory `name`, which is the top of a tree.
pub(crate) fn empty_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let fd = sys::open_beneath(parent, name).map_err(Error::system("open the directory", name))?;
    let mut top = Top { fd: fd.as_fd(), moved: 0 };
    empty(fd.as_fd(), &mut top, 0)
}

/// Removes all that is in the directory, again if something was added meanwhile, as the top takes in what is deep.
fn empty(directory: BorrowedFd<'_>, top: &mut Top<'_>, level: usize) -> Result<()> {
    let mut listing = Vec::with_capacity(LISTING);
    loop {
        let moved = top.moved;
        empty_once(directory, top, level, listing.spare_capacity_mut())?;
        if level > 0 || top.moved == moved {
            return Ok(());
        }
        rustix::fs::seek(directory, SeekFrom::Start(0)).map_err(Error::system("list", b"."))?;
    }
}

fn empty_once(
    directory: BorrowedFd<'_>,
    top: &mut Top<'_>,
    level: usize,
    listing: &mut [MaybeUninit<u8>],
) -> Result<()> {
    let mut entries = RawDir::new(directory, listing);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(Error::system("list", b"."))?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // A file system that does not tell the types of entries.
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(Error::system("remove", name)(error)),
            }
        }
        remove_directory(directory, name, Some((top, level + 1)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn remove_in(parent: &Path, name: &str) -> Result<()> {
        remove_tree(File::open(parent).unwrap().as_fd(), OsStr::new(name))
    }

    #[test]
    fn a_tree_goes_and_what_its_links_point_at_stays() {
        let base = tempfile::tempdir().unwrap();
        let (kept, tree) = (base.path().join("kept"), base.path().join("tree"));
        fs::create_dir_all(kept.join("d")).unwrap();
        fs::write(kept.join("d/f"), "canary").unwrap();
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        symlink(&kept, tree.join("a/out")).unwrap();
        symlink("../../kept/d", tree.join("a/b/up")).unwrap();
        symlink("missing", tree.join("dangling")).unwrap();
        remove_in(base.path(), "tree").unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(kept.join("d/f")).unwrap(), "canary");
    }

    #[test]
    fn a_link_is_removed_and_not_followed() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("kept")).unwrap();
        symlink("kept", base.path().join("link")).unwrap();
        remove_in(base.path(), "link").unwrap();
        assert!(base.path().join("kept").exists());
        assert!(base.path().join("link").symlink_metadata().is_err());
    }

    #[test]
    fn what_is_not_there_is_removed_already() {
        let base = tempfile::tempdir().unwrap();
        remove_in(base.path(), "nothing").unwrap();
    }

    #[test]
    fn only_single_names_are_taken() {
        let base = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "a/b", "/"] {
            assert!(matches!(remove_in(base.path(), name), Err(Error::System { .. })), "{name}");
        }
    }

    #[test]
    fn depth_and_clashing_names_do_not_matter() {
        let base = tempfile::tempdir().unwrap();
        let mut at = File::open(base.path()).unwrap();
        for name in std::iter::repeat_n(".moved-0", 5000) {
            rustix::fs::mkdirat(&at, name, rustix::fs::Mode::RWXU).unwrap();
            rustix::fs::openat(
                &at,
                "file",
                rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
                rustix::fs::Mode::RUSR,
            )
            .unwrap();
            at = sys::open_directory(at.as_fd(), name.as_bytes()).unwrap().into();
        }
        remove_in(base.path(), ".moved-0").unwrap();
        assert!(!base.path().join(".moved-0").exists());
    }
}
