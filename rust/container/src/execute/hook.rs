//! A hook of the specification: a program of the host that is run to its end while a container is made.
//!
//! Keeper and child both run hooks, so nothing here allocates. What a hook prints is kept to say why it failed.

use std::ffi::CStr;

use crate::sys::{self, Errno, Fd};

use super::exec::Vectors;

/// A hook, ready to be run.
pub(super) struct Hook<'a> {
    pub path: &'a CStr,
    /// State of the container before and after its process id.
    pub state: [&'a [u8]; 2],
    /// Milliseconds; 0 is for ever.
    pub timeout: u32,
    /// What the hook sees for /, if it is not what we see.
    pub root: Option<Fd>,
}

/// How a hook failed; what it has printed is in the buffer.
pub(super) struct Trouble {
    pub errno: Errno,
    pub printed: usize,
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self { errno, printed: 0 }
    }
}

/// The exit code of a hook that could not be executed.
const NOT_EXECUTED: i32 = 127;

/// Runs `hook` for the process `pid`. A hook that exits with anything but 0 is EPROTO, one that takes too long ETIMEDOUT.
pub(super) fn run(hook: &Hook<'_>, pid: i32, vectors: &Vectors, printed: &mut [u8]) -> Result<(), Trouble> {
    let [input, state] = sys::pipe()?;
    let [output, print] = sys::pipe()?;
    match sys::clone(0, None)? {
        sys::Side::Child => become_hook(hook, input, print, vectors),
        sys::Side::Parent { pid: hook_pid, pidfd } => {
            sys::close(input);
            sys::close(print);
            let mut conversation = Conversation { pidfd, output, printed, length: 0 };
            // A hook need not read its state; nothing that fits into a pipe makes us wait for it.
            send_state(state, hook.state, pid);
            sys::close(state);
            let patient = conversation.hear(hook.timeout);
            if !patient {
                let _ = sys::signal_pidfd(pidfd, libc::SIGKILL);
            }
            let ended = sys::wait(hook_pid, true);
            let length = conversation.length;
            sys::close(pidfd);
            sys::close(output);
            match ended?.and_then(|ended| ended.code) {
                _ if !patient => Err(Trouble { errno: Errno(libc::ETIMEDOUT), printed: length }),
                Some(0) => Ok(()),
                Some(NOT_EXECUTED) if length == 0 => Err(Errno(libc::ENOEXEC).into()),
                _ => Err(Trouble { errno: Errno(libc::EPROTO), printed: length }),
            }
        }
    }
}

fn become_hook(hook: &Hook<'_>, input: Fd, print: Fd, vectors: &Vectors) -> ! {
    let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0);
    let arranged = sys::dup_to(input, 0)
        .and_then(|()| sys::dup_to(print, 1))
        .and_then(|()| sys::dup_to(print, 2))
        .and_then(|()| hook.root.map_or(Ok(()), |root| sys::fchdir(root).and_then(|()| sys::chroot_here())));
    if arranged.is_ok() {
        sys::reset_signals();
        let _ = sys::close_on_exec_from(3);
        vectors.execute_at(hook.path);
    }
    sys::exit(NOT_EXECUTED)
}

/// The document in one write(2) a part; a hook that has closed its standard input does not want it.
fn send_state(pipe: Fd, state: [&[u8]; 2], pid: i32) {
    let mut digits = [0; 12];
    let _ = sys::grow_pipe(pipe, state[0].len() + digits.len() + state[1].len());
    let _ = sys::write(pipe, state[0])
        .and_then(|()| sys::write(pipe, decimal(pid, &mut digits)))
        .and_then(|()| sys::write(pipe, state[1]));
}

/// The digits of a process id, without allocation.
fn decimal(pid: i32, digits: &mut [u8; 12]) -> &[u8] {
    let mut rest = pid.unsigned_abs();
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &digits[at..];
        }
    }
}

/// What is heard of a running hook.
struct Conversation<'b> {
    pidfd: Fd,
    output: Fd,
    printed: &'b mut [u8],
    length: usize,
}

impl Conversation<'_> {
    /// Listens until the hook has ended; false if its time is over before.
    fn hear(&mut self, timeout: u32) -> bool {
        const MILLISECOND: u64 = 1_000_000;
        let deadline = sys::monotonic() + u64::from(timeout) * MILLISECOND;
        let mut entries = [
            libc::pollfd { fd: self.pidfd, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: self.output, events: libc::POLLIN, revents: 0 },
        ];
        loop {
            let left = deadline.saturating_sub(sys::monotonic()).div_ceil(MILLISECOND);
            if timeout != 0 && left == 0 {
                return false;
            }
            let patience = if timeout == 0 { -1 } else { i32::try_from(left).unwrap_or(i32::MAX) };
            if sys::poll(&mut entries, patience).is_err() {
                return true;
            }
            if entries[1].revents & libc::POLLIN != 0 {
                self.keep_words();
            } else if entries[0].revents != 0 {
                return true;
            } else if entries[1].revents != 0 {
                // All ends are closed; poll(2) passes over negative numbers.
                entries[1].fd = -1;
            }
        }
    }

    /// The first words are kept, as many as there is room for.
    fn keep_words(&mut self) {
        let mut rest = [0; 512];
        if self.length == self.printed.len() {
            let _ = sys::read(self.output, &mut rest);
        } else {
            self.length += sys::read(self.output, &mut self.printed[self.length..]).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_ids_are_written_in_digits() {
        for pid in [0, 1, 10, 4_194_304, i32::MAX] {
            assert_eq!(decimal(pid, &mut [0; 12]), pid.to_string().as_bytes());
        }
    }
}
