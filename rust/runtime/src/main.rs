//! `pyrt-runtime`: the OCI runtime command line of runc, on pyrt's plan and executor.
//!
//! A program of its own and not a role of `pyrt-init`: that one is forked for every container of an engine, and its
//! pages are the price. One invocation does one thing and ends; what has to be remembered lies in a state directory.

// The tests have a main of their own.
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

mod annals;
mod arguments;
mod bus;
mod cgroups;
mod clock;
mod config;
mod console;
mod container;
mod cover;
mod criu;
mod error;
mod external;
mod foreground;
mod home;
mod hooks;
mod log;
mod memory;
mod oom;
mod pages;
mod plain;
mod process;
mod sealed;
mod sockets;
mod systemd;
mod verbs;

use std::ffi::{CStr, c_char, c_int};

use pyrt_container::sys;

use arguments::Global;

#[global_allocator]
static MEMORY: memory::Block = memory::Block::new();

/// Without Rust's own beginning, which looks for the stack's end in /proc/self/maps and more. What of it we need is here.
///
/// # Safety
/// Called by the C library, with the array that execve(2) was given.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    // SAFETY: `count` C strings, as every C program finds them.
    let words = (1..count as usize).map(|index| unsafe { CStr::from_ptr(*words.add(index)) });
    // Who writes to a pipe that nobody reads, or more than RLIMIT_FSIZE lets him, is told so by write(2).
    [libc::SIGPIPE, libc::SIGXFSZ].into_iter().for_each(sys::ignore_signal);
    sys::open_missing_stdio();
    run(words).into()
}

fn run<'w>(words: impl Iterator<Item = &'w CStr>) -> u8 {
    let words: Vec<String> = match words.map(|word| word.to_str().map(str::to_owned).map_err(|_| word)).collect() {
        Ok(words) => words,
        Err(word) => return log::Log::default().fatal(&error::Error::new(format!("{word:?} is not UTF-8"))),
    };
    let (global, called) = match Global::parse(&words) {
        Ok(parsed) => parsed,
        Err(error) => return log::Log::default().fatal(&error),
    };
    match verbs::run(&global, &called) {
        Ok(code) => code,
        Err(error) => global.log.fatal(&error),
    }
}
