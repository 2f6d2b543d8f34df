//! Namespaces that a helper makes while nothing is known yet of the child but what it is cloned with.
//!
//! A network namespace takes the kernel half of what it does for a container. A child that runs in its keeper's memory is
//! cloned ahead in all of them (see [`super::birth`]); one with a memory of its own is forked when its keeper has made
//! what it takes over, and enters what is there by then:
//!
//! ```text
//! keeper                         helper                                child
//!   | ---------- clone3 ----------> |                                    .
//!   |  plan, cgroups                |  unshare: network, ipc, uts        .
//!   | <------- it has ended ------- |                                    .
//!   |  its step Clone ---------------------- without these ------------> |
//!   |                                                                    |  setns
//! ```

use std::ffi::{CStr, c_void};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::sys::{self, Born, Fd};

use super::EMPTY;
use super::birth::{HELPERS_STACK, Stack};

/// What a helper can make for others, and where it finds that.
const KINDS: [(u64, &CStr); 3] = [
    (libc::CLONE_NEWNET as u64, c"/proc/self/ns/net"),
    (libc::CLONE_NEWIPC as u64, c"/proc/self/ns/ipc"),
    (libc::CLONE_NEWUTS as u64, c"/proc/self/ns/uts"),
];

/// Namespaces in the making.
#[derive(Debug)]
pub struct Nest {
    shared: &'static Shared,
    helper: i32,
    /// Of the helper.
    pidfd: Fd,
    /// The helper's. Never given back if it is not known what has become of it.
    stack: ManuallyDrop<Stack>,
}

#[derive(Debug)]
struct Shared {
    flags: u64,
    unneeded: Fd,
    entries: [AtomicI32; KINDS.len()],
}

impl Nest {
    /// Has those of a child's namespaces made that can be, and closes `unneeded` after that. `None` if there are none: what is
    /// to belong to a new user namespace is made in it.
    pub fn begin(flags: u64, unneeded: Option<Fd>) -> sys::Result<Option<Self>> {
        let wanted = KINDS.iter().fold(0, |all, (flag, _)| all | flag & flags);
        if wanted == 0 || flags & libc::CLONE_NEWUSER as u64 != 0 {
            return Ok(None);
        }
        let stack = ManuallyDrop::new(Stack::new(HELPERS_STACK)?);
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            flags: wanted,
            unneeded: unneeded.unwrap_or(EMPTY),
            entries: [EMPTY; KINDS.len()].map(AtomicI32::new),
        }));
        let (files, born) = (libc::CLONE_FILES as u64, Born::default());
        let argument = std::ptr::from_ref(shared).cast_mut().cast();
        // SAFETY: `shared` is leaked, and the helper only reads it or uses its atomics; its stack stays until it has ended.
        unsafe { sys::clone_beside(files, None, stack.span(), help, argument, &born)? };
        Ok(Some(Self { shared, helper: born.pid.into_inner(), pidfd: born.pidfd.into_inner(), stack }))
    }

    /// What a child that was to be cloned with `flags` enters instead of some of them. Waits for the helper; nothing if that
    /// was killed, or could not make all.
    pub(super) fn take(mut self, flags: u64) -> Entries {
        let made = self.finish();
        let is_whole = KINDS.iter().zip(made.fds).all(|((flag, _), fd)| made.flags & flag == 0 || fd != EMPTY);
        if is_whole && flags & made.flags == made.flags {
            return made;
        }
        made.close();
        Entries::NONE
    }

    /// What the helper has made; nothing the second time.
    fn finish(&mut self) -> Entries {
        if self.pidfd != EMPTY {
            if sys::wait(self.helper, true).is_ok() {
                // SAFETY: this is the only place that drops it, and is reached once.
                unsafe { ManuallyDrop::drop(&mut self.stack) };
            }
            sys::close(std::mem::replace(&mut self.pidfd, EMPTY));
        }
        let fds = self.shared.entries.each_ref().map(|entry| entry.swap(EMPTY, Ordering::AcqRel));
        Entries { flags: self.shared.flags, fds }
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        self.finish().close();
    }
}

/// Open namespaces.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    /// CLONE_NEW of them.
    pub flags: u64,
    fds: [Fd; KINDS.len()],
}

impl Entries {
    pub const NONE: Self = Self { flags: 0, fds: [EMPTY; KINDS.len()] };

    /// setns(2) into each.
    pub fn enter(&self) -> sys::Result<()> {
        self.open().try_for_each(|fd| sys::setns(fd, 0))
    }

    pub fn close(&self) {
        self.open().for_each(sys::close);
    }

    fn open(&self) -> impl Iterator<Item = Fd> + use<> {
        self.fds.into_iter().filter(|&fd| fd != EMPTY)
    }
}

extern "C" fn help(shared: *mut c_void) -> ! {
    // SAFETY: what `begin` has leaked, and nobody writes to but through atomics.
    let shared = unsafe { &*shared.cast::<Shared>() };
    if sys::unshare(shared.flags).is_ok() {
        for ((flag, path), entry) in KINDS.iter().zip(&shared.entries) {
            if shared.flags & flag != 0 {
                let opened = sys::openat(libc::AT_FDCWD, path, libc::O_RDONLY, 0);
                entry.store(opened.unwrap_or(EMPTY), Ordering::Release);
            }
        }
    }
    if shared.unneeded != EMPTY {
        sys::close(shared.unneeded);
    }
    sys::exit(0)
}
