//! The last step, and what can be told of a file that could not be executed.

use std::ffi::{CStr, c_char};

use crate::plan::{Op, Part, Plan, Texts};
use crate::protocol::EVIDENCE;
use crate::sys::{self, Errno, Fd};

use super::channel::MAX_EVIDENCE;

/// The arrays that execve(2) takes, made by the keeper because the child can't allocate.
pub(super) struct Vectors {
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
}

fn pointers(texts: Texts<'_>) -> Vec<*const c_char> {
    texts.iter().map(CStr::as_ptr).chain([std::ptr::null()]).collect()
}

impl Vectors {
    /// Finds the plan's `Exec`; a plan without one gets empty arrays, and its child ends without exec.
    pub fn of(plan: &Plan<'_>) -> Self {
        let exec = plan.ops(Part::Child).find_map(|op| match op {
            Op::Exec { arguments, environment, .. } => Some((pointers(arguments), pointers(environment))),
            _ => None,
        });
        let (arguments, environment) = exec.unwrap_or_default();
        Self { arguments, environment }
    }

    /// execve(2) of the first candidate that is there. Returns only on failure, with the evidence in `file`.
    pub fn execute(&self, candidates: Texts<'_>, file: &mut Evidence) -> Errno {
        let mut failure = Errno(libc::ENOENT);
        for candidate in candidates.iter() {
            // SAFETY: both arrays end in null and point into the plan, which outlives this process image.
            let errno = unsafe { sys::execve(candidate, self.arguments.as_ptr(), self.environment.as_ptr()) };
            match errno.0 {
                // Not there, unless it is its interpreter that is missing.
                libc::ENOENT | libc::ENOTDIR if !file.exists(candidate) => {}
                // As execvp(3): look on, and remember that something was found.
                libc::EACCES if failure.0 == libc::ENOENT => failure = file.gather(candidate, errno),
                libc::EACCES => {}
                _ => return file.gather(candidate, errno),
            }
        }
        if file.length == 0 {
            if let Some(first) = candidates.iter().next() {
                file.name(first);
            }
        }
        failure
    }
}

/// A candidate's path, NUL, and the first bytes of its file, on the stack.
pub(super) struct Evidence {
    bytes: [u8; MAX_EVIDENCE],
    length: usize,
}

impl Evidence {
    pub fn new() -> Self {
        Self { bytes: [0; MAX_EVIDENCE], length: 0 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn exists(&self, path: &CStr) -> bool {
        // Through symlinks: a dangling one is not a command.
        match sys::openat(libc::AT_FDCWD, path, libc::O_PATH, 0) {
            Ok(fd) => {
                sys::close(fd);
                true
            }
            Err(_) => false,
        }
    }

    fn name(&mut self, path: &CStr) {
        let path = path.to_bytes_with_nul();
        let length = path.len().min(libc::PATH_MAX as usize);
        self.bytes[..length].copy_from_slice(&path[..length]);
        self.length = length;
    }

    /// Notes the file; a directory's EACCES becomes EISDIR.
    fn gather(&mut self, path: &CStr, errno: Errno) -> Errno {
        self.name(path);
        // Non-blocking: the image may have put a fifo there.
        let Ok(fd) = sys::openat(libc::AT_FDCWD, path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0) else {
            return errno;
        };
        let errno = self.read(fd, errno);
        sys::close(fd);
        errno
    }

    fn read(&mut self, fd: Fd, errno: Errno) -> Errno {
        match sys::stat_at(fd, c"").map(|stat| stat.st_mode & libc::S_IFMT) {
            Ok(libc::S_IFDIR) => Errno(libc::EISDIR),
            Ok(libc::S_IFREG) => {
                let end = (self.length + EVIDENCE).min(MAX_EVIDENCE);
                self.length += sys::read(fd, &mut self.bytes[self.length..end]).unwrap_or(0);
                errno
            }
            _ => errno,
        }
    }
}
