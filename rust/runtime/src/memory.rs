//! Where the command's memory comes from: a block that is there from the beginning and that little is given back to.
//!
//! An invocation lives for milliseconds. musl's allocator asks the kernel for pages of each size and gives them back at
//! once: a hundred calls of a `run`, and as many pages to be cleared. What finds no room is the C library's, so that verbs
//! that live longer do not grow.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// More than a `run` with a profile as long as Docker's takes. Only what is touched becomes memory.
const SIZE: usize = 1 << 20;
const ALIGNMENT: usize = 64;

#[repr(C, align(64))]
pub struct Block {
    bytes: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

// SAFETY: each part of the block is handed out to one owner, by an atomic counter.
unsafe impl Sync for Block {}

impl Block {
    pub const fn new() -> Self {
        Self { bytes: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) }
    }

    /// Where in the block a piece begins, if it is from there.
    fn offset(&self, piece: *mut u8) -> Option<usize> {
        let offset = (piece as usize).wrapping_sub(self.bytes.get() as usize);
        (offset < SIZE).then_some(offset)
    }

    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let mut start = 0;
        let taken = self.used.fetch_update(Relaxed, Relaxed, |used| {
            start = used.next_multiple_of(layout.align());
            start.checked_add(layout.size()).filter(|&end| end <= SIZE && layout.align() <= ALIGNMENT)
        });
        // SAFETY: `start` is in bounds.
        taken.ok().map(|_| unsafe { self.bytes.get().cast::<u8>().add(start) })
    }

    /// Moves the end of the last piece, which begins at `start`; false if it is not the last or there is no room.
    fn resize_last(&self, start: usize, from: usize, to: usize) -> bool {
        to <= SIZE - start && self.used.compare_exchange(start + from, start + to, Relaxed, Relaxed).is_ok()
    }
}

// SAFETY: pieces are aligned, in bounds, and given to nobody else before they are given back.
unsafe impl GlobalAlloc for Block {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is that of the other allocator.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match self.offset(piece) {
            Some(start) => drop(self.resize_last(start, layout.size(), 0)),
            // SAFETY: it is from there.
            None => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = self.offset(piece) else {
            // SAFETY: it is from there.
            return unsafe { System.realloc(piece, layout, size) };
        };
        if self.resize_last(start, layout.size(), size) {
            return piece;
        }
        // SAFETY: the alignment is that of a layout; the new piece has room for what is copied, and is another one.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(piece, moved, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_apart_and_what_finds_no_room_is_from_elsewhere() {
        static BLOCK: Block = Block::new();
        let block = &BLOCK;
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        // SAFETY: what is written lies within the pieces.
        unsafe {
            let one = block.alloc(layout(3, 1));
            let other = block.alloc(layout(16, 16));
            assert_eq!((block.offset(one), block.offset(other)), (Some(0), Some(16)));
            one.copy_from("abc".as_ptr(), 3);
            let grown = block.realloc(one, layout(3, 1), 8);
            assert_eq!(std::slice::from_raw_parts(grown, 3), b"abc");
            assert_eq!(
                block.offset(block.realloc(grown, layout(8, 1), 9)),
                Some(32),
                "the last piece grows where it is"
            );
            let large = block.alloc(layout(SIZE, 1));
            assert_eq!(block.offset(large), None);
            block.dealloc(large, layout(SIZE, 1));
        }
    }
}
