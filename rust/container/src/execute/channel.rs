//! Keeper and child, on a socket pair that execve(2) closes.
//!
//! ```text
//! keeper -> child   slot numbers (u16 each), with their descriptors
//! child  -> keeper  'T' with the terminal's master
//! child  -> keeper  'C': it has come as far as `CallKeeper`, and waits
//! child  -> keeper  'F' index u32, errno i32, evidence
//! ```

use crate::plan::Slot;
use crate::protocol::EVIDENCE;
use crate::sys::{self, Errno, Fd, MAX_PASSED};

use super::Slots;

const TERMINAL: u8 = b'T';
const CALL: u8 = b'C';
const FAILED: u8 = b'F';
const FAILED_HEADER: usize = 1 + 4 + 4;
/// A candidate's path, NUL, and the first bytes of its file.
pub(super) const MAX_EVIDENCE: usize = EVIDENCE + libc::PATH_MAX as usize;

/// What the child had to say.
pub(super) enum Word {
    /// The master of the container's terminal.
    Terminal(Fd),
    /// The child has come as far as `CallKeeper`.
    Call,
    /// A step failed.
    Failed { index: u32, errno: Errno, evidence: Vec<u8> },
    /// The channel was closed: execve(2) succeeded, or the child died.
    Closed,
}

/// The keeper's side.
#[derive(Debug)]
pub(super) struct ToChild(pub Fd);

impl ToChild {
    /// Hands over the slots that were filled after the clone.
    pub fn release(&self, slots: &Slots, opened: &[Slot]) -> sys::Result<()> {
        let mut numbers = Vec::with_capacity(opened.len() * 2 + 1);
        let mut descriptors = Vec::with_capacity(opened.len());
        for &slot in opened {
            numbers.extend_from_slice(&slot.0.to_le_bytes());
            descriptors.push(slots.get(slot)?);
        }
        // An empty packet would look like the end of the file.
        numbers.push(0);
        sys::send_packet(self.0, &numbers, &descriptors)
    }

    /// The child's next word, if it has come already.
    pub fn already_said(&self) -> Option<Word> {
        let mut entry = [libc::pollfd { fd: self.0, events: libc::POLLIN, revents: 0 }];
        let ready = sys::poll(&mut entry, 0).is_ok_and(|count| count > 0);
        if ready { self.listen().ok() } else { None }
    }

    /// The child's next word; blocks.
    pub fn listen(&self) -> sys::Result<Word> {
        let mut data = vec![0; FAILED_HEADER + MAX_EVIDENCE];
        let mut descriptors = [-1; 1];
        let (length, passed) = match sys::receive_packet(self.0, &mut data, &mut descriptors) {
            // The child died with our words unread.
            Err(Errno(libc::ECONNRESET)) => (0, 0),
            other => other?,
        };
        let word = &data[..length];
        match word.first() {
            None => Ok(Word::Closed),
            Some(&TERMINAL) if passed == 1 => Ok(Word::Terminal(descriptors[0])),
            Some(&CALL) => Ok(Word::Call),
            Some(_) => {
                let (index, errno, evidence) = read_outcome(word).ok_or(Errno(libc::EPROTO))?;
                Ok(Word::Failed { index, errno, evidence: evidence.to_vec() })
            }
        }
    }
}

/// The child's side. Never allocates.
#[derive(Clone, Copy)]
pub(super) struct ToKeeper(pub Fd);

impl ToKeeper {
    /// Waits for the keeper and takes its slots; the keeper's death is EPIPE.
    pub fn await_release(self, slots: &mut Slots) -> sys::Result<()> {
        let mut numbers = [0; MAX_PASSED * 2 + 1];
        let mut descriptors = [-1; MAX_PASSED];
        let (length, passed) = sys::receive_packet(self.0, &mut numbers, &mut descriptors)?;
        if length != passed * 2 + 1 {
            return Err(Errno(libc::EPIPE));
        }
        for (number, &fd) in numbers.chunks_exact(2).zip(&descriptors[..passed]) {
            slots.set(Slot(u16::from_le_bytes([number[0], number[1]])), fd);
        }
        Ok(())
    }

    /// Gives the terminal's master away.
    pub fn send_terminal(self, master: Fd) -> sys::Result<()> {
        sys::send_packet(self.0, &[TERMINAL], &[master])
    }

    /// Says that the child has come this far. One write(2): a seccomp filter is in force perhaps.
    pub fn call(self) -> sys::Result<()> {
        sys::write(self.0, &[CALL])
    }

    /// Says which step failed. If the keeper is gone there is nobody to tell.
    pub fn send_failure(self, index: u32, errno: Errno, evidence: &[u8]) {
        let mut word = [0; FAILED_HEADER + MAX_EVIDENCE];
        let length = FAILED_HEADER + evidence.len().min(MAX_EVIDENCE);
        word[0] = FAILED;
        word[1..5].copy_from_slice(&index.to_le_bytes());
        word[5..9].copy_from_slice(&errno.0.to_le_bytes());
        word[FAILED_HEADER..length].copy_from_slice(&evidence[..length - FAILED_HEADER]);
        // The channel is a socket or, once the container is created, a fifo: write(2) serves both.
        let _ = sys::write(self.0, &word[..length]);
    }
}

/// Takes apart what a child that failed after `AwaitStart` has written to `outcome`: step, errno, evidence.
pub fn read_outcome(word: &[u8]) -> Option<(u32, Errno, &[u8])> {
    let (head, evidence) = word.split_at_checked(FAILED_HEADER)?;
    let number = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
    let failed = (u32::from_le_bytes(number(1)), Errno(i32::from_le_bytes(number(5))), evidence);
    (head[0] == FAILED).then_some(failed)
}
