//! `kill`: a signal, by number or name.

use std::os::fd::AsRawFd;

use pyrt_container::sys;

use crate::arguments::{Arguments, Global, Usage, switch};
use crate::cgroups;
use crate::container::Status;
use crate::error::{Error, Result};
use crate::process;

use super::look;

/// How it is called.
pub const USAGE: Usage = Usage {
    words: "ID [SIGNAL]",
    count: (1, 2),
    flags: &[switch("all", "all processes of the container").or('a')],
    ..Usage::of("kill", "send a signal, by name or number; TERM if absent", "kill web HUP")
};

/// signal(7), in the order of their numbers on x86-64 and AArch64, from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
const FIRST_REALTIME: i32 = 34;
const LAST: i32 = 64;

/// The verb.
pub fn kill(global: &Global, arguments: &Arguments) -> Result<u8> {
    let id = arguments.id()?;
    let signal = parse(arguments.words.get(1).map_or("TERM", String::as_str))?;
    // Without the lock: what is being created or deleted must be killable.
    let (record, status) = look(global, id)?;
    // Without a pid namespace of its own nobody else ends the others with the first.
    let all = arguments.has("all") || (signal == libc::SIGKILL && !record.has_pid_namespace);
    if all {
        cgroups::signal(&record.cgroups, signal)?;
    } else if matches!(status, Status::Stopped | Status::Creating) {
        return Err(Error::new(format!("container not running: {id} is {}", status.name())));
    } else {
        let failed = |errno| Error::call(&format!("signalling container {id}"), errno);
        let pidfd = process::open(record.pid).map_err(failed)?;
        if process::is_alive(record.pid, record.start_time) {
            sys::signal_pidfd(pidfd.as_raw_fd(), signal).map_err(failed)?;
        }
    }
    if signal == libc::SIGKILL && status == Status::Paused {
        // On version 1 a frozen process does not die.
        cgroups::freeze(&record.cgroups, false)?;
    }
    Ok(0)
}

fn parse(text: &str) -> Result<i32> {
    let number = match text.parse::<i32>() {
        Ok(number) => Some(number),
        Err(_) => named(text.to_ascii_uppercase().trim_start_matches("SIG")),
    };
    let known = number.filter(|number| (0..=LAST).contains(number));
    known.ok_or_else(|| Error::new(format!("{text}: no such signal")))
}

fn named(name: &str) -> Option<i32> {
    if let Some(index) = SIGNALS.iter().position(|known| *known == name) {
        return i32::try_from(index + 1).ok();
    }
    let offset = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i32>().ok() };
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX"), name) {
        (Some(plus), _, _) => offset(plus.trim_start_matches('+')).map(|plus| FIRST_REALTIME + plus),
        (_, Some(minus), _) => offset(minus.trim_start_matches('-')).map(|minus| LAST - minus),
        (_, _, "CLD") => Some(libc::SIGCHLD),
        (_, _, "IOT") => Some(libc::SIGABRT),
        (_, _, "POLL") => Some(libc::SIGIO),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("sigkill", 9), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-14", 50), ("SYS", 31)]
        {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "NO", "65", "-1", "RTMIN+99", "SIG"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
