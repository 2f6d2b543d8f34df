//! A bounded set of buffers, shared by the threads of one extraction and used over and over.

use std::ops::Deref;
use std::sync::{Condvar, Mutex, PoisonError};

/// Lends at most `most` buffers of one size; waits when all are out.
pub(crate) struct Pool {
    size: usize,
    most: usize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    free: Vec<Box<[u8]>>,
    made: usize,
}

impl Pool {
    pub(crate) fn new(most: usize, size: usize) -> Self {
        Self { size, most, state: Mutex::default(), returned: Condvar::new() }
    }

    /// A buffer with `length` 0, as soon as one is free.
    pub(crate) fn take(&self) -> Buffer<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = loop {
            if let Some(bytes) = state.free.pop() {
                break bytes;
            }
            if state.made < self.most {
                state.made += 1;
                break vec![0; self.size].into_boxed_slice();
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        Buffer { bytes, length: 0, pool: self }
    }

    fn put(&self, bytes: Box<[u8]>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).free.push(bytes);
        self.returned.notify_one();
    }
}

/// A buffer of a [`Pool`], filled from the front. It goes back when the last holder lets go.
pub(crate) struct Buffer<'pool> {
    bytes: Box<[u8]>,
    length: usize,
    pool: &'pool Pool,
}

impl Buffer<'_> {
    /// The part that is not filled yet.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.length..]
    }

    /// Says that the first `count` bytes of [`Buffer::room`] are filled now.
    pub(crate) fn filled(&mut self, count: usize) {
        self.length += count;
        assert!(self.length <= self.bytes.len(), "more bytes than there was room for");
    }
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.bytes));
    }
}
