//! `create`, `start`, `run`: see `compile::lifecycle` for what happens between the first two.

use pyrt_container::sys;

use crate::arguments::{Arguments, Flag, Global, Order, switch, valued};
use crate::container::{self, Created, Status, Wish};
use crate::error::{Error, Result};
use crate::foreground;
use crate::sockets::Sockets;

use super::{delete, file, find};

const FLAGS: [Flag; 9] = [
    valued("bundle").or('b'),
    valued("console-socket"),
    valued("pid-file"),
    valued("preserve-fds"),
    switch("no-pivot"),
    switch("no-new-keyring"),
    switch("detach").or('d'),
    switch("keep"),
    switch("no-subreaper"),
];

fn wish(arguments: &Arguments, stays: bool) -> Result<Wish<'_>> {
    let sockets = Sockets::given()?;
    let preserve: u32 = arguments.number("preserve-fds")?.unwrap_or(0);
    Ok(Wish {
        id: arguments.id(1)?,
        bundle: arguments.value("bundle"),
        console_socket: arguments.value("console-socket"),
        pid_file: file(arguments, "pid-file")?,
        no_pivot: arguments.has("no-pivot"),
        no_new_keyring: arguments.has("no-new-keyring"),
        preserve: preserve.saturating_add(sockets.count()),
        sockets,
        stays,
    })
}

/// Makes a container whose process waits.
pub fn create(global: &Global, words: &[String]) -> Result<u8> {
    let arguments = Arguments::parse(words, &FLAGS, Order::Mixed)?;
    let wish = wish(&arguments, false)?;
    container::create(global, &wish).map(|_| 0)
}

/// Lets it run.
pub fn start(global: &Global, words: &[String]) -> Result<u8> {
    let arguments = Arguments::parse(words, &[], Order::Mixed)?;
    let found = find(global, arguments.id(1)?)?;
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
pub fn run(global: &Global, words: &[String]) -> Result<u8> {
    let arguments = Arguments::parse(words, &FLAGS, Order::Mixed)?;
    let stays = !arguments.has("detach");
    let wish = wish(&arguments, stays)?;
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
    let signals = foreground::hold_signals()?;
    let started = container::start(&annals, &record, config);
    let left = annals.leave();
    let code = match started {
        Ok(()) => foreground::attend(running.pid, running.terminal, signals),
        Err(error) => {
            let _ = sys::signal_pidfd(running.pidfd, libc::SIGKILL);
            Err(error)
        }
    };
    // What only the start needed goes with this process: to give it back takes as long, and now somebody waits.
    std::mem::forget(running);
    if code.is_err() || !arguments.has("keep") {
        // Perhaps somebody else was quicker.
        left.again().map_or(Ok(()), |annals| delete::take_apart(global, annals, &record, true))?;
    }
    code
}
