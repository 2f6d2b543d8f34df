//! `create`, `start`, `run`: see `compile::lifecycle` for what happens between the first two.

use pyrt_container::sys;

use crate::arguments::{Arguments, Flag, Global, Usage, switch, valued};
use crate::container::{self, Created, Status, Wish};
use crate::error::{Error, Result};
use crate::foreground;
use crate::sockets::Sockets;

use super::{delete, file, find};

/// What other verbs know as well.
pub(super) const BUNDLE: Flag =
    valued("bundle", "DIR", "where config.json is; the working directory if absent").or('b');
/// The same.
pub(super) const CONSOLE: Flag = valued("console-socket", "SOCKET", "takes the master of the terminal");
/// The same.
pub(super) const PIDFD: Flag = valued("pidfd-socket", "SOCKET", "takes a pidfd of the process");
/// The same.
pub(super) const PID_FILE: Flag = valued("pid-file", "FILE", "takes the process id");
/// The same.
pub(super) const PRESERVE: Flag = valued("preserve-fds", "N", "hand N descriptors from 3 on to the process");
const NO_PIVOT: Flag = switch("no-pivot", "change the root by chroot(2), for a root file system on a ramdisk");
/// The same.
pub(super) const NO_KEYRING: Flag = switch("no-new-keyring", "leave the session keyring of the caller");

/// How `create` is called.
pub const CREATE: Usage = Usage {
    flags: &[BUNDLE, CONSOLE, PIDFD, PID_FILE, PRESERVE, NO_PIVOT, NO_KEYRING],
    ..Usage::of("create", "make a container from a bundle; its process waits", "create --bundle /bundles/web web")
};

/// How `start` is called.
pub const START: Usage = Usage::of("start", "let a container run that was created", "start web");

/// How `run` is called.
pub const RUN: Usage = Usage {
    flags: &[
        BUNDLE,
        CONSOLE,
        PIDFD,
        PID_FILE,
        PRESERVE,
        NO_PIVOT,
        NO_KEYRING,
        switch("detach", "do not wait for the end").or('d'),
        switch("keep", "do not delete the container after its end"),
        switch("no-subreaper", "accepted, changes nothing"),
    ],
    ..Usage::of("run", "create and start a container, and wait for its end", "run --bundle /bundles/web web")
};

fn wish(arguments: &Arguments, stays: bool) -> Result<Wish<'_>> {
    let sockets = Sockets::given()?;
    let preserve: u32 = arguments.number("preserve-fds")?.unwrap_or(0);
    Ok(Wish {
        id: arguments.id()?,
        bundle: arguments.value("bundle"),
        console_socket: arguments.value("console-socket"),
        pidfd_socket: arguments.value("pidfd-socket"),
        pid_file: file(arguments, "pid-file")?,
        no_pivot: arguments.has("no-pivot"),
        no_new_keyring: arguments.has("no-new-keyring"),
        preserve: preserve.saturating_add(sockets.count()),
        sockets,
        stays,
    })
}

/// Makes a container whose process waits.
pub fn create(global: &Global, arguments: &Arguments) -> Result<u8> {
    let wish = wish(arguments, false)?;
    container::create(global, &wish).map(|_| 0)
}

/// Lets it run.
pub fn start(global: &Global, arguments: &Arguments) -> Result<u8> {
    let found = find(global, arguments.id()?)?;
    match found.status {
        Status::Created => {}
        Status::Stopped => return Err(Error::new("cannot start a container that has stopped")),
        status => return Err(Error::new(format!("cannot start a container that is {}", status.name()))),
    }
    let config = if found.record.has_hooks { found.annals.read("config.json")? } else { Vec::new() };
    container::start(&found.annals, &found.record, &config)?;
    Ok(0)
}

/// Both, and waits for the end.
pub fn run(global: &Global, arguments: &Arguments) -> Result<u8> {
    let stays = !arguments.has("detach");
    let wish = wish(arguments, stays)?;
    if !stays {
        let Created { annals, record, config, .. } = container::create(global, &wish)?;
        let started = container::start(&annals, &record, config);
        drop(annals);
        if started.is_err() {
            delete::remove(global, &record.id, true)?;
        }
        return started.map(|()| 0);
    }
    let Created { annals, record, config, running } = container::create(global, &wish)?;
    let started =
        foreground::hold_signals().and_then(|signals| container::start(&annals, &record, config).map(|()| signals));
    let left = annals.leave();
    let code = match started {
        Ok(signals) => foreground::attend(running.pid, running.terminal, signals),
        Err(error) => {
            let _ = sys::signal_pidfd(running.pidfd, libc::SIGKILL);
            Err(error)
        }
    };
    // What only the start needed goes with this process: to give it back takes as long, and now somebody waits.
    std::mem::forget(running);
    if code.is_err() || !arguments.has("keep") {
        // Perhaps somebody else was quicker.
        left.again()?.map_or(Ok(()), |annals| delete::take_apart(global, annals, &record, true))?;
    }
    code
}
