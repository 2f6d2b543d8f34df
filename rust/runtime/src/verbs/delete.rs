//! `delete`: what is left of a container goes. With `--force` whatever state it is in, also one that a killed `create`
//! has left behind.

use std::os::fd::AsRawFd;

use pyrt_container::compile;
use pyrt_container::sys;

use crate::annals::{self, Annals, Record};
use crate::arguments::{Arguments, Global, Usage, switch};
use crate::cgroups;
use crate::container::Status;
use crate::cover;
use crate::error::{Error, Result};
use crate::hooks;
use crate::process;
use crate::systemd::Unit;

/// How it is called.
pub const USAGE: Usage = Usage {
    flags: &[switch("force", "kill what runs; what is not there is deleted already").or('f')],
    ..Usage::of("delete", "remove what is left of a container", "delete --force web")
};

/// The verb.
pub fn delete(global: &Global, arguments: &Arguments) -> Result<u8> {
    remove(global, arguments.id()?, arguments.has("force"))?;
    Ok(0)
}

/// Removes a container; with `force` one that is not there is removed already.
pub fn remove(global: &Global, id: &str, force: bool) -> Result<()> {
    let annals = match Annals::find(&global.root, id)? {
        Some(annals) => annals,
        // Perhaps whoever has waited for its end was quicker.
        None if force => return Ok(()),
        None => return Err(annals::missing(id)),
    };
    let Some(record) = annals::peek(&global.root, id)? else {
        // Killed before it had made anything but its folder.
        return annals.remove_begun();
    };
    take_apart(global, annals, &record, force)
}

/// The same of one that is locked.
pub fn take_apart(global: &Global, annals: Annals, record: &Record, force: bool) -> Result<()> {
    match Status::of(record, &annals.path("")) {
        Status::Stopped => {}
        // As runc: engines delete what they have created and never started.
        Status::Created | Status::Creating => end(record)?,
        _ if force => end(record)?,
        status => {
            let message = format!("cannot delete container {} that is not stopped: {}", record.id, status.name());
            return Err(Error::new(message).hint("--force kills it"));
        }
    }
    cgroups::remove(&record.cgroups)?;
    cover::remove(record)?;
    record.unit.as_ref().map_or(Ok(()), Unit::stop)?;
    if !record.has_hooks {
        return annals.remove();
    }
    let config = annals.read("config.json");
    annals.remove()?;
    hooks::run_poststop(&compile::read(&config?)?, record, &global.log);
    Ok(())
}

/// Kills the first process and waits until it is dead; whoever is its parent reaps it.
fn end(record: &Record) -> Result<()> {
    const PATIENCE: i32 = 10_000;
    let Ok(pidfd) = process::open(record.pid) else { return Ok(()) };
    if !process::is_alive(record.pid, record.start_time) {
        return Ok(());
    }
    let _ = sys::signal_pidfd(pidfd.as_raw_fd(), libc::SIGKILL);
    // On version 1 a frozen process does not die.
    if cgroups::is_frozen(&record.cgroups) {
        cgroups::freeze(&record.cgroups, false)?;
    }
    let mut entry = [libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    match sys::poll(&mut entry, PATIENCE) {
        Ok(1) => Ok(()),
        _ => Err(Error::new(format!("process {} does not die", record.pid)).hint("it may wait for a device")),
    }
}
