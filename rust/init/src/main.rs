//! To be written.
mod client;

fn main() -> std::process::ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    client::main(&arguments)
}
