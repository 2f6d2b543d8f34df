//! Signals as a descriptor, and ends by signal.

use core::ffi::c_int;

use crate::failure::Failure;
use crate::sys::{self, Fd, Owned};

/// What a container is told, or what ends a verb that has none.
const FORWARDED: [c_int; 6] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM];
/// And what concerns the terminal.
const CAUGHT: u64 = set_of(&FORWARDED) | set_of(&[libc::SIGWINCH, libc::SIGCONT]);
/// Whoever writes to a pipe that nobody reads is told so by write(2): while it is blocked this one ends nobody.
const NO_READER: u64 = set_of(&[libc::SIGPIPE]);
const STOP: u64 = set_of(&[libc::SIGTSTP]);

const fn set_of(signals: &[c_int]) -> u64 {
    let (mut set, mut index) = (0, 0);
    while index < signals.len() {
        set |= 1 << (signals[index] - 1);
        index += 1;
    }
    set
}

/// The signals that this process waits for instead of being interrupted by.
pub struct Signals(Owned);

impl Signals {
    /// From now on signals wait here. SIGTSTP does so only while [`Signals::watch_stop`] says so.
    pub fn catch() -> Result<Self, Failure> {
        sys::mask(libc::SIG_BLOCK, CAUGHT | NO_READER);
        let descriptor = sys::signal_descriptor(CAUGHT | STOP);
        descriptor.map(Self).map_err(|error| Failure::of("opening a signalfd", error))
    }

    /// From now on signals do what they do by default.
    pub fn release(&self) {
        sys::mask(libc::SIG_UNBLOCK, CAUGHT);
    }

    /// Whether a stop waits here, so that the terminal can be put right first, or happens at once.
    pub fn watch_stop(&self, watch: bool) {
        sys::mask(if watch { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK }, STOP);
    }

    /// Stops this process as the SIGTSTP that waited would have, and returns when it goes on.
    pub fn stop(&self) {
        sys::raise(libc::SIGTSTP);
        self.watch_stop(false);
        self.watch_stop(true);
    }

    /// The next signal that waits.
    ///
    /// `nohup`, and shells for what they run in the background, have signals ignored. The kernel keeps them too while
    /// they are blocked, and here they go on being ignored.
    pub fn next(&self) -> Option<c_int> {
        loop {
            let mut record = [0; size_of::<libc::signalfd_siginfo>()];
            let count = sys::read(self.0.fd(), &mut record).ok()?;
            let number = record.first_chunk().copied().map(i32::from_ne_bytes)?;
            if count != record.len() {
                return None;
            }
            if !(FORWARDED.contains(&number) && sys::is_ignored(number)) {
                return Some(number);
            }
        }
    }

    /// What poll(2) is asked about.
    pub fn fd(&self) -> Fd {
        self.0.fd()
    }
}

/// Until the end of this process: see [`NO_READER`].
pub fn expect_no_reader() {
    sys::mask(libc::SIG_BLOCK, NO_READER);
}

/// Ends this process by a signal, so that a shell sees what happened; returns a status if it can't.
pub fn die_of(signal: u8) -> u8 {
    let number = c_int::from(signal);
    // The signal is somebody's wish, not our fault: no core file of the client.
    sys::leave_no_core();
    sys::reset(number);
    sys::raise(number);
    if (1..=64).contains(&number) {
        sys::mask(libc::SIG_UNBLOCK, set_of(&[number]));
    }
    128u8.saturating_add(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one test: what is blocked and ignored is the whole process's affair.
    #[test]
    fn a_caught_signal_waits_for_its_reader_and_an_ignored_one_for_nobody() {
        let signals = Signals::catch().unwrap();
        assert_eq!(signals.next(), None);
        // SAFETY: SIG_IGN installs no code; the signals are blocked in this thread, to which raise(3) sends them.
        unsafe {
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
            libc::raise(libc::SIGUSR2);
            libc::raise(libc::SIGUSR1);
        }
        assert_eq!(signals.next(), Some(libc::SIGUSR1));
        assert_eq!(signals.next(), None);
        sys::reset(libc::SIGUSR2);
    }
}
