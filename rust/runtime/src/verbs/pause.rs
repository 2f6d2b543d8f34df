//! `pause` and `resume`.

use crate::arguments::{Arguments, Global, Usage};
use crate::cgroups;
use crate::container::Status;
use crate::error::{Error, Result};

use super::find;

/// How `pause` is called.
pub const PAUSE: Usage = Usage::of("pause", "freeze a container", "pause web");

/// How `resume` is called.
pub const RESUME: Usage = Usage::of("resume", "thaw a container", "resume web");

/// Freezes a container.
pub fn pause(global: &Global, arguments: &Arguments) -> Result<u8> {
    change(global, arguments, true)
}

/// Thaws it.
pub fn resume(global: &Global, arguments: &Arguments) -> Result<u8> {
    change(global, arguments, false)
}

fn change(global: &Global, arguments: &Arguments, frozen: bool) -> Result<u8> {
    let found = find(global, arguments.id()?)?;
    match (frozen, found.status) {
        (true, Status::Running | Status::Created) | (false, Status::Paused) => {}
        (true, status) => return Err(Error::new(format!("cannot pause a container that is {}", status.name()))),
        (false, status) => return Err(Error::new(format!("cannot resume a container that is {}", status.name()))),
    }
    cgroups::freeze(&found.record.cgroups, frozen)?;
    Ok(0)
}
