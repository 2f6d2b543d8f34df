//! `pause` and `resume`.

use crate::arguments::{Arguments, Global, Order};
use crate::cgroups;
use crate::container::Status;
use crate::error::{Error, Result};

use super::find;

/// Freezes a container.
pub fn pause(global: &Global, words: &[String]) -> Result<u8> {
    change(global, words, true)
}

/// Thaws it.
pub fn resume(global: &Global, words: &[String]) -> Result<u8> {
    change(global, words, false)
}

fn change(global: &Global, words: &[String], frozen: bool) -> Result<u8> {
    let arguments = Arguments::parse(words, &[], Order::Mixed)?;
    let found = find(global, arguments.id(1)?)?;
    match (frozen, found.status) {
        (true, Status::Running | Status::Created) | (false, Status::Paused) => {}
        (true, status) => return Err(Error::new(format!("cannot pause a container that is {}", status.name()))),
        (false, status) => return Err(Error::new(format!("cannot resume a container that is {}", status.name()))),
    }
    cgroups::freeze(&found.record.cgroups, frozen)?;
    Ok(0)
}
