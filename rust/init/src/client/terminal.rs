//! The user's terminal: raw while its keys go to a container, and as it was whenever they do not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

/// A terminal whose mode this process has in hand. Dropping it puts the mode back.
pub struct RawMode {
    terminal: OwnedFd,
    usual: Termios,
    raw: bool,
}

impl RawMode {
    /// Nothing happens yet; `None` if this is no terminal.
    pub fn of(descriptor: BorrowedFd<'_>) -> Option<Self> {
        let usual = tcgetattr(descriptor).ok()?;
        Some(Self { terminal: descriptor.try_clone_to_owned().ok()?, usual, raw: false })
    }

    /// Keys come one by one, and none of them means anything here.
    pub fn enter(&mut self) {
        if !self.raw && self.is_ours() {
            let mut mode = self.usual.clone();
            mode.make_raw();
            self.raw = tcsetattr(&self.terminal, OptionalActions::Now, &mode).is_ok();
        }
    }

    /// As the user had it; at once, as output that the user has stopped (Ctrl-S) may never drain.
    pub fn leave(&mut self) {
        if self.raw && self.is_ours() {
            let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.usual);
        }
        self.raw = false;
    }

    /// After a stop that nobody announced (SIGSTOP) the shell has set a mode of its own.
    pub fn enter_again(&mut self) {
        self.raw = false;
        self.enter();
    }

    /// Whoever changes the mode of a terminal from its background is stopped by SIGTTOU.
    fn is_ours(&self) -> bool {
        tcgetpgrp(&self.terminal).map_or(true, |foreground| foreground == getpgrp())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The size of the first of these that is a terminal.
pub fn window<'a>(descriptors: impl IntoIterator<Item = BorrowedFd<'a>>) -> Option<Winsize> {
    descriptors.into_iter().find(|descriptor| isatty(descriptor)).and_then(|terminal| tcgetwinsize(terminal).ok())
}

/// Tells a container's terminal; the kernel sends SIGWINCH inside if this is a change.
pub fn resize(master: impl AsFd, size: Winsize) {
    let _ = rustix::termios::tcsetwinsize(master, size);
}
