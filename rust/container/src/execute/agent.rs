//! A seccomp filter whose notifications go to an agent of the host: its descriptor is handed out by the child itself,
//! because with a filter in force the keeper could be told of it only by calls that the filter may stop.
//!
//! ```text
//! child                                       agent (linux.seccomp.listenerPath)
//!   | seccomp(2) NEW_LISTENER                   .
//!   | -- descriptor, beginning of the state --> | sendmsg(2), which a filter may therefore not notify
//!   | -- the rest of it, and end of file -----> |
//!   | execve(2)                                 | answers what the filter notifies
//! ```

use crate::sys::{self, Fd};

/// What the child knows of itself as the agent has to know it.
#[derive(Default)]
pub(super) struct Agent {
    digits: [u8; 16],
    length: usize,
}

impl Agent {
    /// Of the host's /proc, so before the root is changed. In a pid namespace of its own the child can't ask otherwise.
    pub fn note_pid(&mut self) -> sys::Result<()> {
        self.length = sys::readlink(c"/proc/self", &mut self.digits)?;
        Ok(())
    }

    /// Loads the filter and hands its listener out; then nothing of it is open here any more.
    pub fn load(&self, flags: u64, program: &[u8], agent: Fd, parts: [&[u8]; 3]) -> sys::Result<()> {
        let listener = sys::load_seccomp_with_listener(flags, program)?;
        let [before, between, after] = parts;
        let pid = &self.digits[..self.length];
        // The descriptor goes with the first call and no other (config-linux.md, "The Container Process State").
        let sent = sys::send_packet(agent, before, &[listener]).and_then(|()| {
            [pid, between, pid, after].into_iter().try_for_each(|part| sys::send_packet(agent, part, &[]))
        });
        // The keeper has the connection open as well, and agents read up to its end before they answer.
        let ended = sent.and_then(|()| sys::end_of_file(agent));
        sys::close(listener);
        sys::close(agent);
        ended
    }
}
