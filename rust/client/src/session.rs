//! One call, from its first byte to its exit status.

use alloc::vec::Vec;
use core::ffi::c_int;
use core::mem;
use core::time::Duration;

use libc::{POLLIN, POLLOUT};

use crate::failure::Failure;
use crate::frame::{self, Arrival, Call, Ends, Frame, Inbox};
use crate::pump::{NOWHERE, Sink, look_at};
use crate::relay::{PUMPS, Relay};
use crate::signals::Signals;
use crate::sys::{self, Errno, Fd, Owned};
use crate::{OWN_ERROR, terminal};

/// After so many requests to end the client ends, whether the server listens or not.
const PATIENCE: usize = 2;
/// A container is asked once more: some take the first as a wish to finish what they do.
const PATIENCE_WITH_CONTAINER: usize = 3;
/// A server that has not even read a request to end by then is stopped, or hangs. Long enough for one that starts
/// hundreds of containers just now: whoever leaves it kills what he was attached to.
const TO_READ: Duration = Duration::from_secs(3);
/// Milliseconds between two looks whether it has.
const LOOK_EVERY: c_int = 250;
/// Without a container there is little to undo before it answers.
const TO_ANSWER: Duration = Duration::from_secs(5);

/// How this process is to end.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit status.
    Status(u8),
    /// By this signal.
    Signal(u8),
}

/// Why a server took no notice of a call.
pub enum NotRun {
    /// It was about to end itself.
    Ending,
    /// It is of another version, and waits on this connection to be told what to do.
    OtherVersion(Owned),
}

/// What a frame leads to.
enum Outcome {
    End(Ending),
    Unheard,
    OtherVersion,
}

/// Bytes of a Text on their way to descriptor 1 or 2.
struct Writing {
    stream: Fd,
    bytes: Vec<u8>,
}

/// What poll(2) has said of each.
struct News {
    signals: i16,
    socket: i16,
    /// A descriptor of the user's that a Text goes to, or that has been written to and may have lost its reader.
    user: i16,
    pumps: [i16; 2 * PUMPS],
}

/// One connection.
pub struct Session {
    socket: Owned,
    signals: Signals,
    inbox: Inbox,
    outbox: Vec<u8>,
    /// Descriptors 1 and 2, once they have been written to.
    sinks: [Option<Sink>; 2],
    writing: Option<Writing>,
    /// Taken from the inbox and not acted on, because the relay has to be emptied first.
    next: Option<Frame>,
    relay: Option<Relay>,
    requests_to_end: usize,
    /// The first of them that the server has not dealt with: which signal, and when.
    asked: Option<(u8, Duration)>,
    heard_of_server: bool,
    lost_output: bool,
}

/// Asks a server to make room for another and waits until it has.
pub fn drain(socket: Owned) -> Result<(), Failure> {
    sys::send(socket.fd(), &frame::drain(), 0)
        .map_err(|error| Failure::of("asking the server of another version to end", error))?;
    let mut piece = [0; 256];
    while !matches!(sys::read(socket.fd(), &mut piece), Ok(0) | Err(Errno::CONNRESET)) {}
    Ok(())
}

impl Session {
    /// On a fresh connection, which has the call run; returns how it ended.
    pub fn run(socket: Owned, call: &Call) -> Result<Result<Ending, NotRun>, Failure> {
        match call.send(socket.fd()) {
            // A server that refuses a call may say so and close before it has read all of it.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => return Err(Failure::of("calling the server", error)),
        }
        let mut session = Self {
            socket,
            signals: Signals::catch()?,
            inbox: Inbox::default(),
            outbox: Vec::new(),
            sinks: [None, None],
            writing: None,
            next: None,
            relay: None,
            requests_to_end: 0,
            asked: None,
            heard_of_server: false,
            lost_output: false,
        };
        let outcome = loop {
            if let Some(outcome) = session.turn()? {
                break outcome;
            }
        };
        if let Outcome::End(ending) = outcome {
            return Ok(Ok(session.end(ending)));
        }
        // Starting a server takes a while, in which Ctrl-C is to end this process.
        session.signals.release();
        let is_other = matches!(outcome, Outcome::OtherVersion);
        Ok(Err(if is_other { NotRun::OtherVersion(session.socket) } else { NotRun::Ending }))
    }

    /// Puts the terminal right; all else is put away by the kernel, in whose hands this process is next.
    fn end(mut self, ending: Ending) -> Ending {
        drop(self.relay.as_mut().and_then(|relay| relay.raw_mode.take()));
        mem::forget(self);
        ending
    }

    /// Waits for something to happen and acts on it.
    fn turn(&mut self) -> Result<Option<Outcome>, Failure> {
        let news = self.wait()?;
        let ending = if news.signals == 0 { None } else { self.on_signals() };
        if let Some(ending) = ending.or_else(|| self.copy(&news)).or_else(|| self.lose_patience()) {
            return Ok(Some(Outcome::End(ending)));
        }
        self.send_signals()?;
        if news.socket & !POLLOUT != 0 && self.receive()? {
            return Ok(Some(Outcome::Unheard));
        }
        self.act()
    }

    fn wait(&self) -> Result<News, Failure> {
        let incoming = if self.next.is_none() { POLLIN } else { 0 };
        let outgoing = if self.outbox.is_empty() { 0 } else { POLLOUT };
        let mut all = [NOWHERE; 3 + 2 * PUMPS];
        all[0] = look_at(self.signals.fd(), POLLIN);
        // After its last frame the server closes, which is no news while that frame is not acted on.
        if incoming | outgoing != 0 {
            all[1] = look_at(self.socket.fd(), incoming | outgoing);
        }
        if let Some(writing) = &self.writing {
            all[2] = look_at(writing.stream, POLLOUT);
        } else if self.watches_reader() {
            all[2] = look_at(1, 0);
        }
        if let Some(relay) = &self.relay {
            all[3..].copy_from_slice(&relay.interest());
        }
        // Nothing tells that the server has read something: it is looked at again.
        match sys::poll(&mut all, if self.asked.is_some() { LOOK_EVERY } else { -1 }) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::of("waiting", error)),
        }
        let [signals, socket, user, pumps @ ..] = all.map(|told| told.revents);
        Ok(News { signals, socket, user, pumps })
    }

    /// A reader who has been written to is missed when gone: `pyrt events | head -1` has to end.
    fn watches_reader(&self) -> bool {
        self.relay.is_none() && self.sinks[0].is_some()
    }

    fn on_signals(&mut self) -> Option<Ending> {
        let mut ending = None;
        while let (None, Some(signal)) = (&ending, self.signals.next()) {
            match signal {
                libc::SIGWINCH => self.tell_window(),
                libc::SIGTSTP => self.stop(),
                libc::SIGCONT => self.resume(),
                _ => ending = self.forward(signal),
            }
        }
        ending
    }

    fn forward(&mut self, signal: i32) -> Option<Ending> {
        let number = u8::try_from(signal).ok()?;
        self.outbox.extend(frame::signal(number));
        if matches!(signal, libc::SIGINT | libc::SIGTERM | libc::SIGQUIT) {
            self.requests_to_end += 1;
            self.asked.get_or_insert_with(|| (number, sys::clock()));
        }
        let patience = if self.relay.is_some() { PATIENCE_WITH_CONTAINER } else { PATIENCE };
        (self.requests_to_end >= patience).then_some(Ending::Signal(number))
    }

    /// Ends for a server that does nothing about a request to end. What a container does about it is its own affair.
    fn lose_patience(&mut self) -> Option<Ending> {
        let (number, since) = self.asked?;
        let is_read = self.outbox.is_empty() && sys::unread(self.socket.fd()) == 0;
        if is_read && self.relay.is_some() {
            self.asked = None;
            return None;
        }
        (sys::clock() - since >= if is_read { TO_ANSWER } else { TO_READ }).then_some(Ending::Signal(number))
    }

    fn tell_window(&mut self) {
        let Some(size) = terminal::window() else {
            return;
        };
        if let Some(master) = self.relay.as_ref().and_then(|relay| relay.master.as_ref()) {
            // The kernel sends SIGWINCH inside if this is a change.
            let _ = sys::set_window(master.fd(), &size);
        }
        // The server does not see it where the master is not that of the container's own terminal.
        self.outbox.extend(frame::window(size.ws_row, size.ws_col));
    }

    /// The shell gets its terminal as it was, and the container goes on.
    fn stop(&mut self) {
        if let Some(mode) = self.relay.as_mut().and_then(|relay| relay.raw_mode.as_mut()) {
            mode.leave();
        }
        self.signals.stop();
        self.resume();
    }

    fn resume(&mut self) {
        if let Some(mode) = self.relay.as_mut().and_then(|relay| relay.raw_mode.as_mut()) {
            self.signals.watch_stop(true);
            mode.enter_again();
            self.tell_window();
        }
    }

    fn send_signals(&mut self) -> Result<(), Failure> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        match sys::send(self.socket.fd(), &self.outbox, libc::MSG_DONTWAIT) {
            Ok(count) => drop(self.outbox.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // What the server said before it closed is still to be read.
            Err(Errno::PIPE | Errno::CONNRESET) => self.outbox.clear(),
            Err(error) => return Err(Failure::of("signalling the server", error)),
        }
        Ok(())
    }

    /// One turn of everything that flows; an ending if the user's side is gone.
    fn copy(&mut self, news: &News) -> Option<Ending> {
        if self.writing.is_none() && news.user != 0 {
            return Some(Ending::Signal(libc::SIGPIPE as u8));
        }
        let relay = self.relay.as_mut()?;
        let error = relay.turn(&news.pumps)?;
        if relay.master.is_some() {
            return Some(Ending::Signal(libc::SIGHUP as u8));
        }
        if error != Errno::PIPE {
            self.lost_output = true;
            Failure::of("writing the container's output", error).report();
        }
        None
    }

    /// Reads from the server; whether it went away without having looked at the call.
    fn receive(&mut self) -> Result<bool, Failure> {
        if self.next.is_some() {
            return Ok(false);
        }
        let arrival = self.inbox.fill(self.socket.fd())?;
        self.heard_of_server |= !self.inbox.is_empty();
        self.next = self.inbox.next()?;
        match arrival {
            Arrival::Open => Ok(false),
            _ if self.next.is_some() => Ok(false),
            Arrival::Reset if !self.heard_of_server => Ok(true),
            _ => Err(Failure::new("the server has ended in the middle of this command")
                .hint("its log, beside its socket, may say why")),
        }
    }

    /// Acts on the frames that are here, as far as the relay and the user's descriptors allow.
    fn act(&mut self) -> Result<Option<Outcome>, Failure> {
        loop {
            if let Some(ending) = self.write()? {
                return Ok(Some(Outcome::End(ending)));
            }
            if self.next.is_none() {
                self.next = self.inbox.next()?;
            }
            if self.next.is_none() || self.writing.is_some() || !self.relay.as_ref().is_none_or(Relay::is_drained) {
                return Ok(None);
            }
            match self.next.take() {
                None => return Ok(None),
                Some(Frame::Other) => return Ok(Some(Outcome::OtherVersion)),
                Some(Frame::Text { stream, bytes }) => self.writing = Some(Writing { stream, bytes }),
                Some(Frame::Relay(ends)) => self.begin_relay(ends)?,
                Some(Frame::Exit { status, signal }) => return Ok(Some(Outcome::End(self.ending(status, signal)))),
            }
        }
    }

    fn begin_relay(&mut self, ends: Ends) -> Result<(), Failure> {
        let relay = Relay::new(ends, &self.signals).map_err(|error| Failure::of("preparing the streams", error))?;
        let has_terminal = relay.master.is_some();
        self.relay = Some(relay);
        if has_terminal {
            self.tell_window();
        }
        Ok(())
    }

    fn ending(&self, status: u8, signal: u8) -> Ending {
        match (status, signal) {
            (0, 0) if self.lost_output => Ending::Status(OWN_ERROR),
            (status, 0) => Ending::Status(status),
            (_, signal) => Ending::Signal(signal),
        }
    }

    /// Writes what a Text has left, as far as it goes in now.
    fn write(&mut self) -> Result<Option<Ending>, Failure> {
        while let Some(mut writing) = self.writing.take() {
            match self.sink(writing.stream)?.write(&writing.bytes) {
                Ok(count) => drop(writing.bytes.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.writing = Some(writing);
                    return Ok(None);
                }
                Err(Errno::PIPE) if writing.stream == 1 => return Ok(Some(Ending::Signal(libc::SIGPIPE as u8))),
                // Nobody reads the errors: then there is nobody to tell.
                Err(_) if writing.stream == 2 => writing.bytes.clear(),
                Err(error) => return Err(Failure::of("writing to stdout", error)),
            }
            if !writing.bytes.is_empty() {
                self.writing = Some(writing);
            }
        }
        Ok(None)
    }

    fn sink(&mut self, stream: Fd) -> Result<&Sink, Failure> {
        match &mut self.sinks[usize::from(stream == 2)] {
            Some(sink) => Ok(sink),
            empty => {
                let sink = Sink::of_user(stream).map_err(|error| Failure::of("opening stdout", error))?;
                Ok(empty.insert(sink))
            }
        }
    }
}
