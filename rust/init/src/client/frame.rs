//! Frames between client and server, as bytes.
//!
//! ```text
//! frame     length of the payload u32, kind u16, descriptors u16, payload
//!
//! 1  Call    protocol u16, count of arguments u32, then texts that each end in a NUL:
//!            version, directory, arguments, environment (NAME=value)
//! 2  Drain   -
//! 3  Signal  number u8
//! 4  Window  rows u16, columns u16
//! 16 Other   the server's version
//! 17 Text    stream u8 (1 or 2), bytes
//! 18 Relay   streams u8: 1 input, 2 output, 4 error, 8 terminal; a descriptor for each of the first
//!            three that is set, in this order, or the terminal's master alone
//! 19 Exit    status u8, signal u8 (0: none; else the client is to end by it)
//! ```
//!
//! All numbers are little-endian. Descriptors travel by SCM_RIGHTS with the first byte of their frame.
//! Drain, Other and the first three things in a Call never change, so that versions can tell each other apart.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use super::Failure;

/// Changes whenever a frame does; the server tells a client of another one its version and runs nothing.
pub const PROTOCOL: u16 = 1;
/// Arguments and environment together may be this long (Linux itself allows 6 MiB at most).
const LONGEST_CALL: usize = 4 << 20;
/// No frame from the server is longer.
const LONGEST_FRAME: usize = 1 << 20;
const HEADER: usize = 8;

const CALL: u16 = 1;
const DRAIN: u16 = 2;
const SIGNAL: u16 = 3;
const WINDOW: u16 = 4;
const OTHER: u16 = 16;
const TEXT: u16 = 17;
const RELAY: u16 = 18;
const EXIT: u16 = 19;

/// Bits of a Relay's `streams`.
const INPUT: u8 = 1;
const OUTPUT: u8 = 2;
const ERROR: u8 = 4;
const TERMINAL: u8 = 8;

/// What the server says.
#[derive(Debug)]
pub enum Frame {
    /// It is of another version and has run nothing.
    Other,
    /// Bytes for descriptor 1 or 2.
    Text { stream: usize, bytes: Vec<u8> },
    /// Descriptors to copy from and to.
    Relay(Ends),
    /// The verb is done.
    Exit { status: u8, signal: u8 },
}

/// The container's side of a relay.
#[derive(Debug)]
pub enum Ends {
    /// Pipes; `input` is a write end, the others are read ends.
    Pipes { input: Option<OwnedFd>, output: Option<OwnedFd>, error: Option<OwnedFd> },
    /// The master of a pseudo terminal; `input`: keys go in as well.
    Terminal { master: OwnedFd, input: bool },
}

fn header(kind: u16, descriptors: u16, payload: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload);
    out.extend_from_slice(&u32::try_from(payload).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&descriptors.to_le_bytes());
    out
}

/// A Signal's bytes.
pub fn signal(number: u8) -> Vec<u8> {
    let mut out = header(SIGNAL, 0, 1);
    out.push(number);
    out
}

/// A Window's bytes.
pub fn window(rows: u16, columns: u16) -> Vec<u8> {
    let mut out = header(WINDOW, 0, 4);
    out.extend_from_slice(&rows.to_le_bytes());
    out.extend_from_slice(&columns.to_le_bytes());
    out
}

/// A Drain's bytes.
pub fn drain() -> Vec<u8> {
    header(DRAIN, 0, 0)
}

/// What this process was asked to do, ready to be sent any number of times.
pub struct Call(Vec<u8>);

impl Call {
    /// With this process's directory and environment. A directory that is gone travels as "".
    pub fn of_this_process(arguments: &[OsString]) -> Result<Self, Failure> {
        let directory = std::env::current_dir().map(OsString::from).unwrap_or_default();
        let environment: Vec<OsString> = std::env::vars_os()
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                name
            })
            .collect();
        Self::encode(&directory, arguments, &environment)
    }

    fn encode(directory: &OsStr, arguments: &[OsString], environment: &[OsString]) -> Result<Self, Failure> {
        let mut payload = PROTOCOL.to_le_bytes().to_vec();
        payload.extend(u32::try_from(arguments.len()).unwrap_or(u32::MAX).to_le_bytes());
        let first = [OsStr::new(env!("CARGO_PKG_VERSION")), directory];
        let rest = arguments.iter().chain(environment).map(OsString::as_os_str);
        for text in first.into_iter().chain(rest) {
            payload.extend_from_slice(text.as_bytes());
            payload.push(0);
        }
        if payload.len() > LONGEST_CALL {
            return Err(Failure::new("arguments and environment are longer than 4 MiB")
                .hint("put what is long into a file (--env-file, -v) or pass it through stdin (-i)"));
        }
        let mut bytes = header(CALL, 3, payload.len());
        bytes.append(&mut payload);
        Ok(Self(bytes))
    }

    /// Sends it, with the descriptors 0 to 2; waits as long as the server does not read.
    pub fn send(&self, socket: BorrowedFd<'_>, streams: &[BorrowedFd<'_>; 3]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(streams));
        let bytes = [io::IoSlice::new(&self.0)];
        let mut sent = rustix::net::sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)?;
        while sent < self.0.len() {
            sent += rustix::net::send(socket, &self.0[sent..], SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }
}

/// Why what arrived is no frame, for the user.
fn malformed() -> Failure {
    Failure::new("the server speaks another language than this client").hint("is PYRT_RUN the folder of a pyrt server?")
}

/// What has arrived and is not taken yet.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

/// What one read from the server gave.
#[derive(PartialEq, Eq)]
pub enum Arrival {
    /// Bytes, or nothing for now.
    Open,
    /// The server has closed the connection.
    Closed,
    /// The kernel says that nobody had taken the call, or not all of it.
    Reset,
}

impl Inbox {
    /// Whether anything has ever come that is still here.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads once from a socket that does not block.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> Result<Arrival, Failure> {
        let mut buffer = [0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = rustix::net::recvmsg(socket, &mut [io::IoSliceMut::new(&mut buffer)], &mut control, flags);
        let count = match received {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Arrival::Open),
            Err(Errno::CONNRESET) => return Ok(Arrival::Reset),
            Err(error) => return Err(Failure::new(format!("reading from the server: {error}"))),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(if count == 0 { Arrival::Closed } else { Arrival::Open })
    }

    /// The next whole frame.
    pub fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let Some(&[a, b, c, d, k, l, m, n]) = self.bytes.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > LONGEST_FRAME {
            return Err(malformed());
        }
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        let payload = self.bytes[HEADER..HEADER + length].to_vec();
        self.bytes.drain(..HEADER + length);
        let count = usize::from(u16::from_le_bytes([m, n]));
        if count > self.descriptors.len() {
            return Err(malformed());
        }
        let descriptors = self.descriptors.drain(..count);
        parse(u16::from_le_bytes([k, l]), payload, descriptors).ok_or_else(malformed).map(Some)
    }
}

fn parse(kind: u16, mut payload: Vec<u8>, mut descriptors: impl Iterator<Item = OwnedFd>) -> Option<Frame> {
    match (kind, payload.as_slice()) {
        (OTHER, _) => Some(Frame::Other),
        (TEXT, &[stream @ (1 | 2), ..]) => {
            payload.remove(0);
            Some(Frame::Text { stream: stream.into(), bytes: payload })
        }
        (RELAY, &[streams]) if streams & TERMINAL != 0 => {
            let ends = Ends::Terminal { master: descriptors.next()?, input: streams & INPUT != 0 };
            Some(Frame::Relay(ends))
        }
        (RELAY, &[streams]) => {
            let mut end = |bit| if streams & bit == 0 { Some(None) } else { descriptors.next().map(Some) };
            Some(Frame::Relay(Ends::Pipes { input: end(INPUT)?, output: end(OUTPUT)?, error: end(ERROR)? }))
        }
        (EXIT, &[status, signal]) => Some(Frame::Exit { status, signal }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(kind: u16, payload: &[u8]) -> Result<Option<Frame>, Failure> {
        let mut inbox = Inbox::default();
        inbox.bytes.extend(header(kind, 0, payload.len()));
        inbox.bytes.extend(payload);
        inbox.next()
    }

    #[test]
    fn a_text_names_its_stream() {
        let frame = received(TEXT, b"\x02pyrt: no").unwrap().unwrap();
        assert!(matches!(frame, Frame::Text { stream: 2, bytes } if bytes == b"pyrt: no"));
        assert!(received(TEXT, b"\x03x").is_err());
    }

    #[test]
    fn a_frame_that_is_not_whole_waits() {
        let mut inbox = Inbox::default();
        let whole = [header(EXIT, 0, 2), vec![7, 0]].concat();
        for byte in &whole[..whole.len() - 1] {
            inbox.bytes.push(*byte);
            assert!(inbox.next().unwrap().is_none());
        }
        inbox.bytes.push(0);
        assert!(matches!(inbox.next().unwrap(), Some(Frame::Exit { status: 7, signal: 0 })));
    }

    #[test]
    fn garbage_and_missing_descriptors_are_refused() {
        assert!(received(999, b"").is_err());
        assert!(received(RELAY, &[OUTPUT]).is_err());
        let mut inbox = Inbox::default();
        inbox.bytes.extend(b"HTTP/1.1 400 Bad Request\r\n");
        assert!(inbox.next().is_err());
    }

    #[test]
    fn a_call_that_is_too_long_is_refused_with_a_hint() {
        let long = OsString::from("x".repeat(LONGEST_CALL));
        let failure = Call::encode(OsStr::new("/"), &[long], &[]).err().unwrap();
        assert!(failure.hint.unwrap().contains("--env-file"));
    }
}
