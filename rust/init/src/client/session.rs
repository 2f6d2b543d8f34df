//! One call, from its first byte to its exit status.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::frame::{self, Arrival, Call, Ends, Frame, Inbox};
use super::pump::{Pump, Sink, is_deaf};
use super::relay::Relay;
use super::signals::Signals;
use super::{Failure, OWN_ERROR, Streams, terminal};

/// After so many requests to end the client ends, whether the server listens or not.
const PATIENCE: usize = 2;
/// A container is asked once more: some take the first as a wish to finish what they do.
const PATIENCE_WITH_CONTAINER: usize = 3;
/// A server that has not even read a request to end by then is stopped, or hangs. Long enough for one that starts
/// hundreds of containers just now: whoever leaves it kills what he was attached to.
const TO_READ: Duration = Duration::from_secs(3);
/// Between two looks whether it has.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
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
    OtherVersion(OwnedFd),
}

/// What a frame leads to.
enum Outcome {
    End(Ending),
    OtherVersion,
}

/// Bytes of a Text on their way to descriptor 1 or 2.
struct Writing {
    stream: usize,
    bytes: Vec<u8>,
}

/// One connection.
pub struct Session<'a> {
    socket: OwnedFd,
    streams: &'a Streams,
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
    asked: Option<(u8, Instant)>,
    heard_of_server: bool,
    lost_output: bool,
}

fn failed(action: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{action}: {error}"))
}

/// Bytes that have been sent and that the other side has not read: unix(7), SIOCOUTQ.
fn unread(socket: &OwnedFd) -> i32 {
    let mut count = 0;
    // SAFETY: the request writes one int, into one that is there.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result == 0 { count } else { 0 }
}

/// Asks a server to make room for another and waits until it has.
pub fn drain(socket: OwnedFd) -> Result<(), Failure> {
    rustix::net::send(&socket, &frame::drain(), SendFlags::NOSIGNAL)
        .map_err(|error| failed("asking the server of another version to end", error))?;
    let mut piece = [0; 256];
    while !matches!(rustix::io::read(&socket, &mut piece), Ok(0) | Err(Errno::CONNRESET)) {}
    Ok(())
}

impl<'a> Session<'a> {
    /// On a fresh connection.
    pub fn new(socket: OwnedFd, streams: &'a Streams) -> Self {
        Self {
            socket,
            streams,
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
        }
    }

    /// Has the call run, and returns how it ended.
    pub fn run(mut self, call: &Call, signals: &Signals) -> Result<Result<Ending, NotRun>, Failure> {
        match call.send(self.socket.as_fd(), &self.streams.all()) {
            // A server that refuses a call may say so and close before it has read all of it.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => return Err(failed("calling the server", error)),
        }
        signals.catch();
        loop {
            self.wait(signals)?;
            if let Some(ending) = self.on_signals(signals).or_else(|| self.copy()).or_else(|| self.lose_patience()) {
                return Ok(Ok(ending));
            }
            self.send_signals()?;
            if self.receive()? {
                return Ok(Err(NotRun::Ending));
            }
            match self.act(signals)? {
                None => {}
                Some(Outcome::End(ending)) => return Ok(Ok(ending)),
                Some(Outcome::OtherVersion) => return Ok(Err(NotRun::OtherVersion(self.socket))),
            }
        }
    }

    fn wait(&self, signals: &Signals) -> Result<(), Failure> {
        let mut waited = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, self.next.is_none());
        events.set(PollFlags::OUT, !self.outbox.is_empty());
        // After its last frame the server closes, which is no news while that frame is not acted on.
        if !events.is_empty() {
            waited.push(PollFd::from_borrowed_fd(self.socket.as_fd(), events));
        }
        if let Some(relay) = &self.relay {
            waited.extend(relay.pumps().flat_map(Pump::interest));
        }
        if let Some(writing) = &self.writing {
            waited.push(PollFd::from_borrowed_fd(self.streams.get(writing.stream), PollFlags::OUT));
        } else if self.watches_reader() {
            waited.push(PollFd::from_borrowed_fd(self.streams.get(1), PollFlags::empty()));
        }
        // Nothing tells that the server has read something: it is looked at again.
        let patience = self.asked.map(|_| LOOK_EVERY);
        match poll(&mut waited, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(failed("waiting", error)),
        }
    }

    /// A reader who has been written to is missed when gone: `pyrt events | head -1` has to end.
    fn watches_reader(&self) -> bool {
        self.relay.is_none() && self.sinks[0].is_some()
    }

    fn on_signals(&mut self, signals: &Signals) -> Option<Ending> {
        let mut ending = None;
        while let (None, Some(signal)) = (&ending, signals.next()) {
            match signal {
                libc::SIGWINCH => self.tell_window(),
                libc::SIGTSTP => self.stop(signals),
                libc::SIGCONT => self.resume(signals),
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
            self.asked.get_or_insert_with(|| (number, Instant::now()));
        }
        let patience = if self.relay.is_some() { PATIENCE_WITH_CONTAINER } else { PATIENCE };
        (self.requests_to_end >= patience).then_some(Ending::Signal(number))
    }

    /// Ends for a server that does nothing about a request to end. What a container does about it is its own affair.
    fn lose_patience(&mut self) -> Option<Ending> {
        let (number, since) = self.asked?;
        let is_read = self.outbox.is_empty() && unread(&self.socket) == 0;
        if is_read && self.relay.is_some() {
            self.asked = None;
            return None;
        }
        (since.elapsed() >= if is_read { TO_ANSWER } else { TO_READ }).then_some(Ending::Signal(number))
    }

    fn tell_window(&mut self) {
        let Some(size) = terminal::window([1, 0, 2].map(|number| self.streams.get(number))) else {
            return;
        };
        if let Some(master) = self.relay.as_ref().and_then(|relay| relay.master.as_ref()) {
            terminal::resize(master, size);
        }
        // The server does not see it where the master is not that of the container's own terminal.
        self.outbox.extend(frame::window(size.ws_row, size.ws_col));
    }

    /// The shell gets its terminal as it was, and the container goes on.
    fn stop(&mut self, signals: &Signals) {
        if let Some(mode) = self.relay.as_mut().and_then(|relay| relay.raw_mode.as_mut()) {
            mode.leave();
        }
        signals.stop();
        self.resume(signals);
    }

    fn resume(&mut self, signals: &Signals) {
        if let Some(mode) = self.relay.as_mut().and_then(|relay| relay.raw_mode.as_mut()) {
            signals.watch_stop(true);
            mode.enter_again();
            self.tell_window();
        }
    }

    fn send_signals(&mut self) -> Result<(), Failure> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        match rustix::net::send(&self.socket, &self.outbox, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => drop(self.outbox.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // What the server said before it closed is still to be read.
            Err(Errno::PIPE | Errno::CONNRESET) => self.outbox.clear(),
            Err(error) => return Err(failed("signalling the server", error)),
        }
        Ok(())
    }

    /// One turn of everything that flows; an ending if the user's side is gone.
    fn copy(&mut self) -> Option<Ending> {
        if self.watches_reader() && is_deaf(self.streams.get(1)) {
            return Some(Ending::Signal(libc::SIGPIPE as u8));
        }
        let relay = self.relay.as_mut()?;
        let error = relay.turn()?;
        if relay.master.is_some() {
            return Some(Ending::Signal(libc::SIGHUP as u8));
        }
        if error != Errno::PIPE {
            self.lost_output = true;
            failed("writing the container's output", error).report();
        }
        None
    }

    /// Reads from the server; whether it went away without having looked at the call.
    fn receive(&mut self) -> Result<bool, Failure> {
        if self.next.is_some() {
            return Ok(false);
        }
        let arrival = self.inbox.fill(self.socket.as_fd())?;
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
    fn act(&mut self, signals: &Signals) -> Result<Option<Outcome>, Failure> {
        loop {
            if let Some(ending) = self.write()? {
                return Ok(Some(Outcome::End(ending)));
            }
            if self.next.is_none() {
                self.next = self.inbox.next()?;
            }
            if self.writing.is_some() || !self.relay.as_ref().is_none_or(Relay::is_drained) {
                return Ok(None);
            }
            match self.next.take() {
                None => return Ok(None),
                Some(Frame::Other) => return Ok(Some(Outcome::OtherVersion)),
                Some(Frame::Text { stream, bytes }) => self.writing = Some(Writing { stream, bytes }),
                Some(Frame::Relay(ends)) => self.begin_relay(ends, signals)?,
                Some(Frame::Exit { status, signal }) => return Ok(Some(Outcome::End(self.ending(status, signal)))),
            }
        }
    }

    fn begin_relay(&mut self, ends: Ends, signals: &Signals) -> Result<(), Failure> {
        let relay = Relay::new(ends, self.streams, signals).map_err(|error| failed("preparing the streams", error))?;
        let has_terminal = relay.master.is_some();
        self.relay = Some(relay);
        if has_terminal {
            self.tell_window();
        }
        // What is there already flows before poll is asked.
        self.copy();
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
                Err(error) => return Err(failed("writing to stdout", error)),
            }
            if !writing.bytes.is_empty() {
                self.writing = Some(writing);
            }
        }
        Ok(None)
    }

    fn sink(&mut self, stream: usize) -> Result<&Sink, Failure> {
        match &mut self.sinks[stream - 1] {
            Some(sink) => Ok(sink),
            empty => {
                let sink = Sink::of_user(self.streams.get(stream)).map_err(|error| failed("opening stdout", error))?;
                Ok(empty.insert(sink))
            }
        }
    }
}
