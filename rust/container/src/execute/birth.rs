//! How a child comes to be that runs in its keeper's memory, and what it begins with.
//!
//! Its namespaces take the kernel longer than all that the keeper makes for it. Where nothing stands in the way a helper
//! clones it, while the keeper goes on with its list:
//!
//! ```text
//! keeper                         helper                       child
//!   | ---------- clone3 ----------> |                           .
//!   |  cgroups, /dev, files         | --------- clone3 -------> |
//!   |                               |  ends                     |  waits for its birth
//!   |  its step Clone: the birth -----------------------------> |
//!   | <-------- it has descriptors of its own, or none could be cloned
//! ```
//!
//! Until then all three share one table of descriptors: what the keeper opens meanwhile the child has as well.

use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

use crate::plan::Plan;
use crate::sys::{self, Born, Errno, Fd};

use super::channel::ToKeeper;
use super::{Slots, Timings, child};

/// All that a child begins with.
pub(super) struct Birth<'a> {
    pub plan: &'a Plan<'a>,
    pub slots: Slots,
    pub timings: Timings,
    pub vectors: child::Prepared,
    /// The keeper's end, which is not the child's to hold (while it is open there the keeper's death goes unnoticed),
    /// and its own.
    pub channel: [Fd; 2],
}

impl Birth<'_> {
    /// Walks the child's list.
    pub fn run(&mut self) -> ! {
        let [keepers, own] = self.channel;
        sys::close(keepers);
        child::run(self.plan, &mut self.slots, &self.timings, &self.vectors, ToKeeper(own))
    }

    extern "C" fn entry(birth: *mut c_void) -> ! {
        // SAFETY: what `beside` has leaked, for this call alone.
        unsafe { &mut *birth.cast::<Birth<'_>>() }.run()
    }

    /// Process id and pidfd of a child that runs on a stack of its own in the memory that it shares with the keeper.
    pub fn beside(self, flags: u64, cgroup: Option<Fd>) -> sys::Result<(i32, Fd)> {
        let stack = new_stack(STACK)?;
        // A keeper has one child, and ends with it.
        let birth = Box::into_raw(Box::new(self));
        let born = Born::default();
        // SAFETY: stack and birth are leaked; the plan is borrowed by the keeper, which does not return before the child
        // has executed or ended: those that may are not made this way.
        unsafe { sys::clone_beside(flags, cgroup, stack, Self::entry, birth.cast(), &born)? };
        Ok((born.pid.into_inner(), born.pidfd.into_inner()))
    }
}

/// A child that a helper clones. It ends with this value, unless it becomes a plan's.
#[derive(Debug)]
pub struct Ahead {
    shared: &'static Shared,
    helper: i32,
    /// Of the helper.
    pidfd: Fd,
    keeper: Fd,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Ok((pid, pidfd)) = self.give(std::ptr::null_mut()) {
            sys::close(pidfd);
            let _ = sys::wait(pid, true);
        }
    }
}

/// What keeper, helper and child say to each other.
#[derive(Debug)]
struct Shared {
    flags: u64,
    stack: (*mut u8, usize),
    /// A pidfd.
    keeper: Fd,
    born: Born,
    /// Whether there is a birth, or one that never comes: null.
    given: AtomicU32,
    birth: AtomicPtr<c_void>,
    /// [`CLONING`] and what comes of it.
    state: AtomicU32,
    errno: AtomicI32,
}

/// Milliseconds until the keeper looks whether the others are there still; most children say so much sooner.
const PATIENCE: i32 = 20;
const CLONING: u32 = 0;
/// The child has descriptors of its own.
const APART: u32 = 1;
/// There is no child.
const FAILED: u32 = 2;

impl Ahead {
    /// Has a child cloned with these flags of clone3(2); `None` where a helper can't: the first process of a pid namespace has no
    /// siblings (clone(2), CLONE_PARENT).
    pub fn begin(flags: u64) -> sys::Result<Option<Self>> {
        let own = sys::pid();
        if own == 1 {
            return Ok(None);
        }
        let keeper = sys::open_pidfd(own)?;
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            flags,
            stack: new_stack(STACK)?,
            keeper,
            born: Born::default(),
            given: AtomicU32::new(0),
            birth: AtomicPtr::default(),
            state: AtomicU32::new(CLONING),
            errno: AtomicI32::new(0),
        }));
        let (files, born) = (libc::CLONE_FILES as u64, Born::default());
        let argument = std::ptr::from_ref(shared).cast_mut().cast();
        // SAFETY: stacks and `shared` are leaked, and helper and child only ever read the latter or use its atomics.
        unsafe { sys::clone_beside(files, None, new_stack(HELPERS_STACK)?, help, argument, &born)? };
        Ok(Some(Self { shared, helper: born.pid.into_inner(), pidfd: born.pidfd.into_inner(), keeper }))
    }

    /// What it is cloned with.
    pub fn flags(&self) -> u64 {
        self.shared.flags
    }

    /// Process id and pidfd of the child, once it has its own copy of all descriptors that are open now. The plan outlives
    /// it: see [`Birth::beside`].
    pub(super) fn become_child(self, birth: Birth<'_>) -> sys::Result<(i32, Fd)> {
        let child = self.give(Box::into_raw(Box::new(birth)).cast());
        std::mem::forget(self);
        child
    }

    /// Lets the child go on.
    fn give(&self, birth: *mut c_void) -> sys::Result<(i32, Fd)> {
        let Shared { born, state, errno, given, .. } = self.shared;
        self.shared.birth.store(birth, Ordering::Relaxed);
        given.store(1, Ordering::Release);
        sys::futex_wake(given);
        while state.load(Ordering::Acquire) == CLONING && !self.is_lost() {
            sys::futex_wait(state, CLONING, PATIENCE);
        }
        let _ = sys::wait(self.helper, true);
        [self.pidfd, self.keeper].into_iter().for_each(sys::close);
        match (state.load(Ordering::Acquire), born.pid.load(Ordering::Acquire)) {
            (FAILED, _) => Err(Errno(errno.load(Ordering::Relaxed))),
            (_, 0) => Err(Errno(libc::ECHILD)),
            // One that was killed meanwhile is found dead by whatever is done with it next.
            (_, pid) => Ok((pid, born.pidfd.load(Ordering::Relaxed))),
        }
    }

    /// Whether nobody is left who could say anything: helper and child may be killed at any time.
    fn is_lost(&self) -> bool {
        let born = &self.shared.born;
        match born.pid.load(Ordering::Acquire) {
            0 => sys::is_readable(self.pidfd) && born.pid.load(Ordering::Acquire) == 0,
            _ => sys::is_readable(born.pidfd.load(Ordering::Relaxed)),
        }
    }
}

extern "C" fn help(shared: *mut c_void) -> ! {
    // SAFETY: what `begin` has leaked, and nobody writes to but through atomics.
    let shared = unsafe { &*shared.cast::<Shared>() };
    let flags = shared.flags | (libc::CLONE_PARENT | libc::CLONE_FILES) as u64;
    let argument = std::ptr::from_ref(shared).cast_mut().cast();
    // SAFETY: as in `begin`.
    let cloned = unsafe { sys::clone_beside(flags, None, shared.stack, become_apart, argument, &shared.born) };
    if let Err(Errno(number)) = cloned {
        shared.errno.store(number, Ordering::Relaxed);
        shared.state.store(FAILED, Ordering::Release);
        sys::futex_wake(&shared.state);
    }
    sys::exit(0)
}

extern "C" fn become_apart(shared: *mut c_void) -> ! {
    // SAFETY: as in `help`.
    let shared = unsafe { &*shared.cast::<Shared>() };
    // While descriptors are shared no end of file tells of the keeper's death.
    let tied = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0);
    if tied.is_err() || sys::is_readable(shared.keeper) {
        sys::exit(0);
    }
    while shared.given.load(Ordering::Acquire) == 0 {
        sys::futex_wait(&shared.given, 0, -1);
    }
    let birth = shared.birth.load(Ordering::Relaxed);
    let apart = sys::unshare(libc::CLONE_FILES as u64);
    if let Err(Errno(number)) = apart {
        shared.errno.store(number, Ordering::Relaxed);
    }
    shared.state.store(if apart.is_ok() { APART } else { FAILED }, Ordering::Release);
    sys::futex_wake(&shared.state);
    if apart.is_err() || birth.is_null() {
        sys::exit(0);
    }
    Birth::entry(birth)
}

/// The deepest call is a copy of directories, `COPY_DEPTH` levels of 5 KiB.
const STACK: usize = 1 << 20;
/// It makes two calls.
const HELPERS_STACK: usize = 16 << 10;

/// Only what is touched becomes memory; below it lies a page that can't be.
fn new_stack(size: usize) -> sys::Result<(*mut u8, usize)> {
    const GUARD: usize = 4096;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a new anonymous mapping disturbs nothing; its first page is in bounds.
    unsafe {
        let map = libc::mmap(std::ptr::null_mut(), GUARD + size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if map == libc::MAP_FAILED || libc::mprotect(map, GUARD, libc::PROT_NONE) != 0 {
            return Err(Errno(libc::ENOMEM));
        }
        Ok((map.cast::<u8>().add(GUARD), size))
    }
}
