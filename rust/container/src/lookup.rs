//! One file of an image, read without a mount.
//!
//! Follows overlayfs's own rules over the layers' directories: the topmost wins, whiteouts hide, opaque directories
//! hide what lies below. Symlinks are resolved here, component by component, with the image's root for /, so nothing
//! in an image leads out of it. Only regular files are opened: a fifo or a device would block or act.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags, openat};

use crate::compile::describe;
use crate::sys::{self, Errno};

/// Why a file can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A directory, device, fifo or socket.
    #[error("{0} is not a regular file")]
    NotRegular(String),
    /// Longer than the caller wants to read.
    #[error("{0} is longer than {1} bytes")]
    TooLong(String, usize),
    /// A symlink that leads to itself, or a chain that is longer than any honest one.
    #[error("{0} leads through more than {LINKS} symbolic links")]
    Links(String),
    /// Empty, relative, or with a NUL in it.
    #[error("{0:?} is not an absolute path")]
    Path(String),
    /// A layer can't be read.
    #[error("{0}: {1}")]
    System(String, String),
}

/// As the kernel has it (path_resolution(7)).
const LINKS: usize = 40;

fn system(path: &str, errno: Errno) -> Error {
    Error::System(path.to_owned(), describe(errno))
}

/// The content of `path` in the image whose layers lie in `layers`, topmost first; `None` if it has no such file.
pub fn read_image_file(layers: &[&Path], path: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Error::Path(path.to_owned()));
    }
    let root = open_root(layers)?;
    Walk { path, root, links: 0 }.read(limit)
}

/// What is at one place of the merged tree: the directories of all layers that show there, topmost first.
type Merged = Rc<Vec<OwnedFd>>;

fn open_root(layers: &[&Path]) -> Result<Merged, Error> {
    let mut directories = Vec::with_capacity(layers.len());
    for layer in layers {
        let opened = rustix::fs::open(*layer, DIRECTORY, Mode::empty());
        directories.push(opened.map_err(|error| system(&layer.to_string_lossy(), Errno(error.raw_os_error())))?);
    }
    Ok(Rc::new(directories))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

enum Found {
    Nothing,
    Directory(Merged),
    Link(Vec<u8>),
    File(OwnedFd),
    Other,
}

struct Walk<'a> {
    path: &'a str,
    root: Merged,
    links: usize,
}

impl Walk<'_> {
    fn read(&mut self, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let mut stack = vec![Rc::clone(&self.root)];
        let mut todo: Vec<Vec<u8>> = Vec::new();
        push_parts(&mut todo, self.path.as_bytes());
        while let Some(part) = todo.pop() {
            match part.as_slice() {
                b"." => continue,
                // The root is its own parent.
                b".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let Some(here) = stack.last() else { return Ok(None) };
            match self.look_up(here, &part)? {
                Found::Nothing => return Ok(None),
                Found::Directory(next) => stack.push(next),
                Found::Link(target) => self.follow(&target, &mut stack, &mut todo)?,
                Found::File(file) if todo.is_empty() => return self.read_file(&file, limit).map(Some),
                Found::Other if todo.is_empty() => return Err(Error::NotRegular(self.path.to_owned())),
                // Something that is no directory in the middle of a path.
                Found::File(_) | Found::Other => return Ok(None),
            }
        }
        Err(Error::NotRegular(self.path.to_owned()))
    }

    fn follow(&mut self, target: &[u8], stack: &mut Vec<Merged>, todo: &mut Vec<Vec<u8>>) -> Result<(), Error> {
        self.links += 1;
        if self.links > LINKS {
            return Err(Error::Links(self.path.to_owned()));
        }
        if target.starts_with(b"/") {
            stack.truncate(1);
        }
        push_parts(todo, target);
        Ok(())
    }

    /// One name in one merged directory (Documentation/filesystems/overlayfs.rst, "Whiteouts and opaque directories").
    fn look_up(&self, here: &[OwnedFd], name: &[u8]) -> Result<Found, Error> {
        let Ok(name) = CString::new(name) else { return Ok(Found::Nothing) };
        let mut directories = Vec::new();
        for directory in here {
            let stat = match sys::stat_at(directory.as_raw_fd(), &name) {
                Err(Errno(libc::ENOENT)) => continue,
                Err(Errno(libc::ENAMETOOLONG)) => return Ok(Found::Nothing),
                other => other.map_err(|errno| system(self.path, errno))?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind != FileType::Directory {
                // A whiteout, or a file that a directory above it hides.
                if kind == FileType::CharacterDevice && stat.st_rdev == 0 || !directories.is_empty() {
                    break;
                }
                return self.open(directory, &name, kind);
            }
            let next = openat(directory, &name, DIRECTORY, Mode::empty());
            let next = next.map_err(|error| system(self.path, Errno(error.raw_os_error())))?;
            let opaque = is_opaque(&next);
            directories.push(next);
            if opaque {
                break;
            }
        }
        Ok(if directories.is_empty() { Found::Nothing } else { Found::Directory(Rc::new(directories)) })
    }

    fn open(&self, directory: &OwnedFd, name: &CStr, kind: FileType) -> Result<Found, Error> {
        let failed = |error: rustix::io::Errno| system(self.path, Errno(error.raw_os_error()));
        match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new()).map_err(failed)?;
                Ok(Found::Link(target.into_bytes()))
            }
            FileType::RegularFile => openat(directory, name, FILE, Mode::empty()).map(Found::File).map_err(failed),
            _ => Ok(Found::Other),
        }
    }

    fn read_file(&self, file: &OwnedFd, limit: usize) -> Result<Vec<u8>, Error> {
        let failed = |error: rustix::io::Errno| system(self.path, Errno(error.raw_os_error()));
        let stat = rustix::fs::fstat(file).map_err(failed)?;
        // It may have been exchanged since it was looked at, where a layer is not ours (`host`).
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotRegular(self.path.to_owned()));
        }
        let mut content = Vec::with_capacity((stat.st_size as usize).min(limit) + 1);
        let mut piece = [0; 16 * 1024];
        loop {
            let length = rustix::io::read(file.as_fd(), &mut piece).map_err(failed)?;
            content.extend_from_slice(&piece[..length]);
            if content.len() > limit {
                return Err(Error::TooLong(self.path.to_owned(), limit));
            }
            if length == 0 {
                return Ok(content);
            }
        }
    }
}

/// Puts the parts of a path before what is left to do; the next one is the last.
fn push_parts(todo: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
    todo.extend(parts.rev().map(<[u8]>::to_vec));
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 1];
    // Only the attribute that extraction sets as root; what a layer brings along under user.* is its own business.
    rustix::fs::fgetxattr(directory, c"trusted.overlay.opaque", &mut value) == Ok(1) && value == *b"y"
}
