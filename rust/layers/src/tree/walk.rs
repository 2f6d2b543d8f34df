//! The way back: a directory in overlay form, such as the upper directory of a container, told as entries of a tar.
//!
//! Names come sorted, a directory before what is in it, so that the same tree always makes the same layer. The tree
//! must be at rest.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, major, minor};
use rustix::io::Errno;

use super::directories::is_whiteout;
use super::metadata::is_allowed;
use crate::error::{Error, Result};
use crate::names;
use crate::options::Overlay;
use crate::sys;
use crate::tar::{Entry, Kind, Time, Xattr};

/// How many directories are held open; deeper ones are opened again on the way back up.
const OPEN: usize = 64;

/// What is told of a tree.
pub(crate) trait Listener {
    /// An entry, and its content if it is a file with some.
    fn entry(&mut self, entry: &Entry, content: Option<(&OwnedFd, u64)>) -> Result<()>;
}

/// Tells all of the tree below `root`; the number of sockets, which no tar can hold.
pub(crate) fn tell(root: BorrowedFd<'_>, overlay: Overlay, listener: &mut dyn Listener) -> Result<u64> {
    let fd = sys::open_directory(root, b".").map_err(Error::system("open", b"."))?;
    let mut walk = Walk { root, overlay, listener, stack: Vec::new(), first_names: HashMap::new(), sockets: 0 };
    walk.directory(Vec::new(), fd)?;
    while let Some(level) = walk.stack.last_mut() {
        match level.names.pop() {
            Some(name) => walk.child(&name)?,
            None => drop(walk.stack.pop()),
        }
    }
    Ok(walk.sockets)
}

struct Level {
    path: Vec<u8>,
    /// Closed while the walk is far below.
    fd: Option<OwnedFd>,
    /// What is still to be told, the next at the end.
    names: Vec<Box<[u8]>>,
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    overlay: Overlay,
    listener: &'a mut dyn Listener,
    stack: Vec<Level>,
    /// First path of files with several names, by device and inode.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    sockets: u64,
}

impl Walk<'_> {
    /// Tells of a directory and goes into it.
    fn directory(&mut self, path: Vec<u8>, fd: OwnedFd) -> Result<()> {
        let stat = rustix::fs::fstat(&fd).map_err(Error::system("look at", &path))?;
        let attributes = Attributes::read(self.overlay, &path, |name, value| match name {
            None => rustix::fs::flistxattr(&fd, value),
            Some(name) => rustix::fs::fgetxattr(&fd, name, value),
        })?;
        self.listener.entry(&entry(path.clone(), &stat, Kind::Directory, attributes.kept), None)?;
        if attributes.is_opaque {
            self.marker(names::join(&path, b".wh..wh..opq"), &stat)?;
        }
        let names = list(&fd, &path)?;
        if self.stack.len() >= OPEN {
            let above = self.stack.len() - OPEN;
            self.stack[above].fd = None;
        }
        self.stack.push(Level { path, fd: Some(fd), names });
        Ok(())
    }

    /// The empty file by which a tar hides something.
    fn marker(&mut self, path: Vec<u8>, stat: &Stat) -> Result<()> {
        let marker = Entry { mode: 0, uid: 0, gid: 0, ..entry(path, stat, Kind::File, Vec::new()) };
        self.listener.entry(&marker, None)
    }

    /// Tells of a name in the uppermost directory of the stack.
    fn child(&mut self, name: &[u8]) -> Result<()> {
        let Some(level) = self.stack.last_mut() else { return Ok(()) };
        let path = names::join(&level.path, name);
        if level.fd.is_none() {
            level.fd = Some(reopen(self.root, &level.path)?);
        }
        let Some(at) = &level.fd else { return Ok(()) };
        let stat = sys::stat(at.as_fd(), name).map_err(Error::system("look at", &path))?;
        if is_whiteout(&stat) {
            let marker = names::join(&level.path, &[b".wh.", name].concat());
            return self.marker(marker, &stat);
        }
        if name.starts_with(b".wh.") {
            return Err(unwritable(&path, "its name is that of a whiteout"));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let fd = sys::open_directory(at.as_fd(), name).map_err(Error::system("open the directory", &path))?;
                self.directory(path, fd)
            }
            FileType::Socket => {
                self.sockets += 1;
                Ok(())
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(at, name, flags, Mode::empty()).map_err(Error::system("open", &path))?;
                self.file(path, &fd)
            }
            file_type => {
                let kind = other_kind(at.as_fd(), name, &path, file_type, &stat)?;
                let fd = sys::open_path(at.as_fd(), name).map_err(Error::system("open", &path))?;
                self.other(path, &fd, &stat, kind)
            }
        }
    }

    fn file(&mut self, path: Vec<u8>, fd: &OwnedFd) -> Result<()> {
        let stat = rustix::fs::fstat(fd).map_err(Error::system("look at", &path))?;
        let attributes = Attributes::read(self.overlay, &path, |name, value| match name {
            None => rustix::fs::flistxattr(fd, value),
            Some(name) => rustix::fs::fgetxattr(fd, name, value),
        })?;
        if let Some(first) = self.first_name(&path, &stat) {
            let link = entry(path, &stat, Kind::HardLink(first), Vec::new());
            return self.listener.entry(&link, None);
        }
        let file = entry(path, &stat, Kind::File, attributes.kept);
        self.listener.entry(&file, Some((fd, stat.st_size as u64)))
    }

    fn other(&mut self, path: Vec<u8>, fd: &OwnedFd, stat: &Stat, kind: Kind) -> Result<()> {
        let by_descriptor = sys::by_descriptor(fd);
        let attributes = Attributes::read(self.overlay, &path, |name, value| match name {
            None => rustix::fs::listxattr(&by_descriptor, value),
            Some(name) => rustix::fs::getxattr(&by_descriptor, name, value),
        })?;
        let told = match self.first_name(&path, stat) {
            Some(first) => entry(path, stat, Kind::HardLink(first), Vec::new()),
            None => entry(path, stat, kind, attributes.kept),
        };
        self.listener.entry(&told, None)
    }

    /// The path under which this file was told already; otherwise notes this one.
    fn first_name(&mut self, path: &[u8], stat: &Stat) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let first = self.first_names.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
        (first != path).then(|| first.clone())
    }
}

fn other_kind(at: BorrowedFd<'_>, name: &[u8], path: &[u8], file_type: FileType, stat: &Stat) -> Result<Kind> {
    let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
    Ok(match file_type {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(at, name, Vec::new());
            Kind::Symlink(target.map_err(Error::system("read the symbolic link", path))?.into_bytes())
        }
        FileType::CharacterDevice => Kind::Character { major, minor },
        FileType::BlockDevice => Kind::Block { major, minor },
        FileType::Fifo => Kind::Fifo,
        _ => return Err(unwritable(path, "it is of no known type")),
    })
}

fn unwritable(path: &[u8], why: &'static str) -> Error {
    Error::Unwritable { entry: path.to_vec(), why }
}

fn entry(path: Vec<u8>, stat: &Stat, kind: Kind, xattrs: Vec<Xattr>) -> Entry {
    Entry {
        path,
        offset: 0,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        xattrs,
    }
}

/// The names in a directory, the first at the end.
fn list(fd: &OwnedFd, path: &[u8]) -> Result<Vec<Box<[u8]>>> {
    let failed = || Error::system("list", path);
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for name in Dir::read_from(fd).map_err(failed())? {
        match name.map_err(failed())?.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.into()),
        }
    }
    names.sort_unstable_by(|first, second| second.cmp(first));
    Ok(names)
}

/// Opens a directory that the walk has come through before.
fn reopen(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let failed = || Error::system("open the directory", path);
    let mut at = sys::open_directory(root, b".").map_err(failed())?;
    // As many parts at once as the kernel takes in one path, which is 16 of the longest names.
    let parts: Vec<_> = path.split(|&byte| byte == b'/').collect();
    for parts in parts.chunks(15) {
        at = sys::open_beneath(at.as_fd(), &parts.join(&b'/')).map_err(failed())?;
    }
    Ok(at)
}

/// The extended attributes of something, those of overlayfs understood.
struct Attributes {
    kept: Vec<Xattr>,
    is_opaque: bool,
}

impl Attributes {
    /// Reads them by `get`: of no name, the list of names; of a name, its value.
    fn read(
        overlay: Overlay,
        path: &[u8],
        get: impl Fn(Option<&[u8]>, &mut [u8]) -> rustix::io::Result<usize>,
    ) -> Result<Self> {
        let failed = || Error::system("read the extended attributes of", path);
        // As much as the kernel allows for the list, and for each value.
        let mut names = vec![0; 65536];
        let length = match get(None, &mut names) {
            Err(Errno::OPNOTSUPP) => 0,
            length => length.map_err(failed())?,
        };
        let mut attributes = Self { kept: Vec::new(), is_opaque: false };
        let mut value = vec![0; if length == 0 { 0 } else { 65536 }];
        for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let length = get(Some(name), &mut value).map_err(failed())?;
            attributes.take(overlay, path, name, &value[..length])?;
        }
        attributes.kept.sort_unstable_by(|first, second| first.name.cmp(&second.name));
        Ok(attributes)
    }

    fn take(&mut self, overlay: Overlay, path: &[u8], name: &[u8], value: &[u8]) -> Result<()> {
        match name.strip_prefix(overlay.prefix()) {
            Some(b"opaque") => self.is_opaque |= value == b"y",
            // The content or the former place is in a lower layer: only a mount without these features has it all here.
            Some(b"redirect") => return Err(unwritable(path, "overlayfs has only noted that it was renamed")),
            Some(b"metacopy") => return Err(unwritable(path, "overlayfs has only noted its new attributes")),
            Some(_) => {}
            None if is_allowed(name) => self.kept.push(Xattr { name: name.to_vec(), value: value.to_vec() }),
            None => {}
        }
        Ok(())
    }
}
