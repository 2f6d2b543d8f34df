//! The folder of a container, with the two directories that overlayfs wants of it: made, and passed on to another one.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, RawDir, chmodat, mkdirat, renameat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::remove::{empty_directory, remove};
use crate::sys;

/// overlayfs refuses directories that another mount has, if it is to keep an index, and warns of them otherwise.
const INDEX: &str = "/sys/module/overlay/parameters/index";
/// Enough for the four entries of such a folder.
const LISTING: usize = 1024;

/// Makes the folder `name` in the directory `parent`, with `upper` (0755, whatever the umask is) and `work` in it.
pub fn make_folder(parent: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<()> {
    mkdirat(parent, name, Mode::RWXU)?;
    mkdirat(parent, name.join("work"), Mode::RWXU)?;
    make_upper(parent, &name.join("upper"))
}

/// The root directory of the container has the mode of this one.
fn make_upper(parent: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    mkdirat(parent, path, Mode::from_raw_mode(0o755))?;
    chmodat(parent, path, Mode::from_raw_mode(0o755), AtFlags::empty())
}

/// Whether folders can be passed on: the mount of the container that is gone may not be gone yet, though nobody uses it.
pub fn can_be_passed_on() -> bool {
    std::fs::read(INDEX).is_ok_and(|text| text.starts_with(b"N"))
}

/// Gives the folder `old` of a container that is gone to another one, whose folder `new` is to be: as [`make_folder`] makes
/// it. What was the root directory of the one is not that of the other: it may have been given any attributes. False if
/// there is more in it than `make_folder` has made; then `old` is still there, as it is if this fails.
pub fn pass_on(parent: BorrowedFd<'_>, old: &OsStr, new: &OsStr) -> Result<bool> {
    let failed = |what| Error::system(what, old.as_bytes());
    let folder = sys::open_beneath(parent, old.as_bytes()).map_err(failed("open the directory"))?;
    let folder = folder.as_fd();
    if !holds_both_alone(folder).map_err(failed("list"))? {
        return Ok(false);
    }
    remove(folder, b"upper")?;
    // What a volatile overlay has left, as a rule all there is: to list and open each costs three times as much.
    let _ = rustix::fs::unlinkat(folder, "work/work/incompat/volatile", AtFlags::empty());
    let _ = rustix::fs::unlinkat(folder, "work/work/incompat", AtFlags::REMOVEDIR);
    let _ = rustix::fs::unlinkat(folder, "work/work", AtFlags::REMOVEDIR);
    empty_directory(folder, b"work")?;
    make_upper(folder, Path::new("upper")).map_err(failed("make the directory upper in"))?;
    renameat(parent, old, parent, new).map_err(failed("rename"))?;
    Ok(true)
}

fn holds_both_alone(folder: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut listing = [MaybeUninit::uninit(); LISTING];
    let mut entries = RawDir::new(folder, &mut listing);
    let mut found = 0;
    while let Some(entry) = entries.next() {
        match entry?.file_name().to_bytes() {
            b"." | b".." => {}
            b"upper" | b"work" => found += 1,
            _ => return Ok(false),
        }
    }
    Ok(found == 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn used() -> (tempfile::TempDir, File) {
        let base = tempfile::tempdir().unwrap();
        let parent = File::open(base.path()).unwrap();
        make_folder(parent.as_fd(), Path::new("old")).unwrap();
        (base, parent)
    }

    fn pass(parent: &File) -> Result<bool> {
        pass_on(parent.as_fd(), OsStr::new("old"), OsStr::new("new"))
    }

    #[test]
    fn nothing_of_the_one_container_is_left_for_the_other() {
        let (base, parent) = used();
        let old = base.path().join("old");
        fs::create_dir_all(old.join("work/work/incompat/volatile")).unwrap();
        fs::set_permissions(old.join("work/work"), Permissions::from_mode(0)).unwrap();
        fs::create_dir(old.join("upper/etc")).unwrap();
        symlink("/etc/passwd", old.join("upper/link")).unwrap();
        fs::set_permissions(old.join("upper"), Permissions::from_mode(0o1777)).unwrap();
        assert!(pass(&parent).unwrap());
        let new = base.path().join("new");
        assert!(!old.exists());
        assert_eq!(
            fs::read_dir(new.join("upper")).unwrap().count() + fs::read_dir(new.join("work")).unwrap().count(),
            0
        );
        assert_eq!(new.join("upper").metadata().unwrap().mode() & 0o7777, 0o755);
        assert_eq!(new.metadata().unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_folder_with_more_in_it_stays() {
        let (base, parent) = used();
        fs::write(base.path().join("old/log"), "kept").unwrap();
        assert!(!pass(&parent).unwrap());
        assert_eq!(fs::read_to_string(base.path().join("old/log")).unwrap(), "kept");
    }

    #[test]
    fn what_is_no_folder_of_a_container_stays() {
        let base = tempfile::tempdir().unwrap();
        let parent = File::open(base.path()).unwrap();
        assert!(pass(&parent).is_err());
        fs::create_dir(base.path().join("old")).unwrap();
        assert!(!pass(&parent).unwrap());
        symlink("/etc", base.path().join("old/upper")).unwrap();
        symlink("/etc", base.path().join("old/work")).unwrap();
        assert!(pass(&parent).is_err());
        assert!(Path::new("/etc/passwd").exists());
    }
}
