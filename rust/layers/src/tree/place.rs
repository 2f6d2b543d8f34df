//! One entry after the other, put where it belongs. Later entries replace earlier ones of the same name.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, makedev};
use rustix::io::Errno;

use super::directories::{Directories, Directory, Me, Unreachable, is_whiteout, timestamps};
use super::metadata::Metadata;
use crate::error::{Error, Reason, Result};
use crate::names::{self, Meaning};
use crate::options::{Contents, Options};
use crate::sys;
use crate::tar::{Entry, Kind, Reader, Source};

/// Puts all entries of a tar into `directory`, which must be empty.
pub(crate) fn unpack<S: Source>(source: S, directory: BorrowedFd<'_>, options: &Options<'_>) -> Result<Contents> {
    let me = Me { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let own_umask = sys::own_umask();
    let mut layer = Layer {
        reader: Reader::new(source, &options.limits),
        directories: Directories::new(directory, me, own_umask, options.overlay)?,
        metadata: Metadata { me, own_umask, dropped_xattrs: 0 },
        cancel: options.cancel,
    };
    let mut entries = 0;
    while let Some(entry) = layer.reader.next()? {
        layer.check_cancel()?;
        layer.directories.at(entry.mtime, entries == 0);
        layer.place(&entry)?;
        entries += 1;
        if let Some(progress) = options.progress {
            progress.entries.store(entries, Ordering::Relaxed);
        }
    }
    layer.reader.drain()?;
    let contents = Contents {
        entries,
        implied: layer.directories.implied,
        dropped_xattrs: layer.metadata.dropped_xattrs,
        opaque_root: layer.directories.opaque_root,
    };
    layer.directories.finish()?;
    Ok(contents)
}

struct Layer<'a, S> {
    reader: Reader<S>,
    directories: Directories,
    metadata: Metadata,
    cancel: Option<&'a AtomicBool>,
}

impl<S: Source> Layer<'_, S> {
    fn check_cancel(&self) -> Result<()> {
        match self.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    fn place(&mut self, entry: &Entry) -> Result<()> {
        match names::meaning(&entry.path).map_err(|reason| self.reader.refuse(reason))? {
            Meaning::Reserved => Ok(()),
            Meaning::Opaque => self.opaque(entry),
            Meaning::Whiteout(hidden) => self.whiteout(entry, hidden),
            Meaning::Ordinary => self.ordinary(entry),
        }
    }

    fn ordinary(&mut self, entry: &Entry) -> Result<()> {
        match &entry.kind {
            Kind::Directory => self.directory(entry),
            _ if entry.path.is_empty() => Err(self.reader.refuse(Reason::RootReplaced)),
            Kind::File | Kind::Sparse { .. } => self.file(entry),
            Kind::Symlink(target) => self.other(entry, false, |at, name| rustix::fs::symlinkat(&target[..], at, name)),
            Kind::HardLink(target) => self.hard_link(entry, target),
            // An image may hold overlay's own form of a whiteout, as it may hold ours: the meaning is one.
            Kind::Character { major: 0, minor: 0 } => self.whiteout(entry, names::split(&entry.path).1),
            &Kind::Character { major, minor } => self.node(entry, FileType::CharacterDevice, major, minor),
            &Kind::Block { major, minor } => self.node(entry, FileType::BlockDevice, major, minor),
            Kind::Fifo => self.node(entry, FileType::Fifo, 0, 0),
        }
    }

    /// The parent of an entry, made if no entry was there for it.
    fn parent(&mut self, entry: &Entry) -> Result<Rc<Directory>> {
        let found = self.directories.enter(names::split(&entry.path).0);
        found.map_err(|why| self.unreachable(why))
    }

    /// Makes something of the entry's name; if there is something already, in its place.
    fn make<T>(
        &mut self,
        parent: &Rc<Directory>,
        entry: &Entry,
        operation: &'static str,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let name = names::split(&entry.path).1;
        let made = match make(parent.changing(), name) {
            Err(Errno::EXIST) => {
                self.directories.clear(parent, name)?;
                make(parent.changing(), name)
            }
            made => made,
        };
        made.map_err(Error::system(operation, &entry.path))
    }

    fn file(&mut self, entry: &Entry) -> Result<()> {
        let parent = self.parent(entry)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let fd = self.make(&parent, entry, "make the file", |at, name| rustix::fs::openat(at, name, flags, mode))?;
        match &entry.kind {
            Kind::Sparse { size, .. } => self.write_sparse(entry, &fd, *size)?,
            _ => self.write(entry, &fd)?,
        }
        self.metadata.file(entry, &parent, &fd)
    }

    fn write(&mut self, entry: &Entry, fd: &OwnedFd) -> Result<()> {
        while let Some(piece) = self.reader.piece()? {
            sys::write_all(fd, piece).map_err(Error::system("write", &entry.path))?;
            self.check_cancel()?;
        }
        Ok(())
    }

    fn write_sparse(&mut self, entry: &Entry, fd: &OwnedFd, size: u64) -> Result<()> {
        let Kind::Sparse { segments, .. } = &entry.kind else { return Ok(()) };
        let failed = || Error::system("write", &entry.path);
        rustix::fs::ftruncate(fd, size).map_err(failed())?;
        let mut segments = segments.iter().copied().filter(|segment| segment.length > 0);
        let (mut offset, mut left) = (0, 0);
        while let Some(mut piece) = self.reader.piece()? {
            while !piece.is_empty() {
                if left == 0 {
                    // The map was checked to add up to the content.
                    let Some(segment) = segments.next() else { return Ok(()) };
                    (offset, left) = (segment.offset, segment.length);
                }
                let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                sys::write_all_at(fd, &piece[..count], offset).map_err(failed())?;
                (offset, left, piece) = (offset + count as u64, left - count as u64, &piece[count..]);
            }
            self.check_cancel()?;
        }
        Ok(())
    }

    fn directory(&mut self, entry: &Entry) -> Result<()> {
        let parent = self.parent(entry)?;
        if entry.path.is_empty() {
            return self.metadata.directory(entry, &parent, &mut self.directories, false);
        }
        let name = names::split(&entry.path).1;
        let mode = Mode::from_raw_mode(entry.mode & 0o1777);
        let make = || rustix::fs::mkdirat(parent.changing(), name, mode);
        let failed = || Error::system("make the directory", &entry.path);
        let (mut is_new, mut is_opaque) = (true, false);
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) if self.is_directory(&parent, name)? => is_new = false,
            Err(Errno::EXIST) => {
                // What was here, be it a whiteout, hid what lower layers have; so does the directory.
                self.directories.clear(&parent, name)?;
                make().map_err(failed())?;
                is_opaque = true;
            }
            Err(error) => return Err(failed()(error)),
        }
        let directory = self.child(&parent, name)?;
        if is_opaque {
            self.directories.make_opaque(&directory)?;
        }
        self.metadata.directory(entry, &directory, &mut self.directories, is_new)
    }

    fn is_directory(&self, parent: &Directory, name: &[u8]) -> Result<bool> {
        let stat = sys::stat(parent.fd(), name).map_err(Error::system("look at", &names::join(&parent.path, name)))?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// The directory `name`, which is in its parent now.
    fn child(&mut self, parent: &Directory, name: &[u8]) -> Result<Rc<Directory>> {
        let found = self.directories.look(&names::join(&parent.path, name));
        found.map_err(|unreachable| self.unreachable(unreachable))
    }

    fn unreachable(&self, why: Unreachable) -> Error {
        match why {
            Unreachable::Other(error) => error,
            Unreachable::Refused(reason) => self.reader.refuse(reason),
            Unreachable::Missing => self.reader.refuse(Reason::ParentNotDirectory),
        }
    }

    fn node(&mut self, entry: &Entry, kind: FileType, major: u32, minor: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        self.other(entry, true, |at, name| rustix::fs::mknodat(at, name, kind, mode, makedev(major, minor)))
    }

    fn other(
        &mut self,
        entry: &Entry,
        has_mode: bool,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<()>,
    ) -> Result<()> {
        let parent = self.parent(entry)?;
        self.make(&parent, entry, "make", make)?;
        self.metadata.other(entry, &parent, names::split(&entry.path).1, has_mode)
    }

    /// A further name for what an earlier entry made. Symbolic links are linked themselves, never followed.
    fn hard_link(&mut self, entry: &Entry, target: &[u8]) -> Result<()> {
        let missing = || Reason::LinkTargetMissing { target: String::from_utf8_lossy(target).into_owned() };
        let (above, old_name) = names::split(target);
        let from = self.directories.look(above).map_err(|why| match why {
            Unreachable::Refused(Reason::ParentNotDirectory) | Unreachable::Missing => self.reader.refuse(missing()),
            why => self.unreachable(why),
        })?;
        let old = self.link_target(&from, target)?.ok_or_else(|| self.reader.refuse(missing()))?;
        let parent = self.parent(entry)?;
        let is_same = |new: Stat| (new.st_dev, new.st_ino) == (old.st_dev, old.st_ino);
        if sys::stat(parent.fd(), names::split(&entry.path).1).is_ok_and(is_same) {
            return Ok(());
        }
        let linked = self.make(&parent, entry, "make the hard link", |at, name| {
            rustix::fs::linkat(from.fd(), old_name, at, name, AtFlags::empty())
        });
        match linked {
            // The target lay in the directory that gave way to the link.
            Err(Error::System { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                Err(self.reader.refuse(missing()))
            }
            linked => linked,
        }
    }

    /// What a hard link shall be another name of, if it is in this layer.
    fn link_target(&self, directory: &Directory, target: &[u8]) -> Result<Option<Stat>> {
        match sys::stat(directory.fd(), names::split(target).1) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let target = String::from_utf8_lossy(target).into_owned();
                Err(self.reader.refuse(Reason::LinkToDirectory { target }))
            }
            Ok(stat) if !is_whiteout(&stat) => Ok(Some(stat)),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::system("look at", target)(error)),
        }
    }

    fn check_whiteout(&self, entry: &Entry) -> Result<()> {
        // AUFS made all whiteouts hard links of one file; old layers show that.
        match entry.kind {
            Kind::File | Kind::HardLink(_) | Kind::Character { major: 0, minor: 0 } => Ok(()),
            _ => Err(self.reader.refuse(Reason::WhiteoutKind)),
        }
    }

    fn opaque(&mut self, entry: &Entry) -> Result<()> {
        self.check_whiteout(entry)?;
        let parent = self.parent(entry)?;
        self.directories.make_opaque(&parent)
    }

    /// Hides what lower layers have under a name. What this layer has there stays.
    fn whiteout(&mut self, entry: &Entry, hidden: &[u8]) -> Result<()> {
        self.check_whiteout(entry)?;
        let parent = self.parent(entry)?;
        let failed = || Error::system("make the whiteout", &entry.path);
        match rustix::fs::mknodat(parent.fd(), hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                parent.changing();
                let times = timestamps(entry.mtime);
                return rustix::fs::utimensat(parent.fd(), hidden, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed());
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed()(error)),
        }
        if self.is_directory(&parent, hidden)? {
            let directory = self.child(&parent, hidden)?;
            self.directories.make_opaque(&directory)?;
        }
        Ok(())
    }
}
