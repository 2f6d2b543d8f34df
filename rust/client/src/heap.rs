//! Memory for a program without a C library, which has one thread.
//!
//! Blocks are powers of two. One that is given back waits in the list of its size for whoever asks for such a one
//! next, so that a client that relays for weeks stays as small as it was after its first minute. Small blocks are cut
//! from an arena that lies beside the program's own data: reaching it takes no system call and no page table of its own.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

use crate::sys;

/// The smallest block: what two pointers need, and all that anything here asks for by way of alignment.
const SMALLEST: usize = 16;
/// The largest; what is larger comes from the kernel, and goes back to it.
const LARGEST: usize = 128 << 10;
const SIZES: usize = (LARGEST / SMALLEST).trailing_zeros() as usize + 1;
/// One call with its arguments and environment, and the buffers of one relay; another is made when that is used up.
const ARENA: usize = 512 << 10;

struct State {
    /// Of each size, the first that is free; it begins with the address of the next.
    free: [*mut u8; SIZES],
    /// What of the arena has not been cut off yet.
    rest: *mut u8,
    left: usize,
    is_begun: bool,
}

/// The only one there is is the program's global allocator.
pub struct Heap {
    state: UnsafeCell<State>,
    /// Of what is aligned as blocks are.
    arena: UnsafeCell<[u128; ARENA / SMALLEST]>,
}

// SAFETY: the program that has it has one thread.
unsafe impl Sync for Heap {}

impl Heap {
    /// Nothing but zeros, so that it takes no room in the file.
    #[expect(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> Self {
        let state = State { free: [ptr::null_mut(); SIZES], rest: ptr::null_mut(), left: 0, is_begun: false };
        Self { state: UnsafeCell::new(state), arena: UnsafeCell::new([0; ARENA / SMALLEST]) }
    }

    /// Cuts a block off.
    fn cut(&self, state: &mut State, size: usize) -> *mut u8 {
        if state.left < size {
            let arena = if state.is_begun { sys::map(ARENA).ok() } else { Some(self.arena.get().cast()) };
            let Some(arena) = arena else { return ptr::null_mut() };
            (state.rest, state.left, state.is_begun) = (arena, ARENA, true);
        }
        let block = state.rest;
        state.left -= size;
        // SAFETY: there are `left` bytes behind it.
        state.rest = unsafe { block.add(size) };
        block
    }
}

/// What a block for this has, and the index of its size; none if it is the kernel's affair.
fn block_for(layout: Layout) -> Option<(usize, usize)> {
    let size = layout.size().max(SMALLEST).next_power_of_two();
    let fits = size <= LARGEST && layout.align() <= SMALLEST;
    fits.then_some((size, (size / SMALLEST).trailing_zeros() as usize))
}

// SAFETY: blocks are as large as asked for or larger, and aligned: those of the arena to 16 bytes, as its sizes are
// multiples of that, those of the kernel to a page. None is given out a second time before it has come back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((size, index)) = block_for(layout) else {
            return sys::map(layout.size()).unwrap_or(ptr::null_mut());
        };
        // SAFETY: nobody else refers to it, as there is one thread, and nothing below calls back.
        let state = unsafe { &mut *self.state.get() };
        let first = state.free[index];
        if first.is_null() {
            return self.cut(state, size);
        }
        // SAFETY: a free block begins with a pointer, which `dealloc` has written.
        state.free[index] = unsafe { first.cast::<*mut u8>().read() };
        first
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((_, index)) = block_for(layout) else {
            // SAFETY: it was mapped with this very size.
            return unsafe { sys::unmap(block, layout.size()) };
        };
        // SAFETY: as in `alloc`.
        let state = unsafe { &mut *self.state.get() };
        // SAFETY: the block has room for a pointer, is aligned for one, and is nobody's any more.
        unsafe { block.cast::<*mut u8>().write(state.free[index]) };
        state.free[index] = block;
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller sees to it that the size is valid with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if block_for(layout).is_some() && block_for(layout) == block_for(wanted) {
            return block;
        }
        // SAFETY: as the caller promises; both blocks have what is copied, and are two.
        unsafe {
            let other = self.alloc(wanted);
            if !other.is_null() {
                ptr::copy_nonoverlapping(block, other, layout.size().min(size));
                self.dealloc(block, layout);
            }
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(size: usize) -> Layout {
        Layout::from_size_align(size, 1).unwrap()
    }

    #[test]
    fn what_is_given_back_is_given_out_again() {
        let heap = Heap::new();
        for size in [1, 100, 5_000, LARGEST] {
            // SAFETY: sizes that are not zero, and blocks that came from this heap.
            unsafe {
                let first = heap.alloc(bytes(size));
                let second = heap.alloc(bytes(size));
                assert!(first != second && first.addr() % SMALLEST == 0);
                heap.dealloc(first, bytes(size));
                assert_eq!(heap.alloc(bytes(size)), first);
            }
        }
    }

    #[test]
    fn blocks_grow_with_what_they_hold_and_more_than_an_arena_is_to_be_had() {
        let heap = Heap::new();
        // SAFETY: as above; each block is written to within its size.
        unsafe {
            let mut block = heap.alloc(bytes(8));
            block.write_bytes(7, 8);
            assert_eq!(heap.realloc(block, bytes(8), 16), block);
            let mut size = 16;
            while size < 4 * ARENA {
                block = heap.realloc(block, bytes(size), 2 * size);
                size *= 2;
            }
            assert_eq!(block.cast::<[u8; 8]>().read(), [7; 8]);
            heap.dealloc(block, bytes(size));
            for _ in 0..2 * ARENA / LARGEST {
                heap.alloc(bytes(LARGEST)).write_bytes(1, LARGEST);
            }
        }
    }
}
