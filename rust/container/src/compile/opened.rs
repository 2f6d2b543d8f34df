//! Descriptors that are opened while a plan is compiled, and the names of all slots.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::plan::{Builder, FIRST_OPENED, Slot};
use crate::protocol::MAX_DESCRIPTORS;
use crate::sys::{self, Errno, Fd};

use super::error::{Error, Result, describe};

/// What travels beside the opened ones: plan, control socket, standard input, output and error.
const BESIDE: usize = 5;

/// How a descriptor is opened again for another container of the same specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// A detached clone of what is mounted at a directory, below which these are directories of the same mount.
    Tree { path: String, below: Vec<CString> },
    /// The folder in the hierarchy mounted there in which groups are made; version 2: which are to have these controllers.
    Groups { mount: String, parents: Vec<CString>, controllers: Vec<String> },
}

/// The first slots of a plan, already filled.
#[derive(Debug)]
pub(super) struct Opened {
    descriptors: Vec<OwnedFd>,
    names: Vec<String>,
    /// Of each descriptor; none for what is another one every time.
    again: Vec<Option<Again>>,
}

impl Opened {
    pub fn new() -> Self {
        let names = ["standard input", "standard output", "standard error"].map(str::to_owned).to_vec();
        Self { descriptors: Vec::new(), names, again: Vec::new() }
    }

    /// Takes a descriptor; `name` is how sentences call it ("the layer /...").
    pub fn add(&mut self, descriptor: OwnedFd, name: impl Into<String>) -> Slot {
        let slot = Slot(FIRST_OPENED.0 + self.descriptors.len() as u16);
        self.descriptors.push(descriptor);
        self.names.push(name.into());
        self.again.push(None);
        slot
    }

    /// The same of one that can be opened again.
    pub fn add_again(&mut self, descriptor: OwnedFd, name: impl Into<String>, again: Again) -> Slot {
        let slot = self.add(descriptor, name);
        *self.again_of(slot) = Some(again);
        slot
    }

    /// How what is in a slot is opened again.
    pub fn again_of(&mut self, slot: Slot) -> &mut Option<Again> {
        &mut self.again[usize::from(slot.0 - FIRST_OPENED.0)]
    }

    /// What is in a slot of [`Self::add`].
    pub fn get(&self, slot: Slot) -> Option<&OwnedFd> {
        self.descriptors.get(usize::from(slot.0 - FIRST_OPENED.0))
    }

    /// Begins the plan whose first slots these are.
    pub fn into_writer(self) -> Result<Writer> {
        let count = self.descriptors.len();
        if count > MAX_DESCRIPTORS - BESIDE {
            let most = MAX_DESCRIPTORS - BESIDE;
            return Err(Error::spec(
                "",
                format!("{count} layers, mounts and cgroups have to be opened, at most {most} can"),
            ));
        }
        let mut plan = Builder::default();
        for _ in 0..count {
            plan.slot();
        }
        let again = self.again.into_iter().collect();
        Ok(Writer { plan, descriptors: self.descriptors, names: self.names, again })
    }
}

/// A plan in the making.
#[derive(Debug)]
pub(super) struct Writer {
    pub plan: Builder,
    pub descriptors: Vec<OwnedFd>,
    pub names: Vec<String>,
    pub again: Option<Vec<Again>>,
}

impl Writer {
    /// A slot for what an operation will open, and how sentences call it.
    pub fn slot(&mut self, name: impl Into<String>) -> Slot {
        self.names.push(name.into());
        self.plan.slot()
    }
}

/// A call that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure(pub Errno);

impl Failure {
    /// Blames the field that named `file`.
    pub fn at(self, field: &str, file: &str) -> Error {
        let error = Error::spec(field, format!("{file}: {}", describe(self.0))).because(self.0, file);
        match self.0.0 {
            libc::EPERM | libc::EACCES => error.hint("containers are made by root, as a rule"),
            libc::ENOSYS => error.hint("this kernel, or a filter before it, lacks a system call that containers need"),
            _ => error,
        }
    }
}

/// The call's descriptor, owned.
pub(super) fn own(fd: Fd) -> OwnedFd {
    // SAFETY: every caller passes what a system call has just opened for it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_string(path: &str) -> std::result::Result<CString, Failure> {
    CString::new(path).map_err(|_| Failure(Errno(libc::EINVAL)))
}

/// open(2) of a path of the host.
pub(super) fn open(path: &str, flags: i32) -> std::result::Result<OwnedFd, Failure> {
    sys::openat(libc::AT_FDCWD, &c_string(path)?, flags, 0).map(own).map_err(Failure)
}

/// openat(2) below a directory that is open; a symlink at the end is not followed.
pub(super) fn open_at(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> std::result::Result<OwnedFd, Failure> {
    sys::openat(dir.as_raw_fd(), name, flags | libc::O_NOFOLLOW, 0).map(own).map_err(Failure)
}

/// A detached clone of what is mounted at an open place.
pub(super) fn clone_tree(place: &OwnedFd, recursive: bool) -> std::result::Result<OwnedFd, Failure> {
    sys::clone_tree(place.as_raw_fd(), c"", recursive).map(own).map_err(Failure)
}
