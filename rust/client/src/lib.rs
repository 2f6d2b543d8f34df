//! The command `pyrt`, but for its first instructions (`main.rs`). It knows no verb: it hands arguments, environment,
//! working directory and the descriptors 0 to 2 to the server, which runs the verb in Python, and then does what the
//! server can't: copy between the user's descriptors and the container's, keep the terminal, pass on signals.
//!
//! One thread, one poll loop, and nothing in it that waits but `poll`: a full pipe on one side never
//! keeps a signal or the other direction from getting through.
//!
//! ```text
//! client                                                server
//!    | Call{version, directory, arguments, environment}    |
//!    |      + [0, 1, 2] --------------------------------->  |
//!    |                                                     |  parses and runs the verb
//!    | <----------------------------- Text{stream, bytes}  |  any number, for descriptor 1 or 2
//!    | <---------- Relay{streams} + [the container's ends]  |  copy between these and 0 to 2
//!    | Signal{number} ---------------------------------->  |  to the container, or ends the verb
//!    | Window{rows, columns} --------------------------->  |
//!    | <----------------------------- Exit{status, signal}  |  what is still in the pipes first
//!    | end of file ------------------------------------->  |  at any time: the client is gone, and
//!    |                                                     |  with it whatever was attached to it
//!
//!    | Call ------------------------------------------->   |  of another version
//!    | <------------------------------- Other{version}     |  nothing was run
//!    | Drain ------------------------------------------>   |  frees its socket, ends what it has to do
//!    | <------------------------------------ end of file   |  the client starts its own server
//! ```
//!
//! A Text, Relay or Exit is acted on when everything that an earlier Relay had in its pipes is out, so
//! that a sentence about a container follows its last line. `python/pyrt/cli/protocol.py` is the twin
//! of this; the bytes of a x
//! There is no C library in it. Before `main` a static one (glibc 2.36) asks the processor what it is by 68 CPUID
//! instructions, and in a virtual machine each of them goes to the hypervisor, for 8 to 30 us: a quarter of a whole
//! `pyrt run`. So all that is needed of one is here: [`sys`] and [`heap`].

#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod failure;
mod frame;
pub mod given;
pub mod heap;
mod launch;
mod place;
mod pump;
mod relay;
mod session;
mod signals;
pub mod sys;
mod terminal;

use alloc::format;

use failure::{Failure, shown};
use frame::Call;
use given::Given;
use place::Place;
use session::{Ending, NotRun, Session};

/// pyrt's own errors end with this, as `docker run` has it.
pub const OWN_ERROR: u8 = 125;

/// Runs one command and returns its exit status.
pub fn main(given: Given<'_>) -> u8 {
    // A server can't be asked to become one: this word alone is the client's own.
    let result = match given.words().first() {
        Some(verb) if verb.to_bytes() == b"serve" => Err(launch::become_server(given)),
        _ => run(given),
    };
    match result {
        Ok(Ending::Status(status)) => status,
        Ok(Ending::Signal(number)) => signals::die_of(number),
        Err(failure) => {
            failure.report();
            OWN_ERROR
        }
    }
}

/// A server of another version is replaced once; one that is on its way out may be met more often.
const ATTEMPTS: usize = 4;

fn run(given: Given<'_>) -> Result<Ending, Failure> {
    let place = Place::find(given)?;
    let call = Call::of(given)?;
    for _ in 0..ATTEMPTS {
        let socket = launch::connect(&place, given)?;
        match Session::run(socket, &call)? {
            Ok(ending) => return Ok(ending),
            Err(NotRun::Ending) => {}
            Err(NotRun::OtherVersion(socket)) => session::drain(socket)?,
        }
    }
    Err(Failure::new(format!("the server at {} does not take this call", shown(&place.socket())))
        .hint("two versions of pyrt may be in use at once; PYRT_RUN gives each a server of its own"))
}
