//! One static file, four roles.
//!
//! Called `pyrt` it is the native client. Called `pyrt-spawner` it forks keepers; a keeper makes one
//! container, is the parent of its PID 1, and reports on it; with `--init` its child stays behind as the
//! container's PID 1 (see `pyrt_container::execute`). Single-threaded throughout.

mod keeper;
mod spawner;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some("pyrt-spawner") => spawner::main(),
        _ => ExitCode::from(125),
    }
}
