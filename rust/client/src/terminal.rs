//! The user's terminal: raw while its keys go to a container, and as it was whenever they do not.

use crate::sys::{self, Fd};

/// A terminal whose mode this process has in hand.
pub struct RawMode {
    terminal: Fd,
    usual: libc::termios2,
    raw: bool,
}

/// cfmakeraw(3).
fn make_raw(mode: &mut libc::termios2) {
    mode.c_iflag &= !(libc::IGNBRK
        | libc::BRKINT
        | libc::PARMRK
        | libc::ISTRIP
        | libc::INLCR
        | libc::IGNCR
        | libc::ICRNL
        | libc::IXON);
    mode.c_oflag &= !libc::OPOST;
    mode.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG | libc::IEXTEN);
    mode.c_cflag &= !(libc::CSIZE | libc::PARENB);
    mode.c_cflag |= libc::CS8;
    mode.c_cc[libc::VMIN] = 1;
    mode.c_cc[libc::VTIME] = 0;
}

impl RawMode {
    /// Nothing happens yet; `None` if this is no terminal.
    pub fn of(terminal: Fd) -> Option<Self> {
        Some(Self { terminal, usual: sys::terminal_mode(terminal).ok()?, raw: false })
    }

    /// Keys come one by one, and none of them means anything here.
    pub fn enter(&mut self) {
        if !self.raw && self.is_ours() {
            let mut mode = self.usual;
            make_raw(&mut mode);
            self.raw = sys::set_terminal_mode(self.terminal, &mode).is_ok();
        }
    }

    /// As the user had it; at once, as output that the user has stopped (Ctrl-S) may never drain.
    pub fn leave(&mut self) {
        if self.raw && self.is_ours() {
            let _ = sys::set_terminal_mode(self.terminal, &self.usual);
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
        sys::foreground(self.terminal).map_or(true, |foreground| foreground == sys::group())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The size of the user's terminal: the first of their descriptors that is one.
pub fn window() -> Option<libc::winsize> {
    [1, 0, 2].into_iter().find_map(|descriptor| sys::window(descriptor).ok())
}
