//! What the compiler calls by name for memory. By instructions of their own, as loops would be made into these very calls.

use core::arch::asm;
use core::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_setzero_si128};
use core::ffi::{c_char, c_int};

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller has these bytes; the direction flag is clear wherever Rust runs.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // What lies below its source is copied from the beginning, else from the end.
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: no byte is written before it is read.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: the caller has these bytes; the direction flag is clear again at the end.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: c_int, count: usize) -> *mut u8 {
    // SAFETY: the caller has these bytes; the direction flag is clear wherever Rust runs.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> c_int {
    for index in 0..count {
        // SAFETY: the caller has `count` bytes at both.
        let (one, other) = unsafe { (one.add(index).read_volatile(), other.add(index).read_volatile()) };
        if one != other {
            return c_int::from(one) - c_int::from(other);
        }
    }
    0
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> c_int {
    // SAFETY: what the caller promises.
    unsafe { memcmp(one, other, count) }
}

/// Sixteen bytes at a time: an environment has some thousands.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let skipped = text.addr() % size_of::<__m128i>();
    let mut place = text.wrapping_byte_sub(skipped).cast::<__m128i>();
    let mut nothing_before = !0 << skipped;
    loop {
        // SAFETY: aligned, so that it is within the page of a byte that belongs to the text.
        let zeros = unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128(place), _mm_setzero_si128())) };
        let zeros = zeros & nothing_before;
        if zeros != 0 {
            return place.addr() + zeros.trailing_zeros() as usize - text.addr();
        }
        nothing_before = !0;
        place = place.wrapping_add(1);
    }
}
