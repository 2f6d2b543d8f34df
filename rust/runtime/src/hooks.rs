//! Hooks that no plan runs: after the start, and after the end.

use std::ffi::CString;
use std::path::Path;

use pyrt_container::execute;
use pyrt_container::explain;
use pyrt_container::plan::TextsBuf;
use pyrt_container::spec::{Hook, Spec, State};

use crate::annals::Record;
use crate::error::{Error, Result};
use crate::log::Log;

/// Runs one list; `status` is what the hooks are told.
pub fn run(list: &[Hook<'_>], spec: &Spec<'_>, record: &Record, status: &str) -> Result<()> {
    let bundle = record.bundle.to_str();
    let before = State::of(spec, &record.id, bundle, status).up_to_pid();
    let pid = if status == "stopped" { 0 } else { record.pid };
    for hook in list {
        run_one(hook, &before, pid)?;
    }
    Ok(())
}

/// runtime.md, "Lifecycle", 13: a hook that fails is worth a warning, and the others go on.
pub fn run_poststop(spec: &Spec<'_>, record: &Record, log: &Log) {
    for hook in spec.hooks.as_ref().map(|hooks| hooks.poststop.as_slice()).unwrap_or_default() {
        if let Err(error) = run(std::slice::from_ref(hook), spec, record, "stopped") {
            log.warn(&error);
        }
    }
}

fn run_one(hook: &Hook<'_>, before: &[u8], pid: i32) -> Result<()> {
    let path = hook.path.to_c_string();
    let texts = |list: &[CString]| list.iter().map(CString::as_c_str).collect::<TextsBuf>();
    let arguments: Vec<CString> = hook.args.iter().map(|text| text.to_c_string()).collect();
    let arguments = if arguments.is_empty() { vec![path.clone()] } else { arguments };
    let environment: Vec<CString> = hook.env.iter().map(|text| text.to_c_string()).collect();
    let seconds = u32::try_from(hook.timeout.unwrap_or(0)).unwrap_or(0);
    let (arguments, environment) = (texts(&arguments), texts(&environment));
    let timeout = seconds.saturating_mul(1000);
    let state = [before, b"}".as_slice()];
    execute::run_hook(&path, arguments.as_texts(), environment.as_texts(), state, pid, timeout).map_err(|failed| {
        let why = explain::of_hook(failed.errno.0, timeout, &failed.printed);
        Error::new(format!("running the hook {}: {why}", Path::new(&*hook.path).display()))
    })
}
