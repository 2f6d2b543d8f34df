//! The directories of the layer that are open just now: a small cache, and the only way to a parent.
//!
//! Names are looked up one part at a time below descriptors that were opened here, or several at once by openat2(2)
//! where no symbolic link is allowed, so that nothing leads outside. Symbolic links *of the layer* among the parents
//! of an entry are followed as they would be in a container: from the layer's root, never above it.
//!
//! Making a file changes the times of its directory. So whoever leaves the cache gets back the times that it had,
//! or that its entry gave it, as its last change; that takes no table of all directories, however many there are.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Error, Reason, Result};
use crate::names;
use crate::options::Overlay;
use crate::remove::remove;
use crate::sys;
use crate::tar::Time;

/// How many directories are open at once, at most; the program around this may have few descriptors to spare.
const OPEN: usize = 32;
/// As in the kernel's own walk.
const LINKS: usize = 40;

const DEFAULT_ACL: &str = "system.posix_acl_default";
/// Largest value of an extended attribute, by the kernel's rules.
const XATTR_MAX: usize = 65536;

/// An open directory of the layer.
pub(super) struct Directory {
    /// Its true path, without symbolic links; empty for the root.
    pub(super) path: Vec<u8>,
    fd: OwnedFd,
    mtime: Cell<Time>,
    changed: Cell<bool>,
    /// New files in it belong to us without being told: neither its group nor its set-group-id bit say otherwise.
    ours: Cell<bool>,
    /// Taken off while it is open, lest new files inherit it: a file of an archive has its own.
    default_acl: RefCell<Option<Vec<u8>>>,
}

impl Directory {
    /// The descriptor, for a call that adds, changes or removes a name in it.
    pub(super) fn changing(&self) -> BorrowedFd<'_> {
        self.changed.set(true);
        self.fd.as_fd()
    }

    /// The descriptor, for a call that changes no name.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether a new file in it belongs to (`uid`, `gid`) without being told.
    pub(super) fn gives(&self, me: Me, uid: u32, gid: u32) -> bool {
        self.ours.get() && me.uid == uid && me.gid == gid
    }

    /// Takes the times that its entry gives it.
    pub(super) fn set_mtime(&self, mtime: Time) {
        self.mtime.set(mtime);
        self.changed.set(true);
    }

    /// Takes the default ACL that its entry gives it.
    pub(super) fn set_default_acl(&self, acl: Option<Vec<u8>>) {
        self.default_acl.replace(acl);
    }

    /// Notes the owner and mode that it was given.
    pub(super) fn set_owner(&self, me: Me, gid: u32, mode: u32) {
        self.ours.set(ours(me, gid, mode));
    }

    fn settle(&self) -> Result<()> {
        if let Some(acl) = self.default_acl.borrow().as_deref() {
            rustix::fs::fsetxattr(&self.fd, DEFAULT_ACL, acl, XattrFlags::empty())
                .map_err(Error::system("set the default ACL of", &self.path))?;
        }
        if !self.changed.get() {
            return Ok(());
        }
        rustix::fs::futimens(&self.fd, &timestamps(self.mtime.get()))
            .map_err(Error::system("set the times of", &self.path))
    }
}

/// Who this process is to the file system.
#[derive(Clone, Copy)]
pub(super) struct Me {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

fn ours(me: Me, gid: u32, mode: u32) -> bool {
    gid == me.gid && mode & libc::S_ISGID == 0
}

/// The same time for access and modification.
pub(super) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// What to do about a directory on the way that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Leave,
}

/// Why there is no directory for a path.
pub(super) enum Unreachable {
    Missing,
    Other(Error),
    Refused(Reason),
}

impl From<Error> for Unreachable {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Reason> for Unreachable {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

type Found = Result<Rc<Directory>, Unreachable>;

/// The open directories of a layer.
pub(super) struct Directories {
    root: Rc<Directory>,
    /// Most recently used first, at most [`OPEN`].
    recent: Vec<Rc<Directory>>,
    /// The last path that led through a symbolic link, and where it led.
    alias: Option<(Vec<u8>, Vec<u8>)>,
    me: Me,
    own_umask: bool,
    overlay: Overlay,
    /// Whether any directory of this layer may have a default ACL.
    default_acls: bool,
    /// Of the entry that is being placed; a directory that it implies takes it.
    now: Time,
    pub(super) implied: u64,
    pub(super) opaque_root: bool,
}

impl Directories {
    /// Starts in `root`, which must be empty and becomes a directory as an image without an entry for it has one.
    pub(super) fn new(root: BorrowedFd<'_>, me: Me, own_umask: bool, overlay: Overlay) -> Result<Self> {
        let fd = sys::open_directory(root, b".").map_err(Error::system("open", b"."))?;
        let root = Directory {
            path: Vec::new(),
            fd,
            mtime: Cell::default(),
            changed: Cell::new(true),
            ours: Cell::new(false),
            default_acl: RefCell::default(),
        };
        let directories = Self {
            root: Rc::new(root),
            recent: Vec::with_capacity(OPEN + 1),
            alias: None,
            me,
            own_umask,
            overlay,
            default_acls: false,
            now: Time::default(),
            implied: 0,
            opaque_root: false,
        };
        directories.prepare_root().map_err(Error::system("prepare the directory", b"."))?;
        Ok(directories)
    }

    fn prepare_root(&self) -> rustix::io::Result<()> {
        let fd = self.root.fd();
        let mut names = rustix::fs::Dir::read_from(fd)?;
        if names.any(|name| name.is_ok_and(|name| !matches!(name.file_name().to_bytes(), b"." | b".."))) {
            return Err(Errno::NOTEMPTY);
        }
        match rustix::fs::fremovexattr(fd, DEFAULT_ACL) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
        rustix::fs::fchown(fd, Some(Uid::from_raw(0)), Some(Gid::from_raw(0)))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(0o755))?;
        self.root.set_owner(self.me, 0, 0o755);
        Ok(())
    }

    /// Says whose time directories take that no entry of their own gives one.
    pub(super) fn at(&mut self, now: Time, first: bool) {
        self.now = now;
        if first {
            self.root.set_mtime(now);
        }
    }

    /// The directory at `path`, made if there is none.
    pub(super) fn enter(&mut self, path: &[u8]) -> Found {
        self.find(path, Missing::Make)
    }

    /// The directory at `path`, if there is one.
    pub(super) fn look(&mut self, path: &[u8]) -> Found {
        self.find(path, Missing::Leave)
    }

    fn find(&mut self, path: &[u8], missing: Missing) -> Found {
        if let Some(found) = self.cached(path) {
            return Ok(found);
        }
        if let Some((_, real)) = self.alias.take_if(|(from, _)| from == path) {
            let found = self.find(&real, missing)?;
            self.alias = Some((path.to_vec(), real));
            return Ok(found);
        }
        let nearest = self.nearest(path);
        let rest = names::below(path, &nearest.path).unwrap_or(path);
        match sys::open_beneath(nearest.fd(), rest) {
            Ok(fd) => Ok(self.remember(path.to_vec(), fd)?),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG) => self.walk(nearest, path, missing),
            Err(error) => Err(Error::system("open the directory", path)(error).into()),
        }
    }

    /// Goes to `path` part by part, as a container with this root would.
    fn walk(&mut self, start: Rc<Directory>, path: &[u8], missing: Missing) -> Found {
        let mut at = Rc::clone(&start);
        let mut left = Vec::new();
        push_parts(&mut left, names::below(path, &start.path).unwrap_or(path));
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == b".." {
                at = self.find(names::split(&at.path).0, Missing::Leave)?;
                continue;
            }
            match self.step(&at, &part, missing)? {
                Step::Into(next) => at = next,
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Reason::LinkLoop.into());
                    }
                    if target.starts_with(b"/") {
                        at = Rc::clone(&self.root);
                    }
                    push_parts(&mut left, &target);
                }
            }
        }
        if at.path != path {
            self.alias = Some((path.to_vec(), at.path.clone()));
        }
        Ok(at)
    }

    fn step(&mut self, at: &Rc<Directory>, name: &[u8], missing: Missing) -> Result<Step, Unreachable> {
        let path = names::join(&at.path, name);
        if let Some(found) = self.cached(&path) {
            return Ok(Step::Into(found));
        }
        match sys::open_directory(at.fd(), name) {
            Ok(fd) => Ok(Step::Into(self.remember(path, fd)?)),
            Err(Errno::NOENT) if missing == Missing::Make => Ok(Step::Into(self.imply(at, name, path)?)),
            Err(Errno::NOENT) => Err(Unreachable::Missing),
            Err(Errno::LOOP | Errno::NOTDIR) => self.step_over(at, name, path, missing),
            Err(error) => Err(Error::system("open the directory", &path)(error).into()),
        }
    }

    /// Steps to what is in the place of a directory.
    fn step_over(
        &mut self,
        at: &Rc<Directory>,
        name: &[u8],
        path: Vec<u8>,
        missing: Missing,
    ) -> Result<Step, Unreachable> {
        let stat = sys::stat(at.fd(), name).map_err(Error::system("look at", &path))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let target = rustix::fs::readlinkat(at.fd(), name, Vec::new());
            let target = target.map_err(Error::system("read the symbolic link", &path))?;
            return Ok(Step::Link(target.into_bytes()));
        }
        if !is_whiteout(&stat) {
            return Err(Reason::ParentNotDirectory.into());
        }
        if missing == Missing::Leave {
            return Err(Unreachable::Missing);
        }
        self.clear(at, name)?;
        let made = self.imply(at, name, path)?;
        self.make_opaque(&made)?;
        Ok(Step::Into(made))
    }

    /// Makes a directory that entries need and that has no entry of its own, or has it later.
    fn imply(&mut self, at: &Rc<Directory>, name: &[u8], path: Vec<u8>) -> Result<Rc<Directory>, Unreachable> {
        // Only the target of a symbolic link can lead here; a tar of this layer could not say what is in there.
        if name.starts_with(b".wh.") {
            return Err(Reason::BelowWhiteout.into());
        }
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(at.changing(), name, mode).map_err(Error::system("make the directory", &path))?;
        let fd = sys::open_directory(at.fd(), name).map_err(Error::system("open the directory", &path))?;
        if !(at.gives(self.me, 0, 0) && self.own_umask) {
            rustix::fs::fchown(&fd, Some(Uid::from_raw(0)), Some(Gid::from_raw(0)))
                .and_then(|()| rustix::fs::fchmod(&fd, mode))
                .map_err(Error::system("set the owner of", &path))?;
        }
        self.implied += 1;
        let made = self.remember(path, fd)?;
        made.set_mtime(self.now);
        Ok(made)
    }

    /// Removes what is under `name`, a whole tree if it is one.
    pub(super) fn clear(&mut self, at: &Rc<Directory>, name: &[u8]) -> Result<()> {
        let path = names::join(&at.path, name);
        // Any way through a symbolic link may have led through what goes now.
        self.alias = None;
        self.recent.retain(|directory| names::below(&directory.path, &path).is_none());
        match rustix::fs::unlinkat(at.changing(), name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => remove(at.changing(), name),
            Err(error) => Err(Error::system("remove", &path)(error)),
        }
    }

    /// Hides what lower layers have in the directory.
    pub(super) fn make_opaque(&mut self, directory: &Directory) -> Result<()> {
        self.opaque_root |= directory.path.is_empty();
        rustix::fs::fsetxattr(directory.fd(), self.overlay.opaque(), b"y", XattrFlags::empty())
            .map_err(Error::system("mark as opaque the directory", &directory.path))
    }

    /// Says that directories of this layer may have default ACLs from now on.
    pub(super) fn expect_default_acls(&mut self) {
        self.default_acls = true;
    }

    /// Takes a directory, just opened, into the cache.
    pub(super) fn remember(&mut self, path: Vec<u8>, fd: OwnedFd) -> Result<Rc<Directory>> {
        let stat = rustix::fs::fstat(&fd).map_err(Error::system("look at", &path))?;
        let mtime = Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
        let default_acl = if self.default_acls { take_default_acl(&fd, &path)? } else { None };
        let directory = Rc::new(Directory {
            path,
            fd,
            mtime: Cell::new(mtime),
            changed: Cell::new(false),
            ours: Cell::new(ours(self.me, stat.st_gid, stat.st_mode)),
            default_acl: RefCell::new(default_acl),
        });
        self.recent.insert(0, Rc::clone(&directory));
        let oldest = if self.recent.len() > OPEN { self.recent.pop() } else { None };
        if let Some(oldest) = oldest {
            oldest.settle()?;
        }
        Ok(directory)
    }

    /// Gives all directories their final times.
    pub(super) fn finish(self) -> Result<()> {
        self.recent.iter().try_for_each(|directory| directory.settle())?;
        self.root.settle()
    }

    /// The root, or the open directory of that path, which becomes the most recently used.
    fn cached(&mut self, path: &[u8]) -> Option<Rc<Directory>> {
        if path.is_empty() {
            return Some(Rc::clone(&self.root));
        }
        let at = self.recent.iter().position(|directory| directory.path == path)?;
        self.recent[..=at].rotate_right(1);
        Some(Rc::clone(&self.recent[0]))
    }

    /// The deepest open directory above `path`.
    fn nearest(&self, path: &[u8]) -> Rc<Directory> {
        let above = self.recent.iter().filter(|directory| names::below(path, &directory.path).is_some());
        Rc::clone(above.max_by_key(|directory| directory.path.len()).unwrap_or(&self.root))
    }
}

enum Step {
    Into(Rc<Directory>),
    Link(Vec<u8>),
}

/// Puts the parts of a path onto a stack, the first uppermost.
fn push_parts(stack: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    stack.extend(parts.rev().map(<[u8]>::to_vec));
}

/// Whether this is how overlayfs says that a name is gone.
pub(super) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn take_default_acl(fd: &OwnedFd, path: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut acl = vec![0; XATTR_MAX];
    match rustix::fs::fgetxattr(fd, DEFAULT_ACL, &mut acl) {
        Ok(length) => acl.truncate(length),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(error) => return Err(Error::system("read the default ACL of", path)(error)),
    }
    rustix::fs::fremovexattr(fd, DEFAULT_ACL).map_err(Error::system("take off the default ACL of", path))?;
    Ok(Some(acl))
}
