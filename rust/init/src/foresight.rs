//! What a ready keeper does while nobody asks: it has a child cloned in the namespaces that the last start of its engine
//! had, for the kernel takes longer to make those than for anything else that a start needs.
//!
//! ```text
//! keeper whose container runs, the     ready keeper
//! last of those that are being made      |
//!   | ---- flags of its child -------> |   has one cloned with the same; one that it has with others goes
//!   |              engine: Start ----> |   the child becomes this container's, or goes after the start if that wants another
//! ```
//!
//! It knows nothing of the start to come, and nothing of it depends on one: ids, groups, limits and mounts come later, and
//! it runs nothing but the futex that it waits on. There is one at most for an engine, and it ends with its keeper.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering};

use pyrt_container::execute::Ahead;
use pyrt_container::sys::{self, Fd, Mapping};

/// Milliseconds after which a child that nobody needs goes, until somebody starts a container again.
const KEPT: i32 = 30_000;
/// Milliseconds after a start in which none is cloned: its own end, and the answer to whoever waits for it, come first.
const QUIET: i32 = 1;
const SIZE: usize = size_of::<u64>();

/// The pipe of all keepers of a spawner, and how many of them are making something just now. One that is killed meanwhile
/// stays among them: then nothing is foreseen any more.
#[derive(Clone, Copy)]
pub struct Hints {
    read: Fd,
    write: Fd,
    busy: &'static AtomicU32,
}

impl Hints {
    pub fn new() -> sys::Result<Self> {
        let [read, write] = sys::pipe()?;
        // A hint that has no room is one of thousands.
        [read, write].into_iter().try_for_each(sys::set_nonblocking)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let page = ManuallyDrop::new(Mapping::new(size_of::<AtomicU32>(), protection, flags, -1)?);
        // SAFETY: the page is large enough, aligned and full of zeroes, and stays for as long as the process.
        let busy = unsafe { &*page.start().cast::<AtomicU32>() };
        Ok(Self { read, write, busy })
    }

    /// The last one, if there is any.
    fn last(self) -> Option<u64> {
        let mut bytes = [0; 64 * SIZE];
        let mut last = None;
        while let Ok(length @ SIZE..) = sys::read(self.read, &mut bytes) {
            last = bytes[..length].last_chunk().copied().map(u64::from_le_bytes);
        }
        last
    }
}

/// What a keeper that has something to do says to the next one, once its container runs.
pub struct Hint {
    hints: Hints,
    is_busy: bool,
    flags: Option<u64>,
}

impl Hint {
    /// Leaves the pipe to others, but for one end.
    pub fn of(hints: Hints) -> Self {
        sys::close(hints.read);
        Self { hints, is_busy: false, flags: None }
    }

    /// What it makes begins with a child that is cloned like this, if it is one that could have been foreseen; where it will
    /// wait on its way, nobody waits for it.
    pub fn set(&mut self, flags: Option<u64>, waits: bool) {
        self.flags = flags;
        self.is_busy = !waits;
        self.hints.busy.fetch_add(u32::from(self.is_busy), Ordering::Relaxed);
    }

    /// It runs. Where others are being made there is no time for more, and the last of them gives the hint.
    pub fn give(&mut self) {
        self.rest();
        if let (Some(flags), 0) = (self.flags, self.hints.busy.load(Ordering::Relaxed)) {
            let _ = sys::write(self.hints.write, &flags.to_le_bytes());
        }
        sys::close(self.hints.write);
    }

    fn rest(&mut self) {
        self.hints.busy.fetch_sub(u32::from(std::mem::take(&mut self.is_busy)), Ordering::Relaxed);
    }
}

impl Drop for Hint {
    fn drop(&mut self) {
        self.rest();
    }
}

/// Returns when the engine has said something or is gone.
pub fn await_engine(engine: Fd, hints: Hints) -> Option<Ahead> {
    let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut ahead: Option<Ahead> = None;
    let mut wanted = None;
    loop {
        // poll(2) passes over negative numbers.
        let mut entries = [engine, hints.read, ahead.as_ref().map_or(-1, Ahead::watched)].map(watch);
        let patience = match (wanted, &ahead) {
            (Some(_), _) => QUIET,
            (None, Some(_)) => KEPT,
            (None, None) => -1,
        };
        let ready = sys::poll(&mut entries, patience);
        let [asked, hinted, helped] = entries.map(|entry| entry.revents != 0);
        if ready.is_err() || asked {
            return ahead;
        }
        if helped {
            ahead.as_mut().map(Ahead::tidy);
        } else if hinted {
            wanted = hints.last().or(wanted);
        } else if let Some(flags) = wanted.take() {
            // Where none can be made a start will say why.
            ahead = ahead.filter(|known| known.flags() == flags).or_else(|| Ahead::begin(flags).ok()?);
        } else {
            ahead = None;
        }
    }
}
