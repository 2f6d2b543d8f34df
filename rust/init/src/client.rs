//! The command `pyrt`. It knows no verb: it hands arguments, environment, working directory and the
//! descriptors 0 to 2 to the server, which runs the verb in Python, and then does what the server
//! can't: copy between the user's descriptors and the container's, keep the terminal, pass on signals.
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
//! of this; the bytes of a frame are described in [`frame`].

mod frame;
mod launch;
mod place;
mod pump;
mod relay;
mod session;
mod signals;
mod terminal;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use frame::Call;
use place::Place;
use session::{Ending, NotRun, Session};
use signals::Signals;

/// pyrt's own errors end with this, as `docker run` has it.
const OWN_ERROR: u8 = 125;

/// Why the client could not do its part: a sentence, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    sentence: String,
    hint: Option<String>,
}

impl Failure {
    /// Without the number that Rust puts behind the kernel's words.
    fn new(sentence: impl Into<String>) -> Self {
        let mut sentence = sentence.into();
        if let Some(end) = sentence.rfind(" (os error ").filter(|_| sentence.ends_with(')')) {
            sentence.truncate(end);
        }
        Self { sentence, hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn report(&self) {
        eprintln!("pyrt: {}", self.sentence);
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
    }
}

/// The caller's own descriptors 0 to 2.
pub struct Streams([OwnedFd; 3]);

impl Streams {
    fn of_this_process() -> Result<Self, Failure> {
        let own = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|error| Failure::new(format!("duplicating a standard stream: {error}")))
        };
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        Ok(Self([own(input.as_fd())?, own(output.as_fd())?, own(error.as_fd())?]))
    }

    fn get(&self, number: usize) -> BorrowedFd<'_> {
        self.0[number].as_fd()
    }

    fn all(&self) -> [BorrowedFd<'_>; 3] {
        [self.get(0), self.get(1), self.get(2)]
    }
}

/// Runs one command and returns its exit status; `arguments` begin with the program's name.
pub fn main(arguments: &[OsString]) -> u8 {
    // A server can't be asked to become one: this word alone is the client's own.
    let result = match arguments.get(1) {
        Some(verb) if verb == "serve" => Err(launch::become_server(&arguments[1..])),
        _ => run(&arguments[1.min(arguments.len())..]),
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

fn run(arguments: &[OsString]) -> Result<Ending, Failure> {
    let place = Place::find()?;
    let call = Call::of_this_process(arguments)?;
    let streams = Streams::of_this_process()?;
    let signals = Signals::new()?;
    for _ in 0..ATTEMPTS {
        let socket = launch::connect(&place)?;
        let not_run = match Session::new(socket, &streams).run(&call, &signals)? {
            Ok(ending) => return Ok(ending),
            Err(not_run) => not_run,
        };
        // Starting a server takes a while, in which Ctrl-C is to end this process.
        signals.release();
        if let NotRun::OtherVersion(socket) = not_run {
            session::drain(socket)?;
        }
    }
    Err(Failure::new(format!("the server at {} does not take this call", place.socket().display()))
        .hint("two versions of pyrt may be in use at once; PYRT_RUN gives each a server of its own"))
}
