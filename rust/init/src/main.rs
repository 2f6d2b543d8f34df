//! One static file, four roles.
//!
//! Called `pyrt-spawner` it forks keepers; a keeper makes one container, is the parent of its PID 1, and
//! reports on it; with `--init` its child stays behind as the container's PID 1 (see `pyrt_container::execute`).
//! Called anything else it is the native client, `pyrt`. Single-threaded throughout.

mod client;
mod keeper;
mod spawner;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str);
    match called {
        Some("pyrt-spawner") => spawner::main(),
        _ => client::main(&arguments),
    }
}
