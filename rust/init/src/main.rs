//! One static file, three roles, for everything that a container's start forks.
//!
//! It begins as the spawner, which forks keepers; a keeper makes one container, is the parent of its PID 1, and
//! reports on it; with `--init` its child stays behind as the container's PID 1 (see `pyrt_container::execute`).
//! Single-threaded throughout.

// The tests have a main of their own.
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

mod foresight;
mod keeper;
mod spawner;

use std::ffi::{c_char, c_int};

/// Without Rust's own beginning, which looks for the stack's end in /proc/self/maps and more. What of it a spawner needs
/// it does itself.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    spawner::main().into()
}
