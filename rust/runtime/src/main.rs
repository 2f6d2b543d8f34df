//! `pyrt-runtime`: the OCI runtime command line of runc, on pyrt's plan and executor.
//!
//! A program of its own and not a role of `pyrt-init`: that one is forked for every container of an engine, and its
//! pages are the price. One invocation does one thing and ends; what has to be remembered lies in a state directory.

mod annals;
mod arguments;
mod bus;
mod cgroups;
mod clock;
mod config;
mod console;
mod container;
mod error;
mod foreground;
mod hooks;
mod log;
mod process;
mod sealed;
mod systemd;
mod verbs;

use std::process::ExitCode;

use arguments::Global;

fn main() -> ExitCode {
    let words: Vec<String> = match std::env::args_os().skip(1).map(|word| word.into_string()).collect() {
        Ok(words) => words,
        Err(word) => return log::Log::default().fatal(&error::Error::new(format!("{word:?} is not UTF-8"))),
    };
    let (global, verb) = match Global::parse(&words) {
        Ok(parsed) => parsed,
        Err(error) => return log::Log::default().fatal(&error),
    };
    match verbs::run(&global, &verb) {
        Ok(code) => ExitCode::from(code),
        Err(error) => global.log.fatal(&error),
    }
}
