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
//! Until then all three share one table of descriptors: what the keeper opens meanwhile the child has as well. Where it can
//! be foreseen what the next child is cloned with, all but the birth is done before anybody asks for a container.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

use crate::plan::Plan;
use crate::sys::{self, Born, Errno, Fd, Mapping};

use super::channel::ToKeeper;
use super::{EMPTY, Slots, Timings, child};

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

    /// A child that runs on a stack of its own in the memory that it shares with the keeper.
    pub fn beside(self, flags: u64, cgroup: Option<Fd>) -> sys::Result<Newborn> {
        let stack = Stack::new(STACK)?;
        // A keeper has one child, and ends with it.
        let birth = Box::into_raw(Box::new(self));
        let born = Born::default();
        // SAFETY: the birth is leaked, the stack is the newborn's; the plan is borrowed by the keeper, which does not return
        // before the child has executed or ended: those that may are not made this way.
        unsafe { sys::clone_beside(flags, cgroup, stack.span(), Self::entry, birth.cast(), &born)? };
        Ok(Newborn { pid: born.pid.into_inner(), pidfd: born.pidfd.into_inner(), memory: vec![stack.0] })
    }
}

/// A child, and what must stay until it has executed or ended.
pub(super) struct Newborn {
    pub pid: i32,
    pub pidfd: Fd,
    pub memory: Vec<Mapping>,
}

/// A child that a helper clones. It ends with this value, unless it becomes a plan's.
#[derive(Debug)]
pub struct Ahead {
    shared: &'static Shared,
    helper: i32,
    /// Of the helper.
    pidfd: Fd,
    keeper: Fd,
    /// The child's and the helper's. Never given back if it is not known what has become of them.
    stacks: ManuallyDrop<[Stack; 2]>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Ok(Newborn { pid, pidfd, .. }) = self.give(std::ptr::null_mut()) {
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
        let stacks = ManuallyDrop::new([Stack::new(STACK)?, Stack::new(HELPERS_STACK)?]);
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            flags,
            stack: stacks[0].span(),
            keeper,
            born: Born::default(),
            given: AtomicU32::new(0),
            birth: AtomicPtr::default(),
            state: AtomicU32::new(CLONING),
            errno: AtomicI32::new(0),
        }));
        let (files, born) = (libc::CLONE_FILES as u64, Born::default());
        let argument = std::ptr::from_ref(shared).cast_mut().cast();
        // SAFETY: `shared` is leaked, and helper and child only ever read it or use its atomics; the stacks stay until both
        // have ended or executed.
        unsafe { sys::clone_beside(files, None, stacks[1].span(), help, argument, &born)? };
        Ok(Some(Self { shared, helper: born.pid.into_inner(), pidfd: born.pidfd.into_inner(), keeper, stacks }))
    }

    /// What it is cloned with.
    pub fn flags(&self) -> u64 {
        self.shared.flags
    }

    /// Readable when `tidy` has something to do, for one that waits for long.
    pub fn watched(&self) -> Fd {
        self.pidfd
    }

    /// Waits for the helper, which has nothing left to do.
    pub fn tidy(&mut self) {
        if self.pidfd != EMPTY {
            let _ = sys::wait(self.helper, true);
            sys::close(std::mem::replace(&mut self.pidfd, EMPTY));
        }
    }

    /// Whether nothing speaks against its becoming a child of flags such as these.
    pub(super) fn can_be(&self, flags: u64) -> bool {
        self.flags() == flags && !self.is_lost()
    }

    /// The child, once it has its own copy of all descriptors that are open now. The plan outlives it: see
    /// [`Birth::beside`].
    pub(super) fn become_child(mut self, birth: Birth<'_>) -> sys::Result<Newborn> {
        let child = self.give(Box::into_raw(Box::new(birth)).cast());
        std::mem::forget(self);
        child
    }

    /// Lets the child go on. To be called once.
    fn give(&mut self, birth: *mut c_void) -> sys::Result<Newborn> {
        let Shared { born, state, errno, given, .. } = self.shared;
        self.shared.birth.store(birth, Ordering::Relaxed);
        given.store(1, Ordering::Release);
        sys::futex_wake(given);
        while state.load(Ordering::Acquire) == CLONING && !self.is_lost() {
            sys::futex_wait(state, CLONING, PATIENCE);
        }
        self.tidy();
        sys::close(self.keeper);
        match (state.load(Ordering::Acquire), born.pid.load(Ordering::Acquire)) {
            (FAILED, _) => Err(Errno(errno.load(Ordering::Relaxed))),
            (_, 0) => Err(Errno(libc::ECHILD)),
            // One that was killed meanwhile is found dead by whatever is done with it next.
            (_, pid) => {
                // SAFETY: this is the only place that takes them, and is reached once.
                let stacks = unsafe { ManuallyDrop::take(&mut self.stacks) };
                let memory = stacks.map(|stack| stack.0).into();
                Ok(Newborn { pid, pidfd: born.pidfd.load(Ordering::Relaxed), memory })
            }
        }
    }

    /// Whether nobody is left who could say anything: helper and child may be killed at any time.
    fn is_lost(&self) -> bool {
        let born = &self.shared.born;
        match born.pid.load(Ordering::Acquire) {
            0 => {
                let has_ended = self.pidfd == EMPTY || sys::is_readable(self.pidfd);
                has_ended && born.pid.load(Ordering::Acquire) == 0
            }
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
#[derive(Debug)]
struct Stack(Mapping, usize);

impl Stack {
    const GUARD: usize = 4096;

    fn new(size: usize) -> sys::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let mapping = Mapping::new(Self::GUARD + size, libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
        mapping.guard(Self::GUARD)?;
        Ok(Self(mapping, size))
    }

    /// Where it begins, and its size.
    fn span(&self) -> (*mut u8, usize) {
        (self.0.start().wrapping_add(Self::GUARD), self.1)
    }
}
