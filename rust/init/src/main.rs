//! One static file, four roles.
//!
//! Called `pyrt-spawner` it forks keepers; a keeper makes one container, is the parent of its PID 1, and
//! reports on it; with `--init` its child stays behind as the container's PID 1 (see `pyrt_container::execute`).
//! Called anything else it is the native client, `pyrt`. Single-threaded throughout.

// The tests have a main of their own.
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

mod client;
mod keeper;
mod spawner;

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pyrt_container::sys;

/// Without Rust's own beginning, which looks for the stack's end in /proc/self/maps and more: it would take a tenth of
/// the time of `pyrt version`. What of it we need is here.
///
/// # Safety
/// Called by the C library, with the array that execve(2) was given.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    // SAFETY: `count` C strings, as every C program finds them.
    let arguments = (0..count as usize).map(|index| unsafe { CStr::from_ptr(*words.add(index)) });
    let arguments: Vec<OsString> = arguments.map(|word| OsStr::from_bytes(word.to_bytes()).to_owned()).collect();
    // Who writes to a pipe that nobody reads is told so by write(2).
    sys::ignore_signal(libc::SIGPIPE);
    sys::open_missing_stdio();
    let called = arguments.first().and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str);
    let status = match called {
        Some("pyrt-spawner") => spawner::main(),
        _ => client::main(&arguments),
    };
    status.into()
}
