//! Signals as a descriptor, and ends by signal.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::Failure;

/// What a container is told, or what ends a verb that has none.
const FORWARDED: [i32; 6] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM];
/// What concerns the terminal.
const OWN: [i32; 2] = [libc::SIGWINCH, libc::SIGCONT];

/// The signals that this process waits for instead of being interrupted by.
pub struct Signals {
    descriptor: OwnedFd,
    caught: Vec<i32>,
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given, sigaddset changes an initialised one.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

fn mask(how: i32, signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: both pointers are to a valid set or null, and this process has one thread.
    unsafe { libc::sigprocmask(how, &set, std::ptr::null_mut()) };
}

/// `nohup`, and shells for what they run in the background, have signals ignored: that is to stay so.
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no new action is given, and the old one is written into a structure of its size.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

impl Signals {
    /// Nothing is caught yet.
    pub fn new() -> Result<Self, Failure> {
        let caught: Vec<i32> = FORWARDED.into_iter().filter(|signal| !is_ignored(*signal)).chain(OWN).collect();
        let set = set_of(&[&caught[..], &[libc::SIGTSTP]].concat());
        // SAFETY: the set is valid.
        let descriptor = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(Failure::new(format!("opening a signalfd: {}", std::io::Error::last_os_error())));
        }
        // SAFETY: the descriptor was just made and is nobody else's.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) }, caught })
    }

    /// From now on signals wait here. SIGTSTP does so only while [`Signals::watch_stop`] says so.
    pub fn catch(&self) {
        mask(libc::SIG_BLOCK, &self.caught);
    }

    /// From now on signals do what they do by default.
    pub fn release(&self) {
        mask(libc::SIG_UNBLOCK, &self.caught);
    }

    /// Whether a stop waits here, so that the terminal can be put right first, or happens at once.
    pub fn watch_stop(&self, watch: bool) {
        mask(if watch { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK }, &[libc::SIGTSTP]);
    }

    /// Stops this process as the SIGTSTP that waited would have, and returns when it goes on.
    pub fn stop(&self) {
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(libc::SIGTSTP) };
        self.watch_stop(false);
        self.watch_stop(true);
    }

    /// The next signal that waits.
    pub fn next(&self) -> Option<i32> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        let count = rustix::io::read(&self.descriptor, &mut record).ok()?;
        let number = record.first_chunk().copied().map(u32::from_ne_bytes)?;
        (count == record.len()).then(|| i32::try_from(number).ok())?
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Ends this process by a signal, so that a shell sees what happened; returns a status if it can't.
pub fn die_of(signal: u8) -> u8 {
    let number = i32::from(signal);
    // SAFETY: a default action replaces whatever there was, in the last moment of this process.
    unsafe {
        // The signal is somebody's wish, not our fault: no core file of the client.
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        libc::signal(number, libc::SIG_DFL);
        mask(libc::SIG_UNBLOCK, &[number]);
        libc::raise(number);
    }
    128u8.saturating_add(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_signal_waits_for_its_reader() {
        let signals = Signals::new().unwrap();
        signals.catch();
        assert_eq!(signals.next(), None);
        // SAFETY: the signal is blocked in this thread, to which raise sends it.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(signals.next(), Some(libc::SIGUSR1));
    }
}
