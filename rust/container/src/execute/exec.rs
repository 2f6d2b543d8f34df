//! The last step, and what can be told of a file that could not be executed.

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::plan::{Op, Part, Plan, Texts};
use crate::protocol::EVIDENCE;
use crate::sys::{self, Errno, Fd};

use super::channel::MAX_EVIDENCE;

/// The arrays that execve(2) takes, made by the keeper because the child can't allocate.
#[derive(Default)]
pub(super) struct Vectors {
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
}

fn pointers(texts: Texts<'_>) -> Vec<*const c_char> {
    texts.iter().map(CStr::as_ptr).chain([std::ptr::null()]).collect()
}

impl Vectors {
    /// Those of the child's commands: of its `Exec`, and of the hooks in its list by the index of their operation. A plan
    /// without an `Exec` gets empty arrays, and its child ends without exec.
    pub fn of(plan: &Plan<'_>) -> (Self, Vec<(usize, Self)>) {
        let mut of_exec = Self::default();
        let mut of_hooks = Vec::new();
        for (index, op) in plan.ops(Part::Child).enumerate() {
            match (&op, Self::of_op(&op)) {
                (Op::Exec { .. }, Some(vectors)) => of_exec = vectors,
                (_, Some(vectors)) => of_hooks.push((index, vectors)),
                (_, None) => {}
            }
        }
        (of_exec, of_hooks)
    }

    /// Those of the keeper's hooks.
    pub fn of_keeper(plan: &Plan<'_>) -> Vec<(usize, Self)> {
        plan.ops(Part::Keeper).enumerate().filter_map(|(index, op)| Some((index, Self::of_op(&op)?))).collect()
    }

    /// Of a hook that stands in no plan.
    pub fn of_texts(arguments: Texts<'_>, environment: Texts<'_>) -> Self {
        Self { arguments: pointers(arguments), environment: pointers(environment) }
    }

    fn of_op(op: &Op<'_>) -> Option<Self> {
        match *op {
            Op::Exec { arguments, environment, .. } | Op::RunHook { arguments, environment, .. } => {
                Some(Self::of_texts(arguments, environment))
            }
            _ => None,
        }
    }

    /// execve(2) of `path`. Returns only on failure.
    pub fn execute_at(&self, path: &CStr) -> Errno {
        // SAFETY: both arrays end in null and point into the plan, which outlives this process image.
        unsafe { sys::execve(path, self.arguments.as_ptr(), self.environment.as_ptr()) }
    }

    /// execve(2) of the first candidate that is there. Returns only on failure, with the evidence in `file`.
    pub fn execute(&self, candidates: Texts<'_>, file: &mut Evidence) -> Errno {
        let mut failure = Errno(libc::ENOENT);
        for candidate in candidates.iter() {
            // Looked for first: a search that fails costs half of an execve(2) that does. What is there and can't be found
            // by execve(2) is a script whose interpreter is missing.
            if is_absent(candidate) {
                continue;
            }
            let errno = self.execute_at(candidate);
            match errno.0 {
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

/// A command that came after the plan was compiled, for a child that shares the keeper's memory.
///
/// The keeper puts it there before it releases the child; both only ever read what is there then.
#[derive(Clone, Copy)]
pub(super) struct Another(&'static AtomicPtr<Command>);

struct Command {
    exec: Vec<u8>,
    vectors: Vectors,
}

impl Another {
    /// Leaks a few bytes: a keeper has one child, and ends with it.
    pub fn none() -> Self {
        Self(Box::leak(Box::default()))
    }

    /// Has the child end with this `Exec`.
    pub fn set(self, exec: &[u8]) -> sys::Result<()> {
        let exec = exec.to_vec();
        match Op::read(&exec) {
            Ok(op @ Op::Exec { .. }) => {
                // The pointers are into `exec`, whose bytes stay where they are when it is moved.
                let vectors = Vectors::of_op(&op).unwrap_or_default();
                self.0.store(Box::into_raw(Box::new(Command { exec, vectors })), Ordering::Release);
                Ok(())
            }
            _ => Err(Errno(libc::EPROTO)),
        }
    }

    /// Executes it, if there is one; returns only on failure.
    pub fn execute(self, file: &mut Evidence) -> Option<Errno> {
        // SAFETY: null, or what `set` has leaked.
        let command = unsafe { self.0.load(Ordering::Acquire).as_ref() }?;
        match Op::read(&command.exec) {
            Ok(Op::Exec { candidates, .. }) => Some(command.vectors.execute(candidates, file)),
            _ => None,
        }
    }
}

/// Whether one of the candidates is there and may be executed; the evidence against them is in `file`.
pub(super) fn find(candidates: Texts<'_>, file: &mut Evidence) -> sys::Result<()> {
    let mut failure = Errno(libc::ENOENT);
    for candidate in candidates.iter() {
        match sys::may_execute(candidate) {
            // The right to search a directory has the same bit.
            Ok(()) if is_directory(candidate) => failure = file.gather(candidate, Errno(libc::EISDIR)),
            Ok(()) => return Ok(()),
            Err(Errno(libc::ENOENT | libc::ENOTDIR)) => {}
            Err(errno) => failure = file.gather(candidate, errno),
        }
    }
    if file.length == 0 {
        if let Some(first) = candidates.iter().next() {
            file.name(first);
        }
    }
    Err(failure)
}

/// Through symlinks: a dangling one is not a command.
fn is_absent(path: &CStr) -> bool {
    match sys::openat(libc::AT_FDCWD, path, libc::O_PATH, 0) {
        Ok(fd) => sys::close(fd),
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => return true,
        Err(_) => {}
    }
    false
}

fn is_directory(path: &CStr) -> bool {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    sys::openat(libc::AT_FDCWD, path, flags, 0).map(sys::close).is_ok()
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

    /// Room for what a hook prints.
    pub fn words(&mut self) -> &mut [u8] {
        &mut self.bytes[..EVIDENCE]
    }

    /// How much of the room was used.
    pub fn keep_words(&mut self, length: usize) {
        self.length = length;
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
